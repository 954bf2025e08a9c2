"""Keep the clean entries whose values callers still reference, outside what each automatic sync compares.

A sync compares every value that was handed out with its JSON. An automatic sync comes after a number of changes, and
must not cost more because a caller keeps more values. So all but the latest of the clean entries are pinned here, and
automatic syncs pass over them. An automatic sync unpins entries that nobody references any more, an explicit sync
unpins all, and a change through the cache unpins its entry.
"""

cimport cython
from cpython.ref cimport PyObject

from tastypy_fast._core.cache_entry cimport Entry, is_referenced

from collections import deque

__all__ = ["PinnedEntries"]

cdef enum:
    # An automatic sync checks at least this many pinned entries.
    CHECKED_BY_EACH = 100


@cython.final
cdef class PinnedEntries:
    """Clean entries by their keys. On disk they are as their payloads say; only their values may differ.

    ``queue`` has the entries in the order in which they are checked. It may also have entries that are not pinned any
    more, because an entry cannot be removed from its middle.
    """

    def __cinit__(self):
        self.by_key = {}
        self.queue = deque()

    cdef int add(self, list entries) except -1:
        """Pin entries. The oldest one is the last of the list."""
        cdef Entry entry
        self.last_added = len(entries)
        for item in reversed(entries):
            entry = item
            entry.pinned = True
            self.by_key[entry.key] = entry
            if not entry.in_queue:
                entry.in_queue = True
                self.queue.append(entry)
        return 0

    cdef int remove(self, Entry entry) except -1:
        """Unpin an entry."""
        del self.by_key[entry.key]
        entry.pinned = False
        return 0

    cdef dict remove_all(self):
        """Unpin all entries, and return them by their keys. The caller calls clear_queue() when it has stored them."""
        cdef dict found = self.by_key
        if found:
            for item in found.values():
                (<Entry>item).pinned = False
            self.by_key = {}
        return found

    cdef int clear_queue(self) except -1:
        """Empty the queue. Finalizers of values whose entries are only here may run any code."""
        for item in self.queue:
            (<Entry>item).in_queue = False
        self.queue.clear()
        return 0

    cdef list remove_released(self, list stale):
        """Unpin entries whose values nobody references any more, and return them.

        Entries that leave the queue because they were unpinned before go to ``stale``. The caller keeps that until the
        cache is consistent, because finalizers of their values may run any code.

        Each call checks a part of the queue: more than the last sync has pinned, because otherwise the queue would
        only grow.
        """
        cdef Entry entry
        cdef list found = []
        for _ in range(min(len(self.queue), 2 * self.last_added + CHECKED_BY_EACH)):
            entry = self.queue.popleft()
            if self.by_key.get(entry.key) is not entry:
                entry.in_queue = False
                stale.append(entry)
            elif is_referenced(<PyObject*>entry.value, 0):
                self.queue.append(entry)
            else:
                entry.in_queue = False
                self.remove(entry)
                found.append(entry)
        if not self.by_key:
            # A dict that was large is slow to iterate, also when it is empty.
            self.by_key = {}
        return found

    cdef list entries(self):
        return list(self.by_key.values()) if self.by_key else []
