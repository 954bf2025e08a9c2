"""Define the entries of the write cache, and the records of the items that iterators yielded last.

A row is identified by its sequence number ("seq"), which never changes and is never used again. The database
``order`` maps a key to its seq. The database ``values`` maps a seq to its record.
"""

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
    """Encode a seq or a block number as an integer key of LMDB: 8 bytes in the machine's byte order."""
    return PyBytes_FromStringAndSize(<const char*>&number, 8)


cdef bint is_referenced(PyObject* value, int depth) except -1:
    """Return whether a value, or a list or dict inside it, has a second reference."""
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
    """One key in the cache.

    ``disk_seq`` is the seq of the key on disk: ABSENT if the disk does not have the key, UNKNOWN if the index was not
    read yet. ``seq`` is the current seq. ``payload`` is the JSON that was last assigned or read. ``value`` is the list
    or dict that was decoded from it and returned to a caller.

    ``dirty``: the payload, the seq or the existence differ from the disk. ``relocated``: the key was deleted and added
    again, so the next sync moves its record to a new seq. ``borrowed``: the caller still had references to the value
    when the last sync began. ``pinned`` and ``in_queue`` belong to PinnedEntries. ``status_read`` belongs to TaskCache:
    the version of its status table if that has the status in ``value`` and no caller can have changed it, else 0.
    """


@cython.final
@cython.freelist(8)
cdef class YieldedCopy:
    """The copy of a value that an iterator yielded. It is saved only if it is changed and its key is marked dirty.

    ``payload`` is the JSON from which the copy was decoded. ``watched`` is the value that ``pod[key]`` returned before,
    or None. The copy has its unsaved changes. ``status`` is the status that was last written into the copy of a task.
    ``generation`` is the cache's ``copy_generation`` when the copy was yielded.
    """


cdef class ValueLoop:
    """The part of an iterator over values that the cache uses. ``copied`` is its last copy, or None at its end."""


@cython.final
cdef class LastYielded:
    """The item that an iterator over the store yielded last.

    ``key`` and ``seq`` let a tracker skip the index when the caller changes the status of that task next.
    ``copied`` is the copy of its value. ``record`` is the record of the last key that an iterator over keys yielded,
    because callers often read its value next. It is valid while ``cache_version`` and ``snapshot_id`` equal those of
    the cache.
    """


@cython.final
cdef class IndexItems:
    """Yield the index entries of new keys for putmulti(), one by one, so that they need no list."""

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
    """Yield the records of entries for putmulti()."""

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
    entry.relocated = entry.dirty = entry.counts_as_dirty = entry.status_dirty = entry.pinned = entry.in_queue = False
    entry.codec = NO_PAYLOAD
    entry.status_read = 0
    return entry
