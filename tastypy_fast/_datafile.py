"""A look at LMDB's data file before the engine gets it, which trusts what it maps into memory.

The engine ends the process (SIGBUS, a failed assertion) on a file that was truncated and on many that were
overwritten. What a constant number of reads can tell is looked at here: both meta pages, the outermost
pages of every tree, and that every page which the file is too short for is a free one. (A sound file may be
too short: pages that were taken and given back within one transaction are never written.) Damage deep in a
tree is found only by a walk over all pages, as ``python -m lmdb verify`` does.

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
from contextlib import suppress
from itertools import pairwise
from struct import Struct, unpack_from
from struct import error as struct_error
from typing import NamedTuple

from tastypy_fast._safe_files import open_regular

__all__ = [
    "BIG_DATA",
    "BRANCH",
    "FILE_FORMAT",
    "LEAF",
    "MAGIC",
    "NO_ROOT",
    "RECORD",
    "SUB_DATA",
    "Damage",
    "Meta",
    "Record",
    "Walk",
    "find_damage",
    "find_databases",
    "last_transaction",
    "looks_begun",
    "newest_meta",
    "other_format",
    "read_meta",
]

_PAGE = Struct("=QHHHH")
_META = Struct("=16x II QQ 48s 48s QQ")
RECORD = Struct("=IHHQQQQQ")
_NODE = Struct("=HHHH")
MAGIC, FILE_FORMAT = 0xBEEFC0DE, 1
BRANCH, LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8  # page flags
BIG_DATA, SUB_DATA = 1, 2  # node flags
_INTEGER_KEY = 8  # database flag
NO_ROOT = 2**64 - 1
# Pages looked at in one tree: both edges of any real one.
_BUDGET = 64


class Damage(Exception):
    """Why a file is damaged."""


class Record(NamedTuple):
    """What a database record says of its tree."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


class Meta(NamedTuple):
    """The newest meta page."""

    transaction: int
    page_size: int
    free: Record
    main: Record
    last_page: int


def find_damage(name: str, databases: dict[bytes, int]) -> str | None:
    """Why the data file ``name`` is damaged, or None. ``databases`` are those it has to have, with LMDB's flags.

    Safe while another process writes: a finding counts only if no commit came in between. Nobody in this
    process has the file open: closing it here would drop the engine's locks on it.
    """
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        reason: str | None = None
        for _ in range(5):
            try:
                meta = newest_meta(descriptor)
            except (Damage, struct_error) as damage:  # perhaps torn by a commit
                reason = str(damage)
                continue
            try:
                _check_trees(descriptor, meta, databases)
                return None
            except (Damage, struct_error) as damage:
                reason = str(damage)
            try:
                if newest_meta(descriptor) == meta:
                    return reason
                reason = None  # a busy writer, no verdict
            except (Damage, struct_error) as damage:
                reason = str(damage)
        return reason
    finally:
        os.close(descriptor)


def find_databases(name: str) -> list[bytes]:
    """The names of the databases in a data file, as far as one page tells; none when it does not parse.

    Safe while another process writes: the page counts only if it was not given up, and taken for something else,
    while it was read. None, too, where a writer is so busy that this cannot be said.
    """
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        for _ in range(5):
            with suppress(Damage, struct_error):
                meta = newest_meta(descriptor)
                if meta.main.root == NO_ROOT:
                    return []
                nodes = Walk(descriptor, meta).nodes(meta.main.root, meta.main.depth == 1, "the list of databases")
                names = [key for _, key, _, _ in nodes]
                if newest_meta(descriptor) == meta:
                    return names
    finally:
        os.close(descriptor)
    return []


def looks_begun(data: bytes) -> bool:
    """Whether this may be the first part of a data file that nothing was committed to yet."""
    if not any(data):
        return True
    if len(data) < 16 + _META.size:
        return False
    magic, version, *_, transaction = _META.unpack_from(data)
    return (magic, version, transaction) == (MAGIC, FILE_FORMAT, 0)


def other_format(name: str) -> int | None:
    """The number of the file format, where the data file is one of LMDB's and has another than FILE_FORMAT."""
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        head = os.pread(descriptor, 32, 0)
    finally:
        os.close(descriptor)
    # (the head of a page is 16 bytes long in LMDB 0.9 and 24 in 1.0)
    for at in (16, 24):
        if len(head) >= at + 8:
            magic, version = unpack_from("=II", head, at)
            if magic == MAGIC and version != FILE_FORMAT and version < 256:
                return int(version)
    return None


def last_transaction(name: str) -> int | None:
    """The number of the last commit to a data file; None when that does not parse."""
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        return newest_meta(descriptor).transaction
    except (Damage, struct_error):
        return None
    finally:
        os.close(descriptor)


