"""Limits of loops over tasks: max_tries, aborted tasks, too many loops at once."""

from __future__ import annotations

import gc
import itertools
import random
from collections import Counter

import pytest

from tastypy_fast import (
    PersistentOrderedDictException,
    SharedTracker,
)
from tastypy_fast._store import live_workers
from tests.support.children import Child
from tests.support.claims import TASKS, Worker, call, finish_each, take, take_all, tries
from tests.support.workers import in_processes, next_line, send_line, started

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_loop_beyond_the_limit_of_running_loops_raises(tracker):
    slots = live_workers.SLOTS - 1
    tracker.add_many(range(slots + 3))
    loops = [tracker.try_keys() for _ in range(slots)]
    assert [next(loop) for loop in loops] == list(range(slots))
    more = tracker.try_keys()
    with pytest.raises(PersistentOrderedDictException, match=f"{slots} loops"):
        next(more)
    # Nothing was claimed for that loop. Gates need no slot.
    assert len(tracker.claimed_keys()) == slots
    assert tracker.should_try(slots + 2)
    loops[5].close()
    # First the task that the closed loop left, and then a new one.
    assert [next(more), next(more)] == [5, slots]
    loops[7] = None
    gc.collect()
    for _ in range(2 * slots):
        assert next(tracker.try_keys()) == 7
    tracker._check()


def test_allow_aborted_claims_aborted_tasks(path, tracker):
    tracker.add_many("abcd")
    tracker.mark_done("a")
    tracker.abort("b")
    tracker.abort("c")
    with Worker(path) as worker:
        assert worker.ask(take, 1, 1, "keys", True) == ["b"]
        assert not tracker.should_try("b", allow_aborted=True)
        assert list(tracker.try_keys(allow_aborted=True, batch=2)) == ["c", "d"]
        # After abort() the task is available to loops with allow_aborted.
        worker.ask(call, "abort", "b")
        assert tracker.claimed_keys() == ["c", "d"]
        assert not tracker.should_try("b")
        assert tracker.should_try("b", allow_aborted=True)
        tracker.unabort("b")
        assert worker.ask(take_all) == []
        worker.end("close")
    assert [tracker.tries(key) for key in "abcd"] == [0, 2, 1, 1]
    assert list(tracker.try_keys()) == ["b", "d"]


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_max_tries_applies_across_workers(path, batch):
    """All tasks fail, and move between workers that close and open again."""
    count, limit = 40, 4

    def work(process):
        log = []
        rng = random.Random(process)
        while True:
            with SharedTracker(path, max_tries=limit) as mine:
                loop = mine.try_keys(batch=batch)
                found = list(itertools.islice(loop, rng.randrange(1, 20)))
                log += found
                loop.close()  # Tasks that the loop did not yield are still to be done.
                if next(mine.todo_keys(), None) is None:
                    return log

    with SharedTracker(path, max_tries=limit) as tracker:
        tracker.add_many(range(count))
        log = Counter(itertools.chain(*in_processes(work)))
        assert log == dict.fromkeys(range(count), limit)
        assert tries(tracker) == [limit] * count
        assert tracker.claims() == {}
        assert list(tracker.try_keys()) == []
        tracker._check()


def test_loop_yields_tasks_that_others_add_and_reopen(path, tracker):
    tracker.add_many(range(5))
    tracker.mark_done_many([1, 4])
    with Worker(path) as worker:
        loop = tracker.try_keys(batch=2)
        assert next(loop) == 0
        worker.ask(call, "add", 5)
        worker.ask(call, "mark_not_done", 4)
        worker.ask(call, "mark_done", 3)
        assert list(itertools.islice(loop, 3)) == [2, 4, 5]
        worker.ask(call, "add", 6)
        assert worker.ask(take) == [6]
        worker.ask(call, "release", 6)
        assert list(loop) == [6]
        worker.end("close")
    assert tries(tracker) == [1, 0, 1, 0, 1, 1, 2]


