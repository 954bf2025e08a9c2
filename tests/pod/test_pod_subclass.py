"""A subclass with its own ``__setitem__`` sees each assignment, and its own ``__getitem__`` disturbs no method."""

from __future__ import annotations

import io

import pytest

from tests.support.contract import ABC
from tests.support.stores import is_tracker

pytestmark = pytest.mark.all_classes


@pytest.fixture
def mine(kit):
    """A store whose class writes down assignments and deletions, and puts a list around each value that is read."""

    class Mine(kit.cls):
        def __init__(self, *arguments, **options):
            self.log = []
            super().__init__(*arguments, **options)

        def __setitem__(self, key, value):
            self.log.append(key)
            super().__setitem__(key, value)

        def __delitem__(self, key):
            self.log.append(-1)
            super().__delitem__(key)

        def __getitem__(self, key):
            return [super().__getitem__(key)]

    kit.cls = Mine
    return kit.open(init=kit.pairs(ABC))


def test_init_assigns_with_setitem(mine):
    assert mine.log == list(ABC)


ASSIGNMENTS = {
    "update": lambda store, value: store.update([("a", value)]),
    "update with keywords": lambda store, value: store.update(a=value),
    "in-place union": lambda store, value: store.__ior__({"a": value}),
    "set": lambda store, value: store.set.__setitem__("a", value),
    "update through set": lambda store, value: store.set.update(a=value),
    "augmented": lambda store, value: store.set.__ior__({"a": value}),
    "jsonl": lambda store, value: store.import_jsonl(io.StringIO('{"key": "a", "value": {"value": 9}}')),
}


@pytest.mark.parametrize("name", ASSIGNMENTS)
@pytest.mark.parametrize("is_synced", [False, True])
def test_method_that_assigns_uses_setitem(kit, mine, name, is_synced):
    if is_synced:
        mine.sync()
    mine.log.clear()
    ASSIGNMENTS[name](mine, kit.value(9))
    assert mine.log == ["a"]
    expected = 9 if is_tracker(kit.cls) or name != "jsonl" else {"value": 9}
    assert kit.contents(mine) == {**ABC, "a": expected}
    assert mine.keys() == list(ABC)


def test_setdefault_assigns_a_missing_key_with_setitem(kit, mine):
    mine.log.clear()
    assert kit.plain(mine.setdefault("a", kit.value(9))) == 1
    assert kit.plain(mine.setdefault("d", kit.value(4))) == 4
    assert mine.log == ["d"]


def test_augmented_assignment_through_set_uses_setitem(kit, mine):
    mine.log.clear()
    if is_tracker(kit.cls):
        mine.set["a"] |= {"value": 9}
    else:
        mine.set["a"] += 8
    assert mine.log == ["a"]
    assert kit.contents(mine)["a"] == 9


def test_change_inside_a_value_is_no_assignment(kit, mine):
    mine.update(kit.pairs({"list": [1]}))
    mine.log.clear()
    place = mine.set["list"]["value"] if is_tracker(kit.cls) else mine.set["list"]
    place.append(2)
    assert mine.log == []
    assert kit.contents(mine)["list"] == [1, 2]


def test_no_method_reads_with_getitem(kit, mine):
    assert kit.plain(mine["a"][0]) == 1
    assert kit.plain(mine.get("a")) == 1
    assert kit.plain(mine.pop("a")) == 1
    assert kit.plain(mine.popitem()[1]) == 3
    assert [kit.plain(value) for value in mine.values()] == [2]
    assert {key: kit.plain(value) for key, value in mine.copy().items()} == {"b": 2}
    assert mine == dict(kit.pairs({"b": 2})) or is_tracker(kit.cls)


def test_methods_that_delete_use_delitem(mine):
    mine.log.clear()
    mine.pop("a")
    mine.popitem()
    mine.clear()
    assert mine.log == [-1, -1, -1]
    mine.pop("a", None)
    assert mine.log == [-1, -1, -1]


def test_update_merges_tasks(kit, mine):
    if not is_tracker(kit.cls):
        return
    mine.abort("a")
    mine.update({"a": {"more": 2}})
    assert mine["a"][0] == {"_done": False, "_aborted": True, "_tries": 0, "value": 1, "more": 2}


def test_setitem_that_raises_ends_update(kit):
    class Strict(kit.cls):
        def __setitem__(self, key, value):
            if key == "b":
                raise LookupError(key)
            super().__setitem__(key, value)

    kit.cls = Strict
    store = kit.open()
    with pytest.raises(LookupError):
        store.update(kit.pairs(ABC))
    assert store.keys() == ([] if kit.is_shared else ["a"])


def test_update_that_fills_the_map_is_repeated_as_a_whole(kit):
    """A shared store grows its map, and calls ``__setitem__`` again for all pairs."""

    class Plain(kit.cls):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)

    kit.cls = Plain
    store = kit.open()
    count = 30_000
    store.update((number, kit.value("x" * 1000)) for number in range(count))
    assert len(store) == count
    assert store.keys() == list(range(count))
