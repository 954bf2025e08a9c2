"""Define the layout of LMDB's data file, and read and check single pages without LMDB.

The layout is that of LMDB 0.9, file format 1, 64 bits (``mdb.c``: MDB_page, MDB_meta, MDB_db, MDB_node):

    page     number 8, pad 2, flags 2, lower 2, upper 2, then offsets of nodes up to lower
    meta     page, magic 4, version 4, address 8, map size 8, free list record, main record, last page 8,
             transaction 8
    record   pad 4, flags 2, depth 2, branch, leaf and overflow pages 8 each, entries 8, root 8
    node     size or child in 2 + 2 (+ flags 2 in a branch), flags 2, key size 2, key, data
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from operator import gt, lt
from struct import Struct, unpack_from
from sys import byteorder
from typing import NamedTuple

from tastypy_fast._lmdb.page_nodes import check_edge, read_nodes

__all__ = [
    "BIG_DATA",
    "BRANCH",
    "DEEPEST",
    "FILE_FORMAT",
    "INTEGER_KEY",
    "LEAF",
    "MAGIC",
    "MAX_KEY_SIZE",
    "NO_ROOT",
    "NUMBER",
    "RECORD",
    "SUB_DATA",
    "Damage",
    "Meta",
    "Node",
    "PageReader",
    "Record",
    "check_free_list_age",
    "follows",
    "looks_begun",
    "newest_meta",
    "read_free_record",
    "read_meta",
]

_PAGE = Struct("=QHHHH")
_META = Struct("=16x II QQ 48s 48s QQ")
RECORD = Struct("=IHHQQQQQ")
MAGIC, FILE_FORMAT = 0xBEEFC0DE, 1
BRANCH, LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8  # page flags
BIG_DATA, SUB_DATA = 1, 2  # node flags
INTEGER_KEY = 8  # database flag
# An integer key, in the machine's byte order, which must not be negative here: a sequence number, the number of a
# block, or a counter in meta.
NUMBER = Struct("=q")
NO_ROOT = 2**64 - 1
# No store reaches this transaction number, which is half of LMDB's limit.
_NO_TRANSACTION = 2**62
# No processor has this many addresses.
_LARGEST_MAP = 2**60
# Child page or size of the data, key, data, flags.
Node = tuple[int, bytes, bytes, int]
# LMDB's limit on the levels of a tree.
DEEPEST = 32
# LMDB's limit on the size of a key (lmdb.h, MDB_MAXKEYSIZE).
MAX_KEY_SIZE = 511


class Damage(Exception):
    """A reason why a file is damaged."""


class Record(NamedTuple):
    """The record of a database: the size and the root of its tree."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


class Meta(NamedTuple):
    """The content of a meta page."""

    transaction: int
    page_size: int
    free: Record
    main: Record
    last_page: int


def looks_begun(data: bytes) -> bool:
    """Return whether these bytes may begin a data file without a commit."""
    if not any(data):
        return True
    if len(data) < 16 + _META.size:
        return False
    magic, version, *_, transaction = _META.unpack_from(data)
    return (magic, version, transaction) == (MAGIC, FILE_FORMAT, 0)


def newest_meta(descriptor: int) -> Meta:
    """Return the newest meta page. Raises Damage if one of the two cannot be read, or if they contradict each other."""
    first = os.pread(descriptor, 16 + _META.size, 0)
    if len(first) < 16 + _META.size:
        raise Damage(f"its {len(first)} bytes are too few")
    page_size = unpack_from("=I", first, 40)[0]
    if page_size & (page_size - 1) or not 512 <= page_size <= 0x8000:
        raise Damage("its first page is no meta page")
    newest, older = _parse_meta(first, 0, page_size), read_meta(descriptor, 1, page_size)
    # LMDB uses the first of two meta pages with the same number. A failed write has left the other one.
    if older.transaction > newest.transaction:
        newest, older = older, newest
    # No transaction makes a file smaller.
    if older.last_page > newest.last_page:
        raise Damage("its first two pages contradict each other: the older one has the larger file")
    return newest


def read_meta(descriptor: int, number: int, page_size: int, any_numbers: bool = False) -> Meta:
    """Return one of the two meta pages. Raises Damage if it cannot be read.

    ``any_numbers`` accepts impossible transaction numbers and sizes.
    """
    raw = os.pread(descriptor, 16 + _META.size, number * page_size)
    if len(raw) < 16 + _META.size:
        raise Damage("its second meta page is missing")
    return _parse_meta(raw, number, page_size, any_numbers)


