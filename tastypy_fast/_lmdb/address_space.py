"""Measure the address space of this process: its limit, its use, and whether LMDB's map may take more of it."""

from __future__ import annotations

import mmap
import resource

__all__ = ["address_space_limit", "address_space_used", "has_address_space", "has_room_for_map"]


def address_space_limit() -> int | None:
    """Return the limit on the address space of this process in bytes (``ulimit -v``), or None."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def address_space_used() -> int:
    """Return how many bytes of address space are used. 0 means that the system does not report it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0


def has_address_space(size: int) -> bool:
    """Return whether the system would map ``size`` more bytes into this process."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def has_room_for_map(size: int) -> bool:
    """Return whether LMDB's map may take ``size`` more bytes.

    An eighth of a limited address space stays free, because the rest of the process needs memory, too.
    """
    return has_address_space(size + (address_space_limit() or 0) // 8)
