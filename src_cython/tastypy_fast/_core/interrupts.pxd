cdef class HeldSignals:
    cdef dict handlers
    cdef list arrived

    cdef int hold(self) except -1
    cdef int release(self) except -1
