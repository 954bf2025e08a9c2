from tastypy_fast._core.memtable cimport MergedTransaction

cdef class WriteAheadLog:
    cdef readonly object log
    cdef tuple handles
    cdef tuple memtables
    # The number of records in the store, including the changes in the log; 0 if the log is empty.
    cdef readonly long long count
    cdef Py_ssize_t size
    # The keys of the first and the last piece in the log; None if the log is empty.
    cdef object first
    cdef object last
    # The transaction up to which the log was read.
    cdef long long snapshot_id

    cpdef object merged_view(self, object txn, bint buffers=*)
    cpdef int reset(self) except -1
    cdef int catch_up(self, object txn) except -1
    cdef int replay_batch(self, bytes batch) except -1


# A sync writes to LMDB's own write transaction or to this one. Both have put(), delete(), get() and cursor(). Only this
# class has add_new_keys() and patch_statuses(), because the log needs no index lookup and takes single statuses.
cdef class LoggedTransaction(MergedTransaction):
    cdef object lmdb_txn
    # The largest seq of a record that was changed in the log before this transaction.
    cdef long long last_logged
    # The pieces that append() wrote into the log, and their size.
    cdef list pieces
    cdef Py_ssize_t size

    cdef long long last_seq(self) except -2
    cdef int delete_existing(self, bytes key, object db) except -1
    cdef int add_new_keys(self, object items) except -1
    cdef int patch_statuses(self, list items) except -1
    cdef object put_many(self, list items, object db, bint overwrite)


cdef LoggedTransaction as_logged(object txn)
cdef int delete_near(object cursor, object key) except -1
