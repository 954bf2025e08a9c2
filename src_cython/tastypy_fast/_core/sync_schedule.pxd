cdef class SyncSchedule:
    # Whether the next change need not call begin(): a sync is scheduled already, or none is wanted.
    cdef bint is_set
    # Seconds between a change and its sync; 0 if there is no automatic sync by time.
    cdef double interval
    # The time of the first change that may not be on disk, and of the sync; 0 if none is scheduled.
    cdef double changed_at
    cdef double due
    # The error of the last sync by time, until a write raises it or a sync succeeds.
    cdef object failure
    # Weak references to the instances on the cache.
    cdef list handles

    cdef int begin(self, object store) except -1
    cdef int fail(self, object error) except -1
    cdef void repeat(self, double cpu_time) noexcept
    cdef void clear(self) noexcept
    cdef bint is_held(self) except -1

cpdef double monotonic() noexcept
cdef double thread_cpu_time() noexcept
