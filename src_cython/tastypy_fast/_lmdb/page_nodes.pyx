"""Read the nodes of a page of LMDB's data file, and check that they cannot be the bytes of something else.

``_lmdb.page_format`` describes the layout. Opening a store checks the pages on the edges of each tree, and ``verify()``
reads every page, so this is compiled.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint16_t, uint64_t
from libc.string cimport memcmp, memcpy

__all__ = ["check_edge", "read_nodes"]

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


cdef struct Node:
    # The child page, or the size of the data.
    uint64_t first
    uint16_t flags
    const char* key
    Py_ssize_t key_size
    const char* data
    Py_ssize_t data_size

cdef struct Page:
    const char* bytes
    Py_ssize_t size
    bint is_leaf
    Py_ssize_t count
    Py_ssize_t upper
    # Of the nodes that were read so far: their size, and bits that an undamaged page does not have.
    Py_ssize_t used
    int odd


cdef int begin_page(Page* page, bytes content, uint64_t number, bint is_leaf) except -1:
    """Read the header of a page, and check that all nodes begin in it."""
    cdef Header header
    cdef uint16_t offset
    cdef Py_ssize_t index
    page.bytes = PyBytes_AS_STRING(content)
    page.size = PyBytes_GET_SIZE(content)
    page.is_leaf = is_leaf
    page.used = 0
    page.odd = 0
    if page.size < HEADER_SIZE:
        raise ValueError("is missing")
    memcpy(&header, page.bytes, HEADER_SIZE)
    if header.number != number or header.flags != (LEAF if is_leaf else BRANCH):
        raise ValueError("is overwritten")
    if not HEADER_SIZE < header.lower <= header.upper <= page.size or header.lower & 1:
        raise ValueError("is overwritten")
    page.count = (header.lower - HEADER_SIZE) // 2
    page.upper = header.upper
    for index in range(page.count):
        memcpy(&offset, page.bytes + HEADER_SIZE + 2 * index, 2)
        if offset < header.upper or offset + <Py_ssize_t>sizeof(NodeHeader) > page.size:
            raise ValueError("has a node outside")
    return 0


cdef int read_node(Page* page, Py_ssize_t index, Node* node) except -1:
    """Read the node number ``index``, which stays in the page's bytes."""
    cdef NodeHeader header
    cdef uint16_t offset
    cdef Py_ssize_t end
    memcpy(&offset, page.bytes + HEADER_SIZE + 2 * index, 2)
    memcpy(&header, page.bytes + offset, sizeof(NodeHeader))
    node.first = header.low | <uint64_t>header.high << 16
    node.flags = header.flags
    node.key = page.bytes + offset + sizeof(NodeHeader)
    node.key_size = header.key_size
    node.data = node.key + header.key_size
    node.data_size = 0
    if page.is_leaf:
        node.data_size = 8 if header.flags & BIG_DATA else <Py_ssize_t>node.first
        page.odd |= header.flags
    else:
        node.first |= <uint64_t>header.flags << 32
    end = offset + <Py_ssize_t>sizeof(NodeHeader) + node.key_size + node.data_size
    if end > page.size or node.key_size > MAX_KEY_SIZE or (node.key_size == 0 and page.is_leaf):
        raise ValueError("has a node that cannot be read")
    # Each node begins at an even offset.
    page.used += end - offset + (end - offset & 1)
    page.odd |= (offset & 1) << 16
    return 0


cdef int end_page(Page* page, bint any_flags) except -1:
    """Check the page as a whole, after all of its nodes were read."""
    if page.odd & ~(0xFFFF if any_flags else BIG_DATA | SUB_DATA):
        raise ValueError("has a node that cannot be read")
    if page.used != page.size - page.upper:
        raise ValueError("has nodes that overlap")
    return 0


def read_nodes(bytes page not None, unsigned long long number, bint is_leaf, bint any_flags=False):
    """Return the nodes of page ``number``: tuples of child page or size of the data, key, data, flags.

    ``page`` is the whole page. ``any_flags`` accepts unknown flags of nodes, which LMDB ignores. Raises ValueError with
    the reason if the page is damaged.
    """
    cdef Page parsed
    cdef Node node
    cdef Py_ssize_t index
    cdef list found = []
    begin_page(&parsed, page, number, is_leaf)
    for index in range(parsed.count):
        read_node(&parsed, index, &node)
        found.append((node.first, PyBytes_FromStringAndSize(node.key, node.key_size),
                      PyBytes_FromStringAndSize(node.data, node.data_size), node.flags))
    end_page(&parsed, any_flags)
    return found


def check_edge(bytes page not None, unsigned long long number, bint is_leaf, bint has_integer_keys):
    """Check page ``number`` as ``read_nodes()`` does, and the order of the keys of a leaf.

    Returns the number of nodes, the first and the last child page, the last key, and whether a leaf has large values.
    Integer keys have 8 bytes. Raises ValueError with the reason if the page is damaged.
    """
    cdef Page parsed
    cdef Node node, last
    cdef Py_ssize_t index
    cdef uint64_t first = 0
    begin_page(&parsed, page, number, is_leaf)
    for index in range(parsed.count):
        read_node(&parsed, index, &node)
        if index == 0:
            first = node.first
        if is_leaf:
            if has_integer_keys and node.key_size != 8:
                raise ValueError(f"has a key of {node.key_size} bytes")
            if index and not is_less(&last, &node, has_integer_keys):
                raise ValueError("has keys out of order")
        last = node
    end_page(&parsed, False)
    return parsed.count, first, last.first, PyBytes_FromStringAndSize(last.key, last.key_size), (
        is_leaf and parsed.odd & BIG_DATA != 0)


cdef bint is_less(Node* left, Node* right, bint as_integers) noexcept:
    """Return whether a key is less than another one, as LMDB compares them."""
    cdef uint64_t one, other
    cdef int order
    if as_integers:
        memcpy(&one, left.key, 8)
        memcpy(&other, right.key, 8)
        return one < other
    order = memcmp(left.key, right.key, min(left.key_size, right.key_size))
    return order < 0 or (order == 0 and left.key_size < right.key_size)
