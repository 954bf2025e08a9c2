from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef class ReaderSlot:
    cdef int file
    cdef char* map
    cdef size_t size
    # Where the number of slots in use is, and where the table begins. 0 while the layout is not known.
    cdef size_t count_at, table_at
    # The slot, and whether it is known.
    cdef uint64_t index
    cdef bint is_known

    cdef int let_go(self) noexcept
    cdef uint32_t* count(self) noexcept
    cdef uint64_t* txnid_at(self, uint64_t index) noexcept
    cdef int32_t* process_at(self, uint64_t index) noexcept
    cdef uint64_t capacity(self) noexcept
    cdef bint find(self) noexcept
    cdef bint is_set(self) noexcept
    cdef bint place(self, uint64_t txnid) noexcept
    cdef uint64_t txnid(self) noexcept
