from tastypy_fast._core.cache_entry cimport Copy, Entry
from tastypy_fast._core.cache_sync cimport Syncing

cdef class WriteCache(Syncing):
    cdef Entry put_payload(self, Entry entry, bytes key, int codec, bytes payload)
    cdef Entry put_new(self, bytes key, int codec, bytes payload)
    cdef int adopt(self, Entry entry) except -1
    cdef int remove_entry(self, Entry entry) except -1
    cdef object copy_of(self, Entry entry, Copy copied)
    cdef bint is_changed(self, Entry entry, Copy copied) except -1
    cdef list running_loops(self)
    cdef bint may_be_saved(self, Copy copied, Entry entry, object original) except -1
    cdef int take_copy(self, Entry entry, object original) except -1
    cdef object fetch(self, bytes key, object original, long long sync_at)
    cdef int put(self, bytes key, object value, long long sync_at) except -1
    cdef int delete(self, bytes key, object original, long long sync_at) except -1
    cdef bint contains(self, bytes key) except -1
    cdef long long length(self) except -1
