"""Validate the paths that callers pass, and resolve them to absolute paths without symbolic links."""

from __future__ import annotations

import errno
import os

from tastypy_fast.exceptions import StorePathError

__all__ = ["Path", "checked", "refuse_inside", "resolved"]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def checked(path: Path, what: str = "path") -> str:
    """Validate a path, and return it as text, with ``~`` and ``~user`` at its start expanded.

    ``what`` names the argument in errors. Raises TypeError for another type, and StorePathError for a path that cannot
    exist: an empty path, one with a null byte, and ``~user`` for an unknown user.

    >>> checked("a/b")
    'a/b'
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"the {what} must be a str, bytes or os.PathLike, not {type(path).__name__}")
    text = os.fsdecode(path)
    if not text:
        # os.path.realpath() would return the current folder.
        raise StorePathError(errno.EINVAL, f'the {what} is empty; write "." for the current folder', text)
    if "\0" in text:
        raise StorePathError(errno.EINVAL, f"the {what} has a null byte in it, which no file name can have; remove it",
                             text)
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise StorePathError(errno.EILSEQ, f"the {what} cannot be written in the encoding of file names: {error}", text
                             ) from None
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        user = text.partition(os.sep)[0]
        raise StorePathError(errno.ENOENT, f"the {what} begins with {user}, whose home folder is not known; write "
                             f"./{user} for a name that begins with ~", text)
    return expanded


def resolved(path: Path, what: str = "path") -> str:
    """Resolve a path to an absolute path without symbolic links. Raises the same errors as ``checked()``."""
    text = checked(path, what)
    try:
        return os.path.realpath(text)
    except FileNotFoundError:
        raise StorePathError(errno.ENOENT, f"the {what} is relative, and the current folder was removed; write an "
                             f"absolute path", text) from None


def refuse_inside(target: str, source: str, what: str) -> None:
    """Raise StorePathError if ``target`` lies inside the folder ``source``. Both paths are resolved.

    ``what`` names the source. Folders are compared by device and inode, because one folder may have two names (bind
    mounts, file systems that ignore case).
    """
    if not os.path.isdir(source):
        return
    folder = os.path.dirname(target)
    while not _is_same(folder, source):
        folder, below = os.path.dirname(folder), folder
        if folder == below:
            return
    raise StorePathError(errno.EINVAL, f"this path is inside {what}, {source}; use a path outside it", target)


def _is_same(folder: str, other: str) -> bool:
    try:
        return os.path.samefile(folder, other)
    except OSError:  # it does not exist yet
        return False
