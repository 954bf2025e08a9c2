"""Save unsynced changes before the process ends: exit hooks, and handlers of the signals that end a process.

SIGINT needs no handler, because Python turns it into an exception, which ends in an ordinary exit.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from tastypy_fast._core import signal_resend, signal_wake
from tastypy_fast._core.interrupts import call_to_the_end

__all__ = [
    "SIGNALS", "is_default_or_own", "needs_thread", "raise_arrived", "report", "restore_handler", "restore_signals",
    "save_at_exit", "take_over", "watch_signals", "watch_signals_in_child",
]

# What asks a program to end: a service manager or container, a closed terminal, the limit of processor time.
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU)

_saved_by: set[int] = set()
_on_signal: Callable[[int], None] | None = None


def save_at_exit(save: Callable[[bool], None]) -> None:
    """Call ``save`` once when this process exits, even if this function is called several times.

    If a signal ends ``save(False)``, ``save(True)`` is called, and no signal ends that.
    """
    if os.getpid() in _saved_by:
        return
    # No function of Python, because Ctrl-C could end it at its first line.
    work = functools.partial(call_to_the_end, save, _handle)
    if not _saved_by:
        atexit.register(work)
    _saved_by.add(os.getpid())
    # A child of multiprocessing runs multiprocessing's finalizers at its end, but no functions of atexit.
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, work, exitpriority=0)


def watch_signals(end: Callable[[int], None], start_thread: Callable[[], bool]) -> None:
    """Call ``end`` with the number of a signal that asks the program to end, unless the program handles it.

    ``end`` saves all stores and calls ``signal_wake.end_process()``. Python installs handlers in the main thread only.
    In another thread, this starts the background thread, which a C handler wakes, and which calls ``end``.
    ``start_thread`` returns whether there is such a thread; without one, the signals keep their default action.
    """
    global _on_signal
    numbers = [number for number in SIGNALS if _is_unhandled(number)]
    if not numbers:
        return
    _on_signal = end
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            _install(number)
    elif start_thread():
        for number in numbers:
            signal_wake.wake_on(number)


def _is_unhandled(number: int) -> bool:
    # A library in C may have installed a handler of which Python knows nothing.
    return signal.getsignal(number) == signal.SIG_DFL and signal_wake.has_default_action(number)


def _install(number: int) -> None:
    signal.signal(number, _handle)
    signal_resend.resend_until_handled(number)


def needs_thread() -> bool:
    """Return whether a signal wakes the background thread, which therefore must exist."""
    return any(signal_wake.wakes_on(number) for number in SIGNALS)


def watch_signals_in_child() -> None:
    """Watch the signals in a forked child. It inherits the handlers, but neither timers nor threads."""
    signal_wake.prepare()
    for number in SIGNALS:
        if signal.getsignal(number) is _handle:
            signal_resend.resend_until_handled(number)
    take_over()


def take_over() -> None:
    """Install Python's handlers, if this is the main thread. The signals then need the background thread no more."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal_wake.wakes_on(number):
                _install(number)


def is_default_or_own(number: int) -> bool:
    """Return whether the handler of a signal is Python's default or that of this package, and not the program's."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, _handle) and (
        signal.getsignal(number) is not signal.SIG_DFL or signal_wake.has_default_action(number))


def restore_handler(number: int, handler: Any) -> None:
    """Install a handler again that was replaced for a while. Stores may have been opened or closed meanwhile."""
    if handler is _handle:
        _install(number)
    else:
        signal.signal(number, handler)


def raise_arrived() -> None:
    """Handle a signal that came for the background thread when that did not exist."""
    number = signal_wake.arrived()
    if number:
        _handle(number, None)


def restore_signals() -> None:
    """Remove the handlers, because no store is open any more."""
    for number in SIGNALS:
        signal_wake.leave(number)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(number) is _handle:
            signal.signal(number, signal.SIG_DFL)


def _handle(number: int, frame: FrameType | None) -> None:
    signal_resend.stop(number)
    if _on_signal is not None:
        _on_signal(number)


def report(path: str, error: BaseException) -> None:
    """Print one line about a failed save to stderr, because no caller is left to catch the error."""
    print(f"tastypy_fast: not everything in {path} could be saved: {str(error) or repr(error)}", file=sys.stderr)
