"""Run single operations of the shared classes in compiled code, each as a transaction or a part of the open block."""

cimport cython
from libc.stdint cimport uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._shared.direct_writes cimport assign_directly, change_directly, record_of, reset_tries_directly
from tastypy_fast._core.iterators cimport KEYS, StoreHandle, StoreIterator, TaskIterator
from tastypy_fast._core.key_codec cimport encode_key, wanted_key
from tastypy_fast._core.lookup_iterator cimport LookupIterator
from tastypy_fast._core.set_proxy cimport Operation, is_done, make_proxy
from tastypy_fast._core.status_block cimport ABORTED, CLAIMED, DONE, ERROR
from tastypy_fast._core.task_cache cimport TaskCache
from tastypy_fast._shared.write_transaction cimport OPERATION, WriteTransaction

import errno

from tastypy_fast._core.handles import check_data
from tastypy_fast._shared.direct_writes import finish_many
from tastypy_fast._lmdb.engine import MapFull
from tastypy_fast.exceptions import CalledClosedTrackerError, StorageError

cdef extern from "Python.h":
    ctypedef struct PyMappingMethods:
        void* mp_ass_subscript
    ctypedef struct PyTypeObject:
        PyMappingMethods* tp_as_mapping
    PyTypeObject* Py_TYPE(object)

__all__ = ["IN_MEMORY", "LiveIterator", "SharedLookupIterator", "SharedPodHandle", "SharedTrackerHandle"]

# The number of changes of a block that stay in memory before they are written into its transaction.
IN_MEMORY = 10_000
cdef long long SYNC_AT = IN_MEMORY

cdef enum:
    ASSIGN
    DELETE
    OPERATE
    CHANGE_STATUS
    RESET_TRIES


@cython.final
cdef class Change:
    """The arguments of one change, so that it can be made again after the map has grown."""


cdef Change make_change(int what, object key, object value):
    cdef Change change = Change.__new__(Change)
    change.what = what
    if what != OPERATE:
        change.original = key
        change.key = encode_key(key) if what == ASSIGN else wanted_key(key)
        if change.key is None:
            raise KeyError(key)
    change.value = value
    return change


