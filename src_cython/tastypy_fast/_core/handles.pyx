"""The mapping's slots: what ``pod[key]`` and its like call without a detour through Python."""

cimport cython
from libc.stdint cimport uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.cache_entry cimport Entry
from tastypy_fast._core.iterators cimport KEYS, StoreHandle, StoreIterator
from tastypy_fast._core.key_codec cimport encode_key
from tastypy_fast._core.status_block cimport CLAIMED, DONE
from tastypy_fast._core.task_cache cimport TaskCache

__all__ = ["PodHandle", "TrackerHandle"]


@cython.final
cdef class Step:
    """Several operations that no other thread comes between: ``with pod._one_step: ...``"""

    cdef WriteCache cache

    def __init__(self, WriteCache cache not None):
        self.cache = cache

    def __enter__(self):
        self.cache.begin_op()

    def __exit__(self, *exception):
        self.cache.end_op()


cdef class PodHandle(StoreHandle):
    """The part of an instance that is compiled. Instances on one path share one cache."""

    def _attach(self, WriteCache cache, long long sync_at, long long max_tries):
        self.cache = cache
        self.sync_at = sync_at
        self.max_tries = max_tries
        self.held = False

    def _detach(self):
        self.cache = None

    @property
    def _open_cache(self):
        return self.open_cache()

    @property
    def _one_step(self):
        return Step(self.open_cache())

    @property
    def _threshold(self):
        """How many dirty keys make a sync; 0 on hold."""
        return self.threshold()

    def hold(self):
        """Suspend the automatic sync of this instance.

        Changes stay in memory, however many, until ``sync()``, ``sync_key()`` or the end of the program;
        ``unhold()`` takes the automatic sync up again. Instances on the same path have each their own hold.

        >>> pod = PersistentOrderedDict(path, sync_at=2)
        >>> pod.hold()
        >>> pod.update(a=1, b=2, c=3)
        >>> sorted(pod.dirty())
        ['a', 'b', 'c']
        """
        self.open_cache()
        self.held = True

    def unhold(self):
        """Take up the automatic sync again, and sync at once when as many keys are dirty as ``sync_at`` says.

        Raises what ``sync()`` raises when that sync fails; the hold has ended then all the same.

        >>> pod = PersistentOrderedDict(path, sync_at=2)
        >>> pod.hold()
        >>> pod.update(a=1, b=2, c=3)
        >>> pod.unhold()
        >>> pod.dirty()
        set()
        """
        cdef WriteCache cache = self.open_cache()
        self.held = False
        cache.begin_op()
        try:
            cache.settle(self.threshold())
        finally:
            cache.end_op()

    def __getitem__(self, key):
        cdef WriteCache cache = self.open_cache()
        cdef bytes encoded = encode_key(key)
        cdef Entry entry = cache.entries.get(encoded)
        if entry is not None and entry.value is not None and entry.counts_as_dirty and not cache.busy \
                and not cache.tracks and not cache.is_stale():
            return entry.value
        return cache.fetch(encoded, key, self.threshold())

    def __setitem__(self, key, value):
        self.open_cache().put(encode_key(key), value, self.threshold())

    def _assign_all(self, pairs):
        """Assign the pairs of an iterator one by one."""
        cdef WriteCache cache = self.open_cache()
        for key, value in pairs:
            cache.put(encode_key(key), value, self.threshold())

    def __delitem__(self, key):
        self.open_cache().delete(encode_key(key), key, self.threshold())

    def __contains__(self, key):
        return self.open_cache().contains(encode_key(key))

    def __len__(self):
        return self.open_cache().length()

    def __iter__(self):
        return StoreIterator(self, KEYS)

    def get(self, key, default=None):
        """The value of a key, or ``default`` when the key is not there. Costs and rules as for ``pod[key]``.

        >>> pod = PersistentOrderedDict(path, init={"a": [1]})
        >>> pod.get("a"), pod.get("b"), pod.get("b", 0)
        ([1], None, 0)
        """
        try:
            return self[key]
        except KeyError:
            return default


cdef TaskCache tasks_of(StoreHandle owner):
    return <TaskCache?>owner.open_cache()


cdef class TrackerHandle(PodHandle):
    """The compiled part of a tracker: from a method of the Python class straight to the cache.

    It adds neither fields nor ``cdef`` methods, so that a class may have it as a base beside another one.
    """

    def _change(self, key, uint32_t drop, uint32_t add, int added_tries):
        tasks_of(self).change(key, drop, add, added_tries, self.threshold())

    def _reset_tries(self, key):
        tasks_of(self).reset_tries(key, self.threshold())

    def mark_done(self, key):
        """Mark a task done. Raises KeyError when it is not there.

        >>> tracker = ProgressTracker(path, init={"a": {}})
        >>> tracker.mark_done("a")
        >>> tracker.done("a"), tracker["a"]["_done"]
        (True, True)
        """
        tasks_of(self).change(key, CLAIMED, DONE, 0, self.threshold())

    def _gate(self, key, bint allow_aborted, bint add, bint attempt):
        return tasks_of(self).gate(key, self.max_tries, allow_aborted, add, attempt, self.threshold())

    def _status_of(self, key):
        return tasks_of(self).status_of(key)

    def _totals(self):
        return tasks_of(self).count_all()

    def _add_many(self, keys, bint if_absent):
        tasks_of(self).add_many(keys, if_absent, self.threshold())

    def _merge(self, key, dict changes):
        tasks_of(self).merge(key, changes, self.threshold())
