"""Work in a process of its own, which the storage engine may end: it trusts the file that it maps into memory.

It also keeps the caller's locks. Whoever has a store open loses the engine's locks on it when any descriptor of its
files is closed in the same process (fcntl's locks are like that), and cannot open it by the engine a second time.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

__all__ = ["SubprocessDied", "run_in_subprocess", "serve"]

T = TypeVar("T")

_PROGRAM = "import sys; sys.path[:] = {path!r}; from tastypy_fast.maintenance._subprocess import serve; serve()"
# What comes of a file that the engine did not expect. (Other signals are somebody's will.)
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)


class SubprocessDied(Exception):
    """The process has ended before its work was done. ``crashed``: by a fault of its own."""

    def __init__(self, status: int, text: str) -> None:
        self.crashed = -status in _CRASHES
        name = signal.Signals(-status).name if -status in list(signal.Signals) else f"status {status}"
        super().__init__(f"{name}: {text}" if text else name)


def run_in_subprocess(work: Callable[..., Iterator[T]], *arguments: object) -> Generator[T, None, None]:
    """What ``work(*arguments)``, a generator of some module, yields in a process of its own; and what it raises.

    The process ends with the caller's, and when this generator is closed. Raises Ended where it ends by itself.
    """
    command = [sys.executable, "-I", "-c", _PROGRAM.format(path=sys.path)]
    with tempfile.TemporaryFile() as errors, \
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            try:
                pickle.dump((work, arguments), child.stdin)
                child.stdin.flush()
                while True:
                    what, value = pickle.load(child.stdout)
                    if what == "end":
                        return
                    if what == "error":
                        raise value
                    yield value
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                status = child.wait()
                errors.seek(0)
                lines = errors.read().decode("utf-8", "replace").strip().splitlines()
                raise SubprocessDied(status, lines[-1] if lines else "") from None
        finally:
            child.kill()


def serve() -> None:
    """What the other process does."""
    # The caller decides what an interrupt means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    work, arguments = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_caller, daemon=True).start()
    try:
        for value in work(*arguments):
            _answer(answers, "value", value)
        _answer(answers, "end", None)
    except Exception as error:
        _answer(answers, "error", error)


def _answer(answers: Any, what: str, value: object) -> None:
    pickle.dump((what, value), answers)
    answers.flush()


def _end_with_caller() -> None:
    # (nothing more is written to it: this returns when the caller has closed it, or is gone)
    os.read(0, 1)
    os._exit(1)
