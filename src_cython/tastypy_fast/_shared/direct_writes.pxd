from libc.stdint cimport uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.status_writer cimport StatusWriter
from tastypy_fast._core.task_cache cimport TaskCache

cdef bytes record_of(WriteCache cache, bytes key, object value)
cdef bint assign_directly(WriteCache cache, bytes key, bytes record) except -1
cdef int begin_directly(TaskCache tasks) except -1
cdef int put_status(TaskCache tasks, StatusWriter blocks, long long seq, uint32_t old, uint32_t new) except -1
cdef int finish(TaskCache tasks, StatusWriter blocks) except -1
cdef bint change_directly(TaskCache tasks, bytes key, object original, uint32_t drop, uint32_t add,
                          int added_tries) except -1
cdef bint reset_tries_directly(TaskCache tasks, bytes key, object original) except -1
