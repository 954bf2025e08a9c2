"""Find the processes that have a store open to write, without opening the store."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal, NamedTuple

from tastypy_fast._lmdb.file_locks import LockFile, read_name
from tastypy_fast._lmdb.store_dir import OWNER
from tastypy_fast.exceptions import UnsafeFileError

__all__ = ["LockHolders", "find_lock_holders", "how_is_open"]

How = Literal["private", "shared", "nobody"]


class LockHolders(NamedTuple):
    """The processes that have a store open to write.

    ``how`` is "private", "shared" or "nobody". ``text`` names the private owner. ``processes`` are the process ids that
    the system tells. ``durability`` is the option of the process that opened the store first, or empty if it is not
    known.
    """

    how: How
    text: str
    processes: tuple[int, ...]
    durability: str


def find_lock_holders(path: str) -> LockHolders:
    """Return which processes have the store at ``path`` open to write.

    This acquires the store's lock for a moment. A process that opens the store meanwhile waits for it. Cost: on Linux
    one call of the system for each file that any process has open, and else O(1).
    """
    file = _open_lock(path)
    if file is None:
        return LockHolders("nobody", "", (), "")
    try:
        text, how = read_name(file), _how_is_locked(file)
        noted = re.search(rb"\ndurability (\w+)", os.pread(file.fileno(), 1000, 0))
        durability = noted[1].decode() if noted else ""
        identity = file.identity()
    finally:
        file.close()
    # Only now, because this process would have the file open itself.
    processes = _processes_with(identity) if how != "nobody" else ()
    if how == "private" and not processes and text.startswith("process "):
        processes = (int(text.split()[1]),)
    return LockHolders(how, text if how == "private" else "", processes, durability)


def how_is_open(path: str) -> How:
    """Return how processes have the store at ``path`` open to write. Cost: O(1). See ``find_lock_holders()``."""
    file = _open_lock(path)
    if file is None:
        return "nobody"
    try:
        return _how_is_locked(file)
    finally:
        file.close()


def _open_lock(path: str) -> LockFile | None:
    try:
        return LockFile(path, OWNER, os.O_RDONLY)
    except UnsafeFileError:
        raise
    except OSError:
        return None


def _how_is_locked(file: LockFile) -> How:
    if _can_lock(file, fcntl.LOCK_EX):
        return "nobody"
    return "shared" if _can_lock(file, fcntl.LOCK_SH) else "private"


def _can_lock(file: LockFile, mode: int) -> bool:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _processes_with(identity: tuple[int, int]) -> tuple[int, ...]:
    """Return the living processes that have a lock file open, if the system tells.

    A forked child has it open, too, and then holds the lock as well, also after its parent has ended. The list of locks
    names only the process that acquired a lock. So it is used for processes whose files this one may not see.
    """
    found, unseen = set(), set()
    for process in _processes():
        try:
            if _has_open(process, identity):
                found.add(process)
        except PermissionError:
            unseen.add(process)
        except OSError:
            pass  # it has ended
    if unseen:
        found |= unseen & _lockers(identity[1])
    return tuple(sorted(found))


def _processes() -> list[int]:
    """Return all processes, if the system has the folder /proc of Linux."""
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return []


def _has_open(process: int, identity: tuple[int, int]) -> bool:
    folder = f"/proc/{process}/fd"
    for name in os.listdir(folder):
        link = os.path.join(folder, name)
        with suppress(FileNotFoundError):  # it was closed meanwhile
            # Compare the name first, because a stat of a file on a dead network disk would hang.
            if OWNER in os.readlink(link):
                status = os.stat(link)
                if (status.st_dev, status.st_ino) == identity:
                    return True
    return False


def _lockers(inode: int) -> set[int]:
    """Return the processes that have acquired a lock on a file, if the system lists them."""
    return {int(part[4]) for part in _lines_of_locks()
            if len(part) > 5 and part[1] == "FLOCK" and part[5].rpartition(":")[2] == str(inode)}


def _lines_of_locks() -> Iterator[list[str]]:
    # A line is "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF", with "->" before FLOCK if the process waits.
    with suppress(OSError), open("/proc/locks", encoding="ascii", errors="replace") as lines:
        for line in lines:
            yield line.split()
