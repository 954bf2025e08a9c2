"""Open a store that several processes read and write at once.

Each read operation uses its own snapshot, because any process may have written since the last one. Writes go through
``transaction``, the write transaction of this process. Only one process at a time has its transaction open. Two
things are there only in a shared store: the claims of workers on tasks, in LMDB's main database (see ``claim_record``),
and the file ``undo``, with what the changed keys held at the last sync (see ``before_images``).

A thread that needs both locks acquires the lock of the transaction first, and then the lock of the store. The opposite
order in another thread would be a deadlock.
"""

from __future__ import annotations

import errno
import os
import warnings
from contextlib import suppress
from typing import Any

from tastypy_fast._core.before_images import BeforeImages
from tastypy_fast._core.interrupts import call_undisturbed
from tastypy_fast._core.locks import Lock
from tastypy_fast._core.status_summary import SUMMARY_KEY
from tastypy_fast._core.sync_schedule import monotonic
from tastypy_fast._lmdb import boot_id, engine, flush_points
from tastypy_fast._lmdb.engine import EngineBroken, MapResized, ReadersFull
from tastypy_fast._lmdb.file_locks import SharedLock
from tastypy_fast._lmdb.flush_points import FlushPoints
from tastypy_fast._lmdb.network_fs import callers_level
from tastypy_fast._lmdb.safe_files import open_regular
from tastypy_fast._lmdb.store_dir import DATA, TURN, creation_error
from tastypy_fast._shared.hold import Hold
from tastypy_fast._shared.undo_log import UndoLog
from tastypy_fast._shared.worker import Worker
from tastypy_fast._shared.write_transaction import OPERATION, WriteTransaction
from tastypy_fast._shared.writer_lock import WriterLock
from tastypy_fast._store.live_workers import stop_slot
from tastypy_fast._store.options import FORMAT, Options
from tastypy_fast._store.store import Store, do_nothing
from tastypy_fast.exceptions import (
    PersistentOrderedDictException,
    StorageError,
    StoreConflictError,
    UnsafeFileError,
)

__all__ = ["SharedStore"]

# How long, in microseconds, the end of the program waits for another thread's block.
EXIT_BLOCK_TIMEOUT_US = 1_000_000
# Seconds after the first commit that was not flushed at which the background thread flushes.
FLUSH_AFTER = 1.0
# The entry of ``meta`` with the durability that all processes use: the option, and the level that it comes to here.
LEVEL = b"durability"

# Paths at which flush points are not possible, and this was said.
_warned: set[str] = set()


