"""The lanes of a worker's file: how many tasks each loop has handed out, which other processes read and may stop.

A lane is 8 bytes of memory that all processes on a store map. Its worker counts there without a transaction and without
a commit, and the count is there for the others when it was killed. Two bits of it are marks:

    STOPPED   somebody has asked, in a write transaction, whether a task of this lane was handed out, and relies on the
              answer. The worker hands out nothing more before it has had a write transaction, in which it sees why.
    ENDED     the loop that used the lane has ended.

So whether a claimed task was handed out is decided once, by one atomic operation, for its worker and for all others.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    static uint64_t load(uint64_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static void store(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }
    static uint64_t mark(uint64_t *at, uint64_t bits) { return __atomic_fetch_or(at, bits, __ATOMIC_SEQ_CST); }
    static void unmark(uint64_t *at, uint64_t bits) { __atomic_fetch_and(at, ~bits, __ATOMIC_SEQ_CST); }
    static int replace(uint64_t *at, uint64_t *before, uint64_t value) {
        return __atomic_compare_exchange_n(at, before, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    uint64_t load(uint64_t* at) nogil
    void store(uint64_t* at, uint64_t value) nogil
    uint64_t mark(uint64_t* at, uint64_t bits) nogil
    void unmark(uint64_t* at, uint64_t bits) nogil
    int replace(uint64_t* at, uint64_t* before, uint64_t value) nogil

__all__ = ["SLOTS", "LEFT", "WorkerSlots", "count_of", "has_ended"]

# So many lanes are in a file. The first one is not used: 0 is the lane of a claim that is in no loop's hand, LEFT that
# of one that a loop has left to its thread.
cdef enum:
    COUNTED = 496
SLOTS = COUNTED
LEFT = COUNTED

cdef uint64_t STOPPED = 1ULL << 63, ENDED = 1ULL << 62, COUNT = (1ULL << 62) - 1


def count_of(unsigned long long slot):
    """How many tasks were handed out, of what is in the file for a lane."""
    return slot & COUNT


def has_ended(unsigned long long slot):
    """Whether the loop that used a lane has ended."""
    return slot & ENDED != 0


@cython.final
cdef class WorkerSlots:
    """The lanes in the mapped file of a worker. After close() none of them hands out anything."""

    def __cinit__(self, file):
        PyObject_GetBuffer(file, &self.view, PyBUF_WRITABLE)
        self.is_open = True
        if self.view.len != COUNTED * 8:
            raise ValueError("these are not the lanes of a worker")
        self.slot = <uint64_t*>self.view.buf

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Let the file go."""
        if self.is_open:
            self.is_open = False
            PyBuffer_Release(&self.view)

    cdef uint64_t* at(self, unsigned long long slot) noexcept:
        return &self.slot[slot] if self.is_open and 0 < slot < COUNTED else NULL

    def clear(self):
        """Begin as a new worker."""
        cdef int slot
        for slot in range(1, COUNTED):
            store(self.at(slot), 0)

    def count(self, unsigned long long slot):
        """How many tasks were handed out in a lane."""
        cdef uint64_t* at = self.at(slot)
        return 0 if at == NULL else load(at) & COUNT

    def begin(self, unsigned long long slot):
        """Begin a loop: the position of the first task that it claims. The last one that
        the loop before it has handed out has failed now."""
        cdef uint64_t* at = self.at(slot)
        cdef uint64_t value
        if at == NULL:
            raise ValueError("these lanes are closed, or have no such lane")
        value = load(at)
        value = (value & COUNT) + (value & ENDED != 0)
        store(at, value)
        return value

    def end(self, unsigned long long slot):
        """The loop has ended."""
        cdef uint64_t* at = self.at(slot)
        if at != NULL:
            mark(at, ENDED)

    cdef bint mark_yielded(self, unsigned long long slot, unsigned long long position) noexcept:
        """Note that a task is handed out, before it is, and those before it. False, and it must not be, where somebody
        has stopped the lane."""
        cdef uint64_t* at = self.at(slot)
        cdef uint64_t value
        if at == NULL:
            return False
        value = load(at)
        while not value & STOPPED:
            if (value & COUNT) > position or replace(at, &value, (value & ENDED) | (position + 1)):
                return True
        return False

    cdef int clear_stop(self, unsigned long long slot) noexcept:
        """Hand out again. The caller is in a write transaction."""
        cdef uint64_t* at = self.at(slot)
        if at != NULL:
            unmark(at, STOPPED)
        return 0

    cpdef bint stop(self, unsigned long long slot, unsigned long long position) noexcept:
        """Whether a claimed task was not handed out: then it is not before its worker has had a write transaction. The
        caller is in one."""
        cdef uint64_t* at = self.at(slot)
        return at != NULL and (load(at) & COUNT) <= position and (mark(at, STOPPED) & COUNT) <= position
