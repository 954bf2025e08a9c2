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

from tastypy_fast._lmdb.record_locks cimport F_SETLKW, F_UNLCK, F_WRLCK, RecordLock, fcntl
from tastypy_fast.exceptions import StorageError

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

__all__ = ["WriterLock"]


@cython.final
cdef class WriterLock:
    """The turns of this process, on the descriptor of a file, which it closes at its end. To close one loses those of
    any other one on the same file in this process."""

    def __cinit__(self):
        self.file = -1

    def __init__(self, int file):
        self.file = file

    def __dealloc__(self):
        if self.file >= 0:
            close(self.file)

    cdef int acquire(self) except -1:
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

    cdef int release(self) noexcept:
        """Let another process have it."""
        cdef RecordLock lock
        memset(&lock, 0, sizeof(lock))
        lock.l_type = F_UNLCK
        fcntl(self.file, F_SETLKW, &lock)
        return 0
