"""Iterators see additions and deletions during the loop, and survive syncs and reverts."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
)
from tests.support.contract import assert_freed_at_the_end, numbered

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]

STEPS = pytest.mark.parametrize("synced", [False, True], ids=["in memory", "on disk"])


@STEPS
@pytest.mark.parametrize("count", [1, 20, 600])
def test_loop_yields_keys_that_are_added_during_it(kit, synced, count):
    store = numbered(kit, count, synced)
    seen = []
    for key in store:
        seen.append(key)
        if key < count:
            store[key + count] = kit.value(None)
    assert seen == list(range(2 * count))


@STEPS
def test_loop_skips_keys_that_are_deleted_ahead_of_it(kit, synced):
    store = numbered(kit, 100, synced)
    seen = []
    for key in store:
        seen.append(key)
        store.pop(key + 1, None)
        store.pop(key + 5, None)
        store.pop(key - 3, None)
        del store[key]
    expected, gone = [], set()
    for key in range(100):
        if key not in gone:
            expected.append(key)
            gone |= {key + 1, key + 5}
    assert seen == expected


@STEPS
def test_backward_loop_sees_additions_and_deletions(kit, synced):
    store = numbered(kit, 100, synced)
    seen = []
    for key in reversed(store):
        seen.append(key)
        store[key + 1000] = kit.value(None)
        store.pop(key - 1, None)
        if key % 10 == 0:
            store.sync()
    assert seen == list(range(99, 0, -2))


@STEPS
@pytest.mark.parametrize("disturb", ["sync", "revert", "clear", "dirty", "clear and sync"])
@pytest.mark.parametrize("walk", [iter, reversed], ids=["forwards", "backwards"])
def test_loop_continues_after_operations_on_the_whole_store(kit, synced, disturb, walk):
    store = numbered(kit, 60, synced)
    seen = []
    for key in walk(store):
        seen.append(key)
        if len(seen) in (3, 20, 50):
            for name in disturb.split(" and "):
                getattr(store, name)()
    everything = list(walk(range(60)))
    ends_early = "clear" in disturb or (disturb == "revert" and not synced)
    assert seen == (everything[:3] if ends_early else everything)


@STEPS
def test_loop_yields_a_key_that_was_deleted_and_added_again(kit, synced):
    store = numbered(kit, 4, synced)
    seen = []
    for key in store:
        seen.append(key)
        if len(seen) == 2:
            del store[0]
            store[0] = kit.value("again")
            del store[3]
            store[3] = kit.value("again")
    assert seen == [0, 1, 2, 0, 3]


def _assigned_in_part(kit, store, key):
    kit.plain(store[key])
    store[key] = kit.value("now")


def _added_again(kit, store, key):
    del store[key]
    store[key] = kit.value("now")


# Changes between the moment when a loop yields a key and the moment when its value is read.
BETWEEN = {
    "nothing": (lambda kit, store, key: None, None),
    "assigned": (lambda kit, store, key: store.__setitem__(key, kit.value("now")), "now"),
    "read and assigned": (_assigned_in_part, "now"),
    "deleted": (lambda kit, store, key: store.__delitem__(key), KeyError),
    "deleted and added again": (_added_again, "now"),
    "another key assigned": (lambda kit, store, key: store.__setitem__(29 - key, kit.value(29 - key)), None),
}


@STEPS
@pytest.mark.parametrize("then", ["", "sync", "revert"])
@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("walk", [iter, reversed], ids=["forwards", "backwards"])
def test_reading_in_a_loop_over_keys_returns_the_newest_value(kit, synced, between, then, walk):
    store = numbered(kit, 30, synced)
    change, value = BETWEEN[between]
    model, seen = {key: key for key in range(30)}, set()
    for key in walk(store):
        if key % 3 == 0 and key not in seen:
            change(kit, store, key)
            if value is KeyError:
                del model[key]
            elif value:
                model[key] = value
            if then == "sync":
                store.sync()
            elif then == "revert" and synced:
                store.revert()
                model = {key: key for key in range(30)}
        seen.add(key)
        assert (key in store) == (key in model)
        if key in model:
            assert kit.plain(store[key]) == model[key]
        else:
            with pytest.raises(KeyError):
                store[key]
    assert seen >= set(range(30))


def test_loop_over_keys_sees_changes_that_another_instance_synced(private_kit):
    kit = private_kit
    one = numbered(kit, 300, True, clone=False)
    other = kit.open(clone=False)
    for key in one:
        if key % 3 == 0:
            other[key] = kit.value("now")
        elif key % 3 == 1:
            del other[key]
        other.sync()
        assert (key in one) == (key % 3 != 1)
        if key in one:
            assert kit.plain(one[key]) == ("now" if key % 3 == 0 else key)


@STEPS
def test_loop_over_items_yields_the_newest_values(kit, synced):
    store = numbered(kit, 50, synced)
    seen = []
    for key, value in store.iteritems():
        seen.append(kit.plain(value))
        if key + 1 < 50:
            store[key + 1] = kit.value(seen[-1] + 10)
    assert seen == list(range(0, 500, 10))


@STEPS
@pytest.mark.parametrize("every", [4, 100])
def test_loop_continues_after_automatic_syncs(kit, synced, every):
    store = numbered(kit, 700, synced, sync_at=every)
    seen = []
    for key in store:
        seen.append(key)
        if key % 2:
            del store[key]
        elif key < 700:
            store[key + 1000] = kit.value(key)
    assert seen == [*range(700), *range(1000, 1700, 2)]
    assert kit.contents(kit.reopened(store)).keys() == {*range(0, 700, 2), *range(1000, 1700, 2)}


def test_exhausted_iterator_stays_exhausted(kit, abc):
    for iterator in (iter(abc), reversed(abc), abc.iteritems()):
        list(iterator)
        abc["d"] = kit.value(4)
        assert next(iterator, None) is None
        del abc["d"]


def test_iterator_over_an_empty_store_yields_a_key_added_before_its_first_step(kit, store):
    iterator = iter(store)
    store["a"] = kit.value(1)
    assert list(iterator) == ["a"]


def test_iterators_are_independent_of_each_other(kit):
    store = numbered(kit, 40, True)
    pairs = [(one, other) for one in store for other in reversed(store)]
    assert pairs == [(one, other) for one in range(40) for other in range(39, -1, -1)]


def test_iterator_keeps_its_position_while_earlier_keys_are_replaced(kit):
    store = numbered(kit, 300, True)
    iterator = iter(store)
    assert [next(iterator) for _ in range(250)] == list(range(250))
    for key in range(250):
        del store[key]
    store.sync()
    for key in range(250):
        store[key] = kit.value("again")
    assert list(iterator) == [*range(250, 300), *range(250)]


@pytest.mark.parametrize(("walk", "gone"), [("iter", range(20_000)), ("reversed", range(20_000, 40_000))])
def test_loop_skips_any_number_of_deleted_keys(private_class, tmp_path, run_python, walk, gone):
    """Runs with a small stack in a subprocess, because a stack overflow would kill the process.

    A call for each key would need more than this stack, even with 32 bytes for each call.
    """
    code = f"""