cdef class SharedPodHandle:
    """The compiled part of a shared store.

    ``writer`` and ``reader`` are private handles on the store. The first uses the cache of the write transaction, the
    second the cache that reads the last commit.
    """

    def _attach(self, WriteTransaction transaction not None, StoreHandle writer not None, StoreHandle reader not None,
                long long sync_at):
        self._transaction = transaction
        self.writer = writer
        self.reader = reader
        self.sync_at = sync_at

    def _detach(self):
        self._transaction = None

    @classmethod
    def __class_getitem__(cls, parameters):
        # A class statement names the types of keys and values, for type checkers only.
        return cls

    cdef WriteTransaction transaction_of(self):
        if self._transaction is None:
            raise CalledClosedTrackerError("this store was closed; open it again to use it")
        return self._transaction

    cdef WriteTransaction begin(self):
        """Return the write transaction, which this instance is about to enter, and set its ``sync_at``."""
        cdef WriteTransaction transaction = self.transaction_of()
        transaction.sync_at = self.sync_at
        return transaction

    cdef StoreHandle read_handle(self):
        cdef WriteTransaction transaction = self.transaction_of()
        return self.writer if transaction.snapshot is not None and transaction.lock.is_mine() else self.reader

    def _begin(self):
        """Return the write transaction, which this instance is about to enter."""
        return self.begin()

    def _read_handle(self):
        """Return the handle for reads: inside a block of this thread the writer, otherwise the reader."""
        return self.read_handle()

    def _write_handle(self):
        """Return the handle for writes inside the transaction, which this instance is about to enter."""
        self.begin()
        return self.writer

    def _perform(self, int kind, function, *arguments):
        """Call a function in a transaction, or in the open block. ``kind``: see WriteTransaction."""
        return self.begin().perform(kind, function, *arguments)

    def _iterate(self, int kind, bint backwards=False):
        """Iterate over keys, values or pairs."""
        return LiveIterator(self, lambda handle: StoreIterator(handle, kind, backwards))

    def _list(self, int kind):
        """Return a list of everything that _iterate() yields, read from one snapshot."""
        cdef StoreHandle handle = self.read_handle()
        cdef WriteCache cache = handle.open_cache()
        cache.begin_op()
        try:
            return list(StoreIterator(handle, kind))
        finally:
            cache.end_op()

    def _get_many(self, keys):
        """Iterate over pairs of the keys that exist."""
        return SharedLookupIterator(self, keys)

    # One change

    cdef object change(self, Change change):
        """Make a change in the open block of this thread, or in a transaction of its own."""
        cdef WriteTransaction transaction = self.begin()
        cdef long long epoch
        while True:
            try:
                if transaction.is_inside():
                    return self.do(transaction, change)
                transaction.begin_block(OPERATION)
                epoch = transaction.epoch
                try:
                    result = None
                    if not self.do_directly(transaction, change):
                        result = self.do(transaction, change)
                except BaseException as error:
                    transaction.end_block_if(epoch, True)
                    transaction.raise_translated(error)
                    raise
                transaction.end_block_if(epoch, False)
                return result
            except MapFull as error:
                transaction.retry_with_larger_map(error)

    cdef bint do_directly(self, WriteTransaction transaction, Change change) except -1:
        """Make the only change of a transaction without the cache. Returns False if it needs the cache."""
        if change.what == ASSIGN:
            return assign_directly(transaction.cache, change.key, change.record)
        if change.what == CHANGE_STATUS:
            return change_directly(<TaskCache?>transaction.cache, change.key, change.original, change.drop,
                                   change.add, change.added_tries)
        if change.what == RESET_TRIES:
            return reset_tries_directly(<TaskCache?>transaction.cache, change.key, change.original)
        return False

    cdef object do(self, WriteTransaction transaction, Change change):
        if change.what == ASSIGN:
            transaction.cache.put(change.key, change.value, SYNC_AT)
        elif change.what == DELETE:
            transaction.cache.delete(change.key, change.original, SYNC_AT)
        elif change.what == OPERATE:
            return self.operate(transaction, change.value)
        elif change.what == CHANGE_STATUS:
            (<TaskCache?>transaction.cache).change(change.original, change.drop, change.add, change.added_tries,
                                                   SYNC_AT)
        else:
            (<TaskCache?>transaction.cache).reset_tries(change.original, SYNC_AT)

    cdef object operate(self, WriteTransaction transaction, Operation operation):
        cdef WriteCache cache = transaction.cache
        cdef long long epoch = transaction.epoch
        cdef bytes encoded
        cdef object result = None
        # Change a copy of the value, because nothing may change if the operation raises.
        if operation.leads_into_a_value():
            key = operation.steps[0][1]
            encoded = cache.wanted(key)
            value = self.fetch_to_change(cache, encoded, key)
            result = operation.act_on(value, 1)
        elif operation.augments_a_key():
            step, change, operand = operation.arguments
            key = step[1]
            encoded = cache.wanted(key)
            value = change(self.fetch_to_change(cache, encoded, key), operand)
            if self.assigns_itself():
                self[key] = value
                return None
        else:
            # The operation sets or deletes a key, or is a method or operator of the store. It runs as without .set.
            return operation.perform(self.writer if operation.is_for_a_key() and not self.assigns_itself() else self)
        if transaction.epoch != epoch:
            raise self.ended_within()
        if not transaction.is_single() or not assign_directly(cache, encoded, record_of(cache, encoded, value)):
            cache.put(encoded, value, SYNC_AT)
        return result

    cdef object fetch_to_change(self, WriteCache cache, bytes encoded, object key):
        """Return a copy of a value. Its record is kept, because it is the before-image of the change."""
        cdef bytes record
        cdef long long seq = 0
        if encoded is not None and cache.entry_of(encoded) is None:
            cache.begin_op()
            try:
                record = cache.find_record(encoded, &seq)
                if record is not None:
                    cache.last_yielded.set_record(record, seq, cache.cache_version, cache.snapshot_id)
            finally:
                cache.end_op()
        return cache.fetch(encoded, key, SYNC_AT)

    cdef object ended_within(self):
        return StorageError(
            errno.EPERM, "the store was closed, or this process was forked, in the middle of this operation; it "
            "changed nothing here, so repeat it if it is still needed"
        )

    def _apply(self, Operation operation not None):
        cdef WriteTransaction transaction = self.transaction_of()
        if not transaction.is_inside():
            return self.change(make_change(OPERATE, None, operation.without_iterators()))
        try:
            return self.operate(transaction, operation)
        except MapFull as error:
            transaction.retry_with_larger_map(error)

    @property
    def set(self):
        """Change stored values: each change through this attribute is one transaction.

        Keys, indexes and slices lead into a value, at any depth. At the end of the path, call a method, assign, delete,
        or use an augmented assignment. The change is atomic, so ``pod.set["n"] += 1`` needs no lock. An operation that
        raises changes nothing. To read, leave off ``.set``.

        Cost:
            Reading, changing and writing the value of one key, and one commit.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"n": 1, "list": [3, 1, 2]})
            >>> pod.set["n"] += 41
            >>> pod.set["list"].sort()
            >>> pod.set["list"][:2] = "ab"
            >>> pod.set["list"].pop()
            3
            >>> pod.items()
            [('n', 42), ('list', ['a', 'b'])]
        """
        self.transaction_of()
        return make_proxy(self._apply)

    @set.setter
    def set(self, value):
        # Python performs this assignment at the end of "pod.set |= {...}".
        if not is_done(value, ()):
            raise AttributeError("assign to .set[key], not to .set")

    # The mapping

    cdef bint assigns_itself(self) except -1:
        """Return whether a subclass has its own ``__setitem__`` or ``__delitem__``.

        Python gives a class with either of them another C function for both.
        """
        cdef PyTypeObject* kind = Py_TYPE(self)
        cdef PyTypeObject* own = <PyTypeObject*>SharedPodHandle
        return kind.tp_as_mapping.mp_ass_subscript != own.tp_as_mapping.mp_ass_subscript

    def _item_handle(self):
        """Return what assigns and deletes items inside the transaction, which this instance is about to enter.

        It is this instance if a subclass has its own ``__setitem__`` or ``__delitem__``.
        """
        self.begin()
        return self if self.assigns_itself() else self.writer

    @property
    def _assigns_itself(self):
        return self.assigns_itself()

    def __getitem__(self, key):
        return self.read_handle().open_cache().fetch(wanted_key(key), key, 0)

    def __setitem__(self, key, value):
        cdef WriteTransaction transaction = self.transaction_of()
        cdef Change change
        if not transaction.is_inside():
            change = make_change(ASSIGN, key, value)
            change.record = record_of(transaction.cache, change.key, value)
            self.change(change)
            return
        try:
            transaction.cache.put(encode_key(key), value, SYNC_AT)
        except MapFull as error:
            transaction.retry_with_larger_map(error)

    def _assign_all(self, pairs):
        """Assign pairs one by one, with the ``__setitem__`` of a subclass if it has one."""
        self.transaction_of()
        for key, value in pairs:
            self[key] = value

    def __delitem__(self, key):
        self.change(make_change(DELETE, key, None))

    def __contains__(self, key):
        return self.read_handle().open_cache().contains(wanted_key(key))

    def __len__(self):
        return self.read_handle().open_cache().length()

    def __iter__(self):
        return self._iterate(KEYS)

    def get(self, key, default=None):
        """Return a copy of the value of a key, or ``default`` if the key does not exist.

        Args:
            key: The key.
            default: The result for a missing key.

        Returns:
            The value, or ``default``, which is not stored.

        Cost:
            Two lookups in the memory-mapped file, O(log n). It waits for no other process.

        Example:
            >>> pod = SharedPersistentOrderedDict(path, init={"a": [1]})
            >>> pod.get("a"), pod.get("b"), pod.get("b", 0)
            ([1], None, 0)
        """
        try:
            return self.read_handle().open_cache().fetch(wanted_key(key), key, 0)
        except KeyError:
            return default

    def _get(self, key, default):
        """Do what ``get()`` does, also in a subclass with its own ``get()``."""
        return SharedPodHandle.get(self, key, default)


