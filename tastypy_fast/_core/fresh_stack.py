"""Run a recursive function in a thread of its own, because the caller's stack may have little room left.

Python limits the depth of all calls of a thread together. Without this, a value that a program can store could not be
exported, synced or read from a function that is called some levels deeper.
"""

from __future__ import annotations

import _thread
import sys
from collections.abc import Callable
from typing import TypeVar

__all__ = ["on_fresh_stack"]

T = TypeVar("T")
# Python's limit of recursion, with which any value that can be stored fits on a fresh stack.
DEFAULT_LIMIT = 1000
# The threads that have a fresh stack.
_fresh: set[int] = set()


def on_fresh_stack(function: Callable[..., T], *arguments: object) -> T:
    """Call a function in a new thread, and wait for its end.

    Raises RecursionError if it needs more room than a new thread has, and if no thread can be started.
    """
    if _thread.get_ident() in _fresh:
        # Another stack would have as little room.
        raise RecursionError("the value is nested too deeply")
    results: list[T] = []
    errors: list[BaseException] = []
    running = _thread.allocate_lock()

    def call() -> None:
        _fresh.add(_thread.get_ident())
        try:
            results.append(function(*arguments))
        except BaseException as error:
            errors.append(error)
        finally:
            _fresh.discard(_thread.get_ident())
            running.release()

    running.acquire()
    try:
        # The frames of a threading.Thread would leave less room than a program has in its main module.
        _thread.start_new_thread(call, ())
    except RuntimeError as error:
        raise RecursionError(f"the stack has too little room for a nested value, and a thread for it cannot be started "
                             f"({error})") from error
    with running:
        limit = sys.getrecursionlimit()
        if errors and isinstance(errors[0], RecursionError) and limit < DEFAULT_LIMIT:
            raise RecursionError(f"the recursion limit of Python is {limit}, which is too low for a value that is "
                                 f"nested this deeply; call sys.setrecursionlimit({DEFAULT_LIMIT}), the default")
        if errors:
            raise errors[0]
        return results[0]
