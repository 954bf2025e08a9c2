from libc.stdint cimport uint64_t

cdef class WorkerSlots:
    cdef Py_buffer view
    cdef bint is_open
    cdef uint64_t* slots

    cpdef close(self)
    cdef uint64_t* at(self, unsigned long long slot) noexcept
    cdef bint mark_yielded(self, unsigned long long slot, unsigned long long position) noexcept
    cdef int clear_stop(self, unsigned long long slot) noexcept
    cpdef bint stop(self, unsigned long long slot, unsigned long long position) noexcept
