"""Encode and decode the claim of a worker on a task, which the database ``claims`` maps from the task's seq.

    worker 8, slot 8, position 8, since 8 (seconds since 1970, double), tries 8 bytes

The claim of an iterator has the number of its slot and a position. The task was yielded if the position is below the
count in this slot (see worker_slots). A claim with slot 0 was made by ``should_try()``, and its task was yielded when
the claim was committed. A claim with slot FAILED_SLOT is for a task at which a thread failed, and which this thread
may try again. A greater slot belongs to a queue, whose tasks were all yielded when their claims were committed. From
REMOTE_SLOTS on, they run in other processes, and their tries do not count if the worker dies. With slot 0, FAILED_SLOT
and those of queues, the position is the number of the thread.

``tries`` is the task's number of tries including the one of this claim. It follows later changes of that number. If the
task has fewer tries, its tries were reset, and they do not include the try of the claim.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.status_block cimport MAX_TRIES, tries_of

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
    """Decode an entry of the database ``claims`` into a ClaimRecord."""
    cdef Claim claim
    decode_claim(raw, &claim)
    return ClaimRecord(claim.worker, claim.slot, claim.position, claim.since, claim.tries)


def pack_claim(record not None):
    """Encode a ClaimRecord as an entry of the database ``claims``."""
    cdef Claim claim
    claim.worker, claim.slot, claim.position, claim.since, claim.tries = record
    return encode_claim(&claim)


cdef bint try_comes_back(StoreBase store, bytes number, uint32_t status) except -1:
    """Return whether the claim that ends in this write transaction has counted a try that never began.

    A try never began if the iterator that claimed the task did not yield it. ``status`` is the task's entry, ``number``
    its packed seq.
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


cdef bint is_own(StoreBase store, bytes number, Claim* claim) except -1:
    """Read the claim of a task, and return whether this worker has it. A claim that is missing counts as its own."""
    raw = store.snapshot.get(number, None, store.claims)
    if raw is None:
        claim.tries = MAX_TRIES + 1
        return True
    decode_claim(raw, claim)
    return claim.worker == store.worker_number


cdef int move_claim(StoreBase store, bytes number, bytes new_number) except -1:
    """Let the worker keep the claim of a task whose seq changes in this write transaction."""
    raw = store.snapshot.get(number, None, store.claims)
    if raw is not None:
        store.snapshot.delete(number, b"", store.claims)
        store.snapshot.put(new_number, raw, True, True, False, store.claims)
        store.wrote = True
    return 0


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
