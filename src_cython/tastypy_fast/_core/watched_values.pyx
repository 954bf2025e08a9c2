"""Watching the values that were handed out: until nobody holds them any more.

A sync compares every value in the cache that was handed out with its JSON. An automatic sync comes after a number of
changes, and must not cost more because somebody holds more values. So the entries that are only watched are put on the
shelf, except the latest of them, and automatic syncs pass over the shelf. An automatic sync takes an entry down when
nobody holds its value any more, an explicit sync takes all down, and so does every change of an entry with this one.
"""

from cpython.ref cimport PyObject

from tastypy_fast._core.cache_entry cimport UNKNOWN, Entry, is_referenced
from tastypy_fast._core.cache_lookup cimport Lookup

from collections import deque

__all__ = ["Watching"]

cdef enum:
    WATCHED_BY_EACH = 1000
    # At least so many on the shelf are looked at by an automatic sync.
    LOOKED_AT = 100


cdef class Watching(Lookup):
    """A Lookup that knows which values somebody may still change.

    What is on the ``shelf`` is on disk as its payload says, and counts for nothing. Only the values may differ.
    """

    def __cinit__(self):
        self.watched_by_each = WATCHED_BY_EACH

    def forget(self):
        """As Lookup.forget()."""
        self.shelf = {}
        self.turns = deque()
        Lookup.forget(self)

    cdef Entry entry_of(self, bytes key):
        """What the cache has for a key, or None."""
        cdef Entry entry = self.entries.get(key)
        if entry is None and self.shelf:
            entry = self.shelf.get(key)
        return entry

    cdef int count_entry(self, Entry entry) except -1:
        """Have an entry count towards sync_at."""
        if not entry.counts_as_dirty:
            if entry.shelved:
                self.take_down(entry)
            entry.counts_as_dirty = True
            self.dirty_count += 1
        return 0

    cdef int take_down(self, Entry entry) except -1:
        """Have the next sync look at an entry that is on the shelf."""
        del self.shelf[entry.key]
        entry.shelved = False
        self.entries[entry.key] = entry
        return 0

    cdef int take_all_down(self) except -1:
        """Have the next sync look at every entry."""
        if self.shelf:
            for item in self.shelf.values():
                (<Entry>item).shelved = False
            self.entries = {**self.shelf, **self.entries}
            self.shelf = {}
        for item in self.turns:
            (<Entry>item).in_turns = False
        self.turns.clear()
        return 0

    cdef list on_shelf(self):
        """The entries on the shelf."""
        # (a dict that was large takes long to look through, also when it is empty)
        return list(self.shelf.values()) if self.shelf else []

    cdef int put_on_shelf(self, list entries) except -1:
        """Have automatic syncs pass over entries that are only watched. The oldest one is the last of the list."""
        cdef Entry entry
        self.shelved_last = len(entries)
        for item in reversed(entries):
            entry = item
            entry.shelved = True
            self.shelf[entry.key] = entry
            if not entry.in_turns:
                entry.in_turns = True
                self.turns.append(entry)
        return 0

    cdef int look_through_shelf(self) except -1:
        """Take down entries whose values nobody holds any more, so that the sync that follows lets them go. Each call
        looks at some of them, in turn: at more than a sync puts there, so that the shelf does not only grow."""
        cdef Entry entry
        for _ in range(min(len(self.turns), 2 * self.shelved_last + LOOKED_AT)):
            entry = self.turns.popleft()
            if self.shelf.get(entry.key) is not entry:
                entry.in_turns = False
            elif is_referenced(<PyObject*>entry.value, 0):
                self.turns.append(entry)
            else:
                entry.in_turns = False
                self.take_down(entry)
        if not self.shelf:
            self.shelf = {}
        return 0

    # Another cache has written

    cdef list drop_unchanged(self):
        """Stop watching the values that are as they were read: the disk may have others now. The rest is dirty
        from here on, because the disk may not even have their keys any more. Returns the entries of those that
        somebody still holds (see watch_again)."""
        cdef Entry entry
        cdef int codec = 0
        cdef list held = []
        self.take_all_down()
        for item in list(self.entries.values()):
            entry = item
            if entry.value is None or entry.dirty:
                continue
            try:
                payload = self.serialise(entry, &codec)
            except (TypeError, ValueError):
                continue
            if payload != entry.payload or codec != entry.codec:
                entry.dirty = True
                self.count_entry(entry)
            elif not entry.status_dirty:
                if is_referenced(<PyObject*>entry.value, 0):
                    held.append(entry)
                self.remove_len_delta(entry)
                self.drop(entry)
        return held

    cdef int watch_again(self, list entries) except -1:
        """Go on watching values that somebody holds, where the disk still has what they were read from."""
        cdef Entry entry, found
        cdef long long seq = 0
        for item in entries:
            entry = item
            raw = self.find_record(entry.key, &seq)
            if raw is None or entry.key in self.entries:
                continue
            found = self.entry_from_record(entry.key, seq, raw)
            if found.payload == entry.payload and found.codec == entry.codec:
                found.value = entry.value
                self.show_status(found.value, seq)
                self.entries[found.key] = found
                self.add_len_delta(found)
        return 0

    cdef int reload(self) except -1:
        """The store was written through another cache: what was known of the disk is not known any more."""
        cdef Entry entry
        cdef list held = self.drop_unchanged()
        self.disk_version = self.store.disk_version
        self.snapshot_id = -1
        self.disk_count = -1
        self.len_delta = 0
        self.cache_version += 1
        self.recent_key = None
        self.unresolved = list(self.entries.values())
        for item in self.unresolved:
            entry = item
            entry.disk_seq = UNKNOWN
        self.resolve()
        return self.watch_again(held)
