"""Commit what became of tasks: data, marks, errors and new tasks together.

Results are collected, and written in one operation. A private tracker keeps them in memory until its sync; a shared one
commits them. Commits come every COMMIT_SECONDS, because a flush costs 10 ms on an ordinary disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from tastypy_fast._core.finishing import FINISH_DONE
from tastypy_fast.exceptions import InvalidKeyError, PersistentOrderedDictIntegrityError
from tastypy_fast.pipeline.executor import Task

__all__ = ["COMMIT_SECONDS", "ResultRecorder"]

# The longest time between a result and its commit, in seconds.
COMMIT_SECONDS = 0.5
# The longest time without a commit while no result comes, in seconds. The automatic sync of a private tracker is
# suspended, and other threads may change it.
IDLE_SECONDS = 1.0
# More changes than these are committed sooner, because they are in memory: here, and then in the cache of a private
# tracker. A result is a change, and so is each task that it adds.
MAX_CHANGES = 5000
MAX_BYTES = 16 << 20


class ResultRecorder:
    """The results of one run that are not committed yet.

    ``on_saved(task, data)`` is called for each task whose result was written, and ``on_refused(task, error)`` for each
    whose result cannot be stored; this task is left as it was.
    """

    def __init__(self, tracker: Any, on_saved: Callable[[Task, dict[str, Any] | None], None],
                 on_refused: Callable[[Task, Exception], None]) -> None:
        self._tracker = tracker
        self._on_saved = on_saved
        self._on_refused = on_refused
        # (task, kind, dict or None, keys to add or None). The first are those that an earlier run could not write.
        self._entries: list[tuple[Task, int, dict[str, Any] | None, list[Any] | None]] = list(
            tracker._unwritten_results)
        tracker._unwritten_results = ()
        # The changes and the bytes since the last commit, written to the tracker or not.
        self._changes = self._size = 0
        self._committed_at = self._idle_since = time.monotonic()
        self._has_changes = False
        self.has_new_tasks = False
        # How often the results were written.
        self.flushes = 0

    def add(self, task: Task, kind: int, data: dict[str, Any] | None = None, new_keys: list[Any] | None = None,
            size: int = 0) -> None:
        """Note what became of a task: a kind of ``_core.finishing``. ``size`` is that of the data, in bytes."""
        self._entries.append((task, kind, data, new_keys))
        self._changes += 1
        self._size += size
        if new_keys:
            self._changes += len(new_keys)
            self.has_new_tasks = True

    def seconds_left(self) -> float:
        """Return the time until the next commit is due, in seconds; infinite if there is nothing to commit."""
        if not self._entries and not self._has_changes:
            return float("inf")
        if self._changes >= MAX_CHANGES or self._size >= MAX_BYTES:
            return 0.0
        return max(0.0, self._committed_at + COMMIT_SECONDS - time.monotonic())

    def commit_if_due(self) -> None:
        """Commit if the results are old or many enough, or if nothing was committed for a while."""
        left = self.seconds_left()
        if left <= 0:
            self.commit()
        elif left == float("inf"):
            self._committed_at = now = time.monotonic()
            if now - self._idle_since >= IDLE_SECONDS:
                self._idle_since = now
                self._tracker._commit_run()

    def flush(self) -> None:
        """Write the results to the tracker. If that fails, they stay here, and the error is raised.

        Very many changes are committed in batches. A transaction keeps all pages that it changes in memory, and LMDB
        keeps that memory for the next transaction.

        An error of a task that is not that of its result is raised, too, after all others are written: its record is
        damaged, or the program has put into its dict what cannot be stored.
        """
        entries = self._entries
        if not entries:
            return
        self._entries = []
        self.has_new_tasks = False
        self._has_changes = True
        faults: list[Exception] = []
        flushes = self.flushes
        try:
            for size in self._batch_sizes(entries):
                if self.flushes > flushes:
                    self._tracker._commit_run()
                batch = entries[:size]
                refused = self._write(batch)
                del entries[:size]
                # All batches are one flush, because no task is taken in between.
                self.flushes = flushes + 1
                self._report(batch, refused, faults)
        except BaseException:
            # In a private tracker some are perhaps written. Writing them again changes nothing and counts nothing.
            self._entries = entries + self._entries
            raise
        if faults:
            raise faults[0]

    def _batch_sizes(self, entries: list[Any]) -> list[int]:
        """Return the number of results in each batch. Batches have about as many changes."""
        # Only what is much more than the limit is divided, because a small commit costs as much time as a larger one.
        count = math.ceil(self._changes / (1.5 * MAX_CHANGES))
        if count <= 1:
            return [len(entries)]
        most = self._changes / count
        sizes = [0]
        changes = 0
        for _, _, _, keys in entries:
            if changes >= most:
                sizes.append(0)
                changes = 0
            sizes[-1] += 1
            changes += 1 + (len(keys) if keys else 0)
        return sizes

    def _write(self, entries: list[Any]) -> dict[int, Exception]:
        """Write results in one operation. Returns the errors of those that were refused, by index."""
        with self._tracker.locked():
            refused = self._add_tasks(entries)
            places = [index for index in range(len(entries)) if index not in refused] if refused else None
            changes = [(task.key, kind, data, task.tries) for task, kind, data, _ in (
                entries if places is None else [entries[index] for index in places])]
            for position, error in self._tracker._finish_many(changes):
                refused[position if places is None else places[position]] = error
        return refused

    def _report(self, entries: list[Any], refused: dict[int, Exception], faults: list[Exception]) -> None:
        """Report results that were written or refused. Appends the errors that end the run to ``faults``."""
        for index, error in refused.items():
            task, kind, *_ = entries[index]
            if kind == FINISH_DONE and not isinstance(error, PersistentOrderedDictIntegrityError):
                self._on_refused(task, error)
            else:
                faults.append(error)
        # At the end, because a function of the user may raise.
        for index, (task, kind, data, _) in enumerate(entries):
            if kind == FINISH_DONE and index not in refused:
                self._on_saved(task, data)

    def _add_tasks(self, entries: list[Any]) -> dict[int, Exception]:
        """Add the new tasks of all results. Returns the errors of keys that cannot be stored, by index."""
        wanted = [(index, keys) for index, (_, _, _, keys) in enumerate(entries) if keys]
        if not wanted:
            return {}
        try:
            self._tracker.add_many_if_absent([key for _, keys in wanted for key in keys])
            return {}
        except InvalidKeyError:
            refused: dict[int, Exception] = {}
            for index, keys in wanted:
                try:
                    self._tracker.add_many_if_absent(keys)
                except InvalidKeyError as error:
                    refused[index] = error
            return refused

    def leave_to_next_run(self) -> None:
        """Keep what could not be written in the tracker, for its next run: the disk may have space again."""
        self._tracker._unwritten_results = self._entries
        self._entries = []

    def commit(self) -> None:
        """Write the results, and put them on disk as the tracker's durability says."""
        self.flush()
        if self._has_changes:
            self._tracker._commit_run()
            self._has_changes = False
        self._changes = self._size = 0
        self._committed_at = self._idle_since = time.monotonic()
