"""Encode values as JSON, and keys with their values as the records of the database ``values``.

A record is:

    byte 0      bits 0..3  codec of the payload: 0 no payload, 1 JSON for orjson, 2 JSON for the json module only
                bit 4      the payload is compressed (zlib)
    varint      the length of the encoded key (LEB128)
    ...         the encoded key
    ...         the payload, to the end
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.ref cimport PyObject
from libc.math cimport isfinite
from libc.string cimport memcpy

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
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    double PyFloat_AS_DOUBLE(object value)
    Py_ssize_t PyUnicode_GET_LENGTH(object value)

__all__ = ["decode_record", "decode_value", "encode_record", "encode_value"]

cdef enum:
    CODEC = 0x0f
    COMPRESSED = 0x10
    # orjson reads 254 levels. A tracker or an export adds a few levels around a value.
    MAX_FAST_NESTING = 250
    # Smaller payloads do not shrink, because zlib adds a header.
    WORTH_COMPRESSING = 64
    # Under a limit on the address space, the standard json module encodes and decodes values of more bytes.
    LARGE = 1 << 20


cdef bint is_plain(object value, int depth, Py_ssize_t* size) except -1:
    """Return whether orjson writes a value without changing it. Adds about the size of its JSON to ``size``.

    It does so for the exact types of JSON, finite floats, ints in 64 bits, and dicts with str keys. A lone surrogate is
    not checked here, because orjson refuses it.
    """
    cdef type kind = type(value)
    cdef int overflow = 0
    cdef PyObject* key
    cdef PyObject* item
    cdef Py_ssize_t position = 0
    size[0] += 8
    if kind is str:
        size[0] += PyUnicode_GET_LENGTH(value)
        return True
    if value is None or kind is bool:
        return True
    if kind is int:
        PyLong_AsLongLongAndOverflow(value, &overflow)
        return overflow == 0
    if kind is float:
        return isfinite(PyFloat_AS_DOUBLE(value))
    if depth >= MAX_FAST_NESTING:
        return False
    if kind is dict:
        while PyDict_Next(value, &position, &key, &item):
            if type(<object>key) is not str or not is_plain(<object>item, depth + 1, size):
                return False
        return True
    if kind is list:
        for part in <list>value:
            if not is_plain(part, depth + 1, size):
                return False
        return True
    if kind is tuple:
        for part in <tuple>value:
            if not is_plain(part, depth + 1, size):
                return False
        return True
    return False


cdef bytes dump_value(object value, int* codec):
    """Encode a value as JSON and set its codec. Raises UnstorableValueError."""
    cdef bytes payload
    cdef Py_ssize_t size = 0
    if is_plain(value, 0, &size):
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
