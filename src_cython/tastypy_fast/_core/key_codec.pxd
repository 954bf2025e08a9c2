cdef enum:
    # LMDB's limit on the size of a key (lmdb.h, MDB_MAXKEYSIZE). The index has a digest of a longer key.
    MAX_INDEX_KEY = 511

cpdef bytes encode_key(object key)
cpdef object decode_key(bytes encoded)
cpdef str describe(object value)
cpdef bytes index_key(bytes encoded)
cdef object decode_key_at(const unsigned char* data, Py_ssize_t size)
cdef bint is_digest(bytes index)
