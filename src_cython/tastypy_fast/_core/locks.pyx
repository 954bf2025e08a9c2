"""Lock a store against the other threads of the process with a re-entrant lock, and identify threads.

Acquiring a free lock takes a few instructions. Signal handlers run while a thread waits. A waiting thread notices when
the thread that holds the lock has ended.
"""

cimport cython
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from tastypy_fast.exceptions import NotLockedError

__all__ = ["Lock", "is_alive", "this_thread"]

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    PyThreadState* PyThreadState_Get()
    unsigned long long PyThreadState_GetID(PyThreadState* state)
    ctypedef struct PyInterpreterState:
        pass
    PyInterpreterState* PyInterpreterState_Get()
    PyThreadState* PyInterpreterState_ThreadHead(PyInterpreterState* interpreter)
    PyThreadState* PyThreadState_Next(PyThreadState* state)
    int PyErr_CheckSignals() except -1

cdef extern from "pythread.h":
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) nogil
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int intr_flag) nogil
    void PyThread_release_lock(PyThread_type_lock lock)


cdef enum:
    # A waiting thread checks this often, in microseconds, whether the owner of the lock is still alive.
    CHECK_INTERVAL = 1000000


# A thread is identified by the number of its Python thread state. The interpreter never reuses these numbers, but the
# operating system reuses the numbers that get_ident() returns. threading.enumerate() does not list all threads.
# A thread that a C library started gets a new thread state for each call into Python. A claim or lock of this thread
# therefore belongs to that call, and is released when the call returns.

cpdef unsigned long long this_thread() noexcept:
    """Return the number of the calling thread. No other thread of this process ever has it."""
    return PyThreadState_GetID(PyThreadState_Get())


cpdef bint is_alive(unsigned long long number) noexcept:
    """Return whether the thread with this number has not ended."""
    cdef PyThreadState* state = PyInterpreterState_ThreadHead(PyInterpreterState_Get())
    while state != NULL:
        if PyThreadState_GetID(state) == number:
            return True
        state = PyThreadState_Next(state)
    return False


cdef inline long long now() noexcept:
    """Return the monotonic time in microseconds."""
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <long long>time.tv_sec * 1000000 + time.tv_nsec // 1000


@cython.final
cdef class Lock:
    """A re-entrant lock that takes a few instructions when it is free.

    The interpreter lock makes each step below atomic. ``gate`` is a lock of the operating system. It is locked only
    while one thread owns this lock and another one waits. The first waiting thread locks the gate for the owner.
    ``release()`` of the owner unlocks it, and one waiting thread gets it. A new thread waits while any other thread
    waits, because it could otherwise overtake the waiting threads repeatedly.

    ``release()`` calls each function in ``on_release`` once, when the lock is free. A signal handler or a finalizer
    that interrupts an operation of the owner puts its work there, because it must not run inside the operation.
    """

    def __cinit__(self):
        self.gate = PyThread_allocate_lock()
        if self.gate == NULL:
            raise MemoryError("the system has no memory for another lock")

    def __dealloc__(self):
        if self.gate != NULL:
            if self.gate_held:
                PyThread_release_lock(self.gate)
            PyThread_free_lock(self.gate)

    cpdef int acquire(self) except -1:
        """Acquire the lock, and wait while another thread has it. An exception of a signal handler ends the wait."""
        if not self.acquire_at_once():
            self.acquire_until(-1)
        return 0

    cdef inline bint acquire_at_once(self) noexcept:
        """Acquire the lock if no waiting is needed, and return whether it was acquired."""
        cdef unsigned long long me = this_thread()
        if self.depth:
            if self.owner != me:
                return False
        elif self.waiting:
            return False
        else:
            self.owner = me
        self.depth += 1
        return True

    cdef bint acquire_until(self, long long microseconds) except -1:
        """Acquire the lock within a time, and return whether it was acquired. -1 waits while the owner is alive.

        A signal handler runs between two steps, and may use the store. Each step therefore checks everything again:
        the lock may be free by then, and then no thread would open the gate.
        """
        cdef long long deadline = -1 if microseconds < 0 else now() + microseconds
        cdef long long step = CHECK_INTERVAL
        while not self.acquire_at_once():
            if deadline >= 0:
                step = min(deadline - now(), CHECK_INTERVAL)
                if step <= 0:
                    return False
            if self.wait(step):
                return True
            PyErr_CheckSignals()
            if deadline < 0 and self.depth and not is_alive(self.owner):
                raise NotLockedError(
                    "a thread has ended inside a block of this store, perhaps between lock() and unlock(). Nothing of "
                    "the block is kept. This process cannot use the store any more: end it"
                )
        return True

    cdef bint wait(self, long long microseconds) except -1:
        """Wait at the gate until a time has passed or a signal comes. Return whether this thread owns the lock now."""
        cdef PyThread_type_lock gate = self.gate
        cdef int status
        if self.waiting == 0 and not self.gate_held:
            PyThread_acquire_lock(gate, 0)
            self.gate_held = True
        self.waiting += 1
        with nogil:
            status = PyThread_acquire_lock_timed(gate, microseconds, 1)
        self.waiting -= 1
        if status != 1:
            return False
        self.gate_held = True
        self.owner = this_thread()
        self.depth = 1
        return True

    cpdef int acquire_uninterrupted(self) except -1:
        """Acquire the lock where the caller cannot give up.

        The first exception of a signal handler is raised after the lock was acquired. Raises NotLockedError without
        acquiring the lock if its owner has ended.
        """
        kept = None
        while True:
            try:
                self.acquire()
                break
            except BaseException as error:
                if self.depth and not is_alive(self.owner):
                    raise
                kept = error if kept is None else kept
        if kept is not None:
            raise kept
        return 0

    cpdef int release(self) except -1:
        """Release the lock once. It is free when each acquisition was released."""
        if self.depth == 0 or self.owner != this_thread():
            raise RuntimeError("this thread does not hold the lock")
        self.depth -= 1
        if self.depth == 0:
            if self.gate_held:
                self.gate_held = False
                PyThread_release_lock(self.gate)
            if self.on_release is not None:
                works = self.on_release
                self.on_release = None
                for work in works:
                    work()
        return 0

    cpdef bint is_mine(self):
        """Return whether the calling thread holds the lock."""
        return self.depth > 0 and self.owner == this_thread()

    cpdef bint try_acquire(self):
        """Acquire the lock if no waiting is needed, and return whether it was acquired."""
        return self.acquire_at_once()

    cpdef bint acquire_within(self, long long microseconds) except -1:
        """Acquire the lock within a time, and return whether it was acquired."""
        return self.acquire_until(microseconds)

    cpdef int suspend(self) except -1:
        """Release the lock completely, and return how often it was acquired, for ``resume()``."""
        cdef int depth = self.depth
        self.depth = 1
        self.release()
        return depth

    cpdef int resume(self, int depth) except -1:
        """Acquire the lock as often as before ``suspend()``, then raise the exception of a signal handler, if any.

        The lock is acquired in any case, because the callers further up the stack rely on it.
        """
        try:
            self.acquire_uninterrupted()
        finally:
            if self.is_mine():
                self.depth = depth
        return 0

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *exception):
        self.release()
