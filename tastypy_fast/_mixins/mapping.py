"""Change a store as a dict is changed: the steps that one key or all keys take, on a private handle.

A private class runs them under its lock, a shared one inside a write transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from tastypy_fast._core.handles import PodHandle, TrackerHandle
from tastypy_fast._core.iterators import KEYS
from tastypy_fast._core.key_codec import describe
from tastypy_fast.exceptions import UnstorableValueError

__all__ = ["NOT_GIVEN", "delete_all", "equals", "merge_tasks", "pop", "pop_item", "set_default"]


class NotGiven:
    """The default of an argument that may be left out; ``help()`` shows it as ``...``."""

    def __repr__(self) -> str:
        return "..."


NOT_GIVEN: Final[Any] = NotGiven()


def set_default(handle: PodHandle[Any, Any], key: Any, default: Any) -> Any:
    """Return the value of a key, which is set to ``default`` first if it is not there."""
    if key not in handle:
        handle[key] = default
    return handle[key]


def pop(handle: PodHandle[Any, Any], key: Any, default: Any) -> Any:
    """Delete a key and return its value, or ``default`` if the key is not there and that was given."""
    try:
        value = handle[key]
    except KeyError:
        if default is NOT_GIVEN:
            raise
        return default
    del handle[key]
    return value


def pop_item(handle: PodHandle[Any, Any], last: bool, name: str) -> tuple[Any, Any]:
    """Remove the first or the last pair, and return it; ``name`` is that of the class, for the error."""
    if not isinstance(last, bool):
        raise TypeError(f"last must be True or False, not {last!r}")
    for key in handle._iterate(KEYS, last):
        return key, pop(handle, key, NOT_GIVEN)
    raise KeyError(f"{name} is empty")


def delete_all(handle: PodHandle[Any, Any]) -> None:
    """Delete every key."""
    for key in handle:
        del handle[key]


def equals(handle: Any, other: Mapping[Any, Any], pairs: Callable[[], Iterable[tuple[Any, Any]]]) -> bool:
    """Whether a mapping has the same pairs as a store, in any order."""
    if len(handle) != len(other):
        return False
    return all(other.get(key, NOT_GIVEN) == value for key, value in pairs())


def merge_tasks(handle: TrackerHandle[Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    """Mix dicts into tasks, which are added if they are not there."""
    for key, value in pairs:
        if not isinstance(value, dict):
            raise UnstorableValueError(
                f"update() of a tracker mixes dicts into tasks; key {describe(key)} comes with a "
                f"{type(value).__name__}"
            )
        handle._merge(key, dict(value))
