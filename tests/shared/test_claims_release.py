"""Failed tasks stay with their worker; claims name their workers; which operations end a claim, and which keep it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from datetime import datetime, timezone

import pytest

from tests.support.claims import Worker, call, close_loop, take, take_all, tries

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# Failed tasks stay with their worker


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_failed_task_is_yielded_again_to_its_worker_only(path, tracker, batch):
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
        # Tasks that others left come in order, or at the end of a loop that did not know of them.
        assert sorted(second.ask(take_all, batch)) == [0, 1, 2, 4, 5]
        second.end("close")
    assert sorted(tracker.try_keys()) == [0, 1, 2, 4, 5]


def test_loop_does_not_repeat_its_failed_tasks(tracker):
    tracker.add_many(range(5))
    passes = [[], []]
    for keys in passes:
        for key in tracker.try_keys(batch=2):
            keys.append(key)
            if key == 1:
                tracker.add_if_absent(5)
    assert passes == [[0, 1, 2, 3, 4, 5]] * 2


def test_stopped_worker_keeps_its_claims(path, tracker):
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


# Claims and their workers


def test_claims_name_the_worker_and_the_time(path, tracker):
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
        # Every process sees the same claims.
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


def test_process_that_only_reads_has_no_worker_file(path, tracker):
    tracker.add_many(range(5))
    with Worker(path) as worker:
        for name in ("claims", "claimed_keys", "num_done", "keys", "items"):
            worker.ask(call, name)
        worker.ask(call, "should_do", 1)
        worker.ask(call, "mark_done", 0)
        assert not (path / "workers").exists()
        assert tracker.claims() == {}
        worker.end("close")


# Releasing


def test_released_task_is_available_to_all_workers_and_keeps_its_try(path, tracker):
    tracker.add_many(range(3))
    with Worker(path) as worker:
        assert worker.ask(take, 3) == [0, 1, 2]
        worker.ask(call, "release", 0)
        # Any process may release a task.
        tracker.release(2)
        assert tracker.claimed_keys() == [1]
        assert tries(tracker) == [1, 1, 1]
        assert list(tracker.try_keys()) == [0, 2]
        assert worker.ask(take_all) == [1]
        tracker.release(1)
        assert tracker.should_try(1)
        assert worker.ask(take_all) == []
        worker.end("close")


def test_release_of_an_unclaimed_task_does_nothing(tracker):
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
def test_finishing_a_task_from_another_process_ends_its_claim(path, tracker, way, in_block):
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
        # If the task is still or again to be done, any worker may try it.
        is_over = "a" in tracker and (tracker.done("a") or tracker.aborted("a"))
        assert tracker.should_try_add("a") != is_over
        worker.end("close")


@pytest.mark.parametrize("way", KEEPS_CLAIM)
def test_operations_that_do_not_finish_a_task_keep_its_claim(path, tracker, way):
    tracker.add_many("ab")
    with Worker(path) as worker:
        assert worker.ask(call, "should_try", "a")
        KEEPS_CLAIM[way](tracker)
        assert tracker.claims()["a"].process == worker.pid
        assert not tracker.should_try("a")
        tracker._check()
        worker.end("close")
    assert tracker.claims() == {}


def test_thread_waiting_to_claim_does_not_end_the_loop_of_another_thread(tracker):
    """One thread claims the last tasks while another is about to claim, and finds none left."""
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


def test_batch_skips_tasks_that_others_have_finished_since(path, tracker):
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
        # Task 5 was released for all, and this loop is past it.
        assert worker.ask(take, 10) == [6, 7, 8, 9]
        worker.end("close")
    assert sorted(tracker.try_keys()) == [0, 4, 5, 6, 7, 8, 9]


def test_released_task_claimed_by_another_worker_keeps_the_new_claim(path, tracker):
    tracker.add("a")
    with Worker(path) as first, Worker(path) as second:
        assert first.ask(take) == ["a"]
        first.ask(call, "release", "a")
        assert second.ask(take) == ["a"]
        # The loop and the end of the first worker do not affect the claim.
        first.ask(close_loop)
        assert first.ask(take_all) == []
        first.end("close")
        assert tracker.claims()["a"].process == second.pid
        second.ask(call, "mark_done", "a")
        second.end("close")


@pytest.mark.parametrize("keeps_status", [True, False])
def test_revert_keeps_claims_of_unfinished_tasks(path, tracker, keeps_status):
    tracker.add_many("ab")
    tracker.sync()
    with Worker(path) as worker:
        assert worker.ask(call, "should_try", "a")
        if not keeps_status:
            worker.ask(call, "mark_done", "a")
        tracker.revert()
        # The revert undoes the count of the try, and the mark. The claim stays while the worker is running the task.
        assert tries(tracker) == [0, 0]
        assert tracker.claimed_keys() == (["a"] if keeps_status else [])
        assert tracker.should_try("a") != keeps_status
        tracker._check()
        worker.end("close")
    tracker._check()
