"""Pickle the function of a run, and calls of it, for workers that have neither this package nor the program's modules.

A call is ``pickle.loads(bytes)``, which is a function of the standard library: unpickling the bytes *is* the call. So
neither a scheduler nor a pool that pickles by reference imports anything of this package or of the program.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
from collections.abc import Iterator
from typing import Any

from tastypy_fast._optional import optional_import
from tastypy_fast.exceptions import UnsendableFunctionError
from tastypy_fast.pipeline import remote_worker, supervised_child, worker
from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.remote_worker import RemoteSetup

__all__ = ["RemoteFunction"]

# The pickle of the function goes along with each chunk if it has at most this number of bytes. A larger one is sent to
# workers that ask for it.
SMALL = 1 << 16

# What a worker evaluates. This is source text because the byte code of another version of Python may crash the worker.
# The worker returns its version if it differs.
_ENTRY = ("__import__('pickle').loads(entry)(*arguments) if __import__('sys').version_info[:2] == version "
          "else __import__('platform').python_version()")


class _Call:
    """A call that takes place when its pickle is loaded."""

    def __init__(self, **names: Any) -> None:
        self._names = names

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (_ENTRY, self._names)


class RemoteFunction:
    """The pickle of a function.

    ``digest`` is its name in workers. ``reason`` says why the program's modules are not sent by value; None if they
    are.

    Raises:
        UnsendableFunctionError: The function cannot be pickled, or cloudpickle is not installed.
    """

    def __init__(self, setup: RemoteSetup) -> None:
        try:
            cloudpickle = optional_import("cloudpickle", "run", "an executor of another package")
        except ImportError as error:
            raise UnsendableFunctionError(f"the function cannot be sent to a worker: {error}") from error
        ours = [worker, supervised_child, remote_worker]
        self.reason: str | None = None
        try:
            with _by_value(cloudpickle, [*ours, *_program_modules()]):
                self._payload = cloudpickle.dumps(setup, 5)
        except Exception as error:
            self.reason = f"{type(error).__name__}: {error}"
            try:
                # Perhaps the workers can import the program's modules.
                with _by_value(cloudpickle, ours):
                    self._payload = cloudpickle.dumps(setup, 5)
            except Exception:
                raise UnsendableFunctionError(
                    f"the function cannot be sent to a worker: {self.reason}. Open files, locks and connections "
                    f"inside of it") from error
        with _by_value(cloudpickle, ours):
            self._entry = cloudpickle.dumps(remote_worker.enter, 5)
        self.digest = hashlib.sha256(self._payload).hexdigest()

    def pickle_call(self, tasks: list[Task], with_payload: bool) -> bytes:
        """Return the bytes whose unpickling runs a chunk. See ``remote_worker.enter()`` for what it returns."""
        payload = self._payload if with_payload or len(self._payload) <= SMALL else None
        return pickle.dumps(_Call(
            version=sys.version_info[:2], entry=self._entry,
            arguments=(self.digest, payload, [(task.key, task.tries, task.data) for task in tasks])), 5)


@contextlib.contextmanager
def _by_value(cloudpickle: Any, modules: list[Any]) -> Iterator[None]:
    """Let cloudpickle send modules by value."""
    registered = cloudpickle.list_registry_pickle_by_value()
    added = [module for module in modules if module.__name__ not in registered]
    for module in added:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)


def _program_modules() -> list[Any]:
    """Return the top-level modules that workers may not have, because they are not installed."""
    found = []
    for name, module in list(sys.modules.items()):
        if ("." in name or name in ("__main__", "tastypy_fast") or name in sys.stdlib_module_names
                or getattr(module, "__name__", None) != name):
            continue
        # A namespace package has no file.
        place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
        if not place.endswith((".so", ".pyd")) and not {"site-packages", "dist-packages"} & set(place.split(os.sep)):
            found.append(module)
    return found
