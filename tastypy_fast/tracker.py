"""Define ``ProgressTracker``, a store of tasks that a killed program resumes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, ClassVar

from tastypy_fast._core.handles import TrackerHandle
from tastypy_fast._core.iterators import ITEMS, KEYS, VALUES
from tastypy_fast._core.task_cache import TaskCache
from tastypy_fast._inspect.store_info import LIMIT, RUN, pack_limit, pack_run, read_limit
from tastypy_fast._mixins.counting import CountingMixin
from tastypy_fast._mixins.display import TrackerDisplayMixin
from tastypy_fast._mixins.mapping import merge_tasks
from tastypy_fast._mixins.pairs import pairs_of
from tastypy_fast._mixins.run import RunMixin
from tastypy_fast._mixins.task_status import TaskStatusMixin
from tastypy_fast._store.options import at_least
from tastypy_fast._store.store import Store
from tastypy_fast._type_parameters import K
from tastypy_fast.exceptions import RunInProgressError
from tastypy_fast.pod import DEFAULT_FILE_SIZE, DEFAULT_SYNC_AT, DEFAULT_SYNC_EVERY, PersistentOrderedDict
from tastypy_fast.types import ClaimIterator, Durability, Mode, Pairs, StoreIterator

__all__ = ["ProgressTracker", "Tracker"]


class ProgressTracker(  # type: ignore[misc]  # keys() and its like return lists
    TrackerDisplayMixin[K],
    PersistentOrderedDict[K, dict[str, Any]],
    TaskStatusMixin[K],
    CountingMixin,
    RunMixin[K],
    TrackerHandle[K],
):
    """A PersistentOrderedDict of tasks, with the status, the number of tries and the data of each task.

    The value of a task is a dict with ``_done`` (bool), ``_aborted`` (bool), ``_tries`` (int) and the task's own data.
    A status can be set by a method or in the dict that ``tracker[key]`` returned. Both take effect at once. The type
    parameter is the type of the keys: ``ProgressTracker[str](path)``.

    Args:
        path: The folder of the store, as for PersistentOrderedDict.
        max_tries: The number of tries after which gates and iterators skip a task. 0 means no limit. A limit is kept
            with the tracker, see ``kept_max_tries``.
        init: Tasks, which are added or updated as by ``update(init)``.
        gzipped: As for PersistentOrderedDict.
        file_size: As for PersistentOrderedDict.
        sync_at: As for PersistentOrderedDict.
        clone: As for PersistentOrderedDict.
        mode: As for PersistentOrderedDict.
        durability: As for PersistentOrderedDict.
        sync_every: As for PersistentOrderedDict.

    Raises:
        StoreKindError: The store is a plain PersistentOrderedDict.
        StoreInUseError: Another process has the store open for writing. The other errors are those of
            PersistentOrderedDict.

    Cost:
        A status has 4 bytes, which are stored apart from the values. Changing and counting it reads no value. Skipping
        a million finished tasks reads 32 kB. It reads 4 MB if the previous process was killed or the store is shared.

    Example:
        >>> tracker = ProgressTracker(path, max_tries=3)
        >>> tracker.add_many_if_absent(["a", "b"])
        >>> for key in tracker.try_keys():
        ...     tracker[key]["result"] = key.upper()
        ...     tracker.mark_done(key)
        >>> tracker["a"]
        {'_done': True, '_aborted': False, '_tries': 1, 'result': 'A'}
        >>> tracker.percent_done()
        '100.00 %'
    """

    _kind: ClassVar[bytes] = b"tracker"

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_tries: int = 0,
        init: Pairs = {},
        gzipped: bool = False,
        file_size: int = DEFAULT_FILE_SIZE,
        sync_at: int = DEFAULT_SYNC_AT,
        clone: bool = True,
        *,
        mode: Mode = "w",
        durability: Durability = "normal",
        sync_every: float | None = DEFAULT_SYNC_EVERY,
    ) -> None:
        self._max_tries = at_least("max_tries", max_tries, 0)
        super().__init__(path, init, gzipped, file_size, sync_at, clone, mode=mode, durability=durability,
                         sync_every=sync_every)
        self._keep_limit()

    @staticmethod
    def _make_cache(store: Store) -> TaskCache:
        return TaskCache(store)

    def _read_handle(self) -> Any:
        """Return what reads this tracker: itself. A shared tracker has a handle for that."""
        return self

    def _put_limit(self, max_tries: int) -> bool:
        """Keep the limit of tries in the store, if it has another one.

        Returns False if another thread is in an operation or a block.
        """
        # Do not wait, because that thread may wait for this one, which only opens the tracker.
        if not self._store.lock.try_acquire():
            return False
        try:
            if read_limit(self._store) != max_tries:
                self._store.write(lambda txn: txn.put(LIMIT, pack_limit(max_tries), db=self._store.meta))
        finally:
            self._store.lock.release()
        return True

    # What run() needs

    def _begin_run(self) -> None:
        """Suspend the automatic sync, because a run commits by itself. Only one thread may run a private tracker."""
        if not self._open_cache.writable:
            raise self._store.refuse_write()
        # What was changed before must not wait for the first result, which may come in an hour.
        self.sync()
        if not self._store.run_lock.acquire(blocking=False):
            raise RunInProgressError(f"run() is in progress on the tracker at {self.path}; wait for its end, or use a "
                                     f"SharedTracker for several runs at once")
        self._was_held = self._is_held
        self.hold()

    def _commit_run(self) -> None:
        """Put the results of a run on disk."""
        self.sync()

    def _end_run(self) -> None:
        try:
            if not self._was_held and not self.closed:
                self.unhold()
        finally:
            self._store.run_lock.release()

    def _save_run(self, info: dict[str, Any]) -> None:
        """Keep the facts of a run in the store, for ``read_run()``."""
        raw = pack_run(info)
        if not self._open_cache.writable:
            raise self._store.refuse_write()
        with self._one_step:
            self._store.write(lambda txn: txn.put(RUN, raw, db=self._store.meta))

    def update(self, /, *mappings: Pairs[K, dict[str, Any]], **pairs: dict[str, Any]) -> None:
        """Update tasks with dicts, as ``dict.update()`` does. A missing task is added first.

        Tasks are changed one by one. If a change is refused, the changes before it stay.

        Args:
            *mappings: Mappings (with ``iteritems()``, ``items()`` or ``keys()``) and iterables of pairs.
            **pairs: Keys that are names, and their dicts.

        Raises:
            InvalidKeyError: A key cannot be stored.
            UnstorableValueError: A value is no dict, or cannot be stored.

        Cost:
            O(m) for m pairs: one read and one assignment for each. The next sync writes them.

        Example:
            >>> tracker = ProgressTracker(path)
            >>> tracker.update({"a": {"size": 1}}, [("a", {"kind": "x"})], b={})
            >>> tracker["a"]
            {'_done': False, '_aborted': False, '_tries': 0, 'size': 1, 'kind': 'x'}
        """
        for source in (*mappings, pairs):
            merge_tasks(self, pairs_of(source))

    # Adding tasks

    def add_many(self, keys_iterable: Iterable[K]) -> None:
        """Add many tasks that are not done, not aborted and have no tries.

        The iterable is read in chunks and never held whole. If a key is refused, the tasks before it stay added.

        Args:
            keys_iterable: The keys of the tasks.

        Raises:
            DuplicateKeyError: One of the tasks exists.
            InvalidKeyError: One of the keys cannot be stored.

        Cost:
            O(m) for m keys: one lookup in the index for each. The next sync writes them.

        Example:
            >>> tracker = ProgressTracker(path)
            >>> tracker.add_many(range(3))
            >>> tracker.keys()
            [0, 1, 2]
        """
        self._add_many(keys_iterable, False)

    def add_many_if_absent(self, keys_iterable: Iterable[K]) -> None:
        """Add many tasks as ``add_many()`` does, and skip those that exist.

        Args:
            keys_iterable: The keys of the tasks.

        Raises:
            InvalidKeyError: One of the keys cannot be stored.

        Cost:
            O(m) for m keys: one lookup in the index for each. The next sync writes them.

        Example:
            >>> tracker = ProgressTracker(path)
            >>> tracker.add_many_if_absent("abcabc")
            >>> tracker.keys()
            ['a', 'b', 'c']
        """
        self._add_many(keys_iterable, True)

    # Gates that count a try

    def should_try(self, key: K, allow_aborted: bool = False) -> bool:
        """Return the result of ``should_do()``, and count a try if it is True.

        Args:
            key: The key of the task.
            allow_aborted: Whether an aborted task may be tried.

        Returns:
            True if the task is to be done.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One lookup in the index; no value is read.

        Example:
            >>> tracker = ProgressTracker(path, max_tries=1, init={"a": {}})
            >>> tracker.should_try("a"), tracker.should_try("a")
            (True, False)
        """
        return self._gate(key, allow_aborted, False, True)

    def should_try_add(self, key: K, allow_aborted: bool = False) -> bool:
        """Return the result of ``should_try()``, and add the task first if it does not exist.

        Args:
            key: The key of the task.
            allow_aborted: Whether an aborted task may be tried.

        Returns:
            True if the task is to be done.

        Raises:
            InvalidKeyError: The key cannot be stored.

        Cost:
            As for ``should_try()``, or for ``add()``.

        Example:
            >>> tracker = ProgressTracker(path)
            >>> tracker.should_try_add("a"), tracker.tries("a")
            (True, 1)
        """
        return self._gate(key, allow_aborted, True, True)

    # Iterating. All of these iterators are live, as iterkeys(), and yield each task at most once.

    def todo_keys(self, allow_aborted: bool = False) -> StoreIterator[K]:
        """Iterate over the keys of the tasks that are not done, not aborted and have tries left.

        Keys come in the order in which they were added. The iterator is live: it also yields tasks that are added while
        it runs.

        Args:
            allow_aborted: Whether aborted tasks are yielded, too.

        Returns:
            An iterator.

        Cost:
            O(n) over 4 bytes for each task; blocks of some 500 finished tasks are skipped.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_done": True}, "b": {}, "c": {"_aborted": True}})
            >>> list(tracker.todo_keys()), list(tracker.todo_keys(allow_aborted=True))
            (['b'], ['b', 'c'])
        """
        return self._tasks(KEYS, allow_aborted, False)

    def todo_values(self, allow_aborted: bool = False) -> StoreIterator[dict[str, Any]]:
        """Iterate over the dicts of the tasks that ``todo_keys()`` yields. They are watched, as with ``tracker[key]``.

        A change in a dict is saved while the program holds the dict. Every sync saves changes in the latest 1,000
        dicts. ``sync()`` and ``close()`` save the others.

        Args:
            allow_aborted: Whether aborted tasks are yielded, too.

        Returns:
            An iterator.

        Cost:
            That of ``todo_keys()``, and reading each value.

        Example:
            >>> list(ProgressTracker(path, init={"a": {"x": 1}}).todo_values())
            [{'_done': False, '_aborted': False, '_tries': 0, 'x': 1}]
        """
        return self._tasks(VALUES, allow_aborted, False)

    def todo_items(self, allow_aborted: bool = False) -> StoreIterator[tuple[K, dict[str, Any]]]:
        """Iterate over pairs of key and dict. The dicts are watched, as in ``todo_values()``.

        Args:
            allow_aborted: Whether aborted tasks are yielded, too.

        Returns:
            An iterator.

        Cost:
            That of ``todo_keys()``, and reading each value.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {}})
            >>> for key, task in tracker.todo_items():
            ...     task["seen"] = True
            >>> tracker["a"]["seen"]
            True
        """
        return self._tasks(ITEMS, allow_aborted, False)

    def try_keys(self, allow_aborted: bool = False, *, batch: int = 1) -> ClaimIterator[K]:
        """Iterate as ``todo_keys()`` does, and count a try of each task before its key is yielded.

        Args:
            allow_aborted: Whether aborted tasks are yielded, too.
            batch: Accepted for code that runs with private and shared trackers. It has no effect here.

        Returns:
            An iterator.

        Raises:
            ValueError: ``batch`` is below 1.

        Cost:
            That of ``todo_keys()``. The next sync writes the tries.

        Example:
            >>> tracker = ProgressTracker(path, max_tries=2, init={"a": {}})
            >>> [list(tracker.try_keys()) for _ in range(3)]
            [['a'], ['a'], []]
        """
        at_least("batch", batch, 1)
        return self._tasks(KEYS, allow_aborted, True)

    def try_values(self, allow_aborted: bool = False, *, batch: int = 1) -> ClaimIterator[dict[str, Any]]:
        """Iterate as ``todo_values()`` does, and count a try of each task before its dict is yielded.

        Args:
            allow_aborted: Whether aborted tasks are yielded, too.
            batch: As for ``try_keys()``.

        Returns:
            An iterator.

        Raises:
            ValueError: ``batch`` is below 1.

        Cost:
            That of ``try_keys()``, and reading each value.

        Example:
            >>> list(ProgressTracker(path, init={"a": {}}).try_values())
            [{'_done': False, '_aborted': False, '_tries': 1}]
        """
        at_least("batch", batch, 1)
        return self._tasks(VALUES, allow_aborted, True)

    def try_items(self, allow_aborted: bool = False, *, batch: int = 1) -> ClaimIterator[tuple[K, dict[str, Any]]]:
        """Iterate as ``todo_items()`` does, and count a try of each task before it is yielded.

        Args:
            allow_aborted: Whether aborted tasks are yielded, too.
            batch: As for ``try_keys()``.

        Returns:
            An iterator.

        Raises:
            ValueError: ``batch`` is below 1.

        Cost:
            That of ``try_keys()``, and reading each value.

        Example:
            >>> list(ProgressTracker(path, init={"a": {}}).try_items())
            [('a', {'_done': False, '_aborted': False, '_tries': 1})]
        """
        at_least("batch", batch, 1)
        return self._tasks(ITEMS, allow_aborted, True)


Tracker = ProgressTracker
