from libc.stdint cimport uint32_t

from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.status_block cimport Block, Head

cdef class StatusTable:
    cdef StoreBase store
    cdef dict blocks
    cdef dict differing
    cdef Py_ssize_t room
    cdef long long last_number
    cdef Block last_block
    cdef readonly Py_ssize_t touched
    cdef long long totals[4]
    cdef bint totals_known
    cdef bint compared
    # Increases whenever all statuses are forgotten.
    cdef long long version
    cdef long long openings
    cdef long long last_opened
    cdef long long abortions
    cdef long long last_aborted
    cdef uint32_t get(self, long long seq) except? 0xffffffff
    cdef int set(self, long long seq, uint32_t entry, bint count) except -1
    cdef int note_change(self, long long seq, Block block, uint32_t entry, bint count) except -1
    cdef bint untouch(self, long long seq) except -1
    cdef list scan(self, long long after, int limit, uint32_t flags, uint32_t mask, long long max_tries)
    cdef int count(self) except -1
    cdef int write(self, object txn, set only, set skip) except -1
    cdef list changed(self, set only)
    cdef int written(self, set only, set skip) except -1
    cdef int trim(self) except -1
    cdef int forget(self) except -1
    cdef int count_on_disk(self, long long number, const Head* head) except -1
    cdef int add_head(self, const Head* head) except -1
    cdef dict changes(self)
    cdef bint differs(self) except -1
    cdef int check(self) except -1
    cdef list touched_seqs(self)
    cdef uint32_t on_disk(self, object txn, long long seq) except? 0xffffffff
    cdef int record_before_images(self, object txn, long long number, Block block) except -1
    cdef Block load(self, long long number)
    cdef Block read(self, object txn, long long number)
