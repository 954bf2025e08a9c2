"""Claims: which worker has a task of a shared tracker in hand, so that no other one gets it.

A claimed task has a flag in its status, for the scans, and an entry in the database ``claims``: order number to

    worker 8, lane 8, place 8, since 8 bytes (seconds since 1970, double)

A claim with a lane is one of a batch. It was handed out if its place is below what the worker's file says that
it has handed out in this lane; one without a lane (0) was handed out when it was committed.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from tastypy_fast._entries cimport Entry, pack
from tastypy_fast._iterate cimport KEYS, VALUES
from tastypy_fast._records cimport Record, parse_record
from tastypy_fast._status cimport (
    ABORTED,
    CLAIMED,
    DONE,
    ENTRIES,
    FLAGS,
    MAX_TRIES,
    PRESENT,
    Layout,
    add,
    decode_block,
    make_entry,
    tries_of,
)
from tastypy_fast._tracking cimport TrackerCache

from bisect import bisect_right
from collections import namedtuple

from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["ClaimRecord", "claim_next", "claim_one", "give_back", "order_of", "read_claim", "read_task",
           "restore_status"]

ClaimRecord = namedtuple("ClaimRecord", ("worker", "lane", "place", "since"))

cdef struct Claim:
    unsigned long long worker
    unsigned long long lane
    unsigned long long place
    double since


cdef int decode_claim(object raw, Claim* claim) except -1:
    if PyBytes_GET_SIZE(raw) != sizeof(Claim):
        raise PersistentOrderedDictIntegrityError("a claim has the wrong size")
    memcpy(claim, PyBytes_AS_STRING(raw), sizeof(Claim))
    return 0


def read_claim(bytes raw):
    """The ClaimRecord in an entry of the database."""
    cdef Claim claim
    decode_claim(raw, &claim)
    return ClaimRecord(claim.worker, claim.lane, claim.place, claim.since)


cdef bint is_free(TrackerCache tasks, long long order, may_take) except -1:
    """Whether a task that is claimed may be claimed all the same: ``may_take`` is asked about its ClaimRecord."""
    raw = tasks.get(pack(order), tasks.environment.claims)
    return raw is None or may_take(read_claim(raw))


cdef int put_claim(TrackerCache tasks, long long order, uint32_t entry, Claim* claim) except -1:
    tasks.set_status(order, None, make_entry((entry & FLAGS) | CLAIMED, tries_of(entry) + 1))
    tasks.environment.snapshot.put(
        pack(order), PyBytes_FromStringAndSize(<const char*>claim, sizeof(Claim)), db=tasks.environment.claims
    )
    return 0


def claim_next(TrackerCache tasks not None, long long after, int limit, bint allow_aborted, long long max_tries,
               list own not None, may_take, record not None):
    """Claim up to ``limit`` tasks above the order number ``after`` for a worker; the order numbers.

    ``own``: order numbers, ascending, of claimed tasks that may be offered again if ``may_take`` says so of their
    ClaimRecord. ``record``: that of the first one; of the others the place goes up by one each. The caller is in a
    write transaction.
    """
    cdef Claim claim
    cdef list chosen
    cdef long long order
    cdef uint32_t entry, mask = PRESENT | DONE | (0 if allow_aborted else ABORTED)
    claim.worker, claim.lane, claim.place, claim.since = record
    tasks.enter()
    try:
        tasks.sync(False)
        # (one who was tried as often as can be counted is left alone)
        if max_tries == 0:
            max_tries = MAX_TRIES
        chosen = tasks.status.scan(after, limit, PRESENT, mask | CLAIMED, max_tries)
        for position in range(bisect_right(own, after), len(own)):
            order = own[position]
            if len(chosen) >= limit and order > chosen[limit - 1]:
                break
            entry = tasks.status.get(order)
            if entry & (mask | CLAIMED) == PRESENT | CLAIMED and tries_of(entry) < max_tries \
                    and is_free(tasks, order, may_take):
                chosen.append(order)
                chosen.sort()
        del chosen[limit:]
        for order in chosen:
            put_claim(tasks, order, tasks.status.get(order), &claim)
            claim.place += 1
        # At once: what ends a claim later is seen by its flag's being on disk.
        tasks.sync(False)
        return chosen
    finally:
        tasks.leave()


def claim_one(TrackerCache tasks not None, bytes key not None, bint allow_aborted, long long max_tries, may_take,
              record not None):
    """Claim one task, if it is to be done: True, or False; None when another worker has it. As claim_next()."""
    cdef Claim claim
    cdef long long order
    cdef uint32_t entry
    claim.worker, claim.lane, claim.place, claim.since = record
    tasks.enter()
    try:
        tasks.sync(False)
        order = tasks.locate(key)
        entry = tasks.status_at(order, None)
        if entry & DONE or (entry & ABORTED and not allow_aborted) \
                or tries_of(entry) >= (max_tries if max_tries else MAX_TRIES):
            return False
        if entry & CLAIMED and not is_free(tasks, order, may_take):
            return None
        put_claim(tasks, order, entry, &claim)
        tasks.sync(False)
        return True
    finally:
        tasks.leave()


def order_of(TrackerCache tasks not None, bytes key not None):
    """The order number of a task; -1 when there is none."""
    tasks.enter()
    try:
        return tasks.locate(key)
    finally:
        tasks.leave()


def give_back(txn, status, claims, dict lost not None, images=None):
    """Take claims away. ``lost``: order number to whether the task was never handed out, and gets its try back.

    ``status``, ``claims`` and ``images`` are LMDB's handles, the last one where the change is to be revertible.
    Works on the blocks in the transaction: no cache may hold any of them.
    """
    cdef Blocks blocks = Blocks(txn, status)
    cdef uint32_t old
    for order in sorted(lost):
        number = pack(order)
        old = blocks.get(order)
        if old & CLAIMED:
            blocks.set(make_entry(old & FLAGS & ~<uint32_t>CLAIMED, tries_of(old) - lost[order]))
            if images is not None:
                txn.put(number, PyBytes_FromStringAndSize(<const char*>&old, 4), overwrite=False, db=images)
        txn.delete(number, db=claims)
    blocks.flush()


def restore_status(txn, status, claims, list images not None):
    """Bring statuses back: ``images`` are pairs of order number and status, both as on disk, in order; an empty
    status is none. A claim stays as it is, but where its task is gone or finished. As give_back() otherwise."""
    cdef Blocks blocks = Blocks(txn, status)
    cdef uint32_t old, new
    cdef long long order
    for number, image in images:
        new = 0
        memcpy(&order, PyBytes_AS_STRING(number), 8)
        memcpy(&new, PyBytes_AS_STRING(image), PyBytes_GET_SIZE(image))
        old = blocks.get(order)
        new &= ~<uint32_t>CLAIMED
        if old & CLAIMED:
            if new & PRESENT and not new & (DONE | ABORTED):
                new |= CLAIMED
            else:
                txn.delete(number, db=claims)
        blocks.set(new)
    blocks.flush()


@cython.final
cdef class Blocks:
    """Status blocks in a transaction, changed one after the other."""

    cdef object txn
    cdef object status
    cdef Layout data
    cdef long long number
    cdef int slot

    def __cinit__(self, txn, status):
        self.txn = txn
        self.status = status
        self.number = -1

    cdef uint32_t get(self, long long order) except? 0xffffffff:
        """The entry of an order number, which the next set() changes."""
        if order // ENTRIES != self.number:
            self.flush()
            decode_block(self.txn.get(pack(order // ENTRIES), None, self.status), &self.data)
            self.number = order // ENTRIES
        self.slot = order % ENTRIES
        return self.data.entry[self.slot]

    cdef int set(self, uint32_t entry) except -1:
        add(&self.data.head, self.data.entry[self.slot], -1)
        add(&self.data.head, entry, 1)
        self.data.entry[self.slot] = entry
        return 0

    cdef int flush(self) except -1:
        if self.number >= 0:
            if self.data.head.present:
                raw = PyBytes_FromStringAndSize(<const char*>&self.data, sizeof(Layout))
                self.txn.put(pack(self.number), raw, db=self.status)
            else:
                self.txn.delete(pack(self.number), db=self.status)
        return 0


def read_task(TrackerCache tasks not None, long long order, int kind, record=None):
    """What an iterator hands out for a task: its key, its dict or both; None when it is not there any more, or not
    claimed by ``record``, a ClaimRecord, if one is given."""
    cdef Claim claim
    tasks.enter()
    try:
        if record is not None:
            raw = tasks.get(pack(order), tasks.environment.claims)
            if raw is None:
                return None
            decode_claim(raw, &claim)
            if claim.worker != record.worker or claim.lane != record.lane or claim.place != record.place:
                return None
        raw = tasks.record_at(order)
        if raw is None:
            return None
        return task_from_record(tasks, order, raw, kind)
    finally:
        tasks.leave()


cdef object task_from_record(TrackerCache tasks, long long order, bytes raw, int kind):
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
