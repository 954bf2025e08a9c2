"""Define ``SharedPersistentOrderedDict``, a PersistentOrderedDict for many processes."""

from __future__ import annotations

import builtins
import os
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar, cast, overload

from tastypy_fast._core.handles import PodHandle
from tastypy_fast._core.key_codec import lookup_key
from tastypy_fast._core.write_cache import WriteCache
from tastypy_fast._mixins import mapping
from tastypy_fast._mixins.display import DisplayMixin
from tastypy_fast._mixins.examples import show_own_examples
from tastypy_fast._mixins.import_export import ImportExportMixin
from tastypy_fast._mixins.iteration import IterationMixin
from tastypy_fast._mixins.lifecycle import LifecycleMixin
from tastypy_fast._mixins.mapping import NOT_GIVEN
from tastypy_fast._mixins.pairs import pairs_of
from tastypy_fast._shared.handles import IN_MEMORY, SharedPodHandle
from tastypy_fast._shared.store import SharedStore
from tastypy_fast._shared.write_transaction import (
    BLOCK,
    MANUAL,
    OPERATION,
    SAVEPOINT,
    TransactionContext,
)
from tastypy_fast._store.options import Options, at_least
from tastypy_fast._type_parameters import K, T, V
from tastypy_fast.exceptions import StorageError
from tastypy_fast.pod import DEFAULT_FILE_SIZE, DEFAULT_SYNC_AT
from tastypy_fast.types import Durability, Pairs

__all__ = ["SharedPOD", "SharedPersistentOrderedDict"]

# How many snapshots dirty() begins before it waits for the writer lock.
SNAPSHOTS = 10

Self = TypeVar("Self", bound="SharedPersistentOrderedDict[Any, Any]")