class SharedStore(Store):
    """One store that this process shares with others."""

    def __init__(self, path: str, options: Options) -> None:
        self.transaction = WriteTransaction(path, options.gzipped, self)
        # The undo log in the current snapshot. ``transaction.undo_log`` is the one of the write transaction.
        self.undo_log = UndoLog(self)
        # Set by the first claim or hold.
        self.worker: Worker | None = None
        self._hold = Hold(self.transaction)
        self._opened_to_write = False
        # The flush points, open while LMDB is. They are used only where ``_level`` is "process".
        self._points: FlushPoints | None = None
        self._flush_due: float | None = None
        super().__init__(path, options)

    # Opening and closing

    def _take_files(self) -> bool:
        claim = self._files.owner_lock = SharedLock(self.path)
        return claim.alone

    # Flush points

    def _prepare_flush_points(self) -> None:
        if self._level == "process" and boot_id.boot_id() is None:
            self._flush_each_commit("this system has no number for its boot")
        if self._level != "process":
            super()._prepare_flush_points()

    def _flush_each_commit(self, reason: str) -> None:
        """Work at the level "normal", because flush points are not possible."""
        self._set_level("normal")
        if self.path not in _warned:
            _warned.add(self.path)
            warnings.warn(f"each commit to the store at {self.path} is flushed, which is slower, because {reason}",
                          RuntimeWarning, stacklevel=callers_level())

    def _open_points(self) -> None:
        """Open what has to be open before LMDB."""
        if self._level == "process":
            if self._points is None:
                self._points = FlushPoints(self.path, boot_id.boot_id() or bytes(16))
            self._points.open()

    def _after_opening_engine(self) -> None:
        if self._level == "process" and self._alone:
            assert self._points is not None
            if self._points.has_layout(self.db):
                self._points.begin()
                return
            self._close_engine()
            self._close_flush_points()
            self._flush_each_commit("LMDB's lock file has another layout than this version knows")
            flush_points.remove_notes(self.path)
            self.db = self._files.open_engine(False)

    def _check_meta(self) -> None:
        super()._check_meta()
        if not self._alone:
            with self.db.begin(db=self.meta) as txn:
                if int(txn.get(b"format")) < FORMAT:
                    raise StoreConflictError(
                        f"other processes have {self.path} open with an older version of tastypy_fast, which keeps the "
                        f"claims and the undo log elsewhere; close them, or use the same version in all of them"
                    )
                self._join_level((txn.get(LEVEL) or b"").decode("ascii", "replace"))

    def _join_level(self, noted: str) -> None:
        """Work at the level of the other processes. Raises StoreConflictError if the option is another one."""
        option, _, level = noted.partition(" ")
        if option != self.options.durability:
            raise StoreConflictError(
                f"other processes have {self.path} open with durability={option!r}, not "
                f"{self.options.durability!r}. Pass the same durability in all of them"
            )
        self._set_level(level)
        if level == "process":
            if self._points is None or boot_id.boot_id() is None or not self._points.has_layout(self.db):
                raise StorageError(errno.ENOTSUP, "other processes use flush points, which this process cannot: its "
                                   "version of LMDB or its view of the system differs", self.path)
            self._points.join()

    def _keep_slot(self) -> None:
        if self._level == "process":
            assert self._points is not None
            self._points.keep_slot()

    def _close_flush_points(self) -> None:
        points, self._points = self._points, None
        if points is not None:
            points.close()

    def _leave_flush_points(self) -> None:
        points, self._points = self._points, None
        if points is not None:
            points.leave_to_parent()

    def flush_refused(self) -> PersistentOrderedDictException:
        """Return the error for a write after a failed flush, or without a slot that protects the flush point."""
        if self._points is None:
            return StorageError(errno.EBADF, f"the store at {self.path} is closed")
        return self._points.refused()

    def begin_waiting(self) -> None:
        """Note that something was committed after the last flush point."""
        self._flush_due = monotonic() + FLUSH_AFTER
        self.wake_background()

    def flush_waiting(self, very_much: bool) -> None:
        """Let the background thread flush now, because much is waiting. If ``very_much`` is waiting, flush here."""
        if very_much:
            self.flush()
            return
        now = monotonic()
        if self._flush_due is None or self._flush_due > now:
            self._flush_due = now
            self.wake_background()

    def flush(self) -> None:
        if self._level != "process":
            # LMDB refuses to flush files that were opened to be read, or are opened now. This process has committed
            # nothing then.
            if self.db is not None and self._opened_to_write:
                super().flush()
            return
        points = self._points
        if points is None:
            raise StorageError(errno.EBADF, f"the store at {self.path} is closed")
        # Not after the flush, because another thread may commit meanwhile.
        self._flush_due = None
        self.transaction.waits = False
        points.flush()

    def background_due(self) -> float | None:
        return self._flush_due

    def run_background(self, at_once: bool = False) -> None:
        # A flush takes no lock of this store, so that a block of another thread or process does not delay it.
        due = self._flush_due
        if due is not None and (at_once or monotonic() >= due) and self._points is not None:
            # After an error every write, sync() and close() raises, and says why.
            with suppress(StorageError):
                self.flush()

    def _rewrite_metas(self) -> None:
        if self._alone:
            super()._rewrite_metas()
            return
        self.transaction.flush_failed = True
        self.transaction.perform(OPERATION, do_nothing)
        self._flush_failed = False

    def _begin_alone(self) -> None:
        super()._begin_alone()
        self._attach_databases()
        assert isinstance(self._files.owner_lock, SharedLock)
        self._alone = False
        self._files.owner_lock.share()

    def _remove_leftovers(self) -> None:
        """Apply the write-ahead log, which a shared store does not use, and remove what earlier processes left."""
        self.checkpoint()
        self.wal = None
        self.write(self._drop_leftovers)

    def _drop_leftovers(self, txn: Any) -> None:
        super()._drop_leftovers(txn)
        # A shared store does not keep the summary of its status blocks up to date.
        txn.delete(SUMMARY_KEY, db=self.meta)
        noted = f"{self.options.durability} {self._level}".encode()
        if txn.get(LEVEL, db=self.meta) != noted:
            txn.put(LEVEL, noted, db=self.meta)

    def _open_database_files(self, readonly: bool) -> None:
        # Open the files to write only for the first write. For this, LMDB acquires its mutex, which another process may
        # hold for a long block.
        self._opened_to_write = not readonly
        self._open_points()
        super()._open_database_files(readonly)

    def _open_databases(self) -> None:
        super()._open_databases()
        if not self._alone:  # a process that is alone creates them in _begin_alone()
            self._attach_databases()

    def _attach_databases(self) -> None:
        self.claims = self.db.open_db(None)
        if self._alone or self.images is None:
            self.images = BeforeImages(self.path, self._alone)
        self.transaction.attach_databases(self, self._opened_to_write)
        points = self._points if self._level == "process" else None
        if points is not None:
            self.transaction.attach_flush_points(points.slot, points.notes)
        # Another process may have commits that are not on disk yet.
        self._unflushed = self._level != "full"

    @property
    def block_lock(self) -> Lock:
        return self.transaction.lock

    @property
    def locks(self) -> list[Lock]:
        return [self.transaction.lock, self.lock]

    def save(self, dying: bool = False, waits: bool = True) -> None:
        """Release all claims of this process, and sync.

        With ``dying``, skip this if another thread is in a block, because the other processes detect that this one is
        dead. Otherwise, wait a second for the block, and then raise StorageError. Unless it ``waits``, treat a block of
        another process the same way.
        """
        lock = self.transaction.lock
        if self.db is None or (dying and lock.is_mine() and self.transaction.snapshot is not None):
            return
        if not (lock.try_acquire() if dying else lock.acquire_within(EXIT_BLOCK_TIMEOUT_US)):
            # Another thread is in a block, or has died in one. Nothing of that block is ever committed.
            self.flush()
            if not dying:
                raise StorageError(errno.EBUSY, "another thread is still inside a block, which is rolled back; end all "
                                   "blocks before the program ends", self.path)
            return
        try:
            # Commit the blocks that the end of the program has interrupted.
            if self.transaction.snapshot is not None:
                # Ctrl-C in a commit would roll the block back.
                call_undisturbed(self.transaction.end_all_blocks)
            self.transaction.is_patient = waits
            self._end_worker()
            self.sync()
        except StorageError as error:
            if waits or error.errno != errno.EBUSY:
                raise
            self.flush()
            if not dying:
                raise
        finally:
            self.transaction.is_patient = True
            lock.release()

    def _close_files(self) -> None:
        if self.db is not None and self.transaction.cache is not None:
            # If this fails, other processes recover the claims, because they detect that this worker is dead.
            with suppress(PersistentOrderedDictException):
                self.save(dying=True)
        self._drop_worker()
        self.transaction.close()
        if self.images is not None:
            self.images.close()
        super()._close_files()

    # Fork: the registry acquires the locks of all transactions before it, and releases them after it.

    def leave_to_parent(self) -> None:
        """Give the store up in a forked child, because a thread of the parent has ended inside a block.

        Call this before everything else, because LMDB's environment can then be neither closed nor opened again.
        """
        self.transaction.leave_to_parent(self.db)
        self.db = None

    def close_for_good(self) -> None:
        """Refuse every use of the store, without opening or closing anything."""
        self._reopens = False
        self.transaction.close()

    def after_fork_in_child(self) -> None:
        """Prepare a forked child to open the files itself, so that it shares the store as any other process does."""
        super().after_fork_in_child()
        self._may_write = True
        self.forked_from = 0
        # The parent flushes what it has written. Without files, the child's thread would find it due for ever.
        self._flush_due = None
        self.transaction.reset()
        self._drop_worker()

    # Writing

    def open_writer_lock(self) -> WriterLock:
        """Open the file of the writer lock."""
        try:
            name, model = os.path.join(self.path, TURN), os.path.join(self.path, DATA)
            return WriterLock(open_regular(name, os.O_RDWR | os.O_CREAT, model))
        except UnsafeFileError:
            raise
        except OSError as error:
            raise creation_error(error, self.path, "nothing can be written", TURN) from error

    def prepare_writing(self, error: Exception) -> None:
        """Remove the cause of an error with which LMDB refused a write transaction, or raise the error.

        The caller holds the transaction's lock.
        """
        if self.transaction.db is None or self.db is None:
            with self.lock:
                self._open_to_write()
        elif isinstance(error, MapResized):
            self._adopt_map()
        elif isinstance(error, ReadersFull):
            self.db.reader_check()
        elif isinstance(error, EngineBroken):
            with self.lock:
                self._open_to_write()
        else:
            self.reraise(error)

    def _open_to_write(self) -> None:
        if self.db is None and not self._reopens:
            raise StorageError(errno.EBADF, f"the store at {self.path} is closed")
        # If opening fails, the next operation tries again.
        self._reopens = True
        self.end_reading()
        self._close_engine()
        self._open_database_files(readonly=False)

    def sync(self) -> None:
        """Flush to disk, and make the current state the restore point of ``revert()``."""
        self.check_files()
        self.transaction.perform(OPERATION, self.transaction.sync)

    def sync_at_close(self) -> StorageError | None:
        """Sync. After a failed flush return the error, because only closing the store leads out of that."""
        try:
            self.sync()
        except StorageError as error:
            if self._points is None or not self._points.has_failed():
                raise
            return error
        return None

    def _adopt_map(self) -> None:
        # Hold the lock of the transaction, because the map must not move while another thread begins one.
        depth = self.lock.suspend() if self.lock.is_mine() else 0
        try:
            with self.transaction.lock, self.lock:
                self.end_reading()
                engine.adopt_map_size(self.path, self.db)
        finally:
            if depth:
                self.lock.resume(depth)

    def reopen_engine(self) -> None:
        # Acquire the locks in the order of _adopt_map().
        depth = self.lock.suspend() if self.lock.is_mine() else 0
        try:
            with self.transaction.lock:
                super().reopen_engine()
        finally:
            if depth:
                self.lock.resume(depth)

    def grow(self) -> None:
        """Grow the map between two transactions."""
        with self.transaction.lock, self.lock:
            self.end_reading()
            engine.grow_map(self.path, self.db)

    # The worker and its hold. All but _drop_worker() and _end_worker() run inside the write transaction.

    def open_worker(self) -> Worker:
        """Return the worker of this process. The first call creates it."""
        worker = self.worker
        if worker is None:
            self.save_at_exit()
            worker = Worker(self.transaction)
            self.transaction.attach_worker(worker.number, worker.worker_slots)
            self.worker = worker
            worker.recover_claims()
        return worker

    def _end_worker(self) -> None:
        """Release the worker's claims and its hold. The next claim creates another worker."""
        worker = self.worker
        if worker is not None:
            self.transaction.perform(OPERATION, self._release_all, worker)
            self.worker = None
            self.transaction.detach_worker()
            worker.end()

    def _release_all(self, worker: Worker) -> None:
        self._hold.remove(worker.number)
        worker.release_all()

    def _drop_worker(self) -> None:
        """Close the worker file, and leave its claims and its hold on disk."""
        if self.worker is not None:
            self.transaction.detach_worker()
            self.worker.leave_to_parent()
            self.worker = None

    def stop_slot_of(self, worker: int, slot: int, position: int) -> bool:
        """Stop another worker from yielding a task that it claimed. Returns False if it may have yielded the task."""
        return stop_slot(self.path, worker, slot, position)

    def suspend_sync(self) -> None:
        """Suspend the automatic sync of all processes while this one lives."""
        self._hold.add(self.open_worker().number)
        self.transaction.postpone_sync()

    def resume_sync(self) -> None:
        """End the holds of all processes. The automatic sync is possible again with the next transaction."""
        self._hold.clear()
        self.transaction.postpone_sync()

    def sync_if_due(self, sync_at: int) -> None:
        """Sync if ``sync_at`` keys or more have changed, and no process suspends the automatic sync."""
        if not self._hold.is_recorded() and self.transaction.undo_log.count() >= sync_at:
            self.sync()

    def is_sync_held(self) -> bool:
        """Return whether a living process suspends the automatic sync."""
        return self._hold.is_active()

    # Errors

    def aborted_earlier(self, error: Exception) -> StorageError:
        """Return the error for an operation in a block whose transaction was ended by ``error``."""
        reason = "it needs more room than the map has left" if isinstance(error, engine.MapFull) else str(error)
        return StorageError(
            errno.EIO, f"an operation in this block has failed ({reason}), so nothing of the block can be kept; "
            f"leave the block and run it again", self.path
        )

    def translated(self, error: Exception) -> Exception:
        return engine.translated(self.path, error, "no process sees anything of it: free some space and do it again")
