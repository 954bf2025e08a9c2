"""Waiting for an operation of another thread on a store: signals end the wait, and it ends in the right state."""

from __future__ import annotations

import signal
import threading

import pytest

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker
from tastypy_fast._core.locks import Lock
from tests.support.children import send_to_waiting
from tests.support.workers import in_forked_child, next_line, send_line, started

# The main thread waits for a lock of another thread, which releases it only on request.
WAITING = """
import os, signal, sys, threading
import tastypy_fast
from tastypy_fast import *

store = getattr(tastypy_fast, sys.argv[2])(sys.argv[1])
store["mine"] = {{}}
held, end = threading.Event(), threading.Event()

def hold():
    with {hold}:
        if "locked" in {hold!r}:
            store["of the block"] = {{}}
        held.set()
        end.wait()

thread = threading.Thread(target=hold, daemon=True)
thread.start()
held.wait()
print("ready", flush=True)
try:
    {wait}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    end.set()
    thread.join()
    {wait}
    if not store.closed:
        store._check()
        store["after"] = {{}}
        store.close()
    print("and well", flush=True)
"""

ON_BOTH = {
    "read": 'store["mine"]',
    "assign": 'store["mine"] = {"n": 1}',
    "add": 'store["new"] = {}',
    "delete": 'del store["mine"]; store["mine"] = {}',
    "update": "store.update(a={})",
    "sync": "store.sync()",
    "revert": "store.revert()",
    "dirty": "store.dirty()",
    "close": "store.close()",
}
ON_SHARED = {
    **{name: line for name, line in ON_BOTH.items() if name not in ("read", "dirty")},  # These do not wait.
    "set": 'store.set["mine"]["n"] = 1',
    "locked": "with store.locked(): pass",
    "transaction": 'with store.transaction(): store["x"] = {}',
    "lock": "store.lock(); store.unlock()",
    "hold": "store.hold(); store.unhold()",
    "sync_key": 'store.sync_key("mine")',
    "in a loop": "list(store); store.clear(); store['mine'] = {}",
    "another instance": "other = type(store)(sys.argv[1]); other['x'] = {}; other.close()",
}
ON_TRACKERS = {
    "status": 'store.mark_done("mine")',
    "gate": 'store.should_try_add("mine")',
    "add_many": 'store.add_many_if_absent(["x", "y"])',
    "claim": "list(store.try_keys(batch=3))",
    "release": 'store.release("mine")',
}


def program(hold, wait):
    return WAITING.format(hold=hold, wait=wait)


CASES = [
    *((SharedPOD, "store.locked()", name, line) for name, line in ON_SHARED.items()),
    *((SharedTracker, "store.locked()", name, line) for name, line in ON_TRACKERS.items()),
    *((cls, "store._store.lock", name, line) for cls in (POD, Tracker) for name, line in ON_BOTH.items()
      if name in ("delete", "sync", "revert", "dirty", "close")),  # The others find all values in the cache.
    (SharedPOD, "store._store.lock", "read", ON_BOTH["read"]),
    (SharedTracker, "store._store.lock", "claims", "store.claims(); store.claimed_keys()"),
]


@pytest.mark.parametrize(("cls", "hold", "wait"), [pytest.param(cls, hold, wait, id=f"{cls.__name__} {name} {hold}")
                                                   for cls, hold, name, wait in CASES])
