"""The folder of a store and the files in it, as far as they are looked at without the storage engine.

    data.mdb     LMDB's data
    lock.mdb     LMDB's lock and table of readers
    owner.lock   locked by the process that writes a private store, which it names, or by those that share one
    turn.lock    locked by the process that writes a shared store just now
    workers/     a file for each process that works on the tasks of a shared tracker, locked by it

The system lets go of a file lock when its process ends, however it ends, so a stale one cannot be left. All that have
the store open lock the data file, too (see ``DataLock``).
"""

from __future__ import annotations

import errno
import os
import resource
import shlex
import struct
from collections.abc import Iterator

from tastypy_fast._lmdb.data_file import find_damage, find_databases, other_format
from tastypy_fast._lmdb.page_format import FILE_FORMAT, MAGIC, looks_begun
from tastypy_fast._lmdb.safe_files import check_regular, open_folder, open_regular
from tastypy_fast.exceptions import (
    DiskFullError,
    NewerFormatError,
    NotAStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    StorageError,
    StoreAccessError,
    StoreNotFoundError,
    StorePathError,
    UnsafeFileError,
)

__all__ = [
    "Identity",
    "allocate_lock_file",
    "begin_data_file",
    "check_data_file",
    "creation_error",
    "file_identities",
    "find_changed_files",
    "find_unsafe_files",
    "flush_folder",
    "is_full",
    "no_store_error",
    "prepare_folder",
    "refused",
    "require_store",
]

# What tells one file from another that has taken its name: device and inode.
Identity = tuple[int, int]

DATA, LMDB_LOCK, OWNER, TURN, WORKERS = "data.mdb", "lock.mdb", "owner.lock", "turn.lock", "workers"

# What the system says where there is no room.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# And where this process has not the right.
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

# The databases in it, with LMDB's flags (8: integer keys).
DATABASES = {b"values": 8, b"order": 0, b"status": 8, b"meta": 0, b"images": 8, b"claims": 8, b"log": 8}


def prepare_folder(path: str) -> bool:
    """Make the folder of a store if there is none. True when it is new; an error when it is something else's."""
    try:
        os.makedirs(path)
    except FileExistsError:
        if not os.path.isdir(path):
            if os.path.islink(path):
                raise refused(OSError(errno.ELOOP, os.strerror(errno.ELOOP)), path, True) from None
            raise StorePathError(errno.ENOTDIR, "a store is a folder, and this path is a file; use another path",
                                 path) from None
    except NotADirectoryError:
        raise StorePathError(errno.ENOTDIR, "a part of this path is a file; use another path", path) from None
    else:
        return True
    _refuse_foreign(path)
    return False


def require_store(path: str) -> bool:
    """An error unless there is a folder that may hold a store to read. False, for it is not new."""
    try:
        names = os.listdir(path)
    except NotADirectoryError:
        raise StorePathError(errno.ENOTDIR, "this path or a part of it is a file; a store is a folder", path) from None
    except FileNotFoundError:
        raise no_store_error(path) from None
    _refuse_foreign(path)
    if DATA not in names:
        if _was_complete(path):
            raise _damaged(path, f"{DATA} is missing")
        raise no_store_error(path)
    return False


def no_store_error(path: str) -> StoreNotFoundError:
    """The error for a store that was not made, or not completely."""
    return StoreNotFoundError(
        errno.ENOENT, 'there is no store at this path to read; open it with mode="w" to make one', path
    )


def _refuse_foreign(path: str) -> None:
    """An error for a folder that is something else's, before anything is written into it."""
    names = set(os.listdir(path))
    if DATA in names:
        name = os.path.join(path, DATA)
        found = () if os.path.isdir(name) else find_databases(name)
        if os.path.isdir(name) or (found and not {b"meta", b"order", b"values"} <= set(found)):
            raise NotAStoreError(errno.EEXIST, f"the {DATA} in this folder is not a store's; use another path", path)
        return
    if names <= {LMDB_LOCK, OWNER, TURN, WORKERS}:
        return
    if names & {"0.json", "0.json.gz"}:
        text = (
            "this folder holds the JSON files of the original tastypy, which are not a store of tastypy_fast; make one "
            f"of them with: tastypy-fast import {shlex.quote(path)} STORE (in Python: import_json() of the class)"
        )
    else:
        some = ", ".join(sorted(names)[:3])
        text = f"this folder is not empty and not a store (it holds {some}); use another path or an empty folder"
    raise NotAStoreError(errno.EEXIST, text, path)


