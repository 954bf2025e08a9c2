"""Read the nodes of a page of LMDB's data file, and check that they cannot be the bytes of something else.

``_lmdb.page_format`` describes the layout. Opening a store reads the pages on the edges of each tree, and ``verify()``
reads every page, so this is compiled.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint16_t, uint64_t
from libc.string cimport memcpy

__all__ = ["read_nodes"]

cdef struct Header:
    uint64_t number
    uint16_t pad
    uint16_t flags
    uint16_t lower
    uint16_t upper

cdef struct NodeHeader:
    uint16_t low
    uint16_t high
    uint16_t flags
    uint16_t key_size

cdef enum:
    HEADER_SIZE = 16
    BRANCH = 1
    LEAF = 2
    BIG_DATA = 1
    SUB_DATA = 2
    MAX_KEY_SIZE = 511


def read_nodes(bytes page not None, unsigned long long number, bint is_leaf, bint any_flags=False):
    """Return the nodes of page ``number``: tuples of child page or size of the data, key, data, flags.

    ``page`` is the whole page. ``any_flags`` accepts unknown flags of nodes, which LMDB ignores. Raises ValueError with
    the reason if the page is damaged.
    """
    cdef const char* data = PyBytes_AS_STRING(page)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(page), used = 0, at, start, end, index
    cdef Header header
    cdef NodeHeader node
    cdef uint16_t offset
    cdef uint64_t first
    cdef int odd = 0
    cdef list found = []
    if size < HEADER_SIZE:
        raise ValueError("is missing")
    memcpy(&header, data, HEADER_SIZE)
    if header.number != number or header.flags != (LEAF if is_leaf else BRANCH):
        raise ValueError("is overwritten")
    if not HEADER_SIZE < header.lower <= header.upper <= size or header.lower & 1:
        raise ValueError("is overwritten")
    for index in range((header.lower - HEADER_SIZE) // 2):
        memcpy(&offset, data + HEADER_SIZE + 2 * index, 2)
        if offset < header.upper or offset + <Py_ssize_t>sizeof(NodeHeader) > size:
            raise ValueError("has a node outside")
    for index in range((header.lower - HEADER_SIZE) // 2):
        memcpy(&offset, data + HEADER_SIZE + 2 * index, 2)
        memcpy(&node, data + offset, sizeof(NodeHeader))
        at = offset + sizeof(NodeHeader)
        start = at + node.key_size
        first = node.low | <uint64_t>node.high << 16
        if is_leaf:
            end = start + (8 if node.flags & BIG_DATA else <Py_ssize_t>first)
            odd |= node.flags
        else:
            first |= <uint64_t>node.flags << 32
            end = start
        if end > size or node.key_size > MAX_KEY_SIZE or (node.key_size == 0 and is_leaf):
            raise ValueError("has a node that cannot be read")
        # Each node begins at an even offset.
        used += end - offset + (end - offset & 1)
        odd |= (offset & 1) << 16
        found.append((first, PyBytes_FromStringAndSize(data + at, start - at),
                      PyBytes_FromStringAndSize(data + start, end - start), node.flags))
    if odd & ~(0xFFFF if any_flags else BIG_DATA | SUB_DATA):
        raise ValueError("has a node that cannot be read")
    if used != size - header.upper:
        raise ValueError("has nodes that overlap")
    return found
