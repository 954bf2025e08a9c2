"""Lock the files of a store against other processes: the owner, shared, reader, engine and data file locks."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import time

from tastypy_fast._lmdb.record_locks import is_locked_elsewhere, try_lock_opening, unlock_opening
from tastypy_fast._lmdb.safe_files import open_folder, open_regular
from tastypy_fast._lmdb.store_dir import DATA, LMDB_LOCK, OWNER, allocate_lock_file, begin_data_file, opening_error
from tastypy_fast.exceptions import PersistentOrderedDictException, StorageError, StoreInUseError

__all__ = ["DataLock", "EngineLock", "FolderLock", "LockFile", "OwnerLock", "ReaderLock", "SharedLock", "read_name"]

# How long another process may take to open a store.
OPENING_SECONDS = 30
# How long one lock of a process that is ending may be held after another one was released.
ENDING_SECONDS = 1


class LockFile:
    """An open file of a store that is to be locked.

    It is closed when it is garbage collected, for example after an interrupt. A second close() does nothing, because
    the descriptor may belong to another file by then.
    """

    _number = -1

    def __init__(self, folder: str, name: str, flags: int) -> None:
        self._number = open_regular(os.path.join(folder, name), flags, os.path.join(folder, DATA))

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._number

    def close(self) -> None:
        """Close the file, which releases its lock."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def identity(self) -> tuple[int, int]:
        """Return device and inode, which differ for another file with this name."""
        status = os.fstat(self._number)
        return status.st_dev, status.st_ino

    __del__ = close


class FolderLock(LockFile):
    """An open folder that is to be locked."""

    def __init__(self, folder: str) -> None:
        self._number = open_folder(folder)


class HeldLock:
    """A lock that this process holds on a file."""

    _file: LockFile

    def identity(self) -> tuple[int, int]:
        """Return device and inode of the locked file."""
        return self._file.identity()

    def release(self) -> None:
        """Release the lock."""
        self._file.close()


class DataLock(HeldLock):
    """Lock on the data file, which every process with the open store holds in shared mode.

    ``lock.mdb`` and ``owner.lock`` exclude processes only if all of them use the same files. If one was removed, a
    process that creates a new file could write at the same time as those with the removed file. So there are two ways
    to open a store:

    - A process that acquires this lock exclusively is the only one with the store. It creates missing lock files, and
      keeps the lock exclusive until LMDB is open.
    - Any other process joins the others, but only through the ``lock.mdb`` that they have open. The record lock on this
      file shows that they have it open.

    A second lock, on one byte, lets one process at a time open the store. LMDB creates a missing ``lock.mdb``, and this
    process checks afterwards which file LMDB has opened. Until then no other process may mistake this file for the file
    that the others have open.
    """

    def __init__(self, path: str, writes: bool, readers: int) -> None:
        """Acquire the lock and create missing lock files. Call ``share()`` when LMDB is open.

        ``writes`` says that this process will write. Then it also creates a missing data file. A process that only
        reads continues without a file that it may not create. ``readers`` is the size of the reader table in
        ``lock.mdb``. This waits for a process that is opening the store. Raises StoreInUseError if other processes have
        the store open with another lock file.
        """
        if writes:
            begin_data_file(path)
        try:
            self._file = LockFile(path, DATA, os.O_RDWR if writes else os.O_RDONLY)
            try:
                self._acquire(path, writes)
                allocate_lock_file(path, readers, self.exclusive)
            except BaseException:
                self.release()
                raise
        except BaseException as error:
            raise as_package_error(error, path, writes) from None

    # Whether no other process has the store open, not even to read.
    exclusive = False

    def _acquire(self, path: str, writes: bool) -> None:
        start = time.monotonic()
        while not try_lock_opening(self._file.fileno(), writes):
            _wait(path, start)
        # Begin the time again, because a process that reopens LMDB for writing unlocks lock.mdb for a moment.
        start = time.monotonic()
        while True:
            if self._try(fcntl.LOCK_EX):
                for name in (LMDB_LOCK, OWNER):
                    make_lock_file(path, name, writes)
                self.exclusive = True
                return
            waited = time.monotonic() - start
            if (waited > ENDING_SECONDS or foreign_lock_file(path, writes) is None) and self._try(fcntl.LOCK_SH):
                # Check again, because only now can no other process acquire the lock exclusively.
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
        """Let other processes open the store, because this process has LMDB's lock on ``lock.mdb`` now."""
        # flock() releases the old lock first. No process that opens the store comes in between, because it waits for
        # the other lock.
        self.exclusive = False
        fcntl.flock(self._file, fcntl.LOCK_SH)
        unlock_opening(self._file.fileno())


