"""``move_to_end()`` moves a key behind all others, with its value and its status, and nothing else changes."""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import islice

import pytest

from tastypy_fast import ProgressTracker, SharedProgressTracker, SharedTracker
from tests.support.contract import ABC, numbered
from tests.support.stores import changing

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


@pytest.mark.parametrize("key", list(ABC))
def test_key_moves_behind_all_others(kit, abc, key):
    abc.move_to_end(key)
    expected = {name: ABC[name] for name in sorted(ABC, key=lambda name: name == key)}
    for state in kit.states(abc):
        assert state.keys() == list(expected)
        assert list(reversed(state)) == list(expected)[::-1]
        assert kit.contents(state) == expected
        assert len(state) == 3
        assert kit.plain(state[key]) == ABC[key]


def test_last_key_stays_where_it_is_and_is_not_dirty(kit, abc):
    abc.sync()
    abc.move_to_end("c")
    assert abc.dirty() == set()
    assert abc.keys() == ["a", "b", "c"]


def test_last_key_stays_where_it_is_after_others_were_assigned(kit, abc):
    # The sync of an assignment without a lookup uses a number that no key has.
    abc.sync()
    loop = iter(abc)
    assert list(islice(loop, 3)) == ["a", "b", "c"]
    abc["a"] = kit.value(7)
    abc.sync()
    abc.move_to_end("c")
    assert abc.dirty() == set()
    assert list(loop) == []


@pytest.mark.parametrize("is_synced", [False, True])
@pytest.mark.parametrize("count", [1, 40])
def test_last_key_stays_where_it_is_before_deleted_keys(kit, abc, count, is_synced):
    later = [f"later {number}" for number in range(count)]
    abc.update(kit.pairs(dict.fromkeys(later, 1)))
    abc.sync()
    loop = iter(abc)
    assert list(islice(loop, 3)) == ["a", "b", "c"]
    for key in later:
        del abc[key]
    if is_synced:
        abc.sync()
    for _ in range(2):
        abc.move_to_end("c")
        assert abc.dirty() == set() if is_synced else set(later)
        assert abc.keys() == ["a", "b", "c"]
    assert list(loop) == []
    abc.move_to_end("b")
    for state in kit.states(abc):
        assert state.keys() == ["a", "c", "b"]


def test_last_key_stays_where_it_is_before_a_deleted_key_when_another_cache_has_written(private_kit):
    store = private_kit.open(init=private_kit.pairs(ABC))
    store.sync()
    other = private_kit.open(clone=False)
    del store["c"]
    other["a"] = private_kit.value(7)
    other.sync()
    store.move_to_end("b")
    assert store.dirty() == {"c"}
    assert store.keys() == ["a", "b"]


def test_moved_key_is_dirty_and_counts_towards_sync_at(kit):
    # In a shared store the old place and the new one count, as for a key that is deleted and added again.
    store = kit.open(init=kit.pairs(ABC), sync_at=4 if kit.is_shared else 2)
    store.sync()
    store.move_to_end("a")
    assert store.dirty() == {"a"}
    store.move_to_end("b")
    assert store.dirty() == set()
    assert store.keys() == ["c", "a", "b"]


def test_missing_and_deleted_key_raise_key_error(abc):
    del abc["b"]
    for key in ("b", "z"):
        with pytest.raises(KeyError) as caught:
            abc.move_to_end(key)
        assert caught.value.args == (key,)
    assert abc.keys() == ["a", "c"]


def test_key_longer_than_a_key_of_lmdb_moves(kit, store):
    keys = ["x" * 600 + str(number) for number in range(3)]
    store.update(kit.pairs(dict.fromkeys(keys, 1)))
    store.sync()
    store.move_to_end(keys[0])
    assert kit.reopened(store).keys() == [keys[1], keys[2], keys[0]]


def test_assignment_and_deletion_after_the_move(kit, abc):
    abc.move_to_end("a")
    abc["a"] = kit.value(7)
    abc.move_to_end("b")
    del abc["b"]
    abc["d"] = kit.value(4)
    abc.move_to_end("c")
    for state in kit.states(abc):
        assert list(kit.contents(state).items()) == [("a", 7), ("d", 4), ("c", 3)]


