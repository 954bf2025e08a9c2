"""Store the claims of workers on tasks, each in an entry of LMDB's main database.

    key:    "~", then the seq of the task, 8 bytes, big-endian, so that claims are in the order of their tasks
    value:  worker 8, slot 8, position 8, since 8 (seconds since 1970, double), tries 8 bytes

The main database also has the records of the other databases. Each commit writes their page, so up to about 60 claims
cost no page of their own. Their names sort before "~".

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

from tastypy_fast._lmdb.store_dir import CLAIM_PREFIX
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["ClaimRecord", "claim_key", "has_claims", "pack_claim", "read_claim", "read_claims"]

ClaimRecord = namedtuple("ClaimRecord", ("worker", "slot", "position", "since", "tries"), defaults=(0,))


cdef enum:
    KEY_SIZE = 9
cdef bytes FIRST_KEY = CLAIM_PREFIX
cdef unsigned char PREFIX = FIRST_KEY[0]


cdef int decode_claim(object raw, Claim* claim) except -1:
    if PyBytes_GET_SIZE(raw) != sizeof(Claim):
        raise PersistentOrderedDictIntegrityError("a claim has the wrong size")
    memcpy(claim, PyBytes_AS_STRING(raw), sizeof(Claim))
    return 0


cdef bytes encode_claim(const Claim* claim):
    return PyBytes_FromStringAndSize(<const char*>claim, sizeof(Claim))


cpdef bytes claim_key(long long seq):
    """Return the key of the claim on a task in the main database."""
    cdef unsigned char key[KEY_SIZE]
    cdef unsigned long long rest = seq
    cdef int at
    key[0] = PREFIX
    for at in range(KEY_SIZE - 1, 0, -1):
        key[at] = rest & 0xFF
        rest >>= 8
    return PyBytes_FromStringAndSize(<const char*>key, sizeof(key))


def read_claims(txn, claims):
    """Yield each claim as a pair of seq and ClaimRecord, in the order of the tasks. ``claims`` is LMDB's handle."""
    cursor = txn.cursor(claims)
    if cursor.set_range(FIRST_KEY):
        for key, raw in cursor:
            if len(key) != KEY_SIZE or key[0] != PREFIX:
                raise PersistentOrderedDictIntegrityError("the main database has an unknown entry after the claims")
            yield int.from_bytes(key[1:], "big"), read_claim(raw)


def has_claims(txn, claims):
    """Return whether any task has a claim."""
    return txn.cursor(claims).set_range(FIRST_KEY)


def read_claim(bytes raw):
    """Decode the value of a claim into a ClaimRecord."""
    cdef Claim claim
    decode_claim(raw, &claim)
    return ClaimRecord(claim.worker, claim.slot, claim.position, claim.since, claim.tries)


def pack_claim(record not None):
    """Encode a ClaimRecord as the value of a claim."""
    cdef Claim claim
    claim.worker, claim.slot, claim.position, claim.since, claim.tries = record
    return encode_claim(&claim)


cdef bint try_comes_back(StoreBase store, long long seq, uint32_t status) except -1:
    """Return whether the claim that ends in this write transaction has counted a try that never began.

    A try never began if the iterator that claimed the task did not yield it. ``status`` is the task's entry.
    """
    cdef Claim claim
    raw = store.snapshot.get(claim_key(seq), None, store.claims)
    if raw is None:
        return False
    decode_claim(raw, &claim)
    if claim.slot == 0 or claim.tries > tries_of(status):
        return False
    if store.worker_slots is not None and claim.worker == store.worker_number:
        return store.worker_slots.stop(claim.slot, claim.position)
    return store.stop_slot_of(claim.worker, claim.slot, claim.position)


cdef bint is_own(StoreBase store, long long seq, Claim* claim) except -1:
    """Read the claim of a task, and return whether this worker has it. A claim that is missing counts as its own."""
    raw = store.snapshot.get(claim_key(seq), None, store.claims)
    if raw is None:
        claim.tries = MAX_TRIES + 1
        return True
    decode_claim(raw, claim)
    return claim.worker == store.worker_number


cdef int move_claim(StoreBase store, long long seq, long long new_seq) except -1:
    """Let the worker keep the claim of a task whose seq changes in this write transaction."""
    raw = store.snapshot.get(claim_key(seq), None, store.claims)
    if raw is not None:
        store.snapshot.delete(claim_key(seq), b"", store.claims)
        store.snapshot.put(claim_key(new_seq), raw, True, True, False, store.claims)
        store.wrote = True
    return 0


cdef int note_tries_added(StoreBase store, long long seq, int added) except -1:
    """Update the claim of a task to whose tries ``added`` is added."""
    cdef Claim claim
    raw = store.snapshot.get(claim_key(seq), None, store.claims)
    if raw is None:
        return 0
    decode_claim(raw, &claim)
    claim.tries += added
    return put_changed(store, seq, &claim)


cdef int note_tries_assigned(StoreBase store, long long seq, int tries) except -1:
    """Update the claim of a task whose tries become ``tries``, so that the claim's try is not among them."""
    cdef Claim claim
    raw = store.snapshot.get(claim_key(seq), None, store.claims)
    if raw is None:
        return 0
    decode_claim(raw, &claim)
    claim.tries = tries + 1
    return put_changed(store, seq, &claim)


cdef int put_changed(StoreBase store, long long seq, const Claim* claim) except -1:
    store.snapshot.put(claim_key(seq), encode_claim(claim), True, True, False, store.claims)
    store.wrote = True
    return 0
