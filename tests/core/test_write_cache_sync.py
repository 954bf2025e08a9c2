"""sync(), sync_key(), hold(), mark_dirty() and revert(): what is on disk, and when."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    UnstorableValueError,
)
from tests.support.contract import ABC
from tests.support.stores import changing, is_tracker

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


def test_sync_saves_everything(kit, store):
    store.update(kit.pairs(ABC))
    assert store.dirty() == {"a", "b", "c"}
    assert type(store.dirty()) is set
    store.sync()
    assert store.dirty() == set()
    store.revert()
    assert kit.contents(store) == ABC


def test_nothing_is_saved_before_a_sync(kit, store):
    store.update(kit.pairs(ABC))
    store.revert()
    assert len(store) == 0
    assert store.dirty() == set()


def test_syncing_twice_changes_nothing(kit, abc):
    abc.sync()
    abc.sync()
    assert kit.contents(kit.reopened(abc)) == ABC


@pytest.mark.parametrize("sync_at", [1, 2, 3, 10])
def test_automatic_sync_happens_at_sync_at_dirty_keys(kit, sync_at):
    store = kit.open(sync_at=sync_at)
    for number in range(25):
        if store.dirty():
            # Changing the same key again does not add a dirty key.
            store[number - 1] = kit.value("again")
        store[number] = kit.value("new")
        assert len(store.dirty()) == (number + 1) % sync_at
    store.revert()
    assert len(store) == 25 - 25 % sync_at


def test_deletions_count_towards_sync_at(kit):
    store = kit.open(init=kit.pairs(ABC), sync_at=2)
    store.sync()
    del store["a"]
    assert store.dirty() == {"a"}
    del store["b"]
    assert store.dirty() == set()
    store.revert()
    assert store.keys() == ["c"]


@pytest.mark.parametrize(("sync_at", "left"), [(2, set()), (3, set()), (4, {"a", "b", "c"})])
def test_unhold_syncs_at_once_if_sync_at_keys_are_dirty(kit, sync_at, left):
    store = kit.open(sync_at=sync_at)
    store.hold()
    store.update(kit.pairs(ABC))
    assert store.dirty() == {"a", "b", "c"}
    store.unhold()
    assert store.dirty() == left
    store["d"] = kit.value(4)
    assert store.dirty() == ({"d"} if sync_at < 4 else set())


def test_unhold_without_a_hold_syncs_too(kit):
    patient, hasty = kit.open(sync_at=100), kit.open(sync_at=3)
    patient.update(kit.pairs(ABC))
    assert patient.dirty() == {"a", "b", "c"}
    hasty.unhold()
    assert patient.dirty() == set()


def test_unhold_counts_deletions_and_changes_of_values(kit):
    store = kit.open(sync_at=3, init=kit.pairs({"a": [1], "b": [2], "c": [3]}))
    store.sync()
    store.hold()
    del store["a"]
    for key in "bc":
        value = changing(store)[key]
        (value["value"] if is_tracker(kit.cls) else value).append(4)
    assert store.dirty() == {"a", "b", "c"}
    store.unhold()
    assert store.dirty() == set()
    store.revert()
    assert kit.contents(store) == {"b": [2, 4], "c": [3, 4]}


def test_unhold_raises_the_error_of_its_sync_and_ends_the_hold(private_kit):
    kit = private_kit
    store = kit.open(sync_at=2, init=kit.pairs({"bad": [], "good": []}))
    store.sync()
    store.hold()
    kit.plain(store["bad"]).append({1})
    kit.plain(store["good"]).append(1)
    with pytest.raises(UnstorableValueError, match="'bad'"):
        store.unhold()
    assert store.dirty() == {"bad"}
    kit.plain(store["bad"]).clear()
    store["new"] = kit.value(1)
    assert store.dirty() == set()


def test_sync_during_a_hold_saves(kit):
    store = kit.open(sync_at=1)
    store.hold()
    store["a"] = kit.value(1)
    store.sync()
    assert store.dirty() == set()
    store["b"] = kit.value(2)
    assert store.dirty() == {"b"}
    store.sync_key("b")
    assert store.dirty() == set()


def test_close_during_a_hold_saves(kit):
    store = kit.open(sync_at=1)
    store.hold()
    store.update(kit.pairs(ABC))
    assert kit.contents(kit.reopened(store)) == ABC


def test_sync_key_saves_one_key_and_nothing_else(kit, store):
    store.update(kit.pairs(ABC))
    store.sync_key("b")
    assert store.dirty() == {"a", "c"}
    store.revert()
    assert kit.contents(store) == {"b": 2}


def test_sync_key_does_not_change_the_order(kit, store):
    store.update(kit.pairs(ABC))
    store.sync_key("c")
    store.sync_key("a")
    assert store.keys() == ["a", "b", "c"]
    assert kit.reopened(store).keys() == ["a", "b", "c"]


def test_sync_key_saves_a_deletion(kit, abc):
    abc.sync()
    del abc["a"], abc["b"]
    abc.sync_key("a")
    assert abc.dirty() == {"b"}
    abc.revert()
    assert abc.keys() == ["b", "c"]
    with pytest.raises(KeyError):
        abc.sync_key("a")


def test_sync_key_saves_a_key_at_its_new_position(kit, abc):
    abc.sync()
    del abc["a"]
    abc["d"] = kit.value(4)
    abc["a"] = kit.value(5)
    abc.sync_key("a")
    assert abc.dirty() == {"d"}
    assert abc.keys() == ["b", "c", "d", "a"]
    abc.revert()
    assert abc.keys() == ["b", "c", "a"]


def test_sync_key_of_a_clean_key_does_nothing(abc):
    abc.sync()
    abc.sync_key("a")
    assert abc.dirty() == set()


def test_mark_dirty_makes_a_key_dirty(kit, abc):
    abc.sync()
    abc.mark_dirty("b")
    assert abc.dirty() == {"b"}
    abc.sync()
    assert kit.contents(kit.reopened(abc)) == ABC


def test_mark_dirty_counts_towards_sync_at(kit):
    store = kit.open(init=kit.pairs(ABC), sync_at=2)
    store.sync()
    store.mark_dirty("a")
    store.mark_dirty("a")
    assert store.dirty() == {"a"}
    store.mark_dirty("b")
    assert store.dirty() == set()


def test_deleted_key_cannot_be_marked_dirty(abc):
    del abc["a"]
    with pytest.raises(KeyError):
        abc.mark_dirty("a")


def test_dirty_has_deleted_keys_only_if_they_were_saved(kit, abc):
    abc.sync()
    abc["new"] = kit.value(1)
    del abc["new"], abc["a"]
    assert abc.dirty() == {"a"}


def test_reading_does_not_make_dirty(kit, abc):
    abc.sync()
    abc["list"] = kit.value([1])
    abc.sync()
    assert kit.plain(abc["list"]) == [1]
    abc.items()
    abc.get("z")
    assert "a" in abc
    assert abc.dirty() == set()


def test_revert_restores_the_last_sync(kit, abc):
    abc.sync()
    abc["a"] = kit.value("changed")
    del abc["b"]
    del abc["c"]
    abc["c"] = kit.value("moved")
    abc["d"] = kit.value("new")
    abc.revert()
    assert list(kit.contents(abc).items()) == list(ABC.items())
    assert abc.dirty() == set()
    assert len(abc) == 3
    assert list(kit.contents(kit.reopened(abc)).items()) == list(ABC.items())


def test_keys_stay_in_order_after_a_revert(kit, abc):
    abc.sync()
    abc["x"] = kit.value(0)
    abc.revert()
    abc["y"] = kit.value(1)
    abc.sync()
    assert abc.keys() == ["a", "b", "c", "y"]


@pytest.mark.parametrize("end", ["close", "with", "collected"])
def test_store_is_saved_by_close_with_and_garbage_collection(kit, end):
    store = kit.cls(kit.folder / "ended")
    if end == "with":
        with store as entered:
            assert entered is store
            store.update(kit.pairs(ABC))
    else:
        store.update(kit.pairs(ABC))
        if end == "close":
            store.close()
    del store
    if end == "with":
        del entered
    again = kit.open("ended", file_size=7)  # An instance that is still open would refuse another file_size.
    assert kit.contents(again) == ABC


def test_with_block_saves_after_an_exception(kit):
    store = kit.open()

    def work():
        with store:
            store.update(kit.pairs(ABC))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert store.closed
    assert kit.contents(kit.open()) == ABC
