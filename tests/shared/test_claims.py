"""Claims: each task is claimed by one worker at a time."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
    SharedTracker,
)
from tests.support.claims import TASKS, Worker, finish_each, take, tries
from tests.support.workers import in_processes, in_workers

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

WAYS_TO_CLAIM = {
    "try_keys": lambda tracker: tracker.try_keys(),
    "try_keys, batch 7": lambda tracker: tracker.try_keys(batch=7),
    "try_keys, batch 100": lambda tracker: tracker.try_keys(batch=100),
    "try_items": lambda tracker: (key for key, _ in tracker.try_items()),
    "try_items, batch 7": lambda tracker: (key for key, _ in tracker.try_items(batch=7)),
    "try_values, batch 7": lambda tracker: (task["key"] for task in tracker.try_values(batch=7)),
    "should_try": lambda tracker: filter(tracker.should_try, range(TASKS)),
    "should_try_add": lambda tracker: filter(tracker.should_try_add, range(TASKS)),
    "one loop for each": lambda tracker: one_by_one(tracker),
}


def one_by_one(tracker):
    while (key := next(tracker.try_keys(batch=3), None)) is not None:
        yield key
        tracker.mark_done(key)


def finish_many(tracker, keys):
    done, ready = [], []
    for key in keys:
        done.append(key)
        ready.append(key)
        if len(ready) == 10:
            tracker.mark_done_many(ready)
            ready.clear()
    tracker.mark_done_many(ready)
    return done


def abort_each(tracker, keys):
    done = []
    for key in keys:
        tracker.abort(key)
        done.append(key)
    return done


@pytest.mark.parametrize("is_shared", [True, False], ids=["one instance", "an instance for each"])
@pytest.mark.parametrize("finish", [finish_each, finish_many, abort_each])
@pytest.mark.parametrize("way", [name for name in WAYS_TO_CLAIM if name != "one loop for each"])
def test_each_task_is_yielded_once(path, tracker, way, finish, is_shared):
    if way != "should_try_add":
        tracker.update((number, {"key": number}) for number in range(TASKS))

    def work(process, thread):
        mine = tracker if is_shared else SharedTracker(path)
        return finish(mine, WAYS_TO_CLAIM[way](mine))

    results = in_workers(work)
    assert sorted(itertools.chain(*results)) == list(range(TASKS))
    assert tries(tracker) == [1] * TASKS
    assert tracker.num_done() + tracker.num_aborted() == TASKS
    assert tracker.claims() == {}


def test_each_task_is_claimed_once_by_loops_and_gates(path, tracker):
    tracker.update((number, {"key": number}) for number in range(2 * TASKS))
    ways = list(WAYS_TO_CLAIM)

    def work(process, thread):
        rng = random.Random(f"{process} {thread}")
        done = []
        while tracker.num_done() < len(tracker):
            keys = WAYS_TO_CLAIM[rng.choice(ways)](tracker)
            done += finish_each(tracker, itertools.islice(keys, rng.randrange(20)))
        return done

    # Each process leaves its loops unfinished, so the remaining tasks must become available again.
    results = in_processes(lambda process: work(process, 0), len(ways))
    assert sorted(itertools.chain(*results)) == list(range(2 * TASKS))
    assert tries(tracker) == [1] * (2 * TASKS)


class RunningTasks:
    """The running tasks of all workers of a test, a file for each. Adding a task that is already there raises."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.mine = set()

    def take(self, key):
        if key not in self.mine:
            os.close(os.open(self.folder / str(key), os.O_CREAT | os.O_EXCL))
            self.mine.add(key)

    def give(self, key):
        self.mine.remove(key)
        os.unlink(self.folder / str(key))


@pytest.mark.parametrize("batch", [1, 5])
def test_failed_task_stays_with_its_worker_until_it_is_released(path, tracker, tmp_path, batch):
    """Tasks fail, are released, are aborted and finish at random, over many loops."""
    tracker.add_many(range(60))

    def work(process):
        rng = random.Random(process)
        hand = RunningTasks(tmp_path / "hand")
        log = []
        while tracker.num_done() + tracker.num_aborted() < len(tracker):
            for key in tracker.try_keys(batch=batch):
                hand.take(key)
                log.append(key)
                chance = rng.random()
                if chance < 0.5:
                    continue
                hand.give(key)
                end = "mark_done" if chance < 0.7 else "release" if chance < 0.9 else "abort"
                getattr(tracker, end)(key)
        assert not hand.mine
        return log

    log = Counter(itertools.chain(*in_processes(work)))
    assert [log[key] for key in range(60)] == tries(tracker)
    assert len(log) == 60
    assert tracker.claims() == {}


