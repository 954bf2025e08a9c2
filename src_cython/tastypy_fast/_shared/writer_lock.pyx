"""Serialize the writers of a shared store with a record lock, acquired before LMDB's own mutex.

LMDB's mutex alone is not enough, because its waiters sleep on a futex. A process may be killed after it was woken and
before it owns the mutex. If a third process acquires the mutex meanwhile, the other waiters are never woken. This
happened about once in some hundred kills with Linux 6.18 and glibc 2.36.

The kernel itself keeps the queue of a record lock. It releases the lock when the process ends. A forked child does not
inherit the lock, and a signal interrupts the wait.
"""

cimport cython

from libc.errno cimport EINTR, errno
from libc.string cimport memset
from posix.unistd cimport close

import errno as errors
import os

from tastypy_fast._lmdb.record_locks cimport F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK, RecordLock, fcntl
from tastypy_fast.exceptions import StorageError

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

__all__ = ["WriterLock"]


@cython.final
cdef class WriterLock:
    """The writer lock of one store. It owns the file descriptor that it gets, and closes it when it is freed.

    A process must have at most one WriterLock for a store. Closing any descriptor of a file releases all record locks
    of the process on that file.
    """

    def __cinit__(self):
        self.file = -1

    def __init__(self, int file):
        self.file = file

    def __dealloc__(self):
        if self.file >= 0:
            close(self.file)

    cdef int acquire(self, bint waits) except -1:
        """Acquire the lock. If another process has it, wait, or raise StorageError (EBUSY) unless it ``waits``.

        A signal handler that raises ends the wait.
        """
        cdef int command = F_SETLKW if waits else F_SETLK
        cdef RecordLock lock
        cdef int status, number
        memset(&lock, 0, sizeof(lock))
        lock.l_type = F_WRLCK
        while True:
            with nogil:
                status = fcntl(self.file, command, &lock)
                number = errno
            if status == 0:
                return 0
            if not waits and (number == errors.EAGAIN or number == errors.EACCES):
                raise StorageError(errors.EBUSY, "another process is in a block")
            # Continue to wait after EDEADLK. The kernel also reports it for two processes that hold and wait for two
            # locks in different threads, which is no deadlock.
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
