"""Open a store: its databases, snapshots, write transactions, checkpoints, flushing and fork.

All instances on one path in this process share one Store. On disk a store has these LMDB databases:

    values   sequence number, 8 bytes  ->  record (key and value)
    order    encoded key               ->  sequence number
    status   block number              ->  the statuses of 500 tasks (trackers, see _core.status_block)
    meta     name                      ->  b"format", b"kind", b"file_size", b"next", b"heads" (_core.status_summary)
    log      number                    ->  write-ahead log of the first three (private stores, see _core.wal)
    meta     b"tries"                  ->  tries of tasks that killed a process before their first sync
    (main)   "~", sequence number      ->  claim of a worker (shared stores, see _core.claim_record)

A sequence number is never reused. ``next`` is written when the last rows are deleted, because the next number can then
no longer be derived from the largest number on disk.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from typing import Any, TypeVar

from tastypy_fast._core.claim_record import has_claims
from tastypy_fast._core.locks import Lock
from tastypy_fast._core.running_tasks import WAITING_TRIES, pack_tries, unpack_tries
from tastypy_fast._core.status_summary import SUMMARY_KEY
from tastypy_fast._core.status_writer import raise_tries, release_claims
from tastypy_fast._core.store_base import StoreBase
from tastypy_fast._core.wal import WriteAheadLog
from tastypy_fast._core.write_cache import WriteCache
from tastypy_fast._lmdb import engine, flush_notes, flush_points, memory_fs, network_fs, store_dir
from tastypy_fast._lmdb.engine import EngineBroken, EngineError, MapFull, MapResized, NotFound, ReadersFull
from tastypy_fast._lmdb.file_locks import OwnerLock, SharedLock
from tastypy_fast._lmdb.page_format import NUMBER
from tastypy_fast._lmdb.safe_files import open_regular
from tastypy_fast._lmdb.store_dir import CLAIM_PREFIX, UNDO
from tastypy_fast._store.live_workers import find_orphaned_claims
from tastypy_fast._store.open_files import OpenFiles
from tastypy_fast._store.options import FORMAT, KINDS, Options, check_meta
from tastypy_fast._store.running_file import RunningFile, read_running, remove_running
from tastypy_fast._store.stored_claims import OLD_DATABASES, move_old_claims
from tastypy_fast.exceptions import (
    ForkedStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    ReadOnlyStoreError,
    StorageError,
    StoreConflictError,
)

__all__ = ["Store"]

T = TypeVar("T")

# The largest number of changes and bytes that one transaction of a checkpoint writes. A limit is needed, because LMDB
# keeps all pages that a transaction changes in memory.
CHECKPOINT_RUN = 1_000
CHECKPOINT_RUN_BYTES = 4 << 20
# The number of records from which on a checkpoint waits for more changes of the index.
CHECKPOINT_GROWS_FROM = 1_000_000
# How often a read transaction is tried while other processes grow the map.
READ_ATTEMPTS = 10
# How long the background thread waits for another thread's operation before it tries again.
BACKGROUND_LOCK_TIMEOUT_US = 50_000


def do_nothing() -> None:
    """Do nothing. The registry replaces this function."""


class Store(StoreBase):
    """One store that this process has open, private or read-only. SharedStore derives from it."""

    # A sync goes into the write-ahead log if it changes at least this many places in the databases, and has at most
    # this many bytes.
    wal_min_places = 64
    wal_max_bytes = 1 << 20
    # The log is checkpointed when it has this many changes or bytes. Beyond a million records, the number of changes of
    # the index grows with the store up to a limit. There each page of the index gets several of the additional changes,
    # but each record still lies in a page of its own. 150,000 changes of the index take 30 MB in the memtable.
    checkpoint_at = 50_000
    checkpoint_at_most = 150_000
    checkpoint_bytes = 16 << 20

    def __init__(self, path: str, options: Options) -> None:
        self.path = path
        self.options = options
        self.gzipped = options.gzipped
        self.caches: dict[WriteCache, int] = {}
        self.shared_cache: WriteCache | None = None
        self._may_write = options.mode == "w"
        self.writable = self._may_write and not options.shared
        self.snapshot_per_op = not self.writable
        # The process that opened the store, if this one is its forked child.
        self.forked_from = 0
        # Whether closed files are opened again when they are needed, as in a forked child.
        self._reopens = False
        # Whether no other process writes. This is so for a private writer, and for a shared one while it opens alone.
        self._alone = False
        # The level at which the store works: it may differ from the option, see _open() and SharedStore.
        self._level = options.durability
        # Whether a flush has failed, so that the kernel takes a meta page that it should have written for clean.
        self._flush_failed = False
        self.db = None
        self.buffer_snapshot = None
        # Whether there may be commits that are not on the disk yet.
        self._unflushed = False
        # Registers this process, which may be a forked child, for saving at its end.
        self.save_at_exit: Callable[[], None] = do_nothing
        self.wake_background = do_nothing
        self._running_file: RunningFile | None = None
        # Held by the thread that is in run() on this store.
        self.run_lock = threading.Lock()
        self._files = OpenFiles(path, options)
        self._open()

    # Opening

    def _open(self) -> None:
        try:
            self._files.prepare()
            network_fs.warn_once(self.path)
            in_memory = self.options.durability == "process" and memory_fs.is_in_memory(self.path)
            self._set_level("unsafe" if in_memory else self.options.durability)
            self._alone = alone = self._take_files()
            if alone or not self._may_write:
                flush_points.recover(self.path, self._files.is_exclusive(), self._may_write)
                if alone:
                    self._prepare_flush_points()
                store_dir.check_data_file(self.path, alone)
            # A flush may have failed when another process began the store.
            is_new = self._flush_failed = alone and not store_dir.was_complete(self.path)
            self._open_database_files(readonly=not alone)
            if is_new:
                # Before the owner writes its name, which says that the store is complete.
                store_dir.flush_folder(self.path, required=True)
            if alone:
                self._begin_alone()
        except BaseException as error:
            self._close_files()
            if isinstance(error, OSError) and not isinstance(error, PersistentOrderedDictException):
                raise store_dir.opening_error(error, self.path, self._may_write) from error
            raise

    def _set_level(self, level: str) -> None:
        self._level = level
        # Flush points protect commits that are not flushed.
        self._files.durability = "unsafe" if self.options.shared and level == "process" else level
        # A sync at these levels is on the disk, which a commit does not see to by itself: "unsafe" leaves it in the
        # system's memory, and the flags of "normal" leave the meta page there.
        self.flushes_each_sync = level in ("process", "unsafe")

    def _take_files(self) -> bool:
        """Acquire the owner lock if this process writes, and return whether no other process has the store."""
        if self._may_write:
            self._files.owner_lock = OwnerLock(self.path)
        return self._may_write

    def _prepare_flush_points(self) -> None:
        """Remove the flush points of a shared store, which are not kept up here. Nothing was written yet."""
        flush_points.remove_notes(self.path)

    def forget_durability(self) -> None:
        """Show no durability for this store until it is opened again, because everything in it is on disk."""
        assert isinstance(self._files.owner_lock, OwnerLock)
        self._files.owner_lock.write_name("")

    def _after_opening_engine(self) -> None:
        """Do what comes after the opening of LMDB, and before the first transaction."""

    def _keep_slot(self) -> None:
        """Set the slot of the flush point again, which ``reader_check()`` may have removed."""

    def _begin_alone(self) -> None:
        """Remove the leftovers of earlier processes. Only the first process on a store calls this."""
        assert isinstance(self._files.owner_lock, (OwnerLock, SharedLock))
        self._files.owner_lock.write_name(self.options.durability)
        self.db.reader_check()
        self._keep_slot()
        self._remove_leftovers()
        if self.options.kind == b"tracker":
            self._count_tries_of_killed()

    def _remove_leftovers(self) -> None:
        """Remove what processes that shared the store have left. SharedStore does more."""
        with self.db.begin() as txn:
            was_shared = (
                has_claims(txn, self.db.open_db(None))
                or txn.get(b"held", db=self.meta) is not None
                or any(txn.get(name) is not None for name in OLD_DATABASES)
            )
        if was_shared:
            self.write(self._drop_leftovers)
        with suppress(OSError):
            os.unlink(os.path.join(self.path, UNDO))

    def _count_tries_of_killed(self) -> None:
        """Count the tries of the tasks that a killed process was running, and read those that wait for their tasks."""
        with self.db.begin() as txn:
            self.waiting_tries = unpack_tries(txn.get(WAITING_TRIES, db=self.meta))
        running = read_running(self.path)
        if running:
            # The log may have statuses of these tasks that are not in the blocks yet.
            self.checkpoint()
            self.write(functools.partial(self._raise_tries, running=running))
            self.flush()
        remove_running(self.path)

    def _raise_tries(self, txn: Any, running: list[tuple[bytes, int]]) -> None:
        waiting = dict(self.waiting_tries)
        found: dict[int, int] = {}
        for key, tries in running:
            seq = txn.get(key, db=self.order)
            if seq is not None:
                number = NUMBER.unpack(seq)[0]
                found[number] = max(tries, found.get(number, tries))
            else:
                waiting[key] = max(tries, waiting.get(key, tries))
        raise_tries(txn, self.status, found)
        txn.delete(SUMMARY_KEY, db=self.meta)
        if waiting:
            txn.put(WAITING_TRIES, pack_tries(waiting), db=self.meta)
        self.waiting_tries = waiting

    def open_running_tasks(self) -> None:
        """Create the file in which a killed process leaves the tasks that it was running."""
        self._running_file = RunningFile(self.path)
        self.running_tasks = self._running_file.tasks

    def _drop_leftovers(self, txn: Any) -> None:
        """Release the claims of dead workers, and end the holds."""
        claims = self.db.open_db(None, txn=txn)
        move_old_claims(self.db, txn, claims)
        if has_claims(txn, claims):
            release_claims(txn, self.status, claims, find_orphaned_claims(txn, claims, self.path))
        txn.delete(b"held", db=self.meta)

    def _open_database_files(self, readonly: bool) -> None:
        try:
            self.db = self._files.open_engine(readonly)
            self._after_opening_engine()
            while True:
                try:
                    self._open_databases()
                    return
                except MapResized:
                    # Another process has grown the map meanwhile.
                    engine.adopt_map_size(self.path, self.db)
                except ReadersFull:
                    self._free_reader_slots()
        except BaseException:
            self._close_engine()
            raise

    def _open_databases(self) -> None:
        try:
            with self.db.begin() as txn:
                # Their names are the first keys of the main database. Claims come after them.
                names = set(takewhile(CLAIM_PREFIX.__gt__, txn.cursor().iternext(values=False)))
            if not names:
                if not self._may_write:
                    raise store_dir.no_store_error(self.path)
                self._create()
            self.meta = self.db.open_db(b"meta", create=False)
            self._check_meta()
            self.values = self.db.open_db(b"values", create=False, integerkey=True)
            self.order = self.db.open_db(b"order", create=False)
            if self.options.kind == b"tracker":
                self.status = self.db.open_db(b"status", create=False, integerkey=True)
            self.wal = None
            if not self.options.shared or self._alone:
                self._open_wal(create=b"log" not in names and self._alone)
            with self.db.begin() as plain:
                txn = plain if self.wal is None else self.wal.merged_view(plain)
                if txn.stat(self.values)["entries"] != txn.stat(self.order)["entries"]:
                    raise self.damaged("the index has more or fewer entries than there are records")
                self.next_seq = max(self.next_seq, self.next_number(txn))
        except (MapResized, ReadersFull):
            raise
        except (EngineError, PersistentOrderedDictIntegrityError, struct.error) as error:
            self.reraise(error)

    def _open_wal(self, create: bool) -> None:
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
        """Return the sequence number after the last one that any row ever had."""
        cursor = txn.cursor(self.values)
        last = NUMBER.unpack(cursor.key())[0] if cursor.last() else -1
        if last < 0 and cursor.key():
            raise self.damaged("a record has a negative sequence number")
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

        # After this flush, a power cut leaves at least an empty environment. Before it, the file has no page with data.
        self._unflushed = True
        self.flush()
        self.write(work)
        self.flush()

    def _check_meta(self) -> None:
        with self.db.begin(db=self.meta) as txn:
            found = {name: txn.get(name) for name in (b"format", b"kind", b"file_size")}
        if found[b"kind"] not in KINDS or not (found[b"format"] or b"").isdigit():
            raise self.damaged("its format or kind cannot be read")
        check_meta(self.path, found, self.options)
        if self._alone and int(found[b"format"]) < FORMAT:
            # An older version would write without noting flush points, and one that was put back later would undo that.
            self.write(lambda txn: txn.put(b"format", str(FORMAT).encode(), db=self.meta))
        size = str(self.options.file_size).encode()
        if self._alone and found[b"file_size"] != size:
            self.write(lambda txn: txn.put(b"file_size", size, db=self.meta))

    def check_options(self, options: Options) -> None:
        """Raise an error if an instance with these options may not join the open store."""
        if self.forked_from and self.options.mode == "w":
            if options.mode == "w":
                raise self.refuse_write()
            return
        self.options.check_same(self.path, options)
        if self.is_gone():
            raise StoreConflictError(
                f"the files of the store at {self.path} were removed or replaced while this process has it open. "
                f"close() the open instances first"
            )

    def _open_again(self) -> None:
        """Open the files again after they were closed."""
        if not self._reopens:
            raise StorageError(errno.EBADF, f"the store at {self.path} is closed")
        self._open_database_files(readonly=not self.writable)

    def reopen_engine(self) -> None:
        """Close LMDB and open it again. The caches stay, and read the disk again.

        If this fails, the next operation tries again.
        """
        with self.lock:
            self.end_reading()
            self._reopens = True
            self.disk_version += 1
            self.summary = None
            self._close_engine()
            self._open_again()

    # Reading

    def begin_reading(self, buffers: bool = False) -> Any:
        """Begin a read transaction on the last commit. With ``buffers`` it returns views of the map, not copies."""
        if self.db is None:
            self._open_again()
        for _ in range(READ_ATTEMPTS):
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
                self.reraise(error)
        raise StorageError(errno.EAGAIN, f"other processes keep growing the map of {self.path}. Try again")

    def reader_of_buffers(self) -> Any:
        """Return a second snapshot, which returns views of the map instead of copies."""
        if self.buffer_snapshot is None:
            self.buffer_snapshot = self.begin_reading(buffers=True)
        return self.buffer_snapshot

    def end_reading(self) -> None:
        """End the snapshots. The next read begins a new one."""
        # Clear the fields first, because an interrupt may come at any line, and an ended transaction must not be used
        # again.
        open_ones = self.snapshot, self.buffer_snapshot
        self.snapshot = self.buffer_snapshot = None
        for txn in open_ones:
            if txn is not None:
                txn.abort()

    def _current_snapshot(self) -> Any:
        if self.snapshot is None:
            self.snapshot = self.begin_reading()
        return self.snapshot

    def count(self) -> int:
        """Return how many records are on disk."""
        return int(self._current_snapshot().stat(self.values)["entries"])

    def has_large_values(self) -> bool:
        """Return whether some values have pages of their own, so that reading a key need not read its value."""
        return bool(self._current_snapshot().stat(self.values)["overflow_pages"])

    def _free_reader_slots(self) -> None:
        """Free the reader slots of processes that were killed, because LMDB's reader table is full."""
        if not self.db.reader_check():
            text = f"{self.path} has {engine.MAX_READERS} readers, which is the limit. Close one and try again"
            raise StorageError(errno.EAGAIN, text) from None

    def _adopt_map(self) -> None:
        """Enlarge the map, because another process has grown the file."""
        self.end_reading()
        engine.adopt_map_size(self.path, self.db)

    # Writing

    def write(self, work: Callable[[Any], T]) -> T:
        """Call ``work`` with a write transaction, commit it, and return the result.

        ``work`` is called again if the map was full or if another process has grown it, so it must not change anything
        outside the transaction.
        """
        with self.lock:
            self.check_files()
            while True:
                if self.db is None:
                    self._open_again()
                self.disk_version += 1
                try:
                    with self.db.begin(write=True) as txn:
                        if self._flush_failed:
                            self._rewrite_with_lock()
                        result = work(txn)
                except MapFull:
                    self.end_reading()
                    engine.grow_map(self.path, self.db)
                except MapResized:
                    self._adopt_map()
                except EngineError as error:
                    self._flush_failed = True
                    if self._is_broken():
                        self.reopen_engine()
                    self.reraise(error)
                else:
                    break
            self._unflushed = self._level != "full"
            # End the snapshot, because it does not include this commit.
            self.end_reading()
            return result

    def _is_broken(self) -> bool:
        """Return whether LMDB refuses all transactions, because it could not write a meta page."""
        self.end_reading()
        try:
            self.db.begin().abort()
        except EngineBroken:
            return True
        except EngineError:
            pass
        return False

    def write_sync(self, work: Callable[[Any], object], scattered: int, size: int) -> None:
        """Call ``work`` to write a sync. If it changes many scattered places, append it to the write-ahead log.

        ``scattered`` is the estimated number of changed places in the databases, ``size`` that of written bytes.
        """
        wal = self.wal
        if wal is None:
            self.write(work)
            return
        with self.lock:
            # A snapshot replays the log, which the next lines read.
            self._current_snapshot()
            if size > self.wal_max_bytes or not (wal or scattered >= self.wal_min_places):
                self.checkpoint()
                self.write(work)
                return
            wal.apply(self.write(lambda txn: wal.append(txn, work)))
            if self._checkpoint_due(wal):
                self.checkpoint()

    def _checkpoint_due(self, wal: WriteAheadLog) -> bool:
        changes = len(wal)
        most = min(self.checkpoint_at * wal.count // CHECKPOINT_GROWS_FROM, self.checkpoint_at_most)
        return (
            changes >= max(self.checkpoint_at, most)
            or changes - wal.index_changes >= self.checkpoint_at
            or wal.log_size >= self.checkpoint_bytes
        )

    def checkpoint(self) -> None:
        """Write the changes in the log into the databases, and empty the log.

        A large log takes several transactions. Only the last one empties the log, so a crash in between loses nothing:
        applying a change twice has the same result.
        """
        wal = self.wal
        if not wal:
            return
        with self.lock:
            if len(wal) <= CHECKPOINT_RUN and wal.log_size <= CHECKPOINT_RUN_BYTES:
                self.write(self._checkpoint_at_once)
            else:
                for db, run in wal.sorted_runs(CHECKPOINT_RUN, CHECKPOINT_RUN_BYTES):
                    self.write(functools.partial(wal.checkpoint_run, db=db, run=run))
                self.write(wal.truncate)
            wal.reset()

    def _checkpoint_at_once(self, txn: Any) -> None:
        for db, run in self.wal.sorted_runs(CHECKPOINT_RUN, CHECKPOINT_RUN_BYTES):
            self.wal.checkpoint_run(txn, db, run)
        self.wal.truncate(txn)

    def save_summary(self) -> None:
        """Store the summary of the status blocks for the next process, if it is known.

        A process that has only read writes nothing. If this fails, the next process reads the blocks instead.
        """
        with self.lock, suppress(PersistentOrderedDictException):
            if self.writable and self.disk_version and self.summary is not None and self.summary.is_current():
                summary = bytes(self.summary)
                if self._current_snapshot().get(SUMMARY_KEY, db=self.meta) != summary:
                    self.write(lambda txn: txn.put(SUMMARY_KEY, summary, db=self.meta))
                    self.flush()

    def flush(self) -> None:
        """Wait until every commit is on the disk."""
        if self._unflushed:
            try:
                if self.db is None:
                    self._open_again()
                if self._flush_failed:
                    self._rewrite_metas()
                self.db.sync(True)
            except EngineError as error:
                self._flush_failed = True
                self.reraise(error)
            self._flush_failed = False
            self._unflushed = self.options.shared and self._level != "full"

    def _rewrite_metas(self) -> None:
        """Write the meta pages again after a failed flush, and flush them."""
        self.write(lambda txn: None)

    def _rewrite_with_lock(self) -> None:
        file = self.open_data_file()
        try:
            flush_notes.rewrite_metas(file)
        except OSError as error:
            raise self.not_rewritten(error.errno or errno.EIO) from error
        finally:
            os.close(file)
        self._flush_failed = False

    def open_data_file(self) -> int:
        """Open the data file to write the meta pages again. Closing it does not concern LMDB's locks."""
        return open_regular(os.path.join(self.path, store_dir.DATA), os.O_RDWR)

    def not_rewritten(self, number: int) -> PersistentOrderedDictException:
        """Return the error for meta pages that could not be written again after a failed flush."""
        return StorageError(number, f"the disk refuses to save the last commits again after a failed flush "
                                    f"({os.strerror(number)}). Nothing was written. sync() again", self.path)

    # The background thread

    def background_due(self) -> float | None:
        """Return when the background thread shall call ``run_background()``, in seconds of the monotonic clock."""
        return min((due for cache in list(self.caches) if (due := cache.sync_due)), default=None)

    def run_background(self, at_once: bool = False) -> None:
        """Sync the caches whose time has come; ``at_once`` all for which a sync is scheduled.

        Does nothing while another thread is in an operation, or if this thread is: background_due() stays as it is.
        """
        if self.lock.is_mine() or not self.lock.acquire_within(BACKGROUND_LOCK_TIMEOUT_US):
            return
        try:
            for cache in list(self.caches):
                cache.sync_when_due(at_once)
        finally:
            self.lock.release()

    # Closing

    @property
    def block_lock(self) -> Lock:
        """The lock that a thread holds during a ``locked()`` block, in which it may use, open and close any store."""
        return self.lock

    @property
    def locks(self) -> list[Lock]:
        """Return the locks that a thread may hold in the middle of an operation."""
        return [self.lock]

    def save(self, dying: bool = False, waits: bool = True) -> None:
        """Save the state that is in no cache.

        With ``dying``, do not wait for a block of another thread. Unless it ``waits``, nor for one of another process.
        """
        self.save_summary()

    def close(self) -> None:
        """Close the files. The caches were synced before."""
        with self.lock:
            self._reopens = False
            if self.writable and self.db is not None:
                # If the checkpoint fails, the changes stay in the log, which is on disk.
                with suppress(PersistentOrderedDictException):
                    self._current_snapshot()
                    self.checkpoint()
                    self.save_summary()
            self._close_files()

    def _close_files(self) -> None:
        self.snapshot = self.buffer_snapshot = None
        if self._running_file is not None:
            self._running_file.end()
            self._running_file = self.running_tasks = None
        self._close_engine()
        self._close_flush_points()
        self._files.release()

    def _close_flush_points(self) -> None:
        """Close what has to stay open until LMDB is closed."""

    def _close_engine(self) -> None:
        if self.db is not None:
            self.db.close()
            self.db = None

    # Fork

    def before_fork(self) -> None:
        """Acquire the lock and end the snapshots, so that no thread is in an operation while the process forks."""
        self.lock.acquire()
        self.end_reading()

    def after_fork_in_parent(self) -> None:
        """Allow operations again."""
        for cache in self.caches:
            cache.restart_schedule()
        self.lock.release()

    def after_fork_in_child(self) -> None:
        """Close LMDB, because a child must not use the inherited environment or open a second one next to it."""
        self.lock = Lock()
        self.forked_from = self.forked_from or os.getppid()
        self.wal = self.summary = None
        self._close_engine()
        self._leave_flush_points()
        self._files.leave_to_parent()
        if self._running_file is not None:
            self._running_file.leave_to_parent()
            self._running_file = self.running_tasks = None
        self._reopens = True
        self._may_write = self._alone = self.writable = False
        self.snapshot_per_op = True
        for cache in self.caches:
            cache.forget()

    def _leave_flush_points(self) -> None:
        """Close what has to stay open until LMDB is closed, in a forked child."""

    def leave_to_parent(self) -> None:
        """Give the store up in a forked child, because a thread of the parent has ended inside a block."""

    def close_for_good(self) -> None:
        """Refuse every use of the store, without opening or closing anything."""

    # The files at the path

    def is_gone(self) -> bool:
        """Return whether the files at the path are no longer those that were opened."""
        return self._files.are_gone()

    def check_files(self) -> None:
        """Raise an error if the files at the path are no longer those that were opened."""
        self._files.check()

    def follow_files(self) -> None:
        """Open the files that are at the path now, if they have changed. A store that is open to write raises then."""
        self.end_reading()
        if self.options.mode == "w":
            self.check_files()
        elif self.db is not None and self._files.are_behind(self.db):
            self.reopen_engine()

    # Errors

    def refuse_write(self) -> PersistentOrderedDictException:
        """Return the error for a write to a read-only store."""
        if self.forked_from and self.options.mode == "w":
            return ForkedStoreError(
                f"the store at {self.path} is private to process {self.forked_from}. This process ({os.getpid()}) is "
                f"its forked child and may only read. Use SharedPersistentOrderedDict or SharedProgressTracker if "
                f"several processes write"
            )
        return ReadOnlyStoreError(f'the store at {self.path} was opened with mode="r"; open it with mode="w" to write')

    def damaged(self, reason: object) -> PersistentOrderedDictIntegrityError:
        """Return the error for damaged files."""
        return engine.damaged(self.path, reason)

    def translated(self, error: Exception) -> Exception:
        """Return the exception of this package for an error of LMDB, or any other error as it is."""
        return engine.translated(self.path, error)
