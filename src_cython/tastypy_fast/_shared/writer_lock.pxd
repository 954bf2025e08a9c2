cdef class WriterLock:
    cdef int file

    cdef int take(self) except -1
    cdef int give_back(self) noexcept
