cdef enum:
    NO_PAYLOAD = 0
    FAST_JSON = 1
    STANDARD_JSON = 2

cdef struct Record:
    int codec
    bint compressed
    const unsigned char* key
    Py_ssize_t key_size
    const unsigned char* payload
    Py_ssize_t payload_size

cdef int parse_record(const unsigned char* data, Py_ssize_t size, Record* record) except -1
cdef bytes build_record(int codec, bytes key, bytes payload, bint compress)
cdef bytes record_payload(Record* record)
cdef bytes dump_value(object value, int* codec)
cdef object load_value(int codec, bytes payload)
cdef bint is_json_of(int codec, bytes payload, object value) noexcept
