from libc.stdint cimport uint32_t

from tastypy_fast._cache cimport Cache
from tastypy_fast._entries cimport Entry
from tastypy_fast._status cimport StatusTable

cdef class TrackerCache(Cache):
    cdef StatusTable status
    cdef Entry found

    cdef int absorb(self, Entry entry) except -1
    cdef int absorb_all(self) except -1
    cdef uint32_t status_at(self, long long order, Entry entry) except? 0xffffffff
    cdef int set_status(self, long long order, Entry entry, uint32_t status) except -1
    cdef long long order_of(self, object key) except? -3
    cdef int add_one(self, bytes key) except -1
    cdef int assign(self, bytes key, dict value) except -1
    cdef object status_of(self, object key)
    cdef object change(self, object key, uint32_t drop, uint32_t add, int tries, long long sync_at)
    cdef object gate(self, object key, long long max_tries, bint allow_aborted, bint add, bint attempt,
                     long long sync_at)
    cdef object count_all(self)
    cdef object add_many(self, object keys, bint if_absent, long long sync_at)
    cdef object merge(self, object key, dict changes, long long sync_at)
    cdef int add_chunk(self, list keys, list originals, bint if_absent) except -1
