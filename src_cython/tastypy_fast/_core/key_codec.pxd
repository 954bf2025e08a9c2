# LMDB's limit for a key. A longer key is indexed by its digest.
cdef Py_ssize_t MAX_INDEX_KEY

cpdef bytes encode_key(object key)
cpdef object decode_key(bytes encoded)
cpdef str describe(object value)
cpdef bytes index_key(bytes encoded)
cdef object decode_key_at(const unsigned char* data, Py_ssize_t size)
cdef bint is_digest(bytes index)
