"""Copy, compact, verify and repair stores of any class.

Every function runs its work in a subprocess, which ends with the caller. So a damaged file cannot crash the caller, and
the caller may have the store open itself. Changes that the caller has not synced yet are not part of the store.

Example:
    >>> from tastypy_fast import maintenance
    >>> with PersistentOrderedDict(path, init={"a": 1}) as pod:
    ...     pod.sync()
    ...     maintenance.copy(path, path + ".backup")
    >>> maintenance.verify(path + ".backup")
    []
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

from tastypy_fast._formats.atomic_output import atomic_output, resolve_new_path
from tastypy_fast._lmdb.store_dir import no_store_error, opening_error
from tastypy_fast._paths import Path, resolved
from tastypy_fast.exceptions import (
    DiskFullError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    StorageError,
    StoreAccessError,
)
from tastypy_fast.maintenance._compact import compact_store, copy_store, remove_leftovers
from tastypy_fast.maintenance._repair import Repair, repair_store
from tastypy_fast.maintenance._subprocess import SubprocessDied, run_in_subprocess
from tastypy_fast.maintenance._verify import verify_store

__all__ = ["Repair", "compact", "copy", "repair", "verify"]

T = TypeVar("T")


def copy(path: Path, target: Path) -> None:
    """Copy a store to a new folder, also while other processes write it.

    The copy is a snapshot of one moment. It has all synced changes, or for a shared store all committed changes. No
    writer waits for it. But if other processes write much meanwhile, the data file of the source grows, because pages
    that the copy reads cannot be reused. The copy has no free space inside. It appears at ``target`` when it is
    complete and on disk. If the function raises, ``target`` is unchanged.

    Cost: reads and writes the whole store once.

    Args:
        path: The folder of the store.
        target: The folder of the copy, which must be new or empty.

    Raises:
        StoreNotFoundError: ``path`` does not exist.
        NotAStoreError: ``path`` is not a store, or ``target`` exists and is not empty.
        StorePathError: A path is invalid, or ``target`` is inside the store.
        PersistentOrderedDictIntegrityError: The store is damaged.
        DiskFullError: There is no room for the copy.
        StorageError: The system refuses to read or write a file. A missing permission is a ``StoreAccessError``.

    Example:
        >>> pod = PersistentOrderedDict(path, init={"a": 1})
        >>> pod.sync()
        >>> copy(path, path + ".copy")
        >>> PersistentOrderedDict(path + ".copy").items()
        [('a', 1)]
    """
    _make_from(path, target, "copy to", "the store that is copied", copy_store)


def compact(path: Path) -> tuple[int, int]:
    """Return the free space inside a store to the file system.

    No process may have the store open, not even to read. If the process is killed, the store is the old one or the new
    one, complete and on disk. A file ``data.compacted`` may then be left, which the next compaction removes. If the
    function raises, the store is unchanged.

    Cost: reads and writes the whole store once, and needs free disk space for a copy of it meanwhile.

    Args:
        path: The folder of the store.

    Returns:
        The size of the data file before and after, in bytes.

    Raises:
        StoreInUseError: A process has the store open.
        StoreNotFoundError: ``path`` does not exist.
        NotAStoreError: ``path`` is not a store.
        StorePathError: The path is invalid.
        PersistentOrderedDictIntegrityError: The store is damaged.
        DiskFullError: There is no room for the copy.
        StorageError: The system refuses to read or write a file. A missing permission is a ``StoreAccessError``.

    Example:
        >>> with PersistentOrderedDict(path, init={number: "x" * 1000 for number in range(1000)}) as pod:
        ...     pod.sync()
        ...     for number in range(1, 1000):
        ...         del pod[number]
        >>> before, after = compact(path)
        >>> before > 1_000_000, after < 50_000
        (True, True)
    """
    path = _found(path)
    try:
        with _translate_errors(path):
            return _result(run_in_subprocess(compact_store, path))
    except BaseException:
        remove_leftovers(path)
        raise


def verify(path: Path) -> list[str]:
    """Check a store for damage, also while other processes write it.

    The function checks every page of the data file, then every record, the index, the statuses, the claims and the
    write-ahead log. It only reads. It is safe for files of unknown origin, because LMDB opens a file only if its
    structure is sound, and only in a subprocess.

    Some damage cannot be detected. One example is a value that is still valid JSON after one digit changed. Others are
    an older value under its key, and a lost last commit to which nothing in the file refers.

    Cost: reads the whole store once. Memory use is one byte per page of 4 kB.

    Args:
        path: The folder of the store.

    Returns:
        One sentence for each fault, at most about a thousand, and an empty list for a sound store. A folder that is not
        a store is one fault.

    Raises:
        StoreNotFoundError: ``path`` does not exist.
        StorePathError: The path is invalid.
        NewerFormatError: A newer version of the package has written the store.
        StorageError: The store cannot be read. A missing permission is a ``StoreAccessError``.

    Example:
        >>> PersistentOrderedDict(path, init={"a": 1}).close()
        >>> verify(path)
        []
    """
    path = _found(path)
    found = []
    with closing(run_in_subprocess(verify_store, path)) as findings:
        try:
            with _translate_errors(path, crash=False):
                for finding in findings:
                    found.append(finding)  # not extend(), because the findings before a crash must be kept
        except SubprocessDied as end:
            found.append(_describe_crash(end))
    return found


def repair(path: Path, target: Path) -> Repair:
    """Make a new store from the readable parts of a damaged store.

    The damaged store is only read, and LMDB never opens its file. Records keep their order. The index, the counts and
    the statuses are rebuilt from the readable data, including the write-ahead log. A task whose status or data cannot
    be read is kept as not done. From a damaged page the function keeps all data that the store itself could still read.
    The new store appears at ``target`` when it is complete and on disk. If the function raises, ``target`` is
    unchanged.

    Cost: reads the whole store once. Memory use grows only with the number of losses.

    Args:
        path: The folder of the damaged store.
        target: The folder of the new store, which must be new or empty.

    Returns:
        The kept and lost parts. ``lost`` names each lost key that the index still has, and each page that may have been
        replaced by another page or an older one.

    Raises:
        StoreInUseError: A process has the store open to write.
        PersistentOrderedDictIntegrityError: Nothing can be read.
        StoreNotFoundError: ``path`` does not exist.
        NewerFormatError: A newer version of the package has written the store.
        NotAStoreError: ``path`` is not a store, or ``target`` exists and is not empty.
        StorePathError: A path is invalid, or ``target`` is inside the store.
        DiskFullError: There is no room for the new store.
        StorageError: The system refuses to read or write a file. A missing permission is a ``StoreAccessError``.

    Example:
        >>> PersistentOrderedDict(path, init={"a": 1, "b": 2}).close()
        >>> repair(path, path + ".new")
        Repair(kept=2, lost=[], undone=0)
    """
    return _make_from(path, target, "repair into", "the store that is repaired", repair_store)


def _make_from(path: Path, target: Path, verb: str, role: str, work: Callable[[str, str], Iterator[T]]) -> T:
    """Run ``work`` on a store and a new folder, which becomes ``target`` when the work is done."""
    source = _found(path)
    place = resolve_new_path(target, verb, source, role)
    with _translate_errors(source), atomic_output(place) as folder:
        os.mkdir(folder)
        return _result(run_in_subprocess(work, source, folder))


def _found(path: Path) -> str:
    """Return the resolved path of an existing file or folder. Raises the errors of opening a store."""
    real = resolved(path)
    try:
        os.lstat(real)
    except (FileNotFoundError, NotADirectoryError):
        raise no_store_error(real) from None
    except OSError as error:
        raise opening_error(error, real, False) from error
    return real


def _result(values: Generator[T, None, None]) -> T:
    with closing(values):
        return next(values)


@contextmanager
def _translate_errors(path: str, crash: bool = True) -> Iterator[None]:
    """Translate errors of the system, and the death of the subprocess, into errors of the package."""
    try:
        yield
    except SubprocessDied as end:
        if not end.crashed:
            raise StorageError(errno.EINTR, f"the subprocess that did the work has ended ({end}); try again", path
                               ) from end
        if not crash:
            raise
        raise PersistentOrderedDictIntegrityError(f"the store at {path} is damaged: {_describe_crash(end)}") from end
    except PersistentOrderedDictException:
        raise
    except OSError as error:
        number, text = error.errno or errno.EIO, error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(number, f"there is no room ({text}); the store is unchanged", path) from error
        kind = StoreAccessError if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else StorageError
        raise kind(number, f"the system refuses to read or write this file ({text})", error.filename or path) from error


def _describe_crash(end: SubprocessDied) -> str:
    return f"reading it crashed the subprocess ({end}); use repair() to save what can be read"
