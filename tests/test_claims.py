"""Claims: a task is in the hand of one worker at a time, and its try is counted before it begins."""

from __future__ import annotations

import _thread
import ctypes
import gc
import itertools
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
    Claim,
    PersistentOrderedDictException,
    SharedTracker,
    Tracker,
)
from tastypy_fast._core.locks import is_alive, this_thread
from tastypy_fast._inspect.task_counts import active_claims
from tastypy_fast._store import worker_files
from tests.children import Child
from tests.workers import in_processes, in_workers, result_of, started, tell, told

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

TASKS = 240


@pytest.fixture
def tracker(path):
    """An open tracker, which is whole at the end of the test."""
    with SharedTracker(path) as tracker:
        yield tracker
        if not tracker.closed:
            tracker._check()


def tries(tracker):
    return [tracker.tries(key) for key in tracker]


class Worker(Child):
    """A child with a tracker: ``ask(function, ...)`` has it call a function of a module with its State."""

    def __init__(self, path, **options):
        super().__init__(_serve, path, options)

    def ask(self, function, *arguments):
        self.pipe.send((function, arguments))
        return self.pipe.recv()

    def end(self, ending):
        """Let it end in one of the ENDINGS."""
        self.pipe.send(("end", ending))
        return self.wait()


def _serve(pipe, path, options):
    state = State(SharedTracker(path, **options))
    while True:
        function, arguments = pipe.recv()
        if function == "end":
            ENDINGS[arguments](state)
            return
        pipe.send(function(state, *arguments))


class State:
    """What a worker has at hand."""

    def __init__(self, tracker):
        self.tracker = tracker
        self.loop = None


def take(state, count=1, batch=1, kind="keys", allow_aborted=False):
    """Go on with its loop; the keys that it hands out."""
    if state.loop is None:
        state.loop = getattr(state.tracker, f"try_{kind}")(allow_aborted, batch=batch)
    return list(itertools.islice(state.loop, count))


def take_all(state, batch=1):
    state.loop = None
    return list(state.tracker.try_keys(batch=batch))


def call(state, name, *arguments):
    return getattr(state.tracker, name)(*arguments)


def close_loop(state):
    state.loop.close()


def drop_loop(state):
    state.loop = None
    gc.collect()


ENDINGS = {
    "SIGKILL": lambda state: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda state: os.kill(os.getpid(), signal.SIGTERM),
    "os._exit": lambda state: os._exit(0),
    "close": lambda state: state.tracker.close(),
    "SIGKILL in a block": lambda state: (state.tracker.lock(), os.kill(os.getpid(), signal.SIGKILL)),
}


# Nobody gets what another one has

HAND_OUT = {
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


def finish_each(tracker, keys):
    done = []
    for key in keys:
        tracker.set[key]["by"] = os.getpid()
        tracker.mark_done(key)
        done.append(key)
    return done


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
@pytest.mark.parametrize("way", [name for name in HAND_OUT if name != "one loop for each"])
def test_each_task_is_handed_out_once(path, tracker, way, finish, is_shared):
    if way != "should_try_add":
        tracker.update((number, {"key": number}) for number in range(TASKS))

    def work(process, thread):
        mine = tracker if is_shared else SharedTracker(path)
        return finish(mine, HAND_OUT[way](mine))

    results = in_workers(work)
    assert sorted(itertools.chain(*results)) == list(range(TASKS))
    assert tries(tracker) == [1] * TASKS
    assert tracker.num_done() + tracker.num_aborted() == TASKS
    assert tracker.claims() == {}


def test_each_task_is_handed_out_once_however_they_ask(path, tracker):
    tracker.update((number, {"key": number}) for number in range(2 * TASKS))
    ways = list(HAND_OUT)

    def work(process, thread):
        rng = random.Random(f"{process} {thread}")
        done = []
        while tracker.num_done() < len(tracker):
            keys = HAND_OUT[rng.choice(ways)](tracker)
            done += finish_each(tracker, itertools.islice(keys, rng.randrange(20)))
        return done

    # (each leaves its loops where they are, so that what is left of them must come back)
    results = in_processes(lambda process: work(process, 0), len(ways))
    assert sorted(itertools.chain(*results)) == list(range(2 * TASKS))
    assert tries(tracker) == [1] * (2 * TASKS)


class Hand:
    """What the workers of a test have in hand, a file for each task: taking what is there already raises."""

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
def test_what_fails_stays_in_one_hand_until_it_is_given_back(path, tracker, tmp_path, batch):
    """Tasks that fail, are released, given up and finished at random, over many passes."""
    tracker.add_many(range(60))

    def work(process):
        rng = random.Random(process)
        hand = Hand(tmp_path / "hand")
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


def test_threads_of_one_process_do_not_meet(tracker):
    tracker.add_many(range(TASKS))
    in_hand, lock = set(), threading.Lock()
    all_here = threading.Barrier(4)  # a thread that did two of these would be offered what it failed at before

    def work(thread):
        all_here.wait()
        count = 0
        for key in tracker.try_keys(batch=1 + thread):
            with lock:
                assert key not in in_hand
                in_hand.add(key)
            count += 1
            # What fails is not offered to another one while this loop runs.
            if count % 3:
                tracker.mark_done(key)
                with lock:
                    in_hand.remove(key)
        with lock:
            return count

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(work, range(4)))
    assert sum(counts) == TASKS == sum(tries(tracker))
    assert set(tracker.claimed_keys()) == in_hand == set(tracker.todo_keys())


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


def test_a_gate_is_closed_for_other_threads_while_the_one_lives_that_has_it(tracker):
    tracker.add_many("ab")
    asked, end = threading.Event(), threading.Event()

    def work():
        assert tracker.should_try("a")
        # (its own, once more)
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
def test_nested_loops_do_not_meet(tracker, batch):
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


def test_a_loop_and_a_gate_of_one_thread_know_one_another(tracker):
    tracker.add_many("abc")
    found = []
    for key in tracker.try_keys():
        found.append(key)
        if key == "a":
            assert tracker.should_try("b")
            # Its own again: another try.
            assert tracker.should_try("a")
            tracker.mark_done("a")
    assert found[0] == "a"
    assert found[-1] == "c"
    assert tracker.tries("a") == 2
    assert tracker.tries("c") == 1
    # The gate's task may come to the loop of the same thread.
    assert tracker.tries("b") == 1 + found.count("b")


