"""What can be read of a data file that may be damaged anywhere, without the storage engine.

Every page is checked before it is believed, as in _datafile; one that is not sound is left out and told. Where a page
that led to others is lost, these are found all the same: a page that is neither free nor reached was one of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from struct import Struct, unpack_from
from struct import error as struct_error
from zlib import crc32

from tastypy_fast._datafile import (
    BIG_DATA,
    BRANCH,
    LEAF,
    NO_ROOT,
    RECORD,
    SUB_DATA,
    Damage,
    Meta,
    Record,
    Walk,
    newest_meta,
    read_meta,
)
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["Losses", "Salvage", "read_batches"]

_NUMBER = Struct("=q")
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
        self._walk = Walk(descriptor, self._meta)
        self._pages = min(self._meta.last_page + 1, os.fstat(descriptor).st_size // self._meta.page_size)
        self._reached = bytearray(self._pages)
        # Whether a page was lost that may have led to others.
        self._lost_pages = False
        self._quiet = False
        self.databases = self._find_databases()

    def _find_meta(self) -> Meta:
        try:
            return newest_meta(self._descriptor)
        except (Damage, struct_error):
            pass
        found = []
        for number, page_size in [(0, 0), *((1, page_size) for page_size in _PAGE_SIZES)]:
            try:
                head = os.pread(self._descriptor, 48, 0)
                size = page_size or unpack_from("=I", head, 40)[0]
                if size in _PAGE_SIZES:
                    found.append(read_meta(self._descriptor, number, size))
            except (Damage, struct_error):
                continue
        if not found or not max(found).transaction:
            raise PersistentOrderedDictIntegrityError("neither of its first two pages is readable")
        self._losses.tell("one of the first two pages is damaged: if it was that of the last commit, this is lost")
        return max(found)

    def _find_databases(self) -> dict[bytes, Record]:
        found = {}
        for key, data, flags in self._nodes(self._meta.main, "the list of databases"):
            if flags & SUB_DATA and len(data) == RECORD.size:
                found[key] = Record(*RECORD.unpack(data))
        return found

    def items(self, name: bytes, quiet: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of a database in order, as far as they can be read. ``quiet``: what cannot be is not told."""
        if name in self.databases:
            self._quiet = quiet
            for key, data, _ in self._nodes(self.databases[name], f"database {name.decode()!r}"):
                yield key, data
                self._quiet = quiet
            self._quiet = False

    def _nodes(self, tree: Record, where: str) -> Iterator[tuple[bytes, bytes, int]]:
        pages = [tree.root] if tree.root != NO_ROOT else []
        left = self._pages
        while pages and left:
            left -= 1  # (pages may lead to each other in a circle)
            number = pages.pop()
            kind = self._reach(number, where)
            if kind == BRANCH:
                pages.extend(reversed(self._children(number, where)))
            elif kind == LEAF:
                yield from self._leaf(number, where)

    def _reach(self, number: int, where: str) -> int:
        """What kind of page it is; 0 for one that cannot be read."""
        if not 2 <= number < self._pages:
            self._lose(f"page {number} of {where} is missing")
            return 0
        self._reached[number] = 1
        own_number, _, flags = _PAGE_HEAD.unpack(os.pread(self._descriptor, _PAGE_HEAD.size,
                                                          number * self._meta.page_size))
        if own_number != number or flags not in (BRANCH, LEAF):
            self._lose(f"page {number} of {where} is overwritten")
            return 0
        return int(flags)

    def _lose(self, text: str, leads: bool = True) -> None:
        if not self._quiet:
            self._losses.tell(text)
            self._lost_pages |= leads

    def _children(self, number: int, where: str) -> list[int]:
        """The pages that a page leads to, up to the first that is not sound."""
        children = []
        try:
            for child, *_ in self._walk.nodes(number, False, where):
                children.append(child)
        except (Damage, struct_error) as damage:
            self._lose(str(damage))
        return children

    def _sound_nodes(self, number: int, where: str) -> list[tuple[int, bytes, bytes, int]]:
        """The nodes of a leaf; of one that is damaged those that lie inside of it."""
        try:
            return list(self._walk.nodes(number, True, where))
        except (Damage, struct_error) as damage:
            self._lose(str(damage), leads=False)
        size = self._meta.page_size
        page = os.pread(self._descriptor, size, number * size)
        found = []
        for at in range(16, min(unpack_from("=H", page, 12)[0], len(page) - 1) - 1, 2):
            offset = unpack_from("=H", page, at)[0]
            if 16 < offset <= len(page) - _NODE.size:
                low, high, flags, key_size = _NODE.unpack_from(page, offset)
                start = offset + _NODE.size + key_size
                end = start + (8 if flags & BIG_DATA else low | high << 16)
                if key_size and not flags & ~(BIG_DATA | SUB_DATA) and end <= len(page):
                    found.append((low | high << 16, page[start - key_size : start], page[start:end], flags))
        return found

    def _leaf(self, number: int, where: str) -> Iterator[tuple[bytes, bytes, int]]:
        for size, key, data, flags in self._sound_nodes(number, where):
            if not flags & BIG_DATA:
                yield key, data, flags
                continue
            try:
                yield key, self._large(unpack_from("=Q", data)[0], size, where), flags
            except (Damage, struct_error) as damage:
                self._lose(str(damage), leads=False)

    def _large(self, number: int, size: int, where: str) -> bytes:
        self._walk.overflow(number, size, where)
        data = os.pread(self._descriptor, size, number * self._meta.page_size + 16)
        if len(data) != size:
            raise Damage(f"a large value of {where} is cut short")
        # (all of it: what is in it may look like a page)
        count = (15 + size) // self._meta.page_size + 1
        self._reached[number : number + count] = b"\1" * len(self._reached[number : number + count])
        return data

    def orphans(self) -> Iterator[tuple[bytes, bytes]]:
        """The pairs, in no order, on pages that a lost page led to, of whatever database.

        After all databases were read. None where no page was lost, or the list of free pages was: pages that were given
        up have old records.
        """
        if not self._lost_pages:
            return
        try:
            for page in self._walk.free_pages():
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
                    for key, data, _ in self._leaf(number, "no tree"):
                        yield key, data


def read_batches(pieces: Iterator[tuple[bytes, bytes]], losses: Losses) -> Iterator[tuple[int, bytes, bytes | None]]:
    """The changes in the log, oldest first: database, key, value (None: deleted). A batch that is not as it was written
    is left out as a whole."""
    numbered = ((_NUMBER.unpack(key)[0], piece) for key, piece in pieces if len(key) == _NUMBER.size)
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
            kind, key_size, size = _CHANGE.unpack_from(body, at)
            at += _CHANGE.size
            key = body[at : at + key_size]
            at += key_size
            yield kind & ~_DELETED, key, None if kind & _DELETED else body[at : at + size]
            at += size
