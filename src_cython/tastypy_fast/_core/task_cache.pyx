"""The cache of a tracker: a task is its data, which is a value like any other, and its status.

A task that was handed out is one dict with both. As long as the cache watches that dict, the dict's
``_done``, ``_aborted`` and ``_tries`` are the truth and are taken over ("absorbed") before anybody asks for
a status; a status that is set by a method is written into the dict at once. So both ways are one.
"""

from libc.stdint cimport uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.claim_record cimport note_tries, try_comes_back
from tastypy_fast._core.cache_entry cimport ABSENT, Copy, Entry, pack
from tastypy_fast._core.cache_entry cimport make_entry as make_cache_entry
from tastypy_fast._core.key_codec cimport describe
from tastypy_fast._core.record_codec cimport NO_PAYLOAD, load_value
from tastypy_fast._core.status_table cimport StatusTable
from tastypy_fast._core.status_block cimport ABORTED, CLAIMED, DONE, ENTRIES, FLAGS, PRESENT, make_entry, tries_of
from tastypy_fast._core.task_dict cimport dump_data, write_status_to_dict, status_in

from contextlib import suppress

from tastypy_fast.exceptions import (
    PersistentOrderedDictIntegrityError,
    UnstorableValueError,
)

__all__ = ["TaskCache"]