def test_two_instances_of_one_process_are_one_worker(path, tracker):
    tracker.add_many(range(6))
    with SharedTracker(path) as other:
        mine, theirs = tracker.try_keys(), other.try_keys()
        assert [next(mine), next(theirs), next(mine), next(theirs)] == [0, 1, 2, 3]
        assert tracker.claimed_keys() == other.claimed_keys() == [0, 1, 2, 3]
    # Closing one of two gives nothing back.
    assert tracker.claimed_keys() == [0, 1, 2, 3]
    with pytest.raises(CalledClosedTrackerError):
        next(theirs)
    assert list(mine) == [4, 5]


def test_many_workers_have_claims_of_their_own(path, tracker):
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


# A try is counted before the task is handed out

ONE = {
    "try_keys": lambda tracker: next(tracker.try_keys()),
    "try_keys, batch": lambda tracker: next(tracker.try_keys(batch=5)),
    "try_items": lambda tracker: next(tracker.try_items())[0],
    "try_values": lambda tracker: next(tracker.try_values()) and "a",
    "should_try": lambda tracker: tracker.should_try("a") and "a",
    "should_try_add": lambda tracker: tracker.should_try_add("a") and "a",
}


@pytest.mark.parametrize("way", ONE)
def test_a_task_that_kills_its_worker_is_counted(path, tracker, way):
    tracker.add_many("abcdefgh")

    def work(pipe):
        with SharedTracker(path) as mine:
            assert ONE[way](mine) == "a"
            os.kill(os.getpid(), signal.SIGKILL)

    for number in range(1, 4):
        with Child(work) as child:
            assert child.wait() == -signal.SIGKILL
        # At once, and only it.
        assert tracker.claims() == {}
        assert tracker.should_try("a")
        assert tries(tracker) == [number + 1, 0, 0, 0, 0, 0, 0, 0]
        tracker.decrement_tries("a")
        tracker.release("a")


@pytest.mark.parametrize("way", ONE)
def test_others_see_the_try_while_it_is_under_way(path, tracker, way):
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
        # To look is to claim nothing.
        assert tracker.should_do("a")
        assert tracker.should_do_add("a")
        assert list(tracker.todo_keys()) == ["a", "b"]
        assert tracker.tries("a") == 1
        child.pipe.send("end")
        assert child.wait() == 0


@pytest.mark.parametrize("max_tries", [1, 3])
def test_a_task_that_kills_its_worker_is_given_up_after_max_tries(path, max_tries):
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


# What was claimed and never handed out gets its try back


@pytest.mark.parametrize("kind", ["keys", "items", "values"])
@pytest.mark.parametrize("taken", [1, 4, 10, 14])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_worker_has_not_handed_out_is_untried_when_it_ends(path, tracker, ending, taken, kind):
    tracker.add_many(range(20))
    with Worker(path) as worker:
        worker.ask(take, taken, 10, kind)
        claimed = 10 if taken <= 10 else 20
        assert tracker.claimed_keys() == list(range(claimed))
        assert tries(tracker) == [1] * claimed + [0] * (20 - claimed)
        worker.end(ending)
    assert tracker.claims() == {}
    # What was handed out keeps its try, all of it is offered at once, in order.
    assert list(tracker.try_keys()) == list(range(20))
    assert tries(tracker) == [2] * taken + [1] * (20 - taken)


@pytest.mark.parametrize("end", [close_loop, drop_loop])
@pytest.mark.parametrize("taken", [1, 4, 10, 14])
def test_what_a_loop_has_not_handed_out_is_given_back_when_it_ends(path, tracker, end, taken):
    tracker.add_many(range(20))
    with Worker(path) as worker:
        worker.ask(take, taken, 10)
        worker.ask(end)
        assert tracker.claimed_keys() == list(range(taken))
        assert tries(tracker) == [1] * taken + [0] * (20 - taken)
        assert list(tracker.try_keys()) == list(range(taken, 20))
        # A loop that was closed hands nothing out; a new one goes on with what has failed.
        assert worker.ask(take, 5) == ([] if end is close_loop else list(range(min(taken, 5))))
        worker.end("close")


def test_a_loop_that_is_broken_out_of_gives_back(tracker):
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


def test_what_failed_before_stays_its_workers_when_a_loop_gives_it_back(path, tracker):
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


def test_a_loop_that_is_collected_inside_of_an_operation_gives_back(tracker):
    """The garbage collector comes into a block, and into the middle of a loop of another store's."""
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


def test_closing_a_loop_twice_and_late_does_nothing_more(path, tracker):
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


def test_a_loop_that_outlives_its_store_raises(path, tracker):
    tracker.add_many(range(5))
    loop, fresh = tracker.try_keys(batch=3), tracker.try_keys()
    next(loop)
    tracker.close()
    for one in (loop, fresh):
        with pytest.raises(CalledClosedTrackerError):
            next(one)
    with SharedTracker(path) as again:
        # Another worker, although it is the same process.
        assert tries(again) == [1, 0, 0, 0, 0]
        with pytest.raises(CalledClosedTrackerError):
            next(loop)
        assert list(again.try_keys()) == list(range(5))


def test_a_block_that_is_undone_claims_nothing(path, tracker):
    tracker.add_many(range(10))
    loop = tracker.try_keys(batch=4)
    assert next(loop) == 0
    with pytest.raises(KeyError), tracker.transaction():  # noqa: PT012
        assert [next(loop) for _ in range(5)] == [1, 2, 3, 4, 5]
        assert tracker.should_try(9)
        assert tracker.claimed_keys() == [*range(8), 9]
        tracker["never"]
    # The first four were claimed before.
    assert tracker.claimed_keys() == [0, 1, 2, 3]
    assert tries(tracker) == [1] * 4 + [0] * 6
    with Worker(path) as worker:
        assert worker.ask(take, 9) == [4, 5, 6, 7, 8, 9]
        worker.end("close")
    tracker._check()


@pytest.mark.parametrize("batch", [1, 6])
def test_what_an_undone_block_claimed_is_not_handed_out_though_its_number_was_used_again(path, tracker, batch):
    tracker.add_many(range(20))
    loop = tracker.try_keys(batch=batch)
    with pytest.raises(KeyError), tracker.transaction():  # noqa: PT012
        assert next(loop) == 0
        tracker["never"]
    with Worker(path) as worker:
        # (LMDB gives the number of a transaction that was aborted to the next one)
        assert worker.ask(take) == [0]
        for key in loop:
            assert key in tracker.claimed_keys()
            assert tries(tracker)[key] == 1
        worker.end("close")
    assert set(tracker.claimed_keys()) == set(range(batch, 20))
    tracker._check()