def begin_data_file(path: str) -> None:
    """Make an empty data file where the store is new. An error where a store was there and has lost it."""
    name = os.path.join(path, DATA)
    if not os.path.lexists(name):
        if _was_complete(path):
            raise _damaged(path, f"{DATA} is missing")
        os.close(open_regular(name, os.O_RDWR | os.O_CREAT))


def check_data_file(path: str, owned: bool) -> None:
    """Refuse a data file that the engine would crash on, as far as a constant number of reads can tell.

    ``owned``: this process has the owner lock, so that it may begin again what another one did not complete.
    """
    name = os.path.join(path, DATA)
    if check_regular(name) is None:
        raise _damaged(path, f"{DATA} is missing")
    if not _was_complete(path) and _is_beginning(name):
        # A process was killed, or found the disk full, while it made the store.
        if not owned:
            raise no_store_error(path)
        descriptor = open_regular(name, os.O_RDWR)
        try:
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        return
    version = other_format(name)
    if version is not None:
        raise NewerFormatError(
            f"the store at {path} was written by another version of the LMDB engine (its file format is {version}, not "
            f"{FILE_FORMAT}), perhaps because LMDB_DEFAULT_LIB_VERSION was set; it is not damaged. Read it with that "
            f"engine, and add what is in it to a new store"
        )
    reason = find_damage(name, DATABASES)
    if reason:
        raise _damaged(path, f"{DATA} is not as it was written: {reason}")


def _was_complete(path: str) -> bool:
    """Whether a store was there, whatever is left of it: its owner has written its name when it was complete, and what
    those have made who shared it came after that."""
    if any(os.path.lexists(os.path.join(path, name)) for name in (TURN, WORKERS)):
        return True
    try:
        return os.lstat(os.path.join(path, OWNER)).st_size > 0
    except FileNotFoundError:
        return False


def _is_beginning(name: str) -> bool:
    """Whether a data file holds less than the two pages that a new one begins with."""
    size = 2 * os.sysconf("SC_PAGE_SIZE")
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_size < size and looks_begun(os.pread(descriptor, size, 0))
    finally:
        os.close(descriptor)


def allocate_lock_file(path: str, readers: int) -> None:
    """Have the whole of LMDB's lock file on the disk before the engine maps it, which ends the process where
    a page of it cannot be written. Nobody in this process has the file open."""
    name = os.path.join(path, LMDB_LOCK)
    # 64 bytes for each reader, and a head (lmdb's mdb.c, MDB_reader and MDB_txninfo).
    wanted = readers * 64 + 4096
    try:
        descriptor = open_regular(name, os.O_RDWR)
    except UnsafeFileError:
        raise
    except OSError:  # a folder that one may only read; the engine knows what to make of it
        return
    try:
        status = os.fstat(descriptor)
        if status.st_nlink > 1 and os.pread(descriptor, 4, 0) not in (b"", bytes(4), struct.pack("=I", MAGIC)):
            raise UnsafeFileError(
                errno.EMLINK, "this file is a hard link to something that is no lock file of LMDB's, so it is not "
                "written. Remove it from this folder", name
            )
        size = status.st_size
        while size < wanted:
            size += os.pwrite(descriptor, bytes(wanted - size), size)
    except PersistentOrderedDictException:
        raise
    except OSError as error:
        raise creation_error(error, path, "the store cannot be opened", "its lock file") from error
    finally:
        os.close(descriptor)


