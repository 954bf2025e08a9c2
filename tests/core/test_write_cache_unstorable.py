"""A value that became unstorable is reported by its key, and all other values are saved."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    UnstorableValueError,
)

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


@pytest.mark.parametrize("again", [1, 2])
def test_unstorable_mutation_is_reported_by_key_and_the_rest_is_saved(private_kit, partly_unstorable, data, again):
    for _ in range(again):
        with pytest.raises(UnstorableValueError, match=r"'k'.*l"):
            partly_unstorable.sync()
    assert partly_unstorable.dirty() == {"k"}
    data()["l"].remove({1})
    data()["l"].append("good")
    partly_unstorable.sync()
    assert partly_unstorable.dirty() == set()
    assert private_kit.contents(private_kit.reopened(partly_unstorable)) == {
        "k": {"l": [1, "good"], "d": {"x": [0]}}, "other": [5, 6], "third": [5, 6]
    }


def test_revert_of_an_unstorable_mutation_restores_the_saved_value(private_kit, partly_unstorable, data):
    with pytest.raises(UnstorableValueError):
        partly_unstorable.sync()
    partly_unstorable.revert()
    assert data()["l"] == [1]
    assert data("third") == [5, 6]
    partly_unstorable.sync()


def test_unstorable_mutation_does_not_lose_an_automatic_sync(private_kit, nested, data):
    kit = private_kit
    store = kit.open("auto", init=kit.pairs({"bad": [], "good": []}), sync_at=3)
    store.sync()
    kit.plain(store["bad"]).append(object())
    kit.plain(store["good"]).append(1)
    with pytest.raises(UnstorableValueError, match="'bad'"):
        store["new"] = kit.value(2)
    assert store.dirty() == {"bad"}
    kit.plain(store["bad"]).clear()
    assert kit.contents(kit.reopened(store)) == {"bad": [], "good": [1], "new": 2}


def test_close_with_an_unstorable_mutation_leaves_the_store_open(private_kit, partly_unstorable, data):
    with pytest.raises(UnstorableValueError, match="'k'"):
        partly_unstorable.close()
    assert not partly_unstorable.closed
    data()["l"].remove({1})
    assert private_kit.plain(private_kit.reopened(partly_unstorable)["other"]) == [5, 6]


def test_sync_key_of_an_unstorable_mutation_names_the_key_and_writes_nothing(private_kit, partly_unstorable, data):
    with pytest.raises(UnstorableValueError, match="'k'"):
        partly_unstorable.sync_key("k")
    assert "k" in partly_unstorable.dirty()
    partly_unstorable.sync_key("third")
    partly_unstorable.revert()
    assert private_kit.contents(partly_unstorable) == {"k": {"l": [1], "d": {"x": [0]}}, "other": [5], "third": [5, 6]}


def test_several_unstorable_mutations_are_one_error(private_kit):
    kit = private_kit
    store = kit.open(init=kit.pairs({number: [] for number in range(10)}))
    store.sync()
    for number in range(0, 10, 2):
        kit.plain(store[number]).append(b"x")
        kit.plain(store[number + 1]).append("x")
    with pytest.raises(UnstorableValueError) as caught:
        store.sync()
    assert all(f"{number}" in str(caught.value) for number in range(0, 10, 2))
    assert store.dirty() == {0, 2, 4, 6, 8}


def test_new_key_with_an_unstorable_mutation_keeps_its_place(private_kit):
    kit = private_kit
    store = kit.open()
    for key in "abc":
        store[key] = kit.value([key])
    kit.plain(store["b"]).append({1})
    with pytest.raises(UnstorableValueError, match="'b'"):
        store.sync()
    assert store.keys() == ["a", "b", "c"]
    assert len(store) == 3
    store._check()
    kit.plain(store["b"]).remove({1})
    assert kit.contents(kit.reopened(store)) == {"a": ["a"], "b": ["b"], "c": ["c"]}


def test_new_key_with_an_unstorable_mutation_can_be_deleted(private_kit):
    kit = private_kit
    store = kit.open(init=kit.pairs({"a": [], "b": []}))
    kit.plain(store["b"]).append({1})
    with pytest.raises(UnstorableValueError):
        store.sync()
    del store["b"]
    store.sync()
    assert kit.contents(kit.reopened(store)) == {"a": []}
