"""Run the mapping methods and the methods of one key in compiled code, without calls into Python code."""

cimport cython
from libc.stdint cimport uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.cache_entry cimport Entry
from tastypy_fast._core.iterators cimport KEYS, StoreHandle, StoreIterator, TaskIterator
from tastypy_fast._core.key_codec cimport describe, encode_key, wanted_key
from tastypy_fast._core.status_block cimport ABORTED, CLAIMED, DONE, ERROR
from tastypy_fast._core.locks cimport Lock
from tastypy_fast._core.lookup_iterator cimport LookupIterator
from tastypy_fast._core.set_proxy cimport Operation, is_done, make_proxy
from tastypy_fast._core.task_cache cimport TaskCache
from tastypy_fast._core.task_queue cimport TaskQueue, TaskSlot

from tastypy_fast.exceptions import NotLockedError

__all__ = ["PodHandle", "ThreadLock", "TrackerHandle", "check_data"]


@cython.final
cdef class Step:
    """A block of operations that is atomic for other threads: ``with pod._one_step: ...``"""

    cdef WriteCache cache

    def __init__(self, WriteCache cache not None):
        self.cache = cache

    def __enter__(self):
        self.cache.begin_op()

    def __exit__(self, *exception):
        self.cache.end_op()


@cython.final
cdef class ThreadLock:
    """The block of ``with pod.locked():``, which holds the lock of the threads and suspends the automatic sync."""

    cdef StoreHandle store
    # A pair for each nested block: the cache and its lock at the begin. close() and fork() replace both.
    cdef list entered

    def __init__(self, StoreHandle store not None):
        self.store = store
        self.entered = []

    def __enter__(self):
        cdef WriteCache cache = self.store.open_cache()
        cache.begin_op()
        self.store.blocks += 1
        self.entered.append((cache, cache.store.lock))
        return self.store

    def __exit__(self, *exception):
        cdef WriteCache cache
        cdef Lock lock
        if not self.entered:
            raise NotLockedError("a block was ended that was not begun; use locked() in a with statement")
        cache, lock = self.entered[len(self.entered) - 1]
        if cache.store.lock is not lock:
            # A child that was forked inside the block has a new lock, which it does not hold.
            self.entered.pop()
            self.store.blocks -= 1
            return
        if not lock.is_mine():
            # Keep the entry, because the thread that holds the lock can still end the block.
            raise NotLockedError("a block belongs to the thread that began it, which must end it; this is another one")
        self.entered.pop()
        self.store.blocks -= 1
        try:
            if self.store.blocks == 0 and self.store.cache is cache and not cache.closed:
                cache.sync_if_due(self.store.threshold())
        finally:
            cache.end_op()


