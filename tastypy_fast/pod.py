"""Define ``PersistentOrderedDict``, a dict on disk that keeps the order in which keys were added."""

from __future__ import annotations

import builtins
import os
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar, TypeVar, overload

from tastypy_fast._core.handles import PodHandle
from tastypy_fast._core.key_codec import lookup_key
from tastypy_fast._core.write_cache import WriteCache
from tastypy_fast._mixins import mapping
from tastypy_fast._mixins.display import DisplayMixin
from tastypy_fast._mixins.import_export import ImportExportMixin
from tastypy_fast._mixins.iteration import IterationMixin
from tastypy_fast._mixins.lifecycle import LifecycleMixin
from tastypy_fast._mixins.mapping import NOT_GIVEN
from tastypy_fast._mixins.pairs import pairs_of
from tastypy_fast._store.options import Options, at_least, seconds_or_none
from tastypy_fast._store.store import Store
from tastypy_fast._type_parameters import K, T, V
from tastypy_fast.types import Durability, Mode, Pairs

__all__ = ["DEFAULT_FILE_SIZE", "DEFAULT_SYNC_AT", "DEFAULT_SYNC_EVERY", "POD", "PersistentOrderedDict"]

DEFAULT_FILE_SIZE = 1000
DEFAULT_SYNC_AT = 1000
DEFAULT_SYNC_EVERY = 1.0

Self = TypeVar("Self", bound="PersistentOrderedDict[Any, Any]")


