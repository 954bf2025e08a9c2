from libc.stdint cimport int32_t, uint32_t

from tastypy_fast._core.cache_entry cimport Entry
from tastypy_fast._core.running_tasks cimport RunningSlot
from tastypy_fast._core.status_table cimport StatusTable
from tastypy_fast._core.write_cache cimport WriteCache

cdef class TaskCache(WriteCache):
    cdef StatusTable status
    # Keys in the index that got the waiting tries of a killed process, and are not synced yet.
    cdef set given_tries
    # The entry of the task that find_task() found last.
    cdef Entry found

    cdef int assign(self, bytes key, dict value) except -1
    cdef uint32_t with_claim(self, long long seq, uint32_t status) except? 0xffffffff
    cdef Entry without_error(self, object key, long long seq, Entry entry)
    cdef object record_error(self, object key, dict error, long long sync_at)
    # Statuses
    cdef int read_status_from_dict(self, Entry entry) except -1
    cdef int read_borrowed_statuses(self) except -1
    cdef int read_all_statuses_from_dicts(self, bint pinned) except -1
    cdef uint32_t status_at(self, long long seq, Entry entry) except? 0xffffffff
    cdef int set_status(self, long long seq, Entry entry, uint32_t status) except -1
    cdef long long find_task(self, object key) except? -3
    cdef object status_of(self, object key)
    cdef RunningSlot open_running_slot(self)
    cdef int note_running(self, long long seq, bytes key, int32_t tries) except -1
    cdef int32_t take_waiting_tries(self, bytes key) except? -1
    cdef object change(self, object key, uint32_t drop, uint32_t add, int added_tries, long long sync_at)
    cdef list finish_many(self, list changes, long long sync_at)
    cdef int finish_some(self, list changes, Py_ssize_t first, Py_ssize_t end, list failures) except -1
    cdef int finish_task(self, object key, bytes encoded, long long seq, int kind, dict data, int32_t number,
                         dict records) except -1
    cdef object mark_done_with(self, object key, dict data, long long sync_at)
    cdef object reset_tries(self, object key, long long sync_at)
    cdef object gate(self, object key, long long max_tries, bint allow_aborted, bint add, bint attempt,
                     long long sync_at)
    cdef object count_all(self)
    cdef set running_keys(self)
    # Adding
    cdef int add_one(self, bytes key) except -1
    cdef object add_many(self, object keys, bint if_absent, long long sync_at)
    cdef bint add_chunk(self, list keys, list originals, bint if_absent) except -1
    cdef bint add_synced(self, list keys) except -1
    cdef int put_tasks(self, object txn, list index, list records) except -1
    cdef object merge(self, object key, dict changes, long long sync_at)

cdef uint32_t status_in(dict value) except? 0xffffffff
cdef bytes dump_data(dict value, int* codec)
cdef int write_status_to_dict(dict value, uint32_t status) except -1