def test_threads_of_one_process_claim_different_tasks(tracker):
    tracker.add_many(range(TASKS))
    running, lock = set(), threading.Lock()
    all_here = threading.Barrier(4)  # A thread with two of these would get the task at which it failed before.

    def work(thread):
        all_here.wait()
        count = 0
        for key in tracker.try_keys(batch=1 + thread):
            with lock:
                assert key not in running
                running.add(key)
            count += 1
            # While this loop runs, its failed tasks are not available to others.
            if count % 3:
                tracker.mark_done(key)
                with lock:
                    running.remove(key)
        with lock:
            return count

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(work, range(4)))
    assert sum(counts) == TASKS == sum(tries(tracker))
    assert set(tracker.claimed_keys()) == running == set(tracker.todo_keys())


def test_threads_may_share_a_loop(tracker):
    tracker.add_many(range(TASKS))
    loop = tracker.try_keys(batch=7)

    def work(thread):
        done = []
        for key in loop:
            tracker.mark_done(key)
            done.append(key)
        return done

    with ThreadPoolExecutor(4) as pool:
        assert sorted(itertools.chain(*pool.map(work, range(4)))) == list(range(TASKS))
    assert tries(tracker) == [1] * TASKS
    assert tracker.claims() == {}


def test_gate_refuses_a_task_while_the_thread_that_claimed_it_lives(tracker):
    tracker.add_many("ab")
    asked, end = threading.Event(), threading.Event()

    def work():
        assert tracker.should_try("a")
        # This is its own task, once more.
        assert tracker.should_try("a")
        asked.set()
        end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        asked.wait()
        assert not tracker.should_try("a")
        assert list(tracker.try_keys()) == ["b"]
    finally:
        end.set()
        thread.join()
    assert tracker.tries("a") == 2
    assert tracker.should_try("a")
    assert tracker.tries("a") == 3


@pytest.mark.parametrize("batch", [1, 3])
def test_nested_loops_claim_different_tasks(tracker, batch):
    tracker.add_many(range(30))
    outer_keys, inner_keys = [], []
    for outer in tracker.try_keys(batch=batch):
        outer_keys.append(outer)
        for inner in tracker.try_keys(batch=batch):
            assert inner not in outer_keys
            inner_keys.append(inner)
            tracker.mark_done(inner)
            if len(inner_keys) % 4 == 0:
                break
        tracker.mark_done(outer)
    assert sorted(outer_keys + inner_keys) == list(range(30))
    assert tries(tracker) == [1] * 30


def test_loop_and_gate_of_one_thread_share_their_claims(tracker):
    tracker.add_many("abc")
    found = []
    for key in tracker.try_keys():
        found.append(key)
        if key == "a":
            assert tracker.should_try("b")
            # It is its own task again, with another try.
            assert tracker.should_try("a")
            tracker.mark_done("a")
    assert found[0] == "a"
    assert found[-1] == "c"
    assert tracker.tries("a") == 2
    assert tracker.tries("c") == 1
    # A loop of the same thread may yield the task of the gate.
    assert tracker.tries("b") == 1 + found.count("b")


def test_two_instances_of_one_process_are_one_worker(path, tracker):
    tracker.add_many(range(6))
    with SharedTracker(path) as other:
        mine, theirs = tracker.try_keys(), other.try_keys()
        assert [next(mine), next(theirs), next(mine), next(theirs)] == [0, 1, 2, 3]
        assert tracker.claimed_keys() == other.claimed_keys() == [0, 1, 2, 3]
    # Closing one of two instances releases nothing.
    assert tracker.claimed_keys() == [0, 1, 2, 3]
    with pytest.raises(CalledClosedTrackerError):
        next(theirs)
    assert list(mine) == [4, 5]


def test_many_workers_have_separate_claims(path, tracker):
    count = 12
    tracker.add_many(range(2 * count))
    workers = [Worker(path) for _ in range(count)]
    try:
        taken = [worker.ask(take, 2) for worker in workers]
        assert sorted(itertools.chain(*taken)) == list(range(2 * count))
        claims = tracker.claims()
        for worker, keys in zip(workers, taken, strict=True):
            assert [claims[key].process for key in keys] == [worker.pid] * 2
    finally:
        for worker in workers:
            worker.__exit__()
    assert tracker.claims() == {}