cdef int change_status(SharedPodHandle store, object key, uint32_t drop, uint32_t add, int added_tries) except -1:
    """Remove flags from a task's status, add others, and add to its tries. See TaskCache.change()."""
    cdef Change change = make_change(CHANGE_STATUS, key, None)
    change.drop = drop
    change.add = add
    change.added_tries = added_tries
    store.change(change)
    return 0


cdef TaskCache tasks_of(SharedPodHandle store):
    return <TaskCache?>store.read_handle().open_cache()


cdef class SharedTrackerHandle(SharedPodHandle):
    """The compiled part of a shared tracker.

    It adds neither fields nor ``cdef`` methods, because a class could not have a second compiled base otherwise.
    """

    # Changing one status

    def mark_done(self, key, data=None):
        """Mark a task done, which ends the claim on it, and keep data with it. Both are one transaction.

        The error of an earlier try, ``_error``, is removed.

        Args:
            key: The key of the task.
            data: A dict with which the task is updated before it is marked, as by ``update()``.

        Raises:
            KeyError: The task does not exist.
            TypeError: ``data`` is no dict.
            UnstorableValueError: A value in ``data`` cannot be stored. The task is then neither changed nor marked.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {}, "b": {}})
            >>> tracker.mark_done("a")
            >>> tracker.mark_done("b", {"size": 3})
            >>> tracker.done("a"), tracker["b"]
            (True, {'_done': True, '_aborted': False, '_tries': 0, 'size': 3})
        """
        if data is None:
            change_status(self, key, CLAIMED | ERROR, DONE, 0)
        else:
            self._perform(OPERATION, self._write_handle().mark_done, key, check_data(data))

    def mark_not_done(self, key):
        """Mark a task not done, which ends the claim on it.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {"_done": True}})
            >>> tracker.mark_not_done("a")
            >>> tracker.done("a")
            False
        """
        change_status(self, key, DONE | CLAIMED, 0, 0)

    def abort(self, key):
        """Mark a task aborted, which ends the claim on it: gates and iterators skip the task.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {}})
            >>> tracker.abort("a")
            >>> tracker.should_do("a"), tracker.should_do("a", allow_aborted=True)
            (False, True)
        """
        change_status(self, key, CLAIMED, ABORTED, 0)

    def unabort(self, key):
        """Mark a task not aborted.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {"_aborted": True}})
            >>> tracker.unabort("a")
            >>> tracker.aborted("a")
            False
        """
        change_status(self, key, ABORTED, 0, 0)

    def increment_tries(self, key):
        """Add one to the tries of a task.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.
            UnstorableValueError: The number of tries leaves what 27 bits hold.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {}})
            >>> tracker.increment_tries("a")
            >>> tracker.tries("a")
            1
        """
        change_status(self, key, 0, 0, 1)

    def decrement_tries(self, key):
        """Subtract one from the tries of a task. The number may become negative.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.
            UnstorableValueError: The number of tries leaves what 27 bits hold.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {"_tries": 3}})
            >>> tracker.decrement_tries("a")
            >>> tracker.tries("a")
            2
        """
        change_status(self, key, 0, 0, -1)

    def reset_tries(self, key):
        """Set the tries of a task to zero, and remove its ``_error``: it is as new.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {"_tries": 3}})
            >>> tracker.reset_tries("a")
            >>> tracker.tries("a")
            0
        """
        self.change(make_change(RESET_TRIES, key, None))

    # Primitives for the package pipeline

    def _finish_many(self, changes):
        """Change many tasks in one transaction. See TaskCache.finish_many()."""
        self._write_handle()
        return self._perform(OPERATION, finish_many, self._transaction.cache, list(changes))

    # Primitives for the mixins

    def _record_error(self, key, dict error):
        """Set ``_error`` of a task, with the number of its tries."""
        self._perform(OPERATION, self._write_handle()._record_error, key, error)

    def _status_of(self, key):
        """Return (done, aborted, tries) of a task."""
        return tasks_of(self).status_of(key)

    def _totals(self):
        """Return (tasks, done, aborted, tried) of the tracker."""
        return tasks_of(self).count_all()

    def _tasks(self, int kind, bint allow_aborted):
        """Iterate over the tasks that are to be done, without claiming them."""
        cdef uint32_t unwanted = DONE if allow_aborted else DONE | ABORTED
        return LiveIterator(self, lambda handle: TaskIterator(handle, kind, 0, unwanted, True, False))

    def _aborted_tasks(self, int kind):
        """Iterate over the aborted tasks."""
        return LiveIterator(self, lambda handle: TaskIterator(handle, kind, ABORTED, 0, False, False))

    def _tasks_with_error(self, int kind):
        """Iterate over the tasks that are not done and seem to have an error. Look at the data to be sure."""
        return LiveIterator(self, lambda handle: TaskIterator(handle, kind, ERROR, DONE, False, False))

    def _tasks_with(self, int kind, uint32_t wanted, uint32_t unwanted):
        """Iterate over the tasks whose status has the flags ``wanted`` and not the flags ``unwanted``."""
        return LiveIterator(self, lambda handle: TaskIterator(handle, kind, wanted, unwanted, False, False))


