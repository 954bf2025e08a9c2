"""Open the files of a store without trusting its folder, which may come from a stranger.

If a lock file was replaced by a symbolic link, LMDB would overwrite another file of the user. A pipe would block
``open()`` for ever. So this module opens only regular files, and follows no links. Each descriptor is above those of
the standard streams. If a program has closed a standard stream, error messages would otherwise be written into the
file. Descriptors are closed at ``exec``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from tastypy_fast.exceptions import UnsafeFileError

__all__ = [
    "check_regular",
    "close_on_exec",
    "make_folder",
    "open_folder",
    "open_regular",
    "standard_descriptors_taken",
]

# O_NONBLOCK opens a pipe without a writer at once, so that it can be refused.
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a regular file",
}


def open_regular(name: str, flags: int, model: str | None = None) -> int:
    """Open the regular file ``name`` and return its descriptor. Raises UnsafeFileError for anything else.

    ``flags`` are those of ``os.open()``. A file that O_CREAT creates gets the owner, the group and the mode of the file
    ``model``, if that exists and the system permits. Every user of the store can therefore use a file that root or
    another member of the group adds.
    """
    with standard_descriptors_taken():
        while True:
            if not flags & os.O_EXCL:
                try:
                    return _open(name, flags & ~os.O_CREAT)
                except FileNotFoundError:
                    if not flags & os.O_CREAT:
                        raise
            try:
                descriptor = _open(name, flags | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
                continue  # another process has just created it
            if model is not None:
                _adopt_rights(descriptor, model)
            return descriptor


def open_folder(name: str, follow: bool = False) -> int:
    """Open a folder to lock it, flush it or open files in it. ``follow`` permits a symbolic link."""
    with standard_descriptors_taken():
        flags = _FLAGS | os.O_RDONLY | os.O_DIRECTORY
        try:
            return os.open(name, flags & ~os.O_NOFOLLOW if follow else flags)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR) and _kind_of(name) != stat.S_IFDIR:
                raise _unsafe(name, stat.S_IFDIR) from error
            raise


def make_folder(name: str, model: str) -> None:
    """Create a folder with the owner, the group and the mode of the file ``model``, unless it exists.

    Raises UnsafeFileError if something else has this name.
    """
    try:
        os.mkdir(name)
    except FileExistsError:
        os.close(open_folder(name))
        return
    descriptor = open_folder(name)
    try:
        _adopt_rights(descriptor, model)
    finally:
        os.close(descriptor)


def check_regular(name: str) -> tuple[int, int] | None:
    """Check that ``name`` is a regular file, and return its device and inode, or None if it is missing.

    Use this for the files that LMDB opens by name.
    """
    try:
        status = os.lstat(name)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise _unsafe(name, stat.S_IFREG)
    return status.st_dev, status.st_ino


def standard_descriptors_taken() -> AbstractContextManager[None]:
    """Prevent files that are opened in a ``with`` block from getting a descriptor below 3.

    The root folder is opened at the closed descriptors meanwhile, because writing to it fails as to a closed one.
    """
    return _NOTHING if all(map(_is_open, range(3))) else _taken()


_NOTHING = nullcontext()


@contextmanager
def _taken() -> Iterator[None]:
    taken: list[int] = []
    try:
        while any(not _is_open(number) for number in range(3)):
            taken.append(os.open("/", os.O_RDONLY | os.O_CLOEXEC))
        yield
    finally:
        for number in taken:
            os.close(number)


def close_on_exec(files: Collection[tuple[int, int] | None]) -> None:
    """Set the close-on-exec flag of the descriptors of some files, because LMDB opens them without it.

    ``files`` are pairs of device and inode. Cost: one or two system calls for each descriptor of this process.
    """
    for number in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):  # the descriptor of the directory listing is closed by now
            if os.get_inheritable(number):
                status = os.fstat(number)
                if (status.st_dev, status.st_ino) in files:
                    os.set_inheritable(number, False)


def _open(name: str, flags: int) -> int:
    try:
        descriptor = os.open(name, flags | _FLAGS, 0o666)
    except OSError as error:
        # ELOOP means a link, here or in a parent. ENXIO means a socket or a pipe without a reader. EISDIR is a folder.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR) and _kind_of(name) != stat.S_IFREG:
            raise _unsafe(name, stat.S_IFREG) from error
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _unsafe(name, stat.S_IFREG)


def _kind_of(name: str) -> int:
    return stat.S_IFMT(os.lstat(name).st_mode)


def _unsafe(name: str, wanted: int) -> UnsafeFileError:
    kind = _kind_of(name)
    return UnsafeFileError(
        errno.ELOOP if kind == stat.S_IFLNK else errno.EINVAL,
        f"this is {_KINDS.get(kind, 'something')} where a store has {_KINDS[wanted]}, so it was neither followed nor "
        f"opened. Remove it if it does not belong there", name,
    )


def _adopt_rights(descriptor: int, model: str) -> None:
    try:
        status = os.lstat(model)
    except OSError:  # there is no model, so the creator and the umask decide
        return
    own = os.fstat(descriptor)
    with suppress(OSError):
        if own.st_uid != status.st_uid:
            os.fchown(descriptor, status.st_uid, -1)
    with suppress(OSError):
        if own.st_gid != status.st_gid:
            os.fchown(descriptor, -1, status.st_gid)
    # LMDB writes the lock file for readers, too.
    mode = status.st_mode & 0o666 | 0o600
    if stat.S_ISDIR(own.st_mode):
        # A user who may read the folder may search it. Its set-group-id bit stays.
        mode |= (mode & 0o444) >> 2 | own.st_mode & 0o7000
    with suppress(OSError):
        os.fchmod(descriptor, mode)


def _is_open(number: int) -> bool:
    try:
        os.get_inheritable(number)  # the cheapest call that fails on a closed descriptor
    except OSError:
        return False
    return True
