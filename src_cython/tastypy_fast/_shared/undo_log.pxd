from tastypy_fast._core.store_base cimport StoreBase

cdef class UndoLog:
    cdef StoreBase store
    # The number of before-images when they were counted last.
    cdef long long counted
    cdef bint may_be_outdated
    cdef bint is_count_lost

    cdef int record(self, bytes seq, bytes image) except -1
    cdef int record_many(self, list images) except -1
    cpdef int clear(self) except -1
    cdef int note_other_writer(self) noexcept
    cdef int mark_count_unknown(self) noexcept
    cdef bint is_full(self, long long sync_at) except -1
