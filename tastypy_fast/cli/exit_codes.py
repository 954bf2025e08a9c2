"""Define the exit codes, and format errors as one line."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import TextIO

from tastypy_fast import (
    DamagedInputError,
    NewerFormatError,
    NotAStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    StorageError,
    StoreAccessError,
    StoreConflictError,
    StoreInUseError,
    StoreKindError,
    StoreNotFoundError,
    StorePathError,
    UnsafeFileError,
)
from tastypy_fast.cli.formatting import printable

__all__ = [
    "BROKEN_PIPE",
    "CANNOT_OPEN",
    "INCOMPLETE",
    "INTERRUPTED",
    "OK",
    "OTHER_ERROR",
    "USAGE",
    "CommandError",
    "discard",
    "exit_code_of",
    "format_error",
    "print_error",
]

OK, INCOMPLETE, USAGE, CANNOT_OPEN, OTHER_ERROR, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 130, 141

_CANNOT_OPEN = (
    NewerFormatError, NotAStoreError, PersistentOrderedDictIntegrityError, StoreConflictError, StoreInUseError,
    StoreAccessError, StoreKindError, StoreNotFoundError, StorePathError, UnsafeFileError,
)


class CommandError(Exception):
    """Ends the command with a message and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def exit_code_of(error: BaseException) -> int:
    """Return the exit code for an error."""
    if isinstance(error, CommandError):
        return error.code
    cannot_open = isinstance(error, _CANNOT_OPEN) and not isinstance(error, DamagedInputError)
    if isinstance(error, StorageError) and error.errno in (errno.EACCES, errno.EPERM):
        cannot_open = True
    return CANNOT_OPEN if cannot_open else OTHER_ERROR


def format_error(error: BaseException) -> str:
    """Return the message for an error, in one line."""
    if isinstance(error, StoreNotFoundError):
        return f"there is no store at {_name(error)}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {_name(error)}" if error.filename is not None else error.strerror
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, (CommandError, PersistentOrderedDictException)):
        return text
    return f"{type(error).__name__}: {text}"


def _name(error: OSError) -> str:
    return repr(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else str(error.filename)


def print_error(message: str) -> None:
    """Print one line on stderr. If that fails, the exit code is all that is left to tell."""
    with suppress(OSError):  # which the end of the command reports
        sys.stdout.flush()
    try:
        print(f"tastypy-fast: {printable(' '.join(message.split()), sys.stderr)}", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Send the rest of a stream to /dev/null, because the interpreter flushes it at exit and would fail."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
