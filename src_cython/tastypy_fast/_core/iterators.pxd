from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.cache_entry cimport Copy, Entry
from tastypy_fast._core.record_codec cimport Record

cpdef enum:
    KEYS = 0
    VALUES = 1
    ITEMS = 2

cdef class StoreHandle:
    cdef WriteCache cache
    cdef long long sync_at
    cdef long long max_tries
    cdef bint held
    # How many locked() blocks of this instance are open.
    cdef int blocks

    cdef WriteCache open_cache(self)
    cdef long long threshold(self)

cdef class StoreIterator:
    cdef object __weakref__
    cdef StoreHandle owner
    cdef WriteCache cache
    # What was handed out last, where that is a value.
    cdef Copy copied
    cdef int kind
    cdef bint backwards
    cdef bint finished
    cdef bint bare
    # How often a shared store was reverted when the chunk was read, and whether it was again since.
    cdef object reverts
    cdef bint is_reverted
    cdef readonly long long position
    cdef long long cache_version
    cdef list orders
    cdef list records
    cdef Py_ssize_t at
    cdef int limit
    cdef long long seen

    cdef bint is_outdated(self) except -1
    cdef int enter_for(self, long long order, long long before) except -1
    cdef object offer(self, long long order, object item, long long before)
    cdef object read_again(self, long long order, object item)
    cdef object offer_now(self, long long order, object item)
    cdef object as_it_is_now(self, long long order, object item)
    cdef object count_reverts(self)
    cdef bint is_overtaken(self, long long order) except -1
    cdef Entry look_at(self, long long order, object item, Record* record)
    cdef int note_passing(self, long long order, object item) except -1
    cdef object hand(self, WriteCache cache, Entry entry, Record* record, long long order)
    cdef object decode(self, WriteCache cache, Record* record, long long order, Copy copied)
    cdef int refill(self) except -1
    cdef int read_disk(self, list orders, list records) except -1
    cdef int add_new(self, list orders, list records, bint cut) except -1

cdef object damaged(WriteCache cache, long long order, object error)
