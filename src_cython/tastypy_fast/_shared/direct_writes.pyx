"""Single changes made in the open transaction of a shared store itself, past the cache.

Each is a whole transaction, for which the cache with all that it keeps between two syncs is a long way round. What is
done here leaves the cache empty, without any block of statuses, to be read again.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.claim_record cimport note_tries, try_comes_back
from tastypy_fast._core.cache_entry cimport ABSENT, pack
from tastypy_fast._core.key_codec cimport MAX_INDEX_KEY, encode_key
from tastypy_fast._core.record_codec cimport build_record, dump_value
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.status_block cimport CLAIMED, DONE, FLAGS, MAX_TRIES, PRESENT, make_entry, tries_of
from tastypy_fast._core.status_writer cimport StatusWriter
from tastypy_fast._core.task_cache cimport TaskCache

__all__ = ["find_tasks", "mark_done_many"]


cdef bytes record_of(WriteCache cache, bytes key, object value):
    """What assign_directly() takes. Needs no transaction: others may write meanwhile. None where it would not do."""
    cdef int codec = 0
    cdef bytes payload
    if cache is None or cache.tracks or PyBytes_GET_SIZE(key) > MAX_INDEX_KEY:
        return None
    payload = dump_value(value, &codec)
    return build_record(codec, key, payload, cache.store.gzipped)


cdef bint assign_directly(WriteCache cache, bytes key, bytes record) except -1:
    """WriteCache.put() for a transaction of its own. False where it has to go through the cache."""
    cdef StoreBase store = cache.store
    cdef bytes number
    if record is None or cache.has_changes() or store.wrote:
        return False
    cache.begin_op()
    try:
        txn = store.snapshot
        number = txn.get(key, None, store.order)
        if number is None:
            number = pack(store.allocate())
            txn.put(key, number, True, False, False, store.order)
            txn.put(number, record, True, True, False, store.values)
            image = b""
        else:
            before = txn.replace(number, record, store.values)
            if before is None:
                raise cache.damaged(cache.key_of(key), "the index names a record that is not there")
            image = bytes(4) + before
        store.before_image_count += txn.put(number, image, True, False, False, store.images)
        store.wrote = True
        cache.disk_count = -1
        cache.cache_version += 1
        return True
    finally:
        cache.end_op()


cdef int begin_directly(TaskCache tasks) except -1:
    """Have nothing in the cache that is not in the transaction, and no block at all."""
    if tasks.entries or tasks.status.differs():
        tasks.sync(False)
    tasks.status.forget()
    # (for loops inside of the block)
    tasks.cache_version += 1
    return 0


cdef int put_status(TaskCache tasks, StatusWriter blocks, bytes number, uint32_t old, uint32_t new) except -1:
    """Change the status that ``blocks`` got last, from ``old`` to ``new``; ``number`` is its order number, packed.
    finish() writes it."""
    cdef StoreBase store = tasks.store
    blocks.set(new)
    blocks.images.append((number, PyBytes_FromStringAndSize(<const char*>&old, 4)))
    if old & ~new & CLAIMED:
        store.snapshot.delete(number, b"", store.claims)
    return 0


cdef int finish(TaskCache tasks, StatusWriter blocks) except -1:
    """Write the statuses that were put, with what revert() comes back to, and the claims."""
    cdef StoreBase store = tasks.store
    blocks.flush()
    store.before_image_count += put_pairs(store.snapshot, store.images, blocks.images, False)
    put_pairs(store.snapshot, store.claims, blocks.claims, True)
    store.wrote = store.wrote or len(blocks.images) > 0
    return 0


cdef Py_ssize_t put_pairs(object txn, object db, list pairs, bint overwrite) except -1:
    """How many of them were put."""
    if len(pairs) == 1:
        number, value = pairs[0]
        return txn.put(number, value, True, overwrite, False, db)
    return txn.cursor(db).putmulti(pairs, True, overwrite)[1] if pairs else 0


cdef bint change_directly(TaskCache tasks, bytes key, object original, uint32_t drop, uint32_t add,
                          int added_tries) except -1:
    """TaskCache.change() for a transaction of its own. False where that one is to say what is wrong."""
    cdef StatusWriter blocks
    cdef long long seq
    cdef uint32_t old
    cdef int32_t tries
    cdef bytes number
    tasks.begin_op()
    try:
        begin_directly(tasks)
        seq = find_task(tasks, key, original)
        blocks = StatusWriter(tasks.store.snapshot, tasks.store.status)
        old = blocks.get(seq)
        tries = tries_of(old) + added_tries
        if not old & PRESENT or not -MAX_TRIES <= tries <= MAX_TRIES:
            return False
        if old & CLAIMED:
            number = pack(seq)
            if drop & CLAIMED:
                tries -= added_tries == 0 and try_comes_back(tasks.store, number, old)
            elif added_tries:
                note_tries(tasks.store, number, added_tries, tries)
        replace_status(tasks, blocks, seq, old, make_entry((old & FLAGS & ~drop) | add, tries))
        return True
    finally:
        tasks.end_op()


cdef bint reset_tries_directly(TaskCache tasks, bytes key, object original) except -1:
    """TaskCache.reset_tries() for a transaction of its own. False where that one is to say what is wrong."""
    cdef StatusWriter blocks
    cdef long long seq
    cdef uint32_t old
    tasks.begin_op()
    try:
        begin_directly(tasks)
        seq = find_task(tasks, key, original)
        blocks = StatusWriter(tasks.store.snapshot, tasks.store.status)
        old = blocks.get(seq)
        if not old & PRESENT:
            return False
        if old & CLAIMED:
            note_tries(tasks.store, pack(seq), 0, 0)
        replace_status(tasks, blocks, seq, old, make_entry(old & FLAGS, 0))
        return True
    finally:
        tasks.end_op()


cdef long long find_task(TaskCache tasks, bytes key, object original) except -1:
    """Return the seq of a task. KeyError if it does not exist."""
    cdef long long seq = tasks.find_seq(key)
    if seq == ABSENT:
        raise KeyError(original)
    return seq


cdef int replace_status(TaskCache tasks, StatusWriter blocks, long long seq, uint32_t old, uint32_t new) except -1:
    """Write the status that ``blocks`` got last, if it changes."""
    if new != old:
        put_status(tasks, blocks, pack(seq), old, new)
        finish(tasks, blocks)
    return 0


def find_tasks(TaskCache tasks not None, list keys not None):
    """What mark_done_many() takes: the keys, the same encoded, and the order numbers they have now, -1 for none."""
    cdef list encoded = [encode_key(key) for key in keys]
    tasks.begin_op()
    try:
        return keys, encoded, tasks.find_seqs(encoded)
    finally:
        tasks.end_op()


def mark_done_many(TaskCache tasks not None, list keys not None, list encoded not None, list orders not None):
    """Mark tasks done. KeyError when one is not there; the caller undoes the rest then.

    An order number that was found before the transaction holds if it still is one of a task: none is given out twice.
    """
    cdef StoreBase store = tasks.store
    cdef StatusWriter blocks
    cdef Py_ssize_t position
    cdef long long order
    cdef uint32_t old
    cdef int32_t count
    cdef bytes number
    tasks.begin_op()
    try:
        begin_directly(tasks)
        blocks = StatusWriter(store.snapshot, store.status)
        for position in range(len(orders)):
            order = orders[position]
            old = 0 if order < 0 else blocks.get(order)
            if not old & PRESENT:
                order = tasks.find_seq(encoded[position])
                if order == ABSENT:
                    raise KeyError(keys[position])
                old = blocks.get(order)
                if not old & PRESENT:
                    raise tasks.damaged(keys[position], "the task has no status")
            if old & (DONE | CLAIMED) != DONE:
                number = pack(order)
                count = tries_of(old)
                if old & CLAIMED:
                    count -= try_comes_back(store, number, old)
                put_status(tasks, blocks, number, old, make_entry((old & FLAGS & ~<uint32_t>CLAIMED) | DONE, count))
        finish(tasks, blocks)
    finally:
        tasks.end_op()
