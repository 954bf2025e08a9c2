"""A damaged store as what can be read of it: its records, statuses and index, with what the log has over them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from struct import Struct

from tastypy_fast._core.key_codec import decode_key
from tastypy_fast._core.record_codec import decode_record, decode_value
from tastypy_fast._core.status_block import STATUSES, TASKS_PER_BLOCK, block_facts
from tastypy_fast._store.options import FORMAT, KINDS
from tastypy_fast.exceptions import NewerFormatError, PersistentOrderedDictIntegrityError
from tastypy_fast.maintenance._page_salvage import Losses, Salvage, read_batches

__all__ = ["Source", "number_of"]

_NUMBER = Struct("=q")
_CHANGE = Struct("=II")
# Order numbers from here on were never given out.
_END = 2**62
_VALUES, _ORDER, _STATUS = range(3)
# The engine's limit on keys.
_LONGEST = 511


def number_of(raw: bytes) -> int | None:
    """The order number, or the number of a block, that a store has written; None for what cannot be one."""
    number = _NUMBER.unpack(raw)[0] if len(raw) == _NUMBER.size else -1
    return number if 0 <= number < _END else None


class Source:
    """What can be read of one damaged store, to be gone through once in the order of the methods."""

    def __init__(self, path: str, descriptor: int, losses: Losses) -> None:
        """Raises PersistentOrderedDictIntegrityError where nothing can be read."""
        self._salvage = Salvage(descriptor, losses)
        self._losses = losses
        meta = dict(self._salvage.items(b"meta", any_page=True))
        version = meta.get(b"format", b"")
        if version.isdigit() and int(version) > FORMAT:
            raise NewerFormatError(
                f"the store at {path} has format {int(version)}; this version of tastypy_fast reads formats up to "
                f"{FORMAT}: update it (pip install --upgrade tastypy_fast)"
            )
        size = meta.get(b"file_size", b"")
        self.file_size = int(size) if size.isdigit() and 0 < int(size) < _END else 1000
        self.next = number_of(meta.get(b"next", b"")) or 0
        self._records: dict[int, bytes | None] = {}
        self._index: dict[bytes, bytes | None] = {}
        # For each block what is to be changed: slot to entry.
        self._entries: dict[int, dict[int, int]] = {}
        self._read_log()
        self.kind = self._find_kind(meta)

    def _read_log(self) -> None:
        # (each batch has a checksum)
        for database, key, value in read_batches(self._salvage.items(b"log", any_page=True), self._losses):
            number = number_of(key)
            if database == _ORDER:
                if 0 < len(key) <= _LONGEST:
                    self._index[key] = value
            elif number is None or database not in (_VALUES, _STATUS):
                continue
            elif database == _VALUES:
                self._records[number] = value
            elif value is None:
                self._entries[number] = dict.fromkeys(range(TASKS_PER_BLOCK), 0)
            else:
                changes = _CHANGE.iter_unpack(value[: len(value) // _CHANGE.size * _CHANGE.size])
                self._entries.setdefault(number, {}).update(
                    (slot, entry) for slot, entry in changes if slot < TASKS_PER_BLOCK
                )

    def _find_kind(self, meta: dict[bytes, bytes]) -> bytes:
        kind = meta.get(b"kind", b"")
        if b"status" in self._salvage.databases:
            return b"tracker"
        if kind in KINDS:
            return kind
        if b"values" in self._salvage.databases and b"order" in self._salvage.databases:
            return b"dict"  # (a tracker's would be there, too)
        for name in self._salvage.databases:
            for _ in self._salvage.items(name, quiet=True):
                pass
        found = set()
        for key, data in self._salvage.orphans():
            if key == b"kind" and data in KINDS:
                return data
            if _is_record(data) or _is_block(data):
                found.add(_is_record(data))
        if not found and b"values" not in self._salvage.databases:
            raise PersistentOrderedDictIntegrityError("its list of databases cannot be read, nor any record")
        kind = b"tracker" if False in found else b"dict"
        self._losses.tell(f"of what kind it is cannot be read; going by what is left of it it is {KINDS[kind]}")
        return kind

    def records(self) -> Iterator[tuple[int | None, bytes]]:
        """(order number, None where that is not known; record) of each; nearly always in order."""
        for raw, record in self._salvage.items(b"values"):
            number = number_of(raw)
            if number not in self._records:
                yield number, record
        for number, changed in self._records.items():
            if changed is not None:
                yield number, changed

    def statuses(self) -> Iterator[tuple[int, bytes]]:
        """(number of a block, block) of each whose size is right."""
        for raw, block in self._salvage.items(b"status"):
            number = number_of(raw)
            if number is not None and len(block) == STATUSES.size:
                yield number, block

    def orphans(self) -> Iterator[tuple[int, bytes, bool]]:
        """(number, record or block, whether it is a record) of what is on pages that damaged ones led to."""
        for name in (b"order", b"images", b"claims", b"log"):
            # What is theirs belongs to nothing else.
            for _ in self._salvage.items(name, quiet=True):
                pass
        for raw, data in self._salvage.orphans():
            number = number_of(raw)
            if number is not None and number not in self._records:
                if _is_record(data):
                    yield number, data, True
                elif _is_block(data):
                    yield number, data, False

    def logged_entries(self) -> Iterator[tuple[int, dict[int, int]]]:
        """(number of a block, slot to entry) of what the log has over the blocks."""
        yield from self._entries.items()

    def index(self) -> Iterator[tuple[bytes, int | None]]:
        """(key as it is in the index, order number) of each entry that is left."""
        entries = ((key, raw) for key, raw in self._salvage.items(b"order", quiet=True) if key not in self._index)
        for key, raw in chain(entries, self._index.items()):
            if raw is not None:
                yield key, number_of(raw)


def _is_block(data: bytes) -> bool:
    try:
        head, expected, _, _ = block_facts(data)
    except PersistentOrderedDictIntegrityError:
        return False
    return head == expected


def _is_record(data: bytes) -> bool:
    try:
        codec, encoded, payload = decode_record(data)
        decode_key(encoded)
        if payload is not None:
            decode_value(codec, payload)
    except PersistentOrderedDictIntegrityError:
        return False
    return True