def test_value_that_was_read_is_still_watched(kit):
    store = kit.open(init=kit.pairs({"a": [1], "b": [2]}))
    store.sync()
    value = kit.plain(changing(store)["a"]) if not kit.is_shared else None
    store.move_to_end("a")
    if value is not None:
        value.append(5)
        store.sync()
        value.append(6)
    for state in kit.states(store):
        assert list(kit.contents(state).items()) == [("b", [2]), ("a", [1, 5, 6] if value else [1])]


def test_copy_that_a_loop_has_yielded_can_still_be_saved(private_kit):
    store = private_kit.open(init=private_kit.pairs({"a": [1], "b": [2]}))
    store.sync()
    for key, value in islice(store.iteritems(), 1):
        private_kit.plain(value).append(5)
        store.move_to_end(key)
        store.mark_dirty(key)
    assert list(private_kit.contents(private_kit.reopened(store)).items()) == [("b", [2]), ("a", [1, 5])]


@pytest.mark.parametrize("synced", [False, True])
def test_loop_yields_a_moved_key_at_its_new_place(kit, synced):
    store = numbered(kit, 6, synced)
    seen = []
    for key in store:
        seen.append(key)
        if len(seen) == 2:
            store.move_to_end(0)  # yielded before, so it is yielded again
            store.move_to_end(3)  # not reached yet
    assert seen == [0, 1, 2, 4, 5, 0, 3]
    backwards = []
    for key in reversed(store):
        backwards.append(key)
        if len(backwards) == 1:
            store.move_to_end(2)
    assert backwards == [3, 0, 5, 4, 1]
    assert store.keys() == [1, 4, 5, 0, 3, 2]


def test_hold_and_revert_undo_the_move(kit, abc):
    abc.sync()
    abc.hold()
    abc.move_to_end("a")
    abc["d"] = kit.value(4)
    abc.move_to_end("b")
    assert abc.keys() == ["c", "a", "d", "b"]
    abc.revert()
    for state in kit.states(abc):
        assert kit.contents(state) == ABC
        assert state.keys() == ["a", "b", "c"]


def test_sync_key_saves_the_move_alone(kit, abc):
    abc.sync()
    abc.hold()
    abc.move_to_end("a")
    abc.move_to_end("b")
    abc.sync_key("a")
    abc.revert()
    assert kit.contents(kit.reopened(abc)) == ABC
    assert abc.closed


def test_transaction_that_raises_rolls_the_move_back(kit, abc):
    if not kit.is_shared:
        return
    abc.sync()
    def fail():
        raise LookupError

    with suppress(LookupError), abc.transaction():
        abc.move_to_end("a")
        with suppress(LookupError), abc.transaction():
            abc.move_to_end("b")
            fail()
        assert abc.keys() == ["b", "c", "a"]
        fail()
    assert abc.keys() == ["a", "b", "c"]
    with abc.locked():
        abc.move_to_end("b")
        assert abc.keys() == ["a", "c", "b"]
    assert abc.keys() == ["a", "c", "b"]


def test_random_moves_agree_with_an_ordered_dict(kit, seed):
    store = kit.open(sync_at=7)
    model: dict[int, int] = {}
    dice = random.Random(seed)
    for step in range(400):
        key = dice.randrange(12)
        what = dice.choice(["move", "move", "set", "delete", "sync", "revert"])
        if what == "set":
            store[key] = kit.value(step)
            model[key] = step
        elif what == "sync":
            store.sync()
        elif what == "revert":
            store.sync()
            store.hold()
            if key in model:
                store.move_to_end(key)
            store.revert()
            store.unhold()
        elif key not in model:
            with pytest.raises(KeyError):
                store.move_to_end(key)
        elif what == "delete":
            del store[key]
            del model[key]
        else:
            store.move_to_end(key)
            model[key] = model.pop(key)
        assert list(kit.contents(store).items()) == list(model.items())
    assert list(kit.contents(kit.reopened(store)).items()) == list(model.items())


# Tasks


