"""Add tasks, return the status of one, decide whether it is to be done, and iterate over the aborted ones.

The statuses themselves are in ``_core.status_table``. What counts as failed is in ``_inspect.task_counts``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic

from tastypy_fast._core.iterators import ITEMS, KEYS, VALUES
from tastypy_fast._core.key_codec import describe
from tastypy_fast._inspect.claims import one_snapshot
from tastypy_fast._inspect.statuses import StatusReader
from tastypy_fast._inspect.store_info import limit_in
from tastypy_fast._type_parameters import K
from tastypy_fast.exceptions import StorageError
from tastypy_fast.pipeline.worker import describe_error
from tastypy_fast.types import StoreIterator, TaskStatus

__all__ = ["TaskStatusMixin"]

# How often, and after how many seconds, a process that opens a tracker tries again to keep its limit of tries.
KEEP_ATTEMPTS, KEEP_PAUSE_S = 10, 0.002


class TaskStatusMixin(Generic[K]):
    """The methods of a tracker for one task. ``mark_done()`` and similar methods are in the compiled handles.

    A handle has ``_status_of(key)``, which returns (done, aborted, tries), and ``_add_one(key, if_absent)``. It also
    has ``_gate(key, allow_aborted, add, attempt)``, in which ``attempt`` counts a try. In a shared tracker it also
    claims the task. ``_aborted_tasks(kind)`` returns an iterator. ``_put_limit(max_tries)`` keeps a limit in the store.
    """

    _max_tries: int
    _put_limit: Callable[[int], bool]
    _status_of: Callable[[object], tuple[bool, bool, int]]
    _add_one: Callable[[Any, bool], None]
    _gate: Callable[[object, bool, bool, bool], bool]
    _record_error: Callable[[object, dict[str, Any]], None]
    _aborted_tasks: Callable[[int], StoreIterator[Any]]

    @property
    def max_tries(self) -> int:
        """The number of tries after which gates and iterators of this instance skip a task. 0 means no limit."""
        return self._max_tries

    @property
    def kept_max_tries(self) -> int:
        """The limit of tries that is kept with the tracker, or 0. Each process that opens it with one to write sets it.

        It is for display: the command, and an instance with ``mode="r"`` and no limit of its own, show statuses by it.
        Gates, iterators and ``run()`` use ``max_tries``. ``tastypy-fast set-max-tries`` changes or clears it.

        Cost:
            One lookup.

        Example:
            >>> ProgressTracker(path, max_tries=3).close()
            >>> tracker = ProgressTracker(path)
            >>> tracker.max_tries, tracker.kept_max_tries
            (0, 3)
        """
        tracker: Any = self
        with one_snapshot(tracker) as (store, txn):
            return limit_in(txn, store)

    def _keep_limit(self) -> None:
        """Keep the limit of this instance with the tracker, if it writes and has another one."""
        tracker: Any = self
        if tracker.mode == "r" or not self._max_tries or tracker._store.forked_from:
            return
        # It is for display only, so a full disk or a block of another process does not prevent opening.
        with suppress(StorageError):
            for _ in range(KEEP_ATTEMPTS):
                if self._put_limit(self._max_tries):
                    return
                time.sleep(KEEP_PAUSE_S)

    # Adding one task

    def add(self, key: K) -> None:
        """Add a task that is not done, not aborted and has no tries.

        Args:
            key: The key of the task.

        Raises:
            DuplicateKeyError: The task exists.
            InvalidKeyError: The key cannot be stored.

        Cost:
            One lookup in the index.

        Example:
            >>> tracker = ProgressTracker(path)
            >>> tracker.add("a")
            >>> tracker["a"]
            {'_done': False, '_aborted': False, '_tries': 0}
        """
        self._add_one(key, False)

    def add_if_absent(self, key: K) -> None:
        """Add a task as ``add()`` does, or do nothing if it exists.

        Args:
            key: The key of the task.

        Raises:
            InvalidKeyError: The key cannot be stored.

        Cost:
            One lookup in the index.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_done": True}})
            >>> tracker.add_if_absent("a")
            >>> tracker.done("a")
            True
        """
        self._add_one(key, True)

    # Its status

    def done(self, key: K) -> bool:
        """Return whether a task is done.

        Args:
            key: The key of the task.

        Returns:
            True if it is done. False, without a KeyError, if it does not exist.

        Cost:
            One lookup in the index; no value is read.

        Example:
            >>> ProgressTracker(path).done("no such task")
            False
        """
        try:
            return self._status_of(key)[0]
        except KeyError:
            return False

    def aborted(self, key: K) -> bool:
        """Return whether a task is aborted.

        Args:
            key: The key of the task.

        Returns:
            True if it is aborted.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One lookup in the index; no value is read.

        Example:
            >>> ProgressTracker(path, init={"a": {"_aborted": True}}).aborted("a")
            True
        """
        return self._status_of(key)[1]

    def tries(self, key: K) -> int:
        """Return how often a task was tried.

        Args:
            key: The key of the task.

        Returns:
            The number of tries.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One lookup in the index; no value is read.

        Example:
            >>> ProgressTracker(path, init={"a": {"_tries": 2}}).tries("a")
            2
        """
        return self._status_of(key)[2]

    def status(self, key: K) -> TaskStatus:
        """Return the status of a task in one word: new, running, to retry, failed, aborted or done.

        ``types.TaskStatus`` defines the words. A task has failed if it has no tries left. Without a limit of tries, a
        failed try leaves it "to retry". An instance with ``mode="r"`` and without a limit uses ``kept_max_tries``.

        Args:
            key: The key of the task.

        Returns:
            One of the six words.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One lookup in the index, and O(c) for c claims.

        Example:
            >>> tracker = ProgressTracker(path, max_tries=2, init={"a": {}, "b": {"_tries": 2}})
            >>> for key in tracker.try_keys():
            ...     print(key, tracker.status(key))
            a running
            >>> tracker.status("a"), tracker.status("b")
            ('to retry', 'failed')
        """
        (state,) = StatusReader(self).read([key])
        if state is None:
            raise KeyError(key)
        return state.status

    # Its error

    def record_error(self, key: K, error: BaseException | str) -> None:
        """Keep the error of a failed try with a task, as the field ``_error`` of its dict.

        It replaces an earlier error. It counts no try, and changes neither the status nor the claim. Marking the task
        done removes it. Of long texts the beginning and the end are kept: 2,000 characters of the message, and 8,000 of
        the traceback.

        Args:
            key: The key of the task.
            error: An exception, of which type, message and traceback are kept, or a message.

        Raises:
            KeyError: The task does not exist.
            TypeError: ``error`` is neither an exception nor a str.

        Cost:
            That of ``tracker.update({key: ...})``: reading and writing the task's data. On a private tracker the error
            is on disk after the next sync. On a shared one this is one transaction.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"size": 3}})
            >>> for key in tracker.try_keys():
            ...     try:
            ...         int("x")
            ...     except ValueError as error:
            ...         tracker.record_error(key, error)
            >>> list(tracker["a"])
            ['_done', '_aborted', '_tries', 'size', '_error']
            >>> tracker["a"]["_error"]["type"], tracker["a"]["_error"]["try"]
            ('ValueError', 1)
            >>> tracker.mark_done("a")
            >>> "_error" in tracker["a"]
            False
        """
        if not isinstance(error, (BaseException, str)):
            raise TypeError(f"an error must be an exception or a str, not {describe(error)}")
        self._record_error(key, describe_error(error))

    # Gates

    def should_do(self, key: K, allow_aborted: bool = False) -> bool:
        """Return whether a task is not done, not aborted and has tries left.

        Args:
            key: The key of the task.
            allow_aborted: Whether an aborted task may be done.

        Returns:
            True if the task is to be done.

        Raises:
            KeyError: The task does not exist.

        Cost:
            One lookup in the index; no value is read.

        Example:
            >>> ProgressTracker(path, max_tries=2, init={"a": {"_tries": 2}}).should_do("a")
            False
        """
        return self._gate(key, allow_aborted, False, False)

    def should_do_add(self, key: K, allow_aborted: bool = False) -> bool:
        """Return what ``should_do()`` returns, and add the task first if it does not exist.

        Args:
            key: The key of the task.
            allow_aborted: Whether an aborted task may be done.

        Returns:
            True if the task is to be done.

        Raises:
            InvalidKeyError: The key cannot be stored.

        Cost:
            As for ``should_do()``, or for ``add()``.

        Example:
            >>> ProgressTracker(path).should_do_add("a")
            True
        """
        return self._gate(key, allow_aborted, True, False)

    # Iterating over the aborted tasks

    def aborted_keys(self) -> StoreIterator[K]:
        """Iterate over the keys of the aborted tasks, done or not; live, as ``iterkeys()`` is.

        Returns:
            An iterator.

        Cost:
            O(n) over 4 bytes for each task; blocks without an aborted task are skipped.

        Example:
            >>> list(ProgressTracker(path, init={"a": {}, "b": {"_aborted": True}}).aborted_keys())
            ['b']
        """
        return self._aborted_tasks(KEYS)

    def aborted_values(self) -> StoreIterator[dict[str, Any]]:
        """Iterate over the dicts of the aborted tasks.

        Changes in them are saved or not as with ``todo_values()``.

        Returns:
            An iterator.

        Cost:
            That of ``aborted_keys()``, and reading each value.

        Example:
            >>> list(ProgressTracker(path, init={"a": {}, "b": {"_aborted": True}}).aborted_values())
            [{'_done': False, '_aborted': True, '_tries': 0}]
        """
        return self._aborted_tasks(VALUES)

    def aborted_items(self) -> StoreIterator[tuple[K, dict[str, Any]]]:
        """Iterate over pairs of key and dict of the aborted tasks. The dicts are as in ``aborted_values()``.

        Returns:
            An iterator.

        Cost:
            That of ``aborted_keys()``, and reading each value.

        Example:
            >>> list(ProgressTracker(path, init={"a": {}, "b": {"_aborted": True}}).aborted_items())
            [('b', {'_done': False, '_aborted': True, '_tries': 0})]
        """
        return self._aborted_tasks(ITEMS)
