from libc.stdint cimport uint32_t

from tastypy_fast._cache cimport Cache
from tastypy_fast._entries cimport Entry
from tastypy_fast._status cimport StatusTable

cdef class TaskCache(Cache):
    cdef StatusTable status
    cdef int absorb(self, Entry entry) except -1
    cdef int absorb_all(self, bint shelved) except -1
    cdef uint32_t with_claim(self, long long order, uint32_t status) except? 0xffffffff
    cdef int absorb_handed_out(self) except -1
    cdef uint32_t status_at(self, long long order, Entry entry) except? 0xffffffff
    cdef int set_status(self, long long order, Entry entry, uint32_t status) except -1
    cdef int assign(self, bytes key, dict value) except -1