def newest_meta(descriptor: int) -> Meta:
    """What the newest meta page says. Raises Damage where either of them does not parse."""
    first = os.pread(descriptor, 16 + _META.size, 0)
    if len(first) < 16 + _META.size:
        raise Damage(f"its {len(first)} bytes are too few")
    page_size = unpack_from("=I", first, 40)[0]
    if page_size & (page_size - 1) or not 512 <= page_size <= 0x8000:
        raise Damage("its first page is no meta page")
    first_meta, second_meta = (read_meta(descriptor, number, page_size) for number in (0, 1))
    # Of two of the same number the engine takes the first: the other one is what a failed write has left.
    return second_meta if second_meta.transaction > first_meta.transaction else first_meta


def read_meta(descriptor: int, number: int, page_size: int) -> Meta:
    """What one of the two meta pages says. Raises Damage where it does not parse."""
    raw = os.pread(descriptor, 16 + _META.size, number * page_size)
    if len(raw) < 16 + _META.size:
        raise Damage("its second meta page is missing")
    own_number, _, flags, _, _ = _PAGE.unpack_from(raw)
    magic, version, _, map_size, free, main, last_page, transaction = _META.unpack_from(raw)
    if magic != MAGIC or version != FILE_FORMAT or own_number != number or flags != _META_PAGE:
        raise Damage(f"page {number} is no meta page")
    meta = Meta(transaction, page_size, Record(*RECORD.unpack(free)), Record(*RECORD.unpack(main)), last_page)
    sound = (
        meta.free.pad == page_size
        and (transaction == 0 or transaction & 1 == number)
        and 1 <= last_page < map_size // page_size
        and meta.free.flags == _INTEGER_KEY
        and not meta.main.flags & ~0x7F
    )
    if not sound:
        raise Damage(f"meta page {number} contradicts itself")
    return meta


def _check_trees(descriptor: int, meta: Meta, databases: dict[bytes, int]) -> None:
    walk = Walk(descriptor, meta)
    found: dict[bytes, Record] = {}

    def note_database(key: bytes, data: bytes, flags: int) -> None:
        if flags & SUB_DATA:
            found[key] = Record(*RECORD.unpack(data))

    walk.check_tree(meta.free, "the free list", lambda key, data, flags: _check_free_record(meta, key, data))
    walk.check_tree(meta.main, "the list of databases", note_database)
    if found:
        for name, flags in databases.items():
            if name in found and found[name].flags != flags:
                raise Damage(f"the flags of database {name!r} are {found[name].flags:#x}")
    for name, record in found.items():
        walk.check_tree(record, f"database {name!r}", None)
    _check_length(descriptor, meta, walk)


def _check_free_record(meta: Meta, key: bytes, data: bytes) -> None:
    numbers = unpack_from(f"={len(data) // 8}Q", data) if len(data) % 8 == 0 else ()
    transaction = int.from_bytes(key, "little" if unpack_from("=H", b"\x01\x00")[0] == 1 else "big")
    sound = (
        1 <= transaction <= meta.transaction
        and len(numbers) >= 1
        and numbers[0] == len(numbers) - 1
        and all(a > b for a, b in pairwise(numbers[1:]))
        and (len(numbers) == 1 or 2 <= numbers[-1] <= numbers[1] <= meta.last_page)
    )
    if not sound:
        raise Damage("the free list has a record that does not parse")


def _check_length(descriptor: int, meta: Meta, walk: Walk) -> None:
    """Every page that the file is too short for must be a free one."""
    size = os.fstat(descriptor).st_size
    end = size // meta.page_size
    missing = max(0, meta.last_page + 1 - end)
    # The free list names no more pages than it has room for, which bounds what is read even if last_page is wild.
    room = (meta.free.leaves + meta.free.overflows) * meta.page_size // 8
    if missing and missing <= min(meta.last_page + 1 - walk.claimed, room):
        missing -= len({page for page in walk.free_pages() if end <= page <= meta.last_page})
    if missing:
        raise Damage(f"it is truncated: it ends after {size} bytes, {missing} pages too early")