def test_dead_workers_are_found_though_a_block_that_looked_was_undone(path, tracker):
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
def test_who_dies_while_it_becomes_a_worker_takes_no_try_away(path, tracker, monkeypatch, when):
    """A worker may take over the file of a dead one, which says what that one had handed out."""
    tracker.add_many(range(10))
    with Worker(path) as worker:
        worker.ask(take, 2, 5)
        worker.end("SIGKILL")

    class Killed(worker_files.WorkerFile):
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


# What has failed stays its worker's


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_what_failed_comes_again_in_the_next_pass_of_its_worker_alone(path, tracker, batch):
    tracker.add_many(range(6))
    with Worker(path) as first, Worker(path) as second:
        assert first.ask(take, 2) == [0, 1]
        assert second.ask(take_all, batch) == [2, 3, 4, 5]
        for number in range(2, 4):
            assert first.ask(take_all, batch) == [0, 1]
            assert second.ask(take_all, batch) == [2, 3, 4, 5]
            assert tries(tracker) == [number] * 6
        second.ask(call, "mark_done", 3)
        assert second.ask(take_all, batch) == [2, 4, 5]
        assert list(tracker.try_keys()) == []
        assert not tracker.should_try(0)
        first.end("close")
        # (what others have left comes in order, or at the end of a loop that did not know of it)
        assert sorted(second.ask(take_all, batch)) == [0, 1, 2, 4, 5]
        second.end("close")
    assert sorted(tracker.try_keys()) == [0, 1, 2, 4, 5]


def test_a_pass_does_not_repeat_what_failed_in_it(tracker):
    tracker.add_many(range(5))
    passes = [[], []]
    for keys in passes:
        for key in tracker.try_keys(batch=2):
            keys.append(key)
            if key == 1:
                tracker.add_if_absent(5)
    assert passes == [[0, 1, 2, 3, 4, 5]] * 2


def test_a_worker_that_is_stopped_keeps_its_tasks(path, tracker):
    tracker.add_many(range(5))
    with Worker(path) as worker:
        assert worker.ask(take, 2) == [0, 1]
        worker.kill(signal.SIGSTOP)
        os.waitpid(worker.pid, os.WUNTRACED)
        assert list(tracker.try_keys()) == [2, 3, 4]
        assert tracker.claims()[0].process == worker.pid
        worker.kill(signal.SIGCONT)
        assert worker.ask(take_all) == [0, 1]
        worker.kill(signal.SIGSTOP)
        worker.kill(signal.SIGKILL)
        worker.wait()
        assert sorted(tracker.try_keys()) == list(range(5))


# Who has what


def test_claims_tell_who_and_since_when(path, tracker):
    tracker.add_many(["c", ("b", 1), 7, "a"])
    before = datetime.now(timezone.utc)
    with Worker(path) as worker:
        assert worker.ask(call, "should_try", 7)
        assert next(tracker.try_keys()) == "c"
        assert worker.ask(take) == [("b", 1)]
        after = datetime.now(timezone.utc)
        claims = tracker.claims()
        # In the order in which they were added.
        assert list(claims) == tracker.claimed_keys() == ["c", ("b", 1), 7]
        assert [claim.process for claim in claims.values()] == [os.getpid(), worker.pid, worker.pid]
        assert {claim.host for claim in claims.values()} == {socket.gethostname()}
        assert all(before <= claim.since <= after for claim in claims.values())
        # The same from everywhere.
        worker.pipe.send((claims_of, ()))
        assert worker.pipe.recv() == [(key, *claim) for key, claim in claims.items()]
        worker.ask(call, "mark_done", 7)
        assert tracker.claimed_keys() == ["c", ("b", 1)]
        worker.end("SIGKILL")
    assert tracker.claimed_keys() == ["c"]
    tracker.release("c")
    assert tracker.claimed_keys() == []


def claims_of(state):
    return [(key, *claim) for key, claim in state.tracker.claims().items()]


def test_one_who_only_looks_is_no_worker(path, tracker):
    tracker.add_many(range(5))
    with Worker(path) as worker:
        for name in ("claims", "claimed_keys", "num_done", "keys", "items"):
            worker.ask(call, name)
        worker.ask(call, "should_do", 1)
        worker.ask(call, "mark_done", 0)
        assert not (path / "workers").exists()
        assert tracker.claims() == {}
        worker.end("close")


# Giving back


def test_release_offers_a_task_to_all_and_keeps_its_try(path, tracker):
    tracker.add_many(range(3))
    with Worker(path) as worker:
        assert worker.ask(take, 3) == [0, 1, 2]
        worker.ask(call, "release", 0)
        # Anybody may.
        tracker.release(2)
        assert tracker.claimed_keys() == [1]
        assert tries(tracker) == [1, 1, 1]
        assert list(tracker.try_keys()) == [0, 2]
        assert worker.ask(take_all) == [1]
        tracker.release(1)
        assert tracker.should_try(1)
        assert worker.ask(take_all) == []
        worker.end("close")


def test_release_of_what_nobody_has(tracker):
    tracker.add_many("ab")
    tracker.release("a")
    tracker.should_try("b")
    tracker.mark_done("b")
    tracker.release("b")
    assert tries(tracker) == [0, 1]
    assert tracker.done("b")
    with pytest.raises(KeyError):
        tracker.release("c")


