from libc.stdint cimport uint32_t

from tastypy_fast._cache cimport Cache
from tastypy_fast._statusblock cimport Layout
from tastypy_fast._tracking cimport TrackerCache

cdef class Blocks:
    cdef object txn
    cdef object status
    cdef Layout data
    cdef long long number
    cdef int slot
    cdef list images
    cdef list claims

    cdef uint32_t get(self, long long order) except? 0xffffffff
    cdef long long find(self, long long order, uint32_t flags, uint32_t mask, long long max_tries) except -2
    cdef int set(self, uint32_t entry) except -1
    cdef int flush(self) except -1

cdef bytes record_of(Cache cache, bytes key, object value)
cdef bint assign_directly(Cache cache, bytes key, bytes record) except -1
cdef int begin_directly(TrackerCache tasks) except -1
cdef int put_status(TrackerCache tasks, Blocks blocks, bytes number, uint32_t old, uint32_t new) except -1
cdef int finish(TrackerCache tasks, Blocks blocks) except -1
cdef bint change_directly(TrackerCache tasks, bytes key, object original, uint32_t drop, uint32_t add,
                          int tries) except -1
