from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.status_block cimport Head

cdef enum:
    # The transaction number of a summary that this process keeps up to date, because it alone writes the blocks.
    IN_STEP = -1

cdef class StatusSummary:
    # The transaction after which the table matches the disk, or IN_STEP.
    cdef long long number
    cdef bytearray table
    cdef Head nothing
    # The changes of the transaction ``staged_by``: pairs of a block number and its totals.
    cdef list staged
    cdef long long staged_by
    cdef bint is_refused

    cdef bint is_of(self, long long number) noexcept
    cdef Py_ssize_t size(self) noexcept
    cdef const Head* at(self, long long number) noexcept
    cdef int put(self, long long number, const Head* head) except -1
    cdef int begin(self, long long transaction) except -1
    cdef int stage(self, long long number, const Head* head) except -1
    cdef int resolve(self, long long last) except -1
    cdef int publish_staged(self) except -1


cdef StatusSummary current_summary(StoreBase store)
cdef StatusSummary stored_summary(StoreBase store)
cdef StatusSummary begin_writing(StoreBase store, object txn)
cdef int publish(StoreBase store, StatusSummary summary) except -1
