"""An entry of the cache, and how entries go to disk."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport PyObject

from tastypy_fast._core.key_codec cimport index_key
from tastypy_fast._core.record_codec cimport NO_PAYLOAD, build_record

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* value)
    PyObject* PyList_GET_ITEM(PyObject* value, Py_ssize_t index)
    Py_ssize_t PyList_GET_SIZE(PyObject* value)
    int PyDict_Next(PyObject* value, Py_ssize_t* position, PyObject** key, PyObject** item)
    bint PyDict_CheckExact(PyObject* value)
    bint PyList_CheckExact(PyObject* value)

__all__ = ["Entry"]


cdef bytes pack(long long number):
    return PyBytes_FromStringAndSize(<const char*>&number, 8)


cdef bint is_referenced(PyObject* value, int depth) except -1:
    """Whether anybody but its one owner holds a reference to a value, or to a list or dict inside it."""
    cdef Py_ssize_t position = 0
    cdef PyObject* key
    cdef PyObject* item
    if Py_REFCNT(value) > 1 or depth > 500:
        return True
    if PyDict_CheckExact(value):
        while PyDict_Next(value, &position, &key, &item):
            if (PyDict_CheckExact(item) or PyList_CheckExact(item)) and is_referenced(item, depth + 1):
                return True
    elif PyList_CheckExact(value):
        for position in range(PyList_GET_SIZE(value)):
            item = PyList_GET_ITEM(value, position)
            if (PyDict_CheckExact(item) or PyList_CheckExact(item)) and is_referenced(item, depth + 1):
                return True
    return False


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Entry:
    """One key of the cache.

    ``disk`` is the order number under which the disk has the key (ABSENT: it has not; UNKNOWN: nobody has
    looked yet), ``order`` the one it has now. ``payload`` is the JSON as last assigned or read, ``value`` the
    list or dict that was handed out of it. ``dirty``: payload, place or existence differ from the disk. ``shelved``: it
    is only watched, and automatic syncs pass it over (see Syncing); ``in_turns``: it is in the queue of these.
    """


@cython.final
@cython.freelist(8)
cdef class Copy:
    """A value that a loop over a store has handed out: a copy, which is saved if it is changed and its key is marked.

    ``payload`` is the JSON that it was made of. ``watched`` is the object that was handed out by keying before, if
    there was one: its unsaved changes are in the copy.
    ``status`` is that of a task, as it was last shown in the copy. ``era``: see Lookup.
    """


@cython.final
cdef class IndexItems:
    """What putmulti() puts into the index: pairs that are made one by one, and gone when they are put."""

    def __init__(self, list entries not None):
        self.entries = entries

    def __iter__(self):
        return self

    def __next__(self):
        cdef Entry entry
        if self.at == len(self.entries):
            raise StopIteration
        entry = self.entries[self.at]
        self.at += 1
        return index_key(entry.key), pack(entry.seq)


@cython.final
cdef class RecordItems:
    """The same for the records."""

    def __init__(self, list entries not None, bint compress):
        self.entries = entries
        self.compress = compress

    def __iter__(self):
        return self

    def __next__(self):
        cdef Entry entry
        if self.at == len(self.entries):
            raise StopIteration
        entry = self.entries[self.at]
        self.at += 1
        return pack(entry.seq), build_record(entry.codec, entry.key, entry.payload, self.compress)


def seq_of_entry(Entry entry):
    return entry.seq


cdef Entry make_entry(bytes key, long long disk_seq, long long seq):
    cdef Entry entry = Entry.__new__(Entry)
    entry.key = key
    entry.disk_seq = disk_seq
    entry.seq = seq
    entry.exists = True
    entry.relocated = entry.dirty = entry.counts_as_dirty = entry.status_dirty = entry.shelved = entry.in_turns = False
    entry.codec = NO_PAYLOAD
    return entry
