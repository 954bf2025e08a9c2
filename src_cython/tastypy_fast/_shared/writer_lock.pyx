"""Serialize the writers of a shared store with a record lock, acquired before LMDB's own mutex.

LMDB's mutex alone is not enough, because its waiters sleep on a futex. When a process is killed after it was woken and
before it owns the mutex, and a third process takes the mutex meanwhile, the remaining waiters are never woken. This
happened in about one of some hundred kills with Linux 6.18 and glibc 2.36.

The kernel keeps the queue of a record lock itself. It releases the lock when its process ends, a forked child does not
inherit it, and a signal interrupts the wait.
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
    """The writer lock of one store. It owns the file descriptor that it gets and closes it at its end.

    A process must have one WriterLock for a store at most, because closing any descriptor of a file releases all record
    locks that the process has on it.
    """

    def __cinit__(self):
        self.file = -1

    def __init__(self, int file):
        self.file = file

    def __dealloc__(self):
        if self.file >= 0:
            close(self.file)

    cdef int acquire(self) except -1:
        """Wait until no other process has the lock, and take it. A signal handler that raises ends the wait."""
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
            # The kernel reports EDEADLK also for two processes whose different threads hold the two locks. That is no
            # deadlock, so the wait goes on.
            if number != EINTR and number != errors.EDEADLK:
                raise StorageError(number, f"cannot acquire the writer lock ({os.strerror(number)})")
            PyErr_CheckSignals()

    cdef int release(self) noexcept:
        """Let another process acquire the lock."""
        cdef RecordLock lock
        memset(&lock, 0, sizeof(lock))
        lock.l_type = F_UNLCK
        fcntl(self.file, F_SETLKW, &lock)
        return 0
