"""The arguments with which a store is opened."""

from __future__ import annotations

__all__ = ["DURABILITY", "Options", "at_least"]

# How a commit leaves the disk, in LMDB's options.
DURABILITY: dict[str, dict[str, bool]] = {
    "full": {"sync": True, "metasync": True},
    "normal": {"sync": True, "metasync": False},
    "process": {"sync": False, "metasync": False},
}


class Options:
    """What instances on one path must agree on."""

    def __init__(self, kind: bytes, mode: str, durability: str, gzipped: bool, file_size: int) -> None:
        if mode not in ("r", "w"):
            raise ValueError(f'mode must be "w" or "r", not {mode!r}')
        if durability not in DURABILITY:
            raise ValueError(f"durability must be one of {', '.join(map(repr, DURABILITY))}, not {durability!r}")
        self.kind = kind
        self.mode = mode
        self.durability = durability
        self.gzipped = bool(gzipped)
        self.file_size = at_least("file_size", file_size, 1)

    def conflict(self, other: Options) -> str | None:
        """The first option, with both values, in which ``other`` differs."""
        for name in ("mode", "gzipped", "file_size", "durability"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name}={mine!r}, not {theirs!r}"
        return None


def at_least(name: str, value: object, least: int) -> int:
    """An argument that must be an int of at least ``least``, checked."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value
