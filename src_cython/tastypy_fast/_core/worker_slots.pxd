from libc.stdint cimport uint64_t

cdef class WorkerSlots:
    cdef Py_buffer view
    cdef bint is_open
    cdef uint64_t* lane

    cpdef close(self)
    cdef uint64_t* at(self, unsigned long long lane) noexcept
    cdef bint hand_out(self, unsigned long long lane, unsigned long long place) noexcept
    cdef int go_on(self, unsigned long long lane) noexcept
    cpdef bint stop(self, unsigned long long lane, unsigned long long place) noexcept
