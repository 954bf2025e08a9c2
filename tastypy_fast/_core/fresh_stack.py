"""Run a recursive function in a thread of its own, because the caller's stack may have little room left.

Python limits the depth of all calls of a thread together. Without this, a value that a program can store could not be
exported, synced or read from a function that is called some levels deeper.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable
from typing import TypeVar

__all__ = ["on_fresh_stack"]

T = TypeVar("T")


def on_fresh_stack(function: Callable[..., T], *arguments: object) -> T:
    """Call a function in a new thread, and wait for its end. Raises RecursionError also if no thread can be started."""
    results: list[T] = []
    errors: list[BaseException] = []
    running = _thread.allocate_lock()

    def call() -> None:
        try:
            results.append(function(*arguments))
        except BaseException as error:
            errors.append(error)
        finally:
            running.release()

    running.acquire()
    try:
        # The frames of a threading.Thread would leave less room than a program has in its main module.
        _thread.start_new_thread(call, ())
    except RuntimeError as error:
        raise RecursionError(f"the stack has too little room, and {error}") from error
    with running:
        if errors:
            raise errors[0]
        return results[0]
