"""Tell whether a folder is on a file system in memory, which a power cut empties anyway."""

from __future__ import annotations

import os
import sys

from tastypy_fast._lmdb.network_fs import find_mount

__all__ = ["is_in_memory"]

# Device number -> whether its file system is in memory.
_devices: dict[int, bool] = {}


def is_in_memory(path: str) -> bool:
    """Return whether the folder ``path`` is on tmpfs or ramfs. False where the system does not tell.

    ``path`` is absolute and has no symbolic links. Cost: one ``stat``; the table of mounts is read once for each
    device.
    """
    try:
        device = os.stat(path).st_dev
        if device not in _devices:
            _devices[device] = _is_memory(path, device)
        return _devices[device]
    except OSError:
        return False


def _is_memory(path: str, device: int) -> bool:
    if sys.platform != "linux":
        return False
    with open("/proc/self/mountinfo", "rb") as file:
        mount = find_mount(file.read(), os.fsencode(path), device)
    return mount is not None and mount[0] in (b"tmpfs", b"ramfs")
