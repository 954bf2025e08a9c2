from libc.stdint cimport uint32_t

from tastypy_fast._core.iterators cimport StoreHandle
from tastypy_fast._core.set_proxy cimport Operation
from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._shared.write_transaction cimport WriteTransaction

cdef class Change:
    cdef int what
    cdef bytes key
    cdef object original
    cdef object value
    # The record for assign_directly(), encoded before the transaction.
    cdef bytes record
    cdef uint32_t drop
    cdef uint32_t add
    cdef int added_tries

cdef class SharedPodHandle:
    cdef WriteTransaction _transaction
    # Private handles on the store: one works inside the write transaction, the other one reads the last commit.
    cdef StoreHandle writer
    cdef StoreHandle reader
    cdef long long sync_at

    cdef WriteTransaction transaction_of(self)
    cdef WriteTransaction begin(self)
    cdef StoreHandle read_handle(self)
    cdef bint assigns_itself(self) except -1
    cdef object change(self, Change change)
    cdef bint do_directly(self, WriteTransaction transaction, Change change) except -1
    cdef object do(self, WriteTransaction transaction, Change change)
    cdef object operate(self, WriteTransaction transaction, Operation operation)
    cdef object fetch_to_change(self, WriteCache cache, bytes encoded, object key)
    cdef object ended_within(self)
