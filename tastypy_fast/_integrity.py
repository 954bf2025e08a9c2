"""The invariants of a store on disk, checked one by one. Cost: a walk over everything."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any

from tastypy_fast._environment import Environment
from tastypy_fast._keys import decode_key, describe, index_key
from tastypy_fast._records import decode_record, decode_value
from tastypy_fast._status import block_facts
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["faults"]

_NUMBER = Struct("=q")
_BLOCK = 500
_NO_PAYLOAD = 0


def faults(environment: Environment) -> Iterator[str]:
    """What is wrong with the store as it was last synced, a sentence each. The caller holds the lock."""
    with environment.begin_reading() as txn:
        yield from _faults(environment, txn)


def _faults(environment: Environment, txn: Any) -> Iterator[str]:
    numbers = set()
    for raw_number, record in txn.cursor(environment.values):
        number = _NUMBER.unpack(raw_number)[0]
        numbers.add(number)
        yield from _record_faults(environment, txn, number, raw_number, record)
    indexed = 0
    for index, raw_number in txn.cursor(environment.order):
        indexed += 1
        if len(raw_number) != 8 or _NUMBER.unpack(raw_number)[0] not in numbers:
            yield f"the index entry {index!r} names no record"
    if indexed != len(numbers):
        yield f"there are {len(numbers)} records and {indexed} index entries"
    noted = txn.get(b"next", db=environment.meta)
    if environment.writable:  # a reader does not keep up with the next number
        if numbers and environment.next_order <= max(numbers):
            yield "the next order number is taken already"
        if noted is not None and _NUMBER.unpack(noted)[0] > environment.next_order:
            yield "the next order number went back"
    if environment.status is not None:
        yield from _status_faults(environment, txn, numbers)


def _record_faults(environment: Environment, txn: Any, number: int, raw_number: bytes, record: bytes) -> Iterator[str]:
    try:
        codec, encoded, payload = decode_record(record)
        key = decode_key(encoded)
        if codec != _NO_PAYLOAD:
            value = decode_value(codec, payload)
            if environment.status is not None and (type(value) is not dict or not value):
                yield f"the data of task {describe(key)} is not a dict with something in it"
        elif environment.status is None:
            yield f"key {describe(key)} has no value"
    except PersistentOrderedDictIntegrityError as error:
        yield f"record {number}: {error}"
        return
    if txn.get(index_key(encoded), db=environment.order) != raw_number:
        yield f"the index does not name the record {number} of key {describe(key)}"


def _status_faults(environment: Environment, txn: Any, numbers: set[int]) -> Iterator[str]:
    tasks: set[int] = set()
    claimed: set[int] = set()
    for raw_block, raw in txn.cursor(environment.status):
        block = _NUMBER.unpack(raw_block)[0]
        try:
            head, expected, slots, in_hand = block_facts(raw)
        except PersistentOrderedDictIntegrityError as error:
            yield f"status block {block}: {error}"
            continue
        if head != expected:
            yield f"the head of status block {block} says {head}, its entries {expected}"
        if not slots:
            yield f"status block {block} is empty"
        tasks.update(block * _BLOCK + slot for slot in slots)
        claimed.update(block * _BLOCK + slot for slot in in_hand)
    if environment.claims is not None:
        yield from _claim_faults(environment, txn, claimed)
    for number in sorted(tasks ^ numbers):
        yield f"record {number} has no status" if number in numbers else f"status {number} has no record"


def _claim_faults(environment: Environment, txn: Any, claimed: set[int]) -> Iterator[str]:
    noted = {_NUMBER.unpack(number)[0] for number, _ in txn.cursor(environment.claims)}
    for number in sorted(claimed ^ noted):
        yield f"task {number} is {'not' if number in noted else ''} marked as claimed, and its claim says otherwise"
