from tastypy_fast._core.store_base cimport StoreBase

cdef long long unpack_seq(StoreBase store, object raw) except -1
cdef list insert_keys(StoreBase store, object txn, list changes)
cdef bint write_records(StoreBase store, object txn, list changes, bint again) except -1
cdef Py_ssize_t count_places(list changes) except -1
cdef Py_ssize_t count_key_places(list keys) except -1
cdef Py_ssize_t count_bytes(list changes) except -1
