"""``ProgressTracker``: a store of tasks that a killed program picks up again where it was."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from tastypy_fast._core.iterators import ITEMS, KEYS, VALUES, TaskIterator
from tastypy_fast._core.key_codec import describe
from tastypy_fast._core.status_block import ABORTED, CLAIMED, DONE
from tastypy_fast._core.task_cache import TaskCache
from tastypy_fast._inspect.outcomes import TaskCounts, count_tasks
from tastypy_fast._mixins.counting import CountingMixin
from tastypy_fast._mixins.display import TrackerDisplayMixin
from tastypy_fast._mixins.pairs import pairs_of
from tastypy_fast._store.options import at_least
from tastypy_fast._store.store import Store
from tastypy_fast.exceptions import UnstorableValueError
from tastypy_fast.pod import (
    DEFAULT_FILE_SIZE,
    DEFAULT_SYNC_AT,
    PersistentOrderedDict,
)
from tastypy_fast.types import Key, Pairs

__all__ = ["ProgressTracker", "Tracker"]


class ProgressTracker(TrackerDisplayMixin, PersistentOrderedDict, CountingMixin):  # type: ignore[misc]
    """A PersistentOrderedDict of tasks: which are done or aborted, how often each was tried, and their data.

    The value of a task is a dict with ``_done`` (bool), ``_aborted`` (bool), ``_tries`` (int) and whatever
    else is stored with it. Status that is set by a method and by keying is one and the same. ``max_tries`` is
    the number of tries after which gates and iterators leave a task alone; 0 is no limit. All other arguments
    and errors are those of PersistentOrderedDict.

    Costs: a status is 4 bytes beside the values, so that changing and counting it touches no value, and
    passing over a million tasks that need nothing is a look at 32 kB (at 4 MB where the process before was killed, or
    while a store is shared).

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
        mode: str = "w",
        durability: str = "normal",
    ) -> None:
        self._max_tries = at_least("max_tries", max_tries, 0)
        super().__init__(path, init, gzipped, file_size, sync_at, clone, mode=mode, durability=durability)

    @staticmethod
    def _make_cache(store: Store) -> TaskCache:
        return TaskCache(store)

    @property
    def max_tries(self) -> int:
        """How often a task is tried at most; 0 is no limit."""
        return self._max_tries

    def _outcome(self, allow_aborted: bool) -> TaskCounts:
        return count_tasks(self, self._max_tries, allow_aborted)

    def update(self, /, *mappings: Any, **pairs: Any) -> None:
        """Mix dicts into tasks, as ``dict.update()`` does; a task that is not there is added first.

        >>> tracker = ProgressTracker(path)
        >>> tracker.update({"a": {"size": 1}}, [("a", {"kind": "x"})], b={})
        >>> tracker["a"]
        {'_done': False, '_aborted': False, '_tries': 0, 'size': 1, 'kind': 'x'}
        """
        for mapping in (*mappings, pairs):
            for key, value in pairs_of(mapping):
                if not isinstance(value, dict):
                    raise UnstorableValueError(
                        f"update() of a tracker mixes dicts into tasks; key {describe(key)} comes with a "
                        f"{type(value).__name__}"
                    )
                self._merge(key, dict(value))

    # Adding tasks

    def add(self, key: Key) -> None:
        """Add a task that is not done, not aborted and has no tries. Raises DuplicateKeyError if it is there.

        >>> tracker = ProgressTracker(path)
        >>> tracker.add("a")
        >>> tracker["a"]
        {'_done': False, '_aborted': False, '_tries': 0}
        """
        self.add_many((key,))

    def add_if_absent(self, key: Key) -> None:
        """As ``add()``, but do nothing if the task is there.

        >>> tracker = ProgressTracker(path, init={"a": {"_done": True}})
        >>> tracker.add_if_absent("a")
        >>> tracker.done("a")
        True
        """
        self.add_many_if_absent((key,))

    def add_many(self, keys_iterable: Iterable[Key]) -> None:
        """Add every key of an iterable, which is read in chunks and never held whole.

        At a key that is there already it raises DuplicateKeyError; those before it are added then.
        Cost: one look into the index for each key.

        >>> tracker = ProgressTracker(path)
        >>> tracker.add_many(range(3))
        >>> tracker.keys()
        [0, 1, 2]
        """
        self._add_many(keys_iterable, False)

    def add_many_if_absent(self, keys_iterable: Iterable[Key]) -> None:
        """As ``add_many()``, but pass over keys that are there already.

        >>> tracker = ProgressTracker(path)
        >>> tracker.add_many_if_absent("abcabc")
        >>> tracker.keys()
        ['a', 'b', 'c']
        """
        self._add_many(keys_iterable, True)

    # Changing the status of tasks. Each raises KeyError for a missing key and costs a look into the index,
    # or nothing for the key that an iterator has just handed out. (mark_done() is among the compiled slots.)

    def mark_not_done(self, key: Key) -> None:
        """Mark a task not done. Raises KeyError when it is not there.

        >>> tracker = ProgressTracker(path, init={"a": {"_done": True}})
        >>> tracker.mark_not_done("a")
        >>> tracker.done("a")
        False
        """
        self._change(key, DONE | CLAIMED, 0, 0)

    def increment_tries(self, key: Key) -> None:
        """Add one to the tries of a task. Raises KeyError when it is not there.

        >>> tracker = ProgressTracker(path, init={"a": {}})
        >>> tracker.increment_tries("a")
        >>> tracker.tries("a")
        1
        """
        self._change(key, 0, 0, 1)

    def decrement_tries(self, key: Key) -> None:
        """Take one from the tries of a task, below zero too. Raises KeyError when it is not there.

        >>> tracker = ProgressTracker(path, init={"a": {"_tries": 3}})
        >>> tracker.decrement_tries("a")
        >>> tracker.tries("a")
        2
        """
        self._change(key, 0, 0, -1)

    def reset_tries(self, key: Key) -> None:
        """Set the tries of a task to zero. Raises KeyError when it is not there.

        >>> tracker = ProgressTracker(path, init={"a": {"_tries": 3}})
        >>> tracker.reset_tries("a")
        >>> tracker.tries("a")
        0
        """
        self._reset_tries(key)

    def abort(self, key: Key) -> None:
        """Mark a task aborted: gates and iterators leave it alone. Raises KeyError when it is not there.

        >>> tracker = ProgressTracker(path, init={"a": {}})
        >>> tracker.abort("a")
        >>> tracker.should_do("a"), tracker.should_do("a", allow_aborted=True)
        (False, True)
        """
        self._change(key, CLAIMED, ABORTED, 0)

    def unabort(self, key: Key) -> None:
        """Mark a task not aborted. Raises KeyError when it is not there.

        >>> tracker = ProgressTracker(path, init={"a": {"_aborted": True}})
        >>> tracker.unabort("a")
        >>> tracker.aborted("a")
        False
        """
        self._change(key, ABORTED, 0, 0)

    # Checking the status of tasks

    def done(self, key: Key) -> bool:
        """Whether a task is done; False, and no KeyError, when it is not there.

        >>> ProgressTracker(path).done("no such task")
        False
        """
        try:
            return self._status_of(key)[0]
        except KeyError:
            return False

    def aborted(self, key: Key) -> bool:
        """Whether a task is aborted. Raises KeyError when it is not there.

        >>> ProgressTracker(path, init={"a": {"_aborted": True}}).aborted("a")
        True
        """
        return self._status_of(key)[1]

    def tries(self, key: Key) -> int:
        """How often a task was tried. Raises KeyError when it is not there.

        >>> ProgressTracker(path, init={"a": {"_tries": 2}}).tries("a")
        2
        """
        return self._status_of(key)[2]

    # Gates

    def should_do(self, key: Key, allow_aborted: bool = False) -> bool:
        """Whether a task is not done, not aborted (unless ``allow_aborted``) and has tries left.

        Raises KeyError when it is not there.

        >>> ProgressTracker(path, max_tries=2, init={"a": {"_tries": 2}}).should_do("a")
        False
        """
        return self._gate(key, allow_aborted, False, False)

    def should_do_add(self, key: Key, allow_aborted: bool = False) -> bool:
        """As ``should_do()``, but a task that is not there is added.

        >>> ProgressTracker(path).should_do_add("a")
        True
        """
        return self._gate(key, allow_aborted, True, False)

    def should_try(self, key: Key, allow_aborted: bool = False) -> bool:
        """As ``should_do()``, but count a try where the answer is True.

        >>> tracker = ProgressTracker(path, max_tries=1, init={"a": {}})
        >>> tracker.should_try("a"), tracker.should_try("a")
        (True, False)
        """
        return self._gate(key, allow_aborted, False, True)

    def should_try_add(self, key: Key, allow_aborted: bool = False) -> bool:
        """As ``should_try()``, but a task that is not there is added.

        >>> tracker = ProgressTracker(path)
        >>> tracker.should_try_add("a"), tracker.tries("a")
        (True, 1)
        """
        return self._gate(key, allow_aborted, True, True)

    # Iterating. All of these are live, as iterkeys() is, and each task comes at most once in a loop.

    def _tasks(self, kind: int, allow_aborted: bool, attempt: bool) -> Iterator[Any]:
        unwanted = DONE if allow_aborted else DONE | ABORTED
        return TaskIterator(self, kind, 0, unwanted, True, attempt)

    def _aborted_tasks(self, kind: int) -> Iterator[Any]:
        return TaskIterator(self, kind, ABORTED, 0, False, False)

    def todo_keys(self, allow_aborted: bool = False) -> Iterator[Any]:
        """Iterate over the keys that are not done, not aborted (unless allowed) and have tries left.

        In the order in which they were added, and live: a loop comes to tasks that are added while it runs.

        >>> tracker = ProgressTracker(path, init={"a": {"_done": True}, "b": {}, "c": {"_aborted": True}})
        >>> list(tracker.todo_keys()), list(tracker.todo_keys(allow_aborted=True))
        (['b'], ['b', 'c'])
        """
        return self._tasks(KEYS, allow_aborted, attempt=False)

    def todo_values(self, allow_aborted: bool = False) -> Iterator[dict[str, Any]]:
        """As ``todo_keys()``, the tasks' dicts, watched as by keying: what is changed in one is saved as long as
        somebody holds it, in the latest 1,000 of them by every sync and in the others by ``sync()`` and ``close()``.

        >>> list(ProgressTracker(path, init={"a": {"x": 1}}).todo_values())
        [{'_done': False, '_aborted': False, '_tries': 0, 'x': 1}]
        """
        return self._tasks(VALUES, allow_aborted, attempt=False)

    def todo_items(self, allow_aborted: bool = False) -> Iterator[tuple[Any, dict[str, Any]]]:
        """As ``todo_keys()``, pairs of key and task, watched as by keying: see ``todo_values()``.

        >>> tracker = ProgressTracker(path, init={"a": {}})
        >>> for key, task in tracker.todo_items():
        ...     task["seen"] = True
        >>> tracker["a"]["seen"]
        True
        """
        return self._tasks(ITEMS, allow_aborted, attempt=False)

    def try_keys(self, allow_aborted: bool = False) -> Iterator[Any]:
        """As ``todo_keys()``, and count a try of each key before handing it out.

        >>> tracker = ProgressTracker(path, max_tries=2, init={"a": {}})
        >>> [list(tracker.try_keys()) for _ in range(3)]
        [['a'], ['a'], []]
        """
        return self._tasks(KEYS, allow_aborted, attempt=True)

    def try_values(self, allow_aborted: bool = False) -> Iterator[dict[str, Any]]:
        """As ``todo_values()``, and count a try of each task before handing it out.

        >>> list(ProgressTracker(path, init={"a": {}}).try_values())
        [{'_done': False, '_aborted': False, '_tries': 1}]
        """
        return self._tasks(VALUES, allow_aborted, attempt=True)

    def try_items(self, allow_aborted: bool = False) -> Iterator[tuple[Any, dict[str, Any]]]:
        """As ``todo_items()``, and count a try of each task before handing it out.

        >>> list(ProgressTracker(path, init={"a": {}}).try_items())
        [('a', {'_done': False, '_aborted': False, '_tries': 1})]
        """
        return self._tasks(ITEMS, allow_aborted, attempt=True)

    def aborted_keys(self) -> Iterator[Any]:
        """Iterate over the keys of the aborted tasks, done or not.

        >>> list(ProgressTracker(path, init={"a": {}, "b": {"_aborted": True}}).aborted_keys())
        ['b']
        """
        return self._aborted_tasks(KEYS)

    def aborted_values(self) -> Iterator[dict[str, Any]]:
        """Iterate over the dicts of the aborted tasks; watched as by keying.

        >>> list(ProgressTracker(path, init={"a": {}, "b": {"_aborted": True}}).aborted_values())
        [{'_done': False, '_aborted': True, '_tries': 0}]
        """
        return self._aborted_tasks(VALUES)

    def aborted_items(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Iterate over pairs of key and dict of the aborted tasks; watched as by keying.

        >>> list(ProgressTracker(path, init={"a": {}, "b": {"_aborted": True}}).aborted_items())
        [('b', {'_done': False, '_aborted': True, '_tries': 0})]
        """
        return self._aborted_tasks(ITEMS)


Tracker = ProgressTracker
