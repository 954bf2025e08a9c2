"""The arguments with which a store is opened."""

from __future__ import annotations

import sys

from tastypy_fast._core.key_codec import describe
from tastypy_fast._lmdb.engine import DURABILITY
from tastypy_fast.exceptions import NewerFormatError, StoreConflictError, StoreKindError

__all__ = ["FORMAT", "KINDS", "Options", "at_least", "check_meta"]

FORMAT = 2
KINDS = {b"dict": "a plain PersistentOrderedDict", b"tracker": "a ProgressTracker"}


class Options:
    """What instances on one path must agree on."""

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
        """An error where another instance on the same path asks for something else."""
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
                f"this process has {path} open as a {'shared' if self.shared else 'private'} store, and each would "
                f"overwrite what the other one has in memory; use the same class, or close the other instance first"
            )
        for name in ("mode", "gzipped", "file_size", "durability"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise StoreConflictError(
                    f"this process has {path} open with {name}={mine!r}, not {theirs!r}; instances on one path must "
                    f"agree, so pass the same options or close the others first"
                )


def check_meta(path: str, found: dict[bytes, bytes], options: Options) -> None:
    """An error when the store at ``path``, which says this of itself, cannot be opened like this."""
    version, kind = int(found[b"format"]), KINDS[found[b"kind"]]
    if version > FORMAT:
        raise NewerFormatError(
            f"the store at {path} has format {version}; this version of tastypy_fast reads formats up to {FORMAT}: "
            f"update it (pip install --upgrade tastypy_fast)"
        )
    if found[b"kind"] != options.kind:
        raise StoreKindError(f"the store at {path} is {kind}, not {KINDS[options.kind]}; open it as what it is")


def at_least(name: str, value: object, least: int) -> int:
    """An argument that must be an int of at least ``least``, checked."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {describe(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {describe(value)}")
    # (more than anything can count to is as good as that)
    return min(value, sys.maxsize)
