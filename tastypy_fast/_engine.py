"""LMDB as a store uses it: opening, growing, and what its errors mean. The only module that imports lmdb."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any

import lmdb

from tastypy_fast import _files
from tastypy_fast._files import DATA
from tastypy_fast._options import DURABILITY
from tastypy_fast.exceptions import DiskFullError, PersistentOrderedDictIntegrityError, StorageError

__all__ = [
    "MAX_READERS",
    "EngineError",
    "MapFull",
    "MapResized",
    "NotFound",
    "NotWritable",
    "ReadersFull",
    "adopt",
    "damaged",
    "grow",
    "open_engine",
    "translated",
    "write_copy",
]

EngineError = lmdb.Error
MapFull = lmdb.MapFullError
MapResized = lmdb.MapResizedError
NotFound = lmdb.NotFoundError
NotWritable = lmdb.ReadonlyError
ReadersFull = lmdb.ReadersFullError

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


def open_engine(path: str, durability: str, readonly: bool, lock: bool = True) -> Any:
    """LMDB's environment in the folder ``path``. Raises NotWritable where the lock file may not be written."""
    size = MAP_SIZE
    while True:
        try:
            return lmdb.open(
                os.fsencode(path),
                map_size=size,
                readonly=readonly,
                create=not readonly,
                lock=lock,
                mode=0o644,
                max_dbs=8,
                max_readers=MAX_READERS,
                max_spare_txns=0,
                **DURABILITY[durability],
            )
        except MapResized:
            size *= 2
        except (lmdb.MemoryError, lmdb.InvalidParameterError, MemoryError) as error:
            # An address space limit (ulimit -v, some containers; valgrind calls it an invalid argument).
            size //= 2
            if size < SMALLEST_MAP_SIZE:
                raise translated(path, error) from error


def write_copy(path: str, db: Any, target: str) -> None:
    """Write the data file ``target``: what the store has at this moment, without the free pages in between. It is on
    the disk then. No other process waits for that."""
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        try:
            db.copyfd(descriptor, compact=True)
        except lmdb.IncompatibleError:
            # Pages that are neither in use nor free, which do no harm; then as it is.
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            db.copyfd(descriptor)
        os.fsync(descriptor)
    except (lmdb.Error, OSError) as error:
        number = getattr(error, "errno", 0)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _files.is_full(os.path.dirname(target), str(error)):
            raise DiskFullError(errno.ENOSPC, f"there is no room for a copy of this store ({error}); it is as it was",
                                path) from error
        raise translated(path, error) from error
    finally:
        os.close(descriptor)


def grow(path: str, db: Any) -> None:
    """Make the map larger. No transaction of this process may be open."""
    size = db.info()["map_size"]
    for factor in (2.0, 1.5, 1.1):
        more = int(size * (factor - 1)) // 65536 * 65536 + 65536
        # Asked first: the engine gives its old map up before it finds that there is no room for a new one.
        if _files.has_address_space(more):
            db.set_mapsize(size + more)
            return
    raise _no_address_space(path, size)


def damaged(path: str, reason: object) -> PersistentOrderedDictIntegrityError:
    """The error for files that cannot be as they were written."""
    return PersistentOrderedDictIntegrityError(f"the store at {path} is damaged: {reason}")


def adopt(path: str, db: Any) -> None:
    """Make the map as large as another process has made the file. No transaction of this process may be open."""
    used = os.stat(os.path.join(path, DATA)).st_size
    size = before = db.info()["map_size"]
    while size < used + used // 8:
        size *= 2
    for wanted in (size, (size + used) // 2, used + 65536):
        # As in grow(). What the file's own head says the map may be more than this process can have.
        if _files.has_address_space(max(wanted - before, 65536)):
            db.set_mapsize(wanted)
            return
    raise _no_address_space(path, used)


def _no_address_space(path: str, size: int) -> StorageError:
    return StorageError(
        errno.ENOMEM, f"the map is full at {size} bytes and the system refuses a larger one (ulimit -v, perhaps); "
        f"what was to be written is still in memory", path
    )


def translated(path: str, error: Exception, left: str = "everything is still in memory: free some space and sync() "
               "again") -> Exception:
    """The engine's error as one of ours; any other as it is. ``left``: what a full disk leaves the caller with."""
    if isinstance(error, PersistentOrderedDictIntegrityError) and path not in str(error):
        return damaged(path, error)
    if isinstance(error, (MapFull, MapResized)) or not isinstance(error, (lmdb.Error, struct.error, SystemError)):
        return error
    text = str(error)
    if isinstance(error, SystemError):
        text = str(error.__cause__ or error)
    if isinstance(error, _DAMAGE):
        return damaged(path, text)
    if isinstance(error, lmdb.DiskError) or _files.is_full(path, text):
        return DiskFullError(
            errno.ENOSPC, f"the disk is full ({text}); nothing of this sync was written and {left}", path
        )
    return StorageError(errno.EIO, f"the storage engine refused: {text}", path)
