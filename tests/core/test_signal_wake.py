"""A thread sleeps until the bell rings, which a signal can do, too."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tastypy_fast._core import signal_wake
from tastypy_fast._store import shutdown
from tests.support.children import Child, result_of_child

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_a_ring_before_the_sleep_is_not_lost():
    seen = signal_wake.rings()
    signal_wake.ring()
    signal_wake.wait(seen, -1)
    assert signal_wake.rings() == seen + 1


def test_a_ring_wakes_every_sleeping_thread():
    seen = signal_wake.rings()

    def sleep():
        while signal_wake.rings() == seen:
            signal_wake.wait(seen, -1)

    threads = [threading.Thread(target=sleep) for _ in range(3)]
    for thread in threads:
        thread.start()
    signal_wake.ring()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.1])
def test_the_sleep_ends_after_its_time(seconds):
    seen = signal_wake.rings()
    before = time.monotonic()
    # (it may return for no reason, which it hardly does)
    while time.monotonic() - before < seconds:
        signal_wake.wait(seen, seconds)
    signal_wake.wait(seen, 0)
    assert signal_wake.rings() == seen


def test_a_signal_rings_and_is_noted_in_its_process():
    def work(pipe):
        signal_wake.wake_on(signal.SIGUSR1)
        assert signal_wake.wakes_on(signal.SIGUSR1)
        assert signal_wake.has_default_action(signal.SIGUSR1)
        assert signal_wake.arrived() == 0
        seen = signal_wake.rings()
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signal_wake.arrived() == signal.SIGUSR1
        signal_wake.wait(seen, -1)
        # A child inherits the memory, but not the signal. The hooks of fork would handle it here.
        shutdown._on_signal = None
        assert result_of_child(lambda pipe: pipe.send(signal_wake.arrived())) == [0]
        pipe.send("done")

    assert result_of_child(work) == ["done"]


def test_a_handler_of_python_replaces_it_and_is_left_alone():
    def work(pipe):
        signal_wake.wake_on(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, lambda *_: pipe.send("python"))
        signal_wake.leave(signal.SIGUSR1)
        signal_wake.wake_on(signal.SIGUSR1)
        assert not signal_wake.wakes_on(signal.SIGUSR1)
        assert not signal_wake.has_default_action(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signal_wake.arrived() == 0

    assert result_of_child(work) == ["python"]


@pytest.mark.parametrize("in_thread", [False, True])
def test_the_process_ends_by_the_signal_although_it_is_blocked_and_handled(in_thread):
    def end():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        signal_wake.end_process(signal.SIGUSR1)

    def work(pipe):
        signal.signal(signal.SIGUSR1, lambda *_: pipe.send("handled"))
        if not in_thread:
            end()
        threading.Thread(target=end).start()
        threading.Event().wait()

    with Child(work) as child:
        assert child.receive_all() == []
        assert child.wait() == -signal.SIGUSR1
