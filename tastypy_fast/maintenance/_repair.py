"""Make a new store from the readable parts of a damaged one, in a subprocess."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby, islice
from typing import Any, NamedTuple

from tastypy_fast._core.key_codec import decode_key, describe, index_key
from tastypy_fast._core.record_codec import decode_record, decode_value, encode_record
from tastypy_fast._core.status_block import ABORTED, CLAIMED, DONE, ERROR, PRESENT, STATUSES, TASKS_PER_BLOCK, tries_in
from tastypy_fast._lmdb import engine
from tastypy_fast._lmdb.file_locks import ReaderLock
from tastypy_fast._lmdb.page_format import NUMBER
from tastypy_fast._lmdb.safe_files import open_regular
from tastypy_fast._lmdb.store_dir import DATA, OWNER, require_store
from tastypy_fast._store.options import Options
from tastypy_fast._store.store import Store
from tastypy_fast.exceptions import (
    DiskFullError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
)
from tastypy_fast.maintenance._as_opened import as_opened
from tastypy_fast.maintenance._damaged_store import DamagedStore
from tastypy_fast.maintenance._page_salvage import LossReport

__all__ = ["Repair", "repair_store"]

_NO_PAYLOAD, _PLAIN_JSON = 0, 1
# The index stores a digest for a key that is too long. A digest begins with this byte.
_DIGEST = b"\x1f"
# The limits of one transaction: records, bytes of records, status blocks.
_RUN, _RUN_BYTES, _RUN_BLOCKS = 1000, 4 << 20, 50


class Repair(NamedTuple):
    """The result of a repair.

    Attributes:
        kept: The number of keys in the new store.
        lost: One sentence for each loss.
        undone: The number of tasks that are kept as not done, because their status or data could not be read.
    """

    kept: int
    lost: list[str]
    undone: int = 0


class _Kept(NamedTuple):
    """A record to put into the new store."""

    number: int
    key: bytes
    record: bytes


def repair_store(path: str, folder: str) -> Iterator[Repair]:
    """Make a store in ``folder`` from the readable parts of the store at ``path``."""
    with as_opened(path) as source:
        yield _repaired(source, folder)


def _repaired(path: str, folder: str) -> Repair:
    require_store(path)
    # Keep writers out meanwhile. If the lock file is missing, no process can have the store open.
    lock = ReaderLock(path) if os.path.lexists(os.path.join(path, OWNER)) else None
    descriptor = open_regular(os.path.join(path, DATA), os.O_RDONLY)
    try:
        losses = LossReport()
        source = DamagedStore(path, descriptor, losses)
        new = Store(folder, Options(source.kind, "w", "unsafe", False, source.file_size))
        try:
            result = _StoreRepair(source, new, losses).run()
            # All is flushed, so a power cut can lose nothing of it. How the store is used decides the durability.
            new.forget_durability()
            return result
        finally:
            new.close()
    except PersistentOrderedDictIntegrityError as error:
        raise engine.damaged(path, f"{error}; it has no readable data, so restore a backup") from error
    except DiskFullError as error:
        raise DiskFullError(error.errno, "there is no room for the new store; nothing was made", folder) from error
    except (OSError, PersistentOrderedDictException):
        raise
    except Exception as error:
        # Report any other error as damage, because only damaged data cause it.
        raise engine.damaged(path, f"it cannot be read to its end ({type(error).__name__}: {error})") from error
    finally:
        os.close(descriptor)
        if lock is not None:
            lock.release()


class _StoreRepair:
    """Move the records and statuses of a damaged store into a new one."""

    def __init__(self, source: DamagedStore, new: Store, losses: LossReport) -> None:
        self._source = source
        self._new = new
        self._tracks = source.kind == b"tracker"
        self._losses = losses
        # For each lost record, the reason of the loss, and its key if that can be read.
        self._lost: dict[int, tuple[str, str]] = {}
        # Tasks whose data are lost, and status blocks whose headers contradict their entries.
        self._without_data: set[int] = set()
        self._doubtful: set[int] = set()
        self._strays: list[bytes] = []
        self._last = -1
        self._undone = 0

    def run(self) -> Repair:
        """Repair the store, and return the kept and lost parts."""
        self._keep_all(self._source.records())
        self._keep_blocks(self._source.statuses() if self._tracks else ())
        blocks: list[tuple[int, bytes]] = []
        self._keep_all(self._orphaned_records(blocks), overwrite=False)
        self._keep_blocks(blocks, overwrite=False)
        if self._tracks:
            self._keep_logged_entries()
        strays = enumerate(self._strays, max(self._last + 1, self._source.next))
        self._keep_all(strays)
        self._strays = []
        if self._tracks:
            self._rebuild_statuses()
        self._name_the_lost()
        following = max(self._last + 1, self._source.next)
        facts = {b"next": NUMBER.pack(following), **(self._source.facts if self._tracks else {})}
        self._new.write(lambda txn: txn.cursor(self._new.meta).putmulti(facts.items()))
        self._new.flush()
        return Repair(self._new.count(), self._losses.sentences(), self._undone)

    # Records and the index

    def _orphaned_records(self, blocks: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        for number, data, is_record in self._source.orphans():
            if is_record:
                yield number, data
            elif self._tracks:
                blocks.append((number, data))

    def _keep_all(self, records: Iterable[tuple[int | None, bytes]], overwrite: bool = True) -> None:
        run: list[_Kept] = []
        size = 0
        for number, record in records:
            kept = self._sound(number, record)
            if kept is None:
                continue
            run.append(kept)
            size += len(kept.record)
            if len(run) >= _RUN or size >= _RUN_BYTES:
                self._keep(run, overwrite)
                run, size = [], 0
        self._keep(run, overwrite)

    def _sound(self, number: int | None, record: bytes) -> _Kept | None:
        """Return the part of a record to keep. Returns None, and records the loss, if it has none."""
        encoded = b""
        try:
            encoded = _key_of(record)
            key = decode_key(encoded)
        except PersistentOrderedDictIntegrityError as error:
            self._lose(number, str(error), "")
            return None
        try:
            codec, _, payload = decode_record(record)
            value = None if codec == _NO_PAYLOAD else decode_value(codec, payload or b"")
            if self._tracks and codec != _NO_PAYLOAD and (type(value) is not dict or not value):
                raise PersistentOrderedDictIntegrityError("it is not a dict with data")
            if not self._tracks and codec == _NO_PAYLOAD:
                raise PersistentOrderedDictIntegrityError("it has no value")
        except PersistentOrderedDictIntegrityError as error:
            if not self._tracks:
                self._lose(number, str(error), describe(key))
                return None
            self._losses.add(f"the data of task {describe(key)} is lost ({error}); the task is kept as not done")
            record = encode_record(_NO_PAYLOAD, encoded, None)
            if number is not None:
                self._without_data.add(number)
        if number is None:
            self._losses.add(f"the position of key {describe(key)} is lost; it is now at the end")
            self._strays.append(record)
            return None
        self._last = max(self._last, number)
        return _Kept(number, encoded, record)

    def _lose(self, number: int | None, reason: str, key: str) -> None:
        if number is None:
            self._losses.add(f"{f'key {key}' if key else 'a record'} is lost: {reason}")
        else:
            self._lost[number] = reason, key

    def _keep(self, run: list[_Kept], overwrite: bool) -> None:
        twice, ousted = self._new.write(partial(self._put, run=run, overwrite=overwrite)) if run else ([], [])
        for earlier, key in twice:
            self._losses.add(f"key {describe(decode_key(key))} was stored twice; its older record {earlier} is dropped")
        for kept in ousted:
            self._losses.add(f"key {describe(decode_key(kept.key))} has the sequence number of another key, so its own "
                             f"position is lost; it is now at the end")
            self._strays.append(kept.record)
            # The status of this sequence number may belong to either key.
            self._without_data.add(kept.number)

    def _put(
        self, txn: Any, run: list[_Kept], overwrite: bool
    ) -> tuple[list[tuple[int, bytes]], list[_Kept]]:
        """Put records and their index entries. Without ``overwrite``, existing records stay.

        Of two records with the same key the later one stays, because a key that is deleted and added again gets a
        greater sequence number. Returns (sequence number, key) of the records that were dropped, and the records whose
        sequence number another key has.
        """
        values, order = self._new.values, self._new.order
        twice, ousted = [], []
        for kept in run:
            number, index = NUMBER.pack(kept.number), index_key(kept.key)
            there = txn.get(number, db=values)
            if there is not None and not overwrite:
                continue
            if there is not None and _key_of(there) != kept.key:
                ousted.append(kept)
                continue
            before = txn.get(index, db=order)
            if before is not None and before != number:
                earlier = min(kept.number, NUMBER.unpack(before)[0])
                twice.append((earlier, kept.key))
                if earlier == kept.number:
                    continue
                txn.delete(before, db=values)
            txn.put(index, number, db=order)
            txn.put(number, kept.record, db=values)
        return twice, ousted

    # Statuses

    def _keep_blocks(self, blocks: Iterable[tuple[int, bytes]], overwrite: bool = True) -> None:
        """Put status blocks unchanged. ``_rebuild_statuses`` makes them fit the records later."""
        blocks = iter(blocks)
        while run := list(islice(blocks, _RUN)):
            self._doubtful.update(number for number, block in run if _counts_of(STATUSES.unpack(block)[8:]) !=
                                  STATUSES.unpack(block)[:5])
            pairs = [(NUMBER.pack(number), block) for number, block in run]
            self._new.write(partial(self._put_blocks, pairs=pairs, overwrite=overwrite))

    def _keep_logged_entries(self) -> None:
        entries = self._source.logged_entries()
        while run := list(islice(entries, _RUN_BLOCKS)):
            self._new.write(partial(self._change_blocks, run=run))

    def _put_blocks(self, txn: Any, pairs: list[tuple[bytes, bytes]], overwrite: bool) -> None:
        txn.cursor(self._new.status).putmulti(pairs, overwrite=overwrite)

    def _change_blocks(self, txn: Any, run: list[tuple[int, dict[int, int]]]) -> None:
        for number, changes in run:
            raw = txn.get(NUMBER.pack(number), db=self._new.status)
            fields = list(STATUSES.unpack(raw or bytes(STATUSES.size)))
            for slot, entry in changes.items():
                fields[8 + slot] = entry
            txn.put(NUMBER.pack(number), STATUSES.pack(*fields), db=self._new.status)

    def _rebuild_statuses(self) -> None:
        """Give each record a status, and remove all other statuses."""
        following: int | None = 0
        while following is not None:
            following, facts = self._new.write(partial(self._rebuild_some, start=following))
            for text, undone, gone in facts:
                self._undone += undone
                if text:
                    self._losses.add(text)
                for number in gone:
                    self._lost.setdefault(number, ("its record is gone", ""))

    def _rebuild_some(self, txn: Any, start: int) -> tuple[int | None, list[tuple[str, int, list[int]]]]:
        """Rebuild some blocks from ``start`` on.

        Returns the next block, None at the end, and the results of ``_rebuild_block()``.
        """
        cursor = txn.cursor(self._new.values)
        found = cursor.set_range(NUMBER.pack(start * TASKS_PER_BLOCK))
        numbers = (NUMBER.unpack(raw)[0] for raw in cursor.iternext(values=False)) if found else iter(())
        records = groupby(numbers, key=lambda number: number // TASKS_PER_BLOCK)
        facts = []
        for block, tasks in islice(records, _RUN_BLOCKS):
            facts.append(self._rebuild_block(txn, block, list(tasks)))
            facts.extend(self._drop_blocks(txn, start, block))
            start = block + 1
        if len(facts) == 0:
            return None, self._drop_blocks(txn, start, None)
        return start, facts

    def _drop_blocks(self, txn: Any, first: int, end: int | None) -> list[tuple[str, int, list[int]]]:
        """Remove the blocks from ``first`` to ``end`` that have no records."""
        facts = []
        cursor = txn.cursor(self._new.status)
        found = cursor.set_range(NUMBER.pack(first))
        while found and (end is None or NUMBER.unpack(cursor.key())[0] < end):
            facts.append(self._rebuild_block(txn, NUMBER.unpack(cursor.key())[0], []))
            found = cursor.set_range(NUMBER.pack(first))
        return facts

    def _rebuild_block(self, txn: Any, block: int, numbers: list[int]) -> tuple[str, int, list[int]]:
        """Write one status block for the tasks ``numbers``.

        Returns three facts: a sentence about losses, the number of tasks that are kept as not done, and the sequence
        numbers that have a status but no record.
        """
        raw_block = NUMBER.pack(block)
        before = STATUSES.unpack(txn.get(raw_block, db=self._new.status) or bytes(STATUSES.size))[8:]
        entries = [0] * TASKS_PER_BLOCK
        unknown, without_data = [], 0
        for number in numbers:
            entry = before[number % TASKS_PER_BLOCK]
            if not entry & PRESENT:
                unknown.append(number)
            without_data += number in self._without_data
            sound = entry & PRESENT and number not in self._without_data
            if sound:
                entries[number % TASKS_PER_BLOCK] = entry & ~CLAIMED
            else:
                record = txn.get(NUMBER.pack(number), db=self._new.values)
                entries[number % TASKS_PER_BLOCK] = PRESENT | ERROR if _has_error(record) else PRESENT
        there = set(numbers)
        gone = [block * TASKS_PER_BLOCK + slot for slot, entry in enumerate(before)
                if entry & PRESENT and block * TASKS_PER_BLOCK + slot not in there]
        if numbers:
            txn.put(raw_block, STATUSES.pack(*_counts_of(entries), 0, 0, 0, *entries), db=self._new.status)
        else:
            txn.delete(raw_block, db=self._new.status)
        text = ""
        if unknown:
            text = f"the status of {self._name_some(txn, unknown)} cannot be read; kept as not done"
        elif block in self._doubtful and numbers:
            text = (f"the status block of {self._name_some(txn, numbers)} has counts that do not fit its entries; the "
                    f"entries are kept, and one of them may be wrong")
        return text, len(set(unknown)) + without_data - len(self._without_data.intersection(unknown)), gone

    def _name_some(self, txn: Any, numbers: list[int]) -> str:
        first, last = (describe(decode_key(_key_of(txn.get(NUMBER.pack(number), db=self._new.values))))
                       for number in (numbers[0], numbers[-1]))
        return f"task {first}" if len(numbers) == 1 else f"{len(numbers)} tasks from {first} to {last}"

    # Naming the losses

    def _name_the_lost(self) -> None:
        """Report the lost records, by key if the index has it."""
        entries = self._source.index()
        while run := list(islice(entries, _RUN)):
            with self._new.begin_reading() as txn:
                there = dict(txn.cursor(self._new.order).getmulti(sorted(key for key, _ in run)))
                for key, number in run:
                    if key not in there:
                        self._name_lost(txn, key, number)
                    elif number is not None and number < self._last:
                        self._name_misplaced(txn, there[key], number)
        for number, (reason, name) in sorted(self._lost.items()):
            self._losses.add(f"{f'key {name}' if name else f'record {number}'} is lost: {reason}")

    def _name_misplaced(self, txn: Any, raw: bytes, number: int) -> None:
        """Report a key that the index had at another sequence number, unless another record has this number now."""
        if raw != NUMBER.pack(number) and txn.get(NUMBER.pack(number), db=self._new.values) is None:
            key = describe(decode_key(_key_of(txn.get(raw, db=self._new.values))))
            self._losses.add(f"the position of key {key} may be wrong: its record has sequence number "
                             f"{NUMBER.unpack(raw)[0]} and the index has {number}; the one of the record is kept")

    def _name_lost(self, txn: Any, index: bytes, number: int | None) -> None:
        """Report an entry of the index whose key is not in the new store. The entry itself may be damaged."""
        reason, name = self._lost.pop(-1 if number is None else number, ("", ""))
        try:
            name = describe(decode_key(index))
        except PersistentOrderedDictIntegrityError:
            if index[:1] != _DIGEST and not name:
                return
            name = name or "(too long for the index)"
        record = None if number is None else txn.get(NUMBER.pack(number), db=self._new.values)
        if reason:
            self._losses.add(f"key {name} is lost: {reason}")
        elif record is None:
            self._losses.add(f"key {name} of the index has no record; it is lost, unless the index entry is damaged")
        else:
            other = describe(decode_key(_key_of(record)))
            self._losses.add(f"the index has key {name} for the record of key {other}; one of the two is damaged, and "
                             f"the key of the record is kept")


def _key_of(record: bytes) -> bytes:
    """Return the encoded key of a record, even if its first byte or its value is damaged."""
    for head in (bytes([_PLAIN_JSON]), bytes([_NO_PAYLOAD])):
        try:
            return decode_record(head + record[1:])[1]
        except PersistentOrderedDictIntegrityError:
            continue
    return decode_record(record)[1]


def _has_error(record: bytes) -> bool:
    """Return whether the data of a task have an error, ``_error``."""
    codec, _, payload = decode_record(record)
    value = None if payload is None else decode_value(codec, payload)
    return isinstance(value, dict) and "_error" in value


def _counts_of(entries: Iterable[int]) -> tuple[int, int, int, int, int]:
    """Return the counts of these entries: tasks, done, aborted, tried, neither done nor aborted."""
    there = [entry for entry in entries if entry & PRESENT]
    return (
        len(there),
        sum(1 for entry in there if entry & DONE),
        sum(1 for entry in there if entry & ABORTED),
        sum(1 for entry in there if tries_in(entry) > 0),
        sum(1 for entry in there if not entry & (DONE | ABORTED)),
    )
