from libc.stdint cimport uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.status_writer cimport StatusWriter
from tastypy_fast._core.tracker_cache cimport TrackerCache

cdef bytes record_of(WriteCache cache, bytes key, object value)
cdef bint assign_directly(WriteCache cache, bytes key, bytes record) except -1
cdef int begin_directly(TrackerCache tasks) except -1
cdef int put_status(TrackerCache tasks, StatusWriter blocks, bytes seq, uint32_t old, uint32_t new) except -1
cdef int finish(TrackerCache tasks, StatusWriter blocks) except -1
cdef bint change_directly(TrackerCache tasks, bytes key, object original, uint32_t drop, uint32_t add,
                          int tries) except -1
