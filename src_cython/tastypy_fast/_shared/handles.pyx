"""The slots of the shared classes: single operations, each a transaction or a part of the block that is open."""

cimport cython
from libc.stdint cimport uint32_t

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._shared.direct_writes cimport assign_directly, change_directly, record_of, reset_tries_directly
from tastypy_fast._core.iterators cimport StoreHandle, StoreIterator
from tastypy_fast._core.key_codec cimport encode_key
from tastypy_fast._core.set_proxy cimport Operation, is_done, make_proxy
from tastypy_fast._core.status_block cimport CLAIMED, DONE
from tastypy_fast._core.task_cache cimport TaskCache
from tastypy_fast._shared.write_transaction cimport OPERATION, WriteTransaction

import errno

from tastypy_fast._lmdb.engine import MapFull
from tastypy_fast.exceptions import CalledClosedTrackerError, StorageError

__all__ = ["IN_MEMORY", "LiveIterator", "SharedPodHandle", "SharedTrackerHandle"]

# As many changes of one block are kept in memory before they go into its transaction.
IN_MEMORY = 10_000
cdef long long AT = IN_MEMORY

cdef enum:
    ASSIGN
    DELETE
    OPERATE
    CHANGE_STATUS
    RESET_TRIES


@cython.final
cdef class Change:
    """The arguments of one change, so that it can be done again."""


cdef Change make_change(int what, object key, object value):
    cdef Change change = Change.__new__(Change)
    change.what = what
    if what != OPERATE:
        change.original = key
        change.key = encode_key(key)
    change.value = value
    return change


