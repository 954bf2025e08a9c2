"""One store as this process has it open: its LMDB environment, shared by all instances on the store.

It opens and creates, hands out read transactions, runs write transactions (again, where the map had to
grow), flushes, and gets through a fork. Above it, a store is five databases and a lock:

    values   order number, 8 bytes  ->  record (key and value)
    order    encoded key            ->  order number
    status   block number           ->  the statuses of 500 tasks (trackers)
    meta     name                   ->  b"format", b"kind", b"file_size", b"next", b"heads" (see _heads)
    log      number                 ->  changes that are not in the first three yet (private stores, see _journal)

An order number is given once; ``next`` is written when the last ones are deleted, so that it stays so.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tastypy_fast._core.status_summary import SUMMARY_KEY
from tastypy_fast._core.status_writer import give_back
from tastypy_fast._core.store_base import Lock
from tastypy_fast._core.wal import WriteAheadLog
from tastypy_fast._core.write_cache import WriteCache
from tastypy_fast._lmdb import engine, store_dir
from tastypy_fast._lmdb.engine import EngineError, MapResized, NotFound, ReadersFull
from tastypy_fast._lmdb.file_locks import OwnerLock, SharedLock
from tastypy_fast._lmdb.page_format import NUMBER
from tastypy_fast._store.access import Access
from tastypy_fast._store.open_files import OpenFiles
from tastypy_fast._store.options import FORMAT, KINDS, Options, check_meta
from tastypy_fast._store.worker_files import lost_claims
from tastypy_fast.exceptions import (
    ForkedStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    ReadOnlyStoreError,
    StoreConflictError,
)

__all__ = ["Store"]



def do_nothing() -> None:
    """Stand in for a function that the registry has not set yet."""


class Store(Access):
    """One store, opened by this process."""

    def __init__(self, path: str, options: Options) -> None:
        self.path = path
        self.options = options
        self.gzipped = options.gzipped
        self.caches: dict[WriteCache, int] = {}
        self.shared_cache: WriteCache | None = None
        self._may_write = options.mode == "w"
        self.writable = self._may_write and not options.shared
        self.transient = not self.writable
        self.forked_from = 0
        self._reopens = False
        # Whether no other process writes here: always for a private writer, while it opens the store for a shared one.
        self._alone = False
        # "process" leaves a commit to the kernel, so that each sync has to ask for the flush.
        self.flushes_each_sync = options.durability == "process"
        self.db = None
        self.buffer_snapshot = None
        self._unflushed = False
        # Registers the saving at the end of this process, which may be a forked child.
        self.save_at_exit: Callable[[], None] = do_nothing
        self._files = OpenFiles(path, options)
        self._open()

    # Opening and closing

    def _open(self) -> None:
        try:
            fresh = self._files.prepare()
            self._alone = alone = self._take_files()
            if alone or not self._may_write:
                store_dir.check_data_file(self.path, alone)
            self._open_database_files(readonly=not alone)
            if alone:
                self._begin_alone()
            if fresh:
                store_dir.flush_folder(self.path)
        except BaseException as error:
            self._close_files()
            if isinstance(error, OSError) and not isinstance(error, PersistentOrderedDictException):
                raise store_dir.refused(error, self.path, self._may_write) from error
            raise

    def _take_files(self) -> bool:
        """Take the right to write the store, if it is to be written. Whether nobody else has it."""
        if self._may_write:
            self._files.claim = OwnerLock(self.path)
        return self._may_write

    def _begin_alone(self) -> None:
        """What only the first process on a store does: drop what those before it have left."""
        assert isinstance(self._files.claim, (OwnerLock, SharedLock))
        self._files.claim.write_name(self.options.durability)
        self.db.reader_check()
        if self.options.shared:
            self.merge()
            self.wal = None
        with self.db.begin() as txn:
            was_shared = txn.get(b"images") is not None
        if was_shared or self.options.shared:
            self.write(self._drop_leftovers)

    def _drop_leftovers(self, txn: Any) -> None:
        """Claims of workers that are gone, and what the changes since the last sync were: they are synced now."""
        images, claims = self._open_shared_databases(txn)
        if txn.stat(claims)["entries"]:
            give_back(txn, self.status, claims, lost_claims(txn, claims, self.path))
        if self.options.shared:
            # From now on nobody keeps them in step.
            txn.delete(SUMMARY_KEY, db=self.meta)
        if txn.stat(images)["entries"]:
            txn.drop(images, delete=False)
        txn.delete(b"held", db=self.meta)

    def _open_shared_databases(self, txn: Any = None) -> tuple[Any, Any]:
        """What only shared stores have. They are made in ``txn`` where they are not there."""
        return tuple(self.db.open_db(name, txn=txn, create=txn is not None, integerkey=True)
                     for name in (b"images", b"claims"))

    def _open_database_files(self, readonly: bool) -> None:
        try:
            self.db = self._files.open_engine(readonly)
            while True:
                try:
                    self._open_databases()
                    return
                except MapResized:
                    # Another process has grown the map since.
                    engine.adopt(self.path, self.db)
                except ReadersFull:
                    self._free_slots()
        except BaseException:
            self._close_engine()
            raise

    def _close_engine(self) -> None:
        if self.db is not None:
            self.db.close()
            self.db = None

    def _open_databases(self) -> None:
        try:
            with self.db.begin() as txn:
                names = {bytes(key) for key, _ in txn.cursor()}
            if not names:
                if not self._may_write:
                    raise store_dir.not_there(self.path)
                self._create()
            self.meta = self.db.open_db(b"meta", create=False)
            self._check_meta()
            self.values = self.db.open_db(b"values", create=False, integerkey=True)
            self.order = self.db.open_db(b"order", create=False)
            if self.options.kind == b"tracker":
                self.status = self.db.open_db(b"status", create=False, integerkey=True)
            self.wal = None
            if not self.options.shared or self._alone:
                self._open_journal(create=b"log" not in names and self._alone)
            with self.db.begin() as plain:
                txn = plain if self.wal is None else self.wal.merged_view(plain)
                if txn.stat(self.values)["entries"] != txn.stat(self.order)["entries"]:
                    raise self.damaged("there are more or fewer index entries than records")
                self.next_order = max(self.next_order, self.next_number(txn))
        except (MapResized, ReadersFull):
            raise
        except (EngineError, PersistentOrderedDictIntegrityError, struct.error) as error:
            raise self.translated(error) from error

    def _open_journal(self, create: bool) -> None:
        def work(txn: Any) -> None:
            self.db.open_db(b"log", txn=txn, integerkey=True)
            txn.put(b"format", str(FORMAT).encode(), db=self.meta)

        if create:  # a store of format 1
            self.write(work)
        try:
            log = self.db.open_db(b"log", create=False, integerkey=True)
        except NotFound:
            return
        self.wal = WriteAheadLog(log, (self.values, self.order, self.status or object()))

    def next_number(self, txn: Any) -> int:
        """The order number after the last one that was ever given out."""
        cursor = txn.cursor(self.values)
        last = NUMBER.unpack(cursor.key())[0] if cursor.last() else -1
        if last < 0 and cursor.key():
            raise self.damaged("a record has no order number")
        noted = txn.get(b"next", db=self.meta)
        return max(last + 1, NUMBER.unpack(noted)[0] if noted else 0)

    def _create(self) -> None:
        def work(txn: Any) -> None:
            meta = self.db.open_db(b"meta", txn=txn)
            for name in (b"values", b"status"):
                if name == b"values" or self.options.kind == b"tracker":
                    self.db.open_db(name, txn=txn, integerkey=True)
            self.db.open_db(b"order", txn=txn)
            self.db.open_db(b"log", txn=txn, integerkey=True)
            txn.put(b"format", str(FORMAT).encode(), db=meta)
            txn.put(b"kind", self.options.kind, db=meta)
            txn.put(b"file_size", str(self.options.file_size).encode(), db=meta)

        self.write(work)
        self.flush()

    def _check_meta(self) -> None:
        with self.db.begin(db=self.meta) as txn:
            found = {name: txn.get(name) for name in (b"format", b"kind", b"file_size")}
        if found[b"kind"] not in KINDS or not (found[b"format"] or b"").isdigit():
            raise self.damaged("its format or kind does not parse")
        check_meta(self.path, found, self.options)
        size = str(self.options.file_size).encode()
        if self._alone and found[b"file_size"] != size:
            self.write(lambda txn: txn.put(b"file_size", size, db=self.meta))

    def check_options(self, options: Options) -> None:
        """Whether another instance with these options may join."""
        if self.forked_from and self.options.mode == "w":
            if options.mode == "w":
                raise self.refuse_write()
            return
        self.options.check_same(self.path, options)
        if self.is_gone():
            raise StoreConflictError(
                f"the files of the store at {self.path} were removed or replaced while this process has it open; "
                f"close() the instances that are open first"
            )

    @property
    def transaction_lock(self) -> Lock | None:
        """The lock of the threads that share one write transaction; None where each write has its own."""
        return None

    @property
    def locks(self) -> list[Lock]:
        """What a thread may hold in the middle of an operation."""
        return [self.lock]

    def save(self, dying: bool = False) -> None:
        """Save what is not in any cache; ``dying``: without waiting for anything."""
        self.save_summary()

    def close(self) -> None:
        """Let go of the files. What is to be saved was saved before."""
        with self.lock:
            self._reopens = False
            if self.writable and self.db is not None:
                # (where it cannot be done, what is in the log is saved all the same)
                with suppress(PersistentOrderedDictException):
                    self._look()
                    self.merge()
                    self.save_summary()
            self._close_files()

    def _close_files(self) -> None:
        self.snapshot = self.buffer_snapshot = None
        self._close_engine()
        self._files.release()

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
        self.wal = self.summary = None
        self._close_engine()
        self._files.leave_to_parent()
        self._reopens = True
        self._may_write = self._alone = self.writable = False
        self.transient = True
        for cache in self.caches:
            cache.forget()

    def leave_to_parent(self) -> None:
        """Give the store up in a forked child, because a thread of the parent has ended inside a block."""

    def close_for_good(self) -> None:
        """Refuse every use of the store, without opening or closing anything."""

    # Whether the files are there

    def is_gone(self) -> bool:
        """Whether the files are not those any more that were opened."""
        return self._files.are_gone()

    def check_files(self) -> None:
        """An error when the files are not those any more that were opened."""
        self._files.check()

    def follow_files(self) -> None:
        """Before something is read, now and then: go on with the files that are at the path now. Who may write gets an
        error where they are others."""
        self.end_reading()
        if self.options.mode == "w":
            self.check_files()
        elif self.db is not None and self._files.are_behind(self.db):
            self.reopen_engine()

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
        return engine.damaged(self.path, reason)

    def translated(self, error: Exception) -> Exception:
        """The engine's error as one of ours; any other as it is."""
        return engine.translated(self.path, error)
