"""Threads of every kind keep their claims as long as they live."""

from __future__ import annotations

import _thread
import ctypes
import os
import queue
import threading
import weakref

import pytest

from tastypy_fast._core.locks import is_alive, this_thread
from tests.support.claims import tries

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

START = {
    "threading": lambda work: threading.Thread(target=work).start(),
    "_thread": lambda work: _thread.start_new_thread(work, ()),
    "a C library": lambda work: start_in_c(work),
}
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
callbacks = []


def start_in_c(work):
    """Start a thread outside Python, which calls Python once."""
    callback = CALLBACK(lambda _: work())
    callbacks.append(callback)
    library, number = ctypes.CDLL(None), ctypes.c_ulong()
    assert library.pthread_create(ctypes.byref(number), None, callback, None) == 0
    library.pthread_detach(number)


def in_thread(start, work):
    """Run ``work(ready, end)`` in a thread.

    Returns the argument of ``ready``, and a function that ends the thread and waits for its end.
    """
    told, end, ended = queue.SimpleQueue(), threading.Event(), weakref.WeakSet()

    class Local:
        """An object that lives as long as its thread."""

    local = threading.local()

    def run():
        local.kept = Local()
        ended.add(local.kept)
        try:
            work(told.put, end.wait)
        except BaseException as error:
            told.put(error)

    START[start](run)
    found = told.get(timeout=60)
    if isinstance(found, BaseException):
        raise found

    def finish():
        end.set()
        while len(ended):
            os.sched_yield()

    return found, finish


@pytest.mark.parametrize("start", START)
def test_threads_of_every_kind_keep_their_claims_while_they_live(tracker, start):
    tracker.add_many("abcd")

    def work(tell, wait):
        loop = tracker.try_keys()
        failed = next(loop)
        loop.close()
        assert tracker.should_try("b")
        tell(failed)
        wait()

    failed, finish = in_thread(start, work)
    assert failed == "a"
    assert not tracker.should_try("a")
    assert not tracker.should_try("b")
    assert list(tracker.try_keys()) == ["c", "d"]
    for other in START:
        # Other threads of any kind do not get them either.
        found, end = in_thread(other, lambda tell, wait: tell([tracker.should_try("b"), *tracker.try_keys(batch=2)]))
        end()
        assert found == [False]
    finish()
    assert tracker.should_try("b")
    assert list(tracker.try_keys()) == ["a", "b", "c", "d"]
    assert tries(tracker) == [2, 3, 2, 2]


@pytest.mark.parametrize("start", START)
def test_thread_that_reuses_the_id_of_an_ended_thread_gets_none_of_its_claims(tracker, start):
    """The system reuses thread ids. Those of the interpreter are never reused."""
    tracker.add_many("ab")

    def fail(tell, wait):
        loop = tracker.try_keys()
        next(loop)
        loop.close()
        assert tracker.should_try("b")
        tell(threading.get_ident())

    first, finish = in_thread(start, fail)
    finish()
    ends = []
    for _ in range(1000):
        second, finish = in_thread(start, lambda tell, wait: (tell(threading.get_ident()), wait()))
        ends.append(finish)
        if second == first:
            break
    if second != first:
        pytest.skip("this system does not give them again")
    try:
        # The new thread may do anything.
        assert tracker.should_try("b")
        assert list(tracker.try_keys()) == ["a", "b"]
    finally:
        for finish in ends:
            finish()


def test_thread_number_is_alive_until_the_thread_ends():
    assert is_alive(this_thread())
    assert not is_alive(0)
    number, finish = in_thread("_thread", lambda tell, wait: (tell(this_thread()), wait()))
    assert number != this_thread()
    assert is_alive(number)
    finish()
    assert not is_alive(number)
