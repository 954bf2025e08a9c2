"""What the compiled modules look at in a store with every operation: its lock, and the state of its files.

The Environment, in Python, is a StoreBase: it fills these fields in and does everything that is rare.
"""

cimport cython
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from tastypy_fast.exceptions import NotLockedError

__all__ = ["Lock", "StoreBase", "is_alive", "this_thread"]

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
    # How long, in microseconds, somebody waits before looking whether the thread that has the lock still lives.
    PATIENCE = 1000000


# A thread that Python did not start (a C library's) has a number only while it runs Python code: each call from C into
# Python makes a thread state, with a new number, and ends it when it returns. So what belongs to such a thread belongs
# to that call: a claim to the callback that made it. The interpreter counts these numbers up and never uses one again,
# which the numbers of the system (get_ident()) are; and threading.enumerate() does not know all threads.

cpdef unsigned long long this_thread() noexcept:
    """A number that no other thread of this process has, nor gets when this one has ended."""
    return PyThreadState_GetID(PyThreadState_Get())


cpdef bint is_alive(unsigned long long number) noexcept:
    """Whether there is a thread of that number."""
    cdef PyThreadState* state = PyInterpreterState_ThreadHead(PyInterpreterState_Get())
    while state != NULL:
        if PyThreadState_GetID(state) == number:
            return True
        state = PyThreadState_Next(state)
    return False


cdef inline long long now() noexcept:
    """The time, in microseconds."""
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <long long>time.tv_sec * 1000000 + time.tv_nsec // 1000


@cython.final
cdef class Lock:
    """A re-entrant lock that is a few instructions when nobody else wants it.

    The interpreter's own lock makes each step below one. ``gate`` is a real lock, and is locked only while
    somebody holds this one and somebody else waits: the first that waits locks it in the holder's name, the
    holder unlocks it when it is done, and one of those that wait gets it. While anybody waits, a newcomer
    waits too, so that none is passed over for long.

    ``afterwards`` is called once by the thread that gives the lock back: what a signal handler or a finalizer
    has to do that came into the middle of an operation of that thread, and must not do there.
    """

    def __cinit__(self):
        self.gate = PyThread_allocate_lock()
        if self.gate == NULL:
            raise MemoryError("no lock to be had")

    def __dealloc__(self):
        if self.gate != NULL:
            if self.gate_held:
                PyThread_release_lock(self.gate)
            PyThread_free_lock(self.gate)

    cpdef int acquire(self) except -1:
        """Wait until the lock is free or this thread's own, and take it. A signal handler that raises ends this."""
        if not self.take_at_once():
            self.take(-1)
        return 0

    cdef inline bint take_at_once(self) noexcept:
        """Take the lock if that takes no waiting. Whether it was taken."""
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

    cdef bint take(self, long long microseconds) except -1:
        """Take the lock, and wait for it no longer than this (-1: as long as its owner lives). Whether it was taken.

        Signal handlers run in between, as only the main thread runs them, and may use the store themselves. So all is
        looked at again after each step: the lock may be free by then, and nobody left to open the gate.
        """
        cdef long long until = -1 if microseconds < 0 else now() + microseconds
        cdef long long step = PATIENCE
        while not self.take_at_once():
            if until >= 0:
                step = min(until - now(), PATIENCE)
                if step <= 0:
                    return False
            if self.wait(step):
                return True
            PyErr_CheckSignals()
            if until < 0 and self.depth and not is_alive(self.owner):
                raise NotLockedError(
                    "a thread has ended in the middle of a block of this store, between lock() and unlock() perhaps; "
                    "nothing of the block can be kept, and nothing more be done before this process ends"
                )
        return True

    cdef bint wait(self, long long microseconds) except -1:
        """Wait for somebody else's lock, no longer than this, nor than until a signal comes. Whether it is ours now."""
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
        """acquire() where there is no way back. The first thing that signal handlers raise meanwhile is raised when the
        lock is taken. Where its owner has ended it is not taken, and NotLockedError says so."""
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
        """Give the lock back, as often as it was taken."""
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
        """Whether the calling thread holds the lock."""
        return self.depth > 0 and self.owner == this_thread()

    cpdef bint try_acquire(self):
        """Take the lock if that takes no waiting. Whether it was taken."""
        return self.take_at_once()

    cpdef bint acquire_within(self, long long microseconds) except -1:
        """Take the lock, waiting for it no longer than this. Whether it was taken."""
        return self.take(microseconds)

    cpdef int suspend(self) except -1:
        """Give the lock back altogether, however often it was taken: what ``resume`` wants to be told."""
        cdef int depth = self.depth
        self.depth = 1
        self.release()
        return depth

    cpdef int resume(self, int depth) except -1:
        """Take the lock again as it was before ``suspend``, which those count on that have it; then raise what a signal
        handler has raised meanwhile."""
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


cdef class StoreBase:
    """One open store, as the compiled modules see it.

    ``generation`` goes up with every write transaction that is begun; a cache that remembers an older number
    asks the disk again. ``db`` is LMDB's environment, None while it is not open. ``transient``: another process
    may write, so each operation reads a snapshot of its own. ``snapshot`` is the current read transaction, if one is
    open. ``next_order`` is the order number to be given out next. The databases are LMDB's handles. ``journal`` is the
    log of a private store, which is laid over what is read. ``images`` and ``claims`` are None but in a shared store;
    its write transaction sets ``wrote`` when it has something to commit, and ``image_count`` is how many images there
    are, as far as it knows.
    """

    def __cinit__(self):
        self.lock = Lock()

    cdef object reader(self):
        """The current read transaction. The caller holds the lock, and lets none of it out."""
        if self.snapshot is None:
            if self.transient and self.db is not None:
                try:
                    txn = self.db.begin()
                    self.snapshot = txn if self.wal is None else self.wal.merged_view(txn)
                    return self.snapshot
                except Exception:
                    pass  # another process has grown the map, or has the last slot; or the log is damaged
            self.snapshot = self.begin_reading()
        return self.snapshot

    cdef int recheck_files(self) except -1:
        """Have ``follow_files()`` look, once a second, whether the files are still those at the path."""
        cdef timespec now
        clock_gettime(CLOCK_MONOTONIC, &now)
        if now.tv_sec != self.files_checked:
            self.follow_files()
            self.files_checked = now.tv_sec
        return 0

    cdef int end_snapshot(self) except -1:
        """Give the current read transaction back, if it is not the only one."""
        if self.buffer_snapshot is not None:
            self.end_reading()
        elif self.snapshot is not None:
            # (let go of first, as in end_reading())
            txn = self.snapshot
            self.snapshot = None
            txn.abort()
        return 0

    cdef long long next_free(self) except -1:
        """The order number that comes next. (It never goes back: a loop may have seen what was undone since.)"""
        cdef long long number
        if self.is_next_order_stale:
            number = self.next_number(self.snapshot)
            self.next_order = max(self.next_order, number)
            self.is_next_order_stale = False
        return self.next_order

    cdef long long allocate(self) except -1:
        """An order number that nobody had. The interpreter's own lock is enough."""
        cdef long long number = self.next_free()
        self.next_order += 1
        return number
