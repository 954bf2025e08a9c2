"""Decide when the background thread syncs a cache: ``sync_every`` seconds after a change.

A change costs one test of ``is_set``. Only the first change after a sync calls ``begin()``, which wakes the thread.
The thread (``_store.background``) sleeps until ``due`` and asks the cache to sync.
"""

cimport cython
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from weakref import ref

__all__ = ["SyncSchedule", "monotonic"]

cdef extern from "<time.h>":
    int CLOCK_THREAD_CPUTIME_ID

cdef enum:
    # Comparing the values that callers still reference may take one part in this many of the time.
    SHARE_OF_TIME = 20

# A sync that has failed is tried again after this many seconds, or after the interval if that is longer.
cdef double RETRY = 1.0


@cython.final
cdef class SyncSchedule:
    """When one cache is synced by time. Its fields belong to the cache, under the interpreter lock."""

    def __cinit__(self):
        self.handles = []
        self.clear()

    def join(self, handle not None):
        """Count an instance in. The smallest ``sync_every`` of all instances on the cache is the interval."""
        self.handles.append(ref(handle))
        self.update()

    def update(self):
        """Find the interval again, after an instance was opened or closed."""
        cdef double interval = 0
        self.handles = [handle for handle in self.handles if handle() is not None]
        for reference in self.handles:
            handle = reference()
            if handle is not None and handle._sync_every:
                interval = min(interval or handle._sync_every, handle._sync_every)
        self.interval = interval
        if self.due and interval:
            self.due = min(self.due, self.changed_at + interval)
        if not interval:
            self.due = 0
        self.is_set = not interval or self.due != 0

    cdef int begin(self, object store) except -1:
        """Schedule a sync for a change that was just made. Raises the error of the last sync by time, if there is one.

        The change itself is in memory then, as it is when a sync by count fails.
        """
        if self.failure is not None:
            # The background thread tries the sync again nevertheless.
            self.is_set = True
            error = self.failure
            self.failure = None
            raise error
        if not self.due:
            self.changed_at = monotonic()
            self.due = self.changed_at + self.interval
        self.is_set = True
        try:
            store.wake_background()
        except BaseException:
            # Let the next change try again, because a signal handler may have raised before the thread was awake.
            self.is_set = False
            raise
        return 0

    cdef int fail(self, object error) except -1:
        """Keep an error for the next write, and try again later."""
        self.failure = error
        self.due = monotonic() + max(RETRY, self.interval)
        self.is_set = False
        return 0

    cdef void repeat(self, double cpu_time) noexcept:
        """Sync again after the interval, because callers reference values, which they may change without a call.

        To compare these values took ``cpu_time`` seconds. If that is long, the pause is longer than the interval.
        """
        self.changed_at = monotonic()
        self.due = self.changed_at + max(self.interval, SHARE_OF_TIME * cpu_time)
        self.is_set = True

    cdef void clear(self) noexcept:
        """Note that nothing is left to be synced."""
        self.due = 0
        self.is_set = not self.interval

    cdef bint is_held(self) except -1:
        """Return whether an instance on the cache suspends the automatic sync."""
        for reference in self.handles:
            handle = reference()
            if handle is not None and handle._is_held:
                return True
        return False


cpdef double monotonic() noexcept:
    """Return the monotonic time in seconds."""
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec + time.tv_nsec * 1e-9


cdef double thread_cpu_time() noexcept:
    """Return the processor time of the calling thread in seconds."""
    cdef timespec time
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return time.tv_sec + time.tv_nsec * 1e-9
