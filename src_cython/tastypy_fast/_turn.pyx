"""Whose turn it is to write a shared store: a record lock in front of LMDB's own mutex.

The mutex alone does not do. A process that waits for it sleeps on a futex; when one that was just woken is killed
before it has the mutex, and a third takes it on the way, the others are never woken again (seen with Linux 6.18 and
glibc 2.36, in one of some hundred kills). The system itself keeps the list of those that wait for a record lock. It
lets go of one when its process ends, a forked child does not inherit it, and a signal ends the waiting.
"""

cimport cython

from libc.errno cimport EINTR, errno
from libc.string cimport memset
from posix.unistd cimport close

import errno as errors
import os

from tastypy_fast.exceptions import StorageError

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <fcntl.h>
    /* Locks that belong to a descriptor. Where the system has none, nothing is locked. */
    #ifndef F_OFD_SETLK
    #define F_OFD_SETLK (-1)
    #endif
    """
    int F_OFD_SETLK

cdef extern from "<fcntl.h>" nogil:
    int F_GETLK, F_RDLCK, F_SETLKW, F_UNLCK, F_WRLCK
    struct RecordLock "flock":
        short l_type
        short l_whence
        long long l_start
        long long l_len
    int fcntl(int file, int command, ...)

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

__all__ = ["Turn", "is_locked_elsewhere", "try_lock_opening", "unlock_opening"]


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


@cython.final
cdef class Turn:
    """The turns of this process, on the descriptor of a file, which it closes at its end. To close one loses those of
    any other one on the same file in this process."""

    def __cinit__(self):
        self.file = -1

    def __init__(self, int file):
        self.file = file

    def __dealloc__(self):
        if self.file >= 0:
            close(self.file)

    cdef int take(self) except -1:
        """Wait for the turn."""
        cdef RecordLock lock
        cdef int status, number
        memset(&lock, 0, sizeof(lock))
        lock.l_type = F_WRLCK
        while True:
            with nogil:
                status = fcntl(self.file, F_SETLKW, &lock)
                number = errno
            if status == 0:
                return 0
            # (two processes that wait for each other's stores may only seem to: other threads of theirs have them)
            if number != EINTR and number != errors.EDEADLK:
                raise StorageError(number, f"the turn to write cannot be waited for ({os.strerror(number)})")
            PyErr_CheckSignals()

    cdef int give_back(self) noexcept:
        """Let another process have it."""
        cdef RecordLock lock
        memset(&lock, 0, sizeof(lock))
        lock.l_type = F_UNLCK
        fcntl(self.file, F_SETLKW, &lock)
        return 0
