"""Ctrl-C during the save at the end of the program loses nothing, and ends the wait for a block."""

from __future__ import annotations

import functools
import os
import signal
import sys
from _thread import interrupt_main

import pytest

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker
from tastypy_fast._core.interrupts import call_to_the_end, call_undisturbed
from tastypy_fast._store import registry
from tests.support.children import Child, send_to_waiting
from tests.support.endings import kinds
from tests.support.workers import next_line, started

pytestmark = [
    pytest.mark.all_classes,
    pytest.mark.with_log,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

# A Ctrl-C at the begin and at the end of everything that saves.
INTERRUPTING = """
from tastypy_fast._store.store import Store
from tastypy_fast._shared.store import SharedStore

def interrupting(method):
    def call(*arguments):
        os.write(1, b".")
        os.kill(os.getpid(), signal.SIGINT)
        result = method(*arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return result
    return call

for cls in Store, SharedStore:
    for name in ("write", "flush", "save", "save_summary", "sync", "is_sync_held"):
        if name in vars(cls):
            setattr(cls, name, interrupting(getattr(cls, name)))
"""


@kinds
@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), signal.SIGINT)",
                                    "os.kill(os.getpid(), signal.SIGTERM); signal.pause()"])
def test_ctrl_c_again_and_again_during_the_save_loses_nothing(tmp_path, begin, ending):
    with started(begin + INTERRUPTING + ending, tmp_path) as process:
        output, errors = process.communicate()
    assert output.strip(".") == ""
    assert len(output) > 2
    assert process.returncode == (-signal.SIGINT if "INT" in ending else -signal.SIGTERM if ending else 0)
    assert "could be saved" not in errors
    # Python reports it, as for any function of atexit. After SIGTERM the process ends at once.
    assert ("KeyboardInterrupt" in errors) == ("TERM" not in ending)
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod["list"] == [1]
        assert tracker.done("task")
        pod._check()
        tracker._check()


@pytest.mark.parametrize("cls", [SharedPOD, SharedTracker])
def test_ctrl_c_does_not_roll_back_the_block_that_the_end_of_the_program_commits(path, cls):
    program = f"""
import os, signal, sys
from tastypy_fast import {cls.__name__}
store = {cls.__name__}(sys.argv[1], sync_at=1)
store.lock()
store["in the block"] = {{}}
{INTERRUPTING}
"""
    with started(program, path) as process:
        output, errors = process.communicate()
    assert process.returncode == 0
    assert output.strip(".") == ""
    assert "could be saved" not in errors
    with cls(path) as store:
        assert store.keys() == ["in the block"]


def change(store, number):
    with store.locked():
        for key in range(20):
            store.set[key, "a"] = {"n": number}
    if isinstance(store, (Tracker, SharedTracker)):
        store.mark_done((3, "a"))
    if isinstance(store, (SharedPOD, SharedTracker)):
        store.lock()
    store["last"] = {"n": number}


@pytest.mark.parametrize(
    "cls",
    [POD, SharedTracker, pytest.param(Tracker, marks=pytest.mark.storm),
     pytest.param(SharedPOD, marks=pytest.mark.storm)],
)
def test_ctrl_c_at_any_line_of_the_save_loses_nothing(path, cls):
    """Each child gets one at another line of the package."""
    with cls(path) as store:
        store.update((key, {}) for key in range(5))

    def save(pipe, number):
        store = cls(path)
        change(store, number)
        left = number

        def trace(frame, event, argument):
            nonlocal left
            if "tastypy_fast" not in frame.f_globals.get("__name__", ""):
                return None
            left -= event == "line"
            if left == 0 and event == "line":
                interrupt_main()
            return trace

        sys.settrace(trace)
        try:
            call_to_the_end(registry._save_at_exit)
            was_interrupted = False
        except KeyboardInterrupt:
            was_interrupted = True
        finally:
            sys.settrace(None)
        pipe.send(was_interrupted)
        os._exit(0)

    for number in range(1, 10**6):
        with Child(save, number) as child:
            was_interrupted = child.pipe.recv()
            assert child.wait() == 0
        with cls(path) as store:
            assert store["last"]["n"] == number
            assert all(store[key, "a"]["n"] == number for key in range(20))
            store._check()
        if not was_interrupted:
            break
    assert number > 20


# Waiting


