"""tracker.progress() while other processes work on the same tasks."""

from __future__ import annotations

import threading

import pytest

from tastypy_fast import (
    SharedProgressTracker,
)
from tests.support.children import Child
from tests.support.progress import tasks

tqdm = pytest.importorskip("tqdm")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_bar_counts_the_work_of_other_processes(path, screen):
    tracker = SharedProgressTracker(path, max_tries=1, init=tasks(10))

    def work(pipe):
        with SharedProgressTracker(path, max_tries=1) as mine:
            for key in mine.try_keys():
                if key != "task 5":
                    mine.mark_done(key)

    for number, key in enumerate(tracker.progress(file=screen, mininterval=0)):
        if not number:
            with Child(work) as child:
                child.receive_all()
                assert child.wait() == 0
        tracker.mark_done(key)
    assert screen.states[-1] == (10, 10, 1)
    assert len(screen.getvalue().split("\r")) < 6
    tracker.close()


def test_waiting_process_shows_a_bar_and_claims_nothing(path, screen):
    tracker = SharedProgressTracker(path, init=tasks(3))
    with tracker.progress(file=screen, mininterval=0) as bar:
        assert tracker.claimed_keys() == []
        assert tracker.num_tried() == 0
        tracker.mark_done("task 1")
        assert bar.update()
        assert not bar.update()  # Nothing has changed.
        assert screen.states[-1] == (1, 3, 0)
    tracker.close()


@pytest.mark.parametrize("end", ["kill", "close"])
def test_task_in_its_last_try_does_not_count_as_failed_while_its_worker_lives(path, end):
    tracker = SharedProgressTracker(path, max_tries=1, init=tasks(4))

    def work(pipe):
        mine = SharedProgressTracker(path, max_tries=1)
        loop = mine.try_keys(batch=3)
        assert next(loop) == "task 0"
        pipe.send(1)
        pipe.recv()
        assert next(loop) == "task 1"
        pipe.send(2)
        pipe.recv()
        loop.close()
        mine.close()

    with Child(work) as child:
        assert child.pipe.recv() == 1
        assert tracker._count_progress(False) == (4, 0, 0, 0)
        child.pipe.send(None)
        assert child.pipe.recv() == 2
        # The first task has failed, although its worker still has the claim.
        assert tracker._count_progress(False) == (4, 0, 1, 0)
        if end == "kill":
            child.kill()
            child.wait()
        else:
            child.pipe.send(None)
            assert child.wait() == 0
        # The third task was claimed and not yielded. The next loop uses its try again.
        loop = tracker.try_keys()
        assert next(loop) == "task 2"
        assert tracker._count_progress(False) == (4, 0, 2, 0)
        loop.close()
        assert tracker._count_progress(False) == (4, 0, 3, 0)
    tracker.close()


def test_task_in_its_last_try_from_a_gate_counts_as_failed_for_its_own_thread_only(path):
    tracker = SharedProgressTracker(path, max_tries=1, init=tasks(2))
    assert tracker.should_try("task 0")
    assert tracker._count_progress(False).failed == 1  # This thread asks, so it is not running the task.
    found = []
    thread = threading.Thread(target=lambda: found.append(tracker._count_progress(False).failed))
    thread.start()
    thread.join()
    assert found == [0]
    tracker.close()