def test_values_and_items_of_a_batch_are_read_when_they_are_yielded(path, tracker):
    tracker.update((number, {"n": number}) for number in range(6))
    with Worker(path) as worker:
        values, items = tracker.try_values(batch=2), tracker.try_items(batch=2)
        assert next(values) == {"_done": False, "_aborted": False, "_tries": 1, "n": 0}
        assert next(items) == (2, {"_done": False, "_aborted": False, "_tries": 1, "n": 2})
        worker.ask(call, "update", {1: {"n": "new"}, 3: {"n": "new"}})
        assert next(values) == {"_done": False, "_aborted": False, "_tries": 1, "n": "new"}
        assert next(items) == (3, {"_done": False, "_aborted": False, "_tries": 1, "n": "new"})
        worker.end("close")


def test_independent_programs_claim_different_tasks(path, tracker):
    tracker.add_many(range(TASKS))
    program = """
        import sys
        from tastypy_fast import SharedTracker
        print("ready", flush=True)
        input()
        with SharedTracker(sys.argv[1]) as tracker:
            for key in tracker.try_keys(batch=3):
                print(key)
                tracker.mark_done(key)
        """
    with started(program, path) as first, started(program, path) as second:
        for process in (first, second):
            assert next_line(process) == "ready"
        for process in (first, second):
            send_line(process)
        keys = finish_each(tracker, tracker.try_keys())
        for process in (first, second):
            output, errors = process.communicate()
            assert (process.returncode, errors) == (0, "")
            keys += map(int, output.split())
    assert sorted(keys) == list(range(TASKS))
    assert tries(tracker) == [1] * TASKS


@pytest.mark.parametrize("max_tries", [0, 1])
def test_gate_accepts_a_waiting_task_of_the_same_thread_and_uses_its_try(path, max_tries):
    with SharedTracker(path, max_tries=max_tries) as tracker:
        tracker.add_many("abc")
        loop = tracker.try_keys(batch=2)
        assert next(loop) == "a"
        assert tracker.should_try("b")
        assert tracker.tries("b") == 1
        # The task is yielded once.
        assert list(loop) == ["c"]
        assert tracker.tries("b") == 1
        assert tracker.should_try("b") == (max_tries == 0)


def set_by_key(tracker):
    for key in tracker:
        tracker.set[key]["_tries"] = 0


def assigned(tracker):
    tracker.update({key: {"_tries": 0} for key in tracker})


def incremented(tracker):
    for key in tracker:
        tracker.increment_tries(key)


@pytest.mark.parametrize("end", ["close", "exit", "kill", "gate"])
@pytest.mark.parametrize(("change", "tries"), [
    (SharedTracker.revert, 0), (lambda tracker: [tracker.reset_tries(key) for key in tracker], 0), (set_by_key, 0),
    (assigned, 0), (incremented, 1), (lambda tracker: None, 0),
], ids=["revert", "reset", "by keying", "assigned", "incremented", "nothing"])
def test_try_that_was_already_reset_is_not_returned_twice(path, tracker, change, tries, end):
    tracker.add_many(range(6))
    tracker.sync()
    with Child(_begin_a_batch, path) as child:
        assert child.pipe.recv() == 0
        change(tracker)
        if end == "kill":
            child.kill()
        else:
            child.pipe.send(end)
            assert child.pipe.recv() == "ended"
        child.wait()
    # At its end, the loop looks for dead workers.
    assert set(tracker.try_keys()) == set(range(6))
    assert [tracker.tries(key) for key in range(1, 5)] == [tries + (end == "gate") + 1] * 4


@pytest.mark.parametrize("is_worker", [False, True])
def test_released_task_gets_its_try_back_if_it_was_not_yielded(path, tracker, is_worker):
    tracker.add_many(range(6))
    with Child(_begin_a_batch, path) as child:
        assert child.pipe.recv() == 0
        if is_worker:
            assert next(tracker.try_keys()) == 5
        tracker.release(1)
        assert tracker.tries(1) == 0
        child.kill()
        child.wait()
    for key in (0, 2):
        tracker.release(key)
        assert key not in tracker.claims()
    assert [tracker.tries(key) for key in range(3)] == [1, 0, 0]


def _begin_a_batch(pipe, path):
    with SharedTracker(path) as tracker:
        loop = tracker.try_keys(batch=5)
        pipe.send(next(loop))
        end = pipe.recv()
        if end == "close":
            loop.close()
        elif end == "gate":
            assert all(tracker.should_try(key) for key in range(1, 5))
    pipe.send("ended")
