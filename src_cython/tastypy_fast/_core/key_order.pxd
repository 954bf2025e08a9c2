from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t

# One key to sort, as bytes or as the number ``rank``, and what belongs to it. Both references are borrowed.
cdef struct SortItem:
    uint64_t rank
    PyObject* key
    PyObject* item

cdef int sort_by_rank(SortItem* items, Py_ssize_t size) except -1
cdef int sort_by_key(SortItem* items, Py_ssize_t size) except -1
