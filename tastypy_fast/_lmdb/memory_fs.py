"""Tell whether a folder is on a file system in memory, which a power cut empties anyway."""

from __future__ import annotations

import os

from tastypy_fast._lmdb.network_fs import read_mount

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
            mount = read_mount(path, device)
            _devices[device] = mount is not None and mount[0] in (b"tmpfs", b"ramfs")
        return _devices[device]
    except OSError:
        return False
