"""Who may write a store: one process, or all that share it. Told by a lock on ``owner.lock``."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import time

from tastypy_fast._files import LMDB_LOCK, OWNER
from tastypy_fast.exceptions import StorageError, StoreInUseError

__all__ = ["EngineLock", "OwnerLock", "ReaderLock", "SharedLock"]

# How long another process may take to open a store.
OPENING_SECONDS = 30


class LockFile:
    """A file or folder to be locked. What is lost on the way, by an interrupt perhaps, is closed. Closing again does
    nothing (a descriptor may be another file's by then)."""

    _number = -1

    def __init__(self, path: str, flags: int) -> None:
        self._number = os.open(path, flags | os.O_CLOEXEC, 0o644)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._number

    def close(self) -> None:
        """Let go of it, and of its lock."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    __del__ = close


class OwnerLock:
    """The right to write a private store, held by one process at a time."""

    def __init__(self, path: str) -> None:
        """Take the lock, or raise StoreInUseError at once."""
        self._file = LockFile(os.path.join(path, OWNER), os.O_RDWR | os.O_CREAT)
        try:
            if not take_patiently(self._file):
                raise in_use(path, read_name(self._file))
            refuse_readers(path)
        except BaseException as error:
            self.release()
            raise as_ours(error, path) from None

    def write_name(self, durability: str) -> None:
        """Note who has the lock, for the error in another process, and for those who look what a power cut takes."""
        program = os.path.basename(sys.argv[0]) or "python"
        write_name(self._file, f"process {os.getpid()} on {socket.gethostname()} ({program})", durability)

    def release(self) -> None:
        """Let another process have the store."""
        self._file.close()

    # A forked child closes its copy; the lock stays with the parent's. To unlock it would take it from both.
    leave_to_parent = release


class SharedLock:
    """The right to write a store together with all others that have it like this."""

    def __init__(self, path: str) -> None:
        """Take the lock. ``alone``: nobody else has it, and nobody gets it before ``share()``.

        Waits for a process that is just opening the store; raises StoreInUseError where it is private to one.
        """
        self._path = path
        self._file = LockFile(os.path.join(path, OWNER), os.O_RDWR | os.O_CREAT)
        try:
            self.alone = self._take()
            refuse_readers(path)
        except BaseException as error:
            self.release()
            raise as_ours(error, path) from None

    def _take(self) -> bool:
        refused = 0
        until = time.monotonic() + OPENING_SECONDS
        while True:
            for mode in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                try:
                    fcntl.flock(self._file, mode | fcntl.LOCK_NB)
                    if mode == fcntl.LOCK_EX and os.fstat(self._file.fileno()).st_size:
                        # An owner before this has left its name. (An empty file tells of a store half made.)
                        self.write_name("")
                    return mode == fcntl.LOCK_EX
                except BlockingIOError:
                    pass
            # Its owner has written its name, or is somebody who opens the store and will let others in.
            name = read_name(self._file)
            refused += name.startswith("process ")
            if refused > 3 or time.monotonic() > until:
                raise in_use(self._path, name)
            time.sleep(0.005)

    def write_name(self, durability: str) -> None:
        """Note, for the error in another process, that the store is shared."""
        write_name(self._file, "those that share it", durability)

    def share(self) -> None:
        """The store is open: let others in."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # between two locks a private owner may come
            raise in_use(self._path, read_name(self._file)) from None

    def release(self) -> None:
        """Let this process's part of it go."""
        self._file.close()

    def leave_to_parent(self) -> None:
        """A forked child has a part of its own in its parent's lock, and keeps it."""


class ReaderLock:
    """The right to read a store without LMDB's table of readers, which this process may not write: any number of
    processes have it at once, and then nobody writes.

    It is a lock on the folder itself. Who writes has ``owner.lock`` and then asks for the folder; who reads like this
    has the folder and then asks for ``owner.lock``: of two that come at once, one at least sees the other.
    """

    def __init__(self, path: str) -> None:
        self._file = LockFile(path, os.O_RDONLY)
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            owner = LockFile(os.path.join(path, OWNER), os.O_RDONLY)
            try:
                if not take_patiently(owner):
                    raise in_use(path, read_name(owner))
            finally:
                owner.close()
        except BaseException as error:
            self.release()
            raise as_ours(error, path) from None

    def release(self) -> None:
        """Let others write."""
        self._file.close()

    # (as OwnerLock)
    leave_to_parent = release


class EngineLock:
    """That no other process has the engine open on a store, to read perhaps. Whoever opens it meanwhile waits.

    It is the engine's own lock on the first byte of its lock file. The engine of this process is closed when it is
    taken: opening and closing it lets go of it.
    """

    def __init__(self, path: str, patience: float = 0.1) -> None:
        """Take it within so many seconds, or raise StoreInUseError."""
        self._file = LockFile(os.path.join(path, LMDB_LOCK), os.O_RDWR)
        until = time.monotonic() + patience
        try:
            while True:
                try:
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
                    return
                except (BlockingIOError, PermissionError):
                    if time.monotonic() > until:
                        raise StoreInUseError(
                            errno.EWOULDBLOCK, "a process has this store open to read it; wait for it to end", path
                        ) from None
                time.sleep(0.005)
        except BaseException as error:
            self.release()
            raise as_ours(error, path) from None

    def invalidate(self) -> None:
        """Have the next one who opens the engine begin its lock file anew: it fits to the data file, which is about to
        be another one."""
        os.pwrite(self._file.fileno(), bytes(4), 0)

    def release(self) -> None:
        """Let others open it."""
        self._file.close()


def take_patiently(file: LockFile) -> bool:
    """Lock a file alone, unless somebody keeps it. Others may have it for a moment, to see whether it is free."""
    for _ in range(10):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.002)
    return False


