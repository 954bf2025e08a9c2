from libc.stdint cimport uint32_t

from tastypy_fast._core.iterators cimport StoreIterator
from tastypy_fast._core.tracker_cache cimport TrackerCache

cdef class TaskIterator(StoreIterator):
    cdef TrackerCache tasks
    cdef uint32_t flags
    cdef uint32_t mask
    cdef long long max_tries
    cdef bint attempt
    cdef long long changes

    cdef bint is_seen(self) except -1
    cdef object offer_task(self, long long seq, object item)
