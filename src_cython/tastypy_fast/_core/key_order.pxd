from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t

# One key to sort, and what belongs to it. Both references are borrowed.
cdef struct SortItem:
    uint64_t rank
    PyObject* key
    PyObject* item

cdef void sort(SortItem* items, Py_ssize_t size, bint integer_keys) noexcept
cpdef list sorted_items(dict changes, bint integer_keys)
