"""Check the invariants of a store on disk, for ``_check()`` and ``verify()``.

Cost: one walk over all records, index entries, status blocks and claims, in constant memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any

from tastypy_fast._core.key_codec import decode_key, describe, index_key
from tastypy_fast._core.record_codec import decode_record, decode_value
from tastypy_fast._core.status_block import HEAD, TASKS_PER_BLOCK, block_facts
from tastypy_fast._core.status_summary import SUMMARY_KEY, StatusSummary
from tastypy_fast._lmdb.page_format import NUMBER
from tastypy_fast._store.store import Store
from tastypy_fast._store.stored_claims import read_stored_claims
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["find_violations"]

_NO_PAYLOAD = 0
# The kinds of sets of sequence numbers that are compared block by block.
RECORDS, TASKS, CLAIMED, CLAIMS, UNREADABLE = range(5)


def find_violations(store: Store) -> Iterator[str]:
    """Yield a sentence for each violated invariant of the last synced state. The caller holds the lock."""
    with store.begin_reading() as txn:
        yield from _violations(store, txn)


def _violations(store: Store, txn: Any) -> Iterator[str]:
    records = 0
    last = -1
    for raw_number, record in txn.cursor(store.values):
        records += 1
        number = NUMBER.unpack(raw_number)[0]
        last = max(last, number)
        yield from _record_violations(store, txn, number, raw_number, record)
    indexed = 0
    named = txn.cursor(store.values)
    for index, raw_number in txn.cursor(store.order):
        indexed += 1
        if len(raw_number) != 8 or not named.set_key(raw_number):
            yield f"the index entry {index!r} refers to no record"
    if indexed != records:
        yield f"there are {records} records and {indexed} index entries"
    noted = txn.get(b"next", db=store.meta)
    if store.writable:  # a reader does not update its next sequence number
        if store.next_seq <= last:
            yield "the next sequence number is already in use"
        if noted is not None and NUMBER.unpack(noted)[0] > store.next_seq:
            yield "the stored next sequence number is larger than the one in memory"
    if store.status is not None:
        yield from _status_violations(store, txn)


def _record_violations(store: Store, txn: Any, number: int, raw_number: bytes, record: bytes) -> Iterator[str]:
    try:
        codec, encoded, payload = decode_record(record)
        key = decode_key(encoded)
        if codec != _NO_PAYLOAD:
            value = decode_value(codec, payload)
            if store.status is not None and (type(value) is not dict or not value):
                yield f"the data of task {describe(key)} is not a dict with at least one entry"
        elif store.status is None:
            yield f"key {describe(key)} has no value"
    except PersistentOrderedDictIntegrityError as error:
        yield f"record {number}: {error}"
        return
    if txn.get(index_key(encoded), db=store.order) != raw_number:
        yield f"the index does not refer to record {number} of key {describe(key)}"


def _status_violations(store: Store, txn: Any) -> Iterator[str]:
    summary, is_sound = {}, True
    for raw_block, raw in txn.cursor(store.status):
        block = NUMBER.unpack(raw_block)[0]
        summary[block] = raw[: HEAD.size]
        try:
            head, expected, slots, _ = block_facts(raw)
        except PersistentOrderedDictIntegrityError as error:
            is_sound = False
            yield f"status block {block}: {error}"
            continue
        if head != expected:
            is_sound = False
            yield f"status block {block} has the totals {head}, but its entries have {expected}"
        if not slots:
            yield f"status block {block} is empty"
    if is_sound:
        left = txn.get(SUMMARY_KEY, db=store.meta)
        if left is not None:
            yield from _summary_violations(StatusSummary(left), summary, "on disk")
        if store.summary is not None and store.summary.is_current():
            yield from _summary_violations(store.summary, summary, "in memory")
    # Merge in the order of LMDB, in which negative sequence numbers, which only damaged files have, are the last.
    records = (NUMBER.unpack(raw_number)[0] for raw_number, _ in txn.cursor(store.values))
    parts = [_in_blocks(RECORDS, records), _in_status(txn.cursor(store.status))]
    if store.claims is not None:
        parts.append(_in_blocks(CLAIMS, (seq for seq, _ in read_stored_claims(store.db, txn))))
    for _, part in groupby(merge(*parts, key=itemgetter(0)), key=itemgetter(0)):
        found = {what: numbers for _, what, numbers in part}
        if UNREADABLE in found:
            continue
        yield from _differences(found, store.claims is not None)


def _summary_violations(summary: StatusSummary, expected: dict[int, bytes], where: str) -> Iterator[str]:
    if summary.is_damaged() or dict(summary.blocks()) != expected:
        yield f"the status summary {where} differs from the status blocks"


def _in_blocks(what: int, numbers: Iterable[int]) -> Iterator[tuple[int, int, set[int]]]:
    for block, found in groupby(numbers, key=lambda number: number // TASKS_PER_BLOCK):
        yield block % 2**64, what, set(found)


def _in_status(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[int, int, set[int]]]:
    for raw_block, raw in pairs:
        block = NUMBER.unpack(raw_block)[0]
        try:
            _, _, slots, in_hand = block_facts(raw)
        except PersistentOrderedDictIntegrityError:
            yield block % 2**64, UNREADABLE, set()
            continue
        yield block % 2**64, TASKS, {block * TASKS_PER_BLOCK + slot for slot in slots}
        yield block % 2**64, CLAIMED, {block * TASKS_PER_BLOCK + slot for slot in in_hand}


def _differences(found: dict[int, set[int]], has_claims: bool) -> Iterator[str]:
    records, tasks, claimed, noted = (found.get(what, set()) for what in (RECORDS, TASKS, CLAIMED, CLAIMS))
    for number in sorted(tasks ^ records):
        yield f"record {number} has no status" if number in records else f"status {number} has no record"
    for number in sorted(claimed ^ noted) if has_claims else ():
        yield f"task {number} " + (
            "has a claim, but is not marked as claimed" if number in noted else "is marked as claimed, but has no claim"
        )
