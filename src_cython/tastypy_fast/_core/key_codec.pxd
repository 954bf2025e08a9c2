cdef enum:
    # LMDB's limit for a key (lmdb.h, MDB_MAXKEYSIZE). A longer key is indexed by its digest.
    MAX_INDEX_KEY = 511

cpdef bytes encode_key(object key)
cpdef object decode_key(bytes encoded)
cpdef str describe(object value)
cpdef bytes index_key(bytes encoded)
cdef object decode_key_at(const unsigned char* data, Py_ssize_t size)
cdef bint is_digest(bytes index)
