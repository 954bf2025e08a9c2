"""Encode values as JSON, and keys with their values as the records of the database ``values``.

A record is:

    byte 0      bits 0..3  codec of the payload: 0 no payload, 1 JSON for orjson, 2 JSON for the json module only
                bit 4      the payload is compressed (zlib)
    varint      the length of the encoded key (LEB128)
    ...         the encoded key
    ...         the payload, to the end
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.math cimport isfinite
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from zlib import compress as zlib_compress
from zlib import decompress as zlib_decompress
from zlib import error as zlib_error

from orjson import JSONDecodeError, JSONEncodeError
from orjson import dumps as orjson_dumps
from orjson import loads as orjson_loads

from tastypy_fast._lmdb.address_space import address_space_limit
from tastypy_fast._core.json_fallback import decode_standard, encode_standard, encode_unusual
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

cdef extern from "Python.h":
    PyObject* Py_None
    PyObject* Py_True
    bint PyUnicode_CheckExact(PyObject* value)
    bint PyLong_CheckExact(PyObject* value)
    bint PyBool_Check(PyObject* value)
    bint PyFloat_CheckExact(PyObject* value)
    bint PyDict_CheckExact(PyObject* value)
    bint PyList_CheckExact(PyObject* value)
    bint PyTuple_CheckExact(PyObject* value)
    long long PyLong_AsLongLongAndOverflow(PyObject* value, int* overflow)
    double PyFloat_AS_DOUBLE(PyObject* value)
    int PyDict_Next(PyObject* value, Py_ssize_t* position, PyObject** key, PyObject** item)
    PyObject* PyList_GET_ITEM(PyObject* value, Py_ssize_t index)
    Py_ssize_t PyList_GET_SIZE(PyObject* value)
    PyObject* PyTuple_GET_ITEM(PyObject* value, Py_ssize_t index)
    Py_ssize_t PyTuple_GET_SIZE(PyObject* value)
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* text)
    const void* PyUnicode_1BYTE_DATA(PyObject* text)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* text)
    const char* PyUnicode_AsUTF8AndSize(PyObject* text, Py_ssize_t* size)
    void PyErr_Clear()

__all__ = ["decode_record", "decode_value", "encode_record", "encode_value", "is_encoding_of"]

cdef enum:
    CODEC = 0x0f
    COMPRESSED = 0x10
    # orjson reads 254 levels. A tracker or an export adds a few levels around a value.
    MAX_FAST_NESTING = 250
    # Smaller payloads do not shrink, because zlib adds a header.
    WORTH_COMPRESSING = 64
    # Under a limit on the address space, the standard json module encodes and decodes values of more bytes.
    LARGE = 1 << 20
    # Every int of so many digits is in 64 bits.
    MAX_DIGITS = 18


cdef bint is_plain(PyObject* value, int depth, Py_ssize_t* size) noexcept:
    """Return whether orjson writes a value without changing it. Adds about the size of its JSON to ``size``.

    It does so for the exact types of JSON, finite floats, ints in 64 bits, and dicts with str keys. A lone surrogate is
    not checked here, because orjson refuses it. References are borrowed, because this function runs no Python code.
    """
    cdef int found = is_plain_scalar(value, size)
    cdef PyObject* key
    cdef PyObject* item
    cdef Py_ssize_t position = 0
    if found >= 0:
        return found
    if depth >= MAX_FAST_NESTING:
        return False
    depth += 1
    if PyDict_CheckExact(value):
        while PyDict_Next(value, &position, &key, &item):
            if not PyUnicode_CheckExact(key):
                return False
            found = is_plain_scalar(item, size)
            if not found or (found < 0 and not is_plain(item, depth, size)):
                return False
        return True
    if PyList_CheckExact(value):
        for position in range(PyList_GET_SIZE(value)):
            item = PyList_GET_ITEM(value, position)
            found = is_plain_scalar(item, size)
            if not found or (found < 0 and not is_plain(item, depth, size)):
                return False
        return True
    if PyTuple_CheckExact(value):
        for position in range(PyTuple_GET_SIZE(value)):
            if not is_plain(PyTuple_GET_ITEM(value, position), depth, size):
                return False
        return True
    return False


cdef inline int is_plain_scalar(PyObject* value, Py_ssize_t* size) noexcept:
    """Do what ``is_plain()`` does for a scalar, and return -1 for any other object."""
    cdef int overflow = 0
    size[0] += 8
    if PyUnicode_CheckExact(value):
        size[0] += PyUnicode_GET_LENGTH(value)
        return True
    if PyLong_CheckExact(value):
        PyLong_AsLongLongAndOverflow(value, &overflow)
        return overflow == 0
    if value == Py_None or PyBool_Check(value):
        return True
    if PyFloat_CheckExact(value):
        return isfinite(PyFloat_AS_DOUBLE(value))
    return -1


cdef bint is_json_of(int codec, bytes payload, object value) noexcept:
    """Return whether ``dump_value()`` would certainly return this codec and JSON. Many unchanged values need no dump.

    False means that the value has to be encoded. This is so for all values with floats, because their digits are not
    compared here.
    """
    cdef const char* end
    if codec != FAST_JSON:
        return False
    end = PyBytes_AS_STRING(payload) + PyBytes_GET_SIZE(payload)
    return end_of_match(<PyObject*>value, PyBytes_AS_STRING(payload), end, 0) == end


# The functions below return the end of the JSON of a value at ``at``, or NULL if orjson may write it in another way.
# The byte at ``end`` is 0, as after the data of any bytes object. They run no Python code.


cdef const char* end_of_match(PyObject* value, const char* at, const char* end, int depth) noexcept:
    cdef PyObject* key
    cdef PyObject* item
    cdef Py_ssize_t position = 0, size
    cdef char separator = c'{'
    if PyUnicode_CheckExact(value):
        return end_of_str(value, at, end)
    if PyLong_CheckExact(value):
        return end_of_int(value, at)
    if value == Py_None:
        return end_of_word(b"null", 4, at, end)
    if PyBool_Check(value):
        return end_of_word(b"true", 4, at, end) if value == Py_True else end_of_word(b"false", 5, at, end)
    if depth >= MAX_FAST_NESTING:
        return NULL
    if PyDict_CheckExact(value):
        while PyDict_Next(value, &position, &key, &item):
            # An item begins with a comma, the first one with a brace.
            if at[0] != separator or not PyUnicode_CheckExact(key):
                return NULL
            at = end_of_str(key, at + 1, end)
            if at == NULL or at[0] != c':':
                return NULL
            at = end_of_match(item, at + 1, end, depth + 1)
            if at == NULL:
                return NULL
            separator = c','
        if separator == c'{':
            return end_of_word(b"{}", 2, at, end)
        return at + 1 if at[0] == c'}' else NULL
    if PyList_CheckExact(value):
        size = PyList_GET_SIZE(value)
        if not size:
            return end_of_word(b"[]", 2, at, end)
        for position in range(size):
            if at[0] != (c',' if position else c'['):
                return NULL
            at = end_of_match(PyList_GET_ITEM(value, position), at + 1, end, depth + 1)
            if at == NULL:
                return NULL
        return at + 1 if at[0] == c']' else NULL
    return NULL


cdef inline const char* end_of_word(const char* word, Py_ssize_t size, const char* at, const char* end) noexcept:
    return at + size if end - at >= size and not memcmp(at, word, size) else NULL


cdef const char* end_of_int(PyObject* value, const char* at) noexcept:
    cdef int overflow = 0, count = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow), found = 0
    if number < 0:
        if at[0] != c'-':
            return NULL
        at += 1
    while c'0' <= at[count] <= c'9' and count < MAX_DIGITS:
        found = 10 * found + (at[count] - c'0')
        count += 1
    if overflow or found != (number if number >= 0 else -number) or (at[0] == c'0' and count != 1) or not count:
        return NULL
    return at + count


cdef const char* end_of_str(PyObject* text, const char* at, const char* end) noexcept:
    cdef Py_ssize_t size = 0
    cdef const char* data
    if PyUnicode_IS_COMPACT_ASCII(text):
        data = <const char*>PyUnicode_1BYTE_DATA(text)
        size = PyUnicode_GET_LENGTH(text)
    else:
        data = PyUnicode_AsUTF8AndSize(text, &size)
        if data == NULL:
            PyErr_Clear()
            return NULL
    if end - at < size + 2 or at[0] != c'"' or at[size + 1] != c'"':
        return NULL
    return at + size + 2 if is_same_text(data, at + 1, size) else NULL


cdef bint is_same_text(const char* data, const char* other, Py_ssize_t size) noexcept:
    """Return whether two texts are equal, and JSON escapes no character of them."""
    cdef Py_ssize_t at = 0
    cdef uint64_t word = 0, other_word = 0
    if size >= 8:
        while True:
            memcpy(&word, data + at, 8)
            memcpy(&other_word, other + at, 8)
            if word != other_word or has_escapes(word):
                return False
            if at == size - 8:
                return True
            at = min(at + 8, size - 8)
    if size >= 4:
        return is_same_text_of_4(data, other) and is_same_text_of_4(data + size - 4, other + size - 4)
    for at in range(size):
        if data[at] != other[at] or 0 <= data[at] < 32 or data[at] == c'"' or data[at] == c'\\':
            return False
    return True


cdef inline bint is_same_text_of_4(const char* data, const char* other) noexcept:
    cdef uint32_t word, other_word
    memcpy(&word, data, 4)
    memcpy(&other_word, other, 4)
    # The upper bytes of the number are set to letters, because 0 would be escaped.
    return word == other_word and not has_escapes(word | <uint64_t>0x6161616100000000)


cdef inline bint has_escapes(uint64_t word) noexcept:
    """Return whether JSON escapes one of eight bytes: a control character, a quotation mark, or a backslash."""
    cdef uint64_t ones = 0x0101010101010101
    # The high bit of a byte is set if the byte is to be escaped, or perhaps if a lower byte is.
    return ((word - 32 * ones | (word ^ c'"' * ones) - ones | (word ^ c'\\' * ones) - ones) & ~word & 128 * ones) != 0


cdef bytes dump_value(object value, int* codec):
    """Encode a value as JSON and set its codec. Raises UnstorableValueError."""
    cdef bytes payload
    cdef Py_ssize_t size = 0
    if is_plain(<PyObject*>value, 0, &size):
        if size > LARGE and address_space_limit() is not None:
            # orjson ends the process when it cannot allocate memory. The standard module raises MemoryError.
            codec[0] = STANDARD_JSON
            return encode_standard(value)
        try:
            codec[0] = FAST_JSON
            return orjson_dumps(value)
        except JSONEncodeError:
            pass
    codec[0], payload = encode_unusual(value)
    return payload


cdef object load_value(int codec, bytes payload):
    """Decode what ``dump_value()`` wrote. Raises PersistentOrderedDictIntegrityError for anything else."""
    try:
        if codec == FAST_JSON:
            if PyBytes_GET_SIZE(payload) > LARGE and address_space_limit() is not None:
                return decode_standard(payload)  # as in dump_value()
            return orjson_loads(payload)
        if codec == STANDARD_JSON:
            return decode_standard(payload)
    except (JSONDecodeError, ValueError) as error:
        raise PersistentOrderedDictIntegrityError(f"the JSON of a value cannot be read: {error}") from error
    except RecursionError as error:
        raise PersistentOrderedDictIntegrityError("a value is nested too deeply to be read") from error
    raise PersistentOrderedDictIntegrityError("a value has no JSON")


cdef int parse_record(const unsigned char* data, Py_ssize_t size, Record* record) except -1:
    cdef Py_ssize_t at = 1, length = 0
    cdef int shift = 0
    if size < 2:
        raise PersistentOrderedDictIntegrityError("a record is cut short")
    record.codec = data[0] & CODEC
    record.compressed = (data[0] & COMPRESSED) != 0
    while True:
        if at >= size or shift > 56:
            raise PersistentOrderedDictIntegrityError("a record is cut short")
        length |= <Py_ssize_t>(data[at] & 0x7f) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            break
    if length <= 0 or length > size - at or data[0] & ~(CODEC | COMPRESSED) or record.codec > STANDARD_JSON:
        raise PersistentOrderedDictIntegrityError("the header of a record cannot be read")
    record.key = data + at
    record.key_size = length
    record.payload = data + at + length
    record.payload_size = size - at - length
    if (record.codec == NO_PAYLOAD) != (record.payload_size == 0):
        raise PersistentOrderedDictIntegrityError("a record's header and its payload disagree")
    return 0


cdef bytes record_payload(Record* record):
    cdef bytes payload
    if record.codec == NO_PAYLOAD:
        return None
    payload = PyBytes_FromStringAndSize(<const char*>record.payload, record.payload_size)
    if record.compressed:
        try:
            return zlib_decompress(payload)
        except zlib_error as error:
            raise PersistentOrderedDictIntegrityError(f"a compressed value cannot be decompressed: {error}") from error
    return payload


cdef bytes build_record(int codec, bytes key, bytes payload, bint compress):
    cdef unsigned char head[12]
    cdef Py_ssize_t at = 1, length = PyBytes_GET_SIZE(key), size = 0
    cdef bytes smaller, record
    cdef char* out
    head[0] = codec
    if codec != NO_PAYLOAD:
        size = PyBytes_GET_SIZE(payload)
        if compress and size >= WORTH_COMPRESSING:
            smaller = zlib_compress(payload)
            if PyBytes_GET_SIZE(smaller) < size:
                payload = smaller
                size = PyBytes_GET_SIZE(smaller)
                head[0] |= COMPRESSED
    while length >= 0x80:
        head[at] = (length & 0x7f) | 0x80
        at += 1
        length >>= 7
    head[at] = length
    at += 1
    length = PyBytes_GET_SIZE(key)
    record = PyBytes_FromStringAndSize(NULL, at + length + size)
    out = PyBytes_AS_STRING(record)
    memcpy(out, head, at)
    memcpy(out + at, PyBytes_AS_STRING(key), length)
    if size:
        memcpy(out + at + length, PyBytes_AS_STRING(payload), size)
    return record


def encode_value(value):
    """Return (codec, JSON) of a value, for Python code. Compiled code calls ``dump_value()``."""
    cdef int codec = 0
    payload = dump_value(value, &codec)
    return codec, payload


def is_encoding_of(int codec, bytes payload, value):
    """Return whether ``encode_value()`` would certainly return this codec and JSON."""
    return is_json_of(codec, payload, value)


def decode_value(int codec, bytes payload):
    """Return the value of a codec and its JSON."""
    return load_value(codec, payload)


def encode_record(int codec, bytes key, payload, bint compress=False):
    """Return the record of an encoded key and its JSON."""
    return build_record(codec, key, payload, compress)


def decode_record(bytes data):
    """Return (codec, encoded key, JSON or None) of a record."""
    cdef Record record
    parse_record(<const unsigned char*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &record)
    key = PyBytes_FromStringAndSize(<const char*>record.key, record.key_size)
    return record.codec, key, record_payload(&record)
