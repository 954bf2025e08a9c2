"""Define ``SharedProgressTracker``, a ProgressTracker that many processes share, which claims tasks for one of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Any, ClassVar

from tastypy_fast._core.handles import PodHandle, TrackerHandle
from tastypy_fast._core.iterators import ITEMS, KEYS, VALUES
from tastypy_fast._core.key_codec import encode_key
from tastypy_fast._core.task_cache import TaskCache
from tastypy_fast._core.write_cache import WriteCache
from tastypy_fast._inspect.claims import ClaimReader, one_snapshot
from tastypy_fast._inspect.store_info import LIMIT, RUN, pack_limit, pack_run, read_limit
from tastypy_fast._mixins.counting import CountingMixin
from tastypy_fast._mixins.display import TrackerDisplayMixin
from tastypy_fast._mixins.examples import show_own_examples
from tastypy_fast._mixins.mapping import merge_tasks
from tastypy_fast._mixins.run import RunMixin
from tastypy_fast._mixins.task_status import TaskStatusMixin
from tastypy_fast._shared import claim_iterator
from tastypy_fast._shared.claim_queue import ClaimQueue, NoTaskSlot
from tastypy_fast._shared.claims import key_at, order_of
from tastypy_fast._shared.direct_writes import find_tasks, mark_done_many
from tastypy_fast._shared.handles import SharedTrackerHandle
from tastypy_fast._shared.write_transaction import OPERATION, SAVEPOINT
from tastypy_fast._store.options import at_least
from tastypy_fast._type_parameters import K
from tastypy_fast.exceptions import StorageError
from tastypy_fast.pod import DEFAULT_FILE_SIZE, DEFAULT_SYNC_AT
from tastypy_fast.shared_pod import SharedPersistentOrderedDict
from tastypy_fast.types import Claim, ClaimIterator, Durability, Pairs, StoreIterator

__all__ = ["SharedProgressTracker", "SharedTracker"]


@show_own_examples
class SharedProgressTracker(  # type: ignore[misc]  # keys() and its like return lists
    TrackerDisplayMixin[K],
    SharedPersistentOrderedDict[K, dict[str, Any]],
    TaskStatusMixin[K],
    CountingMixin,
    RunMixin[K],
    SharedTrackerHandle[K],
):
    """A ProgressTracker that any number of workers use at once.

    ``try_keys()``, ``try_values()``, ``try_items()``, ``should_try()`` and ``should_try_add()`` claim a task before the
    caller gets it. The try is counted and committed, and no other worker or iterator gets the task.

    A claim lasts until the task is marked done, not done or aborted, or until ``release(key)``. It also ends when its
    worker closes the store or dies. A task that was neither finished nor released stays claimed, and the worker's next
    iterator tries it again. Other workers can claim the tasks of a dead worker at once. Their tries stay counted.
    ``todo_*`` and ``should_do*`` only read, and claim nothing.

    The type parameter is the type of the keys: ``SharedProgressTracker[str](path)``.

    Args:
        path: The folder of the store, as for SharedPersistentOrderedDict.
        max_tries: The number of tries after which gates and iterators skip a task. 0 means no limit. A limit is kept
            with the tracker, see ``kept_max_tries``.
        init: Tasks, which are added or updated as by ``update(init)``.
        gzipped: As for SharedPersistentOrderedDict.
        file_size: As for SharedPersistentOrderedDict.
        sync_at: As for SharedPersistentOrderedDict.
        durability: As for SharedPersistentOrderedDict.

    Raises:
        StoreKindError: The store is a plain SharedPersistentOrderedDict.
        StoreInUseError: A process has the store open as a private one. The other errors are those of
            PersistentOrderedDict.

    Cost:
        As for ProgressTracker and SharedPersistentOrderedDict. A claim is a commit, or a part of one with ``batch``.

    Example:
        >>> tracker = SharedProgressTracker(path, max_tries=3)
        >>> tracker.add_many_if_absent(["a", "b"])
        >>> for key in tracker.try_keys():
        ...     tracker.set[key]["result"] = key.upper()
        ...     tracker.mark_done(key)
        >>> tracker["a"]
        {'_done': True, '_aborted': False, '_tries': 1, 'result': 'A'}
    """

    _kind: ClassVar[bytes] = b"tracker"
    _handle_type: ClassVar[type[PodHandle[Any, Any]]] = TrackerHandle
    _cache_type: ClassVar[type[WriteCache]] = TaskCache
    _counts_tries_of_claims: ClassVar[bool] = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_tries: int = 0,
        init: Pairs = {},
        gzipped: bool = False,
        file_size: int = DEFAULT_FILE_SIZE,
        sync_at: int = DEFAULT_SYNC_AT,
        *,
        durability: Durability = "process",
    ) -> None:
        self._max_tries = at_least("max_tries", max_tries, 0)
        super().__init__(path, init, gzipped, file_size, sync_at, durability=durability)
        self._keep_limit()

    def _arguments(self) -> dict[str, Any]:
        return {"max_tries": self._max_tries, **super()._arguments()}

    # What run() needs

    def _begin_run(self) -> None:
        self._read_handle()  # raises for a closed store

    def _commit_run(self) -> None:
        """Do nothing, because each operation is a commit, and flushes are due once a second."""

    def _end_run(self) -> None:
        """Do nothing."""

    def update(self, /, *mappings: Pairs[K, dict[str, Any]], **pairs: dict[str, Any]) -> None:
        """Update tasks with dicts, as ``dict.update()`` does, in one transaction. A missing task is added first.

        If a key or value is refused, nothing is changed. Iterables are read to their end before the transaction begins.

        Args:
            *mappings: Mappings (with ``iteritems()``, ``items()`` or ``keys()``) and iterables of pairs.
            **pairs: Keys that are names, and their dicts.

        Raises:
            InvalidKeyError: A key cannot be stored. Then nothing is changed.
            UnstorableValueError: A value is no dict, or cannot be stored. Then nothing is changed.

        Cost:
            O(m) time and memory for m pairs, and one commit.

        Example:
            >>> tracker = SharedProgressTracker(path)
            >>> tracker.update({"a": {"size": 1}}, [("a", {"kind": "x"})], b={})
            >>> tracker["a"]
            {'_done': False, '_aborted': False, '_tries': 0, 'size': 1, 'kind': 'x'}
        """
        super().update(*mappings, **pairs)

    @staticmethod
    def _update(handle: Any, sources: list[list[tuple[Any, Any]]]) -> None:
        for pairs in sources:
            merge_tasks(handle, pairs)

    # Adding tasks

    def _add_one(self, key: Any, if_absent: bool) -> None:
        self._perform(OPERATION, self._write_handle()._add_one, key, if_absent)

    def add_many(self, keys_iterable: Iterable[K]) -> None:
        """Add many tasks that are not done, not aborted and have no tries, or none if one of them exists.

        This is one transaction. The iterable is read to its end before it begins.

        Args:
            keys_iterable: The keys of the tasks.

        Raises:
            DuplicateKeyError: One of the tasks exists; then none is added.
            InvalidKeyError: One of the keys cannot be stored; then none is added.

        Cost:
            O(m) time and memory for m keys, and one commit.

        Example:
            >>> tracker = SharedProgressTracker(path)
            >>> tracker.add_many(range(3))
            >>> tracker.keys()
            [0, 1, 2]
        """
        handle = self._write_handle()
        self._perform(SAVEPOINT, handle._add_many, list(keys_iterable), False)

    def add_many_if_absent(self, keys_iterable: Iterable[K]) -> None:
        """Add many tasks as ``add_many()`` does, and skip those that exist.

        Args:
            keys_iterable: The keys of the tasks. It is read to its end before the transaction begins.

        Raises:
            InvalidKeyError: One of the keys cannot be stored; then none is added.

        Cost:
            O(m) time and memory for m keys, and one commit.

        Example:
            >>> tracker = SharedProgressTracker(path)
            >>> tracker.add_many_if_absent("abcabc")
            >>> tracker.keys()
            ['a', 'b', 'c']
        """
        handle = self._write_handle()
        self._perform(SAVEPOINT, handle._add_many, list(keys_iterable), True)

    # Finishing many

    def mark_done_many(self, keys_iterable: Iterable[K]) -> None:
        """Mark many tasks done in one transaction, or none if one of them does not exist. Their ``_error`` is removed.

        Args:
            keys_iterable: The keys of the tasks. It is read to its end first.

        Raises:
            KeyError: One of the tasks does not exist; then no task is marked.

        Cost:
            One lookup in the index for each key, during which other processes can write, and one commit.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {}, "b": {}})
            >>> tracker.mark_done_many(["a", "b"])
            >>> tracker.num_done()
            2
        """
        # Look the keys up before the transaction, because other processes wait for it.
        found = find_tasks(self._read_handle()._open_cache, list(keys_iterable))
        handle = self._write_handle()
        self._perform(SAVEPOINT, mark_done_many, handle._open_cache, *found)

    # Gates

    def _gate(self, key: object, allow_aborted: bool, add: bool, attempt: bool) -> bool:
        if attempt:
            return self._perform(OPERATION, self._try_one, self._write_handle(), key, allow_aborted, add)
        if add:
            return bool(self._perform(OPERATION, self._write_handle()._gate, key, allow_aborted, True, False))
        return bool(self._read_handle()._gate(key, allow_aborted, False, False))

    def should_try(self, key: K, allow_aborted: bool = False) -> bool:
        """Claim a task for this thread if it is to be done and no other worker has it, and count a try.

        The thread that has claimed a task may call this again, which counts another try.

        Args:
            key: The key of the task.
            allow_aborted: Whether an aborted task may be tried.

        Returns:
            True if the task was claimed.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> tracker = SharedProgressTracker(path, max_tries=1, init={"a": {}})
            >>> tracker.should_try("a"), tracker.should_try("a")
            (True, False)
        """
        return self._gate(key, allow_aborted, False, True)

    def should_try_add(self, key: K, allow_aborted: bool = False) -> bool:
        """Claim a task as ``should_try()`` does, and add it first if it does not exist.

        Args:
            key: The key of the task.
            allow_aborted: Whether an aborted task may be tried.

        Returns:
            True if the task was claimed.

        Raises:
            InvalidKeyError: The key cannot be stored.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> tracker = SharedProgressTracker(path)
            >>> tracker.should_try_add("a"), tracker.tries("a")
            (True, 1)
        """
        return self._gate(key, allow_aborted, True, True)

    def _try_one(self, handle: Any, key: Any, allow_aborted: bool, add: bool) -> bool:
        if add:
            handle._add_one(key, True)
        elif key not in handle:
            raise KeyError(key)
        return bool(self._store.open_worker().claim_one(encode_key(key), allow_aborted, self._max_tries))

    # Iterating over tasks, without claiming them

    def todo_keys(self, allow_aborted: bool = False) -> StoreIterator[K]:
        """Iterate over the keys of the tasks that are not done, not aborted and have tries left. Claims nothing.

        Keys come in the order in which they were added. The iterator is live: it also yields tasks that any process
        adds while it runs.

        Args:
            allow_aborted: Whether aborted tasks are yielded, too.

        Returns:
            An iterator.

        Cost:
            O(n) over 4 bytes for each task; blocks of some 500 finished tasks are skipped.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {"_done": True}, "b": {}, "c": {"_aborted": True}})
            >>> list(tracker.todo_keys()), list(tracker.todo_keys(allow_aborted=True))
            (['b'], ['b', 'c'])
        """
        return self._tasks(KEYS, allow_aborted)

    def todo_values(self, allow_aborted: bool = False) -> StoreIterator[dict[str, Any]]:
        """Iterate over the dicts of the tasks that ``todo_keys()`` yields. They are copies. Claims nothing.

        Args:
            allow_aborted: Whether aborted tasks are yielded, too.

        Returns:
            An iterator.

        Cost:
            That of ``todo_keys()``, and reading each value.

        Example:
            >>> list(SharedProgressTracker(path, init={"a": {"x": 1}}).todo_values())
            [{'_done': False, '_aborted': False, '_tries': 0, 'x': 1}]
        """
        return self._tasks(VALUES, allow_aborted)

    def todo_items(self, allow_aborted: bool = False) -> StoreIterator[tuple[K, dict[str, Any]]]:
        """Iterate over pairs of key and dict. The dicts are copies. Claims nothing.

        Args:
            allow_aborted: Whether aborted tasks are yielded, too.

        Returns:
            An iterator.

        Cost:
            That of ``todo_keys()``, and reading each value.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {}})
            >>> for key, task in tracker.todo_items():
            ...     tracker.set[key]["seen"] = task["_tries"]
            >>> tracker["a"]["seen"]
            0
        """
        return self._tasks(ITEMS, allow_aborted)

    # Iterating over tasks, each of which is claimed first

    def try_keys(self, allow_aborted: bool = False, *, batch: int = 1) -> ClaimIterator[K]:
        """Claim the tasks that are not done, not aborted and have tries left, and yield their keys.

        Tasks come in the order in which they were added. The iterator is live: it also yields tasks that are added
        while it runs. At its end it yields the tasks of dead workers. A claim is visible to all processes before its
        key is yielded.

        Args:
            allow_aborted: Whether aborted tasks are claimed, too.
            batch: The number of tasks that are claimed with one commit, for tasks that take microseconds. If the
                iterator ends or the worker dies, tasks that were not yielded are released, and their tries subtracted.

        Returns:
            An iterator. Its ``close()``, the end of the ``for`` loop or the garbage collector ends it.

        Raises:
            ValueError: ``batch`` is below 1.
            DiskFullError: The disk is full.
            PersistentOrderedDictException: More than 495 iterators run at once in this process.

        Cost:
            A commit for each batch, and O(c) at the first task, if this process has c claims.

        Example:
            >>> tracker = SharedProgressTracker(path, max_tries=2, init={"a": {}})
            >>> [list(tracker.try_keys()) for _ in range(3)]
            [['a'], ['a'], []]
        """
        return self._try(KEYS, allow_aborted, batch)

    def try_values(self, allow_aborted: bool = False, *, batch: int = 1) -> ClaimIterator[dict[str, Any]]:
        """Claim tasks as ``try_keys()`` does, and yield their dicts, which are copies.

        To change a task, use ``.set[key]``.

        Args:
            allow_aborted: Whether aborted tasks are claimed, too.
            batch: As for ``try_keys()``.

        Returns:
            An iterator, as ``try_keys()`` returns.

        Raises:
            ValueError: ``batch`` is below 1. The other errors are those of ``try_keys()``.

        Cost:
            That of ``try_keys()``, and reading each value.

        Example:
            >>> list(SharedProgressTracker(path, init={"a": {}}).try_values())
            [{'_done': False, '_aborted': False, '_tries': 1}]
        """
        return self._try(VALUES, allow_aborted, batch)

    def try_items(self, allow_aborted: bool = False, *, batch: int = 1) -> ClaimIterator[tuple[K, dict[str, Any]]]:
        """Claim tasks as ``try_keys()`` does, and yield pairs of key and dict. The dicts are copies.

        Args:
            allow_aborted: Whether aborted tasks are claimed, too.
            batch: As for ``try_keys()``.

        Returns:
            An iterator, as ``try_keys()`` returns.

        Raises:
            ValueError: ``batch`` is below 1. The other errors are those of ``try_keys()``.

        Cost:
            That of ``try_keys()``, and reading each value.

        Example:
            >>> list(SharedProgressTracker(path, init={"a": {}}).try_items(batch=10))
            [('a', {'_done': False, '_aborted': False, '_tries': 1})]
        """
        return self._try(ITEMS, allow_aborted, batch)

    def _try(self, kind: int, allow_aborted: bool, batch: int) -> ClaimIterator[Any]:
        self._read_handle()  # raises for a closed store
        return claim_iterator.ClaimIterator(
            self, self._store, kind, bool(allow_aborted), self._max_tries, at_least("batch", batch, 1)
        )

    # Primitives for the package pipeline

    def _open_queue(self, allow_aborted: bool, remote: bool = False) -> ClaimQueue:
        """Return a queue that claims the tasks that are to be done. See ClaimQueue."""
        return ClaimQueue(self, self._store, allow_aborted, self._max_tries, remote)

    def _open_running_slot(self) -> NoTaskSlot:
        """Return a slot that notes nothing, because the claim of a task says that it is running."""
        return NoTaskSlot()

    def _save_run(self, info: dict[str, Any]) -> None:
        """Keep the facts of a run in the store, for ``read_run()``."""
        self._perform(OPERATION, self._put_meta, RUN, pack_run(info))

    def _put_meta(self, name: bytes, raw: bytes) -> None:
        transaction = self._store.transaction
        transaction.snapshot.put(name, raw, db=transaction.meta)
        transaction.wrote = True

    def _put_limit(self, max_tries: int, waits: bool = False) -> bool:
        """Keep the limit of tries in the store, if it has another one.

        Unless it ``waits``, returns False if another thread or process is in a block.
        """
        if read_limit(self._store) == max_tries:
            return True
        if waits:
            self._perform(OPERATION, self._put_meta, LIMIT, pack_limit(max_tries))
            return True
        transaction = self._store.transaction
        # Do not wait, because that thread or process may wait for this one, which only opens the tracker.
        if not transaction.lock.try_acquire():
            return False
        transaction.is_patient = False
        try:
            self._perform(OPERATION, self._put_meta, LIMIT, pack_limit(max_tries))
        except StorageError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        finally:
            transaction.is_patient = True
            transaction.lock.release()
        return True

    # Claims

    def release(self, key: K) -> None:
        """Release the claim on a task, so that any worker may try it. Without a claim, this does nothing.

        Its try stays counted. If a batch has claimed the task and not yielded it, the try is subtracted, and the task
        is not yielded.

        Args:
            key: The key of the task.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One transaction. It is visible to every process when the call returns.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {}})
            >>> for key in tracker.try_keys():
            ...     tracker.release(key)
            >>> tracker.claimed_keys(), tracker.tries("a")
            ([], 1)
        """
        self._perform(OPERATION, self._release, self._write_handle(), key)

    def _release(self, handle: Any, key: Any) -> None:
        order = order_of(handle._open_cache, encode_key(key))
        if order < 0:
            raise KeyError(key)
        self._store.open_worker().release(order)

    def claimed_keys(self) -> list[K]:
        """Return the keys of all tasks that workers have claimed, in order.

        This includes unfinished tasks, which stay claimed for the worker's next iterator, and those that wait in a
        batch. ``claims()`` shows the state of each:
        ``[key for key, claim in tracker.claims().items() if claim.state == "running"]``.

        Returns:
            The keys.

        Cost:
            O(c) for c claims, and one test of the lock on each worker's file.

        Example:
            >>> tracker = SharedProgressTracker(path, init={"a": {}, "b": {}})
            >>> loop = tracker.try_keys()
            >>> next(loop), tracker.claimed_keys()
            ('a', ['a'])
        """
        return list(self.claims())

    def claims(self) -> dict[K, Claim]:
        """Return the claims of all workers, with their states: running, unfinished or waiting.

        Claims of dead workers are left out.

        Returns:
            A dict from the key to the claim, in the order of the tasks.

        Cost:
            O(c) for c claims, and one test of the lock on each worker's file.

        Example:
            >>> tracker = SharedProgressTracker(path)
            >>> tracker.add_many("abc")
            >>> loop = tracker.try_keys(batch=3)
            >>> next(loop), next(loop)
            ('a', 'b')
            >>> {key: claim.state for key, claim in tracker.claims().items()}
            {'a': 'unfinished', 'b': 'running', 'c': 'waiting'}
            >>> tracker.claims()["a"].process == os.getpid()
            True
        """
        reader = ClaimReader(self._store)
        with one_snapshot(self) as (store, txn):
            cache = self._read_handle()._open_cache
            return {key_at(cache, claim.seq): Claim(claim.process, claim.host, claim.since, claim.state)
                    for claim in reader.read(txn, store).active}


SharedTracker = SharedProgressTracker
