from tastypy_fast._core.memtable cimport Memtable

cdef class WriteAheadLog:
    cdef readonly object log
    cdef tuple handles
    cdef tuple layers
    cdef long long count
    cdef Py_ssize_t size
    cdef object first
    cdef object last
    cdef long long seen

    cpdef int reset(self) except -1
    cdef int catch_up(self, object txn) except -1
    cdef int take_batch(self, bytes batch) except -1
