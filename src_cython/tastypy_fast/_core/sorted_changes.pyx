"""Changes in the order in which LMDB has their keys.

Fifty thousand pairs of a dict are put in order by 8 bytes of each key, and whole keys are compared only where these are
the same: half of the time that sorting the keys and looking up their values takes, most of which is waiting for memory.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcmp, memcpy

__all__ = ["sorted_items"]

cdef extern from "Python.h":
    int PyDict_Next(PyObject* value, Py_ssize_t* position, PyObject** key, PyObject** item)
    const char* PyBytes_AS_STRING(PyObject* value) nogil
    Py_ssize_t PyBytes_GET_SIZE(PyObject* value) nogil

cdef struct Place:
    uint64_t rank
    PyObject* key
    PyObject* item


cdef int compare_ranks(const void* left, const void* right) noexcept nogil:
    cdef uint64_t a = (<const Place*>left).rank, b = (<const Place*>right).rank
    return (a > b) - (a < b)


cdef int compare_keys(const void* left, const void* right) noexcept nogil:
    cdef int found = compare_ranks(left, right)
    cdef PyObject* a = (<const Place*>left).key
    cdef PyObject* b = (<const Place*>right).key
    cdef Py_ssize_t size_a, size_b
    if found:
        return found
    size_a = PyBytes_GET_SIZE(a)
    size_b = PyBytes_GET_SIZE(b)
    found = memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), min(size_a, size_b))
    return found if found else (size_a > size_b) - (size_a < size_b)


cdef uint64_t rank_of(const char* key, Py_ssize_t size, Py_ssize_t start) noexcept:
    """8 bytes of a key, from ``start`` on, as a number; 0 behind its end."""
    cdef uint64_t rank = 0
    cdef Py_ssize_t at
    for at in range(start, start + 8):
        rank = rank << 8 | (<unsigned char>key[at] if at < size else 0)
    return rank


cdef Py_ssize_t shared_bytes(dict changes) noexcept:
    """With how many bytes all keys begin."""
    cdef Py_ssize_t position = 0, shared = -1, at
    cdef PyObject* key
    cdef PyObject* item
    cdef const char* first = NULL
    while PyDict_Next(<PyObject*>changes, &position, &key, &item):
        if first == NULL:
            first = PyBytes_AS_STRING(key)
            shared = PyBytes_GET_SIZE(key)
        shared = min(shared, PyBytes_GET_SIZE(key))
        at = 0
        while at < shared and PyBytes_AS_STRING(key)[at] == first[at]:
            at += 1
        shared = at
    return shared


cpdef list sorted_items(dict changes, bint numbers):
    """The pairs of a dict in the order of its keys, which are bytes; ``numbers``: 8 of them, the machine's own."""
    cdef Py_ssize_t size = len(changes), position = 0, at = 0, start = 0
    cdef PyObject* key
    cdef PyObject* item
    cdef Place* places = <Place*>PyMem_Malloc(size * sizeof(Place) + 1)
    cdef list pairs = []
    if places == NULL:
        raise MemoryError
    try:
        if not numbers:
            start = shared_bytes(changes)
        while PyDict_Next(<PyObject*>changes, &position, &key, &item):
            places[at].key = key
            places[at].item = item
            if numbers:
                memcpy(&places[at].rank, PyBytes_AS_STRING(key), 8)
            else:
                places[at].rank = rank_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), start)
            at += 1
        qsort(places, size, sizeof(Place), compare_ranks if numbers else compare_keys)
        for at in range(size):
            pairs.append((<object>places[at].key, <object>places[at].item))
    finally:
        PyMem_Free(places)
    return pairs
