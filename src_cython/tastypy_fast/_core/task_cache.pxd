from libc.stdint cimport uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.cache_entry cimport Entry
from tastypy_fast._core.status_table cimport StatusTable

cdef class TaskCache(WriteCache):
    cdef StatusTable status
    cdef int read_status_from_dict(self, Entry entry) except -1
    cdef int read_all_statuses_from_dicts(self, bint shelved) except -1
    cdef uint32_t with_claim(self, long long seq, uint32_t status) except? 0xffffffff
    cdef int read_borrowed_statuses(self) except -1
    cdef uint32_t status_at(self, long long seq, Entry entry) except? 0xffffffff
    cdef int set_status(self, long long seq, Entry entry, uint32_t status) except -1
    cdef int assign(self, bytes key, dict value) except -1
