"""One store as this process has it open: its LMDB environment, shared by all instances on the store.

This is the only module that knows LMDB. It opens and creates, hands out read transactions, runs write
transactions (again, where the map had to grow), flushes, and gets through a fork. Above it, a store is four
databases and a lock:

    values   order number, 8 bytes  ->  record (key and value)
    order    encoded key            ->  order number
    status   block number           ->  the statuses of 500 tasks (trackers)
    meta     name                   ->  b"format", b"kind", b"file_size", b"next"

An order number is given once; ``next`` is written when the last ones are deleted, so that it stays so.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import lmdb

from tastypy_fast import _files
from tastypy_fast._options import DURABILITY, FORMAT, KINDS, Options, check_meta
from tastypy_fast._state import Lock, StoreState
from tastypy_fast.exceptions import (
    DiskFullError,
    ForkedStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    ReadOnlyStoreError,
    StorageError,
    StoreConflictError,
)

if TYPE_CHECKING:
    from tastypy_fast._cache import Cache

__all__ = ["Environment"]

T = TypeVar("T")

# Address space, not memory and not disk: the file grows as it is used. Where even that is scarce, less.
MAP_SIZE = 1 << 36
SMALLEST_MAP_SIZE = 1 << 24
MAX_READERS = 1024

# What the engine raises where it finds what it cannot have written.
_DAMAGE = (
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.NotFoundError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
    struct.error,
    SystemError,
)

_ORDER_NUMBER = struct.Struct("=q")


class Environment(StoreState):
    """One store, opened by this process."""

    def __init__(self, path: str, options: Options) -> None:
        self.path = path
        self.options = options
        self.gzipped = options.gzipped
        self.caches: dict[Cache, int] = {}
        self.shared_cache: Cache | None = None
        self.writable = options.mode == "w"
        self.transient = not self.writable
        self.forked_from = 0
        # "process" leaves a commit to the kernel, so that each sync has to ask for the flush.
        self.flushes_each_sync = options.durability == "process"
        self._db: Any = None
        self._buffer_snapshot: Any = None
        self._unflushed = False
        self._claim: _files.OwnerLock | None = None
        self._identity: tuple[int, int] | None = None
        self._open()
        self._identity = _files.file_identity(path)

    # Opening and closing

    def _open(self) -> None:
        fresh = False
        if self.writable:
            fresh = _files.prepare_folder(self.path)
            self._claim = _files.OwnerLock(self.path)
        else:
            _files.require_store(self.path)
        try:
            _files.check_data_file(self.path, self.writable)
            _files.allocate_lock_file(self.path, MAX_READERS)
            self._db = self._open_lmdb(readonly=not self.writable)
            self._open_databases()
            if self._claim is not None and self.writable:
                self._claim.write_name()
            if fresh:
                _files.flush_folder(self.path)
        except BaseException:
            self._close_files()
            raise

    def _open_lmdb(self, readonly: bool) -> Any:
        size = MAP_SIZE
        lock = True
        while True:
            try:
                return lmdb.open(
                    os.fsencode(self.path),
                    map_size=size,
                    readonly=readonly,
                    create=not readonly,
                    lock=lock,
                    mode=0o644,
                    max_dbs=8,
                    max_readers=MAX_READERS,
                    max_spare_txns=0,
                    **DURABILITY[self.options.durability],
                )
            except lmdb.MapResizedError:
                size *= 2
            except (lmdb.MemoryError, lmdb.InvalidParameterError, MemoryError) as error:
                # An address space limit (ulimit -v, some containers; valgrind calls it an invalid argument).
                size //= 2
                if size < SMALLEST_MAP_SIZE:
                    raise self.translated(error) from error
            except lmdb.ReadonlyError as error:
                if not readonly or not lock:
                    raise self.translated(error) from error
                # Who may not write the engine's lock file cannot read beside a writer. So keep writers out.
                try:
                    self._claim = _files.OwnerLock(self.path, only_read=True)
                except OSError as refused:
                    raise StorageError(
                        errno.EACCES, "to read beside a process that writes takes the right to write lock.mdb, for the "
                        "engine's table of readers", self.path
                    ) from refused
                lock = False
            except lmdb.Error as error:
                raise self.translated(error) from error

    def _open_databases(self) -> None:
        try:
            with self._db.begin() as txn:
                names = {bytes(key) for key, _ in txn.cursor()}
            if not names:
                if not self.writable:
                    raise _files.not_there(self.path)
                self._create()
            self.meta = self._db.open_db(b"meta", create=False)
            self._check_meta()
            self.values = self._db.open_db(b"values", create=False, integerkey=True)
            self.order = self._db.open_db(b"order", create=False)
            if self.options.kind == b"tracker":
                self.status = self._db.open_db(b"status", create=False, integerkey=True)
            with self._db.begin() as txn:
                if txn.stat(self.values)["entries"] != txn.stat(self.order)["entries"]:
                    raise self.damaged("there are more or fewer index entries than records")
                cursor = txn.cursor(self.values)
                last = _ORDER_NUMBER.unpack(cursor.key())[0] if cursor.last() else -1
                if last < 0 and cursor.key():
                    raise self.damaged("a record has no order number")
                noted = txn.get(b"next", db=self.meta)
                self.next_order = max(self.next_order, last + 1, _ORDER_NUMBER.unpack(noted)[0] if noted else 0)
        except (lmdb.Error, struct.error) as error:
            raise self.translated(error) from error
        if self.writable:
            self._db.reader_check()

    def _create(self) -> None:
        def work(txn: Any) -> None:
            meta = self._db.open_db(b"meta", txn=txn)
            for name in (b"values", b"status"):
                if name == b"values" or self.options.kind == b"tracker":
                    self._db.open_db(name, txn=txn, integerkey=True)
            self._db.open_db(b"order", txn=txn)
            txn.put(b"format", str(FORMAT).encode(), db=meta)
            txn.put(b"kind", self.options.kind, db=meta)
            txn.put(b"file_size", str(self.options.file_size).encode(), db=meta)

        self.write(work)
        self.flush()

    def _check_meta(self) -> None:
        with self._db.begin(db=self.meta) as txn:
            found = {name: txn.get(name) for name in (b"format", b"kind", b"file_size")}
        if found[b"kind"] not in KINDS or not (found[b"format"] or b"").isdigit():
            raise self.damaged("its format or kind does not parse")
        check_meta(self.path, found, self.options)
        size = str(self.options.file_size).encode()
        if self.writable and found[b"file_size"] != size:
            self.write(lambda txn: txn.put(b"file_size", size, db=self.meta))

    def check_options(self, options: Options) -> None:
        """Whether another instance with these options may join."""
        if self.forked_from and self.options.mode == "w":
            if options.mode == "w":
                raise self.refuse_write()
            return
        self.options.check_same(self.path, options)
        if self._identity is not None and not _files.is_same_file(self.path, self._identity):
            raise StoreConflictError(
                f"the files of the store at {self.path} were removed or replaced while this process has it open; "
                f"close() the instances that are open first"
            )

    def close(self) -> None:
        """Let go of the files. What is to be saved was saved before."""
        with self.lock:
            self._close_files()

    def _close_files(self) -> None:
        self.snapshot = self._buffer_snapshot = None
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    # Fork

    def before_fork(self) -> None:
        """No thread is in an operation and no transaction is open while the process forks."""
        self.lock.acquire()
        self.end_reading()

    def after_fork_in_parent(self) -> None:
        self.lock.release()

    def after_fork_in_child(self) -> None:
        """The inherited environment may not be used, nor another one be opened beside it: close it."""
        self.lock = Lock()
        self.forked_from = self.forked_from or os.getppid()
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._claim is not None:
            self._claim.leave_to_parent()
            self._claim = None
        self.writable = False
        self.transient = True
        for cache in self.caches:
            cache.forget()

    # Reading

    def reader_of_buffers(self) -> Any:
        """A read transaction beside the current one that hands out views of the map instead of copies."""
        if self._buffer_snapshot is None:
            self._buffer_snapshot = self.begin_reading(buffers=True)
        return self._buffer_snapshot

    def begin_reading(self, buffers: bool = False) -> Any:
        """A read transaction on what is on disk now."""
        if self._db is None:
            if not self.forked_from:
                raise StorageError(errno.EBADF, f"the store at {self.path} is closed")
            self._db = self._open_lmdb(readonly=True)
            self._open_databases()
        for _ in range(10):
            try:
                return self._db.begin(buffers=buffers)
            except lmdb.MapResizedError:
                # Another process has grown the map.
                self.end_reading()
                self._db.set_mapsize(0)
            except lmdb.ReadersFullError:
                # Slots of processes that were killed.
                if not self._db.reader_check():
                    raise StorageError(
                        errno.EAGAIN, f"{MAX_READERS} readers have {self.path} open, which is as many as there may be"
                    ) from None
            except lmdb.Error as error:
                raise self.translated(error) from error
        raise StorageError(errno.EAGAIN, f"the map of {self.path} does not stop growing")

    def end_reading(self) -> None:
        """Give the snapshot back; the next read takes the newest."""
        # (let go of first: an exception may come at any line, and an ended one must not be used again)
        open_ones = self.snapshot, self._buffer_snapshot
        self.snapshot = self._buffer_snapshot = None
        for txn in open_ones:
            if txn is not None:
                txn.abort()

    def count(self) -> int:
        """How many records are on disk."""
        return int(self._statistics()["entries"])

    def has_large_values(self) -> bool:
        """Whether there are values in pages of their own, so that reading a key need not touch its value."""
        return bool(self._statistics()["overflow_pages"])

    def _statistics(self) -> Any:
        if self.snapshot is None:
            self.snapshot = self.begin_reading()
        return self.snapshot.stat(self.values)

    # Writing

    def write(self, work: Callable[[Any], T]) -> T:
        """Run ``work`` in a write transaction and commit it. Where the map is full or was grown by another
        process it runs again, so it changes nothing outside of the transaction."""
        with self.lock:
            if self._identity is not None and not _files.is_same_file(self.path, self._identity):
                raise StorageError(
                    errno.ENOENT, "the files of the store were removed or replaced while it was open, so that nothing "
                    "can be saved; copy what you need to another store and revert()", self.path
                )
            while True:
                self.generation += 1
                try:
                    with self._db.begin(write=True) as txn:
                        result = work(txn)
                except lmdb.MapFullError:
                    self._grow()
                except lmdb.MapResizedError:
                    self.end_reading()
                    self._db.set_mapsize(0)
                except lmdb.Error as error:
                    raise self.translated(error) from error
                else:
                    break
            self._unflushed = self.options.durability != "full"
            # The snapshot is older than what was just written.
            self.end_reading()
            return result

    def _grow(self) -> None:
        self.end_reading()
        size = self._db.info()["map_size"]
        for factor in (2.0, 1.5, 1.1):
            more = int(size * (factor - 1)) // 65536 * 65536 + 65536
            # Asked first: the engine gives its old map up before it finds that there is no room for a new one.
            if _files.has_address_space(more):
                self._db.set_mapsize(size + more)
                return
        raise StorageError(
            errno.ENOMEM, f"the map is full at {size} bytes and the system refuses a larger one (ulimit -v, perhaps); "
            f"what was to be written is still in memory", self.path
        )

    def flush(self) -> None:
        """Wait until everything that was committed is on the disk."""
        if self._unflushed:
            try:
                self._db.sync(True)
            except lmdb.Error as error:
                raise self.translated(error) from error
            self._unflushed = False

    # Errors

    def refuse_write(self) -> PersistentOrderedDictException:
        """The error for a write where none is allowed."""
        if self.forked_from and self.options.mode == "w":
            return ForkedStoreError(
                f"the store at {self.path} is private to process {self.forked_from}, of which this process "
                f"({os.getpid()}) is a forked child; it may only read here. Open SharedPersistentOrderedDict or "
                f"SharedProgressTracker instead where several processes write"
            )
        return ReadOnlyStoreError(f'the store at {self.path} was opened with mode="r"; open it with mode="w" to write')

    def damaged(self, reason: object) -> PersistentOrderedDictIntegrityError:
        """The error for files that cannot be as they were written."""
        return PersistentOrderedDictIntegrityError(f"the store at {self.path} is damaged: {reason}")

    def translated(self, error: Exception) -> Exception:
        """The engine's error as one of ours; any other as it is."""
        if isinstance(error, PersistentOrderedDictIntegrityError) and self.path not in str(error):
            return self.damaged(error)
        if isinstance(error, (lmdb.MapFullError, lmdb.MapResizedError)) or not isinstance(
            error, (lmdb.Error, struct.error, SystemError)
        ):
            return error
        text = str(error)
        if isinstance(error, SystemError):
            text = str(error.__cause__ or error)
        if isinstance(error, _DAMAGE):
            return self.damaged(text)
        if isinstance(error, lmdb.DiskError) or _files.is_full(self.path, text):
            return DiskFullError(
                errno.ENOSPC,
                f"the disk is full ({text}); nothing of this sync was written and everything is still in memory: "
                f"free some space and sync() again",
                self.path,
            )
        return StorageError(errno.EIO, f"the storage engine refused: {text}", self.path)
