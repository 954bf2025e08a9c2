"""A try is counted before its task is yielded, and taken back if the task was not yielded."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
    SharedTracker,
)
from tastypy_fast._store import live_workers
from tests.support.children import Child
from tests.support.claims import ENDINGS, Worker, call, close_loop, drop_loop, take, tries

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# A try is counted before the task is yielded

ONE = {
    "try_keys": lambda tracker: next(tracker.try_keys()),
    "try_keys, batch": lambda tracker: next(tracker.try_keys(batch=5)),
    "try_items": lambda tracker: next(tracker.try_items())[0],
    "try_values": lambda tracker: next(tracker.try_values()) and "a",
    "should_try": lambda tracker: tracker.should_try("a") and "a",
    "should_try_add": lambda tracker: tracker.should_try_add("a") and "a",
}


@pytest.mark.parametrize("way", ONE)
def test_try_of_a_task_that_kills_its_worker_is_counted(path, tracker, way):
    tracker.add_many("abcdefgh")

    def work(pipe):
        with SharedTracker(path) as mine:
            assert ONE[way](mine) == "a"
            os.kill(os.getpid(), signal.SIGKILL)

    for number in range(1, 4):
        with Child(work) as child:
            assert child.wait() == -signal.SIGKILL
        # The try is visible at once, and only this one.
        assert tracker.claims() == {}
        assert tracker.should_try("a")
        assert tries(tracker) == [number + 1, 0, 0, 0, 0, 0, 0, 0]
        tracker.decrement_tries("a")
        tracker.release("a")


@pytest.mark.parametrize("way", ONE)
def test_other_processes_see_the_try_of_a_running_task(path, tracker, way):
    tracker.add_many("ab")

    def work(pipe):
        with SharedTracker(path) as mine:
            pipe.send(ONE[way](mine))
            pipe.recv()

    with Child(work) as child:
        assert child.pipe.recv() == "a"
        assert tracker.tries("a") == 1
        assert tracker["a"] == {"_done": False, "_aborted": False, "_tries": 1}
        assert tracker.claims()["a"].process == child.pid
        assert not tracker.should_try("a")
        assert not tracker.should_try_add("a", allow_aborted=True)
        # Reading claims nothing.
        assert tracker.should_do("a")
        assert tracker.should_do_add("a")
        assert list(tracker.todo_keys()) == ["a", "b"]
        assert tracker.tries("a") == 1
        child.pipe.send("end")
        assert child.wait() == 0


@pytest.mark.parametrize("max_tries", [1, 3])
def test_task_that_kills_its_workers_is_tried_max_tries_times(path, max_tries):
    def work(pipe):
        with SharedTracker(path, max_tries=max_tries) as mine:
            for key in mine.try_keys(batch=3):
                pipe.send(key)
                if key == "deadly":
                    os.kill(os.getpid(), signal.SIGKILL)
                mine.mark_done(key)

    with SharedTracker(path, max_tries=max_tries) as tracker:
        tracker.add_many(["a", "b", "deadly", "c"])
        log = []
        for _ in range(max_tries + 1):
            with Child(work) as child:
                log += child.receive_all()
        assert child.wait() == 0
        assert Counter(log) == {"a": 1, "b": 1, "deadly": max_tries, "c": 1}
        assert tracker.tries("deadly") == max_tries
        assert not tracker.should_try("deadly")
        assert list(tracker.todo_keys()) == []
        tracker._check()


# Claimed tasks that were never yielded get their tries back


@pytest.mark.parametrize("kind", ["keys", "items", "values"])
@pytest.mark.parametrize("taken", [1, 4, 10, 14])
@pytest.mark.parametrize("ending", ENDINGS)
def test_tasks_that_a_worker_did_not_yield_are_untried_when_it_ends(path, tracker, ending, taken, kind):
    tracker.add_many(range(20))
    with Worker(path) as worker:
        worker.ask(take, taken, 10, kind)
        claimed = 10 if taken <= 10 else 20
        assert tracker.claimed_keys() == list(range(claimed))
        assert tries(tracker) == [1] * claimed + [0] * (20 - claimed)
        worker.end(ending)
    assert tracker.claims() == {}
    # Yielded tasks keep their tries. All tasks are available at once, in order.
    assert list(tracker.try_keys()) == list(range(20))
    assert tries(tracker) == [2] * taken + [1] * (20 - taken)


@pytest.mark.parametrize("end", [close_loop, drop_loop])
@pytest.mark.parametrize("taken", [1, 4, 10, 14])
def test_tasks_that_a_loop_did_not_yield_are_released_when_it_ends(path, tracker, end, taken):
    tracker.add_many(range(20))
    with Worker(path) as worker:
        worker.ask(take, taken, 10)
        worker.ask(end)
        assert tracker.claimed_keys() == list(range(taken))
        assert tries(tracker) == [1] * taken + [0] * (20 - taken)
        assert list(tracker.try_keys()) == list(range(taken, 20))
        # A closed loop yields nothing. A new loop continues with the failed tasks.
        assert worker.ask(take, 5) == ([] if end is close_loop else list(range(min(taken, 5))))
        worker.end("close")


def test_loop_left_by_break_releases_its_waiting_tasks(tracker):
    tracker.add_many(range(20))
    for key in tracker.try_keys(batch=10):
        if key == 3:
            break
    gc.collect()
    assert tries(tracker) == [1] * 4 + [0] * 16
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        for key in tracker.try_keys(batch=10):
            1 / (6 - key)
    gc.collect()
    assert tries(tracker) == [2] * 4 + [1] * 3 + [0] * 13
    assert tracker.claimed_keys() == list(range(7))


def test_task_that_failed_before_stays_with_its_worker_when_a_loop_ends(path, tracker):
    tracker.add_many(range(6))
    with Worker(path) as worker:
        assert worker.ask(take, 4) == [0, 1, 2, 3]
        worker.ask(drop_loop)
        assert worker.ask(take, 1, 10) == [0]
        worker.ask(drop_loop)
        assert tracker.claimed_keys() == [0, 1, 2, 3]
        assert tries(tracker) == [2, 1, 1, 1, 0, 0]
        assert list(tracker.try_keys()) == [4, 5]
        worker.end("close")


def test_loop_collected_inside_an_operation_releases_its_waiting_tasks(tracker):
    """The garbage collector runs inside a block, and inside a step of a loop over another store."""
    tracker.add_many(range(20))
    tracker["list"] = {"list": [2, 1]}
    tracker.mark_done("list")
    cycle = [tracker.try_keys(batch=10)]
    assert next(cycle[0]) == 0
    cycle.append(cycle)

    def key(item):
        gc.collect()
        return item

    del cycle
    tracker.set["list"]["list"].sort(key=key)
    assert tracker["list"]["list"] == [1, 2]
    assert tracker.claimed_keys() == [0]
    assert tries(tracker) == [1] + [0] * 20


def test_second_or_late_close_of_a_loop_has_no_effect(path, tracker):
    tracker.add_many(range(5))
    loop = tracker.try_keys(batch=5)
    loop.close()
    assert list(loop) == []
    assert tries(tracker) == [0] * 5
    loop = tracker.try_keys(batch=2)
    next(loop)
    loop.close()
    loop.close()
    assert list(loop) == []
    loop = tracker.try_keys(batch=2)
    next(loop)
    tracker.close()
    loop.close()
    del loop
    with SharedTracker(path) as again:
        assert tries(again) == [2, 0, 0, 0, 0]
        assert again.claims() == {}
        again._check()


def test_loop_over_a_closed_store_raises(path, tracker):
    tracker.add_many(range(5))
    loop, fresh = tracker.try_keys(batch=3), tracker.try_keys()
    next(loop)
    tracker.close()
    for one in (loop, fresh):
        with pytest.raises(CalledClosedTrackerError):
            next(one)
    with SharedTracker(path) as again:
        # This is another worker, although it is the same process.
        assert tries(again) == [1, 0, 0, 0, 0]
        with pytest.raises(CalledClosedTrackerError):
            next(loop)
        assert list(again.try_keys()) == list(range(5))


def test_aborted_block_claims_nothing(path, tracker):
    tracker.add_many(range(10))
    loop = tracker.try_keys(batch=4)
    assert next(loop) == 0
    with pytest.raises(KeyError), tracker.transaction():  # noqa: PT012
        assert [next(loop) for _ in range(5)] == [1, 2, 3, 4, 5]
        assert tracker.should_try(9)
        assert tracker.claimed_keys() == [*range(8), 9]
        tracker["never"]
    # The first four tasks were claimed before.
    assert tracker.claimed_keys() == [0, 1, 2, 3]
    assert tries(tracker) == [1] * 4 + [0] * 6
    with Worker(path) as worker:
        assert worker.ask(take, 9) == [4, 5, 6, 7, 8, 9]
        worker.end("close")
    tracker._check()


@pytest.mark.parametrize("batch", [1, 6])
def test_task_claimed_in_an_aborted_block_is_not_yielded_after_its_transaction_id_is_reused(path, tracker, batch):
    tracker.add_many(range(20))
    loop = tracker.try_keys(batch=batch)
    with pytest.raises(KeyError), tracker.transaction():  # noqa: PT012
        assert next(loop) == 0
        tracker["never"]
    with Worker(path) as worker:
        # LMDB gives the id of an aborted transaction to the next one.
        assert worker.ask(take) == [0]
        for key in loop:
            assert key in tracker.claimed_keys()
            assert tries(tracker)[key] == 1
        worker.end("close")
    assert set(tracker.claimed_keys()) == set(range(batch, 20))
    tracker._check()


def test_dead_workers_are_found_after_the_block_that_checked_them_was_aborted(path, tracker):
    tracker.add_many("ab")
    with Worker(path) as worker:
        assert worker.ask(call, "should_try", "a")
        worker.end("SIGKILL")
    with pytest.raises(KeyError), tracker.transaction():  # noqa: PT012
        assert tracker.should_try("b")
        assert tracker.should_try("a")
        tracker["never"]
    assert tries(tracker) == [1, 0]
    assert sorted(tracker.try_keys()) == ["a", "b"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_worker_that_dies_while_registering_loses_no_try(path, tracker, monkeypatch, when):
    """A worker may reuse the file of a dead worker, which has the count of tasks that the dead one had yielded."""
    tracker.add_many(range(10))
    with Worker(path) as worker:
        worker.ask(take, 2, 5)
        worker.end("SIGKILL")

    class Killed(live_workers.WorkerFile):
        def __init__(self, *arguments):
            if when == "after":
                super().__init__(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

    def die(pipe):
        monkeypatch.setattr("tastypy_fast._shared.worker.WorkerFile", Killed)
        SharedTracker(path).should_try(9)

    for _ in range(2):
        with Child(die) as child:
            assert child.wait() == -signal.SIGKILL
    assert sorted(tracker.try_keys(batch=3)) == list(range(10))
    assert tries(tracker) == [2, 2] + [1] * 8
