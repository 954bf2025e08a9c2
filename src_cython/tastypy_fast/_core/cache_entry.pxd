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
    cdef bint shelved
    cdef bint in_turns
    cdef int codec
    cdef bytes payload
    cdef object value

cdef class IndexItems:
    cdef list entries
    cdef Py_ssize_t at

cdef class RecordItems:
    cdef list entries
    cdef Py_ssize_t at
    cdef bint compress

cdef class Copy:
    cdef object key
    cdef long long seq
    cdef object value
    cdef int codec
    cdef bytes payload
    cdef object watched
    cdef uint32_t status
    cdef long long era

cdef bytes pack(long long number)
cdef bint is_referenced(PyObject* value, int depth) except -1
cdef Entry make_entry(bytes key, long long disk_seq, long long seq)
