"""Reading and writing the databases of an open store: snapshots, transactions, the log, flushing."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from tastypy_fast._core.status_summary import SUMMARY_KEY
from tastypy_fast._core.store_base import StoreBase
from tastypy_fast._lmdb import engine
from tastypy_fast._lmdb.engine import EngineBroken, EngineError, MapFull, MapResized, ReadersFull
from tastypy_fast._store.options import Options
from tastypy_fast.exceptions import (
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    StorageError,
)

__all__ = ["Access"]

T = TypeVar("T")

# What is merged in one transaction: so many changes, or bytes of them.
RUN = 1_000
RUN_BYTES = 4 << 20


class Access(StoreBase):
    """An open store, as far as what is in it goes."""

    options: Options
    # Whether the files are opened when they are needed: in a forked child, and where they had to be closed.
    _reopens = False
    _unflushed = False
    # A sync goes into the log if it would change as many places of the databases, and has no more bytes.
    wal_min_places = 64
    wal_max_bytes = 1 << 20
    # As many changes, or bytes of them, are in the log before they are merged.
    checkpoint_at = 50_000
    checkpoint_bytes = 16 << 20

    # What the whole environment knows

    def _open_database_files(self, readonly: bool) -> None:
        raise NotImplementedError

    def _close_engine(self) -> None:
        raise NotImplementedError

    def check_files(self) -> None:
        raise NotImplementedError

    def translated(self, error: Exception) -> Exception:
        raise NotImplementedError

    # Reading

    def reader_of_buffers(self) -> Any:
        """A read transaction beside the current one that hands out views of the map instead of copies."""
        if self.buffer_snapshot is None:
            self.buffer_snapshot = self.begin_reading(buffers=True)
        return self.buffer_snapshot

    def begin_reading(self, buffers: bool = False) -> Any:
        """A read transaction on what is on disk now."""
        if self.db is None:
            self._open_again()
        for _ in range(10):
            try:
                txn = self.db.begin(buffers=buffers)
                return txn if self.wal is None else self.wal.merged_view(txn, buffers)
            except MapResized:
                self._adopt_map()
            except ReadersFull:
                self._free_reader_slots()
            except EngineBroken:
                self.reopen_engine()
            except (EngineError, PersistentOrderedDictIntegrityError) as error:
                raise self.translated(error) from error
        raise StorageError(errno.EAGAIN, f"the map of {self.path} does not stop growing")

    def _open_again(self) -> None:
        """Open the files where they had to be closed."""
        if not self._reopens:
            raise StorageError(errno.EBADF, f"the store at {self.path} is closed")
        self._open_database_files(readonly=not self.writable)

    def _free_reader_slots(self) -> None:
        """The table of readers is full: free the slots of processes that were killed."""
        if not self.db.reader_check():
            text = f"{engine.MAX_READERS} readers have {self.path} open, and there may be no more"
            raise StorageError(errno.EAGAIN, text) from None

    def reopen_engine(self) -> None:
        """Close the engine and open it again, under the caches, which ask the disk anew. Where that fails, the next
        operation tries again."""
        with self.lock:
            self.end_reading()
            self._reopens = True
            self.disk_version += 1
            self.summary = None
            self._close_engine()
            self._open_again()

    def _adopt_map(self) -> None:
        """Another process has grown the map."""
        self.end_reading()
        engine.adopt_map_size(self.path, self.db)

    def end_reading(self) -> None:
        """Give the snapshot back; the next read takes the newest."""
        # (let go of first: an exception may come at any line, and an ended one must not be used again)
        open_ones = self.snapshot, self.buffer_snapshot
        self.snapshot = self.buffer_snapshot = None
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
        return self._look().stat(self.values)

    def _look(self) -> Any:
        """The current snapshot."""
        if self.snapshot is None:
            self.snapshot = self.begin_reading()
        return self.snapshot

    # Writing

    def write(self, work: Callable[[Any], T]) -> T:
        """Run ``work`` in a write transaction and commit it. Where the map is full or was grown by another
        process it runs again, so it changes nothing outside of the transaction."""
        with self.lock:
            self.check_files()
            while True:
                if self.db is None:
                    self._open_again()
                self.disk_version += 1
                try:
                    with self.db.begin(write=True) as txn:
                        result = work(txn)
                except MapFull:
                    self.end_reading()
                    engine.grow_map(self.path, self.db)
                except MapResized:
                    self._adopt_map()
                except EngineError as error:
                    if self._is_broken():
                        self.reopen_engine()
                    raise self.translated(error) from error
                else:
                    break
            self._unflushed = self.options.durability != "full"
            # The snapshot is older than what was just written.
            self.end_reading()
            return result

    def _is_broken(self) -> bool:
        """Whether the engine refuses everything from now on, because it could not write a meta page."""
        self.end_reading()
        try:
            self.db.begin().abort()
        except EngineBroken:
            return True
        except EngineError:
            pass
        return False

    def write_sync(self, work: Callable[[Any], object], scattered: int, size: int) -> None:
        """Run ``work``, which a sync consists of: where it changes ``scattered`` places, only in the log. ``size``: of
        how many bytes, about."""
        wal = self.wal
        if wal is None:
            self.write(work)
            return
        with self.lock:
            self._look()
            if size > self.wal_max_bytes or not (wal or scattered >= self.wal_min_places):
                self.checkpoint()
                self.write(work)
                return
            wal.apply(self.write(lambda txn: wal.append(txn, work)))
            if len(wal) >= self.checkpoint_at or wal.log_size >= self.checkpoint_bytes:
                self.checkpoint()

    def checkpoint(self) -> None:
        """Bring what is in the log into the databases. It takes several transactions, as one has all the pages that it
        changes in memory; the log is as true after each of them as before, and is emptied by the last."""
        wal = self.wal
        if not wal:
            return
        with self.lock:
            if len(wal) <= RUN and wal.log_size <= RUN_BYTES:
                self.write(self._checkpoint_all)
            else:
                for db, run in wal.sorted_runs(RUN, RUN_BYTES):
                    self.write(functools.partial(wal.checkpoint_run, db=db, run=run))
                self.write(wal.truncate)
            wal.reset()

    def _checkpoint_all(self, txn: Any) -> None:
        for db, run in self.wal.sorted_runs(RUN, RUN_BYTES):
            self.wal.checkpoint_run(txn, db, run)
        self.wal.truncate(txn)

    def save_summary(self) -> None:
        """Leave the heads of all blocks of statuses to who opens the store next, if they are known. (Who has only read
        writes nothing.) Where that cannot be done, the next one looks at the blocks."""
        with self.lock, suppress(PersistentOrderedDictException):
            if self.writable and self.disk_version and self.summary is not None and self.summary.is_current():
                summary = bytes(self.summary)
                if self._look().get(SUMMARY_KEY, db=self.meta) != summary:
                    self.write(lambda txn: txn.put(SUMMARY_KEY, summary, db=self.meta))
                    self.flush()

    def flush(self) -> None:
        """Wait until everything that was committed is on the disk."""
        if self._unflushed:
            try:
                if self.db is None:
                    self._open_again()
                self.db.sync(True)
            except EngineError as error:
                raise self.translated(error) from error
            self._unflushed = self.options.shared and self.options.durability != "full"