ENDS_CLAIM = {
    "mark_done": lambda tracker: tracker.mark_done("a"),
    "mark_done_many": lambda tracker: tracker.mark_done_many(["b", "a"]),
    "mark_not_done": lambda tracker: tracker.mark_not_done("a"),
    "abort": lambda tracker: tracker.abort("a"),
    "release": lambda tracker: tracker.release("a"),
    "assign done": lambda tracker: tracker.__setitem__("a", {"_done": True, "_aborted": False, "_tries": 1}),
    "assign aborted": lambda tracker: tracker.__setitem__("a", {"_aborted": True, "_tries": 1}),
    "set done": lambda tracker: tracker.set["a"].__setitem__("_done", True),
    "set aborted": lambda tracker: tracker.set["a"].update(_aborted=True, x=1),
    "update done": lambda tracker: tracker.update(a={"_done": True}),
    "del": lambda tracker: tracker.__delitem__("a"),
    "del through set": lambda tracker: tracker.set.__delitem__("a"),
    "pop": lambda tracker: tracker.pop("a"),
    "popitem": lambda tracker: tracker.popitem(last=False),
    "clear": lambda tracker: tracker.clear(),
    "del and add": lambda tracker: (tracker.__delitem__("a"), tracker.add("a")),
}
KEEPS_CLAIM = {
    "set data": lambda tracker: tracker.set["a"].__setitem__("x", 1),
    "assign data": lambda tracker: tracker.__setitem__("a", {"x": 1, "_tries": 1}),
    "update data": lambda tracker: tracker.update(a={"x": 1}),
    "increment_tries": lambda tracker: tracker.increment_tries("a"),
    "reset_tries": lambda tracker: tracker.reset_tries("a"),
    "unabort": lambda tracker: tracker.unabort("a"),
    "mark_dirty": lambda tracker: tracker.mark_dirty("a"),
    "setdefault": lambda tracker: tracker.setdefault("a", {}),
    "sync": lambda tracker: tracker.sync(),
    "add_if_absent": lambda tracker: tracker.add_if_absent("a"),
    "should_do": lambda tracker: tracker.should_do("a"),
    "others": lambda tracker: tracker.mark_done("b"),
}


@pytest.mark.parametrize("in_block", [False, True])
@pytest.mark.parametrize("way", ENDS_CLAIM)
def test_what_finishes_a_task_ends_its_claim_also_from_another_process(path, tracker, way, in_block):
    tracker.add_many("ab")
    with Worker(path) as worker:
        assert worker.ask(call, "should_try", "a")
        if in_block:
            with tracker.locked():
                ENDS_CLAIM[way](tracker)
                assert tracker.claimed_keys() == []
                assert worker.ask(claims_of) != []
        else:
            ENDS_CLAIM[way](tracker)
        assert tracker.claims() == {}
        assert worker.ask(claims_of) == []
        tracker._check()
        # If it is to be done all the same, or again, anybody may try it.
        is_over = "a" in tracker and (tracker.done("a") or tracker.aborted("a"))
        assert tracker.should_try_add("a") != is_over
        worker.end("close")


@pytest.mark.parametrize("way", KEEPS_CLAIM)
def test_what_does_not_finish_a_task_keeps_its_claim(path, tracker, way):
    tracker.add_many("ab")
    with Worker(path) as worker:
        assert worker.ask(call, "should_try", "a")
        KEEPS_CLAIM[way](tracker)
        assert tracker.claims()["a"].process == worker.pid
        assert not tracker.should_try("a")
        tracker._check()
        worker.end("close")
    assert tracker.claims() == {}


def test_a_thread_that_waits_to_claim_does_not_end_the_loop_of_another(tracker):
    """The last tasks are claimed by one thread while another one is about to, and finds nothing left."""
    for number in range(20):
        tracker.add_many(range(5 * number, 5 * number + 5))
        loop = tracker.try_keys(batch=5)
        begun = threading.Event()
        found = []

        def work(loop=loop, begun=begun, found=found):
            begun.set()
            found.extend(loop)

        other = threading.Thread(target=work)
        with tracker.locked():
            other.start()
            assert begun.wait(60)
            found.append(next(loop))
        other.join()
        assert sorted([*found, *loop]) == list(range(5 * number, 5 * number + 5))
        tracker.mark_done_many(found)