cdef class TaskCache(WriteCache):
    """A Cache whose values are tasks."""

    def __init__(self, store):
        self.status = StatusTable(store)
        self.tracks = True
        WriteCache.__init__(self, store)

    # What differs from a plain store

    cdef long long pending(self) except -1:
        return self.dirty_count + self.status.touched

    cdef object decode(self, bytes key, long long seq, int codec, bytes payload):
        cdef uint32_t status = self.status.get(seq)
        cdef dict value = {}
        if not status & PRESENT:
            raise self.damaged(self.key_of(key), "the task has no status")
        write_status_to_dict(value, status)
        self.shown = status & ~<uint32_t>CLAIMED
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

    cdef int show_status(self, object value, long long seq) except -1:
        return write_status_to_dict(value, self.status.get(seq))

    cdef bint is_changed(self, Entry entry, Copy copied) except -1:
        # (what was set in the dict that is watched comes first)
        with suppress(UnstorableValueError):
            self.read_status_from_dict(entry)
        with suppress(UnstorableValueError):
            if status_in(copied.value) == copied.status:
                copied.status = self.status.get(entry.seq) & ~<uint32_t>CLAIMED
                write_status_to_dict(copied.value, copied.status)
                return WriteCache.is_changed(self, entry, copied)
        return True

    cdef int entry_made(self, Entry entry) except -1:
        entry.status_dirty = self.status.untouch(entry.seq)
        return 0

    cdef int entry_gone(self, Entry entry) except -1:
        self.status.set(entry.seq, 0, False)
        return 0

    cdef bint status_differs(self) except -1:
        return self.status.differs()

    cdef Py_ssize_t status_places(self) except -1:
        return len(self.status.differing)

    cdef int write_status(self, object txn, set only, set skip) except -1:
        return self.status.write(txn, only, skip)

    cdef int status_written(self, set only, set skip) except -1:
        return self.status.written(only, skip)

    cdef bytes status_on_disk(self, object txn, long long seq):
        return self.status.on_disk(txn, seq)

    cdef int forget_status(self) except -1:
        return self.status.forget()

    cdef int reload(self) except -1:
        cdef Entry entry
        cdef dict changed
        cdef list kept, held
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
                # Deleted, or deleted and added again.
                self.status.set(entry.disk_seq, 0, False)
        for item, status in kept:
            # (at the number it has now, which may be another)
            entry = item
            if self.entries.get(entry.key) is entry:
                self.set_status(entry.seq, entry, status)
        for seq, status in changed.items():
            # What the other cache has deleted stays deleted.
            if self.status.get(seq) & PRESENT:
                self.status.set(seq, status, True)
        return self.watch_again(held)

    cdef list dirty_status_seqs(self):
        return self.status.touched_seqs()

    cdef int put(self, bytes key, object value, long long sync_at) except -1:
        if not self.writable:
            raise self.store.refuse_write()
        if not isinstance(value, dict):
            raise UnstorableValueError(
                f"the value of a task must be a dict, for its data beside '_done', '_aborted' and '_tries'; "
                f"this is a {type(value).__name__}"
            )
        self.begin_op()
        try:
            self.assign(key, dict(value))
            self.settle(sync_at)
        finally:
            self.end_op()
        return 0

    cdef int assign(self, bytes key, dict value) except -1:
        """Replace a task's data and status. Nothing changes when either cannot be stored."""
        cdef int codec = 0
        cdef uint32_t status = status_in(value)
        cdef bytes payload = dump_data(value, &codec)
        cdef Entry entry = self.entry_of(key)
        cdef long long seq
        if entry is not None:
            seq = entry.seq if entry.exists else self.store.next_free()
            # (everything that can fail comes first, so that a task never has data and no status)
            status = self.with_claim(seq, status)
            self.put_payload(entry, key, codec, payload)
        else:
            seq = self.find_seq(key)
            if seq == ABSENT:
                self.status.load(self.store.next_free() // ENTRIES)
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
        """The status that a task gets which is assigned ``status``. A claim stays as it is, unless that ends the task.

        Where the tries are what they were, they were not assigned: the one of a claim that has not begun is taken back.
        """
        cdef uint32_t before = self.status.get(seq)
        cdef bint same = tries_of(status) == tries_of(before)
        if not before & CLAIMED:
            return status
        if status & ~before & (DONE | ABORTED):
            if same and try_comes_back(self.store, pack(seq), before):
                return make_entry(status & FLAGS, tries_of(status) - 1)
            return status
        if not same:
            note_tries(self.store, pack(seq), 0, tries_of(status))
        return status | CLAIMED

    # Status

    cdef int read_status_from_dict(self, Entry entry) except -1:
        """Take over what the special keys of a watched dict say."""
        cdef uint32_t status, before
        if entry.value is not None and entry.exists:
            status = status_in(entry.value)
            before = self.status.get(entry.seq)
            if status != (before & ~<uint32_t>(FLAGS & ~(PRESENT | DONE | ABORTED))):
                self.set_status(entry.seq, entry, status)
        return 0

    cdef int read_borrowed_statuses(self) except -1:
        """absorb() for the dicts that were handed out by keying since the last time."""
        cdef Entry entry
        self.begin_op()
        try:
            entries = self.borrowed
            self.borrowed = set()
            for item in entries:
                entry = item
                if self.entry_of(entry.key) is entry:
                    with suppress(UnstorableValueError):  # the sync will say so
                        self.read_status_from_dict(entry)
        finally:
            self.end_op()
        return 0

    cdef int read_all_statuses_from_dicts(self, bint shelved) except -1:
        """absorb() for all that is watched; also for what is on the shelf, if asked for."""
        cdef Entry entry
        for item in [*(self.on_shelf() if shelved else ()), *self.entries.values()]:
            entry = item
            if entry.value is not None and entry.exists:
                try:
                    self.read_status_from_dict(entry)
                except UnstorableValueError as error:
                    raise UnstorableValueError(f"the task {describe(self.key_of(entry.key))}: {error}") from error
        return 0

    cdef uint32_t status_at(self, long long seq, Entry entry) except? 0xffffffff:
        """The status of a task that is there."""
        cdef uint32_t status
        if entry is not None:
            self.read_status_from_dict(entry)
        status = self.status.get(seq)
        if not status & PRESENT:
            raise self.damaged("?", f"the task of order number {seq} has no status")
        return status

    cdef int set_status(self, long long seq, Entry entry, uint32_t status) except -1:
        if self.recent is not None and self.recent.seq == seq:
            write_status_to_dict(self.recent.value, status)
            self.recent.status = status & ~<uint32_t>CLAIMED
        if entry is None:
            self.status.set(seq, status, True)
            return 0
        entry.status_dirty = self.status.set(seq, status, False)
        if entry.status_dirty:
            self.count_entry(entry)
        if entry.value is not None:
            write_status_to_dict(entry.value, status)
        return 0
