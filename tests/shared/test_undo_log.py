"""sync(), hold(), sync_key() and revert() of a shared store."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from tastypy_fast import (
    SharedTracker,
)
from tastypy_fast._core.finishing import FINISH_ABORTED as ABORTED
from tastypy_fast._core.finishing import FINISH_DONE as DONE
from tastypy_fast._core.finishing import FINISH_FAILED as FAILED
from tastypy_fast._core.finishing import FINISH_GIVEN_BACK as GIVEN_BACK
from tastypy_fast._core.finishing import FINISH_RETRY as RETRY
from tests.support.shared import ABC, BLOCKS, FRESH, block_of, listed, place_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

LONG = "x" * 600


def test_instances_of_a_process_share_hold_and_revert_state(kit):
    one, other = kit.open(sync_at=2), kit.open(sync_at=2)
    one.hold()
    for number in range(5):
        other[number] = kit.value(number)
    assert one.dirty() == other.dirty() == set(range(5))
    other.revert()
    assert len(other) == 0
    other.unhold()
    other["a"] = kit.value(1)
    assert other.dirty() == {"a"}
    other["b"] = kit.value(1)
    assert other.dirty() == set()


def test_unhold_in_a_block_syncs_when_the_block_ends(kit):
    store, other = kit.open(sync_at=2), kit.open(sync_at=100)
    for last in (True, False):
        store.hold()
        store.update(kit.pairs({"a": last, "b": last}))
        with store.locked():
            store["c"] = kit.value(last)
            store.unhold()
            if not last:
                # The automatic sync depends on the ``sync_at`` of the process that made the last change.
                store["d"] = kit.value(1)
        assert other.dirty() == set()
        other.revert()
        assert kit.contents(other)["c"] is last


def test_unhold_in_an_aborted_block_is_undone(kit):
    store = kit.open(sync_at=2)
    store.hold()
    store.update(kit.pairs({"a": 1, "b": 1}))
    with contextlib.suppress(ZeroDivisionError), store.transaction():
        store.unhold()
        raise ZeroDivisionError
    store["c"] = kit.value(1)
    assert store.dirty() == {"a", "b", "c"}
    store.unhold()
    assert store.dirty() == set()


def test_close_of_one_instance_syncs_and_keeps_the_hold(kit):
    one, other = kit.open(sync_at=1), kit.open(sync_at=1)
    one.hold()
    other["a"] = kit.value(1)
    one.close()
    assert other.dirty() == set()
    other["b"] = kit.value(2)
    assert other.dirty() == {"b"}


def test_hold_ends_when_the_last_instance_is_closed(kit):
    store, other = kit.open(), kit.open()
    store.hold()
    store.close()
    other.close()
    again = kit.open(sync_at=1)
    again["a"] = kit.value(1)
    assert again.dirty() == set()


def test_each_instance_has_its_own_sync_at(kit):
    patient, hasty = kit.open(sync_at=100), kit.open(sync_at=4)
    for number in range(3):
        hasty[number] = kit.value(number)
    for number in range(10):
        patient[number] = kit.value("patient")
    assert hasty.dirty() == set(range(10))
    hasty[0] = kit.value("hasty")
    assert patient.dirty() == set()


def test_every_kind_of_change_counts_towards_sync_at(kit):
    changes = [
        lambda: store.__setitem__("a", kit.value(10)), lambda: store.__delitem__("b"), lambda: store.mark_dirty("c"),
        lambda: store.update(kit.pairs({"new": 1})), lambda: store.set.update(kit.pairs({"newer": 1})),
    ]
    store = kit.open(init=kit.pairs(ABC), sync_at=len(changes))
    store.sync()
    for number, change in enumerate(changes, 1):
        change()
        assert len(store.dirty()) == number % len(changes)


def change_value(kit, store):
    store["a"] = kit.value("changed")


def add(kit, store):
    store["new"] = kit.value("new")


def delete(kit, store):
    del store["a"]


def delete_and_add(kit, store):
    del store["a"]
    store["a"] = kit.value("again")


def add_and_delete(kit, store):
    store["new"] = kit.value("new")
    del store["new"]


def change_and_delete(kit, store):
    store["a"] = kit.value("changed")
    del store["a"]


def replace_twice(kit, store):
    for number in range(2):
        del store["a"], store["b"]
        store["b"] = kit.value(number)
        store["a"] = kit.value(number)


def clear(kit, store):
    store.clear()


def clear_and_fill(kit, store):
    store.clear()
    store.update(kit.pairs({"c": 3, "a": 1, LONG: 0}))


def change_through_set(kit, store):
    store.set.update(kit.pairs({"a": [1]}))
    place_of(kit, store, "a")[0] = 5


def pop_both_ends(kit, store):
    store.popitem()
    store.popitem(last=False)


def mark_dirty(kit, store):
    store.mark_dirty("a")


def change_back(kit, store):
    value = store["a"]
    store["a"] = kit.value("changed")
    store["a"] = value


CHANGES = {
    change_value: {"a"}, add: {"new"}, delete: {"a"}, delete_and_add: {"a"}, add_and_delete: set(),
    change_and_delete: {"a"}, replace_twice: {"a", "b"}, clear: {"a", "b", LONG},
    clear_and_fill: {"a", "b", "c", LONG}, change_through_set: {"a"}, pop_both_ends: {"a", LONG}, mark_dirty: {"a"},
    change_back: {"a"},
}
SAVED = {"a": 1, "b": [2], LONG: {"x": 3}}
changes = pytest.mark.parametrize(
    ("change", "dirty"), CHANGES.items(), ids=[change.__name__ for change in CHANGES]
)


def saved_store(kit):
    store = kit.open(init=kit.pairs(SAVED))
    store.sync()
    return store


@changes
def test_revert_restores_the_last_sync_of_a_shared_store(kit, change, dirty):
    store, other = saved_store(kit), kit.open()
    for block, reverts_inside in itertools.product(BLOCKS, [False, True]):
        with block_of(store, block):
            change(kit, store)
            assert other.dirty() == dirty
            if reverts_inside:
                other.revert()
                assert listed(kit, store) == list(SAVED.items())
        assert other.dirty() == (set() if reverts_inside else dirty)
        other.revert()
        assert listed(kit, store) == list(SAVED.items())
        assert store.dirty() == set()
    store._check()
    change(kit, store)
    expected = listed(kit, store)
    other.close()
    assert listed(kit, kit.reopened(store)) == expected


@changes
@pytest.mark.parametrize("key", ["a", "b", LONG, "new"])
def test_sync_key_saves_one_of_the_changes(kit, change, dirty, key):
    store = saved_store(kit)
    change(kit, store)
    now = kit.contents(store)
    if key not in now and key not in SAVED:
        with pytest.raises(KeyError):
            store.sync_key(key)
        return
    store.sync_key(key)
    assert store.dirty() == dirty - {key}
    store.revert()
    expected = dict(SAVED)
    expected.pop(key, None)
    if key in now:
        expected[key] = now[key]
    assert kit.contents(store) == expected
    assert store.dirty() == set()
    assert [other for other in store if other != key] == [other for other in SAVED if other != key]
    store._check()


@changes
def test_sync_sets_the_state_that_revert_restores(kit, change, dirty):
    store = saved_store(kit)
    change(kit, store)
    store.sync()
    saved = listed(kit, store)
    for again in CHANGES:
        store["a"], store["b"] = kit.value(1), kit.value(2)
        again(kit, store)
        store.revert()
        assert listed(kit, store) == saved, again.__name__
    store._check()


STATUS_CHANGES = {
    "mark_done": lambda tracker: tracker.mark_done("open"),
    "mark_not_done": lambda tracker: tracker.mark_not_done("done"),
    "abort": lambda tracker: tracker.abort("open"),
    "unabort": lambda tracker: tracker.unabort("aborted"),
    "tries": lambda tracker: [tracker.increment_tries(key) for key in tracker],
    "reset": lambda tracker: tracker.reset_tries("tried"),
    "by keying": lambda tracker: tracker.set["open"].update(_done=True, _tries=5, x=1),
    "data and then status": lambda tracker: (tracker.update(open={"x": 2}), tracker.mark_done("open")),
    "status and then data": lambda tracker: (tracker.mark_done("open"), tracker.update(open={"x": 2})),
    "status and then deleted": lambda tracker: (tracker.mark_done("open"), tracker.pop("open")),
    "deleted and added": lambda tracker: (tracker.pop("done"), tracker.add("done"), tracker.mark_done("done")),
    "many added": lambda tracker: (tracker.add_many(range(900)), tracker.mark_done_many(range(300, 800))),
    "many deleted": lambda tracker: [tracker.pop(key) for key in list(tracker)],
    "finished": lambda tracker: tracker._finish_many([(key, DONE, {"y": 1}) for key in tracker]),
    "failed and given back": lambda tracker: tracker._finish_many(
        [(key, kind, {"type": "X"}) for key, kind in zip(tracker, (FAILED, GIVEN_BACK, ABORTED, RETRY), strict=False)]),
    "failed, then done": lambda tracker: [tracker._finish_many([(key, kind, {"type": "X"}) for key in tracker])
                                          for kind in (FAILED, DONE)],
    "finished twice": lambda tracker: tracker._finish_many(
        [(key, kind, {"y": "x" * 6000}) for kind in (FAILED, DONE) for key in tracker]),
    "error": lambda tracker: tracker._record_error("open", {"message": "x"}),
    "error and done": lambda tracker: (tracker.record_error("open", "x"), tracker.mark_done("open")),
    "errors and done": lambda tracker: ([tracker.record_error(key, "x") for key in tracker],
                                        tracker.mark_done_many(list(tracker))),
    "claimed": lambda tracker: list(tracker.try_keys()),
    "claimed and done": lambda tracker: [tracker.mark_done(key) for key in tracker.try_keys(batch=2)],
    "claimed and released": lambda tracker: [tracker.release(key) for key in tracker.try_keys()],
    "claimed by a gate": lambda tracker: (tracker.should_try("open"), tracker.should_try_add("new")),
    "claimed although aborted": lambda tracker: list(tracker.try_keys(allow_aborted=True)),
    "part of a batch": lambda tracker: next(tracker.try_keys(batch=3)),
    "claimed and deleted": lambda tracker: [tracker.pop(key) for key in tracker.try_keys()],
    "added and claimed": lambda tracker: (tracker.add("new"), list(tracker.try_keys())),
}
TASKS = {"open": {"x": 1}, "done": {"_done": True}, "aborted": {"_aborted": True}, "tried": {"_tries": 3}, "more": {}}


@pytest.mark.parametrize("name", STATUS_CHANGES)
def test_revert_restores_statuses_and_removes_invalid_claims(tmp_path, name):
    with SharedTracker(tmp_path / "tracker") as tracker:
        for block in BLOCKS:
            tracker.clear()
            tracker.update(TASKS)
            tracker.sync()
            before = tracker.items()
            counts = tracker.num_done(), tracker.num_tried(), tracker.num_aborted()
            with block_of(tracker, block):
                STATUS_CHANGES[name](tracker)
            changed, claimed = tracker.items(), tracker.claimed_keys()
            assert (tracker.dirty() == set()) == (changed == before)
            tracker.revert()
            assert tracker.items() == before
            assert (tracker.num_done(), tracker.num_tried(), tracker.num_aborted()) == counts
            assert tracker.dirty() == set()
            # A claimed task stays with its worker if it exists and is not finished.
            assert tracker.claimed_keys() == [
                key for key in claimed if key in tracker and not tracker.done(key) and not tracker.aborted(key)
            ]
            tracker._check()
            for key in tracker.claimed_keys():
                tracker.release(key)
            STATUS_CHANGES[name](tracker)
            assert tracker.items() == changed
            tracker._check()


@pytest.mark.parametrize("end", ["mark_done", "abort", "mark_not_done", "release", "delete"])
def test_reverting_a_finished_task_does_not_restore_its_claim(tmp_path, end):
    with SharedTracker(tmp_path / "tracker", init={"a": {}}) as tracker:
        assert tracker.should_try("a")
        tracker.sync()
        tracker.pop("a") if end == "delete" else getattr(tracker, end)("a")
        tracker.revert()
        assert tracker["a"] == {**FRESH, "_tries": 1}
        assert tracker.claimed_keys() == []
        assert list(tracker.try_keys()) == ["a"]
        tracker._check()
