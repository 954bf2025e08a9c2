"""A store copied and a store made smaller, in a process of its own (see _apart)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from tastypy_fast._lmdb import engine
from tastypy_fast._lmdb.file_locks import EngineLock, OwnerLock
from tastypy_fast._lmdb.store_dir import DATA, flush_folder
from tastypy_fast._store.options import Options
from tastypy_fast._store.read_only import look_at
from tastypy_fast._store.store import Store

__all__ = ["compact_store", "copy_store", "remove_leftovers"]

# The data file that is to take the place of the old one, in the same folder.
COMPACTED = "data.compacted"
# How long, in seconds, somebody may have the store open just to look at it while it is to be replaced.
PATIENCE = 5


def copy_store(path: str, folder: str) -> Iterator[None]:
    """Write what the store has at this moment, the log included, into another folder."""
    store = look_at(path)
    try:
        engine.write_copy(path, store.db, os.path.join(folder, DATA))
    finally:
        store.close()
    yield None


def compact_store(path: str) -> Iterator[tuple[int, int]]:
    """Replace the data file by a copy without free pages; its sizes before and after."""
    store = look_at(path)
    kind, file_size = store.options.kind, store.file_size() or b"1"
    store.close()
    name, compacted = os.path.join(path, DATA), os.path.join(path, COMPACTED)
    before = os.stat(name).st_size
    owner = OwnerLock(path)
    try:
        EngineLock(path).release()
    finally:
        owner.release()
    # What is in the log goes where it belongs, and what processes that are gone have left is dropped.
    Store(path, Options(kind, "w", "normal", False, max(1, int(file_size)))).close()
    owner = OwnerLock(path)
    try:
        owner.write_name("")
        _write(path, compacted)
        _take_over(path, compacted)
    except BaseException:
        with suppress(OSError):
            os.unlink(compacted)
        raise
    finally:
        owner.release()
    yield before, os.stat(name).st_size


def _write(path: str, compacted: str) -> None:
    db = engine.open_engine(path, "normal", readonly=True)
    try:
        engine.write_copy(path, db, compacted)
    finally:
        db.close()
    status = os.stat(os.path.join(path, DATA))
    os.chmod(compacted, status.st_mode & 0o7777)
    with suppress(PermissionError):
        os.chown(compacted, status.st_uid, status.st_gid)


def _take_over(path: str, compacted: str) -> None:
    """Give the new data file the name of the old one. Who reads may not have the old one with a lock file that is the
    new one's, nor the other way round: so nobody has it open, and the lock file begins anew."""
    lock = EngineLock(path, PATIENCE)
    try:
        lock.invalidate()
        os.rename(compacted, os.path.join(path, DATA))
        flush_folder(path)
        # Who waits for the lock finds the lock file as it is to be with the new data file.
        engine.open_engine(path, "normal", readonly=True).close()
    finally:
        lock.release()


def remove_leftovers(path: str) -> None:
    """Remove what a process that was ended in the middle has left, unless another one is at it."""
    compacted = os.path.join(path, COMPACTED)
    if os.path.lexists(compacted):
        with suppress(OSError):
            owner = OwnerLock(path)
            try:
                os.unlink(compacted)
            finally:
                owner.release()
