cdef extern from "pythread.h":
    ctypedef void* PyThread_type_lock

from tastypy_fast._core.worker_slots cimport WorkerSlots

cdef class Lock:
    cdef PyThread_type_lock gate
    cdef bint gate_held
    cdef int waiting
    cdef int depth
    cdef unsigned long long owner
    cdef public list afterwards

    cpdef int acquire(self) except -1
    cpdef int release(self) except -1
    cpdef bint is_mine(self)
    cpdef bint try_acquire(self)
    cpdef bint acquire_within(self, long long microseconds) except -1
    cpdef int acquire_anyway(self) except -1
    cdef bint take_at_once(self) noexcept
    cdef bint take(self, long long microseconds) except -1
    cdef bint wait(self, long long microseconds) except -1
    cpdef int suspend(self) except -1
    cpdef int resume(self, int depth) except -1

cdef class StoreBase:
    cdef public Lock lock
    cdef public str path
    cdef public bint writable
    cdef public bint transient
    cdef public bint gzipped
    cdef public bint flushes_each_sync
    cdef public long long disk_version
    cdef public long long next_order
    cdef public object db
    cdef public object snapshot
    cdef public object buffer_snapshot
    cdef public object values
    cdef public object order
    cdef public object status
    cdef public object meta
    cdef public object images
    cdef public object claims
    cdef public object wal
    # Of this process as a worker: its number and its lanes, None while it is none.
    cdef public unsigned long long worker_number
    cdef public WorkerSlots lanes
    # The heads of all blocks of statuses (see _heads), or None.
    cdef public object summary
    cdef public bint wrote
    cdef public long long before_image_count
    cdef bint next_is_old
    # The second in which the files were looked at last, by the system's clock that never goes back.
    cdef public long long files_checked

    cdef int look_at_files(self) except -1
    cdef object reader(self)
    cdef int end_snapshot(self) except -1
    cdef long long next_free(self) except -1
    cdef long long allocate(self) except -1
