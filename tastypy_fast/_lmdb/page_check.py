"""Check every page of an LMDB data file without LMDB, which makes this safe on any file.

A file is sound if all of this holds:

- its two meta pages belong to successive transactions,
- every page of a tree is sound by itself, its keys ascend, and they lie between the keys of the pages above it,
- every tree has as many pages and entries as its record says,
- every page up to the last one occurs exactly once, in a tree or in the free list,
- the free list belongs to the same transaction as the trees.

A page that was replaced by an older page or by another page nearly always breaks one of these rules. An older value
under the same key is not detected, because LMDB 0.9 has no checksums and no transaction numbers in its pages.
"""

from __future__ import annotations

import os
from struct import error as struct_error
from struct import unpack_from

from tastypy_fast._lmdb.page_format import (
    BIG_DATA,
    DEEPEST,
    NO_ROOT,
    RECORD,
    SUB_DATA,
    Damage,
    Meta,
    Node,
    PageReader,
    Record,
    check_free_list_age,
    follows,
    newest_meta,
    read_free_record,
    read_meta,
)
from tastypy_fast._lmdb.safe_files import open_regular
from tastypy_fast._lmdb.store_dir import CLAIM_PREFIX

__all__ = ["find_page_faults"]

# The number of findings that are reported. Further findings are only counted.
_MOST = 200
# Marks of a page.
_USED, _FREE = 1, 2
_FREE_LIST = "the free list"


def find_page_faults(name: str) -> tuple[int | None, list[str]]:
    """Check all pages of the last transaction. Return its number, or None if no meta page has it, and the findings.

    While another process writes, the findings are valid only if no transaction came in between, or if the caller has an
    older read transaction. Cost: a walk over all pages. Memory: one byte for each page.
    """
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        try:
            meta = newest_meta(descriptor)
        except (Damage, struct_error) as damage:
            return None, [str(damage)]
        return meta.transaction, _PageCheck(descriptor, meta).run()
    finally:
        os.close(descriptor)