@cython.final
cdef class SharedLookupIterator(LookupIterator):
    """Look up many keys of a shared store: inside a block of this thread in its transaction, otherwise as committed."""

    cdef StoreHandle handle(self):
        return (<SharedPodHandle?>self.store).read_handle()


@cython.final
cdef class LiveIterator:
    """Iterate over a shared store, and change to the other handle when a block begins or ends.

    ``make`` makes the iterator over one handle. No transaction stays open between two steps.
    """

    # All are None after the end.
    cdef SharedPodHandle store
    cdef object make
    cdef StoreHandle handle
    cdef StoreIterator iterator

    def __init__(self, SharedPodHandle store not None, make):
        self.store = store
        self.make = make
        self.handle = store.read_handle()
        self.iterator = make(self.handle)

    def __iter__(self):
        return self

    def __next__(self):
        cdef SharedPodHandle store = self.store
        cdef StoreIterator iterator = self.iterator
        cdef StoreHandle handle
        make = self.make
        if iterator is None:
            raise StopIteration
        handle = store.read_handle()
        if handle is not self.handle:
            position = iterator.position
            iterator = make(handle)
            iterator.seek(position)
            if self.iterator is None:
                raise StopIteration  # another thread has come to the end
            self.handle = handle
            self.iterator = iterator
        try:
            return next(iterator)
        except StopIteration:
            # End for good, even if the other handle would have more items, and let go of the store. ``store`` keeps it
            # until this method ends, because the end of its last reference runs finalizers.
            self.iterator = None
            self.handle = None
            self.store = None
            self.make = None
            raise
