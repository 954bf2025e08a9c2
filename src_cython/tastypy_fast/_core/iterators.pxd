from libc.stdint cimport uint32_t

from tastypy_fast._core.cache_entry cimport Entry, ValueLoop, YieldedCopy
from tastypy_fast._core.record_codec cimport Record
from tastypy_fast._core.running_tasks cimport RunningSlot
from tastypy_fast._core.task_cache cimport TaskCache
from tastypy_fast._core.write_cache cimport WriteCache

cpdef enum:
    KEYS = 0
    VALUES = 1
    ITEMS = 2
    # Only a TaskIterator yields these: pairs of key and a copy of the dict, which has no data with STATUSES.
    STATUSES = 3
    COPIES = 4

cdef class StoreHandle:
    cdef WriteCache cache
    cdef long long sync_at
    cdef long long max_tries
    cdef bint held
    # Seconds between a change and its sync; 0 without a sync by time.
    cdef double sync_every
    # How many locked() blocks of this instance are open.
    cdef int blocks

    cdef WriteCache open_cache(self)
    cdef long long threshold(self)

cdef class StoreIterator(ValueLoop):
    # None after the end.
    cdef StoreHandle handle
    cdef WriteCache cache
    cdef int kind
    cdef bint backwards
    cdef bint finished
    # How many threads are in a step.
    cdef int running
    # Whether the chunk has keys instead of records, because the values are large.
    cdef bint bare
    # The encoded key of the last item, if it was looked up in the cache.
    cdef bytes encoded
    # The number of reverts of a shared store when the chunk was read, and whether there was one since.
    cdef object reverts
    cdef bint is_reverted
    cdef readonly long long position
    # The chunk: seqs, and for each a record, a key (``bare``) or an entry. ``at`` is the index of the next item. The
    # versions of the cache and of the store are those at which the chunk was read.
    cdef list seqs
    cdef list records
    cdef Py_ssize_t at
    cdef int limit
    cdef long long cache_version
    cdef long long snapshot_id

    cdef object step(self)
    cdef int finish(self) except -1
    cdef int release(self) except -1
    cdef bint is_outdated(self) except -1
    cdef int begin_step(self, long long seq, long long before) except -1
    cdef object offer(self, long long seq, object item, long long before)
    cdef object read_again(self, long long seq, object item)
    cdef object offer_now(self, long long seq, object item)
    cdef object as_it_is_now(self, long long seq, object item)
    cdef object count_reverts(self)
    cdef bint is_overtaken(self, long long seq) except -1
    cdef Entry parse_item(self, long long seq, object item, Record* record)
    cdef int remember_record(self, long long seq, object item) except -1
    cdef object hand_out(self, WriteCache cache, Entry entry, Record* record, long long seq)
    cdef object decode(self, WriteCache cache, Record* record, long long seq, YieldedCopy copied)
    cdef int refill(self) except -1
    cdef int set_chunk(self, list seqs, list records, long long snapshot_id) except -1
    cdef int read_disk(self, list seqs, list records) except -1
    cdef bint move_cursor(self, object cursor, long long position) except -1
    cdef int add_new(self, list seqs, list records, bint cut) except -1

cdef class TaskIterator(StoreIterator):
    cdef TaskCache tasks
    cdef uint32_t flags
    cdef uint32_t mask
    cdef long long max_tries
    cdef bint attempt
    # Where the running task is noted for the case that the process is killed; None before the first try.
    cdef RunningSlot slot
    # The status table's ``openings`` or ``abortions`` when the chunk was read.
    cdef long long changes

    cdef bint is_current(self) except -1
    cdef object offer_task(self, long long seq, object item)
    cdef dict copy_of(self, Entry entry, Record* record, long long seq, object item, uint32_t status)
    cdef list choose(self)
    cdef int read_chosen(self, list chosen, list seqs, list records) except -1