cdef class PodHandle(StoreHandle):
    """The compiled part of a private store. Instances on one path share one cache.

    A shared store has two private handles, which users never see. One reads the committed data, and the other one works
    inside the write transaction.
    """

    def _attach(self, WriteCache cache, long long sync_at, long long max_tries, double sync_every=0):
        self.cache = cache
        self.sync_at = sync_at
        self.max_tries = max_tries
        self.held = False
        self.blocks = 0
        self.sync_every = sync_every
        if sync_every and cache.writable:
            cache.join_schedule(self)

    def _detach(self):
        cdef WriteCache cache = self.cache
        self.cache = None
        if cache is not None:
            cache.update_schedule()

    @classmethod
    def __class_getitem__(cls, parameters):
        # A class statement names the types of keys and values, for type checkers only.
        return cls

    @property
    def _open_cache(self):
        return self.open_cache()

    @property
    def _one_step(self):
        return Step(self.open_cache())

    @property
    def _sync_every(self):
        """Seconds between a change and its sync; 0 without a sync by time, and after close()."""
        return 0.0 if self.cache is None else self.sync_every

    @property
    def _is_held(self):
        """Whether this instance suspends the automatic sync."""
        return self.cache is not None and (self.held or self.blocks > 0)

    @property
    def _threshold(self):
        """Return how many dirty keys start an automatic sync. 0: the instance is on hold."""
        return self.threshold()

    def locked(self):
        """Hold the lock of this process's threads for a block: ``with pod.locked(): ...``

        Every operation of another thread on the store waits until the block ends. Other threads therefore see all
        changes of the block or none. The automatic sync of this instance is suspended, and runs if it is due when the
        block ends. Blocks may be nested. The changes of a block are kept when it ends with an exception.

        A block is no transaction on disk. ``sync()`` writes at once, also inside a block, and a killed process loses
        the changes since the last sync. SIGTERM ends the process when the block ends. At its end, and at SIGTERM, the
        program waits at most 30 seconds for the block of another thread. With ``mode="r"`` all reads in the block use
        one snapshot.

        Do not ``await`` or ``yield`` inside a block, because the lock belongs to the thread.

        Returns:
            A context manager. ``as`` binds the store.

        Raises:
            NotLockedError: Another thread ends the block.
            DiskFullError: The sync at the end of the block fails. The changes stay in memory.

        Cost:
            O(1), and the sync at the end if ``sync_at`` keys are dirty by then.

        Example:
            >>> with PersistentOrderedDict(path, init={"a": 1, "b": 0}).locked() as pod:
            ...     pod["b"] = pod["a"] + 1
            >>> pod["b"]
            2
        """
        self.open_cache()
        return ThreadLock(self)

    def hold(self):
        """Suspend the automatic sync of this instance, by count and by time.

        All changes stay in memory until ``sync()``, ``sync_key()`` or the end of the program. ``unhold()`` starts the
        automatic sync again. Each instance on a path has its own hold.

        Cost:
            O(1); memory grows with every change until the next sync.

        Example:
            >>> pod = PersistentOrderedDict(path, sync_at=2)
            >>> pod.hold()
            >>> pod.update(a=1, b=2, c=3)
            >>> sorted(pod.dirty())
            ['a', 'b', 'c']
        """
        self.open_cache()
        self.held = True

    def unhold(self):
        """Start the automatic sync again, and sync at once if ``sync_at`` keys or more are dirty.

        Raises:
            DiskFullError: The sync fails. The hold has ended, and the changes are still in memory.
            UnstorableValueError: As for ``sync()``. The hold has ended.

        Cost:
            O(1), or that of a ``sync()``.

        Example:
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
            cache.sync_if_due(self.threshold())
        finally:
            cache.end_op()

    def __getitem__(self, key):
        return read_value(self, key)

    def __setitem__(self, key, value):
        self.open_cache().put(encode_key(key), value, self.threshold())

    def _assign_all(self, pairs):
        """Assign pairs one by one, with the ``__setitem__`` of a subclass if it has one."""
        self.open_cache()
        for key, value in pairs:
            self[key] = value

    @property
    def _assigns_itself(self):
        """Whether a subclass has its own ``__setitem__`` or ``__delitem__``."""
        cdef type kind = type(self), own = PodHandle
        return kind.__setitem__ is not own.__setitem__ or kind.__delitem__ is not own.__delitem__

    def _apply(self, Operation operation not None):
        """Perform an operation of ``.set``, without the ``__getitem__`` of a subclass, because it may return copies."""
        # Check this first, because a read-only store returns copies, and a change of a copy would be lost.
        cdef WriteCache cache = self.open_cache()
        if not cache.writable:
            raise cache.store.refuse_write()
        if operation.leads_into_a_value():
            return operation.act_on(read_value(self, operation.steps[0][1]), 1)
        if operation.augments_a_key():
            step, change, operand = operation.arguments
            self[step[1]] = change(read_value(self, step[1]), operand)
            return None
        return operation.perform(self)

    @property
    def set(self):
        """Change stored values, for code that runs with the private and the shared classes.

        Every change through this attribute is saved, at any depth. To read, leave off ``.set``. With ``mode="r"`` a
        change raises ReadOnlyStoreError. In a forked child it raises ForkedStoreError.

        Cost:
            That of reading the value; the next sync writes it.

        Example:
            >>> pod = PersistentOrderedDict(path)
            >>> pod.set["a"] = {"n": 1, "list": []}
            >>> pod.set["a"]["n"] += 41
            >>> pod.set["a"]["list"].append("x")
            >>> pod["a"]
            {'n': 42, 'list': ['x']}
        """
        self.open_cache()
        return make_proxy(self._apply)

    @set.setter
    def set(self, value):
        # Python performs this assignment at the end of "pod.set |= {...}".
        if not is_done(value, ()):
            raise AttributeError("assign to .set[key], not to .set")

    def move_to_end(self, key):
        """Move a key behind all others. Its value stays, and in a tracker its status.

        This is what deleting the key and adding it again does to the order. A loop that runs meanwhile yields the key
        at its new place, also if it has yielded it before. So a loop must not move every key that it yields.
        ``reversed()`` does not yield it any more.

        Args:
            key: The key. If it is the last one, nothing changes.

        Raises:
            KeyError: The key does not exist.

        Cost:
            O(log n). The next sync writes the value at its new place.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": 1, "b": 2})
            >>> pod.move_to_end("a")
            >>> pod.items()
            [('b', 2), ('a', 1)]
        """
        self.open_cache().move_to_end(wanted_key(key), key, self.threshold())

    def __delitem__(self, key):
        self.open_cache().delete(wanted_key(key), key, self.threshold())

    def __contains__(self, key):
        return self.open_cache().contains(wanted_key(key))

    def __len__(self):
        return self.open_cache().length()

    def __iter__(self):
        return StoreIterator(self, KEYS)

    def _iterate(self, int kind, bint backwards=False):
        """Iterate over keys, values or pairs."""
        return StoreIterator(self, kind, backwards)

    def _list(self, int kind):
        """Return a list of everything that _iterate() yields."""
        return list(StoreIterator(self, kind))

    def _get_many(self, keys):
        """Iterate over pairs of the keys that exist."""
        return LookupIterator(self, keys)

    def get(self, key, default=None):
        """Return the value of a key, or ``default`` if the key does not exist.

        A list or dict is watched, as with ``pod[key]``: the next sync saves changes inside it.

        Args:
            key: The key.
            default: The result for a missing key.

        Returns:
            The value, or ``default``, which is not stored.

        Cost:
            A dict lookup for a key in memory; else two lookups in the memory-mapped file, O(log n).

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a": [1]})
            >>> pod.get("a"), pod.get("b"), pod.get("b", 0)
            ([1], None, 0)
        """
        try:
            return read_value(self, key)
        except KeyError:
            return default

    def _get(self, key, default):
        """Do what ``get()`` does, also in a subclass with its own ``get()``."""
        return PodHandle.get(self, key, default)


cdef inline object read_value(StoreHandle handle, object key):
    cdef WriteCache cache = handle.open_cache()
    cdef bytes encoded = cache.wanted(key)
    cdef Entry entry = cache.entries.get(encoded)
    if entry is not None and entry.value is not None and entry.counts_as_dirty and not cache.busy \
            and not cache.tracks and not cache.is_stale():
        return entry.value
    return cache.fetch(encoded, key, handle.threshold())


cdef TaskCache tasks_of(StoreHandle owner):
    return <TaskCache?>owner.open_cache()


cdef object change(StoreHandle owner, object key, uint32_t drop, uint32_t add, int added_tries):
    tasks_of(owner).change(key, drop, add, added_tries, owner.threshold())


cpdef dict check_data(object data):
    """Return the dict with which ``mark_done()`` updates a task. Raises TypeError for anything else."""
    if not isinstance(data, dict):
        raise TypeError(f"the data of mark_done() must be a dict, not {describe(data)}; other values need a name: "
                        f"mark_done(key, {{'result': value}})")
    return dict(data)


cdef class TrackerHandle(PodHandle):
    """The compiled part of a private tracker.

    It adds neither fields nor ``cdef`` methods, because a class could not have a second compiled base otherwise.
    """

    # Changing one status

    def mark_done(self, key, data=None):
        """Mark a task done, and keep data with it. The error of an earlier try, ``_error``, is removed.

        Args:
            key: The key of the task.
            data: A dict with which the task is updated before it is marked, as by ``update()``.

        Raises:
            KeyError: The task does not exist.
            TypeError: ``data`` is no dict.
            UnstorableValueError: A value in ``data`` cannot be stored. The task is then neither changed nor marked.

        Cost:
            One lookup in the index; none for the key that an iterator yielded last. The change is on disk after the
            next sync.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {}, "b": {}})
            >>> tracker.mark_done("a")
            >>> tracker.mark_done("b", {"size": 3})
            >>> tracker.done("a"), tracker["b"]
            (True, {'_done': True, '_aborted': False, '_tries': 0, 'size': 3})
        """
        if data is None:
            change(self, key, CLAIMED | ERROR, DONE, 0)
        else:
            tasks_of(self).mark_done_with(key, check_data(data), self.threshold())

    def mark_not_done(self, key):
        """Mark a task not done.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.

        Cost:
            As for ``mark_done()``.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_done": True}})
            >>> tracker.mark_not_done("a")
            >>> tracker.done("a")
            False
        """
        change(self, key, DONE | CLAIMED, 0, 0)

    def abort(self, key):
        """Mark a task aborted: gates and iterators skip it, unless ``allow_aborted`` is true.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.

        Cost:
            As for ``mark_done()``.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {}})
            >>> tracker.abort("a")
            >>> tracker.should_do("a"), tracker.should_do("a", allow_aborted=True)
            (False, True)
        """
        change(self, key, CLAIMED, ABORTED, 0)

    def unabort(self, key):
        """Mark a task not aborted.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.

        Cost:
            As for ``mark_done()``.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_aborted": True}})
            >>> tracker.unabort("a")
            >>> tracker.aborted("a")
            False
        """
        change(self, key, ABORTED, 0, 0)

    def increment_tries(self, key):
        """Add one to the tries of a task.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.
            UnstorableValueError: The number of tries leaves what 27 bits hold.

        Cost:
            As for ``mark_done()``.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {}})
            >>> tracker.increment_tries("a")
            >>> tracker.tries("a")
            1
        """
        change(self, key, 0, 0, 1)

    def decrement_tries(self, key):
        """Subtract one from the tries of a task. The number may become negative.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.
            UnstorableValueError: The number of tries leaves what 27 bits hold.

        Cost:
            As for ``mark_done()``.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_tries": 3}})
            >>> tracker.decrement_tries("a")
            >>> tracker.tries("a")
            2
        """
        change(self, key, 0, 0, -1)

    def reset_tries(self, key):
        """Set the tries of a task to zero, and remove its ``_error``: it is as new.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.

        Cost:
            As for ``mark_done()``.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_tries": 3}})
            >>> tracker.reset_tries("a")
            >>> tracker.tries("a")
            0
        """
        tasks_of(self).reset_tries(key, self.threshold())

    def mark_done_many(self, keys_iterable):
        """Mark many tasks done, or none if one of them does not exist. Their ``_error`` is removed.

        Args:
            keys_iterable: The keys of the tasks. It is read to its end first.

        Raises:
            KeyError: One of the tasks does not exist; then no task is marked.

        Cost:
            One lookup in the index for each key. The changes are on disk after the next sync.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {}, "b": {}})
            >>> tracker.mark_done_many(["a", "b"])
            >>> tracker.num_done()
            2
        """
        cdef TaskCache tasks = tasks_of(self)
        cdef list keys = list(keys_iterable)
        if not tasks.writable:
            raise tasks.store.refuse_write()
        tasks.begin_op()
        try:
            for key in keys:
                # Raises also for a status in a dict of the caller that cannot be stored, before any task is marked.
                tasks.status_of(key)
            for key in keys:
                tasks.change(key, CLAIMED | ERROR, DONE, 0, 0)
            tasks.sync_if_due(self.threshold())
        finally:
            tasks.end_op()

    def release(self, key):
        """Check that a task exists, and do nothing, because a private tracker has no claims.

        Code that releases the tasks of a shared tracker for other workers runs unchanged on a private one.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One lookup in the index.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {}})
            >>> for key in tracker.try_keys():
            ...     tracker.release(key)
            >>> tracker.tries("a")
            1
        """
        if key not in self:
            raise KeyError(key)

    # Primitives for the package pipeline

    def _open_queue(self, bint allow_aborted, bint remote=False):
        """Return a queue of the tasks that are to be done. See TaskQueue. ``remote`` is for shared trackers only."""
        return TaskQueue(self, allow_aborted)

    def _finish_many(self, changes):
        """Change many tasks in one operation. See TaskCache.finish_many()."""
        return tasks_of(self).finish_many(list(changes), self.threshold())

    def _open_running_slot(self):
        """Return a slot in which a thread or a coroutine notes the task that it runs."""
        return TaskSlot(self)

    # Primitives for the mixins

    def _gate(self, key, bint allow_aborted, bint add, bint attempt):
        """Return whether a task is to be done. ``add`` adds a missing task, ``attempt`` counts a try."""
        return tasks_of(self).gate(key, self.max_tries, allow_aborted, add, attempt, self.threshold())

    def _status_of(self, key):
        """Return (done, aborted, tries) of a task."""
        return tasks_of(self).status_of(key)

    def _totals(self):
        """Return (tasks, done, aborted, tried) of the tracker."""
        return tasks_of(self).count_all()

    def _add_one(self, key, bint if_absent):
        tasks_of(self).add_many((key,), if_absent, self.threshold())

    def _add_many(self, keys, bint if_absent):
        tasks_of(self).add_many(keys, if_absent, self.threshold())

    def _record_error(self, key, dict error):
        """Set ``_error`` of a task, with the number of its tries."""
        tasks_of(self).record_error(key, error, self.threshold())

    def _merge(self, key, dict changes):
        """Apply ``dict.update()`` to a task. A missing task is added."""
        tasks_of(self).merge(key, changes, self.threshold())

    def _tasks(self, int kind, bint allow_aborted, bint attempt):
        """Iterate over the tasks that are to be done. ``attempt`` counts a try of each."""
        return TaskIterator(self, kind, 0, DONE if allow_aborted else DONE | ABORTED, True, attempt)

    def _aborted_tasks(self, int kind):
        """Iterate over the aborted tasks."""
        return TaskIterator(self, kind, ABORTED, 0, False, False)

    def _tasks_with_error(self, int kind):
        """Iterate over the tasks that are not done and seem to have an error. Look at the data to be sure."""
        return TaskIterator(self, kind, ERROR, DONE, False, False)

    def _tasks_with(self, int kind, uint32_t wanted, uint32_t unwanted):
        """Iterate over the tasks whose status has the flags ``wanted`` and not the flags ``unwanted``."""
        return TaskIterator(self, kind, wanted, unwanted, False, False)
