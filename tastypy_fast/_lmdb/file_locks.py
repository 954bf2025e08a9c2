"""Who may write a store: one process, or all that share it. Told by a lock on ``owner.lock``."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import time

from tastypy_fast._lmdb.record_locks import is_locked_elsewhere, try_lock_opening, unlock_opening
from tastypy_fast._lmdb.safe_files import open_folder, open_regular
from tastypy_fast._lmdb.store_dir import DATA, LMDB_LOCK, OWNER, allocate_lock_file, begin_data_file, refused
from tastypy_fast.exceptions import PersistentOrderedDictException, StorageError, StoreInUseError

__all__ = ["DataLock", "EngineLock", "FolderLock", "LockFile", "OwnerLock", "ReaderLock", "SharedLock", "read_name"]

# How long another process may take to open a store.
OPENING_SECONDS = 30
# How long the locks of a process that is ending may outlast one another.
ENDING_SECONDS = 1


class LockFile:
    """A file of a store to be locked. What is lost on the way, by an interrupt perhaps, is closed. Closing again does
    nothing (a descriptor may be another file's by then)."""

    _number = -1

    def __init__(self, folder: str, name: str, flags: int) -> None:
        self._number = open_regular(os.path.join(folder, name), flags, os.path.join(folder, DATA))

    def fileno(self) -> int:
        """Its descriptor."""
        return self._number

    def close(self) -> None:
        """Let go of it, and of its lock."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def identity(self) -> tuple[int, int]:
        """What tells this file from another one of its name."""
        status = os.fstat(self._number)
        return status.st_dev, status.st_ino

    __del__ = close


class FolderLock(LockFile):
    """A folder to be locked."""

    def __init__(self, folder: str) -> None:
        self._number = open_folder(folder)


class HeldLock:
    """What a process holds by a locked file."""

    _file: LockFile

    def identity(self) -> tuple[int, int]:
        """Which file it is a lock on."""
        return self._file.identity()

    def release(self) -> None:
        """Let others have it."""
        self._file.close()


class DataLock(HeldLock):
    """The lock on the data file that every process holds which has the store open: shared, and for as long.

    ``lock.mdb`` and ``owner.lock`` keep processes apart only while all of them have the same files. A process that made
    another one in the place of a removed one, or found one that somebody else has put there, would write beside those
    that go on with the removed one. So there are two ways in. Who gets this lock alone, which nobody does while anybody
    has the store open, makes the lock files that are missing, and keeps the lock alone until the engine is open. Who
    does not get it alone joins others, and only by a ``lock.mdb`` that they have open, as its record lock tells.

    A second lock, on one byte, lets one process open the store at a time, because the engine makes a ``lock.mdb`` where
    it finds none: which one it got is looked at afterwards, and until then nobody may take it for the others'.
    """

    def __init__(self, path: str, writes: bool, readers: int) -> None:
        """Take the lock, and make the lock files that are missing: ``owner.lock``, and ``lock.mdb`` for so many
        ``readers``. ``share()`` is to be called when the engine is open.

        ``writes``: this process is to write; it makes the data file, too, where there is none. Who only reads goes
        without what the system does not let it make. Waits for a process that is just opening the store. Raises
        StoreInUseError where others have the store open and one of the lock files is not theirs.
        """
        if writes:
            begin_data_file(path)
        try:
            self._file = LockFile(path, DATA, os.O_RDWR if writes else os.O_RDONLY)
            try:
                self._take(path, writes)
                allocate_lock_file(path, readers)
            except BaseException:
                self.release()
                raise
        except BaseException as error:
            raise as_ours(error, path, writes) from None

    def _take(self, path: str, writes: bool) -> None:
        start = time.monotonic()
        while not try_lock_opening(self._file.fileno(), writes):
            _wait(path, start)
        # Patience begins now, however long the queue was, because a process that closes the engine to open it again, to
        # write, has lock.mdb unlocked for a moment.
        start = time.monotonic()
        while True:
            if self._try(fcntl.LOCK_EX):
                for name in (LMDB_LOCK, OWNER):
                    make_lock_file(path, name, writes)
                return
            waited = time.monotonic() - start
            if (waited > ENDING_SECONDS or foreign_lock_file(path, writes) is None) and self._try(fcntl.LOCK_SH):
                # (looked at again: nobody opens the store alone from here on)
                foreign = foreign_lock_file(path, writes)
                if foreign is None:
                    return
                fcntl.flock(self._file, fcntl.LOCK_UN)
                if waited > ENDING_SECONDS:
                    raise lock_file_removed(path, foreign)
            _wait(path, start)

    def _try(self, mode: int) -> bool:
        try:
            fcntl.flock(self._file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Let others have the store open, too: this process has the engine's own lock on ``lock.mdb`` now."""
        # (the system gives the lock up before it takes it anew; nobody comes in between who opens the store)
        fcntl.flock(self._file, fcntl.LOCK_SH)
        unlock_opening(self._file.fileno())


def _wait(path: str, start: float) -> None:
    """Wait for another process that opens the store, since ``start``."""
    if time.monotonic() - start > OPENING_SECONDS:
        text = f"another process has been opening this store for {OPENING_SECONDS} seconds; wait for it, or end it"
        raise StoreInUseError(errno.EWOULDBLOCK, text, path)
    time.sleep(0.002)


def foreign_lock_file(path: str, writes: bool) -> str | None:
    """Which lock file is missing, or not the one of those who have the store open; None where both are theirs."""
    name = os.path.join(path, LMDB_LOCK)
    # (where this process cannot write one, the engine reads without, or ReaderLock takes its place)
    if writes or os.access(name if os.path.lexists(name) else path, os.W_OK):
        try:
            file = LockFile(path, LMDB_LOCK, os.O_RDONLY)
        except FileNotFoundError:
            return LMDB_LOCK
        try:
            if not is_locked_elsewhere(file.fileno()):
                return LMDB_LOCK
        finally:
            file.close()
    # Who reads does not need it.
    return OWNER if writes and not os.path.lexists(os.path.join(path, OWNER)) else None


def make_lock_file(path: str, name: str, writes: bool) -> None:
    """Make one of them, empty. Who only reads goes without it where the system refuses to make it."""
    try:
        LockFile(path, name, os.O_RDWR | os.O_CREAT).close()
    except OSError as error:
        if writes or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def lock_file_removed(path: str, name: str) -> StoreInUseError:
    """The error for a lock file that somebody has removed under those who have the store open."""
    return StoreInUseError(
        errno.EWOULDBLOCK, f"{name} was removed while other processes have this store open. They may go on, and nobody "
        f"can join them before all of them have closed it. A lock file of a store is never stale, because the system "
        f"gives its locks up when a process ends, so there is never a reason to remove it", path
    )


class OwnerLock(HeldLock):
    """The right to write a private store, held by one process at a time."""

    def __init__(self, path: str) -> None:
        """Take the lock, or raise StoreInUseError at once."""
        self._file = LockFile(path, OWNER, os.O_RDWR)
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


class SharedLock(HeldLock):
    """The right to write a store together with all others that have it like this."""

    def __init__(self, path: str) -> None:
        """Take the lock. ``alone``: nobody else has it, and nobody gets it before ``share()``.

        Waits for a process that is just opening the store; raises StoreInUseError where it is private to one.
        """
        self._path = path
        self._file = LockFile(path, OWNER, os.O_RDWR)
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


class ReaderLock(HeldLock):
    """The right to read a store without LMDB's table of readers, which this process may not write: any number of
    processes have it at once, and then nobody writes.

    It is a lock on the folder itself. Who writes has ``owner.lock`` and then asks for the folder; who reads like this
    has the folder and then asks for ``owner.lock``: of two that come at once, one at least sees the other.
    """

    def __init__(self, path: str) -> None:
        self._file = FolderLock(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            self._refuse_owner(path)
        except BaseException as error:
            self.release()
            raise as_ours(error, path) from None

    @staticmethod
    def _refuse_owner(path: str) -> None:
        """An error where somebody writes the store."""
        # (a copy may have come without it; then any process with the data file open may be one that writes)
        name = OWNER if os.path.lexists(os.path.join(path, OWNER)) else DATA
        owner = LockFile(path, name, os.O_RDONLY)
        try:
            if not take_patiently(owner):
                raise in_use(path, read_name(owner)) if name == OWNER else lock_file_removed(path, OWNER)
        finally:
            owner.close()


class EngineLock(HeldLock):
    """That no other process has the engine open on a store, to read perhaps. Whoever opens it meanwhile waits.

    It is the engine's own lock on the first byte of its lock file. The engine of this process is closed when it is
    taken: opening and closing it lets go of it.
    """

    def __init__(self, path: str, patience: float = 0.1) -> None:
        """Take it within so many seconds, or raise StoreInUseError."""
        self._file = LockFile(path, LMDB_LOCK, os.O_RDWR)
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
    folder = FolderLock(path)
    try:
        if not take_patiently(folder):
            raise StoreInUseError(
                errno.EWOULDBLOCK, "a process reads this store that may not write its lock.mdb, and so lets nobody "
                "write; wait for it to end, or give it the right", path
            )
    finally:
        folder.close()


def as_ours(error: BaseException, path: str, writes: bool = True) -> BaseException:
    """What the system said about a lock, in our words; anything else as it is."""
    if isinstance(error, PersistentOrderedDictException) or not isinstance(error, OSError):
        return error
    if isinstance(error, FileNotFoundError) and error.filename == os.path.join(path, OWNER):
        return lock_file_removed(path, OWNER)
    if error.errno in (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        text = f"the file system cannot lock files ({error.strerror}); use a local disk"
        return StorageError(error.errno, text, path)
    return refused(error, path, writes)


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
    before = os.pread(file.fileno(), 8, 0)
    if os.fstat(file.fileno()).st_nlink > 1 and before[:6] not in (b"", b"proces", b"those ", b"\n\n"):
        return  # a hard link to some other file, which is locked as well as any and not written
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
    text += f". (Removing {OWNER} does not help: it is never stale)"
    return StoreInUseError(errno.EWOULDBLOCK, text, path)
