"""What a tracker does with its tasks: adding, changing and asking for statuses, counting, mixing in data."""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.claim_record cimport note_tries, try_comes_back
from tastypy_fast._core.cache_entry cimport ABSENT, Entry, pack
from tastypy_fast._core.key_codec cimport describe, encode_key
from tastypy_fast._core.record_codec cimport NO_PAYLOAD, build_record
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.status_block cimport (
    ABORTED,
    CLAIMED,
    DONE,
    ENTRIES,
    FLAGS,
    MAX_TRIES,
    PRESENT,
    make_entry,
    tries_of,
)
from tastypy_fast._core.cache_sync cimport count_key_places
from tastypy_fast._core.task_cache cimport TaskCache
from tastypy_fast._core.task_dict cimport dump_data, status_in

from tastypy_fast.exceptions import (
    DuplicateKeyError,
    UnstorableValueError,
)

__all__ = ["TrackerCache"]

cdef enum:
    # As many keys are looked up in the index with one call.
    CHUNK = 1000


@cython.final
cdef class TrackerCache(TaskCache):
    """The cache of a tracker."""

    cdef long long order_of(self, object key) except? -3:
        """Where a task is (ABSENT: nowhere); ``found`` is then its entry, if the cache has one."""
        cdef bytes encoded
        self.found = None
        if key is self.recent_key and key is not None and self.writable and not self.entries \
                and not self.shelf:
            return self.recent_order
        encoded = encode_key(key)
        self.found = self.entry_of(encoded)
        return self.find_seq(encoded)

    cdef object status_of(self, object key):
        """(done, aborted, tries) of a task. KeyError when there is none."""
        cdef Entry entry
        cdef long long seq
        cdef uint32_t status
        self.begin_op()
        try:
            seq = self.order_of(key)
            if seq == ABSENT:
                raise KeyError(key)
            entry = self.found
            status = self.status_at(seq, entry)
            return (status & DONE) != 0, (status & ABORTED) != 0, tries_of(status)
        finally:
            self.end_op()

    cdef object change(self, object key, uint32_t drop, uint32_t add, int tries, long long sync_at):
        """Drop flags of a task, add others, and add to its tries (``tries`` 2: set them to zero)."""
        cdef Entry entry
        cdef long long seq
        cdef uint32_t status
        cdef int32_t count
        if not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            seq = self.order_of(key)
            if seq == ABSENT:
                raise KeyError(key)
            entry = self.found
            status = self.status_at(seq, entry)
            count = 0 if tries == 2 else tries_of(status) + tries
            if not -MAX_TRIES <= count <= MAX_TRIES:
                raise UnstorableValueError(f"the tries of task {describe(key)} must lie within +-{MAX_TRIES}")
            if status & CLAIMED:  # (in the transaction of a shared store)
                if drop & CLAIMED:
                    count -= tries == 0 and try_comes_back(self.store, pack(seq), status)
                elif tries:
                    note_tries(self.store, pack(seq), 0 if tries == 2 else tries, count)
            self.set_status(seq, entry, make_entry((status & FLAGS & ~drop) | add, count))
            self.settle(sync_at)
        finally:
            self.end_op()

    cdef object gate(self, object key, long long max_tries, bint allow_aborted, bint add, bint attempt,
                     long long sync_at):
        """Whether a task is to be done; ``add`` adds a missing one, ``attempt`` counts the try."""
        cdef Entry entry
        cdef long long seq
        cdef uint32_t status
        if (add or attempt) and not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            seq = self.order_of(key)
            if seq == ABSENT:
                if not add:
                    raise KeyError(key)
                self.add_one(encode_key(key))
                seq = self.order_of(key)
            entry = self.found
            status = self.status_at(seq, entry)
            if status & DONE or (status & ABORTED and not allow_aborted) \
                    or (max_tries and tries_of(status) >= max_tries):
                return False
            if attempt:
                self.set_status(seq, entry, make_entry(status & FLAGS, tries_of(status) + 1))
            self.settle(sync_at)
            return True
        finally:
            self.end_op()

    cdef object count_all(self):
        """(tasks, done, aborted, tried at least once). Cost: the blocks' heads once, then nothing."""
        self.begin_op()
        try:
            self.resolve()
            self.read_all_statuses_from_dicts(True)
            try:
                self.status.count()
            except Exception as error:
                raise self.store.translated(error) from error
            return (self.status.totals[0], self.status.totals[1], self.status.totals[2], self.status.totals[3])
        finally:
            self.end_op()

    # Adding

    cdef int add_one(self, bytes key) except -1:
        cdef Entry entry
        self.status.load(self.store.next_free() // ENTRIES)
        entry = self.put_new(key, NO_PAYLOAD, None)
        return self.set_status(entry.seq, entry, make_entry(PRESENT, 0))

    cdef bint add_chunk(self, list keys, list originals, bint if_absent) except -1:
        """Add tasks. Whether all of them were new."""
        cdef list seqs
        cdef Entry entry
        cdef bytes key
        cdef Py_ssize_t position
        cdef bint all_new = True
        self.begin_op()
        try:
            seqs = self.find_seqs(keys)
            for position in range(len(keys)):
                key = keys[position]
                entry = self.entries.get(key)
                if entry.exists if entry is not None else seqs[position] != ABSENT:
                    if not if_absent:
                        raise DuplicateKeyError(
                            f"the task {describe(originals[position])} is in the tracker already; add_if_absent() and "
                            f"add_many_if_absent() pass over such keys"
                        )
                    all_new = False
                else:
                    self.add_one(key)
        finally:
            self.end_op()
        return all_new

    cdef bint add_synced(self, list keys) except -1:
        """Add as many tasks as are synced at once, past the cache. False, and nothing is done, where one of them is
        there already, or where it cannot be done so: add_chunk() finds out, and says, what there is to say."""
        cdef StoreBase store = self.store
        cdef long long first
        cdef Py_ssize_t position, size = 0
        cdef bytes key, number
        cdef list index = [], records = []
        self.begin_op()
        try:
            if self.has_changes() or store.transient or store.images is not None:
                return False
            first = store.next_free()
            for position in range(len(keys)):
                key = keys[position]
                if PyBytes_GET_SIZE(key) > 511:
                    return False
                number = pack(first + position)
                index.append((key, number))
                records.append((number, build_record(NO_PAYLOAD, key, None, store.gzipped)))
                size += PyBytes_GET_SIZE(key)
            try:
                for position in range(len(keys)):
                    self.status.set(first + position, make_entry(PRESENT, 0), True)
                store.next_order = first + len(keys)
                store.write_sync(lambda txn: self.put_tasks(txn, index, records),
                                 count_key_places(keys) + self.status_places(), size)
            except Exception:
                self.status.forget()
                store.end_reading()
                if store.reader().get(keys[0], None, store.order) == pack(first):
                    # It is written: what failed came after that, as the log was merged.
                    raise
                store.next_order = first
                return False
            except BaseException:
                # (an interrupt, which may have come after the commit: what is there is found out next time)
                self.status.forget()
                raise
            self.status_written(None, set())
            self.cache_version += 1
            self.disk_count = -1
            self.disk_version = store.disk_version
            if store.flushes_each_sync:
                store.flush()
            return True
        finally:
            self.end_op()

    cdef int put_tasks(self, object txn, list index, list records) except -1:
        """What add_synced() writes. May run again after a transaction that failed."""
        if txn.cursor(self.store.order).putmulti(index, True, False)[1] != len(index):
            raise DuplicateKeyError("one of the tasks is in the tracker already")
        if txn.cursor(self.store.values).putmulti(records, True, True, True)[1] != len(records):
            raise self.damaged("?", "records could not be appended in order")
        return self.write_status(txn, None, set())

    cdef object add_many(self, object keys, bint if_absent, long long sync_at):
        """Add every key of an iterable, which is read in chunks and never held whole."""
        cdef Py_ssize_t chunk = min(sync_at, CHUNK) if sync_at else CHUNK
        cdef list encoded = [], originals = []
        # Whether the last ones were new, and the next ones will be, too.
        cdef bint all_new = True
        if not self.writable:
            raise self.store.refuse_write()
        try:
            for key in keys:
                encoded.append(encode_key(key))
                originals.append(key)
                if len(encoded) >= chunk:
                    ready, encoded = encoded, []
                    names, originals = originals, []
                    if not (all_new and chunk == sync_at and self.add_synced(ready)):
                        all_new = self.add_chunk(ready, names, if_absent)
                        self.settle(sync_at)
        finally:
            # Also what came before a key that was refused, or before the iterable raised.
            if encoded:
                self.add_chunk(encoded, originals, if_absent)
                self.settle(sync_at)

    cdef object merge(self, object key, dict changes, long long sync_at):
        """``dict.update()`` a task, which is added if it is not there."""
        cdef bytes encoded = encode_key(key)
        cdef long long seq = 0
        cdef Entry entry
        cdef int codec = 0
        cdef dict value
        if not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            entry = self.entry_of(encoded)
            if entry is None:
                raw = self.find_record(encoded, &seq)
                value = {}
                if raw is not None:
                    entry = self.entry_from_record(encoded, seq, raw)
                    value = self.decode(encoded, seq, entry.codec, entry.payload)
                self.assign(encoded, {**value, **changes})
            elif entry.exists and entry.value is not None:
                # Somebody may hold this dict: it changes in place, once it is sure that it can be stored.
                value = {**entry.value, **changes}
                status_in(value)
                dump_data(value, &codec)
                entry.value.update(changes)
                self.read_status_from_dict(entry)
                self.count_entry(entry)
            else:
                value = self.decode(encoded, entry.seq, entry.codec, entry.payload) if entry.exists else {}
                self.assign(encoded, {**value, **changes})
            self.settle(sync_at)
        finally:
            self.end_op()

    def check(self):
        """As Cache.check(), and the statuses in memory."""
        WriteCache.check(self)
        self.begin_op()
        try:
            self.read_all_statuses_from_dicts(True)
            self.status.check()
        finally:
            self.end_op()