def test_ctrl_c_ends_the_wait_for_another_thread(path, cls, hold, wait):
    with started(program(hold, wait), path, cls.__name__) as process:
        assert next_line(process) == "ready"
        send_to_waiting(process, signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert (output, process.returncode) == ("interrupted\nand well\n", 0), errors
    with cls(path) as store:
        store._check()
        assert "after" in store or "close" in wait


@pytest.mark.parametrize("cls", [SharedPOD, SharedTracker])
@pytest.mark.parametrize("wait", ['store["x"] = {}', "store.close()", "os.fork()", "store.sync()", "store.lock()"])
def test_sigterm_ends_a_program_whose_main_thread_waits_for_a_block(path, cls, wait):
    with started(program("store.locked()", wait), path, cls.__name__) as process:
        assert next_line(process) == "ready"
        send_to_waiting(process, signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    assert (output, errors, process.returncode) == ("", "", -signal.SIGTERM)
    with cls(path) as store:
        # None of the changes of the block are saved, and all earlier ones are.
        assert store.keys() == ["mine"]
        store._check()


@pytest.mark.parametrize("cls", [POD, Tracker])
def test_sigterm_saves_a_private_store_after_the_operation_of_another_thread(path, cls):
    text = program("store._store.lock", "store.sync()").replace("end.wait()", "input()")
    with started(text, path, cls.__name__) as process:
        assert next_line(process) == "ready"
        send_to_waiting(process, signal.SIGTERM)
        send_line(process)
        output, errors = process.communicate(timeout=20)
    assert (output, errors, process.returncode) == ("", "", -signal.SIGTERM)
    with cls(path) as store:
        assert store.keys() == ["mine"]


@pytest.mark.parametrize("hold", ["store.locked()", "store._store.lock"])
@pytest.mark.parametrize("cls", [SharedPOD, POD])
def test_fork_interrupted_by_a_signal_continues_to_wait(path, cls, hold):
    """The fork cannot be cancelled, and a child without the locks would be unusable."""
    wait = """
    def interrupt(*_):
        end.set()
        raise KeyboardInterrupt("raised by the handler")
    signal.signal(signal.SIGINT, interrupt)
    child = os.fork()
    if child == 0:
        if "Shared" in sys.argv[2]:
            store["of the child"] = {}
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    thread.join()
    store["after"] = {}
    store._check()
    store.close()
    """
    with started(program(hold, wait.strip()), path, cls.__name__) as process:
        assert next_line(process) == "ready"
        send_to_waiting(process, signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert (output, process.returncode) == ("7\n", 0), errors
    assert "raised by the handler" in errors
    with cls(path) as store:
        assert "after" in store
        assert ("of the child" in store) == (cls is SharedPOD)


def test_handler_may_use_the_store_while_the_main_thread_waits(path):
    wait = """
    def use(*_):
        assert store["mine"] == {}
        print("read", flush=True)
        end.set()
        store["of the handler"] = {}
    signal.signal(signal.SIGUSR1, use)
    print("handles", flush=True)
    store["waited"] = {}
    thread.join()
    print(store.keys())
    """
    with started(program("store.locked()", wait.strip()), path, "SharedPOD") as process:
        assert [next_line(process), next_line(process)] == ["ready", "handles"]
        send_to_waiting(process, signal.SIGUSR1)
        output, errors = process.communicate(timeout=20)
    assert errors == ""
    assert output == "read\n['mine', 'of the block', 'of the handler', 'waited']\n"


def test_other_threads_get_the_lock_after_a_waiting_thread_was_interrupted(path):
    """This includes threads that waited behind it, and threads that come later."""
    wait = """
    threads = [threading.Thread(target=store.__setitem__, args=(n, {})) for n in range(3)]
    for one in threads:
        one.start()
    try:
        print("waits", flush=True)
        store["x"] = {}
    finally:
        end.set()
        for one in threads:
            one.join()
        print(sorted(key for key in store if isinstance(key, int)), flush=True)
    """
    with started(program("store.locked()", wait.strip()), path, "SharedPOD") as process:
        assert [next_line(process), next_line(process)] == ["ready", "waits"]
        send_to_waiting(process, signal.SIGINT)
        assert next_line(process) == "[0, 1, 2]"


@in_forked_child
def test_contended_lock_is_acquired_despite_signals():
    """Each signal ends one step of the wait in the main thread, for any timing of the other threads."""
    lock = Lock()
    count = 0
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)

    def work():
        nonlocal count
        for number in range(20_000):
            with lock:
                before = count
                if number % 50 == 0:
                    threading.Event().wait(1e-5)
                count = before + 1

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert count == 60_000
    assert lock.try_acquire()


@in_forked_child
def test_signals_do_not_shorten_a_wait_with_a_timeout():
    lock = Lock()
    signals = 0

    def note(*_):
        nonlocal signals
        signals += 1
        if signals == 20:
            end.set()

    signal.signal(signal.SIGALRM, note)
    held, end = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
    assert lock.acquire_within(250_000_000)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert signals >= 20
    assert not lock.acquire_uninterrupted()
    thread.join()


@in_forked_child
def test_resume_reacquires_the_lock_although_a_handler_raises():
    """resume() must restore the lock, because its callers rely on it."""
    lock = Lock()
    lock.acquire()
    lock.acquire()
    depth = lock.suspend()
    held, end = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            end.wait()

    def interrupt(*_):
        end.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    with pytest.raises(KeyboardInterrupt):
        lock.resume(depth)
    assert lock.is_mine()
    lock.release()
    lock.release()
    thread.join()
    assert not lock.is_mine()
