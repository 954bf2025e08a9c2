"""Open LMDB, grow its map, and translate its errors. No other module imports lmdb."""

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
# LMDB could not write a meta page, and refuses all transactions until it is opened again.
EngineBroken = lmdb.PanicError
MapFull = lmdb.MapFullError
MapResized = lmdb.MapResizedError
NotFound = lmdb.NotFoundError
NotWritable = lmdb.ReadonlyError
ReadersFull = lmdb.ReadersFullError

# The durability levels of a commit, as options of LMDB. The only list of the levels. A shared store at "process" is
# opened as at "unsafe" while flush points protect it.
DURABILITY: dict[str, dict[str, bool]] = {
    "full": {"sync": True, "metasync": True},
    "normal": {"sync": True, "metasync": False},
    "process": {"sync": True, "metasync": False},
    "unsafe": {"sync": False, "metasync": False},
}

# The map takes address space, not memory or disk, because the file grows as it is used. It is smaller if the address
# space is limited.
MAP_SIZE = 1 << 36
SMALLEST_MAP_SIZE = 1 << 24
MAX_READERS = 1024

# LMDB raises these errors for content that it cannot have written.
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
    """The files were replaced between their check and the opening by LMDB."""


def open_engine(path: str, durability: str, readonly: bool, lock: bool = True) -> Any:
    """Open LMDB's environment in the folder ``path``.

    Raises NotWritable if the lock file may not be written, and UnsafeFileError if a file is no regular file. Raises
    FilesReplaced if the files were replaced meanwhile.
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
                    # LMDB_DEFAULT_LIB_VERSION may select a version of LMDB with another file format.
                    lib_version=0,
                    **DURABILITY[durability],
                )
        except MapResized:
            size *= 2
        except (lmdb.MemoryError, lmdb.InvalidParameterError, MemoryError) as error:
            # Try a smaller map, because the address space is limited by ulimit -v, a container or valgrind, which
            # reports an invalid argument.
            size //= 2
            if size < SMALLEST_MAP_SIZE:
                raise translated(path, error) from error


def _first_map_size() -> int:
    """Return the size of the map at opening.

    With a limit on the address space it is a quarter of the free space, because the rest of the process needs some.
    """
    limit = address_space_limit()
    if limit is None:
        return MAP_SIZE
    left = max(0, limit - address_space_used())
    return min(MAP_SIZE, max(SMALLEST_MAP_SIZE, left // 4 // 65536 * 65536))


def write_copy(path: str, db: Any, target: str) -> None:
    """Write the current state of the store into the data file ``target``, without free pages, and flush it to disk.

    Other processes can write meanwhile.
    """
    with suppress(FileNotFoundError):
        os.unlink(target)  # left by a process that was killed, or a link
    descriptor = open_regular(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        try:
            db.copyfd(descriptor, compact=True)
        except lmdb.IncompatibleError:
            # The file has pages that are neither in use nor free. They are harmless, so copy it with all pages.
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            db.copyfd(descriptor)
        os.fsync(descriptor)
    except (lmdb.Error, OSError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or store_dir.is_full(os.path.dirname(target), str(error)):
            text = f"the disk has no room for a copy of this store ({error}). The store is unchanged"
            raise DiskFullError(errno.ENOSPC, text, path) from error
        raise translated(path, error) from error
    finally:
        os.close(descriptor)


def grow_map(path: str, db: Any) -> None:
    """Enlarge the map. No transaction of this process may be open."""
    size = db.info()["map_size"]
    for factor in (2.0, 1.5, 1.1):
        more = int(size * (factor - 1)) // 65536 * 65536 + 65536
        # Check this first, because LMDB unmaps the old map before it finds that there is no room for a new one.
        if has_room_for_map(more):
            db.set_mapsize(size + more)
            return
    raise _no_address_space(path, size)


def damaged(path: str, reason: object) -> PersistentOrderedDictIntegrityError:
    """Return the error for damaged files."""
    return PersistentOrderedDictIntegrityError(f"the store at {path} is damaged: {reason}")


def adopt_map_size(path: str, db: Any) -> None:
    """Enlarge the map to the size to which another process has grown the file.

    No transaction of this process may be open.
    """
    used = os.stat(os.path.join(path, DATA)).st_size
    size = before = db.info()["map_size"]
    while size < used + used // 8:
        size *= 2
    for wanted in (size, (size + used) // 2, used + 65536):
        # Check this first, as in grow_map(), because the map size in the file may exceed this process's limit.
        if has_room_for_map(max(wanted - before, 65536)):
            db.set_mapsize(wanted)
            return
    raise _no_address_space(path, used)


def _no_address_space(path: str, size: int) -> StorageError:
    return StorageError(
        errno.ENOMEM, f"the map is full at {size} bytes, and the system refuses a larger one, perhaps because of "
        f"ulimit -v. The changes are still in memory; raise the limit and try again", path
    )


def not_opened(path: str, error: Exception, writes: bool) -> Exception:
    """Return the exception of this package for an error of LMDB at opening a store."""
    for number in (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EROFS):
        reason = os.strerror(number)
        if reason in str(error):
            return store_dir.opening_error(OSError(number, reason), path, writes)
    return translated(path, error)


def translated(path: str, error: Exception, left: str = "everything is still in memory: free some space and sync() "
               "again") -> Exception:
    """Return the exception of this package for an error of LMDB, or any other error as it is.

    ``left`` is the end of the message for a full disk: where the changes are, and the way out.
    """
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
        return StorageError(errno.ENOMEM, f"the system has no memory for this ({text}), perhaps because of ulimit -v. "
                                          f"Nothing was written", path)
    if isinstance(error, lmdb.DiskError) or store_dir.is_full(path, text):
        return DiskFullError(
            errno.ENOSPC, f"the disk is full ({text}); nothing of this sync was written and {left}", path
        )
    return StorageError(errno.EIO, f"LMDB refused the operation: {text}", path)
