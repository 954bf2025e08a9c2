"""Iterators over a store, and lists of all that they would hand out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tastypy_fast._core.handles import PodHandle
from tastypy_fast._core.iterators import ITEMS, KEYS, VALUES, StoreIterator

__all__ = ["IterationMixin"]


class IterationMixin(PodHandle):
    """The part of a store that iterates. ``keys()`` and the like are lists, as they were in the original."""

    def iterkeys(self) -> Iterator[Any]:
        """Iterate over the keys in the order in which they were added.

        A loop is live: it comes to keys that are added while it runs, passes over those that are deleted
        before it gets there, and survives a sync and a revert. It reads in chunks of at most 512 keys.

        >>> pod = PersistentOrderedDict(path, init={"a": 2})
        >>> for key in pod.iterkeys():
        ...     if pod[key]:
        ...         pod[key + "b"] = pod[key] - 1
        >>> pod.keys()
        ['a', 'ab', 'abb']
        """
        return StoreIterator(self, KEYS)

    def itervalues(self) -> Iterator[Any]:
        """Iterate over the values in the order in which their keys were added; live, as ``iterkeys()``.

        A list or dict that it hands out is a copy, with all that was changed in the value by then. Unlike by keying, it
        is not watched: assign it to save what is changed in it.

        >>> list(PersistentOrderedDict(path, init={"a": 1, "b": 2}).itervalues())
        [1, 2]
        """
        return StoreIterator(self, VALUES)

    def iteritems(self) -> Iterator[tuple[Any, Any]]:
        """Iterate over pairs of key and value; live as ``iterkeys()``, the values copies as of ``itervalues()``.

        >>> list(PersistentOrderedDict(path, init={"a": 1, "b": 2}).iteritems())
        [('a', 1), ('b', 2)]
        """
        return StoreIterator(self, ITEMS)

    def __reversed__(self) -> Iterator[Any]:
        """Iterate over the keys backwards, the one added last first."""
        return StoreIterator(self, KEYS, True)

    def keys(self) -> list[Any]:
        """A list of the keys in the order in which they were added. Cost: all of them in memory.

        >>> PersistentOrderedDict(path, init={"b": 1, "a": 2}).keys()
        ['b', 'a']
        """
        return list(self.iterkeys())

    def values(self) -> list[Any]:
        """A list of the values in the order in which their keys were added, copies as of ``itervalues()``.

        Cost: all of them in memory.

        >>> PersistentOrderedDict(path, init={"b": 1, "a": 2}).values()
        [1, 2]
        """
        return list(self.itervalues())

    def items(self) -> list[tuple[Any, Any]]:
        """A list of the pairs of key and value, in order, the values copies as of ``itervalues()``.

        Cost: all of them in memory.

        >>> PersistentOrderedDict(path, init={"b": 1, "a": 2}).items()
        [('b', 1), ('a', 2)]
        """
        return list(self.iteritems())