import sys, threading, tastypy_fast

def work():
    with getattr(tastypy_fast, sys.argv[2])(sys.argv[1]) as store:
        store.hold()
        store.update((key, {{}}) for key in range(40_000))
        len(store)
        for key in {gone}:
            del store[key]
        print(next({walk}(store)))
        store.revert()

threading.stack_size(1 << 19)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    expected = 20_000 if walk == "iter" else 19_999
    assert run_python(code, tmp_path / "store", private_class.__name__) == f"{expected}\n"


@pytest.mark.parametrize("walk", [iter, reversed], ids=["forwards", "backwards"])
def test_loop_over_keys_continues_while_values_grow_and_shrink(kit, walk):
    """Large values lie in overflow pages, which a loop over keys does not read."""
    count = 100
    store = numbered(kit, count, True)
    seen = []
    for key in walk(store):
        seen.append(key)
        store.update((other, kit.value("x" * (10_000 if key % 20 < 10 else 10))) for other in range(count))
        store.sync()
    assert seen == list(walk(range(count)))


def test_iterator_of_a_closed_store_raises(kit, abc):
    iterators = [iter(abc), reversed(abc), abc.itervalues(), abc.iteritems()]
    for iterator in iterators[1:]:
        next(iterator)
    abc.close()
    for iterator in iterators:
        with pytest.raises(CalledClosedTrackerError):
            next(iterator)


@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("make", ["__iter__", "__reversed__", "iterkeys", "itervalues", "iteritems"])
def test_iterator_lets_go_of_its_store_at_its_end(any_class, path, make, count):
    assert_freed_at_the_end(any_class, path, count, make)
