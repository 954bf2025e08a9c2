from libc.stdint cimport uint32_t

from tastypy_fast._core.status_block cimport Layout

cdef class StatusWriter:
    cdef object txn
    cdef object status
    cdef Layout data
    cdef long long number
    cdef int index
    cdef list claims

    cdef uint32_t get(self, long long seq) except? 0xffffffff
    cdef long long find(self, long long seq, uint32_t flags, uint32_t mask, long long max_tries) except -2
    cdef int set(self, uint32_t entry) except -1
    cdef int flush(self) except -1
