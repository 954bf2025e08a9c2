"""Claim tasks of a shared tracker for this process's worker, so that no other worker gets them.

A claimed task has the flag CLAIMED in its status, which scans read. It also has a claim in the main database,
which names the worker (see ``claim_record``). Both are written in one transaction.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t

from tastypy_fast._core.cache_entry cimport ABSENT, Entry, pack
from tastypy_fast._core.claim_record cimport Claim, claim_key, decode_claim, encode_claim
from tastypy_fast._core.iterators cimport KEYS, VALUES
from tastypy_fast._core.locks cimport Lock
from tastypy_fast._core.record_codec cimport Record, parse_record
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
from tastypy_fast._core.status_writer cimport StatusWriter
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.task_cache cimport TaskCache
from tastypy_fast._shared.direct_writes cimport begin_directly, finish, put_status

from bisect import bisect_right
from contextlib import suppress
from functools import partial

from tastypy_fast._core.claim_record import read_claim
from tastypy_fast.exceptions import PersistentOrderedDictException, PersistentOrderedDictIntegrityError

__all__ = ["claim_one", "key_at", "order_of"]


cdef object claim_at(TaskCache tasks, long long seq):
    """Return the ClaimRecord of a task, or None."""
    raw = tasks.get(claim_key(seq), tasks.store.claims)
    return None if raw is None else read_claim(raw)


cdef int put_claim(TaskCache tasks, StatusWriter blocks, long long seq, uint32_t entry, int tries,
                   Claim* claim) except -1:
    """Claim a task whose status is ``entry``, and set its ``tries``. finish() writes it."""
    put_status(tasks, blocks, seq, entry, make_entry((entry & FLAGS) | CLAIMED, tries))
    claim.tries = tries
    blocks.claims.append((claim_key(seq), encode_claim(claim)))
    return 0


cdef list claim_next(TaskCache tasks, long long after, long long limit, bint allow_aborted, long long max_tries,
                     list own, object is_free, Claim* claim, int step, list entries):
    """Claim up to ``limit`` tasks after the sequence number ``after``, and return their sequence numbers, ascending.

    The caller is in a write transaction. ``own`` are the sequence numbers, ascending, of tasks that this worker has
    claimed already. One of these is claimed again if ``is_free`` returns True for its ClaimRecord. ``claim`` is the
    claim of the first task, and the position of each further task is greater by ``step``. The new statuses are appended
    to ``entries``, unless it is None.
    """
    cdef StoreBase store = tasks.store
    cdef StatusWriter blocks
    cdef list chosen = []
    cdef long long seq
    cdef uint32_t entry, mask = PRESENT | DONE | (0 if allow_aborted else ABORTED)
    tasks.begin_op()
    try:
        begin_directly(tasks)
        # A task whose tries cannot be counted further is never claimed.
        if max_tries == 0:
            max_tries = MAX_TRIES
        blocks = StatusWriter(store.snapshot, store.status)
        # The next task is nearly always in the same status block as the last one.
        seq = after
        while len(chosen) < limit and (seq + 1) // TASKS_PER_BLOCK == (after + 1) // TASKS_PER_BLOCK:
            seq = blocks.find(seq + 1, PRESENT, mask | CLAIMED, max_tries)
            if seq < 0:
                break
            chosen.append(seq)
        if len(chosen) < limit:
            seq = ((after + 1) // TASKS_PER_BLOCK + 1) * TASKS_PER_BLOCK - 1
            chosen += tasks.status.scan(seq, limit - len(chosen), PRESENT, mask | CLAIMED, max_tries)
        for index in range(bisect_right(own, after), len(own)):
            seq = own[index]
            if len(chosen) >= limit and seq > chosen[limit - 1]:
                break
            entry = blocks.get(seq)
            if entry & (mask | CLAIMED) == PRESENT | CLAIMED and tries_of(entry) < max_tries:
                found = claim_at(tasks, seq)
                if found is None or is_free(found):
                    chosen.append(seq)
                    chosen.sort()
        del chosen[limit:]
        for seq in chosen:
            entry = blocks.get(seq)
            put_claim(tasks, blocks, seq, entry, tries_of(entry) + 1, claim)
            claim.position += step
            if entries is not None:
                entries.append(blocks.get(seq))
        finish(tasks, blocks)
        return chosen
    finally:
        tasks.end_op()


cdef int claim_keys(TaskCache tasks, list keys, list found, bint allow_aborted, long long max_tries, object is_free,
                    Claim* claim) except -1:
    """Claim the tasks of these encoded keys with ``claim``, each only once.

    Where ``found`` is BLOCKED, it becomes the number of the try, 0 if the task does not have to be tried, and -1 if it
    does not exist. It stays BLOCKED if a worker or an iterator has claimed the task. A claim like ``claim``, and one of
    which ``is_free`` returns True, may be replaced. The caller is in a write transaction.
    """
    cdef StatusWriter blocks
    cdef list seqs
    cdef set claimed = set()
    cdef long long seq
    cdef uint32_t entry
    cdef int tries
    if max_tries == 0:
        max_tries = MAX_TRIES
    tasks.begin_op()
    try:
        begin_directly(tasks)
        seqs = tasks.find_seqs(keys)
        blocks = StatusWriter(tasks.store.snapshot, tasks.store.status)
        # In the order of the tasks, because each block is then read and written once.
        for index in sorted(range(len(keys)), key=seqs.__getitem__):
            if found[index] != BLOCKED:
                continue
            seq = seqs[index]
            if seq == ABSENT:
                found[index] = -1
                continue
            entry = blocks.get(seq)
            if not entry & PRESENT:
                raise tasks.damaged(tasks.key_of(keys[index]), "the task has no status")
            tries = tries_of(entry) + 1
            if entry & DONE or (entry & ABORTED and not allow_aborted) or tries > max_tries or seq in claimed:
                found[index] = 0
                continue
            if entry & CLAIMED:
                other = claim_at(tasks, seq)
                if other is not None and other[:2] != (claim.worker, claim.slot) and not is_free(other):
                    continue
            put_claim(tasks, blocks, seq, entry, tries, claim)
            claimed.add(seq)
            found[index] = tries
        finish(tasks, blocks)
    finally:
        tasks.end_op()
    return 0


def claim_one(TaskCache tasks not None, bytes key not None, bint allow_aborted, long long max_tries, is_free,
              stop_slot, record not None):
    """Claim one task with the ClaimRecord ``record``. True if it was claimed, False if it does not have to be tried,
    and None if another worker or iterator has it.

    The caller is in a write transaction. ``is_free`` says of a ClaimRecord whether this thread may take the task over.
    ``stop_slot`` then says whether the iterator that has claimed it will never yield it: its try is the one that begins
    here, unless the tries were reset since.
    """
    cdef StoreBase store = tasks.store
    cdef Claim claim
    cdef StatusWriter blocks
    cdef long long seq
    cdef uint32_t entry
    cdef int tries
    claim.worker, claim.slot, claim.position, claim.since, claim.tries = record
    tasks.begin_op()
    try:
        begin_directly(tasks)
        seq = tasks.find_seq(key)
        blocks = StatusWriter(store.snapshot, store.status)
        entry = blocks.get(seq)
        if not entry & PRESENT:
            raise tasks.damaged(tasks.key_of(key), "the task has no status")
        if entry & DONE or (entry & ABORTED and not allow_aborted):
            return False
        found = claim_at(tasks, seq) if entry & CLAIMED else None
        tries = tries_of(entry)
        if found is not None and found.tries <= tries and is_free(found) and stop_slot(found):
            tries -= 1
        if tries >= (max_tries if max_tries else MAX_TRIES):
            return False
        if found is not None and not is_free(found):
            return None
        put_claim(tasks, blocks, seq, entry, tries + 1, &claim)
        finish(tasks, blocks)
        return True
    finally:
        tasks.end_op()


def order_of(TaskCache tasks not None, bytes key not None):
    """Return the sequence number of a task, or -1 if no task has this key."""
    tasks.begin_op()
    try:
        return tasks.find_seq(key)
    finally:
        tasks.end_op()


def key_at(TaskCache tasks not None, long long seq):
    """Return the key of a task, or None if no task has this sequence number."""
    return read_task(tasks, seq, KEYS, NULL)


cdef object read_task(TaskCache tasks, long long seq, int kind, Claim* claim):
    """Return the key, the dict or both of a task, as an iterator of this ``kind`` yields it.

    Returns None if the task does not exist. With a ``claim``, also returns None if the task no longer has this claim.
    """
    tasks.begin_op()
    try:
        if claim != NULL and not is_claimed_as(tasks, seq, claim):
            return None
        raw = tasks.get(pack(seq), tasks.store.values)
        if raw is None:
            return None
        return task_from_record(tasks, seq, raw, kind)
    finally:
        tasks.end_op()


cdef bint is_claimed_as(TaskCache tasks, long long seq, Claim* claim) except -1:
    cdef Claim found
    raw = tasks.get(claim_key(seq), tasks.store.claims)
    if raw is None:
        return False
    decode_claim(raw, &found)
    return found.worker == claim.worker and found.slot == claim.slot and found.position == claim.position


cdef list still_claimed(TaskCache tasks, list claimed, Claim* claim):
    """Return those of the pairs of sequence number and status whose tasks have this claim."""
    tasks.begin_op()
    try:
        return [pair for pair in claimed if is_claimed_as(tasks, pair[0], claim)]
    finally:
        tasks.end_op()


cdef bint is_still_claimed(TaskCache tasks, long long seq, Claim* claim, long long since) except -1:
    """Return whether a task still has the claim that the transaction with the id ``since`` wrote.

    Nothing is read if that transaction is the last one. ``since`` is -1 if it may not have been committed.
    """
    tasks.begin_op()
    try:
        if since >= 0 and tasks.store.snapshot_per_op and tasks.snapshot_id == since:
            return True
        return is_claimed_as(tasks, seq, claim)
    finally:
        tasks.end_op()


cdef list keys_at(TaskCache tasks, list seqs):
    """Return the keys of tasks, with None for each task that does not exist."""
    cdef list packed = [pack(seq) for seq in seqs]
    cdef dict found
    tasks.begin_op()
    try:
        found = tasks.get_many(packed, tasks.store.values)
        return [task_from_record(tasks, seq, found[number], KEYS) if number in found else None
                for seq, number in zip(seqs, packed)]
    finally:
        tasks.end_op()


cdef object task_from_record(TaskCache tasks, long long seq, bytes raw, int kind):
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
    entry = tasks.entry_from_record(encoded, seq, raw)
    value = tasks.decode(encoded, seq, entry.codec, entry.payload)
    return value if kind == VALUES else (key, value)


cdef int close_from_finalizer(Lock lock, object close) except -1:
    """Close an iterator or a queue that is garbage. ``lock`` is that of the write transaction.

    The garbage collector may have interrupted an operation of this thread, inside which the store must not change. Then
    it is closed when the operation ends.
    """
    if lock.is_mine():
        lock.on_release = [*(lock.on_release or ()), partial(_close_quietly, close)]
    else:
        _close_quietly(close)
    return 0


def _close_quietly(close):
    # Suppress errors, because no caller can catch them. Claims that remain are released when the process ends.
    try:
        close()
    except PersistentOrderedDictException:
        pass
    except BaseException:
        # A handler has raised it for a signal. Python only prints an exception of a finalizer, so nothing else would
        # close this object.
        with suppress(PersistentOrderedDictException):
            close()
        raise
