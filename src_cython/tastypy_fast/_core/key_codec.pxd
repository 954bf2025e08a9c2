cdef extern from "Python.h":
    bint PyUnicode_Check(object value)
    bint PyLong_Check(object value)

# LMDB's limit for a key. A longer key is indexed by its digest.
cdef Py_ssize_t MAX_INDEX_KEY

cdef bytes encode_str(object key)
cdef bytes encode_other(object key)
cpdef bytes encode_key(object key)
cpdef bytes lookup_key(object key)
cpdef object decode_key(bytes encoded)
cpdef str describe(object value)
cpdef bytes index_key(bytes encoded)
cdef object decode_key_at(const unsigned char* data, Py_ssize_t size)
cdef bint is_digest(bytes index)

# lookup_key(), with a fast path for the most frequent types, which it encodes without handling an exception.
cdef inline bytes wanted_key(object key):
    if PyUnicode_Check(key):
        return encode_str(key)
    return encode_other(key) if PyLong_Check(key) else lookup_key(key)
