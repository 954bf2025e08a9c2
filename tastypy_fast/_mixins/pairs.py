"""Iterate over the arguments of ``update()`` and ``init``: mappings of several kinds, and iterables of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["pairs_of"]


def pairs_of(source: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over the key-value pairs of a mapping or of an iterable of pairs.

    A mapping has ``iteritems()``, ``items()`` or ``keys()``.
    """
    if hasattr(source, "iteritems"):
        return iter(source.iteritems())
    if hasattr(source, "items"):
        return iter(source.items())
    if hasattr(source, "keys"):
        return ((key, source[key]) for key in source.keys())  # noqa: SIM118
    return _checked(source)


def _checked(source: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    for number, pair in enumerate(source):
        try:
            key, value = pair
        except (TypeError, ValueError) as error:
            raise type(error)(f"element {number} is not a pair of key and value: {pair!r:.80}") from None
        yield key, value
