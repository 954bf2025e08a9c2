"""``locked()`` holds the lock of this process's threads, and suspends the automatic sync."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from tastypy_fast import (
    NotLockedError,
    ProgressTracker,
)
from tests.support.no_background import PRELUDE

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


def test_locked_returns_the_store_and_keeps_changes_after_an_exception(kit, store):
    with store.locked() as locked:
        assert locked is store
        store["a"] = kit.value(1)
        with store.locked():
            store["b"] = kit.value(2)
    with contextlib.suppress(ZeroDivisionError), store.locked():
        store["c"] = kit.value(3)
        raise ZeroDivisionError
    for now in kit.states(store):
        assert kit.contents(now) == {"a": 1, "b": 2, "c": 3}


def test_other_threads_wait_for_the_end_of_a_locked_block(kit, store):
    store.update(kit.pairs({"a": 0, "b": 0}))
    entered, seen = threading.Event(), []

    def look():
        entered.wait()
        with store.locked():
            seen.append(kit.contents(store))

    thread = threading.Thread(target=look)
    thread.start()
    with store.locked():
        store["a"] = kit.value(1)
        entered.set()
        thread.join(0.1)
        store["b"] = kit.value(1)
    thread.join()
    assert seen == [{"a": 1, "b": 1}]


def test_locked_object_may_be_entered_again(kit, store):
    block = store.locked()
    for number in range(2):
        with block, block:
            store[number] = kit.value(number)
    assert kit.contents(store) == {0: 0, 1: 1}


def test_locked_block_belongs_to_its_thread(kit, store):
    block = store.locked()
    with pytest.raises(NotLockedError):
        block.__exit__(None, None, None)
    block.__enter__()
    raised = []

    def end():
        try:
            block.__exit__(None, None, None)
        except NotLockedError as error:
            raised.append(error)

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert len(raised) == 1
    store["a"] = kit.value(1)
    block.__exit__(None, None, None)
    assert kit.contents(store) == {"a": 1}


def test_close_inside_a_locked_block_saves(kit):
    store = kit.open()
    with store.locked():
        store["a"] = kit.value(1)
        store.close()
    store = kit.open()
    assert kit.contents(store) == {"a": 1}
    # (and the lock is free)
    thread = threading.Thread(target=lambda: store.update(kit.pairs({"b": 2})))
    thread.start()
    thread.join(10)
    assert kit.contents(store) == {"a": 1, "b": 2}


def test_automatic_sync_waits_for_the_end_of_the_locked_block(private_kit):
    kit = private_kit
    store = kit.open(sync_at=2)
    with store.locked():
        store.update(kit.pairs({"a": 1, "b": 2, "c": 3}))
        with store.locked():
            store["d"] = kit.value(4)
        store.unhold()
        assert store.dirty() == {"a", "b", "c", "d"}
    assert store.dirty() == set()
    with store.locked():
        store["e"] = kit.value(5)
        store.sync()
        assert store.dirty() == set()
        store["f"] = kit.value(6)
    assert store.dirty() == {"f"}
    store.hold()
    with store.locked():
        store.update(kit.pairs({"g": 1, "h": 2, "i": 3}))
    assert len(store.dirty()) == 4


def test_automatic_sync_of_another_thread_is_not_suspended_by_a_locked_block(path):
    begun = threading.Event()

    def keys():
        begun.set()
        yield from range(100)

    with ProgressTracker(path, sync_at=10) as tracker:
        with tracker.locked():
            thread = threading.Thread(target=lambda: tracker.add_many(keys()))
            thread.start()
            # The thread has called add_many(), which waits for the end of the block.
            assert begun.wait(10)
        thread.join()
        assert len(tracker) == 100
        assert len(tracker.dirty()) < 10


def test_reader_sees_one_snapshot_in_a_locked_block(private_kit, run_python):
    kit = private_kit
    with kit.open() as store:
        store.update(kit.pairs({"a": 1}))
    reader = kit.open(mode="r")
    with reader.locked():
        assert reader.keys() == ["a"]
        run_python(f"""
import tastypy_fast
with tastypy_fast.{kit.cls.__name__}({reader.path!r}) as store:
    store["b"] = {{}}
""")
        assert reader.keys() == ["a"]
    assert reader.keys() == ["a", "b"]


@pytest.mark.parametrize("how", ["exit", "SIGTERM"])
def test_program_exits_although_a_thread_stays_in_a_locked_block(private_kit, how):
    kit = private_kit
    with kit.open() as store:
        path = store.path
    code = f"""
import os, signal, threading, time, tastypy_fast
from tastypy_fast._store import registry
registry.EXIT_LOCK_TIMEOUT_US = 100_000
store = tastypy_fast.{kit.cls.__name__}({path!r})
store["a"] = {{}}
store.sync()
entered = threading.Event()
def stay():
    with store.locked():
        store["b"] = {{}}
        entered.set()
        time.sleep(1000)
threading.Thread(target=stay, daemon=True).start()
entered.wait()
if {how!r} == "SIGTERM":
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1000)
"""
    done = subprocess.run([sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.returncode == (0 if how == "exit" else -signal.SIGTERM)
    assert "another thread is still in a block" in done.stderr
    assert kit.open().keys() == ["a"]


def test_child_forked_in_a_locked_block_is_outside_it(private_kit):
    kit = private_kit
    store = kit.open()
    store["a"] = kit.value(1)
    store.sync()
    block = store.locked()
    with block:
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                block.__exit__(None, None, None)
                code = 0 if store.keys() == ["a"] else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        store["b"] = kit.value(2)
    assert kit.contents(store) == {"a": 1, "b": 2}