def test_ctrl_c_at_the_end_ends_the_wait_for_the_block_of_a_thread(tmp_path):
    program = """
import sys, threading
from tastypy_fast import POD
from tastypy_fast._store import registry
registry.EXIT_LOCK_TIMEOUT_US = 3600 * 10**6
registry.INTERRUPTED_LOCK_TIMEOUT_US = 10_000
wait = registry._wait_for_block
def announce(*arguments):
    print("waiting", flush=True)
    wait(*arguments)
registry._wait_for_block = announce
first, second = (POD(sys.argv[1] + name) for name in ("/first", "/second"))
second["saved"] = 1
entered = threading.Event()
def stay():
    with first.locked():
        first["lost"] = 1
        entered.set()
        threading.Event().wait()
threading.Thread(target=stay, daemon=True).start()
entered.wait()
"""
    with started(program, tmp_path) as process:
        assert next_line(process) == "waiting"
        send_to_waiting(process, signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 0
    assert "another thread is still in a block" in errors
    assert "KeyboardInterrupt" in errors
    with POD(tmp_path / "first") as first, POD(tmp_path / "second") as second:
        assert (first.items(), second.items()) == ([], [("saved", 1)])


CLAIMING = """
import os, signal, sys
from tastypy_fast import SharedTracker
from tastypy_fast._shared.store import SharedStore
tracker = SharedTracker(sys.argv[1])
loop = tracker.try_keys()
print(next(loop), flush=True)
input()
end_worker = SharedStore._end_worker
def announce(store):
    print("waiting", flush=True)
    end_worker(store)
SharedStore._end_worker = announce
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ending", ["exit", "SIGTERM"])
def test_signal_at_the_end_does_not_wait_for_the_block_of_another_process(path, number, ending):
    program = CLAIMING + ("os.kill(os.getpid(), signal.SIGTERM)\n" if ending == "SIGTERM" else "")
    with SharedTracker(path, init={"task": {}}) as tracker, started(program, path) as process:
        assert next_line(process) == "task"
        with tracker.locked():
            process.stdin.write("\n")
            process.stdin.flush()
            assert next_line(process) == "waiting"
            if ending == "exit":
                send_to_waiting(process, number)
            _, errors = process.communicate()
        is_interrupted = (ending, number) == ("exit", signal.SIGINT)
        assert process.returncode == (0 if is_interrupted else -signal.SIGTERM)
        assert ("another process is in a block" in errors) == is_interrupted
        # The claim of a process that has ended is free.
        assert list(tracker.try_keys()) == ["task"]


# The functions


def test_call_to_the_end_calls_again_and_raises_at_the_end():
    calls = []

    def work(interrupted):
        calls.append(interrupted)
        signal.raise_signal(signal.SIGINT)
        calls.append("end")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        call_to_the_end(work)
    assert calls == [False, True, "end"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("raises", [False, True])
def test_other_errors_and_results_pass(raises):
    def work(*arguments):
        return 1 // (not raises)

    for call in call_to_the_end, call_undisturbed:
        if raises:
            with pytest.raises(ZeroDivisionError):
                call(work)
        else:
            assert call(work) == (1 if call is call_undisturbed else None)


def test_call_undisturbed_raises_afterwards():
    calls = []

    def work():
        signal.raise_signal(signal.SIGINT)
        calls.append("end")

    with pytest.raises(KeyboardInterrupt):
        call_undisturbed(work)
    assert calls == ["end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_call_undisturbed_keeps_a_handler_of_the_program():
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append("mine"))
    try:
        call_undisturbed(functools.partial(signal.raise_signal, signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == ["mine"]


@pytest.mark.parametrize("raises", ["raise SystemExit(3)", "raise TimeoutError", "raise KeyboardInterrupt"])
@pytest.mark.parametrize("number", ["SIGTERM", "SIGALRM", "SIGINT"])
def test_a_handler_of_the_program_that_raises_loses_nothing(run_python, path, tmp_path, number, raises):
    """A service manager may send SIGTERM during the save, though the program handles it by an exception."""
    interrupting = INTERRUPTING.replace("SIGINT", number)
    output = run_python(f"""
import os, signal
from tastypy_fast import POD

def handle(number, frame):
    {raises}

signal.signal(signal.{number}, handle)
stores = [POD({str(path)!r}, sync_every=None), POD({str(tmp_path / "second")!r}, sync_every=None)]
for store in stores:
    store["a"] = 1
{interrupting}
""")
    assert "." in output
    for one in path, tmp_path / "second":
        with POD(one, mode="r") as store:
            assert store.items() == [("a", 1)]


@pytest.mark.parametrize("raises", [SystemExit, TimeoutError])
def test_the_exception_of_a_handler_is_raised_when_the_work_is_done(raises):
    seen = []

    def handle(number, frame):
        raise raises

    def work(interrupted):
        seen.append(interrupted)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
        seen.append("done")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(raises):
            call_to_the_end(work)
        assert signal.getsignal(signal.SIGUSR1) is handle
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [False, True, "done"]
