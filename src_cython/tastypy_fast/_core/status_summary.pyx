"""Summarize the status blocks: the totals of every block in one array, so that counts and scans need not read each.

The process that writes a private store keeps the summary up to date. It begins with an empty store, or after it has
read all blocks once. When it closes the store, it saves the summary in the database ``meta`` under ``heads``: a
checksum (crc32) in 4 bytes, then 16 bytes for each block from number 0 on. The first status change deletes the stored
summary in the same transaction, so a stored summary is always valid.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from zlib import crc32

__all__ = ["SUMMARY_KEY", "StatusSummary"]

# The key of the stored summary in the database meta.
SUMMARY_KEY = b"heads"
cdef enum:
    CHECKSUM = 4
    # A summary is not kept if more blocks than this are missing in a row. Then long runs of tasks were deleted, and
    # reading the few remaining blocks is cheap.
    GAP = 64


@cython.final
cdef class StatusSummary:
    """The totals of the status blocks of one store."""

    def __cinit__(self):
        memset(&self.nothing, 0, sizeof(Head))

    def __init__(self, bytes stored=None):
        self.table = bytearray()
        self.staged = []
        if stored is not None:
            self.table += stored[CHECKSUM:]
            self.is_refused = len(stored) % sizeof(Head) != CHECKSUM or stored != bytes(self)

    def __bytes__(self):
        """Encode the summary as it is stored."""
        cdef uint32_t checksum = crc32(self.table)
        return PyBytes_FromStringAndSize(<const char*>&checksum, CHECKSUM) + self.table

    def blocks(self):
        """Yield (block number, totals) of all blocks that have tasks, for ``_check()``."""
        cdef Py_ssize_t number
        for number in range(self.size()):
            if self.at(number).present:
                yield number, PyBytes_FromStringAndSize(<const char*>self.at(number), sizeof(Head))

    def is_damaged(self):
        """Return whether the stored bytes do not match their checksum, or the summary became too sparse to keep."""
        return self.is_refused

    def is_current(self):
        """Return whether the summary matches the disk because this process keeps it up to date."""
        return self.is_of(IN_STEP)

    cdef bint is_of(self, long long number) noexcept:
        """Return whether the summary matches the disk after this transaction."""
        return self.number == number and not self.staged_by and not self.is_refused

    cdef Py_ssize_t size(self) noexcept:
        """Return the largest block number plus one."""
        return PyByteArray_GET_SIZE(self.table) // <Py_ssize_t>sizeof(Head)

    cdef const Head* at(self, long long number) noexcept:
        if not 0 <= number < self.size():
            return &self.nothing
        return <const Head*>PyByteArray_AS_STRING(self.table) + number

    cdef int put(self, long long number, const Head* head) except -1:
        cdef Py_ssize_t size = self.size()
        if not 0 <= number <= size + GAP:
            # Give the summary up, because the array would be mostly empty.
            self.is_refused = True
        if self.is_refused:
            return 0
        if number >= size:
            self.table.extend(bytes((number + 1 - size) * sizeof(Head)))
        memcpy(PyByteArray_AS_STRING(self.table) + number * sizeof(Head), head, sizeof(Head))
        return 0

    # Writing. The changes of a transaction are staged until it is known whether it was committed.

    cdef int begin(self, long long transaction) except -1:
        """Begin to stage the changes of the transaction with this number."""
        self.resolve(transaction - 1)
        self.staged_by = transaction
        return 0

    cdef int stage(self, long long number, const Head* head) except -1:
        self.staged.append((number, PyBytes_FromStringAndSize(<const char*>head, sizeof(Head))))
        return 0

    cdef int resolve(self, long long last) except -1:
        """Apply the staged changes if the last committed transaction includes theirs. Drop them otherwise."""
        if self.staged_by and last >= self.staged_by:
            for number, head in self.staged:
                self.put(number, <const Head*>PyBytes_AS_STRING(head))
        self.staged = []
        self.staged_by = 0
        return 0

    cdef int publish_staged(self) except -1:
        """Apply the staged changes, because their transaction was committed."""
        return self.resolve(self.staged_by)


cdef bint is_ours(StoreBase store) noexcept:
    """Return whether this process alone writes the store, through its caches."""
    return store.writable and store.images is None


cdef StatusSummary current_summary(StoreBase store):
    """Return the summary of the current snapshot, or None if it is not known."""
    cdef StatusSummary summary = store.summary
    if summary is None:
        return None
    if summary.staged_by:
        # An interrupt came between the commit and publish_staged(). Without this, a later read would miss the changes.
        summary.resolve(store.reader().id())
    return summary if summary.is_of(IN_STEP if is_ours(store) else store.reader().id()) else None


cdef StatusSummary stored_summary(StoreBase store):
    """Return the summary that an earlier process stored, or None if a status was changed since."""
    cdef StatusSummary summary = None
    if store.images is None:
        stored = store.reader().get(SUMMARY_KEY, None, store.meta)
        if stored is not None:
            summary = StatusSummary(stored)
            if summary.is_refused:
                return None
            publish(store, summary)
    return summary


cdef StatusSummary begin_writing(StoreBase store, object txn):
    """Return the summary into which a transaction stages its changes, or None if it is not known."""
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
    """Set the summary of the store, which must match the current snapshot."""
    if store.images is None:
        summary.number = IN_STEP if is_ours(store) else store.reader().id()
        store.summary = summary
    return 0
