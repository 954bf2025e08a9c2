"""Iterators over open tasks: tries, aborted tasks, changes during the loop."""

from __future__ import annotations

from itertools import islice

import pytest

from tastypy_fast import (
    ProgressTracker,
)
from tastypy_fast.types import ClaimIterator
from tests.support.contract import assert_freed_at_the_end, freeing
from tests.support.stores import changing
from tests.support.tasks import FRESH, SITUATIONS, is_open, of_one_process, reopened

FAMILIES = [(family, part) for family in ("todo", "try", "aborted") for part in ("keys", "values", "items")]


@pytest.mark.parametrize("max_tries", [0, 1, 2, 3])
@pytest.mark.parametrize("allow_aborted", [False, True])
@pytest.mark.parametrize(("family", "part"), FAMILIES)
def test_iterator_yields_the_tasks_that_its_gate_accepts(make, place, family, part, allow_aborted, max_tries):
    tracker = place(make(max_tries=max_tries, init=((key, {**task, "n": key}) for key, task in enumerate(SITUATIONS))))
    after, expected = {}, []
    for key, task in enumerate(SITUATIONS):
        wanted = task["_aborted"] if family == "aborted" else is_open(task, allow_aborted, max_tries)
        after[key] = {**task, "_tries": task["_tries"] + (wanted and family == "try"), "n": key}
        if wanted:
            expected.append({"keys": key, "values": after[key], "items": (key, after[key])}[part])
    arguments = () if family == "aborted" else (allow_aborted,)
    iterator = getattr(tracker, f"{family}_{part}")(*arguments)
    assert iter(iterator) is iterator
    assert list(iterator) == expected
    assert next(iterator, None) is None
    assert dict(tracker.items()) == after


@of_one_process
def test_try_keys_counts_each_try_before_it_yields_the_key(make, place):
    tracker = place(make(max_tries=2, init={key: {} for key in "abc"}))
    iterator = tracker.try_keys()
    for key in "abc":
        assert next(iterator) == key
        assert tracker.tries(key) == 1
        assert tracker[key]["_tries"] == 1
    assert tracker.num_tried() == 3
    assert list(tracker.try_keys()) == ["a", "b", "c"]
    assert list(tracker.try_keys()) == []


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("part", ["keys", "values", "items"])
def test_close_ends_the_iteration_and_counts_no_try_ahead(make, place, part, batch):
    tracker = place(make(init={key: {} for key in "abcde"}))
    unused = getattr(tracker, f"try_{part}")(batch=batch)
    iterator = getattr(tracker, f"try_{part}")(batch=batch)
    assert isinstance(iterator, ClaimIterator)
    next(iterator)
    next(iterator)
    for one in iterator, iterator, unused:
        one.close()
        assert next(one, None) is None
    assert [tracker.tries(key) for key in "abcde"] == [1, 1, 0, 0, 0]
    assert list(tracker.try_keys()) == list("abcde")


def test_loop_over_tasks_sees_additions_and_deletions(make, place):
    tracker = place(make(init={"a": {}, "b": {}, "c": {}, "d": {}, "e": {}}))
    seen = []
    for key in tracker.try_keys():
        seen.append(key)
        if key == "a":
            tracker.mark_done("b")
            changing(tracker)["c"]["_aborted"] = True
            del tracker["d"]
            tracker.add("f")
            tracker.add("g")
            changing(tracker)["g"]["_done"] = True
        tracker.mark_done(key)
    assert seen == ["a", "e", "f"]


def test_loop_does_not_repeat_a_task_that_was_reopened_behind_it(make, place):
    tracker = place(make(init={key: {} for key in "abc"}))
    seen = []
    for key in tracker.try_keys():
        seen.append(key)
        for other in "abc":
            tracker.mark_not_done(other)
            tracker.reset_tries(other)
    assert seen == ["a", "b", "c"]


