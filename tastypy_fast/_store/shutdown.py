"""Save unsynced changes before the process ends: exit hooks and the handler of SIGTERM.

SIGINT needs no handler, because Python turns it into an exception, which ends in an ordinary exit.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from tastypy_fast._core import signal_resend

__all__ = ["report", "reraise_sigterm", "restore_sigterm", "save_at_exit", "watch_sigterm", "watch_sigterm_in_child"]

_saved_by: set[int] = set()
_on_sigterm: Callable[[], None] | None = None


def save_at_exit(save: Callable[[], None]) -> None:
    """Call ``save`` once when this process exits, even if this function is called several times."""
    if os.getpid() in _saved_by:
        return
    if not _saved_by:
        atexit.register(save)
    _saved_by.add(os.getpid())
    # A child of multiprocessing runs multiprocessing's finalizers at its end, but no functions of atexit.
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, save, exitpriority=0)


def watch_sigterm(end: Callable[[], None]) -> None:
    """Call ``end`` on SIGTERM, unless the program handles SIGTERM.

    ``end`` saves all stores and calls ``reraise_sigterm()``.
    """
    global _on_sigterm
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        _on_sigterm = end
        signal.signal(signal.SIGTERM, _handle)
        signal_resend.resend_until_handled(signal.SIGTERM)


def watch_sigterm_in_child() -> None:
    """Resend SIGTERM in a forked child, which inherits the handler, but not the timer that resends the signal."""
    if signal.getsignal(signal.SIGTERM) is _handle:
        signal_resend.resend_until_handled(signal.SIGTERM)


def restore_sigterm() -> None:
    """Remove the handler of SIGTERM, because no store is open any more."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _handle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _handle(number: int, frame: FrameType | None) -> None:
    signal_resend.stop()
    if _on_sigterm is not None:
        _on_sigterm()


def reraise_sigterm() -> None:
    """End the process by SIGTERM, so that its exit status is that of the signal."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def report(path: str, error: BaseException) -> None:
    """Print one line about a failed save to stderr, because no caller is left to catch the error."""
    print(f"tastypy_fast: not everything in {path} could be saved: {str(error) or repr(error)}", file=sys.stderr)
