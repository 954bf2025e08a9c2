cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t

cdef enum:
    UNKNOWN = -2
    ABSENT = -1

cdef class Entry:
    cdef bytes key
    cdef long long disk_seq
    cdef long long seq
    cdef bint exists
    cdef bint relocated
    cdef bint dirty
    cdef bint counts_as_dirty
    cdef bint status_dirty
    cdef bint borrowed
    cdef bint pinned
    cdef bint in_queue
    cdef long long status_read
    cdef int codec
    cdef bytes payload
    cdef object value

cdef class YieldedCopy:
    cdef object key
    cdef long long seq
    cdef object value
    cdef int codec
    cdef bytes payload
    cdef object watched
    cdef uint32_t status
    cdef long long generation

cdef class ValueLoop:
    cdef object __weakref__
    cdef YieldedCopy copied


@cython.final
cdef class LastYielded:
    cdef object key
    cdef long long seq
    cdef YieldedCopy copied
    cdef bytes record
    cdef long long record_seq
    cdef long long cache_version
    cdef long long snapshot_id

    @cython.final
    cdef inline void set_item(self, object key, long long seq):
        self.key = key
        self.seq = seq

    @cython.final
    cdef inline void set_record(self, bytes record, long long seq, long long cache_version, long long snapshot_id):
        self.record = record
        self.record_seq = seq
        self.cache_version = cache_version
        self.snapshot_id = snapshot_id

cdef class IndexItems:
    cdef list entries
    cdef Py_ssize_t at

cdef class RecordItems:
    cdef list entries
    cdef Py_ssize_t at
    cdef bint compress

cdef bytes pack(long long number)
cdef bint is_referenced(PyObject* value, int depth) except -1
cdef Entry make_entry(bytes key, long long disk_seq, long long seq)
