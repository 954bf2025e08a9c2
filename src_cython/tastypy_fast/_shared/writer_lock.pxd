cdef class WriterLock:
    cdef int file

    cdef int acquire(self) except -1
    cdef int release(self) noexcept
