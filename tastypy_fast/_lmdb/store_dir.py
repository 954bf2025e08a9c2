"""Create the folder of a store, check its files before LMDB opens them, and detect replaced files.

    data.mdb     LMDB's data
    lock.mdb     LMDB's lock and table of readers
    owner.lock   locked by the process that writes a private store, with its name, or by all that share a store
    turn.lock    writer lock of a shared store, locked by the process that is writing
    flushed      the last flush point of a shared store (see ``flush_points``)
    workers/     a file for each process that claims tasks of a shared tracker, locked by it
    running      the tasks that a process with a private tracker is running (see ``_store.running_file``)

The system always releases a file lock when its process ends, so there are no stale locks. Every process that has the
store open also locks the data file (see ``file_locks.DataLock``).
"""

from __future__ import annotations

import errno
import os
import resource
import shlex
import struct
from collections.abc import Iterator
from contextlib import suppress

from tastypy_fast._lmdb.data_file import find_damage, find_databases, other_format
from tastypy_fast._lmdb.flush_notes import has_note
from tastypy_fast._lmdb.page_format import FILE_FORMAT, MAGIC, looks_begun
from tastypy_fast._lmdb.record_locks import is_locked_elsewhere
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
    "opening_error",
    "prepare_folder",
    "require_store",
    "was_complete",
]

# Device and inode, which differ for a file that has replaced another one.
Identity = tuple[int, int]

DATA, LMDB_LOCK, OWNER, TURN, WORKERS = "data.mdb", "lock.mdb", "owner.lock", "turn.lock", "workers"
FLUSHED, RUNNING, UNDO = "flushed", "running", "undo"

# Errors of the system for a full disk.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Errors of the system for missing permissions.
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

# The databases of a store, with LMDB's flags (8: integer keys).
DATABASES = {b"values": 8, b"order": 0, b"status": 8, b"meta": 0, b"images": 8, b"claims": 8, b"log": 8}
# The first byte of the keys in the main database that are no names of databases. All names are less.
CLAIM_PREFIX = b"~"


def prepare_folder(path: str) -> None:
    """Create the folder of a store unless it exists. Raises NotAStoreError if it contains other files."""
    if not os.path.isdir(path):
        try:
            os.makedirs(path)
        except FileExistsError:
            # Another process may have created it meanwhile.
            if not os.path.isdir(path):
                if os.path.islink(path):
                    raise opening_error(OSError(errno.ELOOP, os.strerror(errno.ELOOP)), path, True) from None
                raise StorePathError(errno.ENOTDIR, "a store is a folder, but this path is a file; use another path",
                                     path) from None
        except NotADirectoryError:
            raise StorePathError(errno.ENOTDIR, "a part of this path is a file; use another path", path) from None
        else:
            return
    _refuse_foreign(path)


def require_store(path: str) -> None:
    """Raise an error unless the folder exists and may hold a store."""
    try:
        names = os.listdir(path)
    except NotADirectoryError:
        raise StorePathError(errno.ENOTDIR, "this path or a part of it is a file; a store is a folder", path) from None
    except FileNotFoundError:
        raise no_store_error(path) from None
    _refuse_foreign(path)
    if DATA not in names and not os.path.lexists(os.path.join(path, DATA)):
        _require_new(path)
        # Another process may have created it since the names were read.
        if not os.path.lexists(os.path.join(path, DATA)):
            raise no_store_error(path)


def no_store_error(path: str) -> StoreNotFoundError:
    """Return the error for a store that does not exist, or was not created completely."""
    return StoreNotFoundError(
        errno.ENOENT, 'there is no store at this path to read; open it with mode="w" to create one', path
    )


def _refuse_foreign(path: str) -> None:
    """Raise NotAStoreError for a folder with other files, before anything is written into it."""
    names = set(os.listdir(path))
    if DATA in names:
        name = os.path.join(path, DATA)
        is_folder = os.path.isdir(name)
        # After a power cut the file may be torn until the flush point is put back.
        found = () if is_folder or (FLUSHED in names and _has_flush_point(path)) else find_databases(name)
        if is_folder or (found and not {b"meta", b"order", b"values"} <= set(found)):
            raise NotAStoreError(errno.EEXIST, f"the {DATA} in this folder is not part of a store; use another path",
                                 path)
        return
    if names <= {LMDB_LOCK, OWNER, TURN, WORKERS, FLUSHED, RUNNING, UNDO}:
        return
    if names & {"0.json", "0.json.gz"}:
        text = (
            "this folder holds the JSON files of the original tastypy, which are not a store of tastypy_fast. Convert "
            f"them with: tastypy-fast import {shlex.quote(path)} STORE (in Python: import_json() of the class)"
        )
    else:
        some = ", ".join(sorted(names)[:3])
        text = f"this folder is not empty and not a store (it holds {some}); use another path or an empty folder"
    raise NotAStoreError(errno.EEXIST, text, path)


