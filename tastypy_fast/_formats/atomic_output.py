"""Write new files and folders atomically: make them in a temporary folder, then rename them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tastypy_fast._lmdb.safe_files import open_folder
from tastypy_fast._lmdb.store_dir import creation_error, flush_folder
from tastypy_fast._paths import Path, refuse_inside, resolved
from tastypy_fast.exceptions import NotAStoreError, PersistentOrderedDictException, StorePathError, UnsafeFileError

__all__ = ["atomic_output", "resolve_new_path", "translate_os_errors"]

# A temporary folder is called NAME.tastypy_fast-RANDOM, where tempfile adds the last part.
_MARK = ".tastypy_fast-"
_RANDOM = re.compile("[a-z0-9_]{8}")


def resolve_new_path(path: Path, verb: str, source: str | None = None, role: str = "", replace: bool = False) -> str:
    """Resolve the path of a target, which must not exist yet or be an empty folder. With ``replace``, it may be a file.

    ``verb`` is for the error texts, as in "copy to". Raises NotAStoreError if the target exists and is not empty.
    Raises StorePathError if the path is inside the folder ``source``, which the text calls ``role``.
    """
    real = resolved(path, "target")
    if source is not None:
        refuse_inside(real, source, role)
    try:
        if os.listdir(real):
            raise NotAStoreError(errno.EEXIST, f"this folder is not empty; {verb} a new path or an empty folder", real)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        if os.path.lexists(real):
            if replace:
                return real
            raise NotAStoreError(errno.EEXIST, f"there is already a file at this path; {verb} a new path", real
                                 ) from None
        raise StorePathError(errno.ENOTDIR, "a part of this path is a file; use another path", real) from None
    except OSError as error:
        if isinstance(error, NotAStoreError):
            raise
        raise creation_error(error, real, "nothing was written", "it") from error
    return real


@contextmanager
def translate_os_errors(target: str) -> Iterator[None]:
    """Translate an OSError while writing to ``target`` into an error of the package."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PersistentOrderedDictException):
            raise
        raise creation_error(error, target, "nothing was written", "it") from error


@contextmanager
def atomic_output(target: str, replace: bool = False) -> Iterator[str]:
    """Yield a path at which to make a file or folder, and rename it to ``target`` when the block ends.

    The result is then on disk. With ``replace``, it replaces a file at ``target``, whose permissions it gets. If the
    block raises, its result and the new parent folders are removed. If the process is killed, a folder
    ``NAME.tastypy_fast-...`` is left, which the next call for ``target`` removes.
    """
    parent, name = os.path.split(target)
    missing = _missing_folders(parent)
    try:
        with translate_os_errors(target):
            os.makedirs(parent, exist_ok=True)
            _remove_leftovers(parent, name)
            place, lock = _make_temporary_folder(parent, name)
        try:
            made = os.path.join(place, name)
            yield made
            with translate_os_errors(target):
                _rename(made, target, replace)
                flush_folder(target if os.path.isdir(target) else parent)
        finally:
            shutil.rmtree(place, ignore_errors=True)
            os.close(lock)
    except BaseException:
        # rmdir() fails for a folder in which another process has made a file meanwhile, so this folder stays.
        for folder in missing:
            with suppress(OSError):
                os.rmdir(folder)
        raise


def _missing_folders(folder: str) -> list[str]:
    """Return ``folder`` and its parents that do not exist, the innermost first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def _rename(made: str, target: str, replace: bool) -> None:
    if replace and os.path.isfile(target):
        with open(made, "rb") as file:
            os.fchmod(file.fileno(), stat.S_IMODE(os.stat(target).st_mode))
            os.fsync(file.fileno())
        os.rename(made, target)
        return
    try:
        # A folder can replace only an empty folder. A file would replace any file, so check that there is none.
        if os.path.isdir(made) or not os.path.lexists(target):
            os.rename(made, target)
            return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    raise NotAStoreError(errno.EEXIST, "another process has made a file or folder at this path meanwhile; use another "
                         "path", target)


def _make_temporary_folder(parent: str, name: str) -> tuple[str, int]:
    """Make a folder and lock it, to show that its process is alive. Returns the folder and the lock."""
    while True:
        place = tempfile.mkdtemp(prefix=_prefix(name), dir=parent)
        lock = _lock(place)
        if lock is not None:
            return place, lock
        # Try again, because another process removed the folder as a leftover before it was locked.


def _prefix(name: str) -> str:
    # 50 characters of UTF-8 are at most 200 bytes, so the name stays below the limit of 255 bytes.
    return name[:50] + _MARK


def _lock(folder: str) -> int | None:
    """Lock a folder until this process ends. Returns None if another process has locked or removed it."""
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


def _remove_leftovers(parent: str, name: str) -> None:
    """Remove the temporary folders for ``name`` that killed processes left."""
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
