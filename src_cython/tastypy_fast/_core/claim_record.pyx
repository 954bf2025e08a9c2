"""Claim of a worker on a task, as the database ``claims`` has it by the task's sequence number.

    worker 8, slot 8, position 8, since 8 (seconds since 1970, double), tries 8 bytes

A claim of a loop has the number of its slot and a position. The task was yielded if the position is below the count in
this slot (see worker_slots). A claim of slot 0 was made by ``should_try()`` and was yielded when it was committed; its
position is the number of the thread. A claim of slot FAILED_SLOT is a task at which a thread has failed and which it
may try again; its position is also the number of the thread.

``tries`` is the task's number of tries including the one of this claim. It follows later changes of that number. If the
task has fewer tries, they were reset, and the claim's try is not among them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.status_block cimport tries_of

from collections import namedtuple

from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["ClaimRecord", "pack_claim", "read_claim"]

ClaimRecord = namedtuple("ClaimRecord", ("worker", "slot", "position", "since", "tries"), defaults=(0,))


cdef int decode_claim(object raw, Claim* claim) except -1:
    if PyBytes_GET_SIZE(raw) != sizeof(Claim):
        raise PersistentOrderedDictIntegrityError("a claim has the wrong size")
    memcpy(claim, PyBytes_AS_STRING(raw), sizeof(Claim))
    return 0


cdef bytes encode_claim(const Claim* claim):
    return PyBytes_FromStringAndSize(<const char*>claim, sizeof(Claim))


def read_claim(bytes raw):
    """Return the ClaimRecord of an entry of the database."""
    cdef Claim claim
    decode_claim(raw, &claim)
    return ClaimRecord(claim.worker, claim.slot, claim.position, claim.since, claim.tries)


def pack_claim(record not None):
    """Return the entry of the database for a ClaimRecord."""
    cdef Claim claim
    claim.worker, claim.slot, claim.position, claim.since, claim.tries = record
    return encode_claim(&claim)


cdef bint try_comes_back(StoreBase store, bytes number, uint32_t status) except -1:
    """Return whether the claim that ends in this write transaction has counted a try that never began.

    That is a task that its loop has not yielded. ``status`` is the task's entry, ``number`` its packed sequence number.
    """
    cdef Claim claim
    raw = store.snapshot.get(number, None, store.claims)
    if raw is None:
        return False
    decode_claim(raw, &claim)
    if claim.slot == 0 or claim.tries > tries_of(status):
        return False
    if store.worker_slots is not None and claim.worker == store.worker_number:
        return store.worker_slots.stop(claim.slot, claim.position)
    return store.stop_slot_of(claim.worker, claim.slot, claim.position)


cdef int note_tries_added(StoreBase store, bytes number, int added) except -1:
    """Update the claim of a task to whose tries ``added`` is added."""
    cdef Claim claim
    raw = store.snapshot.get(number, None, store.claims)
    if raw is None:
        return 0
    decode_claim(raw, &claim)
    claim.tries += added
    return put_changed(store, number, &claim)


cdef int note_tries_assigned(StoreBase store, bytes number, int tries) except -1:
    """Update the claim of a task whose tries become ``tries``, so that the claim's try is not among them."""
    cdef Claim claim
    raw = store.snapshot.get(number, None, store.claims)
    if raw is None:
        return 0
    decode_claim(raw, &claim)
    claim.tries = tries + 1
    return put_changed(store, number, &claim)


cdef int put_changed(StoreBase store, bytes number, const Claim* claim) except -1:
    store.snapshot.put(number, encode_claim(claim), True, True, False, store.claims)
    store.wrote = True
    return 0
