"""LMDB as a store uses it: opening, growing, and what its errors mean. The only module that imports lmdb."""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress
from typing import Any

import lmdb

from tastypy_fast._lmdb import store_dir
from tastypy_fast._lmdb.address_space import address_space_limit, address_space_used, has_room_for_map
from tastypy_fast._lmdb.safe_files import check_regular, close_on_exec, open_regular, standard_descriptors_taken
from tastypy_fast._lmdb.store_dir import DATA, LMDB_LOCK
from tastypy_fast.exceptions import DiskFullError, PersistentOrderedDictIntegrityError, StorageError

__all__ = [
    "DURABILITY",
    "MAX_READERS",
    "EngineBroken",
    "EngineError",
    "FilesReplaced",
    "MapFull",
    "MapResized",
    "NotFound",
    "NotWritable",
    "ReadersFull",
    "adopt_map_size",
    "damaged",
    "grow_map",
    "not_opened",
    "open_engine",
    "translated",
    "write_copy",
]

EngineError = lmdb.Error
# It could not write a meta page, and refuses everything until it is opened anew.
EngineBroken = lmdb.PanicError
MapFull = lmdb.MapFullError
MapResized = lmdb.MapResizedError
NotFound = lmdb.NotFoundError
NotWritable = lmdb.ReadonlyError
ReadersFull = lmdb.ReadersFullError

# How a commit leaves the disk, in LMDB's options.
DURABILITY: dict[str, dict[str, bool]] = {
    "full": {"sync": True, "metasync": True},
    "normal": {"sync": True, "metasync": False},
    "process": {"sync": False, "metasync": False},
}

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


class FilesReplaced(Exception):
    """Somebody has put other files in the place of those that were looked at, before the engine opened them."""


def open_engine(path: str, durability: str, readonly: bool, lock: bool = True) -> Any:
    """Open LMDB's environment in the folder ``path``.

    Raises NotWritable where the lock file may not be written, UnsafeFileError where a file is a link or no regular
    file, and FilesReplaced.
    """
    names = [os.path.join(path, name) for name in ((DATA, LMDB_LOCK) if lock else (DATA,))]
    before = [check_regular(name) for name in names]
    db = _open(path, durability, readonly, lock)
    try:
        after = [check_regular(name) for name in names]
        if any(old not in (None, new) for old, new in zip(before, after, strict=True)):
            raise FilesReplaced
        close_on_exec(after)
    except BaseException:
        db.close()
        raise
    return db


def _open(path: str, durability: str, readonly: bool, lock: bool) -> Any:
    size = _first_map_size()
    while True:
        try:
            with standard_descriptors_taken():
                return lmdb.open(
                    os.fsencode(path),
                    map_size=size,
                    readonly=readonly,
                    create=not readonly,
                    lock=lock,
                    mode=0o666,
                    max_dbs=8,
                    max_readers=MAX_READERS,
                    max_spare_txns=0,
                    # (LMDB_DEFAULT_LIB_VERSION may ask for an engine whose files this one cannot read)
                    lib_version=0,
                    **DURABILITY[durability],
                )
        except MapResized:
            size *= 2
        except (lmdb.MemoryError, lmdb.InvalidParameterError, MemoryError) as error:
            # An address space limit (ulimit -v, some containers; valgrind calls it an invalid argument).
            size //= 2
            if size < SMALLEST_MAP_SIZE:
                raise translated(path, error) from error


def _first_map_size() -> int:
    """How large the map is at first. Under a limit on the address space it takes a quarter of what is left, because
    the rest of the process needs some, too."""
    limit = address_space_limit()
    if limit is None:
        return MAP_SIZE
    left = max(0, limit - address_space_used())
    return min(MAP_SIZE, max(SMALLEST_MAP_SIZE, left // 4 // 65536 * 65536))


def write_copy(path: str, db: Any, target: str) -> None:
    """Write the data file ``target``: what the store has at this moment, without the free pages in between. It is on
    the disk then. No other process waits for that."""
    with suppress(FileNotFoundError):
        os.unlink(target)  # what a process that was killed has left, or somebody's link
    descriptor = open_regular(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
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
        full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or store_dir.is_full(os.path.dirname(target), str(error)):
            raise DiskFullError(errno.ENOSPC, f"there is no room for a copy of this store ({error}); it is as it was",
                                path) from error
        raise translated(path, error) from error
    finally:
        os.close(descriptor)


def grow_map(path: str, db: Any) -> None:
    """Make the map larger. No transaction of this process may be open."""
    size = db.info()["map_size"]
    for factor in (2.0, 1.5, 1.1):
        more = int(size * (factor - 1)) // 65536 * 65536 + 65536
        # Asked first: the engine gives its old map up before it finds that there is no room for a new one.
        if has_room_for_map(more):
            db.set_mapsize(size + more)
            return
    raise _no_address_space(path, size)


def damaged(path: str, reason: object) -> PersistentOrderedDictIntegrityError:
    """The error for files that cannot be as they were written."""
    return PersistentOrderedDictIntegrityError(f"the store at {path} is damaged: {reason}")


def adopt_map_size(path: str, db: Any) -> None:
    """Make the map as large as another process has made the file. No transaction of this process may be open."""
    used = os.stat(os.path.join(path, DATA)).st_size
    size = before = db.info()["map_size"]
    while size < used + used // 8:
        size *= 2
    for wanted in (size, (size + used) // 2, used + 65536):
        # As in grow_map(). What the file's own head says the map may be more than this process can have.
        if has_room_for_map(max(wanted - before, 65536)):
            db.set_mapsize(wanted)
            return
    raise _no_address_space(path, used)


def _no_address_space(path: str, size: int) -> StorageError:
    return StorageError(
        errno.ENOMEM, f"the map is full at {size} bytes and the system refuses a larger one (ulimit -v, perhaps); "
        f"what was to be written is still in memory", path
    )


def not_opened(path: str, error: Exception, writes: bool) -> Exception:
    """The error of ours for what the engine said as it was to open a store."""
    for number in (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EROFS):
        reason = os.strerror(number)
        if reason in str(error):
            return store_dir.refused(OSError(number, reason), path, writes)
    return translated(path, error)


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
    if isinstance(error, lmdb.MemoryError):
        return StorageError(errno.ENOMEM, f"there is no memory for this ({text}), perhaps because of a limit (ulimit "
                                          f"-v); nothing of it was written", path)
    if isinstance(error, lmdb.DiskError) or store_dir.is_full(path, text):
        return DiskFullError(
            errno.ENOSPC, f"the disk is full ({text}); nothing of this sync was written and {left}", path
        )
    return StorageError(errno.EIO, f"the storage engine refused: {text}", path)
