"""Lock single bytes of a file with record locks (``fcntl``), which the system releases when a process ends."""

from libc.errno cimport errno
from libc.string cimport memset

import errno as errors
import os

__all__ = ["is_locked_elsewhere", "try_lock_opening", "unlock_opening"]


def try_lock_opening(int file, bint exclusive):
    """Lock the second byte of a file without waiting, and return whether this succeeded.

    The lock belongs to the open descriptor, not to the process. ``exclusive`` needs a writable descriptor. On a system
    without this kind of lock, the function returns True and locks nothing.
    """
    return set_opening(file, F_WRLCK if exclusive else F_RDLCK)


def unlock_opening(int file):
    """Release the lock on the second byte."""
    set_opening(file, F_UNLCK)


cdef bint set_opening(int file, int kind) except -1:
    cdef RecordLock lock
    if F_OFD_SETLK < 0:
        return True
    memset(&lock, 0, sizeof(lock))
    lock.l_type = kind
    lock.l_start = lock.l_len = 1
    if fcntl(file, F_OFD_SETLK, &lock) == 0:
        return True
    if errno == errors.EAGAIN or errno == errors.EACCES:
        return False
    raise OSError(errno, os.strerror(errno))


def is_locked_elsewhere(int file):
    """Return whether another process has a record lock on the first byte of a file.

    LMDB holds one on its lock file while it is open. This function acquires no lock.
    """
    cdef RecordLock lock
    memset(&lock, 0, sizeof(lock))
    lock.l_type = F_WRLCK
    lock.l_len = 1
    if fcntl(file, F_GETLK, &lock) != 0:
        raise OSError(errno, os.strerror(errno))
    return lock.l_type != F_UNLCK
