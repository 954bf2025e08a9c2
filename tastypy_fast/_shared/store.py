"""One store as this process shares it with others.

Reading goes through a snapshot of its own for each operation, as everything that others may write. Writing goes
through the ``transaction``, the only one that may be open among all processes. What else is on disk then:

    images   order number  ->  what the last sync left there (its status and record; empty: nothing)
    claims   order number  ->  which worker has the task in hand

Whoever needs both locks takes the transaction's first and then the environment's.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from tastypy_fast._core.store_base import Lock
from tastypy_fast._lmdb import engine
from tastypy_fast._lmdb.engine import EngineBroken, MapResized, ReadersFull
from tastypy_fast._lmdb.file_locks import SharedLock
from tastypy_fast._lmdb.safe_files import open_regular
from tastypy_fast._lmdb.store_dir import DATA, TURN, not_made
from tastypy_fast._shared.hold import Hold
from tastypy_fast._shared.write_transaction import OPERATION, WriteTransaction
from tastypy_fast._shared.writer_lock import WriterLock
from tastypy_fast._store.options import Options
from tastypy_fast._store.store import Store
from tastypy_fast._store.worker_files import stops
from tastypy_fast.exceptions import PersistentOrderedDictException, StorageError, UnsafeFileError

if TYPE_CHECKING:
    from tastypy_fast._shared.worker import Worker

__all__ = ["SharedStore"]

# How long, in microseconds, the end of the program waits for a block that another thread is in.
PATIENCE = 1_000_000


class SharedStore(Store):
    """One store, opened by this process and others."""

    def __init__(self, path: str, options: Options) -> None:
        self.transaction = WriteTransaction(path, options.gzipped, self)
        # This process as a worker on the tasks of a tracker, or as one that holds the automatic sync.
        self.worker: Worker | None = None
        self.hold = Hold(self)
        self._opened_to_write = False
        super().__init__(path, options)

    # Opening and closing

    def _take_files(self) -> bool:
        claim = self._files.claim = SharedLock(self.path)
        return claim.alone

    def _begin_alone(self) -> None:
        super()._begin_alone()
        self._attach_databases()
        assert isinstance(self._files.claim, SharedLock)
        self._alone = False
        self._files.claim.share()

    def _open_database_files(self, readonly: bool) -> None:
        # Only for reading as long as that is enough: LMDB takes the lock of all writers to open databases for writing,
        # and one of them may be in a long block.
        self._opened_to_write = not readonly
        super()._open_database_files(readonly)

    def _open_databases(self) -> None:
        super()._open_databases()
        if not self._alone:  # who is alone may have to make them first
            self._attach_databases()

    def _attach_databases(self) -> None:
        self.images, self.claims = self._open_shared_databases()
        for name in ("values", "order", "status", "meta", "images", "claims"):
            setattr(self.transaction, name, getattr(self, name))
        self.transaction.db = self.db if self._opened_to_write else None
        # Any process may have written something that only the system has so far.
        self._unflushed = self.options.durability != "full"

    @property
    def transaction_lock(self) -> Lock:
        return self.transaction.lock

    @property
    def locks(self) -> list[Lock]:
        return [self.transaction.lock, self.lock]

    def save(self, dying: bool = False) -> None:
        """Give back what this process has claimed, and have everything on the disk, as by ``sync()``.

        ``dying``: leave to the others what cannot be had without waiting. They see that this process is gone. Without
        it, a block that another thread does not end soon is left alone, and StorageError says so.
        """
        lock = self.transaction.lock
        if self.db is None or (dying and lock.is_mine() and self.transaction.snapshot is not None):
            return
        if not (lock.try_acquire() if dying else lock.acquire_within(PATIENCE)):
            # A thread is in a block, or has ended in one. Nobody will see anything of it, as if it had been killed.
            self.flush()
            if not dying:
                raise StorageError(errno.EBUSY, "another thread is in a block still; nothing of it is kept", self.path)
            return
        try:
            # A block that the end of the program has cut short.
            self.transaction.end_all_blocks()
            if self.worker is not None:
                self.worker.end()
            self.sync()
        finally:
            lock.release()

    def _close_files(self) -> None:
        if self.db is not None and self.transaction.cache is not None:
            # (what is claimed falls to the others all the same)
            with suppress(PersistentOrderedDictException):
                self.save(dying=True)
        if self.worker is not None:
            self.worker.leave_to_parent()
            self.worker = None
        self.transaction.db = self.transaction.writer_lock = None
        self.transaction.closed = True
        super()._close_files()

    # Fork

    # (Around it, the registry takes the locks of all transactions and gives them back.)

    def leave_to_parent(self) -> None:
        """In a forked child, before all else: a thread of the parent's has ended in the middle of a block. The engine
        can be neither closed nor opened again, so that the store cannot be used here."""
        self.transaction.leave_to_parent(self.db)
        self.db = None

    def close_for_good(self) -> None:
        """Refuse every use of the store, without opening or closing anything."""
        self._reopens = False
        self.transaction.closed = True

    def after_fork_in_child(self) -> None:
        """A child shares the store as any other process does, once it has opened the files for itself."""
        super().after_fork_in_child()
        self._may_write = True
        self.forked_from = 0
        self.transaction.db = None
        self.transaction.forget()
        if self.worker is not None:
            self.worker.leave_to_parent()
            self.worker = None

    # Writing

    def open_writer_lock(self) -> WriterLock:
        """What this process waits with for its turn to write."""
        try:
            name, model = os.path.join(self.path, TURN), os.path.join(self.path, DATA)
            return WriterLock(open_regular(name, os.O_RDWR | os.O_CREAT, model))
        except UnsafeFileError:
            raise
        except OSError as error:
            raise not_made(error, self.path, "nothing can be written", TURN) from error

    def prepare_writing(self, error: Exception) -> None:
        """LMDB's write transaction could not be begun: have it right for the next time, or raise. The caller has the
        transaction's lock."""
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
            raise self.translated(error) from error

    def _open_to_write(self) -> None:
        if self.db is None and not self._reopens:
            raise StorageError(errno.EBADF, f"the store at {self.path} is closed")
        # (where it fails, the next one tries again)
        self._reopens = True
        self.end_reading()
        self._close_engine()
        self._open_database_files(readonly=False)

    def sync(self) -> None:
        """Make what is there now what ``revert()`` comes back to, and have it on the disk."""
        self.check_files()
        self.transaction.perform(OPERATION, self._sync)

    def _sync(self) -> None:
        transaction = self.transaction
        transaction.cache.sync(False)
        if transaction.snapshot.stat(self.images)["entries"]:
            transaction.drop_images()
            transaction.wrote = True
        transaction.flushes = True

    def _adopt_map(self) -> None:
        # No thread may be about to begin a transaction while the map moves.
        depth = self.lock.suspend() if self.lock.is_mine() else 0
        try:
            with self.transaction.lock, self.lock:
                self.end_reading()
                engine.adopt(self.path, self.db)
        finally:
            if depth:
                self.lock.resume(depth)

    def reopen_engine(self) -> None:
        # As in _adopt_map(): no thread may be about to begin a transaction.
        depth = self.lock.suspend() if self.lock.is_mine() else 0
        try:
            with self.transaction.lock:
                super().reopen_engine()
        finally:
            if depth:
                self.lock.resume(depth)

    def grow(self) -> None:
        """Make the map larger, between two transactions."""
        with self.transaction.lock, self.lock:
            self.end_reading()
            engine.grow(self.path, self.db)

    # Claims

    def stops_other(self, worker: int, lane: int, place: int) -> bool:
        """Whether a task that another worker has claimed was not handed out, and is not before it has had a
        transaction. The caller is in one."""
        return stops(self.path, worker, lane, place)

    # Errors

    def aborted_earlier(self, error: Exception) -> StorageError:
        """The error for what comes after one that has ended the transaction."""
        reason = "it needs more room than the map has left" if isinstance(error, engine.MapFull) else str(error)
        return StorageError(
            errno.EIO, f"an operation in this block has failed ({reason}), so that nothing of the block can be kept; "
            f"leave it and do it again", self.path
        )

    def translated(self, error: Exception) -> Exception:
        return engine.translated(self.path, error, "nothing of it is seen by anybody: free some space and do it again")
