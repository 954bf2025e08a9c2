"""``SharedPersistentOrderedDict``: a PersistentOrderedDict for many processes."""

from __future__ import annotations

import builtins
import os
import weakref
from collections.abc import MutableMapping
from typing import Any, ClassVar, TypeVar

from tastypy_fast._core.key_codec import encode_key
from tastypy_fast._core.write_cache import WriteCache
from tastypy_fast._mixins.display import DisplayMixin
from tastypy_fast._mixins.import_export import ImportExportMixin
from tastypy_fast._mixins.pairs import pairs_of
from tastypy_fast._shared.delegation import iterates, reads, reads_whole, view_type, writes, writes_many
from tastypy_fast._shared.handles import SharedPodHandle
from tastypy_fast._shared.store import SharedStore
from tastypy_fast._shared.write_transaction import (
    BLOCK,
    MANUAL,
    OPERATION,
    SAVEPOINT,
    TransactionContext,
    WriteTransaction,
)
from tastypy_fast._store import registry
from tastypy_fast._store.integrity import find_violations
from tastypy_fast._store.options import Options, at_least
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError, StorageError
from tastypy_fast.pod import DEFAULT_FILE_SIZE, DEFAULT_SYNC_AT, PersistentOrderedDict
from tastypy_fast.types import Key, Pairs

__all__ = ["SharedPOD", "SharedPersistentOrderedDict"]

Self = TypeVar("Self", bound="SharedPersistentOrderedDict")
Private = PersistentOrderedDict


