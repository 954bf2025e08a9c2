"""Record locks (``fcntl``) on single bytes of a file, which the operating system releases when a process ends."""

from libc.errno cimport errno
from libc.string cimport memset

import errno as errors
import os

__all__ = ["is_locked_elsewhere", "try_lock_opening", "unlock_opening"]


def try_lock_opening(int file, bint exclusive):
    """Lock the second byte of a file through this descriptor, unless somebody else has it. Whether it is locked; True,
    too, on a system without locks of this kind. ``exclusive`` takes a descriptor that may write."""
    return set_opening(file, F_WRLCK if exclusive else F_RDLCK)


def unlock_opening(int file):
    """Give that lock back."""
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
    """Whether another process has a record lock on the first byte of a file: the engine has one on its lock file for
    as long as it has a store open. Takes no lock itself."""
    cdef RecordLock lock
    memset(&lock, 0, sizeof(lock))
    lock.l_type = F_WRLCK
    lock.l_len = 1
    if fcntl(file, F_GETLK, &lock) != 0:
        raise OSError(errno, os.strerror(errno))
    return lock.l_type != F_UNLCK