def _has_flush_point(path: str) -> bool:
    """Return whether there is a file of flush points, which no folder but that of a store has."""
    try:
        descriptor = open_regular(os.path.join(path, FLUSHED), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return has_note(descriptor)
    finally:
        os.close(descriptor)


def begin_data_file(path: str) -> None:
    """Create an empty data file for a new store. Raises an error if a store has lost its data file."""
    name = os.path.join(path, DATA)
    if not os.path.lexists(name):
        _require_new(path)
        os.close(open_regular(name, os.O_RDWR | os.O_CREAT))


def _require_new(path: str) -> None:
    """Raise an error if a store has lost its data file, which was missing a moment ago.

    A complete store has a data file. So the file is looked for again, because another process may have created the
    whole store in this moment.
    """
    if was_complete(path) and not os.path.lexists(os.path.join(path, DATA)):
        raise _damaged(path, f"{DATA} is missing")


def check_data_file(path: str, owned: bool) -> None:
    """Raise an error for a data file on which LMDB would crash, as far as a constant number of reads can show.

    ``owned`` says that this process has the owner lock, so that it may create an incomplete store again. LMDB must not
    have the store open in this process, because closing a file here would release LMDB's locks on it.
    """
    name = os.path.join(path, DATA)
    if check_regular(name) is None:
        raise _damaged(path, f"{DATA} is missing")
    if not was_complete(path) and _is_beginning(name):
        # A process was killed, the disk was full, or the power failed, while the store was created.
        if not owned:
            raise no_store_error(path)
        descriptor = open_regular(name, os.O_RDWR)
        try:
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        return
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        version = other_format(descriptor)
        if version is not None:
            raise NewerFormatError(
                f"the store at {path} was written by another version of LMDB (its file format is {version}, not "
                f"{FILE_FORMAT}), perhaps because LMDB_DEFAULT_LIB_VERSION was set. It is not damaged. Read it with "
                f"that version, and copy its content into a new store"
            )
        reason = find_damage(descriptor, DATABASES)
    finally:
        os.close(descriptor)
    if reason:
        raise _damaged(path, f"{DATA} was changed or truncated: {reason}")


def was_complete(path: str) -> bool:
    """Return whether a complete store was once in the folder, even if files are missing now.

    The owner writes its name when the store is complete. The files of a shared store are created after that.
    """
    with suppress(FileNotFoundError):
        if os.lstat(os.path.join(path, OWNER)).st_size > 0:
            return True
    return any(os.path.lexists(os.path.join(path, name)) for name in (TURN, WORKERS))


def _is_beginning(name: str) -> bool:
    """Return whether a data file has no more than the two pages with which a new one begins, or what is left of them.

    They are flushed before a page with data is written. Until then, a power cut may leave any part of them. If that
    flush fails, they may never reach the disk, unless they are written again.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        is_small = os.fstat(descriptor).st_size <= 2 * page
        return is_small and all(looks_begun(os.pread(descriptor, page, at)) for at in (0, page))
    finally:
        os.close(descriptor)


def allocate_lock_file(path: str, readers: int, alone: bool) -> None:
    """Write LMDB's whole lock file, because a full disk would end the process when LMDB writes to its map.

    ``alone`` means that no process has the store open. Then the file is cleared, because LMDB leaves the entries of an
    earlier use in the reader table, and the slot of the flush point makes LMDB read all of the table up to there. This
    process must not have the file open.
    """
    name = os.path.join(path, LMDB_LOCK)
    # 64 bytes for each reader, and a header (mdb.c: MDB_reader and MDB_txninfo).
    wanted = readers * 64 + 4096
    try:
        descriptor = open_regular(name, os.O_RDWR)
    except UnsafeFileError:
        raise
    except OSError:  # a read-only folder, which LMDB handles
        return
    try:
        status = os.fstat(descriptor)
        if status.st_nlink > 1 and os.pread(descriptor, 4, 0) not in (b"", bytes(4), struct.pack("=I", MAGIC)):
            raise UnsafeFileError(
                errno.EMLINK, "this file is a hard link to a file that is no lock file of LMDB, so it was not written. "
                "Remove it from this folder", name
            )
        size = status.st_size
        if alone and not is_locked_elsewhere(descriptor):
            size = 0
            wanted = max(wanted, status.st_size)
        while size < wanted:
            size += os.pwrite(descriptor, bytes(wanted - size), size)
    except PersistentOrderedDictException:
        raise
    except OSError as error:
        raise creation_error(error, path, "the store cannot be opened", "its lock file") from error
    finally:
        os.close(descriptor)


def opening_error(error: OSError, path: str, writes: bool) -> PersistentOrderedDictException:
    """Return the error for a store that the system refuses to open."""
    number, reason = error.errno or errno.EIO, error.strerror or str(error)
    if number in _FULL:
        text = f"the store cannot be opened because the disk is full ({reason}); free some space and try again"
        return DiskFullError(number, text, path)
    if number in _FORBIDDEN:
        way_out = "change the permissions of its files"
        if writes and os.path.lexists(path):
            way_out = 'reading may be possible (mode="r" in Python); to write, change the permissions of its files'
        return StoreAccessError(number, f"the store cannot be opened ({reason}); {way_out}", path)
    way_out = {
        errno.EMFILE: "; this process has too many files open: close some, or raise the limit (ulimit -n)",
        errno.ENFILE: "; the system has too many files open: close some",
        errno.ENAMETOOLONG: "; use a shorter path",
        errno.ELOOP: "; its symbolic links form a circle: correct them or use another path",
        errno.ENOENT: "; a part of the path is missing, or was removed just now",
    }.get(number, "")
    return StorageError(number, f"the store cannot be opened ({reason}){way_out}", path)


def creation_error(error: OSError, path: str, effect: str, file: str) -> OSError:
    """Return the error for a small file of the store that the system refuses to create or write."""
    if error.errno in _FULL:
        text = f"{effect} because the disk has no room for {file} ({error.strerror}); free some space and try again"
        return DiskFullError(error.errno, text, path)
    kind = StoreAccessError if error.errno in _FORBIDDEN else StorageError
    return kind(error.errno, f"{effect} because {file} cannot be created ({error.strerror})", path)


def is_full(path: str, reason: str) -> bool:
    """Return whether an error of a write was caused by a full disk or a limit on file sizes."""
    if any(os.strerror(number) in reason for number in _FULL):
        return True
    if os.strerror(errno.EIO) not in reason:
        return False
    # Check the free space, because LMDB reports EIO for every short write.
    status = os.statvfs(path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return status.f_bavail * status.f_frsize < 1 << 24 or limit != resource.RLIM_INFINITY


def _damaged(path: str, reason: str) -> PersistentOrderedDictIntegrityError:
    return PersistentOrderedDictIntegrityError(
        f"the store at {path} is damaged: {reason}. Restore a copy of the folder. Nothing in it was changed"
    )


def file_identities(path: str) -> dict[str, Identity | None]:
    """Return device and inode of each file that must not change while a store is open, or None for a missing one.

    Raises UnsafeFileError if one of them is no regular file.
    """
    return {name: check_regular(os.path.join(path, name)) for name in (DATA, LMDB_LOCK, OWNER)}


def find_unsafe_files(path: str) -> Iterator[UnsafeFileError]:
    """Yield an error for each file of a store that is no regular file, including worker files."""
    names = [os.path.join(path, name) for name in (DATA, LMDB_LOCK, OWNER, TURN, FLUSHED, RUNNING, UNDO)]
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
    """Return which of these files were replaced. A missing data file counts as replaced, a missing lock file does not.

    A missing lock file keeps other processes out until it is created again. No process creates it while the store is
    open.
    """
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


def flush_folder(path: str, required: bool = False) -> None:
    """Flush a folder and its parent, so that the names of new files survive a power cut.

    Errors are ignored, because some file systems do not support this. If ``required``, raise those of a disk.
    """
    for folder in (path, os.path.dirname(path)):
        descriptor = open_folder(folder, follow=True)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if required and (error.errno == errno.EIO or error.errno in _FULL):
                raise
        finally:
            os.close(descriptor)
