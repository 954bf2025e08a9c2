"""Count the tasks of a tracker by their status.

``statuses`` defines the words. No count of them is stored, because they depend on the limit of tries and on claims. So
tasks are counted from the status blocks. The header of a block shows whether it can contain open tasks that were tried.
Only the entries of these blocks are read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tastypy_fast._core.key_codec import encode_key, index_key
from tastypy_fast._core.status_block import (
    ABORTED,
    DONE,
    HEAD,
    MAX_TRIES,
    PRESENT,
    TASKS_PER_BLOCK,
    count_failed,
    failed_in,
    make_status,
    tries_in,
)
from tastypy_fast._inspect.claims import ClaimReader, Claims, one_snapshot
from tastypy_fast._inspect.statuses import STATUSES, StatusEntries, classify_entry
from tastypy_fast._inspect.store_info import limit_to_show
from tastypy_fast._shared.claims import key_at
from tastypy_fast.types import StatusCounts, TaskStatus

__all__ = ["CountedTasks", "ProgressCounts", "TaskCounter", "count_progress", "count_tasks"]

# How many blocks of 2 kB a TaskCounter keeps, to find the tasks that have failed since its previous count.
_KEPT_BLOCKS = 2048
# The flags that an open task does not have, except PRESENT.
_OPEN_MASK = PRESENT | DONE | ABORTED


class CountedTasks(NamedTuple):
    """The numbers of tasks, the claims and the limit of tries, all from one snapshot."""

    counts: StatusCounts
    claims: Claims
    max_tries: int


class ProgressCounts(NamedTuple):
    """The numbers of tasks, of done tasks, and of unfinished tasks that a loop will not yield again, by their status.

    Aborted tasks that the loop yields are not in ``aborted``.
    """

    tasks: int
    done: int
    failed: int = 0
    aborted: int = 0

    @property
    def finished(self) -> int:
        """The number of tasks that the loop will not yield again."""
        return self.done + self.failed + self.aborted


class _Tally:
    """The numbers of tasks by status: those in blocks, with corrections of single entries.

    With ``allow_aborted``, only the aborted tasks without a try left count as aborted, the others as to retry.
    """

    def __init__(self, max_tries: int, allow_aborted: bool = False) -> None:
        self._max_tries = max_tries
        # An entry holds no larger number of tries. 0 means never.
        self._min_tries = min(max_tries, MAX_TRIES + 1)
        self._allow_aborted = allow_aborted
        self.numbers: dict[TaskStatus, int] = dict.fromkeys(STATUSES, 0)

    def add_block(self, block: bytes) -> int:
        """Count the tasks of a block, and return how many of them were tried and are open."""
        present, done, _, tried, still_open, *_ = HEAD.unpack_from(block)
        was_tried = count_failed(block, 1, _OPEN_MASK) if still_open and tried else 0
        failed = count_failed(block, self._min_tries, _OPEN_MASK) if was_tried and self._min_tries else 0
        aborted = present - done - still_open
        if self._allow_aborted and aborted:
            final = count_failed(block, self._min_tries, PRESENT | DONE) - failed
            self.numbers["to retry"] += aborted - final
            aborted = final
        self.numbers["done"] += done
        self.numbers["aborted"] += aborted
        self.numbers["failed"] += failed
        self.numbers["to retry"] += was_tried - failed
        self.numbers["new"] += still_open - was_tried
        return was_tried

    def replace(self, before: int, after: int) -> None:
        """Count one task by another entry than that of its block. 0 stands for a task that does not exist."""
        for entry, change in ((before, -1), (after, 1)):
            status = self._status_of(entry)
            if status is not None:
                self.numbers[status] += change

    def set_running(self, entry: int) -> None:
        """Count a task as running. ``entry`` is the one by which it was counted."""
        status = self._status_of(entry)
        if status is not None and status != "done":
            self.numbers[status] -= 1
            self.numbers["running"] += 1

    def _status_of(self, entry: int) -> TaskStatus | None:
        status = classify_entry(entry, self._max_tries)
        if status == "aborted" and self._allow_aborted and not 0 < self._max_tries <= tries_in(entry):
            return "to retry"
        return status

    def result(self) -> StatusCounts:
        """Return the numbers."""
        return StatusCounts(*self.numbers.values())


def count_tasks(tracker: Any, max_tries: int | None = None, claims: ClaimReader | None = None,
                on_block: Callable[[int, bytes, int], None] | None = None) -> CountedTasks:
    """Count the tasks of a tracker, with the changes that are not on disk yet.

    ``max_tries`` is the limit of tries, 0 for no limit. None is the one that the tracker shows. ``claims`` is needed
    inside an operation only, see ``ClaimReader``. ``on_block(number, block, tried)`` is called for each status block,
    with the number of its open tasks that were tried.

    Cost: one walk over the status blocks, and one lookup for each unsynced key and each claim. The walk takes 3 to 20
    ms for a million tasks.
    """
    claims = claims or ClaimReader(tracker._store)
    with one_snapshot(tracker) as (store, txn):
        limit = limit_to_show(tracker, txn, store) if max_tries is None else max_tries
        tally = _Tally(limit)
        for raw_number, block in txn.cursor(store.status):
            tried = tally.add_block(block)
            if on_block is not None:
                on_block(int.from_bytes(raw_number, sys.byteorder), block, tried)
        entries = StatusEntries(txn, store)
        unsynced = _count_unsynced(tally, tracker, entries)
        found = claims.read(txn, store)
        for raw_key in found.tried_keys:
            tally.set_running(unsynced[raw_key] if raw_key in unsynced else entries.of(raw_key))
        for seq in sorted(found.running()):
            tally.set_running(entries.at(seq))
        for seq, tries in found.never_yielded.items():
            entry = entries.at(seq)
            if tries <= tries_in(entry):
                tally.replace(entry, _without_try(entry))
    return CountedTasks(tally.result(), found, limit)


def _count_unsynced(tally: _Tally, tracker: Any, entries: StatusEntries) -> dict[bytes, int]:
    """Correct a tally by the tasks of a private tracker that differ from the disk. Return their entries by key."""
    if not tracker._store.writable:
        return {}
    found = {}
    for key in tracker._open_cache.dirty_keys():
        raw_key = index_key(encode_key(key))
        found[raw_key] = entry = _entry_in_memory(tracker, key)
        tally.replace(entries.of(raw_key), entry)
    return found


def _entry_in_memory(tracker: Any, key: Any) -> int:
    try:
        return make_status(*tracker._status_of(key))
    except KeyError:  # deleted
        return 0


def _without_try(entry: int) -> int:
    return make_status(bool(entry & DONE), bool(entry & ABORTED), tries_in(entry) - 1)


# Counting for a loop of this process, which a progress bar shows


def count_progress(tracker: Any, allow_aborted: bool) -> ProgressCounts:
    """Count the tasks that a loop over a tracker has finished, by the limit of tries of this instance.

    A task that this thread could try again is not running, because this thread does not work on it while it counts.
    Cost: that of ``count_tasks()``, but O(1) while no task can be finished unless it is done.
    """
    claims = ClaimReader(tracker._store)
    limit = tracker.max_tries
    tally = _Tally(limit, allow_aborted)
    with one_snapshot(tracker) as (store, txn):
        tasks, done, aborted, tried = tracker._read_handle()._totals()
        if not ((aborted and not allow_aborted) or (limit and tried)):
            return ProgressCounts(tasks, done)
        for _, block in txn.cursor(store.status):
            tally.add_block(block)
        entries = StatusEntries(txn, store)
        _count_unsynced(tally, tracker, entries)
        worker = tracker._store.worker if tracker._store.options.shared else None
        for seq in sorted(claims.read(txn, store, worker and worker.is_free).running()):
            tally.set_running(entries.at(seq))
    counts = tally.result()
    return ProgressCounts(counts.tasks, counts.done, counts.failed, counts.aborted)


# Counting for other processes, which watch a store


class TaskCounter:
    """Count the tasks on disk of one tracker repeatedly, and find out which have failed a try since the last count.

    Cost of a count: it reads 16 bytes for every block of 500 tasks, and all 2 kB of a block with tried open tasks.
    """

    def __init__(self, max_tries: int | None = None) -> None:
        """``max_tries`` is the limit of tries, 0 for no limit. None is the one that the tracker shows."""
        self._max_tries = max_tries
        # The blocks with failed tries at the previous count.
        self._blocks: dict[int, bytes] = {}
        # The tasks that were running at the previous count: their tries have failed if they have ended since.
        self._running: dict[int, int] = {}
        # The tasks of which a try has failed since the previous count: sequence number to tries. Some of them may be
        # finished, see ``failed_task()``. After the first count, all tasks that are to retry or failed.
        self.newly_failed: dict[int, int] = {}

    def count(self, tracker: Any) -> CountedTasks:
        """Count the tasks. ``tracker`` is open to read, and may be another instance than at the last count."""
        blocks: dict[int, bytes] = {}
        newly_failed = self._running

        def compare(number: int, block: bytes, tried: int) -> None:
            if tried and len(blocks) < _KEPT_BLOCKS:
                before = self._blocks.get(number, b"")
                blocks[number] = block
                if block != before:
                    newly_failed.update(_new_in(number, block, before))

        found = count_tasks(tracker, self._max_tries, on_block=compare)
        self._blocks = blocks
        active = found.claims.running() | set(self._tried_seqs(tracker, found.claims))
        self._running = {seq: tries for seq, tries in newly_failed.items() if seq in active}
        self.newly_failed = {
            seq: tries for seq, tries in newly_failed.items()
            if seq not in active and not (tries == 1 == found.claims.never_yielded.get(seq))
        }
        return found

    @staticmethod
    def _tried_seqs(tracker: Any, claims: Claims) -> Iterator[int]:
        if claims.tried_keys:
            with one_snapshot(tracker) as (store, txn):
                for raw_key in claims.tried_keys:
                    seq = StatusEntries(txn, store).find(raw_key)
                    if seq is not None:
                        yield seq

    @staticmethod
    def failed_task(tracker: Any, seq: int) -> tuple[Any, dict[str, Any]] | None:
        """Return the key and the task with this sequence number; None if it has none or is no longer unfinished."""
        key = key_at(tracker._open_cache, seq)
        task = None if key is None else tracker.get(key)
        if task is None or task["_done"] or task["_aborted"] or task["_tries"] < 1:
            return None
        return key, task


def _new_in(number: int, block: bytes, before: bytes) -> dict[int, int]:
    """Return a dict of the tasks of a block with a failed try that ``before`` lacks: sequence number to tries."""
    known = failed_in(before, 1, _OPEN_MASK) if before else {}
    first = number * TASKS_PER_BLOCK
    return {first + slot: tries for slot, tries in failed_in(block, 1, _OPEN_MASK).items() if known.get(slot) != tries}
