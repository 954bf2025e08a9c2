"""This process as a worker on a shared store: its claims on the tasks of a tracker.

A claim belongs to the process. Inside of it a task is in the hand of the iterator that handed it out, which is
told by the claim's lane, or, for a gate, of the thread that asked (see _claimrecord).
What an iterator that has ended leaves unfinished is for the next one of its thread. When the thread ends, it is for all
threads of this process.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from tastypy_fast._core.claim_record import ClaimRecord, pack_claim, read_claim
from tastypy_fast._core.status_writer import give_back
from tastypy_fast._core.store_base import lives, this_thread
from tastypy_fast._core.worker_slots import LEFT
from tastypy_fast._shared.claims import claim_one
from tastypy_fast._shared.hold import drop_holder
from tastypy_fast._shared.write_transaction import OPERATION
from tastypy_fast._store.worker_files import WorkerFile, facts_of_workers, lost_claims

if TYPE_CHECKING:
    from tastypy_fast._shared.store import SharedStore

__all__ = ["Worker", "claimant_of"]


class Lane(NamedTuple):
    """The lane of a running iterator."""

    number: int
    # The first place in it that is this iterator's.
    start: int
    thread: int


def worker_of(store: SharedStore) -> Worker:
    """This process as a worker; the caller is in a transaction."""
    if store.worker is None:
        store.save_at_exit()
        store.worker = Worker(store)
    return store.worker


class Worker:
    """The claims of this process on one store. Its methods are called inside of a transaction."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._transaction = store.transaction
        self._running: dict[int, Lane] = {}
        # Of each lane, which places iterators that have ended left to which thread: (end, thread), ascending.
        self._left: dict[int, list[tuple[int, int]]] = {}
        # Goes up when an iterator ends, which may leave something for the others.
        self.ended = 0
        # When this worker last looked for others that have died.
        self.looked = 0.0
        # The file of a dead worker whose claims are still there tells which were handed out: it is not taken over.
        snapshot, claims = self._transaction.snapshot, self._transaction.claims
        self._worker = WorkerFile(store.path, {read_claim(raw).worker for _, raw in snapshot.cursor(claims)})
        self.number = self._worker.number
        self._lanes = self._worker.lanes
        self._transaction.worker_number, self._transaction.lanes = self.number, self._lanes
        self.look_for_lost()

    def end(self) -> None:
        """Give back all that is not finished, and end its hold. What claims after this is another worker."""
        self._transaction.perform(OPERATION, self._give_back_own)
        self._store.worker = None
        self._transaction.lanes = None
        self._worker.end()

    def leave_to_parent(self) -> None:
        """In a forked child: all of it is the parent's."""
        self._transaction.lanes = None
        self._worker.leave_to_parent()

    # Lanes

    def open_lane(self) -> Lane:
        """A lane for an iterator of this thread."""
        number = self._worker.open_lane()
        lane = self._running[number] = Lane(number, self._lanes.begin(number), this_thread())
        return lane

    def close_lane(self, lane: Lane, waiting: Iterable[tuple[int, int]], own: set[int]) -> None:
        """An iterator has ended; ``waiting``, order numbers and places, was claimed and never handed out. What is in
        ``own`` was the worker's before, and stays so: its thread's."""
        if self._running.pop(lane.number, None) is None:
            return  # an interrupt came into the middle of this, and it is the second time
        lost: dict[int, int | None] = {}
        kept = {}
        for order, place in waiting:
            record = self._record(order)
            if record is not None and record[:3] == (self.number, lane.number, place):
                lost[order] = record.tries
                if order in own:
                    kept[order] = pack_claim(record._replace(lane=LEFT, place=lane.thread))
        self._give_back(lost, kept)
        self._lanes.end(lane.number)
        left: list[tuple[int, int]] = []
        for end, thread in (*self._left.get(lane.number, ()), (self._lanes.count(lane.number), lane.thread)):
            holder = thread if lives(thread) else 0
            if left and left[-1][1] == holder:
                left.pop()
            left.append((end, holder))
        self._left[lane.number] = left
        self._worker.close_lane(lane.number)
        self.ended += 1

    # Claiming

    def is_free(self, record: ClaimRecord) -> bool:
        """Whether a claimed task may be claimed by this thread: nobody else has it in hand."""
        if record.worker != self.number:
            return False
        holder = record.place
        if record.lane not in (0, LEFT):
            lane = self._running.get(record.lane)
            if lane is not None and record.place >= lane.start:
                return False
            left = self._left.get(record.lane, ())
            holder = next((thread for end, thread in left if record.place < end), 0)
        return holder == this_thread() or not lives(holder)

    def is_free_or_mine(self, record: ClaimRecord) -> bool:
        """The same, or it is in the hand of an iterator of this thread."""
        lane = self._running.get(record.lane)
        is_mine = record.worker == self.number and lane is not None and lane.thread == this_thread()
        return is_mine or self.is_free(record)

    def waits(self, record: ClaimRecord) -> bool:
        """Whether a running iterator of this process has claimed a task and not handed it out, and never will: the
        caller ends this claim."""
        return record.lane in self._running and self._lanes.stop(record.lane, record.place)

    def free_ones(self) -> list[int]:
        """The order numbers of this worker's unfinished tasks that nobody has in hand."""
        return sorted(order for order, record in self._records() if self.is_free(record))

    def claim_one(self, key: bytes, allow_aborted: bool, max_tries: int) -> bool:
        """Claim a task for this thread, if it is to be done and nobody else has it."""
        record = ClaimRecord(self.number, 0, this_thread(), time.time())
        tasks = self._transaction.cache
        claimed = None
        while claimed is None:
            claimed = claim_one(tasks, key, allow_aborted, max_tries, self.is_free_or_mine, self.waits, record)
            if claimed is None and not self.look_for_lost():
                break
        return bool(claimed)

    # Giving back

    def release(self, order: int) -> None:
        """Take the claim of a task away, whoever has it. The try stays counted, if the task was handed out."""
        self._transaction.cache.sync(False)
        record = self._record(order)
        if record is not None and record.worker != self.number and self.look_for_lost():
            record = self._record(order)
        if record is not None:
            if record.worker == self.number:
                waits = self._lanes.stop(record.lane, record.place)
            else:
                waits = self._store.stops_other(record.worker, record.lane, record.place)
            self._give_back({order: record.tries if waits else None})

    def look_for_lost(self) -> bool:
        """Give back what dead workers have left. Whether that was anything."""
        self.looked = time.monotonic()
        transaction = self._transaction
        if not transaction.snapshot.stat(transaction.claims)["entries"]:
            return False
        if all(worker.lives for worker in facts_of_workers(self._store.path, self.number)):
            return False
        lost = lost_claims(transaction.snapshot, transaction.claims, self._store.path, self.number)
        self._give_back(lost)
        return bool(lost)

    def _give_back_own(self) -> None:
        drop_holder(self._transaction, self.number)
        self._give_back({order: record.tries if self._lanes.stop(record.lane, record.place) else None
                         for order, record in self._records()})

    def _give_back(self, lost: dict[int, int | None], kept: dict[int, bytes] | None = None) -> None:
        if lost:
            transaction = self._transaction
            transaction.cache.sync(False)
            give_back(transaction.snapshot, transaction.status, transaction.claims, lost, transaction.images, kept)
            transaction.written_directly()

    def _record(self, order: int) -> ClaimRecord | None:
        raw = self._transaction.snapshot.get(order.to_bytes(8, sys.byteorder), db=self._transaction.claims)
        return None if raw is None else read_claim(raw)

    def _records(self) -> Iterable[tuple[int, ClaimRecord]]:
        """All claims of this worker, in order."""
        for order, raw in self._transaction.snapshot.cursor(self._transaction.claims):
            record = read_claim(raw)
            if record.worker == self.number:
                yield int.from_bytes(order, sys.byteorder), record
