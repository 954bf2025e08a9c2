"""What the database ``claims`` has of a claimed task, by its order number: who has it in hand, and which try that is.

    worker 8, slot 8, position 8, since 8 (seconds since 1970, double), tries 8 bytes

A claim of a lane is one of a batch: it was handed out if its place is below what the worker's file has counted in this
lane. One of lane 0 was handed out when it was committed; its place is the number of the thread that has it. One of lane
LEFT is what a thread failed at before, and may try again.

``tries`` are those of the task with the one that the claim has counted, and follow what is added to them and taken away
meanwhile. Where the task has fewer, somebody has set them back, and the try of the claim is not among them.
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
    """The ClaimRecord in an entry of the database."""
    cdef Claim claim
    decode_claim(raw, &claim)
    return ClaimRecord(claim.worker, claim.slot, claim.position, claim.since, claim.tries)


def pack_claim(record not None):
    """The entry of the database for a ClaimRecord."""
    cdef Claim claim
    claim.worker, claim.slot, claim.position, claim.since, claim.tries = record
    return encode_claim(&claim)


cdef bint try_comes_back(StoreBase store, bytes number, uint32_t status) except -1:
    """Whether the claim that ends in this write transaction has counted a try that never begins: the task waits to be
    handed out. ``status`` is the task's, ``number`` its order number, packed."""
    cdef Claim claim
    raw = store.snapshot.get(number, None, store.claims)
    if raw is None:
        return False
    decode_claim(raw, &claim)
    if claim.slot == 0 or claim.tries > tries_of(status):
        return False
    if store.worker_slots is not None and claim.worker == store.worker_number:
        return store.worker_slots.stop(claim.slot, claim.position)
    return store.stop_other_worker(claim.worker, claim.slot, claim.position)


cdef int note_tries(StoreBase store, bytes number, int added, int tries) except -1:
    """The tries of a task that stays claimed change: ``added`` to them, or, where that is 0, set to ``tries``."""
    cdef Claim claim
    raw = store.snapshot.get(number, None, store.claims)
    if raw is not None:
        decode_claim(raw, &claim)
        claim.tries = claim.tries + added if added else tries + 1
        store.snapshot.put(number, encode_claim(&claim), True, True, False, store.claims)
        store.wrote = True
    return 0
