"""Any number of values that the program holds stay watched, and are freed afterwards."""

from __future__ import annotations

import collections

import pytest

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


def store_of_many_values(kit, count=3000, **options):
    store = kit.open(init=kit.pairs({number: {"l": []} for number in range(count)}), **options)
    store.sync()
    return store


@pytest.mark.parametrize("sync_at", [1000, 50])
@pytest.mark.parametrize("how", ["sync", "close", "revert", "automatic"])
def test_all_held_values_are_watched(private_kit, sync_at, how):
    kit = private_kit
    store = store_of_many_values(kit, sync_at=sync_at)
    held = [kit.plain(store[number]) for number in range(3000)]
    store.update(kit.pairs({-number: 0 for number in range(1, 2500)}))
    store._check()
    for number, value in enumerate(held):
        value["l"].append(number)
    assert store.dirty() >= set(range(3000))
    expected = {number: {"l": [number]} for number in range(3000)}
    if how == "revert":
        store.revert()
        expected = {number: {"l": []} for number in range(3000)}
        assert store.dirty() == set()
    elif how == "sync":
        store.sync()
        assert store.dirty() == set()
        store.revert()
    elif how == "automatic":
        # This holds whether or not the program still holds the values.
        del value
        held.clear()
        store.update(kit.pairs({-number: 1 for number in range(1, 2500)}))
    store._check()
    found = kit.contents(kit.reopened(store) if how == "close" else store)
    assert {key: value for key, value in found.items() if key >= 0} == expected


def test_reading_a_held_key_returns_the_same_object(private_kit):
    kit = private_kit
    store = store_of_many_values(kit, sync_at=100)
    held = [kit.plain(store[number]) for number in range(3000)]
    held[5]["l"].append("changed")
    for number in range(3000):
        assert kit.plain(store[number]) is held[number]
    store._check()
    assert store.dirty() == {5}


@pytest.mark.parametrize("change", ["assign", "update", "delete", "add again", "pop", "sync_key", "mark_dirty"])
def test_held_value_among_thousands_can_be_assigned_deleted_or_synced(private_kit, change):
    kit = private_kit
    store = store_of_many_values(kit, sync_at=100)
    held = [kit.plain(store[number]) for number in range(3000)]
    held[0]["l"].append("changed")
    new = kit.value({"l": ["new"]})
    expected = {"l": ["changed"]}
    if change in ("assign", "update"):
        store[0] = new if change == "assign" else store.update({0: new}) or new
        expected = {"l": ["new"]}
    elif change == "sync_key":
        store.sync_key(0)
        assert 0 not in store.dirty()
    elif change == "mark_dirty":
        store.mark_dirty(0)
    else:
        found = store.pop(0) if change == "pop" else store[0]
        assert kit.plain(found) is held[0]
        if change != "pop":
            del store[0]
        assert 0 not in store
        if change == "add again":
            store[0] = new
            assert store.keys()[-1] == 0
        expected = {"l": ["new"]} if change == "add again" else None
    held[0]["l"].append("later")
    if change in ("sync_key", "mark_dirty"):
        expected = {"l": ["changed", "later"]}
    store._check()
    assert kit.contents(store).get(0) == expected
    held[1]["l"].append("beside")
    again = kit.reopened(store)
    assert kit.contents(again).get(0) == expected
    assert kit.plain(again[1]) == {"l": ["beside"]}


def test_values_are_freed_when_the_program_drops_them(private_kit):
    """Values that the program held only for a while do not stay in memory, for any number of values."""
    import gc

    def in_memory():
        gc.collect()
        return sum(type(thing) is dict and thing.keys() == {"l"} for thing in gc.get_objects())

    kit = private_kit
    store = store_of_many_values(kit, 6000, sync_at=100)
    window = collections.deque(maxlen=1500)
    for number in range(6000):
        window.append(kit.plain(store[number]))
        window[0]["l"].append(number)
    # Values that the program dropped are found in several steps.
    assert 1500 <= in_memory() < 3000
    store._check()
    window.clear()
    store.sync()
    assert in_memory() == 0
    assert sum(len(value["l"]) for value in kit.contents(kit.reopened(store)).values()) == 6000


def test_held_value_stays_watched_after_another_memory_has_written(private_kit):
    """With ``clone=False``: values stay watched unless the other memory has changed them."""
    kit = private_kit
    store = store_of_many_values(kit, 1500, sync_at=100)
    held = [kit.plain(store[number]) for number in range(1500)]
    held[4]["l"].append("unsaved")
    with kit.cls(store.path, clone=False) as other:
        other[3] = kit.value({"l": ["of the other"]})
        other["new"] = kit.value(1)
        del other[5]
        other.sync()
        assert kit.plain(store["new"]) == 1
        for value in held:
            value["l"].append("held")
        store.sync()
        found = kit.contents(other)
    assert found.pop(3) == {"l": ["of the other"]}
    assert found.pop(4) == {"l": ["unsaved", "held"]}
    assert 5 not in found
    assert found.pop("new") == 1
    assert found == {number: {"l": ["held"]} for number in range(1500) if number not in (3, 4, 5)}
    store._check()
