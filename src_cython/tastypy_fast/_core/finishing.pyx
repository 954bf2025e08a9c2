"""Decide what becomes of a task that a program has run: its data, and its status.

FINISH_DONE          mix data into the task, remove ``_error``, mark the task done, end the claim
FINISH_FAILED        keep an error, end the claim
FINISH_ABORTED       keep an error, mark the task aborted, end the claim
FINISH_RETRY         keep an error; the claim stays, because the same queue tries the task again later
FINISH_POSTPONED     keep an error; this was no try, and the claim stays
FINISH_GIVEN_BACK    keep an error; this was no try, and the claim ends
FINISH_RELEASED      end the claim of a task that waited for its next try

A private tracker counts a try with the first four. A shared one has counted it with the claim, and subtracts it with
FINISH_POSTPONED and FINISH_GIVEN_BACK.
"""

from libc.stdint cimport int32_t, uint32_t

from tastypy_fast._core.claim_record cimport Claim, is_own, note_tries_assigned, try_comes_back
from tastypy_fast._core.record_codec cimport NO_PAYLOAD, dump_value, load_value
from tastypy_fast._core.status_block cimport ABORTED, CLAIMED, DONE, ERROR, FLAGS, MAX_TRIES, make_entry, tries_of
from tastypy_fast._core.store_base cimport StoreBase

__all__ = [
    "FINISH_ABORTED", "FINISH_DONE", "FINISH_FAILED", "FINISH_GIVEN_BACK", "FINISH_POSTPONED", "FINISH_RELEASED",
    "FINISH_RETRY",
]

cdef frozenset SPECIAL = frozenset(("_done", "_aborted", "_tries"))


cdef bint sets_status(dict data) except -1:
    """Return whether data that a task gets have one of the keys of its status."""
    return data is not None and len(data) > 0 and not SPECIAL.isdisjoint(data)


cdef dict data_in(int codec, bytes payload):
    """Return the data of a task, without its status."""
    return {} if codec == NO_PAYLOAD else dict(load_value(codec, payload))


cdef bytes finished_data(dict value, int kind, dict data, int* codec):
    """Return the JSON of a task with the data ``value``, which this changes, after it is finished."""
    value.pop("_error", None)
    if kind != FINISH_DONE:
        value["_error"] = data
    elif data:
        value.update(data)
        value.pop("_error", None)
    if value:
        return dump_value(value, codec)
    codec[0] = NO_PAYLOAD
    return None


cdef uint32_t finished_status(StoreBase store, long long seq, uint32_t status, int kind, bint has_data,
                              int32_t number_of_try) except? 0xffffffff:
    """Return the status of a finished task with this sequence number.

    ``has_data`` says that data were given, and stored. ``number_of_try`` is 0 if it is unknown. The tries in the claim
    are updated.
    """
    cdef Claim claim
    cdef uint32_t flags = status & FLAGS
    cdef int32_t tries = tries_of(status)
    # A claim of another worker is left alone, unless the task is done or aborted.
    cdef bint claimed = (status & CLAIMED) != 0
    cdef bint is_ours = True
    if store.images is None and FINISH_DONE <= kind <= FINISH_RETRY:
        # A private tracker counts a try when it ends, but not twice. A shared one has counted it with the claim.
        if not 0 < number_of_try <= tries:
            tries = min(tries + 1, MAX_TRIES)
    if claimed:
        if kind == FINISH_DONE or kind == FINISH_ABORTED:
            tries -= try_comes_back(store, seq, status)
        else:
            is_ours = is_own(store, seq, &claim)
    if kind == FINISH_DONE:
        return make_entry((flags & ~(CLAIMED | ERROR)) | DONE, tries)
    if status & DONE:
        return make_entry(flags & ~<uint32_t>CLAIMED, tries)
    if has_data:
        flags |= ERROR
    if kind == FINISH_ABORTED:
        return make_entry((flags & ~<uint32_t>CLAIMED) | ABORTED, tries)
    if is_ours:
        if kind == FINISH_POSTPONED or kind == FINISH_GIVEN_BACK:
            # Unless the tries were reset, so that this one is not among them.
            if claimed and claim.tries <= tries:
                tries -= 1
        if claimed and (kind == FINISH_RETRY or kind == FINISH_POSTPONED):
            # The try of this claim has ended, so nothing is subtracted if this process dies while the task waits.
            note_tries_assigned(store, seq, tries)
        if kind == FINISH_FAILED or kind == FINISH_GIVEN_BACK or kind == FINISH_RELEASED:
            flags &= ~<uint32_t>CLAIMED
    return make_entry(flags, tries)