@pytest.mark.parametrize("way", ["method", "keying"])
def test_loop_yields_a_task_that_is_reopened_ahead_of_it(make, place, way):
    closed = [{"_done": True}, {"_aborted": True}, {"_tries": 1}]
    # There are open tasks between them, so that one prefetched chunk spans all.
    tracker = place(make(max_tries=1, init=enumerate([{}, *closed, {}, *closed, {}])))
    seen = []
    for key in tracker.todo_keys():
        seen.append(key)
        if key == 0 and way == "method":
            tracker.mark_not_done(1)
            tracker.unabort(2)
            tracker.reset_tries(3)
            tracker.decrement_tries(7)
        elif key == 0:
            changing(tracker)[1]["_done"] = False
            changing(tracker)[2]["_aborted"] = False
            changing(tracker)[3]["_tries"] = 0
            tracker[7] = {}
    assert seen == [0, 1, 2, 3, 4, 7, 8]


@pytest.mark.parametrize("way", ["method", "keying"])
def test_aborted_loop_yields_a_task_that_is_aborted_ahead_of_it(make, place, way):
    tracker = place(make(init={key: {"_aborted": key % 2 == 0} for key in range(7)}))
    seen = []
    for key in tracker.aborted_keys():
        seen.append(key)
        if key == 2 and way == "method":
            tracker.abort(1)
            tracker.abort(3)
            tracker.unabort(4)
        elif key == 2:
            changing(tracker)[1]["_aborted"] = changing(tracker)[3]["_aborted"] = True
            changing(tracker)[4]["_aborted"] = False
    assert seen == [0, 2, 3, 6]


@pytest.mark.parametrize("disturb", ["sync", "revert", "clear"])
def test_loop_over_tasks_continues_after_operations_on_the_whole_store(make, disturb):
    tracker = make(init={number: {} for number in range(100)})
    tracker.sync()
    seen = []
    for key in tracker.try_keys():
        seen.append(key)
        tracker.mark_done(key)
        if key in (5, 40):
            getattr(tracker, disturb)()
    assert seen == (list(range(6)) if disturb == "clear" else list(range(100)))
    assert tracker.num_done() == (0 if disturb == "clear" else 59 if disturb == "revert" else 100)


@pytest.mark.parametrize("sync_at", [5, 1000])
def test_crawl_over_several_blocks_yields_every_task_once(make, sync_at):
    tracker = make(sync_at=sync_at, init={1: {}})
    seen = []
    for key, task in tracker.try_items():
        seen.append(key)
        (task if isinstance(tracker, ProgressTracker) else tracker.set[key])["length"] = key % 10
        tracker.add_many_if_absent(link for link in (2 * key, 2 * key + 1) if link < 1300)
        tracker.mark_done(key)
    assert seen == list(range(1, 1300))
    again = reopened(tracker, make)
    assert again.num_done() == again.num_tried() == len(again) == 1299
    assert list(again.try_keys()) == []
    assert all(task["length"] == key % 10 for key, task in again.iteritems())


@of_one_process
@pytest.mark.parametrize("family", ["todo", "try", "aborted"])
@pytest.mark.parametrize("part", ["values", "items"])
@pytest.mark.parametrize("sync_at", [2, 1000])
def test_changes_to_a_task_that_a_loop_yields_are_saved(make, family, part, sync_at):
    tracker = make(sync_at=sync_at, init={number: {"_aborted": family == "aborted", "l": []} for number in range(20)})
    tracker.sync()
    for task in getattr(tracker, f"{family}_{part}")():
        task = task[1] if part == "items" else task
        task["l"].append(tracker.num_done())
        task["_done"] = True
    again = reopened(tracker, make)
    assert [task["l"] for task in again.values()] == [[number] for number in range(20)]
    assert again.num_done() == 20


@of_one_process
def test_sync_between_yield_and_change_loses_nothing(make):
    tracker = make(sync_at=3, init={number: {"l": []} for number in range(10)})
    tracker.sync()
    for key, task in tracker.todo_items():
        tracker.sync()
        for other in range(10):
            assert tracker[other]["_done"] is (other < key)
        task["l"].append(key)
        tracker.mark_done(key)
    again = reopened(tracker, make)
    assert again.items() == [(key, {**FRESH, "_done": True, "l": [key]}) for key in range(10)]


