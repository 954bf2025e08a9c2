"""The heads of all blocks of statuses in one piece: what is to be counted, and where a scan has to look, is known
without a visit to each block.

The process that writes a private store keeps them in step with what it writes, from the beginning or once it has
visited all blocks. As it closes the store, or ends, they are left in the database ``meta`` under ``heads``: a checksum
(crc32), 4 bytes, and 16 for each block from number 0 on. Who changes a status first takes them away from there, in the
same transaction: where they are found, they are right.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from zlib import crc32

__all__ = ["SUMMARY_KEY", "StatusSummary"]

# Under what name they are in the database meta.
SUMMARY_KEY = b"heads"
cdef enum:
    CHECKSUM = 4
    # So many blocks may be missing in a row. Where more are, long runs of tasks were deleted, and the blocks that are
    # left are few.
    GAP = 64


@cython.final
cdef class StatusSummary:
    """Those of one store."""

    def __cinit__(self):
        memset(&self.nothing, 0, sizeof(Head))

    def __init__(self, bytes left=None):
        self.table = bytearray()
        self.staged = []
        if left is not None:
            self.table += left[CHECKSUM:]
            self.is_refused = len(left) % sizeof(Head) != CHECKSUM or left != bytes(self)

    def __bytes__(self):
        """As they are left."""
        cdef uint32_t checksum = crc32(self.table)
        return PyBytes_FromStringAndSize(<const char*>&checksum, CHECKSUM) + self.table

    def each(self):
        """(number of a block, its head) of all that have tasks, for _check()."""
        cdef Py_ssize_t number
        for number in range(self.size()):
            if self.at(number).present:
                yield number, PyBytes_FromStringAndSize(<const char*>self.at(number), sizeof(Head))

    def is_damaged(self):
        """Whether they are not what somebody has left."""
        return self.is_refused

    def is_current(self):
        """Whether they are those on disk, and this process keeps them so."""
        return self.is_of(IN_STEP)

    cdef bint is_of(self, long long number) noexcept:
        """Whether they are those on disk after this transaction."""
        return self.number == number and not self.staged_by and not self.is_refused

    cdef Py_ssize_t size(self) noexcept:
        """As many blocks there are at the most."""
        return PyByteArray_GET_SIZE(self.table) // <Py_ssize_t>sizeof(Head)

    cdef const Head* at(self, long long number) noexcept:
        if not 0 <= number < self.size():
            return &self.nothing
        return <const Head*>PyByteArray_AS_STRING(self.table) + number

    cdef int put(self, long long number, const Head* head) except -1:
        cdef Py_ssize_t size = self.size()
        if not 0 <= number <= size + GAP:
            # Not worth their room.
            self.is_refused = True
        if self.is_refused:
            return 0
        if number >= size:
            self.table.extend(bytes((number + 1 - size) * sizeof(Head)))
        memcpy(PyByteArray_AS_STRING(self.table) + number * sizeof(Head), head, sizeof(Head))
        return 0

    # Writing. What a transaction changes is staged until it is known whether it was committed.

    cdef int begin(self, long long transaction) except -1:
        """A transaction of that number is about to write."""
        self.resolve(transaction - 1)
        self.staged_by = transaction
        return 0

    cdef int stage(self, long long number, const Head* head) except -1:
        self.staged.append((number, PyBytes_FromStringAndSize(<const char*>head, sizeof(Head))))
        return 0

    cdef int resolve(self, long long last) except -1:
        """The last transaction that was committed is that one: take over what was staged, or let it go."""
        if self.staged_by and last >= self.staged_by:
            for number, head in self.staged:
                self.put(number, <const Head*>PyBytes_AS_STRING(head))
        self.staged = []
        self.staged_by = 0
        return 0

    cdef int settle(self) except -1:
        """It was committed."""
        return self.resolve(self.staged_by)


cdef bint is_ours(StoreBase store) noexcept:
    """Whether only the caches of this process write the store."""
    return store.writable and store.images is None


cdef StatusSummary current_summary(StoreBase store):
    """Those on disk as it is read now, if they are known."""
    cdef StatusSummary summary = store.summary
    if summary is None:
        return None
    if summary.staged_by:
        # (an interrupt came before settle())
        summary.resolve(store.reader().id())
    return summary if summary.is_of(IN_STEP if is_ours(store) else store.reader().id()) else None


cdef StatusSummary stored_summary(StoreBase store):
    """Those that the last process left, if nobody has changed a status since."""
    cdef StatusSummary summary = None
    if store.images is None:
        left = store.reader().get(SUMMARY_KEY, None, store.meta)
        if left is not None:
            summary = StatusSummary(left)
            if summary.is_refused:
                return None
            publish(store, summary)
    return summary


cdef StatusSummary begin_writing(StoreBase store, object txn):
    """Those that are to be kept in step with a transaction that changes statuses, if they are known."""
    cdef StatusSummary summary = store.summary
    if summary is None or summary.is_refused:
        summary = store.summary = stored_summary(store)
        if summary is None and store.images is None and store.count() == 0:
            summary = StatusSummary()
            publish(store, summary)
    if summary is not None:
        summary.begin(txn.id())
    return summary


cdef int publish(StoreBase store, StatusSummary summary) except -1:
    """Those on disk as it is read now have been found out."""
    if store.images is None:
        summary.number = IN_STEP if is_ours(store) else store.reader().id()
        store.summary = summary
    return 0
