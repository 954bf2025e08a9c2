"""Count the tasks that each iterator of a worker has yielded, in atomic counters: the slots of a worker file.

A slot is 8 bytes of memory that all processes on a store map. Its worker counts there without a transaction, and other
processes can read the count after the worker was killed. Two bits are marks:

    STOPPED   another process found, inside a write transaction, that a task of this slot was not yielded, and relies on
              that. The worker yields nothing more before a write transaction of its own, in which it reads the change.
    ENDED     the iterator that used the slot has ended.

One atomic operation therefore decides for all processes whether a claimed task was yielded.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t

from tastypy_fast._lmdb.atomic cimport load64, store64

cdef extern from *:
    """
    #include <stdint.h>
    static uint64_t mark(uint64_t *at, uint64_t bits) { return __atomic_fetch_or(at, bits, __ATOMIC_SEQ_CST); }
    static void unmark(uint64_t *at, uint64_t bits) { __atomic_fetch_and(at, ~bits, __ATOMIC_SEQ_CST); }
    static int replace(uint64_t *at, uint64_t *before, uint64_t value) {
        return __atomic_compare_exchange_n(at, before, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    uint64_t mark(uint64_t* at, uint64_t bits) nogil
    void unmark(uint64_t* at, uint64_t bits) nogil
    int replace(uint64_t* at, uint64_t* before, uint64_t value) nogil

__all__ = ["FAILED_SLOT", "REMOTE_SLOTS", "SLOTS", "WorkerSlots", "count_of", "has_ended"]

# The number of slots in a file. Slot 0 is unused, because it marks a claim without an iterator. FAILED_SLOT marks
# a claim that an iterator has left to its thread. Greater numbers mark the claims of queues, which count nothing,
# because all their tasks were yielded. From REMOTE_SLOTS on, the tasks of the queue run in other processes.
cdef enum:
    SLOT_COUNT = 496
SLOTS = SLOT_COUNT
FAILED_SLOT = SLOT_COUNT
REMOTE_SLOTS = 1 << 32

cdef uint64_t STOPPED = 1ULL << 63, ENDED = 1ULL << 62, COUNT = (1ULL << 62) - 1


def count_of(unsigned long long slot):
    """Return how many tasks were yielded, given the 8 bytes of a slot as a number."""
    return slot & COUNT


def has_ended(unsigned long long slot):
    """Return whether the iterator has ended, given the 8 bytes of a slot as a number."""
    return slot & ENDED != 0


@cython.final
cdef class WorkerSlots:
    """The slots in the mapped file of a worker. After ``close()`` no task can be yielded."""

    def __cinit__(self, file):
        PyObject_GetBuffer(file, &self.view, PyBUF_WRITABLE)
        self.is_open = True
        if self.view.len != SLOT_COUNT * 8:
            raise ValueError("the buffer does not have the size of a worker's slots")
        self.slots = <uint64_t*>self.view.buf

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Release the mapped file."""
        if self.is_open:
            self.is_open = False
            PyBuffer_Release(&self.view)

    cdef uint64_t* at(self, unsigned long long slot) noexcept:
        return &self.slots[slot] if self.is_open and 0 < slot < SLOT_COUNT else NULL

    def clear(self):
        """Set all slots to 0, for a new worker."""
        cdef int slot
        for slot in range(1, SLOT_COUNT):
            store64(self.at(slot), 0)

    def count(self, unsigned long long slot):
        """Return how many tasks were yielded in a slot."""
        cdef uint64_t* at = self.at(slot)
        return 0 if at == NULL else load64(at) & COUNT

    def begin(self, unsigned long long slot):
        """Begin an iterator in a slot, and return the position of the first task that it claims.

        The last task that the previous iterator yielded counts as failed afterwards.
        """
        cdef uint64_t* at = self.at(slot)
        cdef uint64_t value
        if at == NULL:
            raise ValueError("the worker's slots are closed, or there is no slot with this number")
        value = load64(at)
        value = (value & COUNT) + (value & ENDED != 0)
        store64(at, value)
        return value

    def end(self, unsigned long long slot):
        """Mark that the iterator of a slot has ended."""
        cdef uint64_t* at = self.at(slot)
        if at != NULL:
            mark(at, ENDED)

    cdef bint mark_yielded(self, unsigned long long slot, unsigned long long position) noexcept:
        """Count a task, and all before it, as yielded. Call it before yielding the task.

        Returns False if the slot is stopped. Then the task must not be yielded.
        """
        cdef uint64_t* at = self.at(slot)
        cdef uint64_t value
        if at == NULL:
            return False
        value = load64(at)
        while not value & STOPPED:
            if (value & COUNT) > position or replace(at, &value, (value & ENDED) | (position + 1)):
                return True
        return False

    cdef int clear_stop(self, unsigned long long slot) noexcept:
        """Allow the iterator to yield again. The caller is in a write transaction."""
        cdef uint64_t* at = self.at(slot)
        if at != NULL:
            unmark(at, STOPPED)
        return 0

    cpdef bint stop(self, unsigned long long slot, unsigned long long position) noexcept:
        """Stop a slot if a claimed task was not yielded yet, and return whether that is so.

        The worker then yields it only after a write transaction of its own. The caller is in a write transaction.
        """
        cdef uint64_t* at = self.at(slot)
        return at != NULL and (load64(at) & COUNT) <= position and (mark(at, STOPPED) & COUNT) <= position