class PersistentOrderedDict(  # type: ignore[misc]  # keys() and its like return lists
    LifecycleMixin, DisplayMixin, IterationMixin[K, V], ImportExportMixin, PodHandle[K, V], MutableMapping[K, V]
):
    """A dict that keeps itself on disk, in the order in which its keys were added.

    Keys are ``str``, ``int`` and tuples of these. Values are JSON: all values that ``json.dumps`` accepts, and numpy's
    numbers and arrays. An assignment stores the value in its current state. A list or dict that ``pod[key]`` returned
    is watched, and the next sync saves changes inside it. With ``mode="r"``, and in a forked child, it is a copy.

    Instances on one path in one process share one cache in memory. The type parameters are those of a dict:
    ``PersistentOrderedDict[str, list[int]](path)``.

    Args:
        path: The folder of the store, which is created if it does not exist. ``~`` at its start is the home folder.
        init: A mapping or an iterable of pairs, which is assigned as by ``update(init)``.
        gzipped: Whether values are stored compressed if that makes them smaller.
        file_size: The number of lines in each file that ``export_json()`` writes.
        sync_at: The number of dirty keys at which the store syncs automatically.
        clone: Whether this instance shares the cache of the others on the path. False gives it its own cache.
        mode: ``"w"`` to read and write, ``"r"`` to read only. A reader may be open while another process writes, and
            sees the last sync of that process. It can be pickled: the other side opens the path with ``mode="r"``.
        durability: Which synced changes a power cut can undo: none (``"full"``, ``"process"``), or the last automatic
            sync (``"normal"``). With ``"unsafe"`` it can damage the store. A killed process loses no synced changes.
        sync_every: The seconds after which a change is synced by a background thread, also while the program computes.
            None leaves syncing to ``sync_at``, ``sync()`` and ``close()``. The smallest value of all instances that
            share memory counts.

    Raises:
        StoreInUseError: Another process has the store open for writing.
        StorePathError: There cannot be a folder at the path.
        NotAStoreError: The folder contains other files.
        StoreNotFoundError: There is no store to read (``mode="r"``).
        StoreKindError: The store is a tracker.
        StoreConflictError: This process has the store open with other options.
        NewerFormatError: A later version has written the store.
        PersistentOrderedDictIntegrityError: The files are damaged.
        TypeError: An argument has a wrong type.
        ValueError: An argument has a wrong value.

    Cost:
        Opening is O(1). Assigning does not touch the disk; each sync is one commit. Reading a key that is not in memory
        takes two lookups in the memory-mapped file, O(log n). Memory holds only the changes since the last sync.

    Example:
        >>> pod = PersistentOrderedDict(path)
        >>> pod["b"] = [1]
        >>> pod["a"] = {"x": None}
        >>> pod["b"].append(2)
        >>> pod.close()
        >>> with PersistentOrderedDict(path) as pod:
        ...     print(pod.items())
        [('b', [1, 2]), ('a', {'x': None})]
    """

    _kind: ClassVar[bytes] = b"dict"
    _max_tries = 0
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        path: str | os.PathLike[str],
        init: Pairs = {},
        gzipped: bool = False,
        file_size: int = DEFAULT_FILE_SIZE,
        sync_at: int = DEFAULT_SYNC_AT,
        clone: bool = True,
        *,
        mode: Mode = "w",
        durability: Durability = "normal",
        sync_every: float | None = DEFAULT_SYNC_EVERY,
    ) -> None:
        options = Options(self._kind, mode, durability, gzipped, file_size)
        sync_at = at_least("sync_at", sync_at, 1)
        seconds = seconds_or_none("sync_every", sync_every)
        self._acquire(path, options, Store, self._make_cache, clone)
        self._attach(self._cache, sync_at, self._max_tries, seconds)
        try:
            self.update(init)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _make_cache(store: Store) -> WriteCache:
        return WriteCache(store)

    def _arguments(self) -> dict[str, Any]:
        return {"gzipped": self.gzipped, "file_size": self.file_size, "mode": self.mode, "durability": self.durability}

    def __reduce__(self) -> tuple[Any, ...]:
        if self.mode == "r":
            return self._by_path(self._arguments())
        raise TypeError(
            f"a {type(self).__name__} that is open to write is private to its process and cannot be pickled; "
            f"pass its path, open it with mode='r', or use the shared class of the same name if several processes "
            f"write. copy() returns a dict"
        )

    def close(self) -> None:
        """Sync, and close the store. The last instance on the path closes the files.

        Any later use raises CalledClosedTrackerError. Closing again does nothing.

        Raises:
            DiskFullError: The sync fails. The store stays open, with the unsaved changes in memory.
            UnstorableValueError: A value was changed to something that JSON cannot hold. The store stays open.

        Cost:
            That of ``sync()``. The data is on disk when it returns.

        Example:
            >>> pod = PersistentOrderedDict(path)
            >>> pod.close()
            >>> pod["a"]
            Traceback (most recent call last):
            tastypy_fast.exceptions.CalledClosedTrackerError: this store was closed; open it again to use it
        """
        if not self._finalizer.alive:
            return
        # The cache is closed already if an earlier call was interrupted. This one completes it.
        if not self._cache.closed:
            self._cache.sync(True)
        self._let_go()

    # Saving

    def sync(self) -> None:
        """Write every dirty value to disk, and set the restore point of ``revert()``.

        The data is on disk when it returns, at any durability.

        Raises:
            DiskFullError: Nothing was written, and everything is still in memory.
            UnstorableValueError: A value was changed to something that JSON cannot hold. All others are saved.

        Cost:
            O(d), where d keys were assigned or watched since the last sync, and one flushed commit.

        Example:
            >>> pod = PersistentOrderedDict(path)
            >>> pod["a"] = 1
            >>> pod.sync()
            >>> pod.dirty()
            set()
        """
        self._open_cache.sync(True)

    def sync_key(self, key: K) -> None:
        """Write the value of one key, or its deletion, and nothing else. It is on disk when this returns.

        Args:
            key: The key.

        Raises:
            KeyError: The key does not exist, and was not deleted since the last sync.
            DiskFullError: Nothing was written.

        Cost:
            One flushed commit.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": 1, "b": 2})
            >>> pod.sync_key("a")
            >>> pod.dirty()
            {'b'}
        """
        self._open_cache.sync_one(lookup_key(key), key)

    def mark_dirty(self, key: K) -> None:
        """Mark a key dirty, so that the next sync writes its value even if it is unchanged.

        ``iteritems()`` yields copies. If the copy of this key was changed in the loop, this saves it. If the object
        that ``pod[key]`` returned was also changed, the copy replaces it, as an assignment does. A copy is not saved if
        it was not changed, or if its key was assigned after the iterator yielded it. It is also not saved if its value
        was saved with other changes since. Copies in the lists of ``items()`` and ``values()`` are never saved.

        Args:
            key: The key.

        Raises:
            KeyError: The key does not exist.

        Cost:
            One lookup in the index.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": [1], "b": [2]})
            >>> pod.sync()
            >>> for key, value in pod.iteritems():
            ...     value.append(0)
            ...     pod.mark_dirty(key)
            >>> pod.values()
            [[1, 0], [2, 0]]
        """
        self._open_cache.mark(lookup_key(key), key, self._threshold)

    def dirty(self) -> builtins.set[K]:
        """Return the keys that a sync would write.

        A key is dirty if its value, its existence or its status differs between memory and disk.

        Returns:
            The keys, as a set.

        Cost:
            O(d): it encodes each of the d values that ``pod[key]`` returned since the last sync.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": [], "b": []})
            >>> pod.sync()
            >>> pod["a"].append(1)
            >>> pod["b"]
            []
            >>> pod.dirty()
            {'a'}
        """
        return builtins.set(self._open_cache.dirty_keys())

    def revert(self) -> None:
        """Drop every change since the last sync, including changes of other instances that share the cache.

        Values that were read before are no longer watched, because their changes were dropped. Read them again.

        Cost:
            O(1).

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": 1})
            >>> pod.sync()
            >>> pod["a"] = 2
            >>> pod.revert()
            >>> pod["a"]
            1
        """
        self._open_cache.revert()

    # Changing

    def update(self, /, *mappings: Pairs[K, V], **pairs: V) -> None:
        """Assign the pairs of mappings, of iterables of pairs, and of keywords. Later pairs win.

        Pairs are assigned one by one. If a pair is refused, the pairs before it stay assigned.

        Args:
            *mappings: Mappings (with ``iteritems()``, ``items()`` or ``keys()``) and iterables of pairs.
            **pairs: Keys that are names, and their values.

        Raises:
            InvalidKeyError: A key cannot be stored.
            UnstorableValueError: A value cannot be stored.

        Cost:
            O(m) for m pairs; iterables are never held whole. The next sync writes them.

        Example:
            >>> pod = PersistentOrderedDict(path)
            >>> pod.update({"a": 1}, [("b", 2)], c=3)
            >>> pod.items()
            [('a', 1), ('b', 2), ('c', 3)]
        """
        for source in (*mappings, pairs):
            self._assign_all(pairs_of(source))

    def __ior__(self: Self, other: Pairs) -> Self:  # type: ignore[misc, override]  # as of dict, it takes more than |
        self.update(other)
        return self

    @overload
    def setdefault(self: PersistentOrderedDict[K, T | None], key: K, default: None = None) -> T | None: ...
    @overload
    def setdefault(self, key: K, default: V) -> V: ...
    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, and set it to ``default`` first if the key does not exist. The value is watched.

        Args:
            key: The key.
            default: The value to assign to a missing key.

        Returns:
            The value.

        Raises:
            InvalidKeyError: The key cannot be stored.
            UnstorableValueError: ``default`` cannot be stored.

        Cost:
            That of reading and, for a missing key, of assigning.

        Example:
            >>> pod = PersistentOrderedDict(path)
            >>> pod.setdefault("a", []).append(1)
            >>> pod["a"]
            [1]
        """
        with self._one_step:
            return mapping.set_default(self, key, default)

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V) -> V: ...
    @overload
    def pop(self, key: K, default: T) -> V | T: ...
    def pop(self, key: Any, default: Any = NOT_GIVEN) -> Any:
        """Delete a key and return its value.

        Args:
            key: The key.
            default: The result for a missing key, instead of a KeyError.

        Returns:
            The value, or ``default``.

        Raises:
            KeyError: The key does not exist, and no ``default`` was given.

        Cost:
            That of reading and deleting. The next sync deletes the key on disk.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": 1})
            >>> pod.pop("a"), pod.pop("a", None)
            (1, None)
        """
        with self._one_step:
            return mapping.pop(self, key, default)

    def popitem(self, last: bool = True) -> tuple[K, V]:
        """Remove the pair that was added last, or first, and return it.

        Args:
            last: Whether to remove the last pair, or the first one.

        Returns:
            The key and its value.

        Raises:
            KeyError: The store is empty.

        Cost:
            O(log n), and reading and deleting one key, however many keys were deleted at that end before.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": 1, "b": 2, "c": 3})
            >>> pod.popitem(), pod.popitem(last=False)
            (('c', 3), ('a', 1))
        """
        with self._one_step:
            return mapping.pop_item(self, last, type(self).__name__)

    def clear(self) -> None:
        """Delete every key.

        Cost:
            O(n): one deletion for each key.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": 1})
            >>> pod.clear()
            >>> len(pod)
            0
        """
        mapping.delete_all(self)

    def __eq__(self, other: object) -> bool:
        """Return whether a mapping has the same pairs, in any order. Cost: O(n), up to the first difference."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return self is other or mapping.equals(self, other, self.iteritems)

    # For tests

    def _check(self) -> None:
        """Raise an error if an invariant of the store is violated, in memory or on disk. Cost: O(n)."""
        cache = self._open_cache
        with self._store.lock:
            cache.check()
            self._refuse_violations()


POD = PersistentOrderedDict
