"""Find the processes that have a store open to write, without opening the store."""

from __future__ import annotations

import fcntl
import os
import re
import sys
from typing import NamedTuple

from tastypy_fast._lmdb.file_locks import LockFile, read_name
from tastypy_fast._lmdb.store_dir import OWNER
from tastypy_fast.exceptions import UnsafeFileError

__all__ = ["LockHolders", "find_lock_holders"]


class LockHolders(NamedTuple):
    """The processes that have a store open to write.

    ``how`` is "private", "shared" or "nobody". ``text`` names the private owner. ``processes`` are the known process
    ids. ``durability`` is the option of the process that opened the store first, or empty if it is not known.
    """

    how: str
    text: str
    processes: tuple[int, ...]
    durability: str


def find_lock_holders(path: str) -> LockHolders:
    """Return which processes have the store at ``path`` open to write.

    This acquires the store's lock for a moment. A process that opens the store meanwhile waits for it. Cost: O(1), and
    on Linux one read of the system's list of locks.
    """
    try:
        file = LockFile(path, OWNER, os.O_RDONLY)
    except UnsafeFileError:
        raise
    except OSError:
        return LockHolders("nobody", "", (), "")
    try:
        text, how = read_name(file), "nobody"
        noted = re.search(rb"\ndurability (\w+)", os.pread(file.fileno(), 1000, 0))
        durability = noted[1].decode() if noted else ""
        if not _can_lock(file, fcntl.LOCK_EX):
            how = "shared" if _can_lock(file, fcntl.LOCK_SH) else "private"
        processes = _lockers(os.fstat(file.fileno()).st_ino) if how != "nobody" else ()
    finally:
        file.close()
    if how == "private" and not processes and text.startswith("process "):
        processes = (int(text.split()[1]),)
    return LockHolders(how, text if how == "private" else "", processes, durability)


def _can_lock(file: LockFile, mode: int) -> bool:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _lockers(inode: int) -> tuple[int, ...]:
    """Return the processes that hold a lock on a file, if the system lists them.

    The list has the process that acquired a lock, but not its forked children, which also hold it.
    """
    if sys.platform != "linux":
        return ()
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as lines:
            fields = [line.split() for line in lines]
    except OSError:
        return ()
    # A line is "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF", with "->" before FLOCK if the process waits.
    found = {int(part[4]) for part in fields
             if len(part) > 5 and part[1] == "FLOCK" and part[5].rpartition(":")[2] == str(inode)}
    return tuple(sorted(found - {os.getpid(), -1, 0}))
