"""Pin the clean entries whose values callers still reference, so that an automatic sync need not compare them.

A sync compares every value that was returned to a caller with its JSON. The cost of an automatic sync must not grow
with the number of values that a caller keeps. So all but the latest of the clean entries are pinned here, and automatic
syncs skip them. An automatic sync unpins entries that nobody references any more. An explicit sync unpins all entries,
and a change through the cache unpins its entry. The comparison itself is in ``WriteCache.sync_entries()``.
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
    """The pinned entries of a cache. Their payloads equal the disk. Only their values may differ from it.

    ``queue`` has the entries in the order in which they are checked. It may also have entries that are no longer
    pinned, because an entry in the middle cannot be removed.
    """

    def __cinit__(self):
        self.by_key = {}
        self.queue = deque()

    cdef int add(self, list entries) except -1:
        """Pin entries. The oldest entry is the last of the list."""
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
        """Unpin all entries, and return a dict of them. The caller stores them, and calls clear_queue() after that."""
        cdef dict found = self.by_key
        if found:
            for item in found.values():
                (<Entry>item).pinned = False
            self.by_key = {}
        return found

    cdef int clear_queue(self) except -1:
        """Empty the queue. This may run any code, because it may free values that have finalizers."""
        for item in self.queue:
            (<Entry>item).in_queue = False
        self.queue.clear()
        return 0

    cdef list remove_released(self, list stale):
        """Unpin entries whose values nobody references any more, and return them.

        Entries in the queue that were unpinned before are moved to ``stale``. The caller keeps this list until the
        cache is consistent, because finalizers of their values may run any code.

        Each call checks a part of the queue. This part is larger than what the last sync added, because otherwise the
        queue would grow without a limit.
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
            # Make a new dict, because an empty dict that was large is still slow to iterate.
            self.by_key = {}
        return found

    cdef list entries(self):
        return list(self.by_key.values()) if self.by_key else []