cdef class SharedPodHandle:
    """The part of a shared instance that is compiled.

    ``inside`` and ``outside`` are its views of the store: instances of the private class, on the transaction's
    cache and on the one that reads what is committed.
    """

    def _attach(self, WriteTransaction transaction not None, StoreHandle inside not None, StoreHandle outside not None,
                long long sync_at):
        self._transaction = transaction
        self.inside = inside
        self.outside = outside
        self.sync_at = sync_at

    def _detach(self):
        self._transaction = None

    cdef WriteTransaction transaction_of(self):
        if self._transaction is None:
            raise CalledClosedTrackerError("this store was closed; open it again to use it")
        return self._transaction

    cdef WriteTransaction begin(self):
        """The transaction, which this instance is about to enter."""
        cdef WriteTransaction transaction = self.transaction_of()
        transaction.sync_at = self.sync_at
        return transaction

    cdef StoreHandle view(self):
        cdef WriteTransaction transaction = self.transaction_of()
        return self.inside if transaction.snapshot is not None and transaction.lock.is_mine() else self.outside

    def _view(self):
        """What is to be read: the transaction's view in the thread that has it, else what is committed."""
        return self.view()

    def _begin(self):
        """The transaction, about to be entered by this instance, and its view."""
        return self.begin(), self.inside

    # One change

    cdef object change(self, Change change):
        """Do something in the block of this thread, or else in a transaction of its own."""
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
        """Do what is all that the transaction does. False where that takes the cache."""
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
            transaction.cache.put(change.key, change.value, AT)
        elif change.what == DELETE:
            transaction.cache.delete(change.key, change.original, AT)
        elif change.what == OPERATE:
            return self.operate(transaction, change.value)
        elif change.what == CHANGE_STATUS:
            (<TaskCache?>transaction.cache).change(change.original, change.drop, change.add, change.added_tries, AT)
        else:
            (<TaskCache?>transaction.cache).reset_tries(change.original, AT)

    cdef object operate(self, WriteTransaction transaction, Operation operation):
        cdef WriteCache cache = transaction.cache
        cdef long long epoch = transaction.epoch
        cdef bytes encoded
        cdef object result = None
        # Done to a copy: where it raises, nothing has changed.
        if operation.leads_into_a_value():
            key = operation.steps[0][1]
            encoded = encode_key(key)
            value = cache.fetch(encoded, key, AT)
            result = operation.act_on(value, 1)
        elif operation.augments_a_key():
            step, change, operand = operation.arguments
            key = step[1]
            encoded = encode_key(key)
            value = change(cache.fetch(encoded, key, AT), operand)
        else:
            # A key of the store, or a method or operator of the store itself, the same as without .set.
            return operation.perform(self.inside if operation.is_for_a_key() else self)
        if transaction.epoch != epoch:
            raise self.ended_within()
        if not transaction.is_single() or not assign_directly(cache, encoded, record_of(cache, encoded, value)):
            cache.put(encoded, value, AT)
        return result

    cdef object ended_within(self):
        return StorageError(
            errno.EPERM, "the store was closed, or this process forked, in the middle of this operation; nothing of it "
            "is saved here"
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
        """Where everything is done that changes what is in the store: each as one transaction.

        Keys, indexes and slices lead into a value, as deep as you like. At the end of them a method is called,
        something is assigned, deleted, or assigned in place: all of it is atomic, so that
        ``pod.set["n"] += 1`` needs no lock. An exception changes nothing. To read, leave off ``.set``.

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
        return make_proxy(self._apply, ())

    @set.setter
    def set(self, value):
        # "pod.set |= {...}" ends with this assignment.
        if not is_done(value, ()):
            raise AttributeError("assign to .set[key], not to .set")

    # The mapping

    def __getitem__(self, key):
        return self.view().open_cache().fetch(encode_key(key), key, 0)

    def __setitem__(self, key, value):
        cdef WriteTransaction transaction = self.transaction_of()
        cdef Change change
        if not transaction.is_inside():
            change = make_change(ASSIGN, key, value)
            change.record = record_of(transaction.cache, change.key, value)
            self.change(change)
            return
        try:
            transaction.cache.put(encode_key(key), value, AT)
        except MapFull as error:
            transaction.retry_with_larger_map(error)

    def __delitem__(self, key):
        self.change(make_change(DELETE, key, None))

    def __contains__(self, key):
        return self.view().open_cache().contains(encode_key(key))

    def __len__(self):
        return self.view().open_cache().length()

    def get(self, key, default=None):
        """The value of a key, a copy, or ``default`` when the key is not there.

        >>> pod = SharedPersistentOrderedDict(path, init={"a": [1]})
        >>> pod.get("a"), pod.get("b"), pod.get("b", 0)
        ([1], None, 0)
        """
        try:
            return self[key]
        except KeyError:
            return default


cdef class SharedTrackerHandle(SharedPodHandle):
    """The compiled part of a shared tracker: changes of one status.

    It adds neither fields nor ``cdef`` methods, so that a class may have it as a base beside another one.
    """

    def _change(self, key, uint32_t drop, uint32_t add, int added_tries):
        cdef Change change = make_change(CHANGE_STATUS, key, None)
        change.drop = drop
        change.add = add
        change.added_tries = added_tries
        self.change(change)

    def _reset_tries(self, key):
        self.change(make_change(RESET_TRIES, key, None))

    def mark_done(self, key):
        """Mark a task done, which ends the claim on it. Raises KeyError when it is not there.

        One transaction: visible to every process when it returns.

        >>> tracker = SharedProgressTracker(path, init={"a": {}})
        >>> tracker.mark_done("a")
        >>> tracker.done("a"), tracker["a"]["_done"]
        (True, True)
        """
        self._change(key, CLAIMED, DONE, 0)


@cython.final
cdef class LiveIterator:
    """Iterates over a shared store, each step on the view that is right by then; ``make`` makes the iterator over
    one view."""

    cdef SharedPodHandle store
    cdef object make
    cdef StoreHandle view
    cdef StoreIterator iterator

    def __init__(self, SharedPodHandle store not None, make):
        self.store = store
        self.make = make
        self.view = store.view()
        self.iterator = make(self.view)

    def __iter__(self):
        return self

    def __next__(self):
        cdef StoreHandle view
        if self.iterator is None:
            raise StopIteration
        view = self.store.view()
        if view is not self.view:
            iterator = self.make(view)
            iterator.seek(self.iterator.position)
            self.view = view
            self.iterator = iterator
        try:
            return next(self.iterator)
        except StopIteration:
            # (for good, also when the other view would have more)
            self.iterator = None
            raise