class _PageCheck:
    """One walk over a file."""

    def __init__(self, descriptor: int, meta: Meta) -> None:
        self._descriptor = descriptor
        self._meta = meta
        self._reader = PageReader(descriptor, meta)
        # Read the size after the meta page, because all pages of its transaction were written before it.
        self._end = os.fstat(descriptor).st_size // meta.page_size
        # The free list cannot name more pages beyond the end than it has room for.
        self._marks = bytearray(min(meta.last_page + 1, self._end + self._end * meta.page_size // 8))
        self._faults: list[str] = []
        self._more = 0
        # Whether every page of the trees was read, so that a page without a mark is lost.
        self._is_whole = True
        self._newest_free: bytes | None = None

    def run(self) -> list[str]:
        """Return a sentence for each finding."""
        self._check_metas()
        self._check_tree(self._meta.free, _FREE_LIST)
        if self._is_whole:
            try:
                check_free_list_age(self._meta, self._newest_free)
            except Damage as damage:
                self._report(str(damage))
        for name, record in self._check_tree(self._meta.main, "the list of databases"):
            self._check_tree(record, f"database {name!r}")
        self._check_cover()
        return self._faults + ([f"and {self._more} more"] if self._more else [])

    def _report(self, text: str) -> None:
        if len(self._faults) < _MOST:
            self._faults.append(text)
        else:
            self._more += 1

    def _check_metas(self) -> None:
        try:
            older, newest = sorted(read_meta(self._descriptor, page, self._meta.page_size) for page in (0, 1))
        except (Damage, struct_error) as damage:
            self._report(str(damage))
            return
        # Compare with the meta page that was read before, because a commit may have come since.
        if newest == self._meta and not follows(newest, older):
            self._report(f"its first two pages belong to transactions {older.transaction} and {newest.transaction}, "
                         f"which do not follow each other: a commit may be lost")

    def _check_tree(self, tree: Record, where: str) -> list[tuple[bytes, Record]]:
        """Check one tree, and return the databases whose records are in it."""
        if tree.root == NO_ROOT:
            if tree.depth or tree.branches or tree.leaves or tree.overflows or tree.entries:
                self._report(f"{where} has entries and no root")
            return []
        if not 1 <= tree.depth <= DEEPEST:
            self._report(f"{where} has {tree.depth} levels")
            self._is_whole = False
            return []
        found: list[tuple[bytes, Record]] = []
        branches = leaves = overflows = entries = lost = 0
        # A page, its level, and the bounds of its keys.
        pages: list[tuple[int, int, bytes | None, bytes | None]] = [(tree.root, 1, None, None)]
        while pages:
            number, level, first, end = pages.pop()
            is_leaf = level == tree.depth
            try:
                self._use(number, 1, where)
                nodes = self._reader.nodes(number, is_leaf, where)
                keys = self._reader.check_order(nodes if is_leaf else nodes[1:], tree, where)
            except (Damage, struct_error) as damage:
                self._report(str(damage))
                lost += 1
                continue
            if keys and ((first is not None and keys[0] < first) or (end is not None and keys[-1] >= end)):
                self._report(f"page {number} of {where} has keys outside the bounds that the pages above it set")
            if is_leaf:
                leaves += 1
                entries += len(nodes)
                overflows += self._check_data(nodes, where, found)
            else:
                branches += 1
                bounds = [first, *keys, end]
                pages += [(nodes[at][0], level + 1, bounds[at], bounds[at + 1]) for at in reversed(range(len(nodes)))]
        if lost:
            self._is_whole = False
        elif (branches, leaves, overflows, entries) != tree[3:7]:
            self._report(f"{where} has {branches} + {leaves} + {overflows} pages and {entries} entries, and its record "
                         f"says {tree.branches} + {tree.leaves} + {tree.overflows} and {tree.entries}")
        return found

    def _use(self, number: int, count: int, where: str) -> None:
        """Mark pages as used by a tree."""
        if not 2 <= number <= len(self._marks) - count:
            raise Damage(f"{where} refers to page {number}, of {len(self._marks)}")
        for page in range(number, number + count):
            if self._marks[page] & _USED:
                raise Damage(f"page {page} of {where} is in use twice")
            self._marks[page] |= _USED

    def _check_data(self, nodes: list[Node], where: str, found: list[tuple[bytes, Record]]) -> int:
        """Check the data of the nodes of a leaf, and return how many pages their large values have."""
        overflows = 0
        has_databases = where == "the list of databases"
        for size, key, data, flags in nodes:
            try:
                if flags & BIG_DATA:
                    at = unpack_from("=Q", data)[0]
                    count = self._reader.overflow(at, size, where)
                    self._use(at, count, where)
                    overflows += count
                is_database = has_databases and not key.startswith(CLAIM_PREFIX)
                if bool(flags & SUB_DATA) != is_database or (is_database and len(data) != RECORD.size):
                    raise Damage(f"{where} has an entry that does not belong there")
                if is_database:
                    found.append((key, Record(*RECORD.unpack(data))))
                elif where is _FREE_LIST:
                    self._newest_free = key
                    self._check_free(key, self._reader.large(at, size, where) if flags & BIG_DATA else data)
            except (Damage, struct_error) as damage:
                self._report(str(damage))
                self._is_whole = False
        return overflows

    def _check_free(self, key: bytes, data: bytes) -> None:
        for page in read_free_record(self._meta, key, data):
            if page < len(self._marks):
                if self._marks[page] & _FREE:
                    self._report(f"page {page} is free twice")
                self._marks[page] |= _FREE

    def _check_cover(self) -> None:
        """Check that every page is either in use or free."""
        count = self._marks.count(_USED | _FREE)
        if count:
            self._report(f"{count} pages are in use and free (the first is page {self._marks.find(_USED | _FREE)})")
        used = self._marks.translate(bytes(mark & _USED for mark in range(256)))
        beyond = used.count(_USED, self._end)
        if beyond:
            self._report(f"it is truncated: it ends {beyond} pages too early")
        unknown = self._marks.count(0, 2) + self._meta.last_page + 1 - len(self._marks)
        if unknown and self._is_whole:
            self._report(f"{unknown} pages are neither in use nor free (the first is page {self._marks.find(0, 2)})")