@pytest.fixture(params=[ProgressTracker, SharedProgressTracker], ids=["private", "shared"])
def tasks(request, path):
    with request.param(path, max_tries=5, init={
        "a": {"_done": True, "_tries": 2, "x": 1}, "b": {"_aborted": True}, "c": {"_tries": 3}, "d": {},
    }) as tracker:
        yield tracker
        tracker._check()


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_status_of_a_task_moves_with_it(tasks, synced, held):
    if synced:
        tasks.sync()
    dicts = [tasks[key] for key in tasks] if held else None
    before = {key: tasks[key] for key in "abc"} if not held else {key: dict(task) for key, task in tasks.iteritems()}
    counts = tasks.num_done(), tasks.num_aborted(), tasks.num_tried()
    for key in "abc":
        tasks.move_to_end(key)
    assert tasks.keys() == ["d", "a", "b", "c"]
    assert {key: tasks[key] for key in "abc"} == {key: before[key] for key in "abc"}
    assert (tasks.num_done(), tasks.num_aborted(), tasks.num_tried()) == counts
    assert list(tasks.todo_keys()) == ["d", "c"]
    assert list(tasks.aborted_keys()) == ["b"]
    tasks.mark_done("c")
    assert tasks.num_done() == 2
    assert dicts is None or len(dicts) == 4
    tasks.sync()
    assert (tasks.tries("c"), tasks.done("c"), tasks.done("a"), tasks.aborted("b")) == (3, True, True, True)


def test_loop_over_tasks_yields_a_moved_task_again(tasks):
    loop = tasks.todo_keys()
    assert next(loop) == "c"
    tasks.move_to_end("c")
    assert list(loop) == ["d", "c"]


def test_task_that_a_loop_tries_can_be_finished_after_the_move(tasks):
    for key in islice(tasks.try_keys(), 1):
        tasks.move_to_end(key)
        tasks.mark_done(key, {"x": 5})
    assert tasks["c"] == {"_done": True, "_aborted": False, "_tries": 4, "x": 5}
    assert tasks.keys() == ["a", "b", "d", "c"]


def test_claim_of_a_running_task_stays(path):
    with SharedTracker(path, init={"a": {}, "b": {}}) as tracker:
        loop = tracker.try_keys()
        assert next(loop) == "a"
        tracker.move_to_end("a")
        assert {key: claim.state for key, claim in tracker.claims().items()} == {"a": "running"}
        assert list(tracker.try_keys()) == ["b"]
        tracker.mark_done("a")
        assert tracker.claimed_keys() == ["b"]
        assert (tracker.tries("a"), tracker.keys()) == (1, ["b", "a"])
        tracker._check()


def test_task_that_waits_in_a_batch_is_released(path):
    with SharedTracker(path, init={key: {} for key in "abc"}) as tracker:
        loop = tracker.try_keys(batch=3)
        assert next(loop) == "a"
        tracker.move_to_end("b")
        assert tracker.claimed_keys() == ["a", "c"]
        assert tracker.tries("b") == 0
        assert list(loop) == ["c", "b"]
        assert [tracker.tries(key) for key in "abc"] == [1, 1, 1]
        tracker._check()


def test_claims_of_moved_tasks_end_with_the_store(path):
    tracker = SharedTracker(path, init={"a": {}, "b": {}})
    with tracker.locked():
        assert next(tracker.try_keys()) == "a"
        tracker.move_to_end("a")
    tracker._check()
    tracker.close()
    with SharedTracker(path) as tracker:
        assert tracker.claimed_keys() == []
        assert list(tracker.try_keys()) == ["b", "a"]


KILLED = """
import os, sys
from tastypy_fast import Tracker
tracker = Tracker(sys.argv[1], sync_at=1000, sync_every=None)
tracker.add_many("abc")
tracker.sync()
for key in tracker.try_keys():
    tracker.move_to_end(key)
    os._exit(0)
"""


def test_try_of_a_moved_task_that_kills_its_process_is_counted(path, run_python):
    run_python(KILLED, path)
    with ProgressTracker(path) as tracker:
        assert {key: tracker.tries(key) for key in tracker} == {"a": 1, "b": 0, "c": 0}
