cdef object MISSING

cdef object patched_if(object found, object below)

cdef class Memtable:
    cdef dict changes
    cdef bint numbers
    cdef list ordered
    # The largest number that was changed.
    cdef long long largest
    # Whether any change is one of a block of statuses, to be laid over what is there.
    cdef bint has_patches

    cpdef int change(self, bytes key, object value) except -1
    cdef int take(self, Memtable other) except -1
    cdef int patch(self, bytes key, bytearray changes) except -1
    cdef list sort(self)
    cdef bytes key_of(self, object place)
    cdef object value_of(self, object place)

cdef class MergedTransaction:
    cdef object txn
    cdef tuple handles
    cdef tuple layers
    cdef readonly long long count

    cdef Memtable layer_of(self, object db)
    cdef object look(self, bytes key, object db)

cdef class MergedCursor:
    cdef object cursor
    cdef Memtable layer
    cdef object place

    cdef bint stand_at_first(self, object pairs) except -1
