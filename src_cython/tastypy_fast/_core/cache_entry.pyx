"""Define what the write cache consists of: its entries, and what loops have handed out.

A row is identified by its sequence number ("seq"), which never changes and is never used again. The database
``order`` maps a key to its seq, the database ``values`` maps a seq to its record.
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
    """Encode a seq or a block number as LMDB's integer keys are: 8 bytes in the machine's byte order."""
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
    """One key of the cache.

    ``disk_seq`` is the seq that the key has on disk: ABSENT if the disk does not have the key, UNKNOWN if the disk was
    not asked yet. ``seq`` is the one that it has now. ``payload`` is the JSON as it was last assigned or read.
    ``value`` is the list or dict that was made of it and handed out.

    ``dirty``: the payload, the seq or the existence differ from the disk. ``relocated``: the key was deleted and added
    again, so the next sync moves its record to a new seq. ``borrowed``: the caller still had references to the value
    when the last sync began. ``pinned`` and ``in_queue`` belong to PinnedEntries.
    """


@cython.final
@cython.freelist(8)
cdef class YieldedCopy:
    """A copy of a value that a loop has handed out. It is saved only if it is changed and its key is marked dirty.

    ``payload`` is the JSON of which the copy was made. ``watched`` is the value that was handed out by ``pod[key]``
    before, if there was one, because its unsaved changes are in the copy. ``status`` is the one that the copy of a
    task last showed. ``generation``: see WriteCache.copy_generation.
    """


cdef class ValueLoop:
    """A loop over values, as the cache sees it. ``copied`` is its last copy, or None at its end."""


@cython.final
cdef class LastYielded:
    """The item that a loop over the store has handed out last.

    ``key`` and ``seq`` let a tracker skip the index when the caller changes the status of that task next.
    ``copied`` is the copy of its value. ``record`` is the record of the last key that a loop over keys handed out,
    because callers often ask for its value next. It is valid as long as ``cache_version`` and ``snapshot_id`` are the
    cache's.
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
    return entry
