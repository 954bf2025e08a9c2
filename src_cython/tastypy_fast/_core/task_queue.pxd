from libc.stdint cimport uint32_t

from tastypy_fast._core.iterators cimport StoreHandle
from tastypy_fast._core.running_tasks cimport RunningSlot
from tastypy_fast._core.task_cache cimport TaskCache

cdef class TaskQueue:
    cdef StoreHandle handle
    cdef uint32_t mask
    # The sequence number of the last task that was taken.
    cdef long long position
    cdef bint closed

    cdef TaskCache open_tasks(self)
    cdef long long limit(self) noexcept
    cdef list choose(self, TaskCache tasks, long long limit, bint again)
    cdef int take_chosen(self, TaskCache tasks, list chosen, list taken, list seqs) except -1
    cdef object try_task(self, TaskCache tasks, long long seq, const unsigned char* key, Py_ssize_t size)
    cdef int sync_or_give_back(self, TaskCache tasks, list seqs) except -1

cdef class TaskSlot:
    cdef StoreHandle handle
    cdef RunningSlot slot
