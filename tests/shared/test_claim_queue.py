"""The queue of a shared tracker: its claims, other processes, iterators and threads, kills."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import pytest

from tastypy_fast import SharedTracker
from tastypy_fast._core.finishing import FINISH_DONE as DONE
from tastypy_fast._core.finishing import FINISH_FAILED as FAILED
from tastypy_fast._core.finishing import FINISH_POSTPONED as POSTPONED
from tastypy_fast._core.finishing import FINISH_RETRY as RETRY
from tastypy_fast._shared.worker import Worker as ClaimingWorker
from tastypy_fast._shared.write_transaction import OPERATION
from tests.support.children import Child
from tests.support.claims import Worker, call

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def tracker(path):
    with SharedTracker(path, max_tries=3) as tracker:
        tracker.add_many("abcdef")
        yield tracker
        if not tracker.closed:
            tracker._check()


def states(tracker):
    return {key: claim.state for key, claim in tracker.claims().items()}


# In the worker process


def open_queue(state, remote=False):
    state.loop = state.tracker._open_queue(False, remote=remote)


def take(state, limit=100):
    if state.loop is None:
        open_queue(state)
    return [key for key, _, _ in state.loop.take(limit)]


def claim(state, keys):
    if state.loop is None:
        open_queue(state)
    return state.loop.claim(keys)


def finish(state, keys, kind=DONE):
    return state.tracker._finish_many([(key, kind, None) for key in keys])


def close_queue(state):
    state.loop.close()


# Claims


def test_tasks_of_a_queue_are_running_until_they_are_finished(tracker, path):
    queue = tracker._open_queue(False)
    queue.take(4)
    with Worker(path) as worker:
        for found in states(tracker), {key: one.state for key, one in worker.ask(call, "claims").items()}:
            assert found == dict.fromkeys("abcd", "running")
        worker.end("close")
    tracker._finish_many([("a", DONE, None), ("b", FAILED, None), ("c", RETRY, None), ("d", POSTPONED, None)])
    assert states(tracker) == {"c": "running", "d": "running"}
    assert queue.claim(["c", "d"]) == [2, 1]
    tracker._finish_many([(key, DONE, None) for key in "cd"])
    assert states(tracker) == {}
    queue.close()
    assert tracker.claimed_keys() == []


def test_closed_queue_leaves_unfinished_tasks_to_the_next_one_of_the_thread(tracker, path):
    queue = tracker._open_queue(False)
    queue.take(3)
    tracker.mark_done("a")
    queue.close()
    assert states(tracker) == {"b": "unfinished", "c": "unfinished"}
    with Worker(path, max_tries=3) as worker:
        assert worker.ask(take) == ["d", "e", "f"]
        again = tracker._open_queue(False)
        assert again.take(9) == [("b", 2, False), ("c", 2, False)]
        again.close()
        assert list(tracker.try_keys()) == ["b", "c"]
        worker.end("close")
    assert [key for key, _, _ in tracker._open_queue(False).take(9)] == ["d", "e", "f"]


def test_collected_queue_is_closed(tracker):
    queue = tracker._open_queue(False)
    queue.take(2)
    del queue
    gc.collect()
    assert states(tracker) == {"a": "unfinished", "b": "unfinished"}


def test_iterators_gates_and_queues_of_this_process_leave_its_tasks_alone(tracker):
    queue = tracker._open_queue(False)
    queue.take(2)
    assert not tracker.should_try("a")
    assert next(tracker.try_keys()) == "c"
    other = tracker._open_queue(False)
    assert other.claim(["a", "b", "d"]) == [0, 0, 1]
    # The ended loop has left c to this thread.
    assert [key for key, _, _ in other.take(9)] == ["c", "e", "f"]
    assert queue.take(9) == []
    queue.restart()
    assert queue.take(9) == []
    assert queue.claim(["a", "c"]) == [2, 0]


def test_tasks_of_another_thread_are_left_alone_while_it_lives(tracker):
    taken, end = threading.Event(), threading.Event()

    def work():
        queue = tracker._open_queue(False)
        queue.take(2)
        queue.close()
        taken.set()
        end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    taken.wait()
    queue = tracker._open_queue(False)
    assert [key for key, _, _ in queue.take(9)] == ["c", "d", "e", "f"]
    end.set()
    thread.join()
    assert [key for key, _, _ in tracker._open_queue(False).take(9)] == ["a", "b"]


def test_release_and_abort_by_others_end_the_claim(tracker, path):
    queue = tracker._open_queue(False)
    queue.take(3)
    with Worker(path) as worker:
        worker.ask(call, "release", "a")
        worker.ask(call, "abort", "b")
        assert worker.ask(take, 1) == ["a"]
        # The task of another worker is left to it, but what became of this try is kept.
        tracker._finish_many([("a", FAILED, {"type": "X"}), ("b", FAILED, {"type": "X"}), ("c", DONE, None)])
        assert states(tracker) == {"a": "running"}
        assert (tracker["a"]["_error"], tracker.tries("a")) == ({"type": "X"}, 2)
        worker.ask(finish, ["a"])
        worker.end("close")
    assert tracker.claimed_keys() == []


def test_tries_that_were_reset_are_not_subtracted(tracker):
    queue = tracker._open_queue(False)
    queue.take(1)
    tracker.reset_tries("a")
    tracker._finish_many([("a", POSTPONED, None)])
    assert tracker.tries("a") == 0
    assert queue.claim(["a"]) == [1]


# Several processes


@pytest.mark.parametrize("ending", ["SIGKILL", "os._exit", "SIGKILL in a block"])
def test_tasks_of_a_killed_process_go_to_the_others_with_their_tries_counted(tracker, path, ending):
    queue = tracker._open_queue(False)
    with Worker(path, max_tries=3) as worker:
        assert worker.ask(take, 3) == ["a", "b", "c"]
        worker.ask(finish, ["b"])
        assert [key for key, _, _ in queue.take(9)] == ["d", "e", "f"]
        assert queue.take(9) == []
        assert worker.end(ending) != 1
    assert queue.take(9) == [("a", 2, False), ("c", 2, False)]
    assert queue.take(9) == []


def test_tries_of_remote_tasks_do_not_count_when_their_process_is_killed(tracker, path):
    queue = tracker._open_queue(False)
    with Worker(path, max_tries=3) as worker:
        worker.ask(open_queue, True)
        assert worker.ask(take, 4) == ["a", "b", "c", "d"]
        worker.ask(finish, ["a"])
        # A try that has ended stays counted, also while its task waits for a retry.
        worker.ask(finish, ["b"], RETRY)
        worker.ask(finish, ["c"], RETRY)
        assert worker.ask(claim, ["c"]) == [2]
        tracker.reset_tries("d")
        assert len(queue.take(9)) == 2
        worker.end("SIGKILL")
    assert queue.take(9) == [("b", 2, False), ("c", 2, False), ("d", 1, False)]


def test_remote_and_other_queues_of_one_killed_process_are_told_apart(tracker, path):
    with Worker(path, max_tries=3) as worker:
        worker.ask(take, 2)
        worker.ask(open_queue, True)
        assert worker.ask(claim, ["c", "d"]) == [1, 1]
        worker.end("SIGKILL")
    tracker._open_queue(False).take(9)
    assert [tracker.tries(key) for key in "abcd"] == [2, 2, 1, 1]


def test_tasks_of_a_closed_process_are_found_after_a_restart(tracker, path):
    queue = tracker._open_queue(False)
    with Worker(path, max_tries=3) as worker:
        worker.ask(take, 3)
        assert len(queue.take(9)) == 3
        worker.end("close")
    queue.restart()
    assert queue.take(9) == [("a", 2, False), ("b", 2, False), ("c", 2, False)]


def test_claim_by_key_recovers_the_tasks_of_a_killed_process(tracker, path):
    queue = tracker._open_queue(False)
    assert queue.claim(["f"]) == [1]
    with Worker(path, max_tries=3) as worker:
        assert worker.ask(claim, ["a", "f"]) == [1, 0]
        worker.end("SIGKILL")
    time.sleep(0.55)
    assert queue.claim(["a"]) == [2]


def test_dead_workers_are_searched_for_only_now_and_then(tracker, monkeypatch):
    calls = []
    recover = ClaimingWorker.recover_claims
    monkeypatch.setattr(ClaimingWorker, "recover_claims", lambda self: calls.append(1) or recover(self))
    queue = tracker._open_queue(False)
    for _ in range(6):
        queue.take(1)
    queue.claim("abc")
    assert len(calls) == 1  # when the worker was created
    queue.take(1)
    assert len(calls) == 2


def take_and_log(pipe, path, number):
    with SharedTracker(path) as tracker:
        queue = tracker._open_queue(False)
        pipe.send("ready")
        pipe.recv()
        found = []
        while taken := queue.take(7):
            keys = [key for key, _, _ in taken]
            found += keys
            tracker._finish_many([(key, DONE, {"by": number}) for key in keys])
        queue.close()
        pipe.send(found)


def test_two_queues_never_have_the_same_task(path):
    with SharedTracker(path) as tracker:
        tracker.add_many(range(3000))
    with Child(take_and_log, path, 1) as one, Child(take_and_log, path, 2) as two:
        for child in one, two:
            assert child.pipe.recv() == "ready"
        for child in one, two:
            child.pipe.send("go")
        found = [child.pipe.recv() for child in (one, two)]
        assert [child.wait() for child in (one, two)] == [0, 0]
    assert sorted(found[0] + found[1]) == list(range(3000))
    with SharedTracker(path) as tracker:
        assert (tracker.num_done(), tracker.claimed_keys()) == (3000, [])
        assert {tracker.tries(key) for key in tracker} == {1}
        tracker._check()


def work_for_ever(pipe, path):
    tracker = SharedTracker(path)
    queue = tracker._open_queue(False)
    pipe.send("ready")
    while taken := queue.take(5):
        tracker._finish_many([(key, DONE, {"done": tries}) for key, tries, _ in taken])


@pytest.mark.parametrize("seed", range(4))
def test_killed_while_it_takes_and_finishes(path, seed):
    with SharedTracker(path) as tracker:
        tracker.add_many(range(20_000))
        with Child(work_for_ever, path) as child:
            child.pipe.recv()
            time.sleep(0.01 + 0.02 * seed)
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        done = tracker.num_done()
        queue = tracker._open_queue(False)
        count = 0
        while taken := queue.take(1000):
            count += len(taken)
            assert tracker._finish_many([(key, DONE, {"done": tries}) for key, tries, _ in taken]) == []
        assert done + count == 20_000 == tracker.num_done()
        assert all(task["done"] == task["_tries"] for task in tracker.values())
        assert sum(task["_tries"] == 2 for task in tracker.values()) <= 5
        queue.close()
        assert tracker.claimed_keys() == []
        tracker._check()


# Endings


def test_fork_and_closed_store(tracker, path):
    queue = tracker._open_queue(False)
    assert len(queue.take(2)) == 2

    def in_child(pipe):
        pipe.send([key for key, _, _ in queue.take(2)])
        pipe.send(tracker._finish_many([("c", DONE, None)]))

    with Child(in_child) as child:
        assert child.pipe.recv() == ["c", "d"]
        assert child.pipe.recv() == []
        child.wait()
    assert states(tracker)["a"] == "running"
    assert [key for key, _, _ in queue.take(9)] == ["e", "f"]
    tracker.close()
    queue.close()
    with SharedTracker(path) as again:
        assert again.claimed_keys() == []


def test_tasks_that_were_claimed_and_not_returned_come_next_or_are_released(tracker):
    queue = tracker._open_queue(False)
    # As if an exception had come right after the commit.
    tracker._perform(OPERATION, queue._take, 2)
    assert tracker.claimed_keys() == ["a", "b"]
    assert [key for key, _, _ in queue.take(1)] == ["a", "b"]
    tracker._perform(OPERATION, queue._take, 2)
    assert tracker.tries("c") == 1
    queue.close()
    assert (states(tracker), tracker.tries("c")) == ({"a": "unfinished", "b": "unfinished"}, 0)
