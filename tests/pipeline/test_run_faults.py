"""``tracker.run()``: tasks and results that break what runs them, through functions of their own or by accident."""

from __future__ import annotations

import collections
import fcntl
import multiprocessing
import os
import pickle
import pty
import signal
import subprocess
import sys
import termios
import threading
import time

import pytest

from tastypy_fast import DiskFullError, PersistentOrderedDictIntegrityError, SharedTracker, Tracker, WorkerStartError
from tastypy_fast._shared.worker import Worker
from tastypy_fast.pipeline import TaskResult, result_recorder, task_source, worker_pool
from tests.support import task_functions as functions
from tests.support.children import send_to_waiting, start
from tests.support.damage import Inside
from tests.support.executors import drive, pool_of, until_room


class Page(TaskResult):
    """A result of the user's own class."""


class EndsDriver:
    def __reduce__(self):
        return sys.exit, (3,)


@pytest.mark.parametrize(("result", "kept"), [
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (collections.defaultdict(lambda: 0, a=1), {"a": 1}),
    (Page({"a": 1}, add=["b"]), {"a": 1}),
])
def test_result_of_another_class_is_kept_as_a_dict(make, run, result, kept):
    tracker = make(init={"a": {}})
    assert run(tracker, lambda key: result if key == "a" else None).failed == 0
    assert tracker["a"] == {"_done": True, "_aborted": False, "_tries": 1, **kept}


@pytest.mark.parametrize("result", [EndsDriver(), {"nested": EndsDriver()}, collections.OrderedDict(a=EndsDriver())])
def test_result_that_raises_when_it_is_read_fails_its_task_only(make, run, result):
    tracker = make(max_tries=2, init={"a": {}, "b": {}})
    report = run(tracker, lambda key: result if key == "a" else None)
    assert (report.done, report.failed, report.retried) == (1, 1, 1)
    assert tracker["a"]["_error"]["type"] == "SystemExit"


def exits():
    class Exits(Exception):
        def __str__(self):
            raise SystemExit(3)

    return Exits


def unnamed():
    """A class that is made here, because pytest itself asks the classes of a module for their names."""
    class Hostile(type):
        def __getattribute__(cls, name):
            if name in ("__qualname__", "__module__", "_task_outcome"):
                raise SystemExit(3)
            return super().__getattribute__(name)

    return Hostile("Unnamed", (Exception,), {})


@pytest.mark.parametrize("make_class", [exits, unnamed])
def test_exception_that_raises_when_it_is_described_fails_its_task_only(make, run, make_class):
    """In a thread it ended the thread, and the run waited for it without end."""
    tracker = make(max_tries=2)
    tracker.add_many(["a", *range(10)])

    def work(key):
        if key == "a":
            raise make_class()

    report = run(tracker, work)
    assert (report.done, report.failed, report.retried, report.workers_lost) == (10, 1, 1, 0)
    assert tracker["a"]["_error"]["message"]


def test_failure_of_the_last_results_is_reported(make, run):
    tracker = make(max_tries=2, init={"a": {}})
    failures = []
    report = run(tracker, lambda key: {1}, on_failure=lambda key, error, final: failures.append((key, final)))
    assert report.failed == 1
    assert failures == [("a", False), ("a", True)]


def close_files():
    os.closerange(3, 4096)


def forget_pickle():
    pickle.dumps = None


