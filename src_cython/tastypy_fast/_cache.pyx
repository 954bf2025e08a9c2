"""The dirty cache: what differs, or may differ, between memory and disk.

Cost in short: reading or changing a key that is in the cache touches no other memory than the cache's
dict; a key that is not costs a look into LMDB to read, and nothing at all to assign, because whether it
is new is found out for many keys at once. The cache holds what lies between two syncs, never the store.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from tastypy_fast._entries cimport ABSENT, UNKNOWN, Entry, make_entry
from tastypy_fast._records cimport NO_PAYLOAD, Record, dump_value, parse_record
from tastypy_fast._syncing cimport Syncing

__all__ = ["Cache"]


cdef class Cache(Syncing):
    """The memory that instances on one path share."""

    # Changing

    cdef Entry put_payload(self, Entry entry, bytes key, int codec, bytes payload):
        """The one place where a value is assigned. ``entry`` is what the cache has for the key, or None."""
        if entry is None:
            entry = make_entry(key, UNKNOWN, UNKNOWN)
            self.entries[key] = entry
            self.unresolved.append(entry)
        elif not entry.alive:
            # Deleted and back again: it goes to the end, behind what has no number yet.
            self.resolve()
            self.count_out(entry)
            del self.entries[key]
            self.entries[key] = entry
            entry.alive = True
            entry.moved = True
            entry.order = self.environment.allocate()
            self.place(entry)
            self.count_in(entry)
        # (let go of at the end, when all is in place: that may run anybody's code)
        _before = entry.value
        entry.value = None
        entry.codec = codec
        entry.payload = payload
        entry.dirty = True
        if not entry.counted:
            entry.counted = True
            self.counted += 1
        return entry

    cdef int put(self, bytes key, object value, long long sync_at) except -1:
        """Assign. Blind: whether the key is new is found out later, for many at once."""
        cdef int codec = 0
        cdef bytes payload
        cdef Entry entry
        if not self.writable:
            raise self.environment.refuse_write()
        payload = dump_value(value, &codec)
        entry = self.entries.get(key)
        if self.busy or self.closed or (entry is not None and not entry.alive):
            self.enter()
            try:
                self.put_payload(self.entries.get(key), key, codec, payload)
                self.settle(sync_at)
            finally:
                self.leave()
        else:
            self.put_payload(entry, key, codec, payload)
            if sync_at and self.counted >= sync_at:
                self.settle(sync_at)
        return 0

    cdef Entry put_new(self, bytes key, int codec, bytes payload):
        """Assign to a key that is known not to be there."""
        cdef Entry entry = self.entries.get(key)
        if entry is None:
            entry = make_entry(key, ABSENT, self.environment.allocate())
            self.entries[key] = entry
            self.place(entry)
            self.count_in(entry)
        return self.put_payload(entry, key, codec, payload)

    cdef int adopt(self, Entry entry) except -1:
        """Put a new entry into the cache, where it counts towards sync_at."""
        self.entries[entry.key] = entry
        entry.counted = True
        self.counted += 1
        self.entry_made(entry)
        return 0

    cdef object fetch(self, bytes key, object original, long long sync_at):
        """The value of a key. A list or dict is watched from here to the next sync."""
        cdef Entry entry
        cdef long long order = 0
        cdef bytes raw
        self.enter()
        try:
            entry = self.entries.get(key)
            if entry is not None:
                if not entry.alive:
                    raise KeyError(original)
                value = self.hand_out(entry)
                if self.tracks and self.writable:
                    self.handed_out.add(entry)
                if not entry.counted and value is entry.value and self.writable:
                    # Watched past a sync, and handed out anew: it counts again.
                    entry.counted = True
                    self.counted += 1
                return value
            raw = self.find(key, &order)
            if raw is None:
                raise KeyError(original)
            entry = self.entry_from_record(key, order, raw)
            value = self.hand_out(entry)
            if self.writable and entry.value is not None:
                # First the sync, then the hand-out: the change that follows finds its entry in the cache.
                self.settle(sync_at)
                self.adopt(entry)
                if self.tracks:
                    self.handed_out.add(entry)
            return value
        finally:
            self.leave()

    cdef bint contains(self, bytes key) except -1:
        cdef Entry entry = self.entries.get(key)
        if entry is not None and not self.busy and not self.is_stale():
            return entry.alive
        self.enter()
        try:
            entry = self.entries.get(key)
            return entry.alive if entry is not None else self.locate(key) != ABSENT
        finally:
            self.leave()

    cdef int delete(self, bytes key, object original, long long sync_at) except -1:
        cdef Entry entry
        cdef long long order
        if not self.writable:
            raise self.environment.refuse_write()
        self.enter()
        try:
            entry = self.entries.get(key)
            if entry is not None and entry.disk == UNKNOWN:
                self.resolve()
                entry = self.entries.get(key)
            if entry is None:
                order = self.locate(key)
                if order == ABSENT:
                    raise KeyError(original)
                entry = make_entry(key, order, order)
                self.adopt(entry)
            elif not entry.alive:
                raise KeyError(original)
            self.remove_entry(entry)
            self.settle(sync_at)
        finally:
            self.leave()
        return 0

    cdef int remove_entry(self, Entry entry) except -1:
        """Delete a key whose place on disk is known."""
        self.entry_gone(entry)
        self.count_out(entry)
        self.unplace(entry)
        self.recent_key = self.recent_value = None
        entry.alive = False
        entry.moved = False
        entry.order = ABSENT
        entry.value = entry.payload = None
        entry.codec = NO_PAYLOAD
        entry.dirty = True
        if entry.disk == ABSENT:
            del self.entries[entry.key]
            self.counted -= entry.counted
        else:
            if not entry.counted:
                entry.counted = True
                self.counted += 1
            self.count_in(entry)
        return 0

    cdef long long length(self) except -1:
        if self.disk_count >= 0 and not self.busy and not self.unresolved \
                and not self.is_stale() and not self.environment.transient:
            return self.disk_count + self.delta
        self.enter()
        try:
            self.resolve()
            if self.disk_count < 0:
                self.disk_count = self.environment.count()
            return self.disk_count + self.delta
        finally:
            self.leave()

    # Asking

    def dirty_keys(self):
        """The keys that a sync would write, in order of their first change."""
        cdef Entry entry
        cdef Record record
        cdef int codec = 0
        keys = []
        self.enter()
        try:
            for item in list(self.entries.values()):
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
            for order in self.dirty_status_orders():
                raw = self.record_at(order)
                if raw is None:
                    raise self.damaged("?", "a status has no record")
                parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), &record)
                keys.append(self.key_of(record.key[:record.key_size]))
        finally:
            self.leave()
        return keys

    def mark(self, bytes key, original, long long sync_at):
        """Have the next sync write the value of a key, changed or not."""
        cdef Entry entry
        cdef long long order = 0
        cdef bytes raw
        if not self.writable:
            raise self.environment.refuse_write()
        self.enter()
        try:
            entry = self.entries.get(key)
            if entry is None:
                raw = self.find(key, &order)
                if raw is None:
                    raise KeyError(original)
                entry = self.entry_from_record(key, order, raw)
                self.adopt(entry)
            elif not entry.alive:
                raise KeyError(original)
            elif not entry.counted:
                entry.counted = True
                self.counted += 1
            if (entry.value is None and self.recent_value is not None and self.recent_key == original
                    and entry.payload == self.recent_payload):
                # An iterator handed it out last, and the caller says that it was changed. (If the value was
                # assigned anew since, that is what counts.)
                entry.value = self.recent_value
            entry.dirty = True
            self.settle(sync_at)
        finally:
            self.leave()

    def check(self):
        """Raise AssertionError where what is in memory contradicts itself or the disk."""
        cdef Entry entry
        cdef long long order = 0, delta = 0, counted = 0
        self.enter()
        try:
            self.resolve()
            for key, item in self.entries.items():
                entry = item
                counted += entry.counted
                delta += entry.alive - (entry.disk >= 0)
                on_disk = self.find(key, &order)
                ensure(entry.key == key, "an entry stands under another key")
                ensure(entry.disk == (order if on_disk is not None else ABSENT),
                       "an entry is wrong about the disk")
                ensure(entry.alive or entry.dirty, "a deletion is not dirty")
                ensure(entry.counted or not entry.dirty, "a dirty entry does not count")
                is_new = entry.alive and (entry.disk < 0 or entry.moved)
                ensure(is_new == (self.new_entries.get(entry.order) is entry), "a new entry has no place")
            ensure(delta == self.delta, "the length is off")
            ensure(counted == self.counted, "the count of dirty entries is off")
            ensure(all(number in self.new_orders for number in self.new_entries), "a new entry is not in order")
            ensure(self.new_orders == sorted(self.new_orders), "new entries are out of order")
        finally:
            self.leave()


cdef int ensure(bint holds, str what) except -1:
    if not holds:
        raise AssertionError(what)
    return 0
