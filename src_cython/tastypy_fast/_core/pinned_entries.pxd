from tastypy_fast._core.cache_entry cimport Entry

cdef class PinnedEntries:
    cdef dict by_key
    cdef object queue
    cdef Py_ssize_t last_added

    cdef int add(self, list entries) except -1
    cdef int remove(self, Entry entry) except -1
    cdef dict remove_all(self)
    cdef list remove_released(self, list stale)
    cdef list entries(self)
    cdef int clear_queue(self) except -1
