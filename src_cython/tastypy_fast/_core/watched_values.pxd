from tastypy_fast._core.cache_entry cimport Entry
from tastypy_fast._core.cache_lookup cimport Lookup

cdef class Watching(Lookup):
    # Entries that are only watched and that automatic syncs pass over, by key; and these and some that were there, in
    # the order in which they are looked at.
    cdef dict shelf
    cdef object turns
    cdef Py_ssize_t shelved_last
    # So many values that somebody holds past a sync are compared by every sync, the others by explicit ones.
    cdef public Py_ssize_t watched_by_each

    cdef Entry entry_of(self, bytes key)
    cdef int count_entry(self, Entry entry) except -1
    cdef int take_down(self, Entry entry) except -1
    cdef int take_all_down(self) except -1
    cdef list on_shelf(self)
    cdef int put_on_shelf(self, list entries) except -1
    cdef int look_through_shelf(self) except -1
    cdef list drop_unchanged(self)
    cdef int watch_again(self, list entries) except -1
