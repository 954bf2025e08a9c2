"""Write single changes into the open transaction of a shared store directly, bypassing its cache.

This is faster for a transaction of one change, because the work of filling the cache pays off only over many changes.
Each function leaves the cache without entries and status blocks, because these would overwrite the change.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.claim_record cimport claim_key, note_tries_added, note_tries_assigned, try_comes_back
from tastypy_fast._core.cache_entry cimport ABSENT, pack
from tastypy_fast._core.finishing cimport FINISH_DONE, data_in, finished_data, finished_status, sets_status
from tastypy_fast._core.key_codec cimport MAX_INDEX_KEY, encode_key, wanted_key
from tastypy_fast._core.record_codec cimport Record, build_record, dump_value, parse_record, record_payload
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.status_block cimport (
    CLAIMED,
    DONE,
    ERROR,
    FLAGS,
    MAX_TRIES,
    PRESENT,
    make_entry,
    tries_of,
)
from tastypy_fast._core.status_writer cimport StatusWriter
from tastypy_fast._core.task_cache cimport TaskCache
from tastypy_fast._shared.write_transaction cimport WriteTransaction

from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError, UnstorableValueError

__all__ = ["find_tasks", "finish_many", "mark_done_many"]


cdef bytes record_of(WriteCache cache, bytes key, object value):
    """Encode a key and its value for assign_directly(), or return None if only the cache can write them.

    It needs no transaction. Call it before one, because other processes can then write meanwhile.
    """
    cdef int codec = 0
    cdef bytes payload
    if cache is None or cache.tracks or PyBytes_GET_SIZE(key) > MAX_INDEX_KEY:
        return None
    payload = dump_value(value, &codec)
    return build_record(codec, key, payload, cache.store.gzipped)


cdef bint assign_directly(WriteCache cache, bytes key, bytes record) except -1:
    """Write a record, as WriteCache.put() and a sync do. Returns False, and writes nothing, if only the cache can."""
    cdef WriteTransaction transaction = <WriteTransaction?>cache.store
    if record is None or cache.has_changes() or transaction.wrote:
        return False
    cache.begin_op()
    try:
        transaction.assign(key, record)
        return True
    finally:
        cache.end_op()


cdef int begin_directly(TaskCache tasks) except -1:
    """Flush the cache into the transaction, and drop its status blocks."""
    if tasks.entries or tasks.status.differs():
        tasks.sync(False)
    tasks.status.forget()
    # Let iterators inside the block read their chunks again.
    tasks.cache_version += 1
    return 0


cdef int put_status(TaskCache tasks, StatusWriter blocks, long long seq, uint32_t old, uint32_t new) except -1:
    """Change the status that ``blocks`` read last from ``old`` to ``new``. finish() writes it."""
    cdef StoreBase store = tasks.store
    blocks.set(new)
    store.images.note_status(seq, old)
    store.wrote = True
    if old & ~new & CLAIMED:
        store.snapshot.delete(claim_key(seq), b"", store.claims)
    return 0


cdef int finish(TaskCache tasks, StatusWriter blocks) except -1:
    """Write the changed statuses and the new claims."""
    cdef StoreBase store = tasks.store
    blocks.flush()
    if len(blocks.claims) == 1:
        key, claim = blocks.claims[0]
        store.snapshot.put(key, claim, True, True, False, store.claims)
    elif blocks.claims:
        store.snapshot.cursor(store.claims).putmulti(blocks.claims, True, True)
    return 0


cdef bint change_directly(TaskCache tasks, bytes key, object original, uint32_t drop, uint32_t add,
                          int added_tries) except -1:
    """Change the status of a task, as TaskCache.change() does.

    Returns False if that method has to do it, because it raises the error or also changes the data.
    """
    cdef StatusWriter blocks
    cdef long long seq
    cdef uint32_t old
    cdef int32_t tries
    tasks.begin_op()
    try:
        begin_directly(tasks)
        seq = find_task(tasks, key, original)
        blocks = StatusWriter(tasks.store.snapshot, tasks.store.status)
        old = blocks.get(seq)
        tries = tries_of(old) + added_tries
        if not old & PRESENT or not -MAX_TRIES <= tries <= MAX_TRIES or old & drop & ERROR:
            return False
        if old & CLAIMED:
            if drop & CLAIMED:
                tries -= added_tries == 0 and try_comes_back(tasks.store, seq, old)
            elif added_tries:
                note_tries_added(tasks.store, seq, added_tries)
        replace_status(tasks, blocks, seq, old, make_entry((old & FLAGS & ~drop) | add, tries))
        return True
    finally:
        tasks.end_op()


cdef bint reset_tries_directly(TaskCache tasks, bytes key, object original) except -1:
    """Reset the tries of a task, as TaskCache.reset_tries() does.

    Returns False if that method has to do it, because it raises the error or also changes the data.
    """
    cdef StatusWriter blocks
    cdef long long seq
    cdef uint32_t old
    tasks.begin_op()
    try:
        begin_directly(tasks)
        seq = find_task(tasks, key, original)
        blocks = StatusWriter(tasks.store.snapshot, tasks.store.status)
        old = blocks.get(seq)
        if not old & PRESENT or old & ERROR:
            return False
        if old & CLAIMED:
            note_tries_assigned(tasks.store, seq, 0)
        replace_status(tasks, blocks, seq, old, make_entry(old & FLAGS, 0))
        return True
    finally:
        tasks.end_op()


cdef long long find_task(TaskCache tasks, bytes key, object original) except -1:
    """Return the sequence number of a task. Raises KeyError if no task has this key."""
    cdef long long seq = tasks.find_seq(key)
    if seq == ABSENT:
        raise KeyError(original)
    return seq


cdef int replace_status(TaskCache tasks, StatusWriter blocks, long long seq, uint32_t old, uint32_t new) except -1:
    """Replace the status that ``blocks`` read last, if ``new`` differs from it."""
    if new != old:
        put_status(tasks, blocks, seq, old, new)
        finish(tasks, blocks)
    return 0


def find_tasks(TaskCache tasks not None, list keys not None):
    """Return the arguments of mark_done_many(): the keys, the encoded keys and their sequence numbers.

    It needs no transaction. The number is -1 for a key that does not exist now.
    """
    cdef list encoded = [wanted_key(key) for key in keys]
    if None in encoded:
        raise KeyError(keys[encoded.index(None)])
    tasks.begin_op()
    try:
        return keys, encoded, tasks.find_seqs(encoded)
    finally:
        tasks.end_op()


def mark_done_many(TaskCache tasks not None, list keys not None, list encoded not None, list seqs not None):
    """Mark tasks done. Raises KeyError for a missing key, and the caller's savepoint then rolls back the rest.

    A sequence number that was read before the transaction is still correct if it has a task, because no sequence number
    is used twice.
    """
    cdef StoreBase store = tasks.store
    cdef StatusWriter blocks
    cdef Py_ssize_t index
    cdef long long seq
    cdef uint32_t old
    cdef int32_t count
    cdef list with_error = []
    tasks.begin_op()
    try:
        begin_directly(tasks)
        blocks = StatusWriter(store.snapshot, store.status)
        for index in range(len(seqs)):
            seq = seqs[index]
            old = 0 if seq < 0 else blocks.get(seq)
            if not old & PRESENT:
                seq = tasks.find_seq(encoded[index])
                if seq == ABSENT:
                    raise KeyError(keys[index])
                old = blocks.get(seq)
                if not old & PRESENT:
                    raise tasks.damaged(keys[index], "the task has no status")
            if old & ERROR:
                # Its data change, too.
                with_error.append(keys[index])
            elif old & (DONE | CLAIMED) != DONE:
                count = tries_of(old)
                if old & CLAIMED:
                    count -= try_comes_back(store, seq, old)
                put_status(tasks, blocks, seq, old, make_entry((old & FLAGS & ~<uint32_t>CLAIMED) | DONE, count))
        finish(tasks, blocks)
        for key in with_error:
            tasks.change(key, CLAIMED | ERROR, DONE, 0, 0)
    finally:
        tasks.end_op()


cdef enum:
    # The number of tasks whose records finish_many() reads at once.
    FINISH_CHUNK = 100


def finish_many(TaskCache tasks not None, list changes not None):
    """Finish tasks, as TaskCache.finish_many() does, which this calls for those that only the cache can change."""
    cdef WriteTransaction transaction = <WriteTransaction?>tasks.store
    cdef list failures = [], left = []
    cdef set seen = set()
    cdef Py_ssize_t first
    if transaction.wrote or tasks.has_changes():
        # A record may be written twice in this transaction.
        return tasks.finish_many(changes, 0)
    tasks.begin_op()
    try:
        begin_directly(tasks)
        for first in range(0, len(changes), FINISH_CHUNK):
            finish_some(tasks, changes, first, min(first + FINISH_CHUNK, len(changes)), seen, failures, left)
        if left:
            found = tasks.finish_many([changes[index] for index in left], 0)
            failures.extend([(left[index], error) for index, error in found])
        failures.sort(key=index_of)
        return failures
    finally:
        tasks.end_op()


def index_of(pair):
    return pair[0]


cdef int finish_some(TaskCache tasks, list changes, Py_ssize_t first, Py_ssize_t end, set seen, list failures,
                     list left) except -1:
    """Finish some of the tasks.

    ``seen`` has the sequence numbers of the tasks before. ``failures`` gets indexes and exceptions, and ``left`` the
    indexes of the tasks that are left to the cache.
    """
    cdef WriteTransaction transaction = <WriteTransaction?>tasks.store
    cdef StatusWriter blocks = StatusWriter(transaction.snapshot, transaction.status)
    cdef list encoded = [], numbers = [], order = [], seqs
    cdef list records = []
    cdef dict values
    cdef tuple change
    cdef dict data
    cdef bytes number, before, record, payload
    cdef Py_ssize_t index
    cdef long long seq
    cdef uint32_t old, new
    cdef Record parts
    cdef int kind, codec
    for index in range(first, end):
        change = changes[index]
        encoded.append(encode_key(change[0]))
    seqs = tasks.find_seqs(encoded)
    # In the order of the tasks, because each block is then read and written once.
    for index in sorted(range(end - first), key=seqs.__getitem__):
        seq = seqs[index]
        if seq == ABSENT:
            continue
        change = changes[first + index]
        if seq in seen or (<int>change[1] == FINISH_DONE and sets_status(change[2])):
            left.append(first + index)
            continue
        seen.add(seq)
        order.append(index)
        if change[2] is not None or blocks.get(seq) & ERROR:
            numbers.append(pack(seq))
    values = tasks.get_many(numbers, transaction.values) if numbers else {}
    for index in order:
        seq = seqs[index]
        number = pack(seq)
        change = changes[first + index]
        kind = change[1]
        data = change[2]
        old = blocks.get(seq)
        record = None
        try:
            if not old & PRESENT:
                raise tasks.damaged(change[0], "the task has no status")
            if old & DONE and kind != FINISH_DONE:
                # Somebody has marked the task done meanwhile.
                data = None
            if data is not None or (kind == FINISH_DONE and old & ERROR):
                before = values.get(number)
                if before is None:
                    raise tasks.damaged(change[0], "the index refers to a record that does not exist")
                try:
                    parse_record(<const unsigned char*>PyBytes_AS_STRING(before), PyBytes_GET_SIZE(before), &parts)
                    codec = parts.codec
                    value = data_in(codec, record_payload(&parts))
                except (PersistentOrderedDictIntegrityError, TypeError, ValueError) as error:
                    raise tasks.damaged(change[0], error) from error
                payload = finished_data(value, kind, data, &codec)
                record = build_record(codec, encoded[index], payload, transaction.gzipped)
        except (UnstorableValueError, PersistentOrderedDictIntegrityError) as error:
            failures.append((first + index, error))
            continue
        new = finished_status(transaction, seq, old, kind, data is not None, 0)
        if record is not None:
            records.append((number, record))
            transaction.written += PyBytes_GET_SIZE(record)
            transaction.images.note_record(seq, old, before)
        if new != old:
            put_status(tasks, blocks, seq, old, new)
    if records:
        transaction.wrote = True
        transaction.snapshot.cursor(transaction.values).putmulti(records, True, True)
    return finish(tasks, blocks)
