from tastypy_fast._core.deleted_runs cimport DeletedRuns

cdef object patched_if(object change, object below)

cdef class Memtable:
    cdef dict changes
    cdef bint integer_keys
    cdef list sorted_keys
    # The largest integer key that was ever changed.
    cdef long long largest
    # Where many deleted integer keys follow one another, in this memtable and the database below it.
    cdef DeletedRuns runs
    # Whether any change is a patch of a status block.
    cdef bint has_patches

    cpdef int put(self, bytes key, object change) except -1
    cdef int patch(self, bytes key, bytearray patch) except -1
    cdef int update(self, Memtable other) except -1
    cdef list sort(self)
    cdef bytes key_of(self, object sort_key)
    cdef object change_of(self, object sort_key)

cdef class MergedTransaction:
    cdef object txn
    cdef tuple handles
    cdef tuple memtables
    cdef readonly long long count

    cdef Memtable memtable_of(self, object db)
    cdef object find(self, bytes key, object db)

cdef class MergedCursor:
    cdef object cursor
    cdef Memtable memtable
    cdef object position

    cdef bint move_to_first_of(self, object pairs) except -1
    cdef bint seek_back(self, object start, bint included) except -1