@show_own_examples
class SharedPersistentOrderedDict(  # type: ignore[misc]  # keys() and its like return lists
    LifecycleMixin, DisplayMixin, IterationMixin[K, V], ImportExportMixin, SharedPodHandle[K, V], MutableMapping[K, V]
):
    """A PersistentOrderedDict that any number of processes use at once.

    There is no server. Each process maps the same files, and a file lock, the writer lock, admits one writer at a
    time. Instances may be passed to children under any start method, and through pools, queues and pipes. Unrelated
    programs may open the same path.

    Each operation is one transaction, visible to every process when it returns. Reading returns a copy. To change the
    inside of a value, use ``.set``. The type parameters are those of a dict:
    ``SharedPersistentOrderedDict[str, list[int]](path)``.

    Args:
        path: The folder of the store, which is created if it does not exist. ``~`` at its start is the home folder.
        init: A mapping or an iterable of pairs, which is assigned as by ``update(init)``.
        gzipped: Whether values are stored compressed if that makes them smaller.
        file_size: The number of lines in each file that ``export_json()`` writes.
        sync_at: The number of keys, changed by any process since the last sync, at which the store syncs automatically.
        durability: Which commits a power cut can undo: all since the last flush point, which is about a second old
            (``"process"``), the last one (``"normal"``), or none (``"full"``). With ``"unsafe"`` it can damage the
            store. If a process is killed, each operation that has returned is kept. All processes use the same level.

    Raises:
        StoreInUseError: A process has the store open as a private one. The other errors are those of
            PersistentOrderedDict.
        StoreConflictError: Other processes use another ``durability``.

    Cost:
        Reading waits for no other process. Writing waits for the transactions of other processes, and each write is one
        commit. ``locked()`` makes one commit of many operations.

    Example:
        >>> pod = SharedPersistentOrderedDict(path)
        >>> pod["foo"] = {"bar": 0, "baz": []}
        >>> pod.set["foo"]["bar"] += 1
        >>> pod.set["foo"]["baz"].append("fizz")
        >>> pod["foo"]
        {'bar': 1, 'baz': ['fizz']}
    """

    _kind: ClassVar[bytes] = b"dict"
    _handle_type: ClassVar[type[PodHandle[Any, Any]]] = PodHandle
    _cache_type: ClassVar[type[WriteCache]] = WriteCache
    _store: SharedStore
    _max_tries = 0
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        path: str | os.PathLike[str],
        init: Pairs = {},
        gzipped: bool = False,
        file_size: int = DEFAULT_FILE_SIZE,
        sync_at: int = DEFAULT_SYNC_AT,
        *,
        durability: Durability = "process",
    ) -> None:
        options = Options(self._kind, "w", durability, gzipped, file_size, shared=True)
        self._sync_at = at_least("sync_at", sync_at, 1)
        self._acquire(path, options, SharedStore, self._make_cache, True)
        transaction = self._store.transaction
        self._attach(transaction, self._handle_on(transaction.cache), self._handle_on(self._cache), self._sync_at)
        try:
            if init:
                self.update(init)
        except BaseException:
            self.close()
            raise

    @classmethod
    def _make_cache(cls, store: SharedStore) -> WriteCache:
        if store.transaction.cache is None:
            store.transaction.attach(cls._cache_type(store.transaction))
        cache = cls._cache_type(store)
        cache.copies = True
        return cache

    def _handle_on(self, cache: WriteCache) -> PodHandle[Any, Any]:
        handle = self._handle_type()
        handle._attach(cache, IN_MEMORY, self._max_tries)
        return handle

    def _arguments(self) -> dict[str, Any]:
        return {
            "gzipped": self.gzipped, "file_size": self.file_size, "sync_at": self._sync_at,
            "durability": self.durability,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return self._by_path(self._arguments())

    def close(self) -> None:
        """Sync, and close the store. The last instance of this process closes the files.

        The last instance also releases the unfinished claims of this process. Any later use of a closed instance raises
        CalledClosedTrackerError. Other instances and other processes continue. Inside a block, this commits and ends
        the block first. Closing again does nothing.

        Raises:
            StorageError: The files were removed or replaced meanwhile, or a flush has failed. The instance is closed
                nevertheless.
            DiskFullError: The sync fails. The store stays open.

        Cost:
            That of ``sync()``. The data is on disk when it returns.

        Example:
            >>> pod = SharedPersistentOrderedDict(path)
            >>> pod.close()
            >>> pod.closed
            True
        """
        if not self._finalizer.alive:
            return
        transaction = self._store.transaction
        transaction.end_all_blocks()
        lost = None
        with transaction.lock:  # other threads wait, and find it closed
            # The cache is closed already if an earlier call was interrupted. This one completes it.
            if not self._cache.closed:
                try:
                    self._store.check_files()
                except StorageError as error:
                    lost = error
                else:
                    lost = self._store.sync_at_close()
            self._let_go()
        if lost is not None:
            raise lost

    # Changing

    def mark_dirty(self, key: K) -> None:
        """Mark a key dirty, so that it counts as changed since the last sync even if its value is unchanged.

        This does not save changes in values that were read, because these are copies. Use ``.set`` to change a value.

        Args:
            key: The key.

        Raises:
            KeyError: The key does not exist.

        Cost:
            One transaction.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"a": 1})
            >>> pod.sync()
            >>> pod.mark_dirty("a")
            >>> pod.dirty()
            {'a'}
        """
        handle = self._write_handle()
        self._perform(OPERATION, handle._open_cache.mark, lookup_key(key), key, IN_MEMORY)

    def update(self, /, *mappings: Pairs[K, V], **pairs: V) -> None:
        """Assign the pairs of mappings, of iterables of pairs, and of keywords, in one transaction. Later pairs win.

        If a key or value is refused, nothing is assigned. Iterables are read to their end before the transaction
        begins.

        Args:
            *mappings: Mappings (with ``iteritems()``, ``items()`` or ``keys()``) and iterables of pairs.
            **pairs: Keys that are names, and their values.

        Raises:
            InvalidKeyError: A key cannot be stored. Then nothing is assigned.
            UnstorableValueError: A value cannot be stored. Then nothing is assigned.

        Cost:
            O(m) time and memory for m pairs, and one commit.

        Example:
            >>> pod = SharedPersistentOrderedDict(path)
            >>> pod.update({"a": 1}, [("b", 2)], c=3)
            >>> pod.items()
            [('a', 1), ('b', 2), ('c', 3)]
        """
        handle = self._item_handle()
        read = [list(pairs_of(source)) for source in (*mappings, pairs)]
        self._perform(SAVEPOINT, self._update, handle, read)

    @staticmethod
    def _update(handle: Any, sources: list[list[tuple[Any, Any]]]) -> None:
        for pairs in sources:
            handle._assign_all(pairs)

    def __ior__(self: Self, other: Pairs) -> Self:  # type: ignore[misc, override]  # as of dict, it takes more than |
        self.update(other)
        return self

    @overload
    def setdefault(self: SharedPersistentOrderedDict[K, T | None], key: K, default: None = None) -> T | None: ...
    @overload
    def setdefault(self, key: K, default: V) -> V: ...
    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return a copy of the value of a key, and set it to ``default`` first if the key does not exist.

        Args:
            key: The key.
            default: The value to assign to a missing key.

        Returns:
            The value.

        Raises:
            InvalidKeyError: The key cannot be stored.
            UnstorableValueError: ``default`` cannot be stored.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> pod = SharedPersistentOrderedDict(path)
            >>> pod.setdefault("a", [1]), pod.setdefault("a", [])
            ([1], [1])
        """
        return self._perform(OPERATION, mapping.set_default, self._item_handle(), key, default)

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V) -> V: ...
    @overload
    def pop(self, key: K, default: T) -> V | T: ...
    def pop(self, key: Any, default: Any = NOT_GIVEN) -> Any:
        """Delete a key and return its value. No other process gets the same value.

        Args:
            key: The key.
            default: The result for a missing key, instead of a KeyError.

        Returns:
            The value, or ``default``.

        Raises:
            KeyError: The key does not exist, and no ``default`` was given.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"a": 1})
            >>> pod.pop("a"), pod.pop("a", None)
            (1, None)
        """
        return self._perform(OPERATION, mapping.pop, self._item_handle(), key, default)

    def move_to_end(self, key: K) -> None:
        """Move a key behind all others, in one transaction. Its value stays, and in a tracker its status and its claim.

        This is what deleting the key and adding it again does to the order. A loop that runs meanwhile, in any process,
        yields the key at its new place, also if it has yielded it before. So a loop must not move every key that it
        yields. ``reversed()`` does not yield it any more. A task that waits in the batch of a worker is released, and
        its try is subtracted.

        Args:
            key: The key. If it is the last one, nothing changes.

        Raises:
            KeyError: The key does not exist.

        Cost:
            O(log n), and one commit.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"a": 1, "b": 2})
            >>> pod.move_to_end("a")
            >>> pod.items()
            [('b', 2), ('a', 1)]
        """
        self._perform(OPERATION, self._write_handle().move_to_end, key)

    def popitem(self, last: bool = True) -> tuple[K, V]:
        """Remove the pair that was added last, or first, and return it. No other process gets the same pair.

        Args:
            last: Whether to remove the last pair, or the first one.

        Returns:
            The key and its value.

        Raises:
            KeyError: The store is empty.

        Cost:
            One transaction of O(log n), or in a block O(log n), however many keys were deleted at that end before. It
            is visible to every process when the call returns, or when the block ends.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"a": 1, "b": 2, "c": 3})
            >>> pod.popitem(), pod.popitem(last=False)
            (('c', 3), ('a', 1))
        """
        return self._perform(OPERATION, mapping.pop_item, self._item_handle(), last, type(self).__name__)

    def clear(self) -> None:
        """Delete every key, in one transaction.

        Cost:
            O(n): one deletion for each key, and one commit.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"a": 1})
            >>> pod.clear()
            >>> len(pod)
            0
        """
        self._perform(SAVEPOINT, mapping.delete_all, self._item_handle())

    def __eq__(self, other: object) -> bool:
        """Return whether a mapping has the same pairs, in any order. Cost: O(n), up to the first difference."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return self is other or mapping.equals(self, other, self.iteritems)

    # Blocks

    def locked(self: Self) -> AbstractContextManager[Self, None]:
        """Hold the writer lock for a block: ``with pod.locked(): ...``

        Other processes and threads wait before they write, and read the state before the block. The block is committed
        when it ends, also by an exception. Blocks may be nested. If the process is killed in the block, the block is
        rolled back, and the lock is free.

        Do not ``await`` or ``yield`` inside a block. The lock belongs to the thread, so other code that runs in this
        thread meanwhile would be a part of the block.

        Returns:
            A context manager. ``as`` binds the store.

        Raises:
            DiskFullError: The block cannot be committed. The error is raised at the end of the block, or by the
                operation that fails.
            StorageError: As for DiskFullError.
            NotLockedError: Another thread ends the block.

        Cost:
            One commit at the end. Operations in the block cost the same as on a private store.

        Example:
            >>> with SharedPersistentOrderedDict(path, init={"a": 1, "b": 0}).locked() as pod:
            ...     pod["b"] = pod["a"] + 1
            >>> pod["b"]
            2
        """
        return TransactionContext(self._begin(), BLOCK, self)

    def transaction(self: Self) -> AbstractContextManager[Self, None]:
        """Hold the writer lock for a block as ``locked()`` does, but roll the block back if it raises.

        Inside another block, only the inner block is rolled back.

        Returns:
            A context manager. ``as`` binds the store.

        Raises:
            DiskFullError: As for ``locked()``.
            StorageError: As for ``locked()``.
            NotLockedError: Another thread ends the block.

        Cost:
            That of ``locked()``. Inside another block it is a savepoint.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"from": 10, "to": 0})
            >>> with pod.transaction():
            ...     pod.set["from"] -= 50
            ...     if pod["from"] < 0:
            ...         raise ValueError("not enough")
            Traceback (most recent call last):
            ValueError: not enough
            >>> pod["from"]
            10
        """
        return TransactionContext(self._begin(), SAVEPOINT, self)

    def lock(self) -> None:
        """Begin a block as ``locked()`` does, which ``unlock()`` ends. The same thread may call it again.

        Raises:
            NotLockedError: It is called in the middle of another operation of the same store.

        Cost:
            The wait for the writers before this one.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"n": 1})
            >>> pod.lock()
            >>> pod["n"] = pod["n"] + 1
            >>> pod.unlock()
        """
        self._begin().begin_block(MANUAL)

    def unlock(self) -> None:
        """End a block that ``lock()`` began, and commit it.

        Raises:
            NotLockedError: This thread has not called ``lock()``.
            DiskFullError: The block cannot be committed.
            StorageError: As for DiskFullError.

        Cost:
            One commit.

        Example:
            >>> SharedPersistentOrderedDict(path).unlock()
            Traceback (most recent call last):
            tastypy_fast.exceptions.NotLockedError: unlock() without lock(): this thread does not hold the store's lock
        """
        self._begin().unlock()

    # Saving. These methods act on the changes of all processes.

    def sync(self) -> None:
        """Flush all commits to disk, and set the restore point of ``revert()``, for all processes.

        The data is on disk when it returns, at any durability. Inside a block this happens when the block ends.

        Raises:
            StorageError: The files were removed or replaced, or cannot be written.
            DiskFullError: The disk is full.

        Cost:
            A commit, and a flush.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"a": 1})
            >>> pod.sync()
            >>> pod.dirty()
            set()
        """
        self._begin()
        self._store.sync()

    def sync_key(self, key: K) -> None:
        """Flush one key to disk as ``sync()`` does, and leave the others dirty.

        Args:
            key: The key.

        Raises:
            KeyError: The key does not exist, and did not exist at the last sync.

        Cost:
            O(d) for d dirty keys, and a flush.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"a": 1, "b": 2})
            >>> pod.sync_key("a")
            >>> pod.dirty()
            {'b'}
        """
        encoded = lookup_key(key)
        if encoded is None or not self._perform(OPERATION, self._begin().sync_key, encoded):
            raise KeyError(key)

    def dirty(self) -> builtins.set[K]:
        """Return the keys that any process has changed since the last sync.

        Returns:
            The keys, as a set.

        Cost:
            O(d): one read for each of the d keys.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"a": 1, "b": 2})
            >>> pod.sync()
            >>> pod["a"] = 3
            >>> pod.dirty()
            {'a'}
        """
        for _ in range(SNAPSHOTS):
            handle = self._read_handle()
            with handle._one_step:
                cache = handle._open_cache
                cache.sync(False)
                found = cache.store.undo_log.changed_keys()
            if found is not None:
                return cast("builtins.set[K]", found)
        # Others commit and sync faster than this process reads.
        with self.locked():
            return self.dirty()

    def hold(self) -> None:
        """Suspend the automatic sync for all processes.

        The hold lasts until any process calls ``unhold()``, or until this process closes the store or ends, also by
        SIGKILL. Other processes detect the end of a killed process within half a second. Operations are committed as
        before, but the automatic sync no longer moves the restore point of ``revert()``.

        Cost:
            One transaction.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, sync_at=2)
            >>> pod.hold()
            >>> pod.update(a=1, b=2, c=3)
            >>> sorted(pod.dirty())
            ['a', 'b', 'c']
        """
        self._perform(OPERATION, self._store.suspend_sync)

    def unhold(self) -> None:
        """Start the automatic sync again, and sync at once if ``sync_at`` keys or more are dirty.

        Inside a block this happens when the block ends.

        Raises:
            StorageError: The sync fails, as in ``sync()``. The hold has ended nevertheless.
            DiskFullError: As for StorageError.

        Cost:
            One transaction, or that of a ``sync()``.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, sync_at=2)
            >>> pod.hold()
            >>> pod.update(a=1, b=2, c=3)
            >>> pod.unhold()
            >>> pod.dirty()
            set()
        """
        in_block = self._read_handle() is self._write_handle()
        self._perform(OPERATION, self._store.resume_sync)
        # _begin() sets sync_at again, which resume_sync() has raised, so that the end of the block can sync.
        self._begin()
        if not in_block:
            # Sync in another transaction, because the end of the hold must be kept if the sync fails.
            self._perform(OPERATION, self._store.sync_if_due, self._sync_at)

    def revert(self) -> None:
        """Undo the changes of all processes since the last sync, in one transaction.

        Cost:
            O(d): each of the d changed keys is written again.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"a": 1})
            >>> pod.sync()
            >>> pod["a"] = 2
            >>> pod.revert()
            >>> pod["a"]
            1
        """
        self._perform(OPERATION, self._begin().revert)

    # For tests

    def _check(self) -> None:
        """Raise an error if an invariant of the store is violated, in memory or on disk. Cost: O(n)."""
        with self.locked():
            self._read_handle()._open_cache.check()
        cache = self._read_handle()._open_cache
        with self._store.lock:
            cache.check()
            self._refuse_violations()


SharedPOD = SharedPersistentOrderedDict
