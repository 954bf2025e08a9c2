"""Pickle a function for a worker process: by reference, and by value where that fails and cloudpickle is installed."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tastypy_fast._optional import optional_import
from tastypy_fast.exceptions import UnsendableFunctionError

__all__ = ["main_as_workers_see_it", "pickle_for_worker"]


def pickle_for_worker(value: Any, parts: Mapping[str, Any]) -> bytes:
    """Return the pickle of ``value``. ``parts`` are what it consists of, by the names that an error message uses.

    Raises:
        UnsendableFunctionError: A part can be pickled neither by reference nor by value.
    """
    try:
        return _by_reference(value)
    except Exception as error:
        reason = error
    try:
        cloudpickle = optional_import("cloudpickle", "run", "the worker processes")
    except ImportError:
        advice = ("Define it at the top level of a module. Or install cloudpickle, which sends it by value: "
                  "pip install 'tastypy_fast[run]'")
    else:
        try:
            return bytes(cloudpickle.dumps(value, 5))
        except Exception as error:
            reason = error
        advice = "Open files, locks and connections inside of it, or in the initializer"
    raise UnsendableFunctionError(
        f"{_name_unsendable(parts)} cannot be sent to a worker process: {type(reason).__name__}: {reason}. {advice}"
    ) from reason


def _by_reference(value: Any) -> bytes:
    data = pickle.dumps(value, 5)
    if b"__main__" in data and not _can_import_main():
        raise pickle.PicklingError("it is defined in the main module, which a worker cannot import")
    return data


def _can_import_main() -> bool:
    """Return whether multiprocessing imports the main module of the program in a worker.

    It does not import that of an interactive session, of ``python -c``, of a folder or a zip file, and of a package,
    and fails with that of a program that was read from the standard input.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name: str = spec.name
        return name.rpartition(".")[2] != "__main__"
    file = getattr(main, "__file__", None)
    return isinstance(file, str) and os.path.exists(file)


@contextlib.contextmanager
def main_as_workers_see_it() -> Iterator[None]:
    """Hide the file name of a main module that has no file while a worker starts.

    The name of a program that was read from the standard input is "<stdin>", and multiprocessing would try to run it.
    """
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is not None or not isinstance(file, str) or os.path.exists(file):
        yield
        return
    del main.__file__  # type: ignore[union-attr]
    try:
        yield
    finally:
        main.__file__ = file  # type: ignore[union-attr]


def _name_unsendable(parts: Mapping[str, Any]) -> str:
    """Return a description of the first part that cannot be pickled by reference."""
    for title, part in parts.items():
        try:
            _by_reference(part)
        except Exception:
            name = getattr(part, "__qualname__", None) or repr(part)
            return f"{title} {name}"
    return " and ".join(parts)
