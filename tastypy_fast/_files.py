"""The folder of a store and the files in it, as far as they are looked at without the storage engine.

    data.mdb     LMDB's data
    lock.mdb     LMDB's lock and table of readers
    owner.lock   locked by the process that writes a private store, which it names, or by those that share one
    turn.lock    locked by the process that writes a shared store just now
    workers/     a file for each process that works on the tasks of a shared tracker, locked by it

The system lets go of a file lock when its process ends, however it ends, so a stale one cannot be left.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import shlex

from tastypy_fast._datafile import find_damage, find_databases
from tastypy_fast._page_format import looks_begun
from tastypy_fast.exceptions import (
    DiskFullError,
    NotAStoreError,
    PersistentOrderedDictIntegrityError,
    StorageError,
    StoreNotFoundError,
    StorePathError,
)

__all__ = [
    "allocate_lock_file",
    "check_data_file",
    "file_identity",
    "flush_folder",
    "has_address_space",
    "is_full",
    "is_same_file",
    "not_made",
    "not_there",
    "prepare_folder",
    "require_lock_file",
    "require_store",
]

DATA, LMDB_LOCK, OWNER, TURN, WORKERS = "data.mdb", "lock.mdb", "owner.lock", "turn.lock", "workers"

# What the system says where there is no room.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# The databases in it, with LMDB's flags (8: integer keys).
DATABASES = {b"values": 8, b"order": 0, b"status": 8, b"meta": 0, b"images": 8, b"claims": 8, b"log": 8}


def prepare_folder(path: str) -> bool:
    """Make the folder of a store if there is none. True when it is new; an error when it is something else's."""
    try:
        os.makedirs(path)
    except FileExistsError:
        if not os.path.isdir(path):
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
        raise not_there(path) from None
    _refuse_foreign(path)
    if DATA not in names:
        raise not_there(path)
    return False


def not_there(path: str) -> StoreNotFoundError:
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


def check_data_file(path: str, owned: bool) -> None:
    """Refuse a data file that the engine would crash on, as far as a constant number of reads can tell.

    ``owned``: this process has the owner lock, so that it may begin again what another one did not complete.
    """
    name = os.path.join(path, DATA)
    # Its name is written when the store is complete.
    was_complete = os.path.exists(os.path.join(path, OWNER)) and os.path.getsize(os.path.join(path, OWNER)) > 0
    if not os.path.exists(name):
        if was_complete:
            raise _damaged(path, f"{DATA} is missing")
        return
    if not was_complete and _is_beginning(name):
        # A process was killed, or found the disk full, while it made the store.
        if not owned:
            raise not_there(path)
        os.truncate(name, 0)
        return
    reason = find_damage(name, DATABASES)
    if reason:
        raise _damaged(path, f"{DATA} is not as it was written: {reason}")


def _is_beginning(name: str) -> bool:
    """Whether a data file holds less than the two pages that a new one begins with."""
    if os.path.getsize(name) >= 2 * os.sysconf("SC_PAGE_SIZE"):
        return False
    with open(name, "rb") as file:
        return looks_begun(file.read())


def allocate_lock_file(path: str, readers: int) -> None:
    """Have the whole of LMDB's lock file on the disk before the engine maps it, which ends the process where
    a page of it cannot be written. Nobody in this process has the file open."""
    # 64 bytes for each reader, and a head (lmdb's mdb.c, MDB_reader and MDB_txninfo).
    wanted = readers * 64 + 4096
    try:
        descriptor = os.open(os.path.join(path, LMDB_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:  # a folder that one may only read; the engine knows what to make of it
        return
    try:
        size = os.fstat(descriptor).st_size
        while size < wanted:
            size += os.pwrite(descriptor, bytes(wanted - size), size)
    except OSError as error:
        raise not_made(error, path, "the store cannot be opened", "its lock file") from error
    finally:
        os.close(descriptor)


def require_lock_file(path: str) -> None:
    """An error where LMDB's lock file is missing although others have the store open: with a new one, nobody would
    wait for anybody, and the store would be lost."""
    if not os.path.exists(os.path.join(path, LMDB_LOCK)):
        raise StorageError(
            errno.ENOENT, f"{LMDB_LOCK} was removed while other processes have the store open; they may go on, and "
            f"nobody can join them. Open the store when all of them have closed it", path
        )


def not_made(error: OSError, path: str, effect: str, file: str) -> OSError:
    """The error for a small file of the store that the system does not let this process make or write."""
    if error.errno in _FULL:
        text = f"{effect}, there is no room for {file} ({error.strerror}); free some space and try again"
        return DiskFullError(error.errno, text, path)
    return StorageError(error.errno, f"{effect}, {file} cannot be made ({error.strerror})", path)


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


def has_address_space(size: int) -> bool:
    """Whether the system would map ``size`` more bytes into this process."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _damaged(path: str, reason: str) -> PersistentOrderedDictIntegrityError:
    return PersistentOrderedDictIntegrityError(
        f"the store at {path} is damaged: {reason}. Bring back a copy of the folder; nothing in it was changed"
    )


def file_identity(path: str) -> tuple[int, int]:
    """What tells one data file from another that has taken its name."""
    status = os.stat(os.path.join(path, DATA))
    return status.st_dev, status.st_ino


def is_same_file(path: str, identity: tuple[int, int]) -> bool:
    """Whether the data file is still the one of that identity."""
    try:
        return file_identity(path) == identity
    except OSError:
        return False


def flush_folder(path: str) -> None:
    """Have the names of new files survive a power cut."""
    for folder in (path, os.path.dirname(path)):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError:  # some file systems cannot
            pass
        finally:
            os.close(descriptor)
