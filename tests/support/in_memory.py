"""A file system in memory."""

from __future__ import annotations

import os

MEMORY = "/dev/shm"


def has_room():
    """Check whether there is a file system in memory with a gigabyte free (a container may have 64 megabytes)."""
    if not os.access(MEMORY, os.W_OK):
        return False
    status = os.statvfs(MEMORY)
    return status.f_bavail * status.f_frsize > 1 << 30
