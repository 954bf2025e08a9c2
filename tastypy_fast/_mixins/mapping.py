"""Change a store as a dict is changed: compound operations on a private handle, or on an instance of any class.

A private class runs them under its lock. A shared class runs them inside a write transaction. They assign with
``handle[key] = value``, which may be the ``__setitem__`` of a subclass. They read with ``_get()``, because the
``__getitem__`` of a subclass may return something else than the stored value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from tastypy_fast._core.iterators import KEYS
from tastypy_fast._core.key_codec import describe
from tastypy_fast.exceptions import UnstorableValueError

__all__ = ["NOT_GIVEN", "delete_all", "equals", "merge_tasks", "pop", "pop_item", "set_default"]


class NotGiven:
    """The default of an optional argument, which ``help()`` shows as ``...``."""

    def __repr__(self) -> str:
        return "..."


NOT_GIVEN: Final[Any] = NotGiven()


def set_default(handle: Any, key: Any, default: Any) -> Any:
    """Return the value of a key, and set it to ``default`` first if the key does not exist."""
    value = handle._get(key, NOT_GIVEN)
    if value is NOT_GIVEN:
        handle[key] = default
        value = handle._get(key, default)
    return value


def pop(handle: Any, key: Any, default: Any) -> Any:
    """Delete a key and return its value. Return ``default``, if it was given, for a missing key."""
    value = handle._get(key, NOT_GIVEN)
    if value is NOT_GIVEN:
        if default is NOT_GIVEN:
            raise KeyError(key)
        return default
    del handle[key]
    return value


def pop_item(handle: Any, last: bool, name: str) -> tuple[Any, Any]:
    """Remove the first or the last pair, and return it. ``name`` is the name of the class, for the error."""
    if not isinstance(last, bool):
        raise TypeError(f"last must be True or False, not {last!r}")
    for key in handle._iterate(KEYS, last):
        return key, pop(handle, key, NOT_GIVEN)
    raise KeyError(f"{name} is empty")


def delete_all(handle: Any) -> None:
    """Delete every key."""
    for key in handle:
        del handle[key]


def equals(handle: Any, other: Mapping[Any, Any], pairs: Callable[[], Iterable[tuple[Any, Any]]]) -> bool:
    """Return whether a mapping has the same pairs as a store, in any order."""
    if len(handle) != len(other):
        return False
    return all(other.get(key, NOT_GIVEN) == value for key, value in pairs())


def merge_tasks(handle: Any, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Apply ``dict.update()`` to tasks. Missing tasks are added."""
    for key, value in pairs:
        if not isinstance(value, dict):
            raise UnstorableValueError(
                f"update() of a tracker needs a dict for each task, but key {describe(key)} has a "
                f"{type(value).__name__}"
            )
        if handle._assigns_itself:
            handle[key] = {**handle._get(key, {}), **value}
        else:
            handle._merge(key, dict(value))
