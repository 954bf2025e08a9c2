from libc.stdint cimport uint32_t

from tastypy_fast._core.cache_entry cimport Entry
from tastypy_fast._core.task_cache cimport TaskCache

cdef class TrackerCache(TaskCache):
    cdef Entry found

    cdef long long order_of(self, object key) except? -3
    cdef int add_one(self, bytes key) except -1
    cdef object status_of(self, object key)
    cdef object change(self, object key, uint32_t drop, uint32_t add, int tries, long long sync_at)
    cdef object gate(self, object key, long long max_tries, bint allow_aborted, bint add, bint attempt,
                     long long sync_at)
    cdef object count_all(self)
    cdef object add_many(self, object keys, bint if_absent, long long sync_at)
    cdef object merge(self, object key, dict changes, long long sync_at)
    cdef bint add_chunk(self, list keys, list originals, bint if_absent) except -1
    cdef bint add_synced(self, list keys) except -1
    cdef int put_tasks(self, object txn, list index, list records) except -1