class Walk:
    """Reads and checks single pages and the edges of trees."""

    def __init__(self, descriptor: int, meta: Meta) -> None:
        self._descriptor = descriptor
        self._meta = meta
        # Pages that all trees together say they have, and the two meta pages.
        self.claimed = 2

    def check_tree(self, record: Record, where: str, visit: Callable[[bytes, bytes, int], None] | None) -> None:
        """Check a record and the pages on the two edges of its tree."""
        pages = record.branches + record.leaves + record.overflows
        if record.root == NO_ROOT:
            if record.depth or pages or record.entries:
                raise Damage(f"{where} has entries and no root")
            return
        self.claimed += pages
        sound = (
            2 <= record.root <= self._meta.last_page
            and 1 <= record.depth <= 32
            and 1 <= record.leaves <= record.entries
            and self.claimed <= self._meta.last_page + 1
            and (record.depth == 1) == (record.branches == 0)
            and (record.depth > 1 or record.leaves == 1)
        )
        if not sound:
            raise Damage(f"the record of {where} contradicts itself")
        budget = _BUDGET
        for edge in (0, -1):
            page = record.root
            nodes: list[tuple[int, bytes, bytes, int]] = []
            for level in range(record.depth):
                budget -= 1
                if budget < 0:
                    return
                is_leaf = level == record.depth - 1
                nodes = list(self.nodes(page, is_leaf, where))
                page = nodes[edge][0]
            self._check_leaf(nodes, record, where, visit)
            if record.depth == 1:
                if len(nodes) != record.entries:
                    raise Damage(f"{where} has {len(nodes)} entries, and its record says {record.entries}")
                break

    def _check_leaf(
        self, nodes: list[tuple[int, bytes, bytes, int]], record: Record, where: str,
        visit: Callable[[bytes, bytes, int], None] | None,
    ) -> None:
        before: bytes | int | None = None
        for size, key, data, flags in nodes:
            order: bytes | int = key
            if record.flags & _INTEGER_KEY:
                if len(key) != 8:
                    raise Damage(f"{where} has a key of {len(key)} bytes")
                order = unpack_from("=Q", key)[0]
            if before is not None and order <= before:  # type: ignore[operator]
                raise Damage(f"{where} has keys out of order")
            before = order
            if flags & BIG_DATA:
                self.overflow(unpack_from("=Q", data)[0], size, where)
            elif visit:
                visit(key, data, flags)

    def nodes(self, number: int, is_leaf: bool, where: str) -> Iterator[tuple[int, bytes, bytes, int]]:
        """(child page or size of the data, key, data, flags) of each node of a page, checked."""
        meta = self._meta
        if not 2 <= number <= meta.last_page:
            raise Damage(f"{where} refers to page {number}")
        page = os.pread(self._descriptor, meta.page_size, number * meta.page_size)
        if len(page) < meta.page_size:
            raise Damage(f"it is truncated: page {number} of {where} is missing")
        own_number, _, flags, lower, upper = _PAGE.unpack_from(page)
        sound = own_number == number and flags == (LEAF if is_leaf else BRANCH)
        if not sound or not 16 < lower <= upper <= meta.page_size or lower & 1:
            raise Damage(f"page {number} of {where} is overwritten")
        used = 0
        for offset in unpack_from(f"={(lower - 16) // 2}H", page, 16):
            if offset < upper or offset + 8 > meta.page_size or offset & 1:
                raise Damage(f"page {number} of {where} has a node outside")
            low, high, node_flags, key_size = _NODE.unpack_from(page, offset)
            start = offset + 8 + key_size
            first = low | high << 16
            if is_leaf:
                end = start + (8 if node_flags & BIG_DATA else first)
                wrong = node_flags & ~(BIG_DATA | SUB_DATA) or key_size == 0
            else:
                first |= node_flags << 32
                end = start
                wrong = not 2 <= first <= meta.last_page or first == number
            if wrong or end > meta.page_size or key_size > 511:
                raise Damage(f"page {number} of {where} has a node that does not parse")
            used += end - offset + (end - offset & 1)
            yield first, page[offset + 8 : start], page[start:end], node_flags
        if used != meta.page_size - upper:
            raise Damage(f"page {number} of {where} has nodes that overlap")

    def overflow(self, number: int, size: int, where: str) -> None:
        """Check the head of the pages of a large value. (There may be more of them than it needs.)"""
        head = os.pread(self._descriptor, 16, number * self._meta.page_size) if number <= self._meta.last_page else b""
        own_number, _, flags, pages = Struct("=QHHI").unpack(head) if len(head) == 16 else (0, 0, 0, 0)
        if own_number != number or flags != _OVERFLOW or number + pages - 1 > self._meta.last_page \
                or pages < (15 + size) // self._meta.page_size + 1:
            raise Damage(f"a large value of {where} is overwritten")

    def free_pages(self) -> Iterator[int]:
        """Every page number in the free list. Cost: its size."""
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
                    at = unpack_from("=Q", data)[0]
                    self.overflow(at, first, "the free list")
                    data = os.pread(self._descriptor, first, at * self._meta.page_size + 16)
                if first % 8 or len(data) != first:
                    raise Damage("the free list has a record that does not parse")
                yield from unpack_from(f"={first // 8}Q", data)[1:]
