"""Claims: which worker has a task of a shared tracker in hand, so that no other one gets it.

A claimed task has a flag in its status, for the scans, and an entry in the database ``claims`` (see _claimrecord).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t

from tastypy_fast._core.claim_record cimport Claim, decode_claim, encode_claim
from tastypy_fast._core.status_writer cimport StatusWriter
from tastypy_fast._shared.direct_writes cimport begin_directly, finish, put_status
from tastypy_fast._core.cache_entry cimport Entry, pack
from tastypy_fast._core.iterators cimport KEYS, VALUES
from tastypy_fast._core.record_codec cimport Record, parse_record
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.status_block cimport (
    ABORTED,
    CLAIMED,
    DONE,
    TASKS_PER_BLOCK,
    FLAGS,
    MAX_TRIES,
    PRESENT,
    make_entry,
    tries_of,
)
from tastypy_fast._core.task_cache cimport TaskCache

from bisect import bisect_right

from tastypy_fast._core.claim_record import read_claim
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["claim_one", "key_at", "order_of"]


cdef object claim_at(TaskCache tasks, long long order):
    """The ClaimRecord of a task, None when it has none."""
    raw = tasks.get(pack(order), tasks.store.claims)
    return None if raw is None else read_claim(raw)


cdef int put_claim(TaskCache tasks, StatusWriter blocks, long long order, uint32_t entry, int tries,
                   Claim* claim) except -1:
    """Claim a task, whose status is ``entry`` so far and is to have so many ``tries``. finish() writes it."""
    cdef bytes number = pack(order)
    put_status(tasks, blocks, number, entry, make_entry((entry & FLAGS) | CLAIMED, tries))
    claim.tries = tries
    blocks.claims.append((number, encode_claim(claim)))
    return 0


cdef list claim_next(TaskCache tasks, long long after, long long limit, bint allow_aborted, long long max_tries,
                     list own, object may_take, Claim* claim):
    """Claim up to ``limit`` tasks above the order number ``after`` for a worker; the order numbers.

    ``own``: order numbers, ascending, of claimed tasks that may be offered again if ``may_take`` says so of their
    ClaimRecord. ``claim``: that of the first one; its place goes up with each. The caller is in a write transaction.
    """
    cdef StoreBase store = tasks.store
    cdef StatusWriter blocks
    cdef list chosen = []
    cdef long long order
    cdef uint32_t entry, mask = PRESENT | DONE | (0 if allow_aborted else ABORTED)
    tasks.begin_op()
    try:
        begin_directly(tasks)
        # (one who was tried as often as can be counted is left alone)
        if max_tries == 0:
            max_tries = MAX_TRIES
        blocks = StatusWriter(store.snapshot, store.status)
        # Nearly always the next task lies in the block of the last one.
        order = after
        while len(chosen) < limit and (order + 1) // TASKS_PER_BLOCK == (after + 1) // TASKS_PER_BLOCK:
            order = blocks.find(order + 1, PRESENT, mask | CLAIMED, max_tries)
            if order < 0:
                break
            chosen.append(order)
        if len(chosen) < limit:
            order = ((after + 1) // TASKS_PER_BLOCK + 1) * TASKS_PER_BLOCK - 1
            chosen += tasks.status.scan(order, limit - len(chosen), PRESENT, mask | CLAIMED, max_tries)
        for position in range(bisect_right(own, after), len(own)):
            order = own[position]
            if len(chosen) >= limit and order > chosen[limit - 1]:
                break
            entry = blocks.get(order)
            if entry & (mask | CLAIMED) == PRESENT | CLAIMED and tries_of(entry) < max_tries:
                found = claim_at(tasks, order)
                if found is None or may_take(found):
                    chosen.append(order)
                    chosen.sort()
        del chosen[limit:]
        for order in chosen:
            entry = blocks.get(order)
            put_claim(tasks, blocks, order, entry, tries_of(entry) + 1, claim)
            claim.position += 1
        finish(tasks, blocks)
        return chosen
    finally:
        tasks.end_op()


def claim_one(TaskCache tasks not None, bytes key not None, bint allow_aborted, long long max_tries, may_take,
              waits, record not None):
    """Claim one task, if it is to be done: True, or False; None when another worker has it. As claim_next().

    ``waits`` says of the ClaimRecord of what may be taken whether it was claimed and not handed out: then this is
    that try, if nobody has set the tries back since.
    """
    cdef StoreBase store = tasks.store
    cdef Claim claim
    cdef StatusWriter blocks
    cdef long long order
    cdef uint32_t entry
    cdef int tries
    claim.worker, claim.slot, claim.position, claim.since, claim.tries = record
    tasks.begin_op()
    try:
        begin_directly(tasks)
        order = tasks.find_seq(key)
        blocks = StatusWriter(store.snapshot, store.status)
        entry = blocks.get(order)
        if not entry & PRESENT:
            raise tasks.damaged(tasks.key_of(key), "the task has no status")
        if entry & DONE or (entry & ABORTED and not allow_aborted):
            return False
        found = claim_at(tasks, order) if entry & CLAIMED else None
        tries = tries_of(entry)
        if found is not None and found.tries <= tries and may_take(found) and waits(found):
            tries -= 1
        if tries >= (max_tries if max_tries else MAX_TRIES):
            return False
        if found is not None and not may_take(found):
            return None
        put_claim(tasks, blocks, order, entry, tries + 1, &claim)
        finish(tasks, blocks)
        return True
    finally:
        tasks.end_op()


def order_of(TaskCache tasks not None, bytes key not None):
    """The order number of a task; -1 when there is none."""
    tasks.begin_op()
    try:
        return tasks.find_seq(key)
    finally:
        tasks.end_op()


def key_at(TaskCache tasks not None, long long order):
    """The key of a task; None when there is no task of this order number."""
    return read_task(tasks, order, KEYS, NULL)


cdef object read_task(TaskCache tasks, long long order, int kind, Claim* claim):
    """What an iterator hands out for a task: its key, its dict or both; None when it is not there any more, or, if a
    ``claim`` is given, not claimed like that."""
    tasks.begin_op()
    try:
        if claim != NULL and not is_claimed_as(tasks, order, claim):
            return None
        raw = tasks.get(pack(order), tasks.store.values)
        if raw is None:
            return None
        return task_from_record(tasks, order, raw, kind)
    finally:
        tasks.end_op()


cdef bint is_claimed_as(TaskCache tasks, long long order, Claim* claim) except -1:
    cdef Claim found
    raw = tasks.get(pack(order), tasks.store.claims)
    if raw is None:
        return False
    decode_claim(raw, &found)
    return found.worker == claim.worker and found.slot == claim.slot and found.position == claim.position


cdef bint is_still_claimed(TaskCache tasks, long long order, Claim* claim, long long since) except -1:
    """Whether a task is claimed like that, as it was in the transaction of number ``since``: nobody need look where
    that is the last one. (-1: of a transaction that is not known to have been committed.)"""
    tasks.begin_op()
    try:
        if since >= 0 and tasks.store.transient and tasks.snapshot_id == since:
            return True
        return is_claimed_as(tasks, order, claim)
    finally:
        tasks.end_op()


cdef list keys_at(TaskCache tasks, list orders):
    """The keys of tasks, None for those that are not there."""
    cdef list numbers = [pack(order) for order in orders]
    cdef dict found
    tasks.begin_op()
    try:
        found = tasks.get_many(numbers, tasks.store.values)
        return [task_from_record(tasks, order, found[number], KEYS) if number in found else None
                for order, number in zip(orders, numbers)]
    finally:
        tasks.end_op()


cdef object task_from_record(TaskCache tasks, long long order, bytes raw, int kind):
    cdef Record record
    cdef Entry entry
    cdef bytes encoded
    try:
        parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), &record)
    except PersistentOrderedDictIntegrityError as error:
        raise tasks.damaged("?", error) from error
    encoded = record.key[:record.key_size]
    key = tasks.key_of(encoded)
    if kind == KEYS:
        return key
    entry = tasks.entry_from_record(encoded, order, raw)
    value = tasks.decode(encoded, order, entry.codec, entry.payload)
    return value if kind == VALUES else (key, value)
