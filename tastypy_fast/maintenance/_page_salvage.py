"""What can be read of a data file that may be damaged anywhere, without the storage engine.

Every page is checked before it is believed. Of one that is not sound, what can be read is kept all the same, as the
engine reads it, but nothing of it takes the place of what is on a sound page. Where a page that led to others is lost,
these are found: a page that is neither free nor reached was one of them.
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

__all__ = ["Losses", "Salvage", "read_batches"]

_PAGE_HEAD = Struct("=QHH")
_NODE = Struct("=HHHH")
_BATCH = Struct("=QIIq")
_CHANGE = Struct("=BII")
_PIECES = 20
_DELETED = 128
_PAGE_SIZES = [512 << power for power in range(7)]
# More of one kind are counted only.
_MOST = 1000


class Losses:
    """Sentences about what is lost; of very many, how many there are."""

    def __init__(self) -> None:
        self._told: list[str] = []
        self._more = 0

    def tell(self, text: str) -> None:
        """One more."""
        if len(self._told) < _MOST:
            self._told.append(text)
        else:
            self._more += 1

    def told(self) -> list[str]:
        """All of them."""
        return self._told + ([f"and {self._more} more of these"] if self._more else [])


class Salvage:
    """A data file, read page by page. Nobody writes it meanwhile."""

    def __init__(self, descriptor: int, losses: Losses) -> None:
        """Raises PersistentOrderedDictIntegrityError where nothing tells what the file has."""
        self._descriptor = descriptor
        self._losses = losses
        self._meta = self._find_meta()
        self._reader = PageReader(descriptor, self._meta)
        self._pages = min(self._meta.last_page + 1, os.fstat(descriptor).st_size // self._meta.page_size)
        self._reached = bytearray(self._pages)
        # Whether a page was lost that may have led to others.
        self._lost_pages = False
        # Leaves that are not as they should be: perhaps for a flipped bit, perhaps as they are other pages, or older.
        self._doubtful: set[int] = set()
        # How many pages of large values a tree may still have, so that not all of them are the same ones.
        self._room = 0
        self._quiet = False
        self.databases = self._find_databases()

    def _find_meta(self) -> Meta:
        # Those that parse, and those of which only the numbers do not.
        sound, odd = ([meta for page_size in _PAGE_SIZES for meta in self._read_metas(page_size, any_numbers)]
                      for any_numbers in (False, True))
        ages = {meta: self._age(meta) for meta in odd}
        newest, other = max(sound, default=None), min(sound, default=None)
        if newest and other:
            # A meta page with too great a number has the trees before those of the other one.
            is_older = ages[other] == other.transaction and ages[newest] == other.transaction - 1
            with suppress(Damage, struct_error):
                if newest == newest_meta(self._descriptor) and follows(newest, other) and not is_older:
                    return newest
        # The free list tells the transaction. One that contradicts a number that may be may be another one's.
        known = {meta: age for meta, age in ages.items() if age and (age == meta.transaction or meta not in sound)}
        known = known or {meta: meta.transaction for meta in sound}
        if not any(known.values()):
            raise PersistentOrderedDictIntegrityError("neither of its first two pages is readable")
        self._losses.tell("one of the first two pages is damaged: if it was that of the last commit, this is lost")
        best = max(known, key=known.__getitem__)
        return best._replace(last_page=os.fstat(self._descriptor).st_size // best.page_size - 1)

    def _read_metas(self, page_size: int, any_numbers: bool) -> Iterator[Meta]:
        for number in (0, 1):
            with suppress(Damage, struct_error):
                yield read_meta(self._descriptor, number, page_size, any_numbers)

    def _age(self, meta: Meta) -> int:
        """The transaction that the trees of a meta page are of, as their free list says; 0 where it says nothing."""
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
        """The pairs of a database in order, as far as they can be read. ``quiet``: what cannot be is not told.
        ``any_page``: also those of leaves that are doubtful, for whoever knows what he expects."""
        if name in self.databases:
            self._quiet = quiet
            for pair in self._pairs(self.databases[name], f"database {name.decode()!r}", any_page):
                yield pair
                self._quiet = quiet
            self._quiet = False

    def _pairs(self, tree: Record, where: str, any_page: bool) -> Iterator[tuple[bytes, bytes]]:
        # A page, its level, and the keys between which its own keys have to be.
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
                    # One key is damaged, or the page is another one.
                    self._doubt(number, f"page {number} of {where} has keys that the pages above it have elsewhere")
                    continue
                try:
                    pair = node[1], self._data(node, where)
                except (Damage, struct_error) as damage:
                    self._doubt(number, str(damage), leads=False)
                    continue
                entries += 1
                yield pair
        # A page that leads to a wrong one may be sound by itself.
        self._lost_pages |= entries != tree.entries and not self._quiet

    def _reach(self, number: int, is_leaf: bool, where: str, met: bytearray) -> int:
        """What kind of page it is; 0 for one that cannot be read. ``met``: which pages the tree has so far."""
        if not 2 <= number < self._pages:
            self._lose(f"page {number} of {where} is missing")
            return 0
        if met[number]:
            self._lose(f"page {number} of {where} is in it twice")
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
        """Keep a page of which something may be read, but for the end."""
        if number not in self._doubtful or not leads:
            self._lose(text, leads)
        self._doubtful.add(number)

    def _lose(self, text: str, leads: bool = True) -> None:
        if not self._quiet:
            self._losses.tell(text)
            self._lost_pages |= leads

    def _sound_nodes(self, number: int, is_leaf: bool, where: str) -> list[Node]:
        """The nodes of a page; of one that is damaged those that lie inside of it."""
        try:
            return self._reader.nodes(number, is_leaf, where)
        except (Damage, struct_error) as damage:
            reason = str(damage)
        with suppress(Damage, struct_error):
            # (nothing of it is lost)
            return self._reader.nodes(number, is_leaf, where, any_flags=True)
        self._lose(reason, leads=not is_leaf)
        return self._nodes_inside(number, is_leaf)

    def _nodes_inside(self, number: int, is_leaf: bool) -> list[Node]:
        """The nodes that lie inside of a page, whatever else is wrong with it."""
        size = self._meta.page_size
        page = os.pread(self._descriptor, size, number * size)
        found = []
        lower, upper = unpack_from("=HH", page, 12)
        if not 16 < lower <= upper:
            # Then there are so many that the first one begins behind them.
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
                # What is larger than this never lies in the page, whatever the flag says.
                is_large = flags & BIG_DATA or first > size // 2
                end = start + (8 if is_large else first)
                if key_size and end <= len(page):
                    found.append((first, page[start - key_size : start], page[start:end], flags | bool(is_large)))
        return found

    def _data(self, node: Node, where: str, any_pages: bool = False) -> bytes:
        """The data of a node. ``any_pages``: also of a large value whose pages do not say that they are one's."""
        size, _, data, flags = node
        if not flags & BIG_DATA:
            return data
        number = unpack_from("=Q", data)[0]
        if self._room < 0:
            raise Damage(f"{where} has more large values than there is room for")
        data = self._reader.large(number, size, where, any_pages)
        # (all of it: what is in it may look like a page)
        count = (15 + size) // self._meta.page_size + 1
        self._room -= count
        self._reached[number : number + count] = b"\1" * len(self._reached[number : number + count])
        return data

    def orphans(self) -> Iterator[tuple[bytes, bytes]]:
        """The pairs, in no order, on leaves whose header is not theirs, and on pages that a lost page led to, of
        whatever database.

        After all databases were read. None of the latter where the list of free pages was lost: pages that were given
        up have old records.
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
            self._losses.tell(f"{damage}: so what lost pages led to cannot be told from what was deleted")
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


def read_batches(pieces: Iterator[tuple[bytes, bytes]], losses: Losses) -> Iterator[tuple[int, bytes, bytes | None]]:
    """The changes in the log, oldest first: database, key, value (None: deleted). A batch that is not as it was written
    is left out as a whole."""
    numbered = ((NUMBER.unpack(key)[0], piece) for key, piece in pieces if len(key) == NUMBER.size)
    for transaction, group in groupby(numbered, key=lambda pair: pair[0] >> _PIECES):
        found = list(group)
        batch = b"".join(piece for _, piece in found)
        whole = [number & (1 << _PIECES) - 1 for number, _ in found] == list(range(len(found)))
        size, checksum, _, _ = _BATCH.unpack_from(batch) if len(batch) >= _BATCH.size else (-1, 0, 0, 0)
        body = batch[_BATCH.size :]
        if not whole or size != len(body) or crc32(body) != checksum:
            losses.tell(f"the sync in transaction {transaction}, which was in the log, is not as it was written: what "
                        f"it changed is lost, and what was there before is kept")
            continue
        at = 0
        while at < len(body):
            kind, key_size, size = _CHANGE.unpack(body[at : at + _CHANGE.size].ljust(_CHANGE.size, b"\0"))
            at += _CHANGE.size + key_size
            key, value = body[at - key_size : at], body[at : at + size]
            at += size
            if at > len(body):
                losses.tell(f"the end of the sync in transaction {transaction}, which was in the log, does not parse")
                break
            yield kind & ~_DELETED, key, None if kind & _DELETED else value
