"""The end of loops and queues that claim tasks, when a signal or a full map interrupts it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from tastypy_fast import SharedTracker
from tastypy_fast._lmdb.engine import MapFull
from tastypy_fast._shared.worker import Worker


@pytest.fixture
def failing_once(monkeypatch):
    """``failing_once(name, error)`` lets a method of the worker raise an error once, when it has done its work."""
    def install(name, error):
        method = getattr(Worker, name)

        def fail(self, *arguments):
            monkeypatch.setattr(Worker, name, method)
            method(self, *arguments)
            raise error

        monkeypatch.setattr(Worker, name, fail)

    return install


@pytest.mark.parametrize("interrupted", ["_release_claims", "close_slot", "end_slot"])
def test_close_of_a_loop_that_was_interrupted_is_completed_by_the_next_one(path, failing_once, interrupted):
    with SharedTracker(path, max_tries=1) as tracker:
        tracker.add_many(range(20))
        loop = tracker.try_keys(batch=10)
        assert next(loop) == 0
        failing_once(interrupted, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            loop.close()
        loop.close()
        assert list(tracker.claims()) == [0]
        assert list(tracker.try_keys()) == list(range(1, 20))
        tracker._check()


def test_end_of_a_loop_that_was_interrupted_is_completed_by_the_next_step(path, failing_once):
    with SharedTracker(path, max_tries=1) as tracker:
        tracker.add_many(range(3))
        loop = tracker.try_keys(batch=10)
        assert [next(loop) for _ in range(3)] == [0, 1, 2]
        failing_once("close_slot", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            next(loop)
        tracker.add(3)
        assert list(loop) == []
        assert list(tracker.try_keys()) == [3]
        tracker._check()


@pytest.mark.parametrize("batch", [1, 10])
def test_close_of_a_loop_is_repeated_when_the_map_was_full(path, failing_once, batch):
    with SharedTracker(path, max_tries=2) as tracker:
        tracker.add_many(range(20))
        loop = tracker.try_keys(batch=batch)
        assert next(loop) == 0
        failing_once("close_slot", MapFull("map full"))
        loop.close()
        assert list(tracker.claims()) == [0]
        assert [tracker.tries(number) for number in range(20)] == [1] + [0] * 19
        tracker._check()


@pytest.mark.parametrize("error", [MapFull("map full"), KeyboardInterrupt()])
def test_close_of_a_queue_that_failed_or_was_interrupted_leaves_its_tasks_to_the_thread(path, failing_once, error):
    with SharedTracker(path, max_tries=2) as tracker:
        tracker.add_many(range(20))
        queue = tracker._open_queue(False)
        assert len(queue.take(3)) == 3
        failing_once("close_queue", error)
        with nullcontext() if isinstance(error, MapFull) else pytest.raises(KeyboardInterrupt):
            queue.close()
        queue.close()
        # They stay claimed for this thread.
        assert sorted(tracker.try_keys()) == list(range(20))
        tracker._check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_finalizer_of_a_loop_that_was_interrupted_releases_its_claims(path, failing_once):
    with SharedTracker(path, max_tries=1) as tracker:
        tracker.add_many(range(20))
        loop = tracker.try_keys(batch=10)
        assert next(loop) == 0
        failing_once("_release_claims", KeyboardInterrupt())
        del loop
        assert list(tracker.claims()) == [0]
        assert list(tracker.try_keys()) == list(range(1, 20))