@pytest.mark.parametrize("fault", [close_files, forget_pickle])
def test_task_that_breaks_its_worker_quietly_is_blamed(path, fault):
    """The worker dies when it sends the results of a chunk. The chunk was run again without end."""
    with Tracker(path, max_tries=2) as tracker:
        tracker.add_many([*range(200), "fault", *range(200, 300)])
        report = tracker.run(lambda key: fault() if key == "fault" else None, workers=2, start_method="fork", backoff=0)
        assert (report.done, report.failed) == (300, 1)
        assert tracker["fault"]["_error"]["type"] == "WorkerDied"
        assert {tracker.tries(key) for key in range(300)} == {1}


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_results_that_could_not_be_written_are_written_by_the_next_run(path, monkeypatch, calls, executor):
    """The disk is full; then there is space again. Nothing is lost, and nothing is run twice."""
    with SharedTracker(path, max_tries=3) as tracker:
        tracker.add_many(range(50))
        is_full = []

        def full(*arguments):
            raise DiskFullError("no space")

        def work(key):
            calls.note(key)
            if key == 20:
                is_full.append(True)
                for name in ("_finish_many", "_save_run"):
                    patch.setattr(SharedTracker, name, full)
                patch.setattr(Worker, "close_queue", full)
            return {"key": key}

        with monkeypatch.context() as patch:
            for _ in range(2):
                with pytest.raises(DiskFullError):
                    tracker.run(work, executor=executor, workers=1)
        assert is_full
        before = calls.counts()
        report = tracker.run(work, executor=executor, workers=1)
        assert report.left == 0
        assert tracker.num_done() == 50
        assert {tracker.tries(key) for key in tracker} == {1}
        assert tracker.claimed_keys() == []
        assert before.keys() & (calls.counts() - before).keys() <= {"20"}


# How programs are started


PROGRAM = """
import os, sys
from tastypy_fast import Tracker

def work(key):
    try:
        with open("/dev/tty") as terminal:
            return terminal.readline()
    except OSError:
        return {"pid": os.getpid()}

if __name__ == "__main__":
    with Tracker(sys.argv[1], max_tries=1) as tracker:
        tracker.add_many(range(20))
        print(tracker.run(work, workers=2, start_method=sys.argv[2]).done)
"""


@pytest.fixture(params=multiprocessing.get_all_start_methods())
def start_program(request, path, tmp_path):
    """Start the program, as a file or from the standard input, and return its output and errors."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def start_program(command, program, **options):
        arguments = [*command, sys.executable, program, str(path), request.param]
        found = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, **options)
        return found.stdout, found.stderr

    return start_program


def test_program_from_standard_input(start_program):
    """Its main module has the file name "<stdin>", which multiprocessing tries to run in a spawned worker."""
    pytest.importorskip("cloudpickle")
    assert start_program([], "-", input=PROGRAM) == ("20\n", "")


def test_program_in_a_folder(start_program, tmp_path):
    pytest.importorskip("cloudpickle")
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "__main__.py").write_text(PROGRAM)
    assert start_program([], str(folder)) == ("20\n", "")


def test_program_without_standard_input(start_program, tmp_path):
    """Descriptor 0 may be that by which a worker sees the end of its driver."""
    (tmp_path / "program.py").write_text(PROGRAM)
    output, errors = start_program(["sh", "-c", 'exec "$0" "$@" <&-'], str(tmp_path / "program.py"))
    assert (output, errors) == ("20\n", "")


def test_task_that_reads_from_the_terminal_fails(start_program, tmp_path):
    """A worker is in a background process group, so reading from the terminal would stop it without end."""
    (tmp_path / "program.py").write_text(PROGRAM)
    ours, theirs = pty.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    try:
        output, errors = start_program([], str(tmp_path / "program.py"), stdin=theirs, preexec_fn=take_terminal)
    finally:
        os.close(theirs)
        os.close(ours)
    assert (output, errors) == ("20\n", "")


# Functions of the user in the driver


def test_results_are_recorded_while_the_keys_come_slowly(make, monkeypatch):
    """The next key comes only after the results of the keys before it were recorded."""
    monkeypatch.setattr(task_source, "TAKE_SECONDS", 0.0)
    monkeypatch.setattr(result_recorder, "COMMIT_SECONDS", 0.0)
    tracker = make(max_tries=1)
    tracker.add_many(range(30))
    recorded = threading.Semaphore(1)

    def keys():
        for key in range(30):
            assert recorded.acquire(timeout=60)
            yield key

    report = tracker.run(lambda key: None, tasks=keys(), executor="inline",
                         on_result=lambda key, data: recorded.release())
    assert (report.done, report.left) == (30, 0)


INTERRUPTED = """
import os, signal, sys, threading
import tastypy_fast

kind, path, what = sys.argv[1:]

def wait():
    print("waits", flush=True)
    os.read(os.pipe()[0], 1)

def keys():
    yield from range(5)
    wait()

def work(key):
    if what == "task" and key == 5:
        wait()

