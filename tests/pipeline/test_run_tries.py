"""How many tries tasks have had after their driver was killed, on both kinds of tracker."""

from __future__ import annotations

import json
import os
import random
import time

import pytest

from tastypy_fast import SharedTracker, Tracker
from tastypy_fast._inspect.task_counts import count_tasks
from tastypy_fast.types import StatusCounts
from tests.support.children import start
from tests.support.command import run as command

PROGRAM = """
import os, signal, sys, time
import tastypy_fast

kind, path, log, executor, max_tries, work, keys = sys.argv[1:]

def note(text):
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{text}\\n".encode())
    os.close(file)

def quick(key):
    note(key)
    time.sleep(0.002)

def fail(key):
    note(key)
    if key == 0:
        raise ValueError(key)
    time.sleep(1000)

def kill(key):
    note(key)
    if key == 3:
        os.kill(os.getpid(), signal.SIGKILL)

def start_up():
    if not os.path.exists(log):
        note("begin")
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    with getattr(tastypy_fast, kind)(path, max_tries=int(max_tries)) as tracker:
        tracker.add_many_if_absent(range(int(keys)))
        options = {"quick": {}, "fail": {"backoff": lambda tries: 1000}, "kill": {"backoff": 0}}
        if work == "start_up":
            tracker.run(quick, workers=1, executor=executor, initializer=start_up)
        elif work == "start_up keys":
            tracker.run(quick, workers=1, executor=executor, initializer=start_up, tasks=iter([2, 1, 0]))
        else:
            tracker.run(globals()[work], workers=2, executor=executor, **options[work])
"""


@pytest.fixture(params=["Tracker", "SharedTracker"])
def kind(request):
    return request.param


@pytest.fixture
def program(kind, path, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    log = tmp_path / "log"

    def begin(executor, max_tries, work="quick", keys=6):
        return start(file, kind, path, log, executor, max_tries, work, keys)

    begin.log = log
    return begin


def noted(program):
    return program.log.read_text().split() if program.log.exists() else []


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)


def end(process):
    """Wait for the end of a program, and return its exit status."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, -9), errors
    return process.returncode


def reader(path):
    return Tracker(path, mode="r")


def killed_now_and_then(program, executor, keys, path, seed, kills):
    """Run a program, which is killed several times in between. Yield the counts of its tasks after each kill."""
    generator = random.Random(seed)
    for _ in range(kills):
        wanted = len(noted(program)) + generator.randrange(1, 50)
        with program(executor, 1, keys=keys) as process:
            wait_for(lambda wanted=wanted: len(noted(program)) >= wanted, process)
            process.kill()
        with reader(path) as tracker:
            yield count_tasks(tracker, 1).counts
    with program(executor, 1, keys=keys) as process:
        assert end(process) == 0


def test_kill_of_the_driver_counts_no_try_of_tasks_in_other_processes(program, path, seed):
    for counts in killed_now_and_then(program, "processes", 400, path, seed, 3):
        assert counts.failed == 0
        # The command counts the same.
        status = json.loads(command("status", path, "--max-tries", "1", "--json"))
        assert [status[name] for name in StatusCounts._fields] == [*counts]
        assert counts.left == 400 - counts.done
        assert command("ls", path, "--failed") == ""
    with reader(path) as tracker:
        assert tracker.num_done() == 400
        assert {tracker.tries(key) for key in tracker} == {1}


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_kill_of_the_driver_counts_only_tries_that_were_running_in_it(program, executor, path, seed):
    failed = 0
    for counts in killed_now_and_then(program, executor, 400, path, seed, 3):
        # The running file of a private tracker is read when it is opened to be written.
        assert counts.failed <= failed + 2
        failed = counts.failed
    with reader(path) as tracker:
        assert tracker.num_done() >= 400 - 3 * 2
        assert {tracker.tries(key) for key in tracker} == {1}


@pytest.mark.parametrize("executor", ["processes", "threads"])
def test_task_that_waits_for_its_retry_keeps_its_try(program, executor, kind, path):
    with program(executor, 2, "fail") as process:
        wait_for(lambda: has_error(path), process)
        process.kill()
    with reader(path) as tracker:
        assert tracker.tries(0) == 1
        counts = tracker.count_by_status()
        # On a shared tracker, tasks that were running in this process have had a try.
        assert counts.to_retry == (3 if (executor, kind) == ("threads", "SharedTracker") else 1)
        assert command("ls", path, "--to-retry").count("\n") == counts.to_retry
        assert "0\n" in command("ls", path, "--to-retry")
    with (Tracker if kind == "Tracker" else SharedTracker)(path, max_tries=2) as tracker:
        assert tracker.tries(0) == 1
        assert sum(tracker.tries(key) for key in tracker) == (3 if executor == "threads" else 1)
        assert [key for key, _, _ in tracker._open_queue(False).take(9)] == list(range(6))


def has_error(path):
    if not os.path.exists(path):
        return False
    try:
        with reader(path) as tracker:
            return 0 in tracker and "_error" in tracker[0]
    except FileNotFoundError:
        return False  # it is being created


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_task_that_kills_the_driver_is_tried_max_tries_times(program, executor, path):
    for _ in range(10):
        with program(executor, 2, "kill") as process:
            if end(process) == 0:
                break
    assert noted(program).count("3") == 2
    with reader(path) as tracker:
        assert (tracker.tries(3), tracker.done(3)) == (2, False)
        if executor == "inline":
            assert tracker.num_done() == 5
    with program(executor, 2, "kill") as process:
        assert end(process) == 0
    assert noted(program).count("3") == 2


@pytest.mark.parametrize("executor", ["inline", "threads"])
@pytest.mark.parametrize("work", ["start_up", "start_up keys"])
def test_kill_during_an_initializer_counts_no_try(program, executor, work, path):
    with program(executor, 1, work, 3) as process:
        assert end(process) == -9
    with program(executor, 1, work, 3) as process:
        assert end(process) == 0
    assert noted(program)[1:] == (["2", "1", "0"] if work.endswith("keys") else ["0", "1", "2"])
    with reader(path) as tracker:
        assert tracker.num_done() == 3