def _wait(path: str, start: float) -> None:
    """Sleep while another process opens the store. Raises StoreInUseError too long after ``start``."""
    if time.monotonic() - start > OPENING_SECONDS:
        text = f"another process has been opening this store for {OPENING_SECONDS} seconds. Wait for it or end it"
        raise StoreInUseError(errno.EWOULDBLOCK, text, path)
    time.sleep(0.002)


def foreign_lock_file(path: str, writes: bool) -> str | None:
    """Return the name of a lock file that is missing or not open in the processes with the store, or None."""
    name = os.path.join(path, LMDB_LOCK)
    # A process that may not write lock.mdb reads with a ReaderLock instead.
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
    # A reader does not need owner.lock.
    return OWNER if writes and not os.path.lexists(os.path.join(path, OWNER)) else None


def make_lock_file(path: str, name: str, writes: bool) -> None:
    """Create an empty lock file. A process that only reads continues without it if the system refuses."""
    try:
        LockFile(path, name, os.O_RDWR | os.O_CREAT).close()
    except OSError as error:
        if writes or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def lock_file_removed(path: str, name: str) -> StoreInUseError:
    """Return the error for a lock file that was removed while other processes have the store open."""
    return StoreInUseError(
        errno.EWOULDBLOCK, f"{name} was removed while other processes have this store open. They can continue, but no "
        f"other process can open it until all of them have closed it. Never remove a lock file of a store: it is never "
        f"stale, because the system releases its locks when a process ends", path
    )


class OwnerLock(HeldLock):
    """Owner lock: the exclusive right to write a private store."""

    def __init__(self, path: str) -> None:
        """Acquire the lock, or raise StoreInUseError without waiting."""
        self._file = LockFile(path, OWNER, os.O_RDWR)
        try:
            if not try_lock_repeatedly(self._file):
                raise in_use(path, read_name(self._file))
            refuse_readers(path)
        except BaseException as error:
            self.release()
            raise as_package_error(error, path) from None

    def write_name(self, durability: str) -> None:
        """Write the name of this process and the durability into the file, for errors in other processes."""
        program = os.path.basename(sys.argv[0]) or "python"
        write_name(self._file, f"process {os.getpid()} on {socket.gethostname()} ({program})", durability)


class SharedLock(HeldLock):
    """Shared owner lock: the right to write a store that processes share."""

    def __init__(self, path: str) -> None:
        """Acquire the lock. ``alone`` says that no other process has it, and none can acquire it before ``share()``.

        This waits for a process that is opening the store. Raises StoreInUseError if the store is private to a process.
        """
        self._path = path
        self._file = LockFile(path, OWNER, os.O_RDWR)
        try:
            self.alone = self._acquire()
            refuse_readers(path)
        except BaseException as error:
            self.release()
            raise as_package_error(error, path) from None

    def _acquire(self) -> bool:
        refused = 0
        until = time.monotonic() + OPENING_SECONDS
        while True:
            for mode in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                try:
                    fcntl.flock(self._file, mode | fcntl.LOCK_NB)
                    if mode == fcntl.LOCK_EX and os.fstat(self._file.fileno()).st_size:
                        # Replace the name of an earlier owner. An empty file stays empty: its store is incomplete.
                        self.write_name("")
                    return mode == fcntl.LOCK_EX
                except BlockingIOError:
                    pass
            # Either the owner has written its name, or a process is opening the store and will share it.
            name = read_name(self._file)
            refused += name.startswith("process ")
            if refused > 3 or time.monotonic() > until:
                raise in_use(self._path, name)
            time.sleep(0.005)

    def write_name(self, durability: str) -> None:
        """Write into the file that the store is shared, for errors in other processes."""
        write_name(self._file, "those that share it", durability)

    def share(self) -> None:
        """Let other processes open the store, because it is open here."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # a private owner came between the two locks
            raise in_use(self._path, read_name(self._file)) from None


class ReaderLock(HeldLock):
    """Reader lock: the right to read without LMDB's reader table, because this process may not write ``lock.mdb``.

    It is a shared lock on the folder, and excludes writers. A writer locks ``owner.lock`` and then checks the folder. A
    reader locks the folder and then checks ``owner.lock``. So if both start together, at least one detects the other.
    """

    def __init__(self, path: str) -> None:
        self._file = FolderLock(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            self._refuse_owner(path)
        except BaseException as error:
            self.release()
            raise as_package_error(error, path) from None

    @staticmethod
    def _refuse_owner(path: str) -> None:
        """Raise StoreInUseError if a process has the store open for writing."""
        # A copy of a store may lack owner.lock. Then any process that has the data file open may be a writer.
        name = OWNER if os.path.lexists(os.path.join(path, OWNER)) else DATA
        owner = LockFile(path, name, os.O_RDONLY)
        try:
            if not try_lock_repeatedly(owner):
                raise in_use(path, read_name(owner)) if name == OWNER else lock_file_removed(path, OWNER)
        finally:
            owner.close()


class EngineLock(HeldLock):
    """Engine lock: prevents other processes from opening LMDB on a store, even for reading. They wait meanwhile.

    It is LMDB's own lock on the first byte of ``lock.mdb``. LMDB must be closed in this process, because closing it
    later would release the lock.
    """

    def __init__(self, path: str, timeout_s: float = 0.1) -> None:
        """Acquire the lock within ``timeout_s`` seconds, or raise StoreInUseError."""
        self._file = LockFile(path, LMDB_LOCK, os.O_RDWR)
        until = time.monotonic() + timeout_s
        try:
            while True:
                try:
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
                    return
                except (BlockingIOError, PermissionError):
                    if time.monotonic() > until:
                        raise StoreInUseError(
                            errno.EWOULDBLOCK, "a process has this store open for reading; wait for it to end", path
                        ) from None
                time.sleep(0.005)
        except BaseException as error:
            self.release()
            raise as_package_error(error, path) from None

    def invalidate(self) -> None:
        """Invalidate LMDB's lock file, because it does not match a new data file. The next process initializes it."""
        os.pwrite(self._file.fileno(), bytes(4), 0)