with getattr(tastypy_fast, kind)(path, max_tries=3) as tracker:
    tracker.add_many(range(6))
    options = {"tasks": {"tasks": keys()}, "on_result": {"on_result": lambda *result: wait()}, "task": {}}[what]
    tracker.run(work, executor="inline" if what == "task" else "threads", **options)
"""


@pytest.mark.parametrize(("what", "number", "times", "done"), [
    ("tasks", signal.SIGINT, 1, 5), ("tasks", signal.SIGTERM, 1, 5), ("on_result", signal.SIGINT, 2, 6),
    ("task", signal.SIGINT, 1, 5), ("task", signal.SIGTERM, 1, 5),
])
def test_signal_ends_a_function_that_waits(path, tracker_class, what, number, times, done):
    """Python continues a system call after a handler that raises nothing, so the program could not be ended."""
    kind = tracker_class.__name__
    with start(INTERRUPTED, kind, path, what) as process:
        for _ in range(times):
            if not _:
                assert process.stdout.readline() == "waits\n"
            send_to_waiting(process, number)
            time.sleep(0.1)  # not to win a race: a second signal of the same kind is not lost
        _, errors = process.communicate(timeout=60)
    assert process.returncode in ((-signal.SIGINT, 130, 1) if number == signal.SIGINT else (-number,)), errors
    with tracker_class(path) as tracker:
        # Of the tasks that had been handed out, some may not have begun.
        assert 0 < tracker.num_done() == sum(tracker.tries(key) for key in tracker) <= done


def test_workers_that_are_killed_while_they_start_are_replaced():
    with pool_of(functions.fault, 1, start_method="spawn") as pool:
        for _ in range(worker_pool.MAX_STILLBORN + 1):
            pid = pool._crew[0]._pid
            os.kill(pid, signal.SIGKILL)
            while not pool._crew or pool._crew[0]._pid == pid:
                assert pool.step(1) == []
        until_room(pool)
        assert len(drive(pool, [1, 2])) == 2
        pool.close()


def test_run_ends_if_all_workers_are_killed_while_they_start(monkeypatch):
    monkeypatch.setattr(worker_pool, "MAX_KILLED", 3)
    monkeypatch.setattr(worker_pool, "KILLED_SECONDS", 0.0)
    message = r"3 worker processes in a row .* the last one ended with SIGKILL"
    with pool_of(functions.fault, 1, initializer=os.kill, initargs=(0, signal.SIGKILL), start_method="fork") as pool, \
            pytest.raises(WorkerStartError, match=message):
        until_room(pool)


def test_refused_result_leaves_no_claim_after_an_error(make, run):
    """The results of 1 and 2 are refused in the last commit, after on_result() has raised for 0."""
    tracker = make(max_tries=5)
    tracker.add_many(range(3))

    def fail(key, data):
        raise LookupError(key)

    with pytest.raises(LookupError):
        run(tracker, lambda key: {key} if key else None, on_result=fail)
    assert tracker.done(0)
    # The fixture looks for claims.


# Faults that are not those of a result


def test_damaged_record_ends_the_run_and_results_before_it_are_kept(tracker_class, path):
    """The result of its task cannot be written, however often it is run again."""
    with tracker_class(path) as tracker:
        tracker.update({key: {"text": key * 10} for key in "ab"})
        tracker.sync()
    with Inside(path) as inside:
        raw = inside.record(1)
        place = raw.index(b"bbbbbbbbbb")
        inside.put(1, raw[:place - 1] + b"}" + raw[place:])
    with tracker_class(path, max_tries=3) as tracker:
        with pytest.raises(PersistentOrderedDictIntegrityError, match=r"'b'|record 1"):
            tracker.run(lambda key: {"size": 1}, executor="inline", backoff=0, deadline=60)
        assert [tracker.done(key) for key in "ab"] == [True, False]


def test_attributes_of_an_error_are_not_kept(make, run):
    tracker = make(max_tries=2)
    tracker.add_many("ab")

    def work(key):
        if key == "a":
            error = ValueError("text")
            error.task_error = {"fields": {1, 2}}
            raise error

    report = run(tracker, work)
    assert (report.done, report.failed, report.retried) == (1, 1, 1)
    assert set(tracker["a"]["_error"]) == {"type", "message", "traceback", "at", "seconds", "try"}