def _parse_meta(raw: bytes, number: int, page_size: int, any_numbers: bool = False) -> Meta:
    own_number, _, flags, _, _ = _PAGE.unpack_from(raw)
    magic, version, _, map_size, free, main, last_page, transaction = _META.unpack_from(raw)
    if magic != MAGIC or version != FILE_FORMAT or own_number != number or flags != _META_PAGE:
        raise Damage(f"page {number} is no meta page")
    meta = Meta(transaction, page_size, Record(*RECORD.unpack(free)), Record(*RECORD.unpack(main)), last_page)
    has_numbers = (
        transaction < _NO_TRANSACTION
        and (transaction == 0 or transaction & 1 == number)
        and 1 <= last_page < map_size // page_size
        and map_size < _LARGEST_MAP
    )
    sound = (
        (has_numbers or any_numbers)
        and meta.free.pad == page_size
        and meta.free.flags == INTEGER_KEY
        and not meta.main.flags & ~0x7F
    )
    if not sound:
        raise Damage(f"meta page {number} contradicts itself")
    return meta


def follows(newest: Meta, older: Meta) -> bool:
    """Return whether two meta pages belong to successive transactions. They always do, except after a power cut."""
    return newest.transaction - older.transaction == (1 if newest.transaction else 0)


def check_free_list_age(meta: Meta, newest: bytes | None) -> None:
    """Raise Damage if the free list does not belong to the last transaction. ``newest`` is its greatest key."""
    # Except the first transaction, every transaction changes the list of databases, and so frees a page of it.
    if meta.main.root != NO_ROOT and meta.transaction > 1:
        found = unpack_from("=Q", newest or bytes(8))[0]
        if found != meta.transaction:
            raise Damage(f"an older part of it has replaced a newer one: its last transaction is {meta.transaction}, "
                         f"and the free list ends with transaction {found}")


def read_free_record(meta: Meta, key: bytes, data: bytes) -> tuple[int, ...]:
    """Return the pages that one transaction freed, highest first. Raises Damage if the record cannot be read."""
    numbers = unpack_from(f"={len(data) // 8}Q", data) if len(data) % 8 == 0 else ()
    transaction = unpack_from("=Q", key)[0]
    sound = (
        1 <= transaction <= meta.transaction
        and len(numbers) >= 1
        and numbers[0] == len(numbers) - 1
        and all(map(gt, numbers[1:], numbers[2:]))
        and (len(numbers) == 1 or 2 <= numbers[-1] <= numbers[1] <= meta.last_page)
    )
    if not sound:
        raise Damage("the free list has a record that cannot be read")
    return numbers[1:]


