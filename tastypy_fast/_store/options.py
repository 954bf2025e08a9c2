"""Validate the options of a store, and compare them with the open instances and with the store on disk."""

from __future__ import annotations

import sys

from tastypy_fast._core.key_codec import describe
from tastypy_fast._lmdb.engine import DURABILITY
from tastypy_fast.exceptions import NewerFormatError, StoreConflictError, StoreKindError

__all__ = ["FORMAT", "KINDS", "Options", "at_least", "check_meta", "seconds_or_none"]

# The format on disk that this version writes. It reads all formats up to this one.
FORMAT = 5
# The longest time in seconds that sync_every may be: more than a century, and what every clock can count.
LONGEST = 1e10
KINDS = {b"dict": "a plain PersistentOrderedDict", b"tracker": "a ProgressTracker"}


class Options:
    """The options on which all instances on one path must agree."""

    def __init__(self, kind: bytes, mode: str, durability: str, gzipped: bool, file_size: int,
                 shared: bool = False) -> None:
        if mode not in ("r", "w"):
            raise ValueError(f'mode must be "w" or "r", not {mode!r}')
        if durability not in DURABILITY:
            raise ValueError(f"durability must be one of {', '.join(map(repr, DURABILITY))}, not {durability!r}")
        self.kind = kind
        self.mode = mode
        self.durability = durability
        self.shared = shared
        self.gzipped = bool(gzipped)
        self.file_size = at_least("file_size", file_size, 1)

    def check_same(self, path: str, other: Options) -> None:
        """Raise an error if another instance on the same path has other options."""
        if other.kind != self.kind:
            raise StoreKindError(
                f"this process has {path} open as {KINDS[self.kind]}; it cannot be {KINDS[other.kind]} at the same time"
            )
        if self.shared and other.mode == "r":
            return
        if self.mode == "r" and other.shared:
            raise StoreConflictError(
                f'this process has {path} open with mode="r"; open the shared one first, or close the other'
            )
        if self.shared != other.shared:
            raise StoreConflictError(
                f"this process has {path} open as a {'shared' if self.shared else 'private'} store, and each instance "
                f"would overwrite the changes of the other. Use the same class, or close the other instance first"
            )
        for name, mine, theirs in (
            ("mode", self.mode, other.mode),
            ("gzipped", self.gzipped, other.gzipped),
            ("file_size", self.file_size, other.file_size),
            ("durability", self.durability, other.durability),
        ):
            if mine != theirs:
                raise StoreConflictError(
                    f"this process has {path} open with {name}={mine!r}, not {theirs!r}. Pass the same options, or "
                    f"close the other instances first"
                )


def check_meta(path: str, found: dict[bytes, bytes], options: Options) -> None:
    """Raise an error if a store cannot be opened with these options. ``found`` is the content of its ``meta``."""
    version, kind = int(found[b"format"]), KINDS[found[b"kind"]]
    if version > FORMAT:
        raise NewerFormatError(
            f"the store at {path} has format {version}; this version of tastypy_fast reads formats up to {FORMAT}: "
            f"update it (pip install --upgrade tastypy_fast)"
        )
    if found[b"kind"] != options.kind:
        raise StoreKindError(
            f"the store at {path} is {kind}, not {KINDS[options.kind]}; open it with the class that created it"
        )


def seconds_or_none(name: str, value: object) -> float:
    """Return an argument that must be a number of seconds above 0, or 0.0 for None."""
    if value is None:
        return 0.0
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds or None, not {describe(value)}")
    if not value > 0:
        raise ValueError(f"{name} must be more than 0 seconds, or None for no limit; it is {describe(value)}")
    return float(min(value, LONGEST))


def at_least(name: str, value: object, least: int) -> int:
    """Validate an argument that must be an int of at least ``least``, and return it."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {describe(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {describe(value)}")
    # Limit the number, because compiled code takes no larger one, and no count reaches it.
    return min(value, sys.maxsize)
