"""Tell whether a folder is on a file system in memory, which a power cut empties anyway."""

from __future__ import annotations

from tastypy_fast._lmdb.file_system import file_system_type

__all__ = ["is_in_memory"]

# tmpfs and ramfs, as in statfs(2).
_IN_MEMORY = (0x01021994, 0x858458F6)


def is_in_memory(path: str) -> bool:
    """Return whether the folder ``path`` is on tmpfs or ramfs. False where the system does not tell."""
    return file_system_type(path) in _IN_MEMORY
