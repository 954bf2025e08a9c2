from libc.stdint cimport uint32_t

from tastypy_fast._core.cache_entry cimport Entry
from tastypy_fast._core.iterators cimport StoreHandle
from tastypy_fast._core.write_cache cimport WriteCache

cdef enum:
    # What ``content`` of a Lookup is: nothing, as its key does not exist; a record; a value; an exception to raise.
    NOTHING
    RECORD
    VALUE
    FAILURE

cdef class Lookup:
    # The key as the store has it, or None if it has to be decoded.
    cdef object key
    cdef bytes encoded
    # The key in the index.
    cdef bytes index
    cdef int kind
    cdef object content
    # The status of the task of a record, read in the same snapshot.
    cdef uint32_t status

    cdef int copy_value(self, WriteCache cache, Entry entry) except -1
    cdef int fail(self, object error) except -1
    cdef object pair(self, WriteCache cache)

cdef class LookupIterator:
    # The store that the user has, and an iterator over the keys. Both are None after the end.
    cdef object store
    cdef object keys
    # Keys that were read and not looked up yet.
    cdef list pending
    # Pairs that were found and not yielded yet, the next one last.
    cdef list found
    # An exception of ``keys``, which is raised after the pairs before it.
    cdef object failure
    # How many threads are in a step.
    cdef int running

    cdef StoreHandle handle(self)
    cdef object step(self)
    cdef bint read_keys(self) except -1
    cdef int refill(self) except -1
    cdef int release(self) except -1
