"""Encode keys as bytes and decode them.

An encoded key is one element. An element is a tag and its data:

    0x02  str     UTF-8 (lone surrogates as three bytes); inside a tuple 0x00 is written 0x00 0xff, and 0x00 ends it
    0x05  tuple   its elements, then 0x00
    0x0b  int     below -2**63: 4 bytes of ones' complemented length, then the two's complement, big-endian
    0x0c..0x1c    an int in 64 bits: the tag minus 0x14 is the count of bytes that follow, negative for a
                  negative number; big-endian, so that neighbours are adjacent in the index
    0x1d  int     from 2**63: 4 bytes of length, then the number, big-endian
    0x1f          not an element: the prefix and the digest of a key too long for LMDB (see index_key)

Every key has exactly one encoding, and every encoding decodes to one key. So encoded keys are equal exactly if the keys
are equal. They also sort in the order of the keys, as in FoundationDB's tuple layer, but nothing relies on that.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy

from hashlib import blake2b
from os import PathLike
from sys import modules

from tastypy_fast._lmdb.page_format import MAX_KEY_SIZE
from tastypy_fast.exceptions import InvalidKeyError, PersistentOrderedDictIntegrityError

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const char* PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    bytes PyUnicode_AsEncodedString(object text, const char* encoding, const char* errors)
    object PyUnicode_DecodeUTF8(const char* data, Py_ssize_t size, const char* errors)
    bint PyTuple_Check(object value)
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1

__all__ = ["decode_key", "describe", "encode_key", "index_key", "lookup_key"]

cdef enum:
    END = 0x00
    STR = 0x02
    TUPLE = 0x05
    BIG_NEGATIVE = 0x0b
    ZERO = 0x14
    BIG_POSITIVE = 0x1d
    DIGEST = 0x1f
    ESCAPED = 0xff
    # A limit protects the C stack, which is safe far beyond this depth.
    MAX_NESTING = 500
    # How many bytes of a long key are in the index, before its digest.
    PREFIX = 64


cdef Py_ssize_t MAX_INDEX_KEY = MAX_KEY_SIZE
cdef object SMALLEST = -(2 ** 63)
cdef object LARGEST = 2 ** 63 - 1


cdef struct Buffer:
    unsigned char* data
    Py_ssize_t size
    Py_ssize_t room


cdef int reserve(Buffer* buffer, Py_ssize_t more) except -1:
    cdef Py_ssize_t room
    cdef void* data
    if buffer.size + more > buffer.room:
        room = (buffer.size + more) * 2 + 64
        data = PyMem_Realloc(buffer.data, room)
        if data == NULL:
            raise MemoryError()
        buffer.data = <unsigned char*>data
        buffer.room = room
    return 0


cdef int put(Buffer* buffer, unsigned char byte) except -1:
    reserve(buffer, 1)
    buffer.data[buffer.size] = byte
    buffer.size += 1
    return 0


cdef int put_bytes(Buffer* buffer, bytes data) except -1:
    reserve(buffer, PyBytes_GET_SIZE(data))
    memcpy(buffer.data + buffer.size, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    buffer.size += PyBytes_GET_SIZE(data)
    return 0


cdef int put_int(Buffer* buffer, object number) except -1:
    cdef int overflow = 0, count = 0, i
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &overflow)
    cdef unsigned long long magnitude, rest
    cdef unsigned long long length
    if overflow:
        length = (int.bit_length(number) + 7) // 8
        if length >= 1 << 32:
            raise InvalidKeyError("an int key of 2**32 bytes or more cannot be stored")
        put(buffer, BIG_POSITIVE if overflow > 0 else BIG_NEGATIVE)
        if overflow > 0:
            put_bytes(buffer, int.to_bytes(length, 4, "big"))
            put_bytes(buffer, int.to_bytes(number, length, "big"))
        else:
            put_bytes(buffer, int.to_bytes((<unsigned long long>0xffffffff) - length, 4, "big"))
            put_bytes(buffer, int.to_bytes((1 << (8 * int(length))) - 1 + int.__int__(number), length, "big"))
        return 0
    magnitude = <unsigned long long>value if value >= 0 else 0 - <unsigned long long>value
    rest = magnitude
    while rest:
        count += 1
        rest >>= 8
    put(buffer, ZERO + count if value >= 0 else ZERO - count)
    # A negative number is written as its ones' complement, so that -1 comes after -2.
    rest = magnitude if value >= 0 else ~magnitude
    for i in range(count - 1, -1, -1):
        put(buffer, (rest >> (8 * i)) & 0xff)
    return 0


cdef bytes utf8(object text):
    return PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass")


cdef int put_nested_str(Buffer* buffer, object text) except -1:
    cdef bytes data = utf8(text)
    put(buffer, STR)
    put_bytes(buffer, data.replace(b"\x00", b"\x00\xff") if b"\x00" in data else data)
    put(buffer, END)
    return 0


cdef int put_element(Buffer* buffer, object element, int depth) except -1:
    if PyUnicode_Check(element):
        put_nested_str(buffer, element)
    elif PyLong_Check(element):
        put_int(buffer, element)
    elif PyTuple_Check(element):
        if depth >= MAX_NESTING:
            raise InvalidKeyError(f"a key may nest tuples {MAX_NESTING} deep; this one nests deeper")
        put(buffer, TUPLE)
        for part in <tuple>element:
            put_element(buffer, part, depth + 1)
        put(buffer, END)
    else:
        put_int(buffer, numpy_int(element, depth))
    return 0


cdef object numpy_int(object element, int depth):
    """Return the int of an integer or a bool of numpy. Raises InvalidKeyError for anything else."""
    numpy = modules.get("numpy")
    # A timedelta64 is an integer to numpy, and .item() would drop its unit.
    if numpy is not None and isinstance(element, (numpy.integer, numpy.bool_)) and element.dtype.kind != "m":
        return element.item()
    raise InvalidKeyError(
        f"a key must be a str, an int or a tuple of these; "
        f"{'inside a tuple there is' if depth else 'this is'} a {type(element).__name__}: {describe(element)}"
        f"{'. Use str(path)' if isinstance(element, PathLike) else ''}"
    )


cpdef str describe(object value):
    """Return a repr for messages, of at most 80 characters. It never raises, although an int of 5,000 digits does."""
    try:
        text = repr(value)
    except Exception:
        return f"(a {type(value).__name__} whose repr fails)"
    return text if len(text) <= 80 else text[:77] + "..."


cdef bytes encode_str(object key):
    cdef bytes data
    cdef Py_ssize_t size
    if PyUnicode_IS_COMPACT_ASCII(key):
        size = PyUnicode_GET_LENGTH(key)
        data = PyBytes_FromStringAndSize(NULL, size + 1)
        PyBytes_AS_STRING(data)[0] = STR
        memcpy(PyBytes_AS_STRING(data) + 1, PyUnicode_1BYTE_DATA(key), size)
        return data
    return b"\x02" + utf8(key)


cpdef bytes encode_key(object key):
    """Encode a key. Cost: linear in the length of the key."""
    return encode_str(key) if PyUnicode_Check(key) else encode_other(key)


cdef bytes encode_other(object key):
    cdef Buffer buffer
    buffer.data = NULL
    buffer.size = buffer.room = 0
    try:
        if PyLong_Check(key):
            put_int(&buffer, key)
        else:
            put_element(&buffer, key, 0)
        return PyBytes_FromStringAndSize(<char*>buffer.data, buffer.size)
    finally:
        PyMem_Free(buffer.data)


cpdef bytes lookup_key(object key):
    """Encode a key that is looked up. Returns None for an object that no store has as a key, as a dict finds nothing.

    Raises InvalidKeyError for an unhashable object, as a dict raises TypeError, and for a path.
    """
    try:
        return encode_key(key)
    except InvalidKeyError:
        if not may_be_asked_for(key, 0):
            raise
        return None


cdef bint may_be_asked_for(object key, int depth) except -1:
    if PyTuple_Check(key):
        if depth < MAX_NESTING:
            for part in <tuple>key:
                if not may_be_asked_for(part, depth + 1):
                    return False
        return True
    if isinstance(key, PathLike):
        return False
    try:
        hash(key)
    except TypeError:
        return False
    return True


@cython.final
cdef class Reader:
    """Decoder of one key. Bytes that are not an encoded key raise PersistentOrderedDictIntegrityError."""

    cdef const unsigned char* data
    cdef Py_ssize_t size, at

    cdef object damaged(self):
        return PersistentOrderedDictIntegrityError("the bytes of a key cannot be read")

    cdef const unsigned char* take(self, Py_ssize_t count) except NULL:
        cdef const unsigned char* start = self.data + self.at
        if count > self.size - self.at:
            raise self.damaged()
        self.at += count
        return start

    cdef object big(self, bint negative):
        cdef const unsigned char* raw = self.take(4)
        cdef Py_ssize_t length = int.from_bytes(raw[:4], "big")
        if negative:
            length = 0xffffffff - length
        raw = self.take(length)
        number = int.from_bytes(raw[:length], "big")
        if negative:
            number = number - (<object>1 << (8 * length)) + 1
        # Each number has one encoding: the shortest. This tag is only for numbers beyond 64 bits.
        if SMALLEST <= number <= LARGEST or (int.bit_length(number) + 7) // 8 != length:
            raise self.damaged()
        return number

    cdef object small(self, int count):
        cdef unsigned long long magnitude = 0
        cdef int i, width = count if count > 0 else -count
        cdef const unsigned char* raw = self.take(width) if width else self.data
        for i in range(width):
            magnitude = magnitude << 8 | (raw[i] if count > 0 else raw[i] ^ 0xff)
            if magnitude == 0:
                raise self.damaged()
        if magnitude > <unsigned long long>LARGEST + (count < 0):
            raise self.damaged()
        return magnitude if count >= 0 else -int(magnitude)

    cdef object text(self):
        """Decode a str inside a tuple, up to its end."""
        cdef Py_ssize_t start = self.at
        cdef bint escaped = False
        while True:
            if self.take(1)[0] == END:
                if self.at < self.size and self.data[self.at] == ESCAPED:
                    escaped = True
                    self.at += 1
                else:
                    break
        data = (<const char*>self.data)[start:self.at - 1]
        if escaped:
            data = data.replace(b"\x00\xff", b"\x00")
        return data.decode("utf-8", "surrogatepass")

    cdef object element(self, int depth):
        cdef int tag = self.take(1)[0]
        cdef list parts
        if tag == STR:
            return self.text()
        if BIG_NEGATIVE < tag < BIG_POSITIVE:
            return self.small(tag - ZERO)
        if tag == TUPLE and depth < MAX_NESTING:
            parts = []
            while self.at >= self.size or self.data[self.at] != END:
                parts.append(self.element(depth + 1))
            self.at += 1
            return tuple(parts)
        if tag == BIG_POSITIVE or tag == BIG_NEGATIVE:
            return self.big(tag == BIG_NEGATIVE)
        raise self.damaged()


cdef object decode_key_at(const unsigned char* data, Py_ssize_t size):
    cdef Reader reader
    if size > 0 and data[0] == STR:
        try:
            return PyUnicode_DecodeUTF8(<const char*>data + 1, size - 1, "surrogatepass")
        except UnicodeDecodeError as error:
            raise PersistentOrderedDictIntegrityError("the bytes of a key cannot be read") from error
    reader = Reader.__new__(Reader)
    reader.data = data
    reader.size = size
    reader.at = 0
    try:
        key = reader.element(0)
    except UnicodeDecodeError as error:
        raise reader.damaged() from error
    if reader.at != size:
        raise reader.damaged()
    return key


cpdef object decode_key(bytes encoded):
    """Decode a key. Raises PersistentOrderedDictIntegrityError for bytes that ``encode_key()`` never returns."""
    return decode_key_at(<const unsigned char*>PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))


cpdef bytes index_key(bytes encoded):
    """Return the index key of an encoded key: the encoded key, or a prefix and the BLAKE2b digest of a long one.

    After a lookup by a digest, the caller compares the full key in the record, because two keys may share a digest.
    """
    if PyBytes_GET_SIZE(encoded) <= MAX_INDEX_KEY:
        return encoded
    return b"\x1f" + encoded[:PREFIX] + blake2b(encoded, digest_size=32).digest()


cdef bint is_digest(bytes index):
    return (<const unsigned char*>PyBytes_AS_STRING(index))[0] == DIGEST
