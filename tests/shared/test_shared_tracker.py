"""Claims of the threads and loops of one process."""

from __future__ import annotations

import contextlib
import itertools
import os
from functools import partial

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
    SharedTracker,
)
from tests.support.shared import THREADS, Boom, block_of, run_concurrently

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_running_loops_and_threads_get_no_task_twice(tmp_path, switching_often):
    with SharedTracker(tmp_path / "tracker") as tracker:
        tracker.add_many(range(300))
        taken = [[] for _ in range(THREADS)]

        def work(thread):
            for key in tracker.try_keys(batch=1 + 3 * (thread % 2)):
                taken[thread].append(key)
                if key % 3 == 0:
                    tracker.mark_done(key)
                elif key % 3 == 1:
                    tracker.abort(key)
                if key < 100:
                    tracker.add_if_absent(key + 1000)

        run_concurrently(*(partial(work, thread) for thread in range(THREADS)))
        first = sorted(itertools.chain(*taken))
        # A failed task is available again to a running loop when the loop that had it has ended.
        assert sorted(set(first)) == [*range(300), *range(1000, 1100)]
        assert [key for key in set(first) if first.count(key) > 1 and key % 3 != 2] == []
        assert [tracker.tries(key) for key in tracker] == [first.count(key) for key in tracker]
        failed = [key for key in tracker if key % 3 == 2]
        assert sorted(tracker.claimed_keys()) == sorted(failed)
        assert list(tracker.try_keys()) == failed
        tracker._check()


def test_two_loops_of_a_thread_share_the_tasks(tmp_path):
    with SharedTracker(tmp_path / "tracker", init={number: {} for number in range(6)}) as tracker:
        one, other = tracker.try_keys(), tracker.try_keys(batch=2)
        assert [next(one), next(other), next(one), next(other), next(one)] == [0, 1, 3, 2, 4]
        assert tracker.claimed_keys() == list(range(5))
        assert next(one) == 5
        assert list(other) == []


def test_gate_refuses_a_task_claimed_by_another_thread(tmp_path, in_other_thread):
    with SharedTracker(tmp_path / "tracker", init={"a": {}, "b": {}}) as tracker:
        assert tracker.should_try("a")
        assert in_other_thread(tracker.should_try, "b")
        assert in_other_thread(tracker.should_try, "a") is False
        assert tracker.should_try("b") is False
        assert tracker.should_do("b") is in_other_thread(tracker.should_do, "a") is True
        assert tracker.should_try("a")
        assert (tracker.tries("a"), tracker.tries("b")) == (2, 1)
        assert in_other_thread(list, tracker.try_keys()) == ["b"]
        tracker.release("b")
        assert tracker.should_try("b")


def test_task_of_an_ended_thread_is_available_to_other_threads(tmp_path):
    with SharedTracker(tmp_path / "tracker", init={"a": {}}) as tracker:
        assert run_concurrently(partial(tracker.should_try, "a")) == [True]
        assert tracker.claimed_keys() == ["a"]
        assert tracker.should_try("a")
        assert tracker.tries("a") == 2


@pytest.mark.parametrize("end", ["close", "del", "break", "exception", "exhausted"])
def test_ended_loop_releases_tasks_that_it_did_not_yield(tmp_path, end):
    with SharedTracker(tmp_path / "tracker", init={number: {} for number in range(6)}) as tracker:

        def work():
            loop = tracker.try_keys(batch=4)
            for key in loop:
                tracker.set[key]["seen"] = True
                if key == 1 and end != "exhausted":
                    assert tracker.claimed_keys() == [0, 1, 2, 3]
                    if end == "close":
                        loop.close()
                        loop.close()
                    if end in ("break", "del"):
                        break
                    if end == "exception":
                        raise Boom
            if end == "close":
                assert next(loop, "ended") == "ended"

        with contextlib.suppress(Boom):
            work()
        seen = 6 if end == "exhausted" else 2
        assert [tracker.tries(number) for number in range(6)] == [1] * seen + [0] * (6 - seen)
        assert tracker.claimed_keys() == list(range(seen))
        assert list(tracker.try_keys(batch=5)) == list(range(6))
        tracker._check()


def test_claims_name_the_worker_of_each_task(tmp_path):
    from datetime import datetime, timedelta, timezone

    with SharedTracker(tmp_path / "tracker", init={"a": {}, "b": {}}) as tracker:
        assert tracker.claims() == {}
        before = datetime.now(timezone.utc)
        assert next(tracker.try_keys()) == "a"
        claim = tracker.claims()["a"]
        assert claim.process == os.getpid()
        assert claim.host
        assert before - timedelta(minutes=1) < claim.since < before + timedelta(minutes=1)
        assert list(tracker.claims()) == tracker.claimed_keys() == ["a"]


@pytest.mark.parametrize("block", ["locked", "transaction", "lock"])
def test_claims_in_a_block_take_effect_at_its_commit(tmp_path, in_other_thread, block):
    with SharedTracker(tmp_path / "tracker", init={number: {} for number in range(4)}) as tracker:
        with block_of(tracker, block):
            assert next(tracker.try_keys()) == 0
            assert tracker.should_try(1)
            assert tracker.claimed_keys() == [0, 1]
            assert in_other_thread(tracker.claimed_keys) == []
            tracker.mark_done(0)
        assert tracker.claimed_keys() == [1]
        assert in_other_thread(list, tracker.try_keys()) == [2, 3]


@pytest.mark.parametrize("batch", [1, 3])
def test_task_claimed_in_an_aborted_block_is_available_again(tmp_path, batch):
    with SharedTracker(tmp_path / "tracker", max_tries=1, init={number: {} for number in range(8)}) as tracker:
        loop = tracker.try_keys(batch=batch)
        taken = [next(loop)]
        with contextlib.suppress(Boom), tracker.transaction():
            undone = [next(loop) for _ in range(3)]
            tracker.mark_done(undone[0])
            raise Boom
        assert undone == [1, 2, 3]
        tracker._check()
        taken += loop
        taken += tracker.try_keys(batch=batch)
        # The claims on the rest of a batch are older than the block, and were used in it.
        assert sorted(taken) == ([0, 3, 4, 5, 6, 7] if batch == 3 else list(range(8)))
        assert [tracker.tries(number) for number in range(8)] == [1] * 8
        tracker._check()


def test_closing_the_last_instance_releases_unfinished_tasks(tmp_path):
    tracker, other = (SharedTracker(tmp_path / "tracker", init={number: {}}) for number in range(2))
    loop = tracker.try_keys(batch=2)
    assert next(loop) == 0
    tracker.close()
    with pytest.raises(CalledClosedTrackerError):
        next(loop)
    assert other.claimed_keys() == [0, 1]
    other.close()
    with SharedTracker(tmp_path / "tracker") as tracker:
        assert tracker.claimed_keys() == []
        assert [tracker.tries(number) for number in range(2)] == [1, 0]
