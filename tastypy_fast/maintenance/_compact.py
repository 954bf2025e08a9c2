"""Copy and compact a store, in a subprocess."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from tastypy_fast._lmdb import engine
from tastypy_fast._lmdb.file_locks import EngineLock, OwnerLock
from tastypy_fast._lmdb.store_dir import DATA, flush_folder
from tastypy_fast._store.options import Options
from tastypy_fast._store.read_only import open_for_inspection
from tastypy_fast._store.store import Store

__all__ = ["compact_store", "copy_store", "remove_leftovers"]

# The new data file, before it replaces the old one in the same folder.
COMPACTED = "data.compacted"
# Seconds to wait for a process that has the store open for a moment, to read it: at the beginning, and before the file
# is replaced.
FIRST_TIMEOUT_S, LOCK_TIMEOUT_S = 1, 5


def copy_store(path: str, folder: str) -> Iterator[None]:
    """Write a snapshot of a store, including its write-ahead log, into another folder."""
    store = open_for_inspection(path)
    try:
        engine.write_copy(path, store.db, os.path.join(folder, DATA))
    finally:
        store.close()
    yield None


def compact_store(path: str) -> Iterator[tuple[int, int]]:
    """Replace the data file by a copy without free pages. Yields its size before and after."""
    store = open_for_inspection(path)
    kind, file_size = store.options.kind, store.file_size() or b"1"
    store.close()
    name, compacted = os.path.join(path, DATA), os.path.join(path, COMPACTED)
    before = os.stat(name).st_size
    owner = OwnerLock(path)
    try:
        EngineLock(path, FIRST_TIMEOUT_S).release()
    finally:
        owner.release()
    # Open the store to write, which checkpoints the log and removes the leftovers of dead processes.
    Store(path, Options(kind, "w", "normal", False, max(1, int(file_size)))).close()
    owner = OwnerLock(path)
    try:
        owner.write_name("")
        _write_compacted(path, compacted)
        _replace_data_file(path, compacted)
    except BaseException:
        with suppress(OSError):
            os.unlink(compacted)
        raise
    finally:
        owner.release()
    yield before, os.stat(name).st_size


def _write_compacted(path: str, compacted: str) -> None:
    db = engine.open_engine(path, "normal", readonly=True)
    try:
        engine.write_copy(path, db, compacted)
    finally:
        db.close()
    status = os.stat(os.path.join(path, DATA))
    os.chmod(compacted, status.st_mode & 0o7777)
    with suppress(PermissionError):
        os.chown(compacted, status.st_uid, status.st_gid)


def _replace_data_file(path: str, compacted: str) -> None:
    """Rename the new data file over the old one, while no process has the store open.

    The lock file is reset together with the data file. If a reader used one data file with the lock file of the other,
    LMDB's reader table would not protect the pages that it reads.
    """
    lock = EngineLock(path, LOCK_TIMEOUT_S)
    try:
        lock.invalidate()
        os.rename(compacted, os.path.join(path, DATA))
        flush_folder(path)
        # Initialize the lock file for the new data file before a waiting process acquires the lock.
        engine.open_engine(path, "normal", readonly=True).close()
    finally:
        lock.release()


def remove_leftovers(path: str) -> None:
    """Remove the new data file that a killed compaction left, unless another process has the store open."""
    compacted = os.path.join(path, COMPACTED)
    if os.path.lexists(compacted):
        with suppress(OSError):
            owner = OwnerLock(path)
            try:
                os.unlink(compacted)
            finally:
                owner.release()
