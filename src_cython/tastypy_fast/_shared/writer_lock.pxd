cdef class WriterLock:
    cdef int file

    cdef int acquire(self, bint waits) except -1
    cdef int release(self) noexcept
