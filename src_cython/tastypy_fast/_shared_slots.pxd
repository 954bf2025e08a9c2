from libc.stdint cimport uint32_t

from tastypy_fast._iterate cimport Owner
from tastypy_fast._proxy cimport Operation
from tastypy_fast._transaction cimport Transaction

cdef class Change:
    cdef int what
    cdef bytes key
    cdef object original
    cdef object value
    # What assign_directly() takes, made before the transaction.
    cdef bytes record
    cdef uint32_t drop
    cdef uint32_t add
    cdef int tries

cdef class SharedSlots:
    cdef Transaction _transaction
    cdef Owner inside
    cdef Owner outside
    cdef long long sync_at

    cdef Transaction transaction_of(self)
    cdef Transaction begin(self)
    cdef Owner view(self)
    cdef object change(self, Change change)
    cdef bint do_directly(self, Transaction transaction, Change change) except -1
    cdef object do(self, Transaction transaction, Change change)
    cdef object operate(self, Transaction transaction, Operation operation)
    cdef object ended_within(self)
