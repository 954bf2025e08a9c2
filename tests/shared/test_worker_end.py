"""Workers that exit, are killed or fork: their tasks become available to others."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
from contextlib import suppress

import pytest

from tastypy_fast import (
    SharedTracker,
    Tracker,
)
from tests.support.children import Child
from tests.support.claims import TASKS, Worker, call, finish_each, take, take_all, tries
from tests.support.workers import in_processes, next_line, result_of, send_line, started

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

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
def test_worker_that_closes_or_exits_releases_its_claims(path, tracker, name):
    tracker.add_many(range(10))
    with started(PROGRAM.format(EXITS[name]), path) as process:
        assert next_line(process) == "0 1 True"
        assert tracker.claimed_keys() == [0, 1, 2, 3, 4, 9]
        send_line(process)
        if "closed" in EXITS[name]:
            # The process continues, and has no claims any more.
            assert next_line(process) == "closed"
        else:
            process.wait()
        assert tracker.claims() == {}
        assert list(tracker.try_keys()) == list(range(10))
        assert tries(tracker) == [2, 2, 1, 1, 1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_worker_releases_its_claims_at_exit(path, method):
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


def test_only_process_releases_all_claims(path):
    """The last worker has ended, and the next program opens the store, shared or private."""
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


# The tasks of dead workers


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM", "os._exit"])
def test_tasks_of_a_dead_worker_are_available_at_once(path, tracker, ending, batch):
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
def test_running_loop_yields_the_tasks_of_dead_workers(path, tracker, batch):
    """This holds for tasks at any position, also behind the loop."""
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


def test_exhausted_loop_stays_exhausted(path, tracker):
    """Tasks that others leave later go to the next loop."""
    tracker.add_many(range(3))
    with Worker(path) as worker:
        assert worker.ask(take) == [0]
        loop = tracker.try_keys()
        assert list(loop) == [1, 2]
        worker.end("SIGKILL")
    assert list(loop) == []
    assert sorted(tracker.try_keys()) == [0, 1, 2]


@pytest.mark.parametrize("how", ["fork", "subprocess", "subprocess with open files"])
def test_child_of_a_dead_worker_does_not_keep_its_tasks(path, tracker, how):
    tracker.add_many(range(5))

    def work(pipe):
        mine = SharedTracker(path)
        loop = mine.try_keys(batch=3)
        next(loop)
        if how == "fork":
            if os.fork() == 0:
                # The child continues with everything that it inherited.
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
def test_child_does_not_advance_the_loop_of_its_parent(path, tracker, way, batch):
    """The child may use the inherited iterator in any way."""
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


def test_child_and_its_parent_claim_different_tasks(path, tracker):
    """Both continue with the same iterator, each as a separate worker."""
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
