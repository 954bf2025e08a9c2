"""Read the pages of a data file that may be damaged anywhere, without LMDB.

Every page is checked. The readable data of an unsound page are kept, as LMDB would read them. They never replace data
of a sound page. If a page that refers to others is lost, the others are still found. Each page that is neither free nor
referred to must be one of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from struct import Struct, unpack_from
from struct import error as struct_error
from zlib import crc32

from tastypy_fast._lmdb.page_format import (
    BIG_DATA,
    BRANCH,
    LEAF,
    NO_ROOT,
    NUMBER,
    RECORD,
    Damage,
    Meta,
    Node,
    PageReader,
    Record,
    follows,
    newest_meta,
    read_meta,
)
from tastypy_fast._lmdb.store_dir import DATABASES
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["LossReport", "PageSalvage", "read_log_batches"]

_PAGE_HEAD = Struct("=QHH")
_NODE = Struct("=HHHH")
_BATCH = Struct("=QIIq")
_CHANGE = Struct("=BII")
_PIECES = 20
_DELETED = 128
_PAGE_SIZES = [512 << power for power in range(7)]
# How many sentences are kept. Further sentences are only counted.
_MAX_SENTENCES = 1000


class LossReport:
    """Collect sentences about losses, up to a limit."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._more = 0

    def add(self, text: str) -> None:
        """Add a sentence."""
        if len(self._sentences) < _MAX_SENTENCES:
            self._sentences.append(text)
        else:
            self._more += 1

    def sentences(self) -> list[str]:
        """Return the sentences, and a last one with the number of omitted sentences."""
        return self._sentences + ([f"and {self._more} more losses"] if self._more else [])


