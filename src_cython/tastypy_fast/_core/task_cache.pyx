"""Keep the changes of a tracker in memory: the data of tasks, as the values of a plain store, and their statuses.

A caller gets a task as one dict with both. While the cache watches that dict, its ``_done``, ``_aborted`` and
``_tries`` are the authoritative status. They are read from the dict before the status is used. A status that a method
sets is written into the dict at once. So both ways of changing a status agree.

``_error``, the error of the last try that failed, is stored with the data. Whether it exists is also in the status, as
the flag ERROR. This flag is a hint, because stores of older formats may have it wrong (see ``status_block``).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, uint32_t

from tastypy_fast._core.cache_entry cimport ABSENT, UNKNOWN, Entry, YieldedCopy, pack
from tastypy_fast._core.cache_entry cimport make_entry as make_cache_entry
from tastypy_fast._core.claim_record cimport move_claim, note_tries_added, note_tries_assigned, try_comes_back
from tastypy_fast._core.finishing cimport FINISH_DONE, data_in, finished_data, finished_status, sets_status
from tastypy_fast._core.key_codec cimport MAX_INDEX_KEY, describe, encode_key, index_key
from tastypy_fast._core.record_codec cimport (
    NO_PAYLOAD,
    Record,
    build_record,
    dump_value,
    load_value,
    parse_record,
    record_payload,
)
from tastypy_fast._core.running_tasks cimport RunningSlot
from tastypy_fast._core.status_block cimport (
    ABORTED,
    CLAIMED,
    DONE,
    ERROR,
    FLAGS,
    MAX_TRIES,
    PRESENT,
    TASKS_PER_BLOCK,
    make_entry,
    tries_of,
)
from tastypy_fast._core.status_table cimport StatusTable
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.sync_schedule cimport monotonic
from tastypy_fast._core.sync_writer cimport count_key_places
from tastypy_fast._core.write_cache cimport FEW, WriteCache

from contextlib import suppress

from tastypy_fast._core.running_tasks import WAITING_TRIES, pack_tries

from tastypy_fast.exceptions import (
    DuplicateKeyError,
    PersistentOrderedDictIntegrityError,
    UnstorableValueError,
)

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* value)
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1

__all__ = ["TaskCache"]

cdef enum:
    # The number of keys that one call looks up in the index.
    CHUNK = 1000
    # The number of tasks whose records finish_many() reads at once.
    FINISH_CHUNK = 100


@cython.final
cdef class TaskCache(WriteCache):
    """A WriteCache whose values are tasks."""

    def __init__(self, store):
        self.status = StatusTable(store)
        self.given_tries = set()
        self.tracks = True
        WriteCache.__init__(self, store)

    # Overrides of WriteCache

    cdef long long pending(self) except -1:
        return self.dirty_count + self.status.touched

    cdef object decode(self, bytes key, long long seq, int codec, bytes payload):
        cdef uint32_t status = self.status.get(seq)
        cdef dict value = self.decode_with(key, status, codec, payload)
        self.decoded_status = status & ~(CLAIMED | ERROR)
        if codec != NO_PAYLOAD and "_error" in value:
            self.decoded_status |= ERROR
        return value

    cdef uint32_t status_of_seq(self, long long seq) except? 0xffffffff:
        return self.status.get(seq)

    cdef object decode_with(self, bytes key, uint32_t status, int codec, bytes payload):
        cdef dict value
        if not status & PRESENT:
            raise self.damaged(self.key_of(key), "the task has no status")
        value = make_status_dict(status)
        if codec != NO_PAYLOAD:
            try:
                value.update(load_value(codec, payload))
            except (PersistentOrderedDictIntegrityError, TypeError, ValueError) as error:
                raise self.damaged(self.key_of(key), error) from error
        return value

    cdef bytes serialise(self, Entry entry, int* codec):
        self.read_status_from_dict(entry)
        return dump_data(entry.value, codec)

    cdef bytes dump(self, object value, int* codec):
        return dump_data(value, codec)

    cdef int write_status_to_value(self, object value, long long seq) except -1:
        return write_status_to_dict(value, self.status.get(seq))

    cdef bint is_changed(self, Entry entry, YieldedCopy copied) except -1:
        # A status that was set in the watched dict takes precedence over the status in the copy.
        with suppress(UnstorableValueError):
            self.read_status_from_dict(entry)
        with suppress(UnstorableValueError):
            if status_in(copied.value) == copied.status:
                copied.status = self.status.get(entry.seq) & ~<uint32_t>CLAIMED
                write_status_to_dict(copied.value, copied.status)
                return WriteCache.is_changed(self, entry, copied)
        return True

    cdef int on_entry_added(self, Entry entry) except -1:
        entry.status_dirty = self.status.untouch(entry.seq)
        return 0

    cdef int on_entry_removed(self, Entry entry) except -1:
        self.status.set(entry.seq, 0, False)
        if self.store.running_tasks is not None:
            self.store.running_tasks.follow(entry.seq, 0)
        return 0

    cdef int relocate(self, Entry entry) except -1:
        cdef long long before = entry.seq
        cdef uint32_t status
        # Do everything that can fail first, because a task must never have data without a status.
        status = self.status_at(before, entry)
        self.status.load(self.store.next_free() // TASKS_PER_BLOCK)
        WriteCache.relocate(self, entry)
        if status & CLAIMED:  # only in the transaction of a shared store
            if try_comes_back(self.store, before, status):
                # A loop has claimed the task and not yielded it, and would not find it at its new place.
                status = make_entry(status & FLAGS & ~<uint32_t>CLAIMED, tries_of(status) - 1)
            else:
                move_claim(self.store, before, entry.seq)
        if self.store.running_tasks is not None:
            self.store.running_tasks.move(before, entry.seq)
        self.status.set(before, 0, False)
        self.set_status(entry.seq, entry, status)
        return 0

    cdef bint status_differs(self) except -1:
        return self.status.differs()

    cdef Py_ssize_t status_places(self) except -1:
        return len(self.status.differing)

    cdef int write_status(self, object txn, set only, set skip) except -1:
        if self.given_tries and only is None:
            left = pack_tries({key: tries for key, tries in self.store.waiting_tries.items()
                               if key not in self.given_tries})
            if left:
                txn.put(WAITING_TRIES, left, db=self.store.meta)
            else:
                txn.delete(WAITING_TRIES, db=self.store.meta)
        return self.status.write(txn, only, skip)

    cdef int status_written(self, set only, set skip) except -1:
        if self.given_tries and only is None:
            for key in self.given_tries:
                self.store.waiting_tries.pop(key, None)
            self.given_tries = set()
        return self.status.written(only, skip)

    cdef uint32_t status_on_disk(self, object txn, long long seq) except? 0xffffffff:
        return self.status.on_disk(txn, seq)

    cdef int forget_status(self) except -1:
        self.given_tries = set()
        return self.status.forget()

    cpdef int revert(self) except -1:
        if self.store.running_tasks is not None:
            self.store.running_tasks.clear()
        return WriteCache.revert(self)

    cdef list dirty_status_seqs(self):
        return self.status.touched_seqs()

    cdef int reload(self) except -1:
        cdef Entry entry
        cdef dict changed
        cdef list kept, held
        cdef uint32_t before
        if not self.has_changes():
            WriteCache.reload(self)
            self.status.forget()
            return 0
        held = self.drop_unchanged()
        changed = self.status.changes()
        kept = [(item, self.status.get((<Entry>item).seq)) for item in self.entries.values()
                if (<Entry>item).exists and ((<Entry>item).dirty or (<Entry>item).status_dirty)]
        WriteCache.reload(self)
        self.status.forget()
        for item in self.entries.values():
            entry = item
            if entry.disk_seq >= 0 and entry.seq != entry.disk_seq:
                # The task was deleted, or deleted and added again.
                self.status.set(entry.disk_seq, 0, False)
        for item, status in kept:
            # Set the status at the current seq, which may have changed.
            entry = item
            if self.entries.get(entry.key) is entry:
                self.set_status(entry.seq, entry, status)
        for seq, status in changed.items():
            # A task that the other cache has deleted stays deleted.
            before = self.status.get(seq)
            if before & PRESENT:
                # The data on disk are those of the other cache.
                self.status.set(seq, (status & ~ERROR) | (before & ERROR), True)
        return self.watch_again(held)

    cdef int put(self, bytes key, object value, long long sync_at) except -1:
        if not self.writable:
            raise self.store.refuse_write()
        if not isinstance(value, dict):
            raise UnstorableValueError(
                f"the value of a task must be a dict, with its data and optionally '_done', '_aborted' and '_tries'; "
                f"this is of type {type(value).__name__}"
            )
        self.begin_op()
        try:
            self.assign(key, dict(value))
            self.sync_if_due(sync_at)
        finally:
            self.end_op()
        return 0

    cdef int assign(self, bytes key, dict value) except -1:
        """Replace a task's data and status. Nothing changes if either cannot be stored."""
        cdef int codec = 0
        cdef uint32_t status = status_in(value)
        cdef bytes payload = dump_data(value, &codec)
        cdef Entry entry = self.entry_of(key)
        cdef long long seq
        if entry is not None:
            seq = entry.seq if entry.exists else self.store.next_free()
            # Do everything that can fail first, because a task must never have data without a status.
            status = self.with_claim(seq, status)
            self.put_payload(entry, key, codec, payload)
        else:
            seq = self.find_seq(key)
            if seq == ABSENT:
                if self.store.waiting_tries and "_tries" not in value:
                    status = make_entry(status & FLAGS, self.take_waiting_tries(key))
                self.status.load(self.store.next_free() // TASKS_PER_BLOCK)
                entry = self.put_new(key, codec, payload)
            else:
                status = self.with_claim(seq, status)
                entry = make_cache_entry(key, seq, seq)
                self.adopt(entry)
                self.add_len_delta(entry)
                self.put_payload(entry, key, codec, payload)
        self.set_status(entry.seq, entry, status)
        return 0

    cdef uint32_t with_claim(self, long long seq, uint32_t status) except? 0xffffffff:
        """Return the new status of a task to which ``status`` is assigned.

        A claim is kept, unless the status ends the task. Assigned tries that equal the old ones count as not assigned.
        In this case the try of the ended claim is subtracted if it has not begun.
        """
        cdef uint32_t before = self.status.get(seq)
        cdef bint same = tries_of(status) == tries_of(before)
        if not before & CLAIMED:
            return status
        if status & ~before & (DONE | ABORTED):
            if same and try_comes_back(self.store, seq, before):
                return make_entry(status & FLAGS, tries_of(status) - 1)
            return status
        if not same:
            note_tries_assigned(self.store, seq, tries_of(status))
        return status | CLAIMED

    # Statuses

    cdef int read_status_from_dict(self, Entry entry) except -1:
        """Set the status of a task from the special keys of its watched dict.

        A dict that no caller references is not read again until it is returned to a caller.
        """
        cdef uint32_t status, before
        if entry.value is None or not entry.exists or entry.status_read == self.status.version:
            return 0
        try:
            # Note this before the dict is read, because keys of the caller's own class may run code meanwhile. A caller
            # that has a reference now may set a status after the read and drop its reference, so read again then.
            if Py_REFCNT(<PyObject*>entry.value) == 1:
                entry.status_read = self.status.version
            status = status_in(entry.value)
            before = self.status.get(entry.seq)
            if status != before & ~<uint32_t>CLAIMED:
                self.set_status(entry.seq, entry, status)
        except BaseException:
            entry.status_read = 0
            raise
        if entry.status_read:
            self.borrowed.discard(entry)
        return 0

    cdef int read_borrowed_statuses(self) except -1:
        """Read the statuses from the dicts that ``tracker[key]`` returned since the last call."""
        cdef Entry entry
        self.begin_op()
        try:
            entries = self.borrowed
            self.borrowed = set()
            for item in entries:
                entry = item
                if self.entry_of(entry.key) is entry:
                    try:
                        self.read_status_from_dict(entry)
                    except UnstorableValueError:
                        pass  # the next sync raises it
        finally:
            self.end_op()
        return 0

    cdef int read_all_statuses_from_dicts(self, bint pinned) except -1:
        """Read the statuses from all watched dicts. ``pinned`` includes the dicts of pinned entries."""
        cdef Entry entry
        for item in [*(self.pinned.entries() if pinned else ()), *self.entries.values()]:
            entry = item
            if entry.value is not None and entry.exists:
                try:
                    self.read_status_from_dict(entry)
                except UnstorableValueError as error:
                    raise UnstorableValueError(f"the task {describe(self.key_of(entry.key))}: {error}") from error
        return 0

    cdef uint32_t status_at(self, long long seq, Entry entry) except? 0xffffffff:
        """Return the status of an existing task."""
        cdef uint32_t status
        if entry is not None:
            self.read_status_from_dict(entry)
        status = self.status.get(seq)
        if not status & PRESENT:
            raise self.damaged("?", f"the task of sequence number {seq} has no status")
        return status

    cdef int set_status(self, long long seq, Entry entry, uint32_t status) except -1:
        cdef YieldedCopy copied = self.last_yielded.copied
        if self.store.running_tasks is not None:
            self.store.running_tasks.follow(seq, status)
        if copied is not None and copied.seq == seq:
            write_status_to_dict(copied.value, status)
            copied.status = status & ~<uint32_t>CLAIMED
        if entry is None:
            self.status.set(seq, status, True)
            return 0
        entry.status_dirty = self.status.set(seq, status, False)
        if entry.status_dirty:
            self.count_as_dirty(entry)
        if entry.value is not None:
            write_status_to_dict(entry.value, status)
        return 0

    cdef long long find_task(self, object key) except? -3:
        """Return the seq of a task, or ABSENT. Sets ``found`` to its cache entry, or None."""
        cdef bytes encoded
        self.found = None
        if key is self.last_yielded.key and key is not None and self.writable and not self.entries \
                and not self.pinned.by_key:
            return self.last_yielded.seq
        encoded = self.wanted(key)
        if encoded is None:
            return ABSENT
        self.found = self.entry_of(encoded)
        if self.found is None:
            return self.seq_on_disk(encoded)
        if self.found.seq == UNKNOWN:
            return self.find_seq(encoded)
        return self.found.seq

    cdef object status_of(self, object key):
        """Return (done, aborted, tries) of a task. Raises KeyError if it does not exist."""
        cdef Entry entry
        cdef long long seq
        cdef uint32_t status
        self.begin_op()
        try:
            seq = self.find_task(key)
            if seq == ABSENT:
                raise KeyError(key)
            entry = self.found
            status = self.status_at(seq, entry)
            return (status & DONE) != 0, (status & ABORTED) != 0, tries_of(status)
        finally:
            self.end_op()

    cdef object change(self, object key, uint32_t drop, uint32_t add, int added_tries, long long sync_at):
        """Remove flags from a task's status, add others, and add to its tries."""
        cdef Entry entry
        cdef long long seq
        cdef uint32_t status
        cdef int32_t tries
        if not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            seq = self.find_task(key)
            if seq == ABSENT:
                raise KeyError(key)
            entry = self.found
            status = self.status_at(seq, entry)
            tries = tries_of(status) + added_tries
            if not -MAX_TRIES <= tries <= MAX_TRIES:
                raise UnstorableValueError(f"the tries of task {describe(key)} must lie within +-{MAX_TRIES}")
            if status & CLAIMED:  # only in the transaction of a shared store
                if drop & CLAIMED:
                    tries -= added_tries == 0 and try_comes_back(self.store, seq, status)
                elif added_tries:
                    note_tries_added(self.store, seq, added_tries)
            if status & drop & ERROR:
                entry = self.without_error(key, seq, entry)
            self.set_status(seq, entry, make_entry((status & FLAGS & ~drop) | add, tries))
            self.sync_if_due(sync_at)
        finally:
            self.end_op()

    cdef Entry without_error(self, object key, long long seq, Entry entry):
        """Remove ``_error`` from the data of a task. Returns the task's cache entry, or None if it still has none.

        The caller removes the flag from the status.
        """
        cdef YieldedCopy copied = self.last_yielded.copied
        cdef bytes encoded
        cdef dict value
        cdef long long stored = 0
        cdef int codec = 0
        if entry is not None and entry.value is not None:
            entry.status_read = 0
            entry.value.pop("_error", None)
            self.count_as_dirty(entry)
        else:
            if entry is None:
                encoded = encode_key(key)
                raw = self.find_record(encoded, &stored)
                if raw is None:
                    raise self.damaged(key, "the index refers to a record that does not exist")
                entry = self.entry_from_record(encoded, seq, raw)
                value = self.decode(encoded, seq, entry.codec, entry.payload)
                if "_error" not in value:
                    return None
                self.adopt(entry)
                self.add_len_delta(entry)
            else:
                value = self.decode(entry.key, seq, entry.codec, entry.payload)
            value.pop("_error", None)
            payload = dump_data(value, &codec)
            self.put_payload(entry, entry.key, codec, payload)
        if copied is not None and copied.seq == seq:
            copied.value.pop("_error", None)
        return entry

    cdef object record_error(self, object key, dict error, long long sync_at):
        """Set ``_error`` of a task, with the number of its tries."""
        if not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            tries = self.status_of(key)[2]
            self.merge(key, {"_error": {**error, "try": tries}}, 0)
            self.sync_if_due(sync_at)
        finally:
            self.end_op()

    cdef object mark_done_with(self, object key, dict data, long long sync_at):
        """Update a task with a dict and mark it done. If the data cannot be stored, neither happens."""
        if not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            if self.find_task(key) == ABSENT:
                raise KeyError(key)
            self.merge(key, data, 0)
            self.change(key, CLAIMED | ERROR, DONE, 0, 0)
            self.sync_if_due(sync_at)
        finally:
            self.end_op()

    cdef list finish_many(self, list changes, long long sync_at):
        """Change many tasks that a program has run, in one operation, with one sync at its end if it is due.

        ``changes`` are tuples (key, what becomes of the task, dict or None, number of the try): see
        ``_core.finishing``. The number may be left out. With it, a private tracker counts the try once, also
        if the change is made again because a later one raised. Returns pairs of an index and an exception
        for those whose data cannot be stored or read. They are not changed. A task that does not exist any more is
        skipped.
        """
        cdef list failures = []
        cdef Py_ssize_t first
        if not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            for first in range(0, len(changes), FINISH_CHUNK):
                self.finish_some(changes, first, min(first + FINISH_CHUNK, len(changes)), failures)
            self.sync_if_due(sync_at)
        finally:
            self.end_op()
        return failures

    cdef int finish_some(self, list changes, Py_ssize_t first, Py_ssize_t end, list failures) except -1:
        """Change some of the tasks. One call of LMDB finds them, and one reads the records that are needed."""
        cdef list encoded = [], wanted = []
        cdef list seqs
        cdef dict records
        cdef Py_ssize_t index
        cdef tuple change
        cdef long long seq
        for index in range(first, end):
            change = changes[index]
            encoded.append(encode_key(change[0]))
        seqs = self.find_seqs(encoded)
        for index in range(end - first):
            seq = seqs[index]
            change = changes[first + index]
            if seq != ABSENT and (change[2] is not None or self.status.get(seq) & ERROR) \
                    and self.entry_of(encoded[index]) is None:
                wanted.append(pack(seq))
        records = self.get_many(wanted, self.store.values) if wanted else {}
        for index in range(end - first):
            seq = seqs[index]
            if seq != ABSENT:
                change = changes[first + index]
                try:
                    self.finish_task(change[0], encoded[index], seq, change[1], change[2],
                                     change[3] if len(change) > 3 else 0, records)
                except (UnstorableValueError, PersistentOrderedDictIntegrityError) as error:
                    failures.append((first + index, error))
        return 0

    cdef int finish_task(self, object key, bytes encoded, long long seq, int kind, dict data, int32_t number,
                         dict records) except -1:
        """Change one task, as ``kind`` says. Nothing changes if the data cannot be stored."""
        cdef Entry entry = self.entry_of(encoded)
        cdef uint32_t status = self.status_at(seq, entry)
        cdef bint is_done = kind == FINISH_DONE
        cdef bint has_error = (status & ERROR) != 0
        cdef uint32_t changed
        cdef Record record
        cdef int codec = 0
        cdef bytes payload = None
        cdef bytes raw
        cdef dict value
        if status & DONE and not is_done:
            # Somebody has marked the task done meanwhile.
            data = None
        elif is_done and sets_status(data):
            # The data set the status, too.
            self.mark_done_with(key, data, 0)
            return 0
        if data is not None or (is_done and has_error):
            if entry is not None and entry.value is not None:
                value = dict(entry.value)
                if is_done:
                    value.update(data or ())
                    value.pop("_error", None)
                else:
                    value.pop("_error", None)
                    value["_error"] = data
                dump_data(value, &codec)
                # Change the dict in place, because the caller may reference it.
                entry.status_read = 0
                if is_done:
                    entry.value.update(data or ())
                entry.value.pop("_error", None)
                if not is_done:
                    entry.value["_error"] = data
                self.count_as_dirty(entry)
            else:
                if entry is not None:
                    payload = entry.payload
                    codec = entry.codec
                else:
                    raw = records.get(pack(seq))
                    if raw is None:
                        raise self.damaged(key, "the index refers to a record that does not exist")
                    try:
                        parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), &record)
                        payload = record_payload(&record)
                    except PersistentOrderedDictIntegrityError as error:
                        raise self.damaged(key, error) from error
                    codec = record.codec
                try:
                    value = data_in(codec, payload)
                except (PersistentOrderedDictIntegrityError, TypeError, ValueError) as error:
                    raise self.damaged(key, error) from error
                payload = finished_data(value, kind, data, &codec)
                if entry is None:
                    entry = make_cache_entry(encoded, seq, seq)
                    self.adopt(entry)
                    self.add_len_delta(entry)
                self.put_payload(entry, encoded, codec, payload)
        changed = finished_status(self.store, seq, status, kind, data is not None, number)
        if changed != status:
            self.set_status(seq, entry, changed)
        return 0

    cdef object reset_tries(self, object key, long long sync_at):
        """Set the tries of a task to zero, and remove its ``_error``."""
        cdef Entry entry
        cdef long long seq
        cdef uint32_t status
        if not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            seq = self.find_task(key)
            if seq == ABSENT:
                raise KeyError(key)
            entry = self.found
            status = self.status_at(seq, entry)
            if status & CLAIMED:  # only in the transaction of a shared store
                note_tries_assigned(self.store, seq, 0)
            if status & ERROR:
                entry = self.without_error(key, seq, entry)
            self.set_status(seq, entry, make_entry(status & FLAGS & ~<uint32_t>ERROR, 0))
            self.sync_if_due(sync_at)
        finally:
            self.end_op()

    cdef object gate(self, object key, long long max_tries, bint allow_aborted, bint add, bint attempt,
                     long long sync_at):
        """Return whether a task is to be done. ``add`` adds a missing task, ``attempt`` counts the try."""
        cdef Entry entry
        cdef long long seq
        cdef uint32_t status
        if (add or attempt) and not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            seq = self.find_task(key)
            if seq == ABSENT:
                if not add:
                    raise KeyError(key)
                self.add_one(encode_key(key))
                seq = self.find_task(key)
            entry = self.found
            status = self.status_at(seq, entry)
            if status & DONE or (status & ABORTED and not allow_aborted) \
                    or (max_tries and tries_of(status) >= max_tries):
                return False
            if attempt:
                self.set_status(seq, entry, make_entry(status & FLAGS, tries_of(status) + 1))
                self.note_running(seq, encode_key(key), tries_of(status) + 1)
            self.sync_if_due(sync_at)
            return True
        finally:
            self.end_op()

    cdef RunningSlot open_running_slot(self):
        """Return a slot for an iterator of a private store, in which it notes the task that it has yielded last."""
        if self.store.running_tasks is None:
            self.store.open_running_tasks()
        return self.store.running_tasks.open_slot()

    cdef int note_running(self, long long seq, bytes key, int32_t tries) except -1:
        """Note a task that the calling thread runs now. In a shared store, its claim says so."""
        if self.store.images is None:
            if self.store.running_tasks is None:
                self.store.open_running_tasks()
            self.store.running_tasks.set_of_thread(seq, key, tries)
        return 0

    cdef object count_all(self):
        """Return (tasks, done, aborted, tried at least once). Cost: one visit to each block's head, later nothing."""
        self.begin_op()
        try:
            self.resolve()
            self.read_all_statuses_from_dicts(True)
            try:
                self.status.count()
            except Exception as error:
                self.store.reraise(error)
            return (self.status.totals[0], self.status.totals[1], self.status.totals[2], self.status.totals[3])
        finally:
            self.end_op()

    # Adding

    cdef int add_one(self, bytes key) except -1:
        cdef Entry entry
        self.status.load(self.store.next_free() // TASKS_PER_BLOCK)
        entry = self.put_new(key, NO_PAYLOAD, None)
        return self.set_status(entry.seq, entry,
                               make_entry(PRESENT, self.take_waiting_tries(key) if self.store.waiting_tries else 0))

    cdef int32_t take_waiting_tries(self, bytes key) except? -1:
        """Return the tries that a new task has already, because it killed an earlier process before its first sync."""
        key = index_key(key)
        tries = self.store.waiting_tries.get(key)
        if tries is None:
            return 0
        self.given_tries.add(key)
        return tries

    cdef object add_many(self, object keys, bint if_absent, long long sync_at):
        """Add every key of an iterable, which is read in chunks."""
        cdef Py_ssize_t chunk = min(sync_at, CHUNK) if sync_at else CHUNK
        cdef list encoded = [], originals = []
        # Whether all keys so far were new, so that the next keys are expected to be new, too.
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
                        self.sync_if_due(sync_at)
        finally:
            # Also add the keys before a key that was refused, or before the iterable raised.
            if encoded:
                self.add_chunk(encoded, originals, if_absent)
                self.sync_if_due(sync_at)

    cdef bint add_chunk(self, list keys, list originals, bint if_absent) except -1:
        """Add tasks. Returns whether all of them were new."""
        cdef list seqs
        cdef Entry entry
        cdef bytes key
        cdef Py_ssize_t position
        cdef bint exists, all_new = True
        self.begin_op()
        try:
            seqs = self.find_seqs(keys) if len(keys) > FEW else None
            for position in range(len(keys)):
                key = keys[position]
                entry = self.entries.get(key)
                if entry is not None:
                    exists = entry.exists
                else:
                    exists = (self.seq_on_disk(key) if seqs is None else <long long>seqs[position]) != ABSENT
                if exists:
                    if not if_absent:
                        raise DuplicateKeyError(
                            f"the task {describe(originals[position])} is in the tracker already; use add_if_absent() "
                            f"or add_many_if_absent() to skip existing keys"
                        )
                    all_new = False
                else:
                    self.add_one(key)
        finally:
            self.end_op()
        return all_new

    cdef bint add_synced(self, list keys) except -1:
        """Write the tasks of one sync without the cache.

        Returns False, and changes nothing, if one of them exists or must go through the cache. Then the caller uses
        add_chunk(), which raises the error.
        """
        cdef StoreBase store = self.store
        cdef long long first
        cdef Py_ssize_t position, size = 0
        cdef bytes key, number
        cdef list index = [], records = []
        self.begin_op()
        try:
            if self.has_changes() or store.snapshot_per_op or store.images is not None or store.waiting_tries:
                return False
            first = store.next_free()
            for position in range(len(keys)):
                key = keys[position]
                if PyBytes_GET_SIZE(key) > MAX_INDEX_KEY:
                    return False
                number = pack(first + position)
                index.append((key, number))
                records.append((number, build_record(NO_PAYLOAD, key, None, store.gzipped)))
                size += PyBytes_GET_SIZE(key)
            try:
                for position in range(len(keys)):
                    self.status.set(first + position, make_entry(PRESENT, 0), True)
                store.next_seq = first + len(keys)
                store.write_sync(lambda txn: self.put_tasks(txn, index, records),
                                 count_key_places(keys) + self.status_places(), size)
            except Exception:
                self.status.forget()
                store.end_reading()
                if store.reader().get(keys[0], None, store.order) == pack(first):
                    # The tasks are committed, and the checkpoint after that failed.
                    raise
                store.next_seq = first
                return False
            except BaseException:
                # An interrupt came, perhaps after the commit. The next operation reads the statuses from the disk.
                self.status.forget()
                raise
            self.status_written(None, set())
            self.cache_version += 1
            self.disk_count = -1
            self.disk_version = store.disk_version
            if store.flushes_each_sync:
                store.flush()
            self.synced_at = monotonic()
            return True
        finally:
            self.end_op()

    cdef int put_tasks(self, object txn, list index, list records) except -1:
        """Write the tasks of add_synced(). This may run again after a failed transaction."""
        if txn.cursor(self.store.order).putmulti(index, True, False)[1] != len(index):
            raise DuplicateKeyError("one of the tasks is in the tracker already")
        if txn.cursor(self.store.values).putmulti(records, True, True, True)[1] != len(records):
            raise self.store.damaged("records could not be appended in order")
        return self.write_status(txn, None, set())

    cdef object merge(self, object key, dict changes, long long sync_at):
        """Apply ``dict.update()`` to a task. A missing task is added."""
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
                # Check that the result can be stored, and change the dict in place, because a caller may reference it.
                value = {**entry.value, **changes}
                status_in(value)
                dump_data(value, &codec)
                entry.status_read = 0
                entry.value.update(changes)
                self.read_status_from_dict(entry)
                self.count_as_dirty(entry)
            else:
                value = self.decode(encoded, entry.seq, entry.codec, entry.payload) if entry.exists else {}
                self.assign(encoded, {**value, **changes})
            self.sync_if_due(sync_at)
        finally:
            self.end_op()

    def check(self):
        """Raise AssertionError if the cache or its statuses contradict themselves or the disk."""
        WriteCache.check(self)
        self.begin_op()
        try:
            self.read_all_statuses_from_dicts(True)
            self.status.check()
        finally:
            self.end_op()


# The dict of a task: its status in three special keys, and its data in all others.

cdef uint32_t status_in(dict value) except? 0xffffffff:
    """Return the status in the special keys of a task's dict. A missing key counts as False or 0."""
    cdef uint32_t flags = PRESENT
    cdef object tries = value.get("_tries", 0)
    cdef int overflow = 0
    cdef long long number
    if is_set(value, "_done"):
        flags |= DONE
    if is_set(value, "_aborted"):
        flags |= ABORTED
    if "_error" in value:
        flags |= ERROR
    if not isinstance(tries, int) or isinstance(tries, bool):
        raise UnstorableValueError(f"a task's '_tries' must be an int; it is {describe(tries)}")
    number = PyLong_AsLongLongAndOverflow(tries, &overflow)
    if overflow or not -MAX_TRIES <= number <= MAX_TRIES:
        raise UnstorableValueError(f"a task's '_tries' must lie within +-{MAX_TRIES}; it is {describe(tries)}")
    return make_entry(flags, number)


cdef bint is_set(dict value, str name) except -1:
    """Return whether a special key of a task's dict is True."""
    cdef object found = value.get(name, False)
    if found is True or found is False:
        return found is True
    if type(found) is not int or found not in (0, 1):
        raise UnstorableValueError(f"a task's {name!r} must be True or False; it is {describe(found)}")
    return <bint>found


cdef bytes dump_data(dict value, int* codec):
    """Return the JSON of a task without its special keys, or None if it has no other keys."""
    cdef dict data = value.copy()
    data.pop("_done", None)
    data.pop("_aborted", None)
    data.pop("_tries", None)
    if data:
        return dump_value(data, codec)
    codec[0] = NO_PAYLOAD
    return None


# The dict of a new task without data.
cdef dict FRESH = {"_done": False, "_aborted": False, "_tries": 0}


cdef dict make_status_dict(uint32_t status):
    """Return a new dict with the special keys of a task. A copy is faster than three insertions into an empty dict."""
    cdef dict value = FRESH.copy()
    if status & DONE:
        value["_done"] = True
    if status & ABORTED:
        value["_aborted"] = True
    if tries_of(status):
        value["_tries"] = tries_of(status)
    return value


cdef int write_status_to_dict(dict value, uint32_t status) except -1:
    value["_done"] = (status & DONE) != 0
    value["_aborted"] = (status & ABORTED) != 0
    value["_tries"] = tries_of(status)
    return 0
