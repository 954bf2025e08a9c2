"""Turn the signals that end a program into requests, while a run is in the main thread.

Ctrl-C, SIGTERM and SIGHUP first ask the run to end in order, and then to end at once. Ctrl-Z stops the workers, too,
because they are in process groups of their own. Only default handlers and those of this package are replaced: a program
with a handler of its own passes ``stop=`` to ``run()``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from tastypy_fast._store import shutdown

__all__ = ["RunSignals"]

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunSignals:
    """A context manager that replaces handlers. Off the main thread it does nothing.

    ``number`` is the first signal that has arrived, or None, and ``count`` how many have. ``wakeup`` is a file
    descriptor that can be read after a signal; ``drain()`` reads it.
    """

    def __init__(self, raise_at_once: Callable[[], bool]) -> None:
        # Whether Ctrl-C must raise at once, because a task runs in this thread.
        self._raise_at_once = raise_at_once
        self._before: dict[int, Any] = {}
        self._is_suspension_wanted = False
        # From this number of signals on, one raises at once, because a function of the user is running in this thread.
        # 0: never.
        self.raises_from = 0
        self.number: int | None = None
        self.count = 0
        self.wakeup: int | None = None
        self._write_end = -1

    def __enter__(self) -> RunSignals:
        if threading.current_thread() is not threading.main_thread():
            return self
        shutdown.take_over()
        self.wakeup, self._write_end = os.pipe()
        for end in (self.wakeup, self._write_end):
            os.set_blocking(end, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in _STOPPING:
            if shutdown.is_default_or_own(number):
                self._replace(number, self._on_stop)
        if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            self._replace(signal.SIGTSTP, self._on_suspend)
        return self

    def _replace(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        self._before[number] = signal.getsignal(number)
        signal.signal(number, handler)

    def __exit__(self, *exception: object) -> None:
        if self.wakeup is None:
            return
        for number, handler in self._before.items():
            shutdown.restore_handler(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self.wakeup)
        os.close(self._write_end)
        self.wakeup = None

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.number is None or number != signal.SIGINT:
            # SIGTERM after Ctrl-C: a service manager expects that the program ends by it.
            self.number = number
        if self._raise_at_once() or 0 < self.raises_from <= self.count:
            raise KeyboardInterrupt

    def _on_suspend(self, number: int, frame: FrameType | None) -> None:
        self._is_suspension_wanted = True

    def drain(self) -> None:
        """Read what the signals have written into the pipe."""
        if self.wakeup is not None:
            with contextlib.suppress(BlockingIOError):
                while os.read(self.wakeup, 512):
                    pass

    def suspend_if_wanted(self, stop: Callable[[], None], go_on: Callable[[float], None]) -> None:
        """Stop the workers and then this process after Ctrl-Z, and let all go on after SIGCONT."""
        if self._is_suspension_wanted:
            self._is_suspension_wanted = False
            stop()
            began = time.monotonic()
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # returns after SIGCONT
            signal.signal(signal.SIGTSTP, self._on_suspend)
            go_on(time.monotonic() - began)

    def raise_again(self) -> None:
        """Let a signal have the effect that it would have had without the run. Call it after ``__exit__()``."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is not None:
            signal.raise_signal(self.number)
