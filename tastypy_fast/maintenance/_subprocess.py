"""Run work in a subprocess, because LMDB trusts the file that it maps into memory and may crash on a damaged one.

A subprocess also protects the caller's locks. If the caller has the store open and closes any other descriptor of its
files, it loses LMDB's fcntl locks. LMDB also cannot open a file twice in one process.
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
# The signals of a crash on unexpected data. Any other signal was sent by a process.
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)


class SubprocessDied(Exception):
    """The subprocess ended before its work was done. ``crashed`` says that its own fault ended it."""

    def __init__(self, status: int, text: str) -> None:
        self.crashed = -status in _CRASHES
        name = signal.Signals(-status).name if -status in list(signal.Signals) else f"status {status}"
        super().__init__(f"{name}: {text}" if text else name)


def run_in_subprocess(work: Callable[..., Iterator[T]], *arguments: object) -> Generator[T, None, None]:
    """Run the generator function ``work`` in a subprocess. Yields the same values, and raises the same errors.

    The subprocess ends when the caller's process ends or this generator is closed. Raises SubprocessDied if it ends
    before that. ``work`` must be importable from its module, because it is pickled.
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
    """Do the work, in the subprocess."""
    # Ignore Ctrl-C, because it reaches both processes, and the caller handles it.
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
    # Nothing more is written to this pipe, so read() returns when the caller has closed it or has ended.
    os.read(0, 1)
    os._exit(1)
