"""Iterate over a store, and return what the iterators yield as a list or a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, overload

from tastypy_fast._core.iterators import ITEMS, KEYS, VALUES
from tastypy_fast._type_parameters import K, T, V
from tastypy_fast.types import StoreIterator

__all__ = ["IterationMixin"]

U = TypeVar("U")


class IterationMixin(Generic[K, V]):
    """The part of a store that iterates. ``keys()``, ``values()`` and ``items()`` return lists, as in the original.

    A handle has ``_iterate(kind, backwards=False)``, ``_list(kind)``, which returns a list of the same items, and
    ``_get_many(keys)``.
    """

    _iterate: Callable[..., StoreIterator[Any]]
    _list: Callable[[int], list[Any]]
    _get_many: Callable[[Iterable[Any]], Iterator[Any]]

    def iterkeys(self) -> StoreIterator[K]:
        """Iterate over the keys in the order in which they were added.

        The iterator is live. It also yields keys that are added while it runs, and skips keys that are deleted before
        it reaches them. It continues after a sync and a revert. No transaction stays open between two steps.

        Returns:
            An iterator.

        Cost:
            O(n). It reads in chunks of at most 512 keys. The first key costs O(log n), however many keys were deleted
            before it. At its end the iterator lets go of the store, as the iterator of a dict does.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": 2})
            >>> for key in pod.iterkeys():
            ...     if pod[key]:
            ...         pod[key + "b"] = pod[key] - 1
            >>> pod.keys()
            ['a', 'ab', 'abb']
        """
        return self._iterate(KEYS)

    def itervalues(self) -> StoreIterator[V]:
        """Iterate over the values in the order in which their keys were added. Live, as ``iterkeys()``.

        Lists and dicts are copies, which are not watched. To save a change, assign the value, or use ``.set``.

        Returns:
            An iterator.

        Cost:
            O(n). It reads in chunks of at most 512 values, and about 1 MB.

        Example:
            >>> list(PersistentOrderedDict(path, init={"a": 1, "b": 2}).itervalues())
            [1, 2]
        """
        return self._iterate(VALUES)

    def iteritems(self) -> StoreIterator[tuple[K, V]]:
        """Iterate over pairs of key and value. Live, as ``iterkeys()``; the values are copies, as in ``itervalues()``.

        Returns:
            An iterator.

        Cost:
            O(n). It reads in chunks of at most 512 pairs, and about 1 MB.

        Example:
            >>> list(PersistentOrderedDict(path, init={"a": 1, "b": 2}).iteritems())
            [('a', 1), ('b', 2)]
        """
        return self._iterate(ITEMS)

    def get_many(self, keys: Iterable[K]) -> Iterator[tuple[K, V]]:
        """Look up many keys, and iterate over pairs of key and value, in the order of ``keys``.

        Keys that do not exist are left out. A key that is given twice is yielded twice. Lists and dicts are copies,
        which are not watched, and each pair has its own. To save a change, assign the value, or use ``.set``.

        A thousand keys are looked up at a time, each thousand in one snapshot. Changes that are not synced yet are in
        it. A change that is made during the loop is seen from the next thousand on. ``keys`` is read a thousand keys
        at a time, too, and may use the store. If it raises an exception, the pairs before are yielded first.

        Args:
            keys: The keys, for example a list, a generator, a dict or another store. An integer of numpy is yielded as
                an ``int``.

        Returns:
            An iterator.

        Raises:
            InvalidKeyError: A key is an unhashable object or a path. The iterator raises it, after the pairs before it.

        Cost:
            Two lookups for each key, O(log n), as for ``get()``. They take less time, because they are made in the
            order of the index. Memory holds the JSON of a thousand values, or of fewer that have about 64 MB.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": 1, "b": 2, "c": 3})
            >>> list(pod.get_many(["c", "x", "a"]))
            [('c', 3), ('a', 1)]
            >>> dict(pod.get_many(key for key in pod if key > "a"))
            {'b': 2, 'c': 3}
        """
        return self._get_many(keys)

    def __reversed__(self) -> StoreIterator[K]:
        """Iterate over the keys backwards, from the key that was added last. Live as ``iterkeys()``, at its cost."""
        return self._iterate(KEYS, True)

    def keys(self) -> list[K]:
        """Return a list of the keys in the order in which they were added.

        A shared store reads the whole list from one snapshot.

        Returns:
            The keys.

        Cost:
            O(n) time and memory. ``iterkeys()`` holds only a chunk.

        Example:
            >>> PersistentOrderedDict(path, init={"b": 1, "a": 2}).keys()
            ['b', 'a']
        """
        return self._list(KEYS)

    def values(self) -> list[V]:
        """Return a list of the values in the order in which their keys were added. Copies, as in ``itervalues()``.

        A shared store reads the whole list from one snapshot.

        Returns:
            The values.

        Cost:
            O(n) time and memory. ``itervalues()`` holds only a chunk.

        Example:
            >>> PersistentOrderedDict(path, init={"b": 1, "a": 2}).values()
            [1, 2]
        """
        return self._list(VALUES)

    def items(self) -> list[tuple[K, V]]:
        """Return a list of the pairs of key and value, in order. The values are copies, as in ``itervalues()``.

        A shared store reads the whole list from one snapshot.

        Returns:
            The pairs.

        Cost:
            O(n) time and memory. ``iteritems()`` holds only a chunk.

        Example:
            >>> PersistentOrderedDict(path, init={"b": 1, "a": 2}).items()
            [('b', 1), ('a', 2)]
        """
        return self._list(ITEMS)

    def copy(self) -> dict[K, V]:
        """Return a dict with all pairs, in order. The values are copies, as in ``itervalues()``.

        ``store | mapping`` and ``mapping | store`` are dicts, too. ``maintenance.copy()`` copies a store on disk. A
        shared store reads the whole dict from one snapshot.

        Returns:
            The dict.

        Cost:
            O(n) time and memory.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"b": 1, "a": 2})
            >>> pod.copy()
            {'b': 1, 'a': 2}
            >>> pod | {"a": 3}, {"c": 4} | pod
            ({'b': 1, 'a': 3}, {'c': 4, 'b': 1, 'a': 2})
        """
        return dict(self._list(ITEMS))

    @overload
    def __or__(self, other: Mapping[K, V], /) -> dict[K, V]: ...
    @overload
    def __or__(self, other: Mapping[T, U], /) -> dict[K | T, V | U]: ...
    def __or__(self, other: Mapping[Any, Any], /) -> dict[Any, Any]:
        """Return a dict with the pairs of both. Cost: O(n) time and memory."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**self.copy(), **dict(other.items())}

    @overload
    def __ror__(self, other: Mapping[K, V], /) -> dict[K, V]: ...
    @overload
    def __ror__(self, other: Mapping[T, U], /) -> dict[K | T, V | U]: ...
    def __ror__(self, other: Mapping[Any, Any], /) -> dict[Any, Any]:
        """Return a dict with the pairs of both. Cost: O(n) time and memory."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**dict(other.items()), **self.copy()}
