"""``SharedProgressTracker``: a ProgressTracker for many processes, none of which gets a task that another one has."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, ClassVar

from tastypy_fast._core.iterators import ITEMS, KEYS, VALUES
from tastypy_fast._core.key_codec import encode_key
from tastypy_fast._core.task_cache import TaskCache
from tastypy_fast._core.write_cache import WriteCache
from tastypy_fast._inspect.task_counts import ProgressCounts, count_progress, read_claims_in
from tastypy_fast._mixins.display import TrackerDisplayMixin
from tastypy_fast._mixins.pairs import pairs_of
from tastypy_fast._shared.claim_iterator import TryIterator
from tastypy_fast._shared.claims import key_at, order_of
from tastypy_fast._shared.delegation import iterates, reads, view_type, writes
from tastypy_fast._shared.direct_writes import find_tasks, mark_done_many
from tastypy_fast._shared.handles import SharedTrackerHandle
from tastypy_fast._shared.write_transaction import OPERATION, SAVEPOINT
from tastypy_fast._store.options import at_least
from tastypy_fast.pod import DEFAULT_FILE_SIZE, DEFAULT_SYNC_AT
from tastypy_fast.shared_pod import SharedPersistentOrderedDict
from tastypy_fast.tracker import ProgressTracker
from tastypy_fast.types import Claim, Key, Pairs

__all__ = ["SharedProgressTracker", "SharedTracker"]

Private = ProgressTracker


class SharedProgressTracker(TrackerDisplayMixin, SharedPersistentOrderedDict, SharedTrackerHandle):
    """A ProgressTracker that any number of workers use at once.

    What ``try_keys()`` and its like, ``should_try()`` and ``should_try_add()`` hand out is claimed first: its try is
    counted and committed, and no other worker and no other loop is offered it until it is marked done, not done or
    aborted, until ``release(key)``, or until its worker closes the store or is gone. A task that was neither
    finished nor released stays its worker's, whose next loop tries it again. What a worker that died was working on
    is offered to the others at once, with its try counted. ``todo_*`` and ``should_do*`` only look, and claim
    nothing.

    Arguments and errors are those of ProgressTracker and SharedPersistentOrderedDict.

    >>> tracker = SharedProgressTracker(path, max_tries=3)
    >>> tracker.add_many_if_absent(["a", "b"])
    >>> for key in tracker.try_keys():
    ...     tracker.set[key]["result"] = key.upper()
    ...     tracker.mark_done(key)
    >>> tracker["a"]
    {'_done': True, '_aborted': False, '_tries': 1, 'result': 'A'}
    """

    _kind: ClassVar[bytes] = b"tracker"
    _view_type: ClassVar[type[Any]] = view_type(ProgressTracker)
    _cache_type: ClassVar[type[WriteCache]] = TaskCache

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_tries: int = 0,
        init: Pairs = {},
        gzipped: bool = False,
        file_size: int = DEFAULT_FILE_SIZE,
        sync_at: int = DEFAULT_SYNC_AT,
        *,
        durability: str = "process",
    ) -> None:
        self._max_tries = at_least("max_tries", max_tries, 0)
        super().__init__(path, init, gzipped, file_size, sync_at, durability=durability)

    @property
    def max_tries(self) -> int:
        """How often a task is tried at most; 0 is no limit."""
        return self._max_tries

    def _arguments(self) -> dict[str, Any]:
        return {"max_tries": self._max_tries, **super()._arguments()}

    def _count_progress(self, allow_aborted: bool) -> ProgressCounts:
        return count_progress(self._view(), self._store, self._max_tries, allow_aborted)

    def update(self, /, *mappings: Any, **pairs: Any) -> None:
        """Mix dicts into tasks, as ``dict.update()`` does; a task that is not there is added first.

        One transaction: it is seen as a whole, and not at all when a key or value is refused. Iterables are read
        to their end before it begins.

        >>> tracker = SharedProgressTracker(path)
        >>> tracker.update({"a": {"size": 1}}, [("a", {"kind": "x"})], b={})
        >>> tracker["a"]
        {'_done': False, '_aborted': False, '_tries': 0, 'size': 1, 'kind': 'x'}
        """
        transaction, view = self._begin()
        read = [list(pairs_of(mapping)) for mapping in mappings]
        transaction.perform(SAVEPOINT, view.update, *read, list(pairs.items()))

    # Adding tasks

    add = writes(Private.add)
    add_if_absent = writes(Private.add_if_absent)

    def add_many(self, keys_iterable: Iterable[Key]) -> None:
        """Add every key of an iterable. Raises DuplicateKeyError if one is there already; then none is added.

        One transaction. The iterable is read to its end before it begins.

        >>> tracker = SharedProgressTracker(path)
        >>> tracker.add_many(range(3))
        >>> tracker.keys()
        [0, 1, 2]
        """
        transaction, view = self._begin()
        transaction.perform(SAVEPOINT, view.add_many, list(keys_iterable))

    def add_many_if_absent(self, keys_iterable: Iterable[Key]) -> None:
        """As ``add_many()``, but pass over keys that are there already.

        >>> tracker = SharedProgressTracker(path)
        >>> tracker.add_many_if_absent("abcabc")
        >>> tracker.keys()
        ['a', 'b', 'c']
        """
        transaction, view = self._begin()
        transaction.perform(SAVEPOINT, view.add_many_if_absent, list(keys_iterable))

    # Changing the status of tasks

    mark_not_done = writes(Private.mark_not_done)
    increment_tries = writes(Private.increment_tries)
    decrement_tries = writes(Private.decrement_tries)
    reset_tries = writes(Private.reset_tries)
    abort = writes(Private.abort)
    unabort = writes(Private.unabort)

    def mark_done_many(self, keys_iterable: Iterable[Key]) -> None:
        """Mark many tasks done in one transaction. Raises KeyError if one is not there; then none is marked.

        >>> tracker = SharedProgressTracker(path, init={"a": {}, "b": {}})
        >>> tracker.mark_done_many(["a", "b"])
        >>> tracker.num_done()
        2
        """
        # (before the transaction, for which others wait)
        found = find_tasks(self._view()._open_cache, list(keys_iterable))
        transaction, view = self._begin()
        transaction.perform(SAVEPOINT, mark_done_many, view._open_cache, *found)

    # Checking the status of tasks

    done = reads(Private.done)
    aborted = reads(Private.aborted)
    tries = reads(Private.tries)
    _totals = reads(Private._totals)
    num_done = reads(Private.num_done)
    num_tried = reads(Private.num_tried)
    num_aborted = reads(Private.num_aborted)
    fraction_done = reads(Private.fraction_done)
    fraction_tried = reads(Private.fraction_tried)
    fraction_aborted = reads(Private.fraction_aborted)
    percent_done = reads(Private.percent_done)
    percent_not_done = reads(Private.percent_not_done)
    percent_tried = reads(Private.percent_tried)
    percent_not_tried = reads(Private.percent_not_tried)
    percent_aborted = reads(Private.percent_aborted)
    percent_not_aborted = reads(Private.percent_not_aborted)

    # Gates

    should_do = reads(Private.should_do)
    should_do_add = writes(Private.should_do_add)

    def should_try(self, key: Key, allow_aborted: bool = False) -> bool:
        """Whether a task is to be done and no other worker has it; where the answer is True it is claimed, with
        its try counted, for this thread.

        Raises KeyError when it is not there. Asked again by the thread that has it, it counts another try.

        >>> tracker = SharedProgressTracker(path, max_tries=1, init={"a": {}})
        >>> tracker.should_try("a"), tracker.should_try("a")
        (True, False)
        """
        return self._gate(key, allow_aborted, False)

    def should_try_add(self, key: Key, allow_aborted: bool = False) -> bool:
        """As ``should_try()``, but a task that is not there is added.

        >>> tracker = SharedProgressTracker(path)
        >>> tracker.should_try_add("a"), tracker.tries("a")
        (True, 1)
        """
        return self._gate(key, allow_aborted, True)

    def _gate(self, key: Key, allow_aborted: bool, add: bool) -> bool:
        transaction, view = self._begin()
        return bool(transaction.perform(OPERATION, self._try_one, view, key, allow_aborted, add))

    def _try_one(self, view: Any, key: Key, allow_aborted: bool, add: bool) -> bool:
        if add:
            view.add_if_absent(key)
        elif key not in view:
            raise KeyError(key)
        return bool(self._store.open_worker().claim_one(encode_key(key), allow_aborted, self._max_tries))

    # Iterating over tasks, without claiming them

    todo_keys = iterates(Private.todo_keys)
    todo_values = iterates(Private.todo_values)
    todo_items = iterates(Private.todo_items)
    aborted_keys = iterates(Private.aborted_keys)
    aborted_values = iterates(Private.aborted_values)
    aborted_items = iterates(Private.aborted_items)

    # Iterating over tasks, each of which is claimed first

    def try_keys(self, allow_aborted: bool = False, *, batch: int = 1) -> TryIterator:
        """Claim tasks that are not done, not aborted (unless allowed) and have tries left, and hand out their keys.

        In the order in which they were added, and live: the loop comes to tasks that are added while it runs, and,
        at its end, to those that were given back by workers that died. ``batch`` claims so many with one commit,
        for tasks of microseconds: the try of what is not handed out when the loop ends, or when the worker dies, is
        given back.

        Cost: a commit for each batch, and O(tasks that this process has in hand) when a loop begins. A claim is there
        for all processes before its key is handed out. Raises ValueError for a ``batch`` below 1, DiskFullError,
        CalledClosedTrackerError, and PersistentOrderedDictException for more than 495 loops at once in one process.

        >>> tracker = SharedProgressTracker(path, max_tries=2, init={"a": {}})
        >>> [list(tracker.try_keys()) for _ in range(3)]
        [['a'], ['a'], []]
        """
        return self._try(KEYS, allow_aborted, batch)

    def try_values(self, allow_aborted: bool = False, *, batch: int = 1) -> TryIterator:
        """As ``try_keys()``, the tasks' dicts, which are copies: change a task through ``.set[key]``.

        >>> list(SharedProgressTracker(path, init={"a": {}}).try_values())
        [{'_done': False, '_aborted': False, '_tries': 1}]
        """
        return self._try(VALUES, allow_aborted, batch)

    def try_items(self, allow_aborted: bool = False, *, batch: int = 1) -> TryIterator:
        """As ``try_keys()``, pairs of key and task; the task is a copy.

        >>> list(SharedProgressTracker(path, init={"a": {}}).try_items(batch=10))
        [('a', {'_done': False, '_aborted': False, '_tries': 1})]
        """
        return self._try(ITEMS, allow_aborted, batch)

    def _try(self, kind: int, allow_aborted: bool, batch: int) -> TryIterator:
        self._view()  # raises for a closed store
        return TryIterator(
            self, self._store, kind, bool(allow_aborted), self._max_tries, at_least("batch", batch, 1)
        )

    # Claims

    def release(self, key: Key) -> None:
        """Give the claim on a task back, so that any worker may try it. Its try stays counted, but for a task that a
        batch has claimed and not handed out: that one is not handed out then.

        Does nothing for a task that nobody has claimed. Raises KeyError when it is not there.

        >>> tracker = SharedProgressTracker(path, init={"a": {}})
        >>> for key in tracker.try_keys():
        ...     tracker.release(key)
        >>> tracker.claimed_keys(), tracker.tries("a")
        ([], 1)
        """
        transaction, view = self._begin()
        transaction.perform(OPERATION, self._release, view, key)

    def _release(self, view: Any, key: Key) -> None:
        order = order_of(view._open_cache, encode_key(key))
        if order < 0:
            raise KeyError(key)
        self._store.open_worker().release(order)

    def claimed_keys(self) -> list[Any]:
        """The keys of all tasks that workers have claimed, in order.

        These are more than workers are at: also what is left to a worker's next loop, and what waits in a batch.
        ``claims()`` tells them apart: ``[key for key, claim in tracker.claims().items() if claim.state == "running"]``.

        >>> tracker = SharedProgressTracker(path, init={"a": {}, "b": {}})
        >>> loop = tracker.try_keys()
        >>> next(loop), tracker.claimed_keys()
        ('a', ['a'])
        """
        return list(self.claims())

    def claims(self) -> dict[Any, Claim]:
        """Who has which task, and whether it is running, failed or waiting: key to Claim, in order.

        Claims of workers that are gone are left out. Cost: a look at each claim and at each worker's file.

        >>> tracker = SharedProgressTracker(path)
        >>> tracker.add_many("abc")
        >>> loop = tracker.try_keys(batch=3)
        >>> next(loop), next(loop)
        ('a', 'b')
        >>> {key: claim.state for key, claim in tracker.claims().items()}
        {'a': 'failed', 'b': 'running', 'c': 'waiting'}
        >>> tracker.claims()["a"].process == os.getpid()
        True
        """
        view = self._view()
        cache = view._open_cache
        worker = self._store.worker
        with view._one_step:
            cache.sync(False)
            store = cache.store
            held, _ = read_claims_in(store.snapshot, store.claims, self.path, worker.number if worker else 0)
            return {key_at(cache, hand.seq): Claim(hand.process, hand.host, hand.since, hand.state) for hand in held}


SharedTracker = SharedProgressTracker