@of_one_process
def test_iterators_and_gates_count_the_same_tries(make):
    tracker = make(max_tries=2, init={key: {} for key in "ab"})
    first, second = tracker.try_keys(), tracker.try_keys()
    assert [next(first), next(second)] == ["a", "a"]
    assert tracker.should_try("a") is False
    assert tracker.should_try("b") is True
    assert next(first) == "b"
    assert list(second) == []


def test_read_only_tracker_reads_statuses_and_refuses_tries(make, path, opened):
    make(init={"a": {"_done": True}, "b": {"_tries": 1}, "c": {"_aborted": True}}).close()
    opened.append(ProgressTracker(path, mode="r"))
    reader = opened[-1]
    assert list(reader.todo_keys()) == ["b"]
    assert list(reader.aborted_keys()) == ["c"]
    assert (reader.num_done(), reader.num_aborted(), reader.num_tried()) == (1, 1, 1)
    assert reader.done("a")
    assert reader.should_do("b")
    assert reader.percent_done() == "33.33 %"


MORE_TASKS = """
import sys
from tastypy_fast import ProgressTracker
with ProgressTracker(sys.argv[1]) as tracker:
    tracker.add_many(range(10, 2000))
    tracker.mark_done(0)
    tracker.abort(1999)
    del tracker[3]
"""


def test_read_only_tracker_yields_tasks_that_a_writer_adds(make, path, opened, run_python):
    make(init={number: {} for number in range(10)}).close()
    opened.append(ProgressTracker(path, mode="r"))
    reader = opened[-1]
    iterator = reader.todo_keys()
    assert [next(iterator) for _ in range(5)] == list(range(5))
    assert reader.tries(3) == 0
    assert reader.num_done() == 0
    run_python(MORE_TASKS, path)
    assert (reader.num_done(), reader.num_aborted(), len(reader)) == (1, 1, 1999)
    assert reader.done(0)
    assert list(iterator) == list(range(5, 1999))
    assert list(reader.aborted_keys()) == [1999]
    with pytest.raises(KeyError):
        reader.tries(3)


def test_read_only_tracker_raises_for_a_task_deleted_after_it_was_yielded(make, path, opened, run_python):
    make(init={3: {"_tries": 2}, 4: {}}).close()
    opened.append(ProgressTracker(path, mode="r"))
    reader = opened[-1]
    key = next(reader.todo_keys())
    run_python(MORE_TASKS.replace("mark_done(0)", "mark_done(4)"), path)
    assert key == 3
    with pytest.raises(KeyError):
        reader.tries(key)


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize(("family", "part"), FAMILIES)
def test_iterator_lets_go_of_its_tracker_at_its_end(tracker_class, path, family, part, count):
    assert_freed_at_the_end(tracker_class, path, count, f"{family}_{part}")


@pytest.mark.parametrize("part", ["keys", "values", "items"])
def test_closed_iterator_lets_go_of_its_tracker(tracker_class, path, part):
    freed = []
    tracker = freeing(tracker_class, freed.append)(path, init={key: {} for key in "abc"})
    iterator = getattr(tracker, f"try_{part}")()
    next(iterator)
    del tracker
    assert not freed
    iterator.close()
    assert freed
    assert next(iterator, None) is None
    iterator.close()
    with tracker_class(path) as again:
        assert again.num_tried() == 1


def test_finalizer_that_advances_a_loop_in_its_sync_does_not_mix_up_the_keys(tmp_path):
    within = []

    class Advancing(list):
        def __del__(self):
            within.extend(islice(loop, 1))

    with ProgressTracker(tmp_path / "store", sync_at=3, sync_every=None) as tracker:
        tracker.add_many(map(str, range(20)))
        held = tracker["19"]
        loop = tracker.try_keys()
        tracker[next(loop)]["x"] = Advancing([1])
        while not within:
            key = next(loop)
        tracker.set[key]["y"] = 1
        tracker.mark_done(key)
        assert within[0] != key
        assert [tracker.done(key), tracker.done(within[0])] == [True, False]
        assert [tracker[key].get("y"), tracker[within[0]].get("y")] == [1, None]
        assert held == {**FRESH}
        tracker._check()
