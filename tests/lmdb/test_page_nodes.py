"""The checks of single pages of LMDB's data file."""

from __future__ import annotations

import struct

import pytest

from tastypy_fast._lmdb.page_nodes import check_edge, read_nodes

BRANCH, LEAF = 1, 2


def page_of(keys, kind=LEAF, number=7, size=512):
    """A page with these keys, whose data or child pages are their numbers."""
    nodes = []
    for at, key in enumerate(keys):
        head = (4, 0, 0, len(key)) if kind == LEAF else (at, 0, 0, len(key))
        node = struct.pack("=HHHH", *head) + key + (struct.pack("=I", at) if kind == LEAF else b"")
        nodes.append(node + bytes(len(node) % 2))
    offsets, upper = [], size
    for node in nodes:
        upper -= len(node)
        offsets.append(upper)
    lower = 16 + 2 * len(nodes)
    head = struct.pack(f"=QHHHH{len(nodes)}H", number, 0, kind, lower, upper, *offsets)
    return head.ljust(upper, b"\0") + b"".join(reversed(nodes))


def number(value):
    return struct.pack("=Q", value)


@pytest.mark.parametrize(("keys", "has_integer_keys"), [
    ([b"a"], False), ([b"a", b"ab", b"b"], False), ([b"\x7f", b"\x80"], False),
    ([number(255), number(256), number(1 << 63)], True),
])
def test_keys_in_order(keys, has_integer_keys):
    page = page_of(keys)
    assert [key for _, key, _, _ in read_nodes(page, 7, True)] == keys
    assert check_edge(page, 7, True, has_integer_keys) == (len(keys), 4, 4, keys[-1], False)


@pytest.mark.parametrize(("keys", "has_integer_keys"), [
    ([b"b", b"a"], False), ([b"a", b"a"], False), ([b"ab", b"a"], False), ([b"\x80", b"\x7f"], False),
    ([number(256), number(255)], True), ([number(1), number(1)], True),
])
def test_keys_out_of_order(keys, has_integer_keys):
    with pytest.raises(ValueError, match="has keys out of order"):
        check_edge(page_of(keys), 7, True, has_integer_keys)


def test_integer_key_of_another_size():
    with pytest.raises(ValueError, match="has a key of 3 bytes"):
        check_edge(page_of([b"abc"]), 7, True, True)


def test_children_of_a_branch():
    page = page_of([b"", b"b", b"a"], BRANCH)  # (the order of a branch is checked with its children)
    assert check_edge(page, 7, False, False) == (3, 0, 2, b"a", False)


@pytest.mark.parametrize("check", [
    lambda page: read_nodes(page, 7, True), lambda page: check_edge(page, 7, True, False),
])
@pytest.mark.parametrize(("at", "value", "reason"), [
    (0, 8, "is overwritten"), (10, 1, "is overwritten"), (12, 17, "is overwritten"), (16, 0xFF, "has a node outside"),
    (-13, 0xFF, "has a node that cannot be read"), (-11, 0xFF, "has a node that cannot be read"),
    (-14, 2, "has nodes that overlap"),
])
def test_damaged_page(check, at, value, reason):
    page = bytearray(page_of([b"aa", b"bb"]))
    check(bytes(page))
    page[at] = value
    with pytest.raises(ValueError, match=reason):
        check(bytes(page))


def test_page_that_is_too_short():
    with pytest.raises(ValueError, match="is missing"):
        check_edge(b"short", 7, True, False)
