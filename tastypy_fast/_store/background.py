"""Run the one background thread of this process, which syncs stores when it is time.

The thread starts with the first change, and sleeps without waking while nothing is scheduled. If the first store is
opened off the main thread, it starts at once, because it then ends the process at SIGTERM. It holds no store alive,
and waits for no lock for long. It ends before a fork, because a fork with threads is unsafe, and with the program.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable

from tastypy_fast._core import signal_wake
from tastypy_fast._core.sync_schedule import monotonic
from tastypy_fast._store.store import Store

__all__ = ["BackgroundThread", "run_due"]

# In seconds. The thread sleeps again after that.
LONGEST_SLEEP = 1e6


class BackgroundThread:
    """Calls ``run_background()`` of each store at its ``background_due()``.

    Signal handlers and finalizers may call ``wake()`` at any line, also inside another ``wake()``. So nothing here
    waits for a lock.
    """

    def __init__(self, stores: Callable[[], Iterable[Store]]) -> None:
        self._stores = stores
        # Called in the thread when a signal has woken it.
        self.on_signal: Callable[[int], object] = _do_nothing
        self._thread: _Thread | None = None
        # While the process forks or ends, wake() starts no thread.
        self._is_paused = False
        self._has_warned = False

    def wake(self) -> bool:
        """Ask each store anew when it is due. Starts the thread if there is none. Returns False if it cannot start."""
        if self._is_paused:
            return True
        thread = self._thread
        if thread is None:
            thread = _Thread(self._stores, self.on_signal)
            try:
                thread.start()
            except RuntimeError as error:
                self._warn(error)
                return False
            # A signal handler may have started another thread meanwhile. Two do no harm: each runs what is due.
            before, self._thread = self._thread, thread
            if before is not None:
                before.end()
        signal_wake.ring()
        return True

    def _warn(self, error: RuntimeError) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(f"no thread can be started ({error}), so sync_every has no effect, and signals do "
                          f"not save in a program that opened its first store in a thread; changes are saved by "
                          f"sync_at, sync() and close()", RuntimeWarning, stacklevel=2)

    def end(self) -> None:
        """Let the thread end soon."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.end()

    def pause(self, timeout: float | None = None) -> None:
        """End the thread, wait for its end, and start no other one until ``resume()``."""
        self._is_paused = True
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.end()
            thread.join(timeout)
        self._thread = None

    def resume(self) -> None:
        """Let ``wake()`` start a thread again."""
        self._is_paused = False

    def reset_in_child(self) -> None:
        """Forget the parent's thread, in a forked child."""
        self._thread = None
        self._is_paused = False


class _Thread(threading.Thread):
    """It is a daemon, because the program must be able to end. The exit hook ends it before the interpreter does."""

    def __init__(self, stores: Callable[[], Iterable[Store]], on_signal: Callable[[int], object]) -> None:
        super().__init__(name="tastypy_fast background", daemon=True)
        self._stores = stores
        self._on_signal = on_signal
        self._is_ending = False

    def end(self) -> None:
        self._is_ending = True
        signal_wake.ring()

    def run(self) -> None:
        # Signals belong to the program's own threads, whose waiting they interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            # Before everything else, because what comes after this call ends the sleep below.
            seen = signal_wake.rings()
            number = signal_wake.arrived()
            if number:
                self._on_signal(number)
            if self._is_ending:
                return
            try:
                run_due(self._stores())
                due = next_due(self._stores())
            except Exception as error:
                # The caches keep the errors of their syncs. This is one of the thread itself: no memory, for example.
                print(f"tastypy_fast: the background thread tries again after an error: {error!r}", file=sys.stderr)
                time.sleep(1)
            else:
                signal_wake.wait(seen, -1 if due is None else min(max(0.0, due - monotonic()), LONGEST_SLEEP))


def _do_nothing(number: int) -> None:
    pass


def next_due(stores: Iterable[Store]) -> float | None:
    """Return when the first store is due. Holds no store afterwards."""
    return min((due for store in stores if (due := store.background_due()) is not None), default=None)


def run_due(stores: Iterable[Store], at_once: bool = False) -> None:
    """Run each store that is due."""
    for store in stores:
        due = store.background_due()
        if due is not None and (at_once or due <= monotonic()):
            store.run_background(at_once)