class SharedPersistentOrderedDict(DisplayMixin, SharedPodHandle, ImportExportMixin, MutableMapping[Any, Any]):
    """A PersistentOrderedDict that any number of processes use at once.

    There is no server: each process maps the same files, and LMDB's write transaction is the lock. Instances may
    be passed to children however these are started, through pools, queues and pipes, and unrelated programs may
    open the same path. Arguments are those of PersistentOrderedDict, without ``clone`` and ``mode``;
    ``durability`` is ``"process"`` by default: a killed process loses nothing that a method has returned from, a
    power cut may take what came after the last sync.

    Each operation is one transaction, visible to every process when it returns. Reading gives a copy: to change
    what is inside of a value, go through ``.set``. ``sync_at`` is the number of keys, changed by any process since
    the last sync, at which the store syncs by itself; ``revert()`` goes back to the last sync.

    Costs: reading waits for nobody. Writing waits for the transaction of another process, and is a commit of its
    own; ``locked()`` makes one of many.

    Raises what PersistentOrderedDict raises for a path that cannot be opened, and StoreInUseError for a store that
    a process has open as a private one.

    >>> pod = SharedPersistentOrderedDict(path)
    >>> pod["foo"] = {"bar": 0, "baz": []}
    >>> pod.set["foo"]["bar"] += 1
    >>> pod.set["foo"]["baz"].append("fizz")
    >>> pod["foo"]
    {'bar': 1, 'baz': ['fizz']}
    """

    _kind: ClassVar[bytes] = b"dict"
    _view_type: ClassVar[type[Any]] = view_type(PersistentOrderedDict)
    _cache_type: ClassVar[type[WriteCache]] = WriteCache
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
        durability: str = "process",
    ) -> None:
        self._options = Options(self._kind, "w", durability, gzipped, file_size, shared=True)
        self._sync_at = at_least("sync_at", sync_at, 1)
        self._store, cache = registry.acquire(path, self._options, SharedStore, self._make_cache, True)
        self._cache = cache
        # An instance that nobody refers to any more syncs and lets go, as a file does.
        self._finalizer = weakref.finalize(self, registry.finish, self._store, cache)
        self._finalizer.atexit = False
        transaction = self._store.transaction
        self._attach(
            transaction,
            self._view_type(self._store, transaction.cache, self._max_tries),
            self._view_type(self._store, cache, self._max_tries),
            self._sync_at,
        )
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

    # What it is

    @property
    def path(self) -> str:
        """The folder of the store, resolved."""
        return str(self._store.path)

    @property
    def durability(self) -> str:
        """``"full"``, ``"normal"`` or ``"process"``."""
        return self._options.durability

    @property
    def gzipped(self) -> bool:
        """Whether values are stored compressed where that makes them smaller."""
        return self._options.gzipped

    @property
    def file_size(self) -> int:
        """The number of lines in each file when the store is written out in the original's JSON format."""
        return self._options.file_size

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called on this instance."""
        return not self._finalizer.alive or self._cache.closed

    def _arguments(self) -> dict[str, Any]:
        return {
            "gzipped": self.gzipped, "file_size": self.file_size, "sync_at": self._sync_at,
            "durability": self.durability,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # Never what is in it: whoever unpickles this opens the same store. What a class of the user's has added to
        # the instance travels, too.
        added = {name: value for name, value in vars(self).items() if name not in _OWN_ATTRIBUTES}
        return _opened, (type(self), self.path, self._arguments()), added or None

    def close(self) -> None:
        """Sync, and let go of the store; the files are closed with the last instance of this process.

        What this process has claimed and not finished is given back then. Any later use of the instance raises
        CalledClosedTrackerError; other instances and other processes go on. Called inside of a block, it ends the
        block first, and keeps what was done in it. Raises StorageError where the files were removed or replaced
        meanwhile; the instance is closed all the same.

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
            # (closed already where an interrupt came into the middle of this, which completes it then)
            if not self._cache.closed:
                try:
                    self._store.check_files()
                except StorageError as error:
                    lost = error
                else:
                    self._store.sync()
            registry.release(self._store, self._cache)
            self._finalizer.detach()
            self._detach()
        if lost is not None:
            raise lost

    def __enter__(self: Self) -> Self:
        self._view()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Reading

    __eq__ = reads(Private.__eq__)
    __iter__ = iterates(Private.iterkeys)
    __reversed__ = iterates(Private.__reversed__)
    iterkeys = iterates(Private.iterkeys)
    itervalues = iterates(Private.itervalues)
    iteritems = iterates(Private.iteritems)
    keys = reads_whole(Private.keys)  # type: ignore[arg-type]
    values = reads_whole(Private.values)  # type: ignore[arg-type]
    items = reads_whole(Private.items)  # type: ignore[arg-type]

    # Changing

    setdefault = writes(Private.setdefault)
    pop = writes(Private.pop)  # type: ignore[assignment]
    popitem = writes(Private.popitem)
    clear = writes_many(Private.clear)

    def mark_dirty(self, key: Key) -> None:
        """Have a key count as changed since the last sync, whatever its value. Raises KeyError when it is not there.

        What is read is a copy, and changes of it are not saved by this: change a value through ``.set``.

        >>> pod = SharedPersistentOrderedDict(path, init={"a": 1})
        >>> pod.sync()
        >>> pod.mark_dirty("a")
        >>> pod.dirty()
        {'a'}
        """
        transaction, view = self._begin()
        transaction.perform(OPERATION, view.mark_dirty, key)

    def update(self, /, *mappings: Any, **pairs: Any) -> None:
        """Assign the pairs of mappings (``iteritems()``, ``items()``), of iterables of pairs, and of keywords.

        Later ones win. One transaction: it is seen as a whole, and not at all when a key or value is refused.
        Iterables are read to their end before it begins.

        >>> pod = SharedPersistentOrderedDict(path)
        >>> pod.update({"a": 1}, [("b", 2)], c=3)
        >>> pod.items()
        [('a', 1), ('b', 2), ('c', 3)]
        """
        transaction, view = self._begin()
        read = [list(pairs_of(mapping)) for mapping in mappings]
        transaction.perform(SAVEPOINT, view.update, *read, list(pairs.items()))

    def __ior__(self: Self, other: Pairs) -> Self:
        self.update(other)
        return self

    # Blocks

    def locked(self) -> TransactionContext:
        """A block that no other process comes between: ``with pod.locked(): ...``

        Others wait to write, and read what was there before the block. All of it is committed when the block ends,
        also by an exception, so that many operations cost one commit. Blocks may stand inside of one another.
        The lock belongs to the thread. If the process is killed in the block, nothing of it is seen and the lock
        is free. No ``await`` and no ``yield`` belongs into a block: whatever runs meanwhile in this thread would be a
        part of it.

        Cost: one commit at the end, and what the operations cost a private store. Raises DiskFullError or StorageError
        at its end, or at the operation that has found it, when nothing of the block can be kept, and NotLockedError
        when another thread ends it.

        >>> pod = SharedPersistentOrderedDict(path, init={"a": 1, "b": 0})
        >>> with pod.locked():
        ...     pod["b"] = pod["a"] + 1
        >>> pod["b"]
        2
        """
        return TransactionContext(self._begin()[0], BLOCK, self)

    def transaction(self) -> TransactionContext:
        """As ``locked()``, but an exception undoes the block. Inside of another block it undoes its own part.

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
        return TransactionContext(self._begin()[0], SAVEPOINT, self)

    def lock(self) -> None:
        """Begin a block as ``locked()`` does, which ``unlock()`` ends. May be called again by the same thread.

        >>> pod = SharedPersistentOrderedDict(path, init={"n": 1})
        >>> pod.lock()
        >>> pod["n"] = pod["n"] + 1
        >>> pod.unlock()
        """
        self._begin()[0].begin_block(MANUAL)

    def unlock(self) -> None:
        """End a block that ``lock()`` began, and commit it. Raises NotLockedError without ``lock()``.

        >>> SharedPersistentOrderedDict(path).unlock()
        Traceback (most recent call last):
        tastypy_fast.exceptions.NotLockedError: unlock() without lock(): this thread does not hold the store's lock
        """
        self._begin()[0].unlock()

    # Saving. All of it is for all processes together.

    def sync(self) -> None:
        """Have everything on the disk, whatever the durability, and make it what ``revert()`` comes back to.

        Inside of a block this happens when the block ends. Cost: a flush.
        """
        self._begin()
        self._store.sync()

    def sync_key(self, key: Key) -> None:
        """As ``sync()``, for one key alone. Raises KeyError when it is neither there nor was at the last sync."""
        transaction, _ = self._begin()
        if not transaction.perform(OPERATION, transaction.sync_key, encode_key(key)):
            raise KeyError(key)

    def dirty(self) -> builtins.set[Any]:
        """The keys that any process has changed since the last sync. Cost: a look at each of them.

        >>> pod = SharedPersistentOrderedDict(path, init={"a": 1, "b": 2})
        >>> pod.sync()
        >>> pod["a"] = 3
        >>> pod.dirty()
        {'a'}
        """
        view = self._view()
        with view._one_step:
            cache = view._open_cache
            cache.sync(False)
            return builtins.set(cache.store.undo_log.changed_keys())

    def hold(self) -> None:
        """Suspend the automatic sync, for all processes, until any of them calls ``unhold()``, or this one closes the
        store or ends, also by SIGKILL. Others see the end of a killed process within half a second.

        Everything is committed all the same; what is suspended is that ``revert()`` would come back to it.
        """
        transaction, _ = self._begin()
        transaction.perform(OPERATION, self._store.suspend_sync)

    def unhold(self) -> None:
        """Take up the automatic sync again, and sync at once when as many keys are dirty as ``sync_at`` says.

        Inside of a block this happens when the block ends. Raises what ``sync()`` raises when that sync fails; the hold
        has ended then all the same.
        """
        transaction, view = self._begin()
        in_block = self._view() is view
        transaction.perform(OPERATION, self._store.resume_sync)
        # (resume_sync() has put the automatic sync off; this takes that back for the end of the block)
        transaction, _ = self._begin()
        if not in_block:
            # (a transaction of its own: when it fails, the one above is kept)
            transaction.perform(OPERATION, self._sync_if_due, transaction)

    def _sync_if_due(self, transaction: WriteTransaction) -> None:
        txn = transaction.snapshot
        if txn.get(b"held", db=transaction.meta) is None and transaction.undo_log.count() >= self._sync_at:
            self._store.sync()

    def revert(self) -> None:
        """Undo what any process has changed since the last sync. Cost: of as many changes again.

        >>> pod = SharedPersistentOrderedDict(path, init={"a": 1})
        >>> pod.sync()
        >>> pod["a"] = 2
        >>> pod.revert()
        >>> pod["a"]
        1
        """
        transaction, _ = self._begin()
        transaction.perform(OPERATION, transaction.revert)

    # For tests

    def _check(self) -> None:
        """Raise when an invariant of the store does not hold, in memory or on disk. Cost: a walk over all."""
        with TransactionContext(self._begin()[0], BLOCK, self):
            self._view()._open_cache.check()
        cache = self._view()._open_cache
        with self._store.lock:
            cache.check()
            found = list(find_violations(self._store))
        if found:
            raise PersistentOrderedDictIntegrityError(f"the store at {self.path} is damaged: {'; '.join(found[:5])}")


_OWN_ATTRIBUTES = {"_options", "_sync_at", "_max_tries", "_store", "_cache", "_finalizer"}


def _opened(cls: type[Any], path: str, arguments: dict[str, Any]) -> Any:
    # (not by calling it: a class of the user's may want other arguments)
    store: Any = SharedPodHandle.__new__(cls)
    own: Any = next(base for base in cls.__mro__ if base.__module__.startswith("tastypy_fast."))
    own.__init__(store, path, **arguments)
    return store


SharedPOD = SharedPersistentOrderedDict
