"""Loops yield copies of values; mark_dirty() saves the copy of the current key."""

from __future__ import annotations

import contextlib
import copy
import io
import threading

import pytest

from tastypy_fast import (
    PersistentOrderedDictException,
)
from tests.support.stores import changing, is_tracker

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]

WALKS = {
    "items": lambda store: store.items(), "values": lambda store: zip(store, store.values(), strict=True),
    "iteritems": lambda store: store.iteritems(),
    "itervalues": lambda store: zip(store, store.itervalues(), strict=True),
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
@pytest.mark.parametrize("touched", ["nothing", "read", "changed", "held past a sync", "assigned"])
def test_values_of_a_loop_are_copies(kit, walk, touched):
    """``for k, v in pod.items(): v.pop("secret")`` saves nothing, for every history of the key."""
    store = kit.open(init=kit.pairs({key: {"l": [1], "secret": 1} for key in "abcd"}))
    store.sync()
    held = kit.plain(store["b"])
    expected = {"l": [1], "secret": 1}
    if touched == "changed":
        place = changing(store)["b"]
        (place["value"] if is_tracker(kit.cls) else place)["l"].append(2)
    elif touched == "held past a sync":
        store.sync()
    elif touched == "assigned":
        store["b"] = kit.value({"l": [1, 2], "secret": 1})
    if touched in ("changed", "assigned"):
        expected = {"l": [1, 2], "secret": 1}
    for key, value in walk(store):
        assert kit.plain(value) == (expected if key == "b" else {"l": [1], "secret": 1})
        assert kit.plain(value) is not held
        kit.plain(value).pop("secret")
        kit.plain(value)["l"].append("in the loop")
    everything = {key: expected if key == "b" else {"l": [1], "secret": 1} for key in "abcd"}
    assert store.dirty() == ({"b"} if touched in ("changed", "assigned") else set())
    for state in kit.states(store):
        assert kit.contents(state) == everything


def test_loops_and_comparisons_see_unsaved_changes_of_values_read_by_key(private_kit, nested, data):
    kit = private_kit
    data()["l"].append(2)
    expected = [("k", {"l": [1, 2], "d": {"x": [0]}}), ("other", [5])]
    for walk in WALKS.values():
        assert [(key, kit.plain(value)) for key, value in walk(nested)] == expected
    other = {key: kit.value(plain) for key, plain in expected}
    if is_tracker(kit.cls):
        other = {key: {"_done": False, "_aborted": False, "_tries": 0, **task} for key, task in other.items()}
    assert nested == other
    assert other == nested
    other["other"] = kit.value([6])
    assert nested != other
    lines = io.StringIO()
    nested.export_jsonl(lines)
    assert '"l":[1,2]' in lines.getvalue().replace(" ", "")
    nested.export_json(kit.folder / "files")
    assert '"l":[1,2]' in (kit.folder / "files" / "0.json").read_text().replace(" ", "")
    assert nested.dirty() == {"k"}
    assert kit.plain(nested.popitem(last=False)[1]) == expected[0][1]


def test_loop_yields_a_value_that_became_unstorable(private_kit, partly_unstorable, data):
    kit = private_kit
    found = kit.contents(partly_unstorable)
    assert found == {"k": {"l": [1, {1}], "d": {"x": [0]}}, "other": [5, 6], "third": [5, 6]}
    found["k"]["l"].clear()
    for key, _ in partly_unstorable.iteritems():
        partly_unstorable.mark_dirty(key)
    assert data()["l"] == [1, {1}]
    data()["l"].remove({1})
    assert kit.contents(kit.reopened(partly_unstorable))["k"]["l"] == [1]


def test_loop_names_the_key_of_a_value_that_cannot_be_copied(private_kit, nested, data):
    data()["l"].append(threading.Lock())
    with pytest.raises(PersistentOrderedDictException, match="'k'"):
        nested.items()
    nested.revert()


@pytest.mark.parametrize("assigned", [False, True], ids=["on disk", "in memory"])
def test_mark_dirty_in_a_loop_saves_the_changed_copy(private_kit, nested, assigned):
    if assigned:
        nested.update(nested.items())
    for key, value in nested.iteritems():
        private_kit.plain(value).clear()
        if key == "k":
            nested.mark_dirty(key)
    assert private_kit.contents(private_kit.reopened(nested)) == {"k": {}, "other": [5]}


@pytest.mark.parametrize("newer", [
    lambda kit, store: store.__setitem__("k", kit.value("newer")),
    lambda kit, store: (store.__setitem__("k", kit.value("newer")), store.sync()),
    lambda kit, store: (store.pop("k"), store.__setitem__("k", kit.value("newer"))),
    lambda kit, store: store.update({"k": kit.value("newer")}),
], ids=["assigned", "synced", "deleted and added", "updated"])
def test_mark_dirty_in_a_loop_does_not_undo_an_assignment(private_kit, nested, newer):
    iterator = nested.iteritems()
    assert next(iterator)[0] == "k"
    newer(private_kit, nested)
    nested.mark_dirty("k")
    assert private_kit.plain(private_kit.reopened(nested)["k"]) == "newer"


@pytest.mark.parametrize("synced", [False, True])
def test_mark_dirty_in_a_loop_does_not_undo_a_change_of_the_value_read_by_key(private_kit, nested, data, synced):
    for key, _ in nested.iteritems():
        if key == "k":
            data()["l"].append(2)
            if synced:
                nested.sync()
            nested.mark_dirty(key)
    assert private_kit.plain(private_kit.reopened(nested)["k"])["l"] == [1, 2]


@pytest.mark.parametrize("inside", [
    lambda store: store.values(), lambda store: store.items(), lambda store: store == {"k": 1, "other": 2},
    lambda store: store == dict(store.items()), lambda store: [dict(store.iteritems()), store.keys()],
    lambda store: next(store.iteritems()), lambda store: store.export_jsonl(io.StringIO()),
    lambda store: store.pop("none", None), lambda store: store.sync(), lambda store: store.__delitem__("last"),
    lambda store: store["other"], lambda store: store["k"],
], ids=["values", "items", "unequal", "equal", "dict", "next", "export", "pop", "sync", "delete", "read", "read it"])
def test_mark_dirty_in_a_loop_saves_the_copy_after_other_reads(private_kit, nested, inside):
    nested["last"] = private_kit.value([])
    nested.sync()
    for key, value in nested.iteritems():
        private_kit.plain(value).clear()
        if key == "k":
            inside(nested)
            nested.mark_dirty(key)
    assert private_kit.plain(private_kit.reopened(nested)["k"]) == {}


def test_mark_dirty_saves_the_changed_copy_of_a_nested_loop(private_kit, nested):
    kit = private_kit
    for key, value in nested.iteritems():
        for inner, copied in nested.iteritems():
            if inner == "other":
                kit.plain(copied).append(key)
                nested.mark_dirty(inner)
        if key == "k":
            kit.plain(value)["l"].append("outer")
            nested.mark_dirty(key)
    assert kit.contents(kit.reopened(nested)) == {"k": {"l": [1, "outer"], "d": {"x": [0]}}, "other": [5, "k", "other"]}


@pytest.mark.parametrize("synced", [False, True])
def test_mark_dirty_in_a_loop_does_not_restore_a_change_that_an_assignment_replaced(private_kit, nested, data, synced):
    before = private_kit.plain(copy.deepcopy(nested["k"]))
    data()["l"].append("dropped")
    for key, _ in nested.iteritems():
        if key == "k":
            nested[key] = private_kit.value(before)
            if synced:
                nested.sync()
            nested.mark_dirty(key)
    assert private_kit.plain(private_kit.reopened(nested)["k"]) == before


@pytest.mark.parametrize("synced", [False, True])
def test_saved_copy_replaces_the_watched_value(private_kit, nested, data, synced):
    kit = private_kit
    watched = data()
    watched["l"].append(2)
    for key, value in nested.iteritems():
        if key == "k":
            copied = kit.plain(value)
            assert copied["l"] == [1, 2]
            watched["l"].append("in what was read")
            if synced:
                nested.sync()
            copied["l"].append("in the copy")
            nested.mark_dirty(key)
    assert data()["l"] == [1, 2, "in the copy"]
    # As after an assignment, the copy is watched now.
    watched["l"].append("in vain")
    copied["l"].append("at last")
    assert kit.plain(kit.reopened(nested)["k"])["l"] == [1, 2, "in the copy", "at last"]


@pytest.mark.parametrize("walk", ["items", "values"])
def test_mark_dirty_saves_no_copy_from_a_list_of_items(private_kit, nested, walk):
    kit = private_kit
    keys = nested.keys()
    for key, found in zip(keys, getattr(nested, walk)(), strict=True):
        kit.plain(found[1] if walk == "items" else found).clear()
        nested.mark_dirty(key)
    assert kit.contents(kit.reopened(nested)) == {"k": {"l": [1], "d": {"x": [0]}}, "other": [5]}


@pytest.mark.parametrize("block", ["none", "locked", "transaction"])
def test_mark_dirty_saves_no_copy_of_a_shared_store(kit, block):
    if not kit.is_shared:
        pytest.skip("a private store saves the copy that its loop has just yielded")
    store = kit.open(init=kit.pairs({"k": [1], "other": [5]}))
    store.sync()
    with getattr(store, block)() if block != "none" else contextlib.nullcontext():
        for key, value in store.iteritems():
            kit.plain(value).append(2)
            store.mark_dirty(key)
    assert store.dirty() == {"k", "other"}
    assert kit.contents(store) == {"k": [1], "other": [5]}
