"""Read the records, statuses and index of a damaged store, with the changes of its write-ahead log applied."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from struct import Struct

from tastypy_fast._core.key_codec import decode_key
from tastypy_fast._core.record_codec import decode_record, decode_value
from tastypy_fast._core.status_block import STATUSES, TASKS_PER_BLOCK, block_facts
from tastypy_fast._inspect.store_info import LIMIT, RUN
from tastypy_fast._lmdb.page_format import MAX_KEY_SIZE, NUMBER
from tastypy_fast._store.options import FORMAT, KINDS
from tastypy_fast.exceptions import NewerFormatError, PersistentOrderedDictIntegrityError
from tastypy_fast.maintenance._page_salvage import LossReport, PageSalvage, read_log_batches

__all__ = ["DamagedStore", "decode_number"]

_CHANGE = Struct("=II")
# Sequence numbers are below this number.
_END = 2**62
_VALUES, _ORDER, _STATUS = range(3)


def decode_number(raw: bytes) -> int | None:
    """Decode a sequence number or block number. Returns None if ``raw`` cannot be one."""
    number = NUMBER.unpack(raw)[0] if len(raw) == NUMBER.size else -1
    return number if 0 <= number < _END else None


class DamagedStore:
    """The readable parts of one damaged store.

    Call each method once, in the order in which they are defined.
    """

    def __init__(self, path: str, descriptor: int, losses: LossReport) -> None:
        """Raises PersistentOrderedDictIntegrityError if nothing can be read."""
        self._salvage = PageSalvage(descriptor, losses)
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
        self.next = decode_number(meta.get(b"next", b"")) or 0
        # Facts for display, whose readers ignore what they cannot read.
        self.facts = {name: meta[name] for name in (LIMIT, RUN) if name in meta}
        self._records: dict[int, bytes | None] = {}
        self._index: dict[bytes, bytes | None] = {}
        # The logged changes of each status block, as position to entry.
        self._entries: dict[int, dict[int, int]] = {}
        self._read_log()
        self.kind = self._find_kind(meta)

    def _read_log(self) -> None:
        # Also read pages that look damaged, because each batch of the log has a checksum.
        for database, key, value in read_log_batches(self._salvage.items(b"log", any_page=True), self._losses):
            number = decode_number(key)
            if database == _ORDER:
                if 0 < len(key) <= MAX_KEY_SIZE:
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
                    (position, entry) for position, entry in changes if position < TASKS_PER_BLOCK)

    def _find_kind(self, meta: dict[bytes, bytes]) -> bytes:
        kind = meta.get(b"kind", b"")
        if b"status" in self._salvage.databases:
            return b"tracker"
        if kind in KINDS:
            return kind
        if b"values" in self._salvage.databases and b"order" in self._salvage.databases:
            return b"dict"  # a tracker would have the database of statuses, too
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
            raise PersistentOrderedDictIntegrityError("neither its list of databases nor any record can be read")
        kind = b"tracker" if False in found else b"dict"
        self._losses.add(f"the kind of the store cannot be read; its remaining data look like {KINDS[kind]}")
        return kind

    def records(self) -> Iterator[tuple[int | None, bytes]]:
        """Yield (sequence number or None if it is lost, record), nearly always in order."""
        for raw, record in self._salvage.items(b"values"):
            number = decode_number(raw)
            if number not in self._records:
                yield number, record
        for number, changed in self._records.items():
            if changed is not None:
                yield number, changed

    def statuses(self) -> Iterator[tuple[int, bytes]]:
        """Yield (block number, block) for each status block of the right size."""
        for raw, block in self._salvage.items(b"status"):
            number = decode_number(raw)
            if number is not None and len(block) == STATUSES.size:
                yield number, block

    def orphans(self) -> Iterator[tuple[int, bytes, bool]]:
        """Yield (number, record or block, whether it is a record) from pages that only damaged pages refer to."""
        for name in (b"order", b"images", b"claims", b"log"):
            # Mark the pages of these databases as used, because they would otherwise count as lost pages of records.
            for _ in self._salvage.items(name, quiet=True):
                pass
        for raw, data in self._salvage.orphans():
            number = decode_number(raw)
            if number is not None and number not in self._records:
                if _is_record(data):
                    yield number, data, True
                elif _is_block(data):
                    yield number, data, False

    def logged_entries(self) -> Iterator[tuple[int, dict[int, int]]]:
        """Yield (block number, position to entry) for the status changes in the log."""
        yield from self._entries.items()

    def index(self) -> Iterator[tuple[bytes, int | None]]:
        """Yield (key as the index stores it, sequence number) for each readable entry of the index."""
        entries = ((key, raw) for key, raw in self._salvage.items(b"order", quiet=True) if key not in self._index)
        for key, raw in chain(entries, self._index.items()):
            if raw is not None:
                yield key, decode_number(raw)


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