class PageSalvage:
    """Read a data file page by page. No process may write it meanwhile."""

    def __init__(self, descriptor: int, losses: LossReport) -> None:
        """Raises PersistentOrderedDictIntegrityError if no meta page can be read."""
        self._descriptor = descriptor
        self._losses = losses
        self._meta = self._find_meta()
        self._reader = PageReader(descriptor, self._meta)
        self._pages = min(self._meta.last_page + 1, os.fstat(descriptor).st_size // self._meta.page_size)
        self._reached = bytearray(self._pages)
        # Whether a page was lost that may have referred to others.
        self._lost_pages = False
        # Leaf pages with a fault. A bit may have flipped, or another page or an older page may have replaced them.
        self._doubtful: set[int] = set()
        # The pages of large values that a tree may still have. Without a limit, entries that all refer to the same
        # pages could yield more data than the file has.
        self._room = 0
        self._quiet = False
        self.databases = self._find_databases()

    def _find_meta(self) -> Meta:
        # Sound meta pages, and meta pages in which only the numbers may be wrong.
        sound, odd = ([meta for page_size in _PAGE_SIZES for meta in self._read_metas(page_size, any_numbers)]
                      for any_numbers in (False, True))
        ages = {meta: self._age(meta) for meta in odd}
        newest, other = max(sound, default=None), min(sound, default=None)
        if newest and other:
            # A meta page with a number that is too great has older trees than the other one.
            is_older = ages[other] == other.transaction and ages[newest] == other.transaction - 1
            with suppress(Damage, struct_error):
                if newest == newest_meta(self._descriptor) and follows(newest, other) and not is_older:
                    return newest
        # Take the transaction from the free list. If it contradicts a plausible number, it may belong to another page.
        known = {meta: age for meta, age in ages.items() if age and (age == meta.transaction or meta not in sound)}
        known = known or {meta: meta.transaction for meta in sound}
        if not any(known.values()):
            raise PersistentOrderedDictIntegrityError("neither of its first two pages is readable")
        self._losses.add("one of the first two pages is damaged; if it was that of the last commit, this commit is "
                         "lost")
        best = max(known, key=known.__getitem__)
        return best._replace(last_page=os.fstat(self._descriptor).st_size // best.page_size - 1)

    def _read_metas(self, page_size: int, any_numbers: bool) -> Iterator[Meta]:
        for number in (0, 1):
            with suppress(Damage, struct_error):
                yield read_meta(self._descriptor, number, page_size, any_numbers)

    def _age(self, meta: Meta) -> int:
        """Return the transaction that wrote the trees of a meta page, according to the free list; 0 if unknown."""
        end = os.fstat(self._descriptor).st_size // meta.page_size
        with suppress(Damage, struct_error):
            reader = PageReader(self._descriptor, meta._replace(last_page=end - 1))
            newest = reader.check_tree(meta.free, "the free list", None)
            return int(unpack_from("=Q", newest)[0]) if newest else min(meta.transaction, 1)
        return 0

    def _find_databases(self) -> dict[bytes, Record]:
        pairs = self._pairs(self._meta.main, "the list of databases", any_page=True)
        return {name: Record(*RECORD.unpack(data)) for name, data in pairs
                if name in DATABASES and len(data) == RECORD.size}

    def items(self, name: bytes, quiet: bool = False, any_page: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of a database in order, as far as they can be read.

        With ``quiet``, losses are not reported. With ``any_page``, pairs of faulty leaf pages are also yielded, for
        callers that can check them.
        """
        if name in self.databases:
            self._quiet = quiet
            for pair in self._pairs(self.databases[name], f"database {name.decode()!r}", any_page):
                yield pair
                self._quiet = quiet
            self._quiet = False

    def _pairs(self, tree: Record, where: str, any_page: bool) -> Iterator[tuple[bytes, bytes]]:
        # Pages to read, with their level and the bounds of their keys.
        pages: list[tuple[int, int, bytes | None, bytes | None]] = [(tree.root, 1, None, None)]
        entries, met = 0, bytearray(self._pages)
        self._room = self._pages
        while pages and tree.root != NO_ROOT:
            number, level, first, end = pages.pop()
            kind = self._reach(number, level == tree.depth, where, met)
            if kind:
                nodes = self._sound_nodes(number, kind == LEAF, where)
            elif any_page and number in self._doubtful:
                nodes = self._nodes_inside(number, True)
            else:
                nodes = []
            keys = [self._reader.ordered(key, tree) for _, key, _, _ in nodes]
            if kind == BRANCH:
                bounds = [first, *keys[1:], end]
                pages += [(nodes[at][0], level + 1, bounds[at], bounds[at + 1]) for at in reversed(range(len(nodes)))]
                continue
            for key, node in zip(keys, nodes, strict=True):
                if (first is not None and key < first) or (end is not None and key >= end):
                    # A key is damaged, or another page has replaced this one.
                    self._doubt(number, f"page {number} of {where} has keys that belong on other pages")
                    continue
                try:
                    pair = node[1], self._data(node, where)
                except (Damage, struct_error) as damage:
                    self._doubt(number, str(damage), leads=False)
                    continue
                entries += 1
                yield pair
        # A page that refers to a wrong page may itself be sound, so only the number of entries shows the loss.
        self._lost_pages |= entries != tree.entries and not self._quiet

    def _reach(self, number: int, is_leaf: bool, where: str, met: bytearray) -> int:
        """Return the kind of a page, or 0 if it cannot be read. ``met`` marks the tree's pages that were read."""
        if not 2 <= number < self._pages:
            self._lose(f"page {number} of {where} is missing")
            return 0
        if met[number]:
            self._lose(f"page {number} of {where} is referred to twice")
            return 0
        met[number] = self._reached[number] = 1
        own_number, _, flags = _PAGE_HEAD.unpack(os.pread(self._descriptor, _PAGE_HEAD.size,
                                                          number * self._meta.page_size))
        if own_number == number and flags in (BRANCH, LEAF):
            return int(flags)
        text = f"page {number} of {where} is overwritten"
        if is_leaf:
            self._doubt(number, text)
        else:
            self._lose(text)
        return 0

    def _doubt(self, number: int, text: str, leads: bool = True) -> None:
        """Record a faulty page, whose remaining pairs are read at the end."""
        if number not in self._doubtful or not leads:
            self._lose(text, leads)
        self._doubtful.add(number)

    def _lose(self, text: str, leads: bool = True) -> None:
        if not self._quiet:
            self._losses.add(text)
            self._lost_pages |= leads

    def _sound_nodes(self, number: int, is_leaf: bool, where: str) -> list[Node]:
        """Return the nodes of a page. For a damaged page, return the nodes that lie inside it."""
        try:
            return self._reader.nodes(number, is_leaf, where)
        except (Damage, struct_error) as damage:
            reason = str(damage)
        with suppress(Damage, struct_error):
            # Only the flags are wrong, so nothing is lost.
            return self._reader.nodes(number, is_leaf, where, any_flags=True)
        self._lose(reason, leads=not is_leaf)
        return self._nodes_inside(number, is_leaf)

    def _nodes_inside(self, number: int, is_leaf: bool) -> list[Node]:
        """Return the nodes that lie inside a page, even if the page has other faults."""
        size = self._meta.page_size
        page = os.pread(self._descriptor, size, number * size)
        found = []
        lower, upper = unpack_from("=HH", page, 12)
        if not 16 < lower <= upper:
            # The number of nodes is damaged. Read offsets up to the first node, which begins after them.
            lower = min(upper, len(page))
        for at in range(16, min(lower, len(page) - 1) - 1, 2):
            offset = unpack_from("=H", page, at)[0]
            if lower == upper and offset == 0:
                break
            if 16 < offset <= len(page) - _NODE.size:
                low, high, flags, key_size = _NODE.unpack_from(page, offset)
                first = low | high << 16
                start = offset + _NODE.size + key_size
                if not is_leaf:
                    found.append((first | flags << 32, page[start - key_size : start], b"", flags))
                    continue
                # Ignore the flag of a value of more than half a page, because it is never stored inside a page.
                is_large = flags & BIG_DATA or first > size // 2
                end = start + (8 if is_large else first)
                if key_size and end <= len(page):
                    found.append((first, page[start - key_size : start], page[start:end], flags | bool(is_large)))
        return found

    def _data(self, node: Node, where: str, any_pages: bool = False) -> bytes:
        """Return the data of a node. ``any_pages`` accepts wrong headers of the pages of a large value."""
        size, _, data, flags = node
        if not flags & BIG_DATA:
            return data
        number = unpack_from("=Q", data)[0]
        if self._room < 0:
            raise Damage(f"{where} has more large values than fit into the file")
        data = self._reader.large(number, size, where, any_pages)
        # Mark all pages of the value, because its data may look like a page.
        count = (15 + size) // self._meta.page_size + 1
        self._room -= count
        self._reached[number : number + count] = b"\1" * len(self._reached[number : number + count])
        return data

    def orphans(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of faulty leaf pages, and of pages that only a lost page referred to, in no order.

        Call this after all databases were read. The pairs may belong to any database. If the free list is lost, pages
        of the second kind are left out, because they cannot be distinguished from free pages with deleted records.
        """
        self._room = self._pages
        for number in sorted(self._doubtful):
            yield from self._all_of(self._nodes_inside(number, True))
        if not self._lost_pages:
            return
        try:
            for page in self._reader.free_pages():
                if page < self._pages:
                    self._reached[page] = 1
        except (Damage, struct_error) as damage:
            self._losses.add(f"{damage}; so records on pages that lost pages referred to cannot be distinguished from "
                             f"deleted ones, and are left out")
            return
        for number in range(2, self._pages):
            if not self._reached[number]:
                head = os.pread(self._descriptor, _PAGE_HEAD.size, number * self._meta.page_size)
                own_number, _, flags = _PAGE_HEAD.unpack(head)
                if own_number == number and flags == LEAF:
                    yield from self._all_of(self._sound_nodes(number, True, "no tree"))

    def _all_of(self, nodes: list[Node]) -> Iterator[tuple[bytes, bytes]]:
        for node in nodes:
            with suppress(Damage, struct_error):
                yield node[1], self._data(node, "no tree", any_pages=True)


def read_log_batches(
    pieces: Iterator[tuple[bytes, bytes]], losses: LossReport
) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Yield the changes in the write-ahead log, oldest first, as (database, key, value or None if deleted).

    A batch with a wrong checksum is left out as a whole.
    """
    numbered = ((NUMBER.unpack(key)[0], piece) for key, piece in pieces if len(key) == NUMBER.size)
    for transaction, group in groupby(numbered, key=lambda pair: pair[0] >> _PIECES):
        found = list(group)
        batch = b"".join(piece for _, piece in found)
        whole = [number & (1 << _PIECES) - 1 for number, _ in found] == list(range(len(found)))
        size, checksum, _, _ = _BATCH.unpack_from(batch) if len(batch) >= _BATCH.size else (-1, 0, 0, 0)
        body = batch[_BATCH.size :]
        if not whole or size != len(body) or crc32(body) != checksum:
            losses.add(f"the sync in transaction {transaction}, which was in the log, is damaged; its changes are "
                       f"lost, and the values before them are kept")
            continue
        at = 0
        while at < len(body):
            kind, key_size, size = _CHANGE.unpack(body[at : at + _CHANGE.size].ljust(_CHANGE.size, b"\0"))
            at += _CHANGE.size + key_size
            key, value = body[at - key_size : at], body[at : at + size]
            at += size
            if at > len(body):
                losses.add(f"the end of the sync in transaction {transaction}, which was in the log, cannot be parsed")
                break
            yield kind & ~_DELETED, key, None if kind & _DELETED else value