def refuse_readers(path: str) -> None:
    """An error where somebody reads the store in a way that lets nobody write (see ReaderLock)."""
    folder = LockFile(path, os.O_RDONLY)
    try:
        if not take_patiently(folder):
            raise StoreInUseError(
                errno.EWOULDBLOCK, "a process reads this store that may not write its lock.mdb, and so lets nobody "
                "write; wait for it to end, or give it the right", path
            )
    finally:
        folder.close()


def as_ours(error: BaseException, path: str) -> BaseException:
    """What the system said about a lock, in our words; anything else as it is."""
    if isinstance(error, StoreInUseError) or not isinstance(error, OSError):
        return error
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return StorageError(error.errno, f"no file can be opened to lock the store ({error.strerror})", path)
    return StorageError(error.errno, f"the file system cannot lock files ({error.strerror})", path)


def read_name(file: LockFile) -> str:
    """Who has the lock, as far as the file knows. Empty when a process is named that is gone."""
    name = os.pread(file.fileno(), 1000, 0).decode("utf-8", "replace").strip().partition("\n")[0]
    words = name.split()
    try:
        if words[0] == "process":
            os.kill(int(words[1]), 0)
    except PermissionError:  # somebody else's process, which is there
        return name
    except (OSError, ValueError, IndexError):  # left by a process that is gone
        return ""
    return name


def write_name(file: LockFile, name: str, durability: str) -> None:
    """Note who has the lock, in a line, and the durability, in another. (A full disk is no reason to fail here.)"""
    data = f"{name}\n{f'durability {durability}' if durability else ''}\n".encode("utf-8", "replace")
    try:
        os.pwrite(file.fileno(), data, 0)
        os.ftruncate(file.fileno(), len(data))
    except OSError:
        pass


def in_use(path: str, name: str) -> StoreInUseError:
    """The error for a store that others have open in a way that excludes this one."""
    if name.startswith("those "):
        text = (
            'other processes share this store. Use SharedPersistentOrderedDict or SharedProgressTracker, read with '
            'mode="r", or wait for them to end'
        )
    else:
        text = (
            f"{name or 'another process'} has this private store open. Wait for it to end, read "
            f'with mode="r", or use SharedPersistentOrderedDict or SharedProgressTracker in every process'
        )
    return StoreInUseError(errno.EWOULDBLOCK, text, path)