class PageReader:
    """Reader of single pages and of the edges of trees. It checks the pages that it reads."""

    def __init__(self, descriptor: int, meta: Meta) -> None:
        self._descriptor = descriptor
        self._meta = meta
        # The number of pages in the records of all checked trees, and the two meta pages.
        self.claimed = 2

    def check_tree(
        self, record: Record, where: str, visit: Callable[[bytes, bytes, int], object] | None
    ) -> bytes | None:
        """Check a record and the pages on both edges of its tree. Return the greatest key, or None."""
        pages = record.branches + record.leaves + record.overflows
        if record.root == NO_ROOT:
            if record.depth or pages or record.entries:
                raise Damage(f"{where} has entries and no root")
            return None
        self.claimed += pages
        sound = (
            2 <= record.root <= self._meta.last_page
            and 1 <= record.depth <= DEEPEST
            and 1 <= record.leaves <= record.entries
            and self.claimed <= self._meta.last_page + 1
            and (record.depth == 1) == (record.branches == 0)
            and (record.depth > 1 or record.leaves == 1)
        )
        if not sound:
            raise Damage(f"the record of {where} contradicts itself")
        edges = [record.root]
        for level in range(1, record.depth + 1):
            # The first and the last page of this level.
            found = [self._edge(number, level == record.depth, record, where, visit) for number in edges]
            edges = [found[0][1], found[-1][2]]
        count, _, _, greatest = found[-1]
        if record.depth == 1 and count != record.entries:
            raise Damage(f"{where} has {count} entries, and its record says {record.entries}")
        return greatest

    def _edge(
        self, number: int, is_leaf: bool, record: Record, where: str,
        visit: Callable[[bytes, bytes, int], object] | None
    ) -> tuple[int, int, int, bytes]:
        """Check a page on the edge of a tree. Return the number of nodes, the outer child pages, and the last key."""
        page = self._page(number, where)
        has_integer_keys = bool(record.flags & INTEGER_KEY)
        try:
            count, first, last, greatest, has_large = check_edge(page, number, is_leaf, has_integer_keys)
        except ValueError as reason:
            raise Damage(f"page {number} of {where} {reason}") from reason
        if is_leaf and (visit or has_large):
            for size, key, data, flags in read_nodes(page, number, is_leaf):
                if flags & BIG_DATA:
                    self.overflow(unpack_from("=Q", data)[0], size, where)
                elif visit:
                    visit(key, data, flags)
        return count, first, last, greatest

    def ordered(self, key: bytes, record: Record) -> bytes:
        """Return a key in a form that Python compares as LMDB does."""
        return key[::-1] if record.flags & INTEGER_KEY and byteorder == "little" else key

    def check_order(self, nodes: list[Node], record: Record, where: str) -> list[bytes]:
        """Return the keys of nodes, converted as by ``ordered()``. Raises Damage if they do not ascend."""
        keys = [key for _, key, _, _ in nodes]
        if record.flags & INTEGER_KEY:
            for key in keys:
                if len(key) != 8:
                    raise Damage(f"{where} has a key of {len(key)} bytes")
            if byteorder == "little":
                keys = [key[::-1] for key in keys]
        if not all(map(lt, keys, keys[1:])):
            raise Damage(f"{where} has keys out of order")
        return keys

    def nodes(self, number: int, is_leaf: bool, where: str, any_flags: bool = False) -> list[Node]:
        """Check the nodes of a page, and return them. ``any_flags`` accepts unknown flags, which LMDB ignores."""
        page = self._page(number, where)
        try:
            return read_nodes(page, number, is_leaf, any_flags)
        except ValueError as reason:
            raise Damage(f"page {number} of {where} {reason}") from reason

    def _page(self, number: int, where: str) -> bytes:
        meta = self._meta
        if not 2 <= number <= meta.last_page:
            raise Damage(f"{where} refers to page {number}")
        page = os.pread(self._descriptor, meta.page_size, number * meta.page_size)
        if len(page) < meta.page_size:
            raise Damage(f"it is truncated: page {number} of {where} is missing")
        return page

    def overflow(self, number: int, size: int, where: str) -> int:
        """Check the first page of a large value, and return how many pages the value has.

        It may have more pages than it needs, because a value that shrinks in the transaction that wrote it keeps them.
        """
        head = os.pread(self._descriptor, 16, number * self._meta.page_size) if number <= self._meta.last_page else b""
        own_number, _, flags, pages = Struct("=QHHI").unpack(head) if len(head) == 16 else (0, 0, 0, 0)
        if own_number != number or flags != _OVERFLOW or number + pages - 1 > self._meta.last_page \
                or pages < (15 + size) // self._meta.page_size + 1:
            raise Damage(f"a large value of {where} is overwritten")
        return int(pages)

    def large(self, number: int, size: int, where: str, any_pages: bool = False) -> bytes:
        """Check a large value, and return its data. ``any_pages`` accepts any header of its pages."""
        if not any_pages:
            self.overflow(number, size, where)
        at = number * self._meta.page_size + 16
        if number < 2 or at + size > os.fstat(self._descriptor).st_size:
            raise Damage(f"a large value of {where} is cut short")
        return os.pread(self._descriptor, size, at)

    def free_pages(self) -> Iterator[int]:
        """Yield every page number in the free list. Cost: linear in its size."""
        record = self._meta.free
        pages = [(record.root, 1)] if record.root != NO_ROOT else []
        seen = 0
        while pages:
            number, level = pages.pop()
            seen += 1
            if seen > record.branches + record.leaves:
                raise Damage("the free list has more pages than its record says")
            for first, _, data, flags in self.nodes(number, level == record.depth, "the free list"):
                if level < record.depth:
                    pages.append((first, level + 1))
                    continue
                if flags & BIG_DATA:
                    data = self.large(unpack_from("=Q", data)[0], first, "the free list")
                if first % 8 or len(data) != first:
                    raise Damage("the free list has a record that cannot be read")
                yield from unpack_from(f"={first // 8}Q", data)[1:]
