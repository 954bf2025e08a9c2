from tastypy_fast._core.cache_entry cimport Entry
from tastypy_fast._core.watched_values cimport Watching

cdef class Syncing(Watching):
    cdef int settle(self, long long sync_at) except -1
    cdef bint has_changes(self) except -1
    cdef bint status_differs(self) except -1
    cdef Py_ssize_t status_places(self) except -1
    cdef int one_written(self, Entry entry) except -1
    cdef int settle_entry(self, Entry entry) except -1
    cdef int forget_entries(self) except -1
    cpdef int sync(self, bint flush) except -1
    cpdef int revert(self) except -1
    cdef int sync_entries(self, bint flush, Entry only, set seqs, bint automatic) except -1
    cdef int write_changes(self, object txn, list changes, set seqs, set skip) except -1
    cdef int record_before_images(self, object txn, list changes) except -1
    cdef int written(self, list changes, set failed) except -1

cdef Py_ssize_t count_key_places(list keys) except -1
