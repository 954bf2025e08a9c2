"""New files and folders that appear whole or not at all: made beside their place, then renamed."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tastypy_fast._lmdb.safe_files import open_folder
from tastypy_fast._lmdb.store_dir import creation_error, flush_folder
from tastypy_fast._paths import Path, refuse_inside, resolved
from tastypy_fast.exceptions import NotAStoreError, PersistentOrderedDictException, StorePathError, UnsafeFileError

__all__ = ["atomic_output", "new_path", "system_errors"]

_MARK = ".tastypy_fast-"
# What tempfile puts behind it.
_RANDOM = re.compile("[a-z0-9_]{8}")


def new_path(path: Path, what: str, source: str | None = None, whose: str = "") -> str:
    """Return the resolved path of a target, at which there is nothing yet but perhaps an empty folder.

    Raises NotAStoreError for any other, and StorePathError for one inside of the folder ``source``, which ``whose``
    names.
    """
    real = resolved(path, "target")
    if source is not None:
        refuse_inside(real, source, whose)
    try:
        if os.listdir(real):
            raise NotAStoreError(errno.EEXIST, f"this folder is not empty; {what} a new path or an empty folder", real)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        if os.path.lexists(real):
            raise NotAStoreError(errno.EEXIST, f"there is a file at this path already; {what} a new path", real
                                 ) from None
        raise StorePathError(errno.ENOTDIR, "a part of this path is a file; use another path", real) from None
    except OSError as error:
        if isinstance(error, NotAStoreError):
            raise
        raise creation_error(error, real, "nothing was written", "it") from error
    return real


@contextmanager
def system_errors(target: str) -> Iterator[None]:
    """What the system says when it cannot write at ``target``, as an error of ours."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PersistentOrderedDictException):
            raise
        raise creation_error(error, target, "nothing was written", "it") from error


@contextmanager
def atomic_output(target: str) -> Iterator[str]:
    """A path at which to make a file or folder. When the block ends it is renamed to ``target``, and flushed to the
    disk; when it raises, it is removed, with the folders above it that were made for it.

    If the process is killed, a folder ``NAME.tastypy_fast-...`` is left, which the next one that makes ``target``
    removes.
    """
    parent, name = os.path.split(target)
    missing = _missing(parent)
    try:
        with system_errors(target):
            os.makedirs(parent, exist_ok=True)
            _sweep(parent, name)
            place, lock = _place(parent, name)
        try:
            made = os.path.join(place, name)
            yield made
            with system_errors(target):
                _rename(made, target)
                flush_folder(target if os.path.isdir(target) else parent)
        finally:
            shutil.rmtree(place, ignore_errors=True)
            os.close(lock)
    except BaseException:
        # (one in which somebody has made something meanwhile is not empty, and stays)
        for folder in missing:
            with suppress(OSError):
                os.rmdir(folder)
        raise


def _missing(folder: str) -> list[str]:
    """The folders that are to be made so that there is ``folder``, the innermost first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def _rename(made: str, target: str) -> None:
    try:
        # (a folder takes the place of an empty one only)
        if os.path.isdir(made) or not os.path.lexists(target):
            os.rename(made, target)
            return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    raise NotAStoreError(errno.EEXIST, "somebody else has made something at this path meanwhile", target)


def _place(parent: str, name: str) -> tuple[str, int]:
    """A new folder, and the lock that says that its process lives."""
    while True:
        place = tempfile.mkdtemp(prefix=_prefix(name), dir=parent)
        lock = _lock(place)
        if lock is not None:
            return place, lock
        # (another process has taken it for one that was left, in the moment before it was locked)


def _prefix(name: str) -> str:
    # (a letter may take four bytes of the 255 that a name may have)
    return name[:50] + _MARK


def _lock(folder: str) -> int | None:
    """Lock a folder for as long as this process lives; None when another one has it locked, or it is gone."""
    descriptor = None
    try:
        descriptor = open_folder(folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            return descriptor
    except (BlockingIOError, FileNotFoundError, UnsafeFileError):
        pass
    except BaseException:
        if descriptor is not None:
            os.close(descriptor)
        raise
    if descriptor is not None:
        os.close(descriptor)
    return None


def _sweep(parent: str, name: str) -> None:
    """Remove what killed processes have left."""
    prefix = _prefix(name)
    for left in os.listdir(parent):
        place = os.path.join(parent, left)
        if left.startswith(prefix) and _RANDOM.fullmatch(left[len(prefix):]):
            with suppress(OSError):
                lock = _lock(place)
                if lock is not None:
                    if os.listdir(place) in ([], [name]):
                        shutil.rmtree(place)
                    os.close(lock)