def try_lock_repeatedly(file: LockFile) -> bool:
    """Lock a file exclusively, and return whether this succeeded.

    This tries several times, because other processes lock the file for a moment to check whether it is free.
    """
    for _ in range(10):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.002)
    return False


def refuse_readers(path: str) -> None:
    """Raise StoreInUseError if a process reads the store with a ReaderLock."""
    folder = FolderLock(path)
    try:
        if not try_lock_repeatedly(folder):
            raise StoreInUseError(
                errno.EWOULDBLOCK, "a process without permission to write lock.mdb reads this store, which excludes "
                "writers. Wait for it to end, or give it the permission", path
            )
    finally:
        folder.close()


def as_package_error(error: BaseException, path: str, writes: bool = True) -> BaseException:
    """Return the exception of this package for an error of the system at a lock, or any other error as it is."""
    if isinstance(error, PersistentOrderedDictException) or not isinstance(error, OSError):
        return error
    if isinstance(error, FileNotFoundError) and error.filename == os.path.join(path, OWNER):
        return lock_file_removed(path, OWNER)
    if error.errno in (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        text = f"the file system cannot lock files ({error.strerror}); use a local disk"
        return StorageError(error.errno, text, path)
    return opening_error(error, path, writes)


def read_name(file: LockFile) -> str:
    """Return the name of the process that has the lock. Empty if this process has ended."""
    name = os.pread(file.fileno(), 1000, 0).decode("utf-8", "replace").strip().partition("\n")[0]
    words = name.split()
    try:
        if words[0] == "process":
            os.kill(int(words[1]), 0)
    except PermissionError:  # a process of another user
        return name
    except (OSError, ValueError, IndexError):  # left by a process that has ended
        return ""
    return name


def write_name(file: LockFile, name: str, durability: str) -> None:
    """Write the owner of the lock and the durability into one line each. A full disk is ignored."""
    data = f"{name}\n{f'durability {durability}' if durability else ''}\n".encode("utf-8", "replace")
    before = os.pread(file.fileno(), 8, 0)
    if os.fstat(file.fileno()).st_nlink > 1 and before[:6] not in (b"", b"proces", b"those ", b"\n\n"):
        return  # a hard link to another file, which can be locked, but must not be written
    try:
        os.pwrite(file.fileno(), data, 0)
        os.ftruncate(file.fileno(), len(data))
    except OSError:
        pass


def in_use(path: str, name: str) -> StoreInUseError:
    """Return the error for a store from which other processes exclude this one."""
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
