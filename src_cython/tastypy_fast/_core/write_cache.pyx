"""The dirty cache: what differs, or may differ, between memory and disk.

Cost in short: reading or changing a key that is in the cache touches no other memory than the cache's
dict; a key that is not costs a look into LMDB to read, and nothing at all to assign, because whether it
is new is found out for many keys at once. The cache holds what lies between two syncs, never the store.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from tastypy_fast._core.cache_entry cimport ABSENT, UNKNOWN, Copy, Entry, make_entry
from tastypy_fast._core.key_codec cimport describe
from tastypy_fast._core.record_codec cimport NO_PAYLOAD, Record, dump_value, parse_record
from tastypy_fast._core.cache_sync cimport Syncing

from copy import deepcopy

from tastypy_fast.exceptions import UnstorableValueError

__all__ = ["WriteCache"]


cdef enum:
    # Of a copy whose value could not be stored.
    UNSTORABLE = -1


cdef class WriteCache(Syncing):
    """The memory that instances on one path share."""

    # Changing

    cdef Entry put_payload(self, Entry entry, bytes key, int codec, bytes payload):
        """The one place where a value is assigned. ``entry`` is what the cache has for the key, or None."""
        if entry is None:
            entry = make_entry(key, UNKNOWN, UNKNOWN)
            self.entries[key] = entry
            self.unresolved.append(entry)
        elif not entry.exists:
            # Deleted and back again: it goes to the end, behind what has no number yet.
            self.resolve()
            self.remove_len_delta(entry)
            del self.entries[key]
            self.entries[key] = entry
            entry.exists = True
            entry.relocated = True
            entry.seq = self.store.allocate()
            self.track_new(entry)
            self.add_len_delta(entry)
        # (let go of at the end, when all is in place: that may run anybody's code)
        _before = entry.value
        entry.value = None
        entry.codec = codec
        entry.payload = payload
        entry.dirty = True
        self.count_entry(entry)
        return entry

    cdef int put(self, bytes key, object value, long long sync_at) except -1:
        """Assign. Blind: whether the key is new is found out later, for many at once."""
        cdef int codec = 0
        cdef bytes payload
        cdef Entry entry
        if not self.writable:
            raise self.store.refuse_write()
        payload = dump_value(value, &codec)
        entry = self.entry_of(key)
        if self.busy or self.closed or (entry is not None and not entry.exists):
            self.begin_op()
            try:
                self.put_payload(self.entry_of(key), key, codec, payload)
                self.settle(sync_at)
            finally:
                self.end_op()
        else:
            self.put_payload(entry, key, codec, payload)
            if sync_at and self.dirty_count >= sync_at:
                self.settle(sync_at)
        return 0

    cdef Entry put_new(self, bytes key, int codec, bytes payload):
        """Assign to a key that is known not to be there."""
        cdef Entry entry = self.entries.get(key)
        if entry is None:
            entry = make_entry(key, ABSENT, self.store.allocate())
            self.entries[key] = entry
            self.track_new(entry)
            self.add_len_delta(entry)
        return self.put_payload(entry, key, codec, payload)

    cdef int adopt(self, Entry entry) except -1:
        """Put a new entry into the cache, where it counts towards sync_at."""
        self.entries[entry.key] = entry
        entry.counts_as_dirty = True
        self.dirty_count += 1
        self.entry_made(entry)
        return 0

    cdef object fetch(self, bytes key, object original, long long sync_at):
        """The value of a key. A list or dict is watched from here to the next sync."""
        cdef Entry entry
        cdef long long seq = 0
        cdef bytes raw
        self.begin_op()
        try:
            entry = self.entry_of(key)
            if entry is not None:
                if not entry.exists:
                    raise KeyError(original)
                value = self.borrow(entry)
                if self.tracks and self.writable:
                    self.borrowed.add(entry)
                if value is entry.value and self.writable:
                    # (also where it was watched past a sync, and is handed out anew)
                    self.count_entry(entry)
                return value
            raw = self.find_record(key, &seq)
            if raw is None:
                raise KeyError(original)
            entry = self.entry_from_record(key, seq, raw)
            value = self.borrow(entry)
            if self.writable and entry.value is not None:
                # First the sync, then the hand-out: the change that follows finds its entry in the cache.
                self.settle(sync_at)
                self.adopt(entry)
                if self.tracks:
                    self.borrowed.add(entry)
            return value
        finally:
            self.end_op()

    cdef bint contains(self, bytes key) except -1:
        cdef Entry entry = self.entries.get(key)
        if entry is not None and not self.busy and not self.is_stale():
            return entry.exists
        self.begin_op()
        try:
            entry = self.entries.get(key)
            return entry.exists if entry is not None else self.find_seq(key) != ABSENT
        finally:
            self.end_op()

    cdef int delete(self, bytes key, object original, long long sync_at) except -1:
        cdef Entry entry
        cdef long long seq
        if not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            entry = self.entry_of(key)
            if entry is not None and entry.disk_seq == UNKNOWN:
                self.resolve()
                entry = self.entries.get(key)
            if entry is None:
                seq = self.find_seq(key)
                if seq == ABSENT:
                    raise KeyError(original)
                entry = make_entry(key, seq, seq)
                self.adopt(entry)
            elif not entry.exists:
                raise KeyError(original)
            self.remove_entry(entry)
            self.settle(sync_at)
        finally:
            self.end_op()
        return 0

    cdef int remove_entry(self, Entry entry) except -1:
        """Delete a key whose place on disk is known."""
        self.entry_gone(entry)
        self.remove_len_delta(entry)
        self.untrack_new(entry)
        self.recent_key = None
        entry.exists = False
        entry.relocated = False
        entry.seq = ABSENT
        entry.value = entry.payload = None
        entry.codec = NO_PAYLOAD
        entry.dirty = True
        if entry.disk_seq == ABSENT:
            del self.entries[entry.key]
            self.dirty_count -= entry.counts_as_dirty
        else:
            self.count_entry(entry)
            self.add_len_delta(entry)
        return 0

    cdef long long length(self) except -1:
        if self.disk_count >= 0 and not self.busy and not self.unresolved \
                and not self.is_stale() and not self.store.transient:
            return self.disk_count + self.len_delta
        self.begin_op()
        try:
            self.resolve()
            if self.disk_count < 0:
                self.disk_count = self.store.count()
            return self.disk_count + self.len_delta
        finally:
            self.end_op()

    # Asking

    def dirty_keys(self):
        """The keys that a sync would write, in order of their first change."""
        cdef Entry entry
        cdef Record record
        cdef int codec = 0
        keys = []
        self.begin_op()
        try:
            for item in [*self.on_shelf(), *self.entries.values()]:
                entry = item
                if entry.value is not None and not entry.dirty:
                    # (what the value says of a status is taken over there, before the status is asked for)
                    try:
                        payload = self.serialise(entry, &codec)
                        if codec == entry.codec and payload == entry.payload and not entry.status_dirty:
                            continue
                    except (TypeError, ValueError):
                        pass
                elif not entry.dirty and not entry.status_dirty:
                    continue
                keys.append(self.key_of(entry.key))
            for seq in self.dirty_status_seqs():
                raw = self.record_at(seq)
                if raw is None:
                    raise self.damaged("?", "a status has no record")
                parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), &record)
                keys.append(self.key_of(record.key[:record.key_size]))
        finally:
            self.end_op()
        return keys

    def mark(self, bytes key, original, long long sync_at):
        """Have the next sync write the value of a key, changed or not."""
        cdef Entry entry
        cdef long long seq = 0
        cdef bytes raw
        if not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            entry = self.entry_of(key)
            if entry is None:
                raw = self.find_record(key, &seq)
                if raw is None:
                    raise KeyError(original)
                entry = self.entry_from_record(key, seq, raw)
                self.adopt(entry)
            elif not entry.exists:
                raise KeyError(original)
            self.count_entry(entry)
            if not self.copies:
                self.take_copy(entry, original)
            entry.dirty = True
            self.settle(sync_at)
        finally:
            self.end_op()

    # What loops hand out

    cdef object copy_of(self, Entry entry, Copy copied):
        """A copy of a value that was handed out by keying, with all that was changed in it since."""
        copied.watched = entry.value
        try:
            copied.payload = self.serialise(entry, &copied.codec)
        except (TypeError, ValueError):
            # It cannot be stored as it is, and the next sync says so. To read it is no error.
            copied.codec = UNSTORABLE
        if copied.codec == UNSTORABLE:
            try:
                return deepcopy(copied.watched)
            except Exception as error:
                raise UnstorableValueError(
                    f"the value of key {describe(self.key_of(entry.key))} was changed to something that can be neither "
                    f"stored nor copied: {error}. Change the value, or revert()"
                ) from error
        return self.decode(entry.key, entry.seq, copied.codec, copied.payload)

    cdef bint is_changed(self, Entry entry, Copy copied) except -1:
        """Whether the caller has changed a copy."""
        cdef int codec = 0
        try:
            return self.dump(copied.value, &codec) != copied.payload or codec != copied.codec
        except (TypeError, ValueError):
            return copied.codec != UNSTORABLE

    cdef int take_copy(self, Entry entry, object original) except -1:
        """Save the copy that a loop has handed out, if the caller, who says that the key is dirty, has changed it."""
        cdef Copy copied
        cdef list found
        if entry.seq < 0:
            self.resolve()
        found = [one for one in (self.recent, *[iterator.at_copy() for iterator in self.running_loops()])
                 if one is not None and self.may_be_saved(one, entry, original)]
        if not found:
            return 0
        # (let go of at the end: that may run anybody's code)
        _before = entry.value
        if entry.value is None and len(found) == 1 and found[0] is self.recent:
            entry.value = self.recent.value
            return 0
        for item in found:
            copied = item
            if self.is_changed(entry, copied):
                entry.value = copied.value
                return 0
        if entry.value is None:
            # It may be changed later.
            copied = found[0]
            entry.value = copied.value
        return 0

    cdef list running_loops(self):
        """The loops over values that are not at their end, but for the one that has handed out something last; the one
        that began last comes first."""
        cdef list found = []
        if len(self.loops) > 1 or self.recent is None:
            for loop in reversed(self.loops):
                iterator = loop()
                if iterator is not None and iterator.at_copy() is not self.recent:
                    found.append(iterator)
        return found

    cdef bint may_be_saved(self, Copy copied, Entry entry, object original) except -1:
        """Whether a copy is one of this key, and nothing was assigned to the key since."""
        if copied.era != self.era or copied.seq != entry.seq or copied.key != original:
            return False
        return (entry.value is not None and entry.value is copied.watched) or (
            entry.payload == copied.payload and entry.codec == copied.codec)

    def check(self):
        """Raise AssertionError where what is in memory contradicts itself or the disk."""
        cdef Entry entry
        cdef long long seq = 0, len_delta = 0, dirty_count = 0
        self.begin_op()
        try:
            self.resolve()
            for key, item in [*self.shelf.items(), *self.entries.items()]:
                entry = item
                ensure(entry.shelved == (key in self.shelf), "an entry is on the shelf, or is not")
                ensure(not entry.shelved or (entry.exists and entry.value is not None and not entry.counts_as_dirty
                                             and not entry.status_dirty and entry.seq == entry.disk_seq),
                       "what is on the shelf is not only watched")
                dirty_count += entry.counts_as_dirty
                len_delta += entry.exists - (entry.disk_seq >= 0)
                on_disk = self.find_record(key, &seq)
                ensure(entry.key == key, "an entry stands under another key")
                ensure(entry.disk_seq == (seq if on_disk is not None else ABSENT),
                       "an entry is wrong about the disk")
                ensure(entry.exists or entry.dirty, "a deletion is not dirty")
                ensure(entry.counts_as_dirty or not entry.dirty, "a dirty entry does not count")
                is_new = entry.exists and (entry.disk_seq < 0 or entry.relocated)
                ensure(is_new == (self.new_entries.get(entry.seq) is entry), "a new entry has no place")
            ensure(len_delta == self.len_delta, "the length is off")
            ensure(dirty_count == self.dirty_count, "the count of dirty entries is off")
            ensure(all(number in self.new_seqs for number in self.new_entries), "a new entry is not in order")
            ensure(self.new_seqs == sorted(self.new_seqs), "new entries are out of order")
        finally:
            self.end_op()


cdef int ensure(bint holds, str what) except -1:
    if not holds:
        raise AssertionError(what)
    return 0