def test_a_batch_passes_over_what_others_have_finished_meanwhile(path, tracker):
    tracker.add_many(range(10))
    with Worker(path) as worker:
        assert worker.ask(take, 1, 10) == [0]
        tracker.mark_done(1)
        tracker.abort(2)
        del tracker[3]
        tracker.release(4)
        tracker.mark_not_done(5)
        assert tracker.should_try(4)
        tracker.set[6]["x"] = 1
        # (5 has been opened for all, and this loop is past it)
        assert worker.ask(take, 10) == [6, 7, 8, 9]
        worker.end("close")
    assert sorted(tracker.try_keys()) == [0, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("meanwhile", ["deleted", "deleted and added", "reverted", "added"])
def test_many_are_done_though_others_change_them_as_they_are_looked_for(path, tracker, monkeypatch, meanwhile):
    """Where tasks are is found out before the transaction, and may not be so in it."""
    tracker.add_many("abc")
    tracker.sync()
    if meanwhile == "reverted":
        del tracker["b"]
        tracker.add_many("db")
    with Worker(path) as worker:
        begin = type(tracker)._write_handle

        def begin_late(self):
            monkeypatch.undo()
            if meanwhile.startswith("deleted"):
                worker.ask(call, "__delitem__", "b")
            if meanwhile == "reverted":
                worker.ask(call, "revert")
                worker.ask(call, "add", "e")
            if meanwhile.endswith("added"):
                worker.ask(call, "add", "d")
                if "b" not in tracker:
                    worker.ask(call, "add", "b")
            return begin(self)

        monkeypatch.setattr(type(tracker), "_write_handle", begin_late)
        keys = ["a", "d", "b"] if meanwhile == "added" else ["a", "b", "b"]
        if meanwhile == "deleted":
            with pytest.raises(KeyError, match="'b'"):
                tracker.mark_done_many(keys)
        else:
            tracker.mark_done_many(keys)
        worker.end("close")
    assert [key for key in tracker if tracker.done(key)] == {
        "deleted": [], "deleted and added": ["a", "b"], "reverted": ["a", "b"], "added": ["a", "b", "d"],
    }[meanwhile]
    tracker._check()


def test_the_claim_that_was_taken_away_may_be_another_ones(path, tracker):
    tracker.add("a")
    with Worker(path) as first, Worker(path) as second:
        assert first.ask(take) == ["a"]
        first.ask(call, "release", "a")
        assert second.ask(take) == ["a"]
        # The first one's loop and end do not touch it.
        first.ask(close_loop)
        assert first.ask(take_all) == []
        first.end("close")
        assert tracker.claims()["a"].process == second.pid
        second.ask(call, "mark_done", "a")
        second.end("close")


@pytest.mark.parametrize("keeps_status", [True, False])
def test_revert_leaves_claims_that_still_hold(path, tracker, keeps_status):
    tracker.add_many("ab")
    tracker.sync()
    with Worker(path) as worker:
        assert worker.ask(call, "should_try", "a")
        if not keeps_status:
            worker.ask(call, "mark_done", "a")
        tracker.revert()
        # Undone is the count of the try, and the mark; that the worker has it in hand is a fact.
        assert tries(tracker) == [0, 0]
        assert tracker.claimed_keys() == (["a"] if keeps_status else [])
        assert tracker.should_try("a") != keeps_status
        tracker._check()
        worker.end("close")
    tracker._check()


PROGRAM = """
import sys
from tastypy_fast import SharedTracker
tracker = SharedTracker(sys.argv[1])
loop = tracker.try_keys(batch=5)
print(next(loop), next(loop), tracker.should_try(9), flush=True)
input()
{}
"""

EXITS = {
    "end of the program": "pass",
    "sys.exit": "sys.exit(0)",
    "exception": "1 / 0",
    "close": "tracker.close(); print('closed', flush=True); input()",
    "garbage": "del loop, tracker; print('closed', flush=True); input()",
    "a with block": "with tracker: pass\nprint('closed', flush=True); input()",
    "os._exit": "import os; os._exit(0)",
    "os.execv": "import os; os.execv(sys.executable, [sys.executable, '-c', 'print(\"closed\"); input()'])",
}


@pytest.mark.parametrize("name", EXITS)
def test_a_worker_that_closes_or_exits_gives_back(path, tracker, name):
    tracker.add_many(range(10))
    with started(PROGRAM.format(EXITS[name]), path) as process:
        assert told(process) == "0 1 True"
        assert tracker.claimed_keys() == [0, 1, 2, 3, 4, 9]
        tell(process)
        if "closed" in EXITS[name]:
            # It lives on, and has nothing any more.
            assert told(process) == "closed"
        else:
            process.wait()
        assert tracker.claims() == {}
        assert list(tracker.try_keys()) == list(range(10))
        assert tries(tracker) == [2, 2, 1, 1, 1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_gives_back_at_its_end(path, method):
    program = path.parent / "program.py"
    program.write_text(
        """
import multiprocessing, sys
from tastypy_fast import SharedTracker

def work(tracker):
    loop = globals()["loop"] = tracker.try_keys(batch=5)
    next(loop)

if __name__ == "__main__":
    tracker = SharedTracker(sys.argv[1], init=[(n, {}) for n in range(6)])
    assert tracker.should_try(5)
    process = multiprocessing.get_context(sys.argv[2]).Process(target=work, args=(tracker,))
    process.start()
    process.join()
    assert process.exitcode == 0
    print(tracker.claimed_keys(), [tracker.tries(key) for key in tracker])
"""
    )
    assert result_of(program, path, method) == (0, "[5] [1, 0, 0, 0, 0, 1]\n", "")


def test_whoever_is_alone_gives_everything_back(path):
    """The last worker is gone, and the next program opens the store; also as a private one."""
    for cls in (SharedTracker, Tracker, SharedTracker):
        with Worker(path) as worker:
            for number in range(8):
                worker.ask(call, "add_if_absent", number)
            before = worker.ask(all_tries)
            assert worker.ask(take, 2, 5) == [0, 1]
            worker.end("SIGKILL")
        with cls(path) as tracker:
            assert tries(tracker) == [before[0] + 1, before[1] + 1, *before[2:]]
            tracker._check()
            if cls is SharedTracker:
                assert tracker.claims() == {}
                assert list(tracker.try_keys()) == list(range(8))


def all_tries(state):
    return tries(state.tracker)


# The tasks of the dead


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM", "os._exit"])
def test_the_tasks_of_a_dead_worker_are_offered_to_others_at_once(path, tracker, ending, batch):
    tracker.add_many(range(8))
    with Worker(path) as first, Worker(path) as second:
        assert first.ask(take, 3, 4) == [0, 1, 2]
        assert first.ask(call, "should_try", 7)
        assert second.ask(take_all, batch) == [4, 5, 6]
        first.end(ending)
        # Through a gate and through a loop.
        assert second.ask(call, "should_try", 7)
        assert second.ask(take_all, batch) == list(range(8))
        assert tries(tracker) == [2, 2, 2, 1, 2, 2, 2, 3]
        second.end("close")


@pytest.mark.parametrize("batch", [1, 3])
def test_a_running_loop_comes_to_the_tasks_of_the_dead(path, tracker, batch):
    """Wherever they lie, also behind what it has passed."""
    tracker.add_many(range(12))
    with Worker(path) as first, Worker(path) as second:
        assert first.ask(take, 2) == [0, 1]
        loop = tracker.try_keys(batch=batch)
        assert next(loop) == 2
        taken = second.ask(take, 2)
        found = [2]
        for worker in (first, second):
            worker.end("SIGKILL")
            found.append(next(loop))
        found += loop
    assert sorted(found) == list(range(12))
    assert set(found[:2]).isdisjoint([0, 1, *taken])
    assert [tracker.tries(key) for key in (0, 1, *taken)] == [2] * 4
    assert sum(tries(tracker)) == 16


def test_a_loop_that_has_come_to_its_end_is_over(path, tracker):
    """What others leave later is for the next one."""
    tracker.add_many(range(3))
    with Worker(path) as worker:
        assert worker.ask(take) == [0]
        loop = tracker.try_keys()
        assert list(loop) == [1, 2]
        worker.end("SIGKILL")
    assert list(loop) == []
    assert sorted(tracker.try_keys()) == [0, 1, 2]


@pytest.mark.parametrize("how", ["fork", "subprocess", "subprocess with open files"])
def test_a_child_of_a_dead_worker_does_not_keep_its_tasks(path, tracker, how):
    tracker.add_many(range(5))

    def work(pipe):
        mine = SharedTracker(path)
        loop = mine.try_keys(batch=3)
        next(loop)
        if how == "fork":
            if os.fork() == 0:
                # Lives on with all that it has inherited.
                pipe.send(os.getpid())
                with suppress(EOFError):
                    pipe.recv()
                os._exit(0)
        else:
            child = subprocess.Popen(["sleep", "1000"], close_fds="open" not in how)
            pipe.send(child.pid)
        os.kill(os.getpid(), signal.SIGKILL)

    with Child(work) as worker:
        child = worker.pipe.recv()
        try:
            assert worker.wait() == -signal.SIGKILL
            assert tracker.claims() == {}
            assert list(tracker.try_keys()) == list(range(5))
            assert tries(tracker) == [2, 1, 1, 1, 1]
        finally:
            os.kill(child, signal.SIGKILL)


# A loop across a fork


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("way", ["list", "close", "drop", "leave", "exit"])
def test_a_child_takes_nothing_of_its_parents_loop(path, tracker, way, batch):
    """Whatever it does with the iterator that it has inherited."""
    tracker.add_many(range(12))
    loop = tracker.try_keys(batch=batch)
    assert [next(loop), next(loop)] == [0, 1]
    waiting = {1: [], 4: [2, 3]}[batch]

    def child(pipe):
        nonlocal loop
        found = []
        if way == "list":
            found = list(loop)
        elif way == "close":
            loop.close()
        elif way == "drop":
            loop = None
            gc.collect()
        elif way == "exit":
            assert tracker.claimed_keys() == [0, 1, *waiting]
        tracker.mark_done_many(found)
        pipe.send((found, tracker.claimed_keys()))
        if way == "leave":
            pipe.recv()

    with Child(child) as other:
        found, claimed = other.pipe.recv()
        assert found == (list(range(2 + len(waiting), 12)) if way == "list" else [])
        assert claimed == tracker.claimed_keys() == [0, 1, *waiting]
        if way == "leave":
            other.pipe.send("end")
        assert other.wait() == 0
    assert tracker.claimed_keys() == [0, 1, *waiting]
    assert list(loop) == [key for key in range(2, 12) if key not in found]
    assert tries(tracker) == [1] * 12


def test_a_child_works_beside_its_parent(path, tracker):
    """Both go on with the same iterator, each as a worker of its own."""
    tracker.add_many(range(TASKS))
    loop = tracker.try_keys(batch=5)
    mine = [next(loop)]

    def work(process):
        return finish_each(tracker, loop)

    results = in_processes(work)
    mine += finish_each(tracker, loop)
    tracker.mark_done(mine[0])
    assert sorted(itertools.chain(mine, *results)) == list(range(TASKS))
    assert tries(tracker) == [1] * TASKS


# Limits


def test_loops_without_end_raise_when_there_are_too_many(tracker):
    lanes = worker_files.SLOTS - 1
    tracker.add_many(range(lanes + 3))
    loops = [tracker.try_keys() for _ in range(lanes)]
    assert [next(loop) for loop in loops] == list(range(lanes))
    more = tracker.try_keys()
    with pytest.raises(PersistentOrderedDictException, match=f"{lanes} loops"):
        next(more)
    # Nothing was claimed for it; gates need none.
    assert len(tracker.claimed_keys()) == lanes
    assert tracker.should_try(lanes + 2)
    loops[5].close()
    # What that one has left, and then what is new.
    assert [next(more), next(more)] == [5, lanes]
    loops[7] = None
    gc.collect()
    for _ in range(2 * lanes):
        assert next(tracker.try_keys()) == 7
    tracker._check()


def test_allow_aborted(path, tracker):
    tracker.add_many("abcd")
    tracker.mark_done("a")
    tracker.abort("b")
    tracker.abort("c")
    with Worker(path) as worker:
        assert worker.ask(take, 1, 1, "keys", True) == ["b"]
        assert not tracker.should_try("b", allow_aborted=True)
        assert list(tracker.try_keys(allow_aborted=True, batch=2)) == ["c", "d"]
        # Aborted again, it is free for those that allow it.
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
def test_max_tries_holds_across_workers(path, batch):
    """All tasks fail, and go from hand to hand as workers close and open again."""
    count, limit = 40, 4

    def work(process):
        log = []
        rng = random.Random(process)
        while True:
            with SharedTracker(path, max_tries=limit) as mine:
                loop = mine.try_keys(batch=batch)
                found = list(itertools.islice(loop, rng.randrange(1, 20)))
                log += found
                loop.close()  # what it has not handed out is to do again
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


def test_a_loop_comes_to_what_others_add_and_open(path, tracker):
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


def test_values_and_items_are_as_they_are_when_they_are_handed_out(path, tracker):
    tracker.update((number, {"n": number}) for number in range(6))
    with Worker(path) as worker:
        values, items = tracker.try_values(batch=2), tracker.try_items(batch=2)
        assert next(values) == {"_done": False, "_aborted": False, "_tries": 1, "n": 0}
        assert next(items) == (2, {"_done": False, "_aborted": False, "_tries": 1, "n": 2})
        worker.ask(call, "update", {1: {"n": "new"}, 3: {"n": "new"}})
        assert next(values) == {"_done": False, "_aborted": False, "_tries": 1, "n": "new"}
        assert next(items) == (3, {"_done": False, "_aborted": False, "_tries": 1, "n": "new"})
        worker.end("close")


def test_outside_programs_claim_beside_one_another(path, tracker):
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
            assert told(process) == "ready"
        for process in (first, second):
            tell(process)
        keys = finish_each(tracker, tracker.try_keys())
        for process in (first, second):
            output, errors = process.communicate()
            assert (process.returncode, errors) == (0, "")
            keys += map(int, output.split())
    assert sorted(keys) == list(range(TASKS))
    assert tries(tracker) == [1] * TASKS


@pytest.mark.parametrize("max_tries", [0, 1])
def test_a_gate_opens_for_a_task_of_a_batch_that_waits_and_that_is_its_try(path, max_tries):
    with SharedTracker(path, max_tries=max_tries) as tracker:
        tracker.add_many("abc")
        loop = tracker.try_keys(batch=2)
        assert next(loop) == "a"
        assert tracker.should_try("b")
        assert tracker.tries("b") == 1
        # (it is handed out once)
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
def test_a_try_that_somebody_has_set_back_is_not_given_back(path, tracker, change, tries, end):
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
    # At its end the loop looks for workers that are gone.
    assert set(tracker.try_keys()) == set(range(6))
    assert [tracker.tries(key) for key in range(1, 5)] == [tries + (end == "gate") + 1] * 4


@pytest.mark.parametrize("is_worker", [False, True])
def test_a_task_that_is_released_has_its_try_back_if_it_was_not_handed_out(path, tracker, is_worker):
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


# What somebody does with a task that waits in a batch of another process, which was tried three times before: the tries
# after it, those after the loop has ended, and those after it was handed out, None where it is not.
ON_WAITING = {
    "mark_done": (lambda tracker: tracker.mark_done("w"), 3, 3, None),
    "mark_done_many": (lambda tracker: tracker.mark_done_many(["w"]), 3, 3, None),
    "mark_done, mark_not_done": (lambda tracker: (tracker.mark_done("w"), tracker.mark_not_done("w")), 3, 3, None),
    "mark_not_done": (lambda tracker: tracker.mark_not_done("w"), 3, 3, None),
    "abort": (lambda tracker: tracker.abort("w"), 3, 3, None),
    "abort, unabort": (lambda tracker: (tracker.abort("w"), tracker.unabort("w")), 3, 3, None),
    "release": (lambda tracker: tracker.release("w"), 3, 3, None),
    "release twice": (lambda tracker: (tracker.release("w"), tracker.release("w")), 3, 3, None),
    "set done": (lambda tracker: tracker.set["w"].__setitem__("_done", True), 3, 3, None),
    "set aborted": (lambda tracker: tracker.set["w"].update(_aborted=True, x=1), 3, 3, None),
    "update aborted": (lambda tracker: tracker.update(w={"_aborted": True}), 3, 3, None),
    "assign what was read": (lambda tracker: tracker.update(w={**tracker["w"], "_done": True}), 3, 3, None),
    "assign done with tries": (lambda tracker: tracker.update(w={"_done": True, "_tries": 7}), 7, 7, None),
    "increment, abort": (lambda tracker: (tracker.increment_tries("w"), tracker.abort("w")), 4, 4, None),
    "decrement, release": (lambda tracker: (tracker.decrement_tries("w"), tracker.release("w")), 2, 2, None),
    "reset, mark_not_done": (lambda tracker: (tracker.reset_tries("w"), tracker.mark_not_done("w")), 0, 0, None),
    "set tries, abort": (lambda tracker: (tracker.set["w"].update(_tries=5), tracker.abort("w")), 5, 5, None),
    # These leave the claim.
    "nothing": (lambda tracker: None, 4, 3, 4),
    "unabort": (lambda tracker: tracker.unabort("w"), 4, 3, 4),
    "set data": (lambda tracker: tracker.set["w"].update(x=1), 4, 3, 4),
    "increment_tries": (lambda tracker: tracker.increment_tries("w"), 5, 4, 5),
    "decrement_tries": (lambda tracker: tracker.decrement_tries("w"), 3, 2, 3),
    "reset_tries": (lambda tracker: tracker.reset_tries("w"), 0, 0, 0),
    "reset, increment": (lambda tracker: (tracker.reset_tries("w"), tracker.increment_tries("w")), 1, 1, 1),
    "set tries": (lambda tracker: tracker.set["w"].update(_tries=5), 5, 5, 5),
    "assign tries": (lambda tracker: tracker.update(w={"_tries": 2}), 2, 2, 2),
    # A revert takes the count of the try away, and the claim is a fact.
    "revert": (SharedTracker.revert, 3, 3, 3),
    # Another task, which the loop comes to in its turn.
    "delete and add": (lambda tracker: (tracker.__delitem__("w"), tracker.add("w")), 0, 0, 1),
}


def shown(tracker):
    """The tries of the task, by each way to ask for them."""
    found = {tracker.tries("w"), tracker["w"]["_tries"], dict(tracker.items())["w"]["_tries"]}
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize("end", ["hand out", "close_loop", "close", "SIGKILL", "SIGKILL, looked for", "os._exit"])
@pytest.mark.parametrize("in_block", [False, True])
@pytest.mark.parametrize("way", ON_WAITING)
def test_the_try_of_a_task_that_waits_in_a_batch_is_counted_if_it_is_handed_out(path, tracker, way, in_block, end):
    change, now, after, handed_out = ON_WAITING[way]
    tracker.update([("first", {}), ("w", {"_tries": 3}), ("last", {})])
    tracker.sync()
    with Worker(path) as worker:
        assert worker.ask(take, 1, 3) == ["first"]
        assert shown(tracker) == 4
        if in_block:
            with tracker.locked():
                change(tracker)
                assert shown(tracker) == now
        else:
            change(tracker)
        assert shown(tracker) == now
        assert worker.ask(call, "tries", "w") == now
        if end == "hand out":
            assert ("w" in worker.ask(take, 9)) == (handed_out is not None)
            assert shown(tracker) == (after if handed_out is None else handed_out)
            worker.end("close")
            assert shown(tracker) == (after if handed_out is None else handed_out)
        else:
            if end == "close_loop":
                worker.ask(close_loop)
                assert shown(tracker) == after
            worker.end("close" if end == "close_loop" else end.partition(",")[0])
            if "looked for" in end:
                tracker.release("first")
            elif end in ("SIGKILL", "os._exit"):
                # (whoever is alone, or looks for the dead)
                tracker.close()
                with SharedTracker(path) as again:
                    assert shown(again) == after
                return
            assert shown(tracker) == after
        tracker._check()


@pytest.mark.parametrize("way", ["release", "mark_not_done", "abort", "mark_done"])
def test_who_ends_the_claim_of_a_task_and_its_loop_agree_whether_it_was_handed_out(path, tracker, way):
    """They meet at any moment. What was handed out is counted, nothing else is."""
    tracker.add_many(range(400))

    def work(pipe):
        with SharedTracker(path) as mine:
            log = []
            for number in range(40):
                loop = mine.try_keys(batch=1 + number % 7)
                log += itertools.islice(loop, 1 + number % 30)
                loop.close()
            pipe.send(log)

    rng = random.Random(way)
    with Child(work) as child:
        while not child.pipe.poll():
            claims = tracker.claims()
            for key in rng.sample(list(claims), min(4, len(claims))):
                getattr(tracker, way)(key)
                if way == "abort":
                    tracker.unabort(key)
        counts = Counter(child.pipe.recv())
        assert child.wait() == 0
    assert tries(tracker) == [counts[key] for key in range(400)]


def test_threads_that_share_a_loop_agree_with_who_ends_claims(path, tracker):
    tracker.add_many(range(600))

    def work(pipe):
        with SharedTracker(path) as mine:
            sys.setswitchinterval(1e-5)
            log = []
            for batch in range(2, 12):
                loop = mine.try_keys(batch=batch)
                with ThreadPoolExecutor(3) as pool:
                    found = pool.map(lambda _: list(itertools.islice(loop, 20)), range(3))  # noqa: B023
                    log += itertools.chain(*found)
                loop.close()
            pipe.send(log)

    with Child(work) as child:
        while not child.pipe.poll():
            for key in itertools.islice(tracker.claims(), 5, 12, 3):
                tracker.release(key)
        counts = Counter(child.pipe.recv())
        assert child.wait() == 0
    assert tries(tracker) == [counts[key] for key in range(600)]


def test_an_interrupt_as_a_batch_is_claimed_costs_no_try_and_no_task(tracker):
    """The keys of a batch are read after it was claimed, and that may wait for another thread."""
    tracker.add_many(range(6))
    loop = tracker.try_keys(batch=4)
    lock = tracker._store.lock
    held, end = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            end.wait()

    def interrupt(*_):
        end.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    thread = threading.Thread(target=hold)
    try:
        thread.start()
        held.wait()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            next(loop)
    finally:
        signal.signal(signal.SIGALRM, before)
        thread.join()
    assert list(loop) == list(range(6))
    assert tries(tracker) == [1] * 6


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


# Threads

START = {
    "threading": lambda work: threading.Thread(target=work).start(),
    "_thread": lambda work: _thread.start_new_thread(work, ()),
    "a C library": lambda work: start_in_c(work),
}
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
callbacks = []


def start_in_c(work):
    """A thread that Python has not started, and that calls Python once."""
    callback = CALLBACK(lambda _: work())
    callbacks.append(callback)
    library, number = ctypes.CDLL(None), ctypes.c_ulong()
    assert library.pthread_create(ctypes.byref(number), None, callback, None) == 0
    library.pthread_detach(number)


def in_thread(start, work):
    """``work(ready, end)`` in a thread; what it calls ``ready`` with is there when this returns, with a function that
    has the thread end and waits until it has."""
    told, end, ended = queue.SimpleQueue(), threading.Event(), weakref.WeakSet()

    class Local:
        """It goes with its thread."""

    local = threading.local()

    def run():
        local.kept = Local()
        ended.add(local.kept)
        try:
            work(told.put, end.wait)
        except BaseException as error:
            told.put(error)

    START[start](run)
    found = told.get(timeout=60)
    if isinstance(found, BaseException):
        raise found

    def finish():
        end.set()
        while len(ended):
            os.sched_yield()

    return found, finish


@pytest.mark.parametrize("start", START)
def test_any_thread_keeps_what_it_has_claimed_as_long_as_it_lives(tracker, start):
    tracker.add_many("abcd")

    def work(tell, wait):
        loop = tracker.try_keys()
        failed = next(loop)
        loop.close()
        assert tracker.should_try("b")
        tell(failed)
        wait()

    failed, finish = in_thread(start, work)
    assert failed == "a"
    assert not tracker.should_try("a")
    assert not tracker.should_try("b")
    assert list(tracker.try_keys()) == ["c", "d"]
    for other in START:
        # Nor do other threads get them, of whatever kind.
        found, end = in_thread(other, lambda tell, wait: tell([tracker.should_try("b"), *tracker.try_keys(batch=2)]))
        end()
        assert found == [False]
    finish()
    assert tracker.should_try("b")
    assert list(tracker.try_keys()) == ["a", "b", "c", "d"]
    assert tries(tracker) == [2, 3, 2, 2]


@pytest.mark.parametrize("start", START)
def test_a_thread_that_has_the_number_of_one_that_ended_keeps_nothing_of_it(tracker, start):
    """The system gives numbers again; the interpreter's are never used twice."""
    tracker.add_many("ab")

    def fail(tell, wait):
        loop = tracker.try_keys()
        next(loop)
        loop.close()
        assert tracker.should_try("b")
        tell(threading.get_ident())

    first, finish = in_thread(start, fail)
    finish()
    ends = []
    for _ in range(1000):
        second, finish = in_thread(start, lambda tell, wait: (tell(threading.get_ident()), wait()))
        ends.append(finish)
        if second == first:
            break
    if second != first:
        pytest.skip("this system does not give them again")
    try:
        # Whatever the new one does meanwhile.
        assert tracker.should_try("b")
        assert list(tracker.try_keys()) == ["a", "b"]
    finally:
        for finish in ends:
            finish()


def test_numbers_of_threads():
    assert is_alive(this_thread())
    assert not is_alive(0)
    number, finish = in_thread("_thread", lambda tell, wait: (tell(this_thread()), wait()))
    assert number != this_thread()
    assert is_alive(number)
    finish()
    assert not is_alive(number)


# In which state a claimed task is


def states(tracker):
    return {key: claim.state for key, claim in tracker.claims().items()}


def states_of(state):
    return states(state.tracker)


@pytest.mark.parametrize("batch", [1, 4])
def test_claims_tell_what_is_running_from_what_has_failed_and_what_waits(path, tracker, batch):
    tracker.add_many(range(6))
    with Worker(path) as worker:

        def everywhere():
            found = states(tracker)
            assert worker.ask(states_of) == found
            with tracker.locked():
                assert states(tracker) == found
            assert [state for _, state in sorted((hand.seq, hand.state) for hand in active_claims(tracker._store))] \
                == list(found.values())
            return "".join(f"{key}{state[0]}" for key, state in found.items())

        assert worker.ask(take, 2, batch) == [0, 1]
        assert everywhere() == {1: "0f1r", 4: "0f1r2w3w"}[batch]
        worker.ask(call, "mark_done", 1)
        assert everywhere() == {1: "0f", 4: "0f2w3w"}[batch]
        assert worker.ask(take, 1) == [2]
        assert everywhere() == {1: "0f2r", 4: "0f2r3w"}[batch]
        worker.ask(close_loop)
        # The last one, too, has failed now.
        assert everywhere() == "0f2f"
        assert worker.ask(call, "should_try", 5)
        assert everywhere() == "0f2f5r"
        worker.ask(drop_loop)
        assert worker.ask(take, 1, 3) == [0]
        # (these are claimed again, and wait for their next try)
        assert everywhere() == "0r2w3w5r"
        worker.ask(drop_loop)
        assert everywhere() == "0f2f5r"
        assert next(tracker.try_keys()) == 3
        gc.collect()
        assert everywhere() == "0f2f3f5r"
        assert tracker.claimed_keys() == list(tracker.claims()) == [0, 2, 3, 5]
        worker.end("SIGKILL")
    assert states(tracker) == {3: "failed"}
    assert sorted(tracker.try_keys()) == [0, 2, 3, 4, 5]


def test_a_loop_that_came_to_its_end_has_left_all_of_it(tracker):
    tracker.add_many("abc")
    assert list(tracker.try_keys(batch=2)) == ["a", "b", "c"]
    assert states(tracker) == dict.fromkeys("abc", "failed")
    loop = tracker.try_keys()
    assert next(loop) == "a"
    assert states(tracker) == {"a": "running", "b": "failed", "c": "failed"}
    assert tracker.claims()["a"] == Claim(os.getpid(), socket.gethostname(), tracker.claims()["a"].since, "running")
