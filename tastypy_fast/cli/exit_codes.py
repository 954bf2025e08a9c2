"""How the command ends: exit codes, and errors in one line."""

from __future__ import annotations

import os
import sys

from tastypy_fast import (
    DamagedInputError,
    NewerFormatError,
    NotAStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    StoreConflictError,
    StoreInUseError,
    StoreKindError,
    StoreNotFoundError,
    StorePathError,
)
from tastypy_fast.cli.formatting import printable

__all__ = [
    "CANNOT_OPEN",
    "DONE",
    "INTERRUPTED",
    "NO",
    "NOBODY_READS",
    "REFUSED",
    "USAGE",
    "Failure",
    "code_of",
    "message_of",
    "warn",
]

DONE, NO, USAGE, CANNOT_OPEN, REFUSED, INTERRUPTED, NOBODY_READS = 0, 1, 2, 3, 4, 130, 141

_CANNOT_OPEN = (
    NewerFormatError, NotAStoreError, PersistentOrderedDictIntegrityError, StoreConflictError, StoreInUseError,
    StoreKindError, StoreNotFoundError, StorePathError,
)


class Failure(Exception):
    """Ends the command with a message and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: BaseException) -> int:
    """The exit code for an error."""
    if isinstance(error, Failure):
        return error.code
    cannot_open = isinstance(error, _CANNOT_OPEN) and not isinstance(error, DamagedInputError)
    return CANNOT_OPEN if cannot_open else REFUSED


def message_of(error: BaseException) -> str:
    """An error in one line, as a user of the command reads it."""
    if isinstance(error, StoreNotFoundError):
        return f"there is no store at {_name(error)}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {_name(error)}" if error.filename is not None else error.strerror
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, (Failure, PersistentOrderedDictException)):
        return text
    return f"{type(error).__name__}: {text}"


def _name(error: OSError) -> str:
    return repr(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else str(error.filename)


def warn(message: str) -> None:
    """A line on stderr."""
    sys.stdout.flush()
    print(f"tastypy-fast: {printable(' '.join(message.split()), sys.stderr)}", file=sys.stderr, flush=True)