def refused(error: OSError, path: str, writes: bool) -> PersistentOrderedDictException:
    """The error for a store that the system does not let this process open."""
    number, reason = error.errno or errno.EIO, error.strerror or str(error)
    if number in _FULL:
        text = f"the store cannot be opened, there is no room ({reason}); free some space and try again"
        return DiskFullError(number, text, path)
    if number in _FORBIDDEN:
        way_out = "get the right to use it"
        if writes and os.path.lexists(path):
            way_out = 'open it with mode="r" if reading is enough, or get the right to write it'
        return StoreAccessError(number, f"the store cannot be opened ({reason}); {way_out}", path)
    way_out = {
        errno.EMFILE: "; this process has too many files open: close some, or raise the limit (ulimit -n)",
        errno.ENFILE: "; the system has too many files open: close some",
        errno.ENAMETOOLONG: "; use a shorter path",
        errno.ELOOP: "; its symbolic links lead in a circle: mend them or use another path",
        errno.ENOENT: "; a part of it is missing, or was removed just now",
    }.get(number, "")
    return StorageError(number, f"the store cannot be opened ({reason}){way_out}", path)


def creation_error(error: OSError, path: str, effect: str, file: str) -> OSError:
    """The error for a small file of the store that the system does not let this process make or write."""
    if error.errno in _FULL:
        text = f"{effect}, there is no room for {file} ({error.strerror}); free some space and try again"
        return DiskFullError(error.errno, text, path)
    kind = StoreAccessError if error.errno in _FORBIDDEN else StorageError
    return kind(error.errno, f"{effect}, {file} cannot be made ({error.strerror})", path)


def is_full(path: str, reason: str) -> bool:
    """Whether what the system said about a write comes of a full disk or of a limit on files."""
    if any(os.strerror(number) in reason for number in _FULL):
        return True
    if os.strerror(errno.EIO) not in reason:
        return False
    # The engine says so of a write that was cut short, and does not ask why.
    status = os.statvfs(path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return status.f_bavail * status.f_frsize < 1 << 24 or limit != resource.RLIM_INFINITY


def _damaged(path: str, reason: str) -> PersistentOrderedDictIntegrityError:
    return PersistentOrderedDictIntegrityError(
        f"the store at {path} is damaged: {reason}. Bring back a copy of the folder; nothing in it was changed"
    )


def file_identities(path: str) -> dict[str, Identity | None]:
    """The files that may not change while a store is open, with what tells them from others; None for one that is
    missing. Raises UnsafeFileError where one is no regular file."""
    return {name: check_regular(os.path.join(path, name)) for name in (DATA, LMDB_LOCK, OWNER)}


def find_unsafe_files(path: str) -> Iterator[UnsafeFileError]:
    """An error for each file of a store that is a link, a pipe or another thing, the workers' included."""
    names = [os.path.join(path, name) for name in (DATA, LMDB_LOCK, OWNER, TURN)]
    folder = os.path.join(path, WORKERS)
    try:
        os.close(open_folder(folder))
        names += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    except FileNotFoundError:
        pass
    except UnsafeFileError as error:
        yield error
    for name in names:
        try:
            check_regular(name)
        except UnsafeFileError as error:
            yield error


def find_changed_files(path: str, before: dict[str, Identity | None]) -> list[str]:
    """Which of these files are others now. The data file also if it is missing. A lock file that is missing keeps
    everybody out until it is made again, which nobody does while somebody has the store open."""
    changed = []
    for name, identity in before.items():
        try:
            status = os.lstat(os.path.join(path, name))
        except OSError:
            if name == DATA:
                changed.append(name)
            continue
        if identity is not None and (status.st_dev, status.st_ino) != identity:
            changed.append(name)
    return changed


def flush_folder(path: str) -> None:
    """Have the names of new files survive a power cut."""
    for folder in (path, os.path.dirname(path)):
        descriptor = open_folder(folder, follow=True)
        try:
            os.fsync(descriptor)
        except OSError:  # some file systems cannot
            pass
        finally:
            os.close(descriptor)
