"""Remember where many deleted records follow one another, so that a walk over the records crosses them in one step.

A deleted record stays in its database until a sync or a checkpoint deletes it there. Until then every walk meets it.
``popitem()`` begins a walk at an end of the store, where it meets all records that were deleted before. So the first
walk over a long run of deleted records adds the run, and later walks continue behind it.

A run is a pair of integer keys. No record between them exists, whether it was deleted or never there. Keys only grow,
so a run stays valid as long as its deletions do. Two events end it. The owner drops all runs if deletions are undone,
and the run of a key if a record is put there.
"""

cimport cython

from bisect import bisect_left, bisect_right

__all__ = ["DeletedRuns", "DeletedStretch"]

# The number of deleted records that are worth a run. Stepping over fewer costs less than seeking.
cdef Py_ssize_t shortest = 32


def set_shortest(Py_ssize_t count):
    """Set how many deleted records are worth a run, for tests. Returns the number before."""
    global shortest
    before, shortest = shortest, count
    return before


@cython.final
cdef class DeletedRuns:
    """The runs of deleted records in one database."""

    def __cinit__(self):
        self.firsts = []
        self.lasts = []

    cdef long long first_of(self, long long key) except? -1:
        """Return the first key of the run that has a key, or the key itself."""
        cdef Py_ssize_t at = bisect_left(self.lasts, key)
        return self.firsts[at] if at < len(self.firsts) and self.firsts[at] <= key else key

    cdef long long last_of(self, long long key) except? -1:
        """Return the last key of the run that has a key, or the key itself."""
        cdef Py_ssize_t at = bisect_left(self.lasts, key)
        return self.lasts[at] if at < len(self.firsts) and self.firsts[at] <= key else key

    cdef int add(self, long long first, long long last) except -1:
        """Add a run, and merge it with those that it meets."""
        cdef Py_ssize_t start = bisect_left(self.lasts, first), end = bisect_right(self.firsts, last)
        if start < end:
            first = min(first, <long long>self.firsts[start])
            last = max(last, <long long>self.lasts[end - 1])
        self.firsts[start:end] = [first]
        self.lasts[start:end] = [last]
        return 0

    cdef int remove(self, long long key) except -1:
        """Remove the run that has a key, because a record is put there."""
        cdef Py_ssize_t at = bisect_left(self.lasts, key)
        if at < len(self.firsts) and self.firsts[at] <= key:
            del self.firsts[at], self.lasts[at]
        return 0


@cython.final
cdef class DeletedStretch:
    """The deleted records that a walk over the records is crossing. A long stretch becomes a run.

    The walk calls ``skip()`` for each deleted record, and ``stop()`` before it uses one that exists and at its end.
    """

    def __init__(self, DeletedRuns runs not None, bint backwards):
        self.runs = runs
        self.backwards = backwards

    cdef long long skip(self, long long key) except? -1:
        """Cross a deleted record and the rest of its run. Returns the key behind which the walk continues."""
        if not self.count:
            self.begin = key
        self.end = self.runs.first_of(key) if self.backwards else self.runs.last_of(key)
        self.count += 1 if self.end == key else shortest
        return self.end

    cdef int stop(self) except -1:
        """End the stretch before a record that exists."""
        if self.count > shortest:
            self.runs.add(min(self.begin, self.end), max(self.begin, self.end))
        self.count = 0
        return 0
