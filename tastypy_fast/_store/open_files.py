"""Open the files of a store, lock them in a fixed order, and detect that they were removed or replaced."""

from __future__ import annotations

import errno
import os
from typing import Any

from tastypy_fast._lmdb import engine, store_dir
from tastypy_fast._lmdb.data_file import last_transaction
from tastypy_fast._lmdb.engine import EngineError, FilesReplaced, NotWritable
from tastypy_fast._lmdb.file_locks import DataLock, OwnerLock, ReaderLock, SharedLock, lock_file_removed
from tastypy_fast._lmdb.store_dir import DATA, LMDB_LOCK, OWNER, Identity
from tastypy_fast._store.options import Options
from tastypy_fast.exceptions import StorageError, StoreAccessError

__all__ = ["OpenFiles"]

# How often the files are opened again if they are replaced meanwhile.
OPENINGS = 100


class OpenFiles:
    """The files of one store, from opening to closing."""

    def __init__(self, path: str, options: Options) -> None:
        self._path = path
        self._options = options
        # A process that writes keeps its files. A process that reads follows the files at the path.
        self._writes = options.mode == "w"
        # The level of LMDB's flags, which may differ from the option.
        self.durability = options.durability
        self._data_lock: DataLock | None = None
        self.owner_lock: OwnerLock | ReaderLock | SharedLock | None = None
        self._identities: dict[str, Identity | None] = {}

    def prepare(self) -> None:
        """Create or find the folder and lock the data file."""
        if self._writes:
            store_dir.prepare_folder(self._path)
        else:
            store_dir.require_store(self._path)
        self._lock_data()

    def _lock_data(self) -> None:
        self._unlock_data()
        self._data_lock = DataLock(self._path, self._writes, engine.MAX_READERS)

    def is_exclusive(self) -> bool:
        """Return whether no other process has the store open, not even to read. True at most until LMDB is open."""
        return self._data_lock is not None and self._data_lock.exclusive

    def _unlock_data(self) -> None:
        if self._data_lock is not None:
            self._data_lock.release()
        self._data_lock = None

    def open_engine(self, readonly: bool) -> Any:
        """Open LMDB on the files that this process has locked.

        If the store was compacted or replaced meanwhile, a reader opens the new files, and a writer raises an error.
        """
        for _ in range(OPENINGS):
            now = store_dir.file_identities(self._path)
            if now[DATA] is None and not self._writes:
                raise store_dir.no_store_error(self._path)
            is_locked = self._data_lock is not None and self._data_lock.identity() == now[DATA] and (
                now[LMDB_LOCK] is not None or self._identities)
            if not is_locked and not isinstance(self.owner_lock, ReaderLock):
                self._lock_data()
                now = store_dir.file_identities(self._path)
            if self._writes:
                self._require_same(now)
            try:
                db = self._open_engine(readonly)
            except FilesReplaced:
                self._unlock_data()
                continue
            if store_dir.file_identities(self._path) | {OWNER: now[OWNER]} == now:
                self._identities = now
                if self._data_lock is not None:
                    self._data_lock.share()
                return db
            db.close()
            self._unlock_data()
        raise StorageError(errno.EAGAIN, "the files of this store are being replaced. Try again later", self._path)

    def _open_engine(self, readonly: bool) -> Any:
        durability = self.durability
        try:
            return engine.open_engine(self._path, durability, readonly)
        except NotWritable as error:
            if self._writes:
                text = f'this process may not write {LMDB_LOCK}; open the store with mode="r" if reading is enough'
                raise StoreAccessError(errno.EACCES, text, self._path) from error
        except EngineError as error:
            raise engine.not_opened(self._path, error, self._writes) from error
        # Keep writers out. This process has no slot in LMDB's reader table, so a writer would reuse the pages that it
        # reads.
        self.release()
        self.owner_lock = ReaderLock(self._path)
        try:
            return engine.open_engine(self._path, durability, readonly, lock=False)
        except EngineError as error:
            raise engine.not_opened(self._path, error, self._writes) from error

    def _require_same(self, now: dict[str, Identity | None]) -> None:
        """Raise an error if LMDB would open other files than those that this process has locked."""
        if now[LMDB_LOCK] is None:
            raise lock_file_removed(self._path, LMDB_LOCK)
        if self.owner_lock is not None and now[OWNER] not in (None, self.owner_lock.identity()):
            # Another process has opened the store meanwhile, and locked another file of this name.
            raise lock_file_removed(self._path, OWNER)
        if not self._identities:
            self._identities = now
        if any(now[name] != self._identities[name] for name in (DATA, LMDB_LOCK)):
            raise self._replaced(self._changed())

    # Changes of the files

    def are_gone(self) -> bool:
        """Return whether the files at the path are no longer those that were opened."""
        return bool(self._changed())

    def check(self) -> None:
        """Raise an error if the files at the path are no longer those that were opened."""
        changed = self._changed()
        if changed:
            raise self._replaced(changed)

    def are_behind(self, db: Any) -> bool:
        """Return whether the files at the path are other files than this process reads, or newer.

        overlayfs copies a file when it is first written, and keeps its device and inode. The copy is then detected by
        its newer transactions. Raises StorageError if the data file is missing.
        """
        changed = self._changed()
        name = os.path.join(self._path, DATA)
        if not os.path.lexists(name):
            raise StorageError(errno.ENOENT, f"{DATA} was removed while this store was open for reading; close() it",
                               self._path)
        last = last_transaction(name)
        return bool(changed) or (last is not None and last > db.info()["last_txnid"])

    def _changed(self) -> list[str]:
        return store_dir.find_changed_files(self._path, self._identities)

    def _replaced(self, names: list[str]) -> StorageError:
        way_out = "close()" if self._options.shared else "copy what you need to another store and revert()"
        return StorageError(
            errno.ENOENT, f"the files of the store ({', '.join(names) or DATA}) were removed or replaced while it was "
            f"open, so nothing can be saved; {way_out}", self._path
        )

    # Closing

    def release(self) -> None:
        """Release all locks. The caller has closed LMDB."""
        if self.owner_lock is not None:
            self.owner_lock.release()
        self.owner_lock = None
        self._unlock_data()

    def leave_to_parent(self) -> None:
        """Leave the owner lock to the parent, in a forked child. The child keeps a shared lock, which it inherits.

        The child locks the data file itself when it opens LMDB.
        """
        # Only close the file, because unlocking it would also release the lock of the parent.
        if not isinstance(self.owner_lock, SharedLock):
            if self.owner_lock is not None:
                self.owner_lock.release()
            self.owner_lock = None
        self._unlock_data()
