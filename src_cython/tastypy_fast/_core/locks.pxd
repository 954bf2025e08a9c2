cdef extern from "pythread.h":
    ctypedef void* PyThread_type_lock

cdef class Lock:
    cdef PyThread_type_lock gate
    cdef bint gate_held
    cdef int waiting
    cdef int depth
    cdef unsigned long long owner
    cdef public list on_release

    cpdef int acquire(self) except -1
    cpdef int release(self) except -1
    cpdef bint is_mine(self)
    cpdef bint try_acquire(self)
    cpdef bint acquire_within(self, long long microseconds) except -1
    cpdef int acquire_uninterrupted(self) except -1
    cdef bint acquire_at_once(self) noexcept
    cdef bint acquire_until(self, long long microseconds) except -1
    cdef bint wait(self, long long microseconds) except -1
    cpdef int suspend(self) except -1
    cpdef int resume(self, int depth) except -1
