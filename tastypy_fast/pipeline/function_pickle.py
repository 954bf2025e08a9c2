"""Pickle a function for a worker process: by reference, and by value where that fails and cloudpickle is installed."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from typing import Any

from tastypy_fast._optional import optional_import
from tastypy_fast.exceptions import UnsendableFunctionError

__all__ = ["pickle_for_worker"]


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
    # A worker imports the main module of the program. That of an interactive session has no file to import.
    main = sys.modules.get("__main__")
    if b"__main__" in data and getattr(main, "__spec__", None) is None and not hasattr(main, "__file__"):
        raise pickle.PicklingError("it is defined in an interactive session, which a worker cannot import")
    return data


def _name_unsendable(parts: Mapping[str, Any]) -> str:
    """Return a description of the first part that cannot be pickled by reference."""
    for title, part in parts.items():
        try:
            _by_reference(part)
        except Exception:
            name = getattr(part, "__qualname__", None) or repr(part)
            return f"{title} {name}"
    return " and ".join(parts)
