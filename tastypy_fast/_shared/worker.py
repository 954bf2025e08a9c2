"""Keep this process's claims on the tasks of a shared tracker, and recover those of dead workers.

A process that claims tasks is a worker. ``_store.live_workers`` decides whether another worker is alive: the kernel
holds the lock on a worker's file while its process lives. ``Worker.recover_claims()`` ends the claims of dead workers.

A claim belongs to a process. Inside the process, a task belongs to the iterator that claimed it. The claim has the slot
of this iterator. A task that ``should_try()`` claimed has slot 0 and belongs to the thread that called it (see
``claim_record``). The tasks that an iterator leaves unfinished at its end belong to the next iterator of its thread.
When the thread has ended, they belong to all threads of the process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from tastypy_fast._core.claim_record import ClaimRecord, claim_key, has_claims, pack_claim, read_claim, read_claims
from tastypy_fast._core.locks import is_alive, this_thread
from tastypy_fast._core.status_writer import release_claims
from tastypy_fast._core.worker_slots import FAILED_SLOT, REMOTE_SLOTS
from tastypy_fast._shared.claims import claim_one
from tastypy_fast._shared.write_transaction import WriteTransaction
from tastypy_fast._store.live_workers import WorkerFile, find_orphaned_claims, read_worker_files, stop_slot

__all__ = ["Worker"]


class Slot(NamedTuple):
    """The slot of a running iterator."""

    number: int
    # The first position in the slot that belongs to this iterator.
    start: int
    thread: int


class Worker:
    """The claims of this process on one store.

    Call the methods inside the write transaction, unless their docstrings say otherwise.
    """

    def __init__(self, transaction: WriteTransaction) -> None:
        """Lock a worker file, which shows the other processes that this one is alive."""
        self._transaction = transaction
        self._running: dict[int, Slot] = {}
        # The slots of the open queues. Each number is used once.
        self._queues: set[int] = set()
        self._next_queue = FAILED_SLOT + 1
        # For each slot the ranges of positions that its ended iterators left to a thread: (end, thread), ascending.
        self._left: dict[int, list[tuple[int, int]]] = {}
        # How many iterators have ended. Each may have left tasks to the others.
        self.ended_iterators = 0
        # When this worker last checked for dead workers (``time.monotonic()``).
        self.recovered_at = 0.0
        # The file of a dead worker shows which of its claims were yielded, so it is kept until these claims have ended.
        snapshot, claims = transaction.snapshot, transaction.claims
        self._file = WorkerFile(transaction.path, {claim.worker for _, claim in read_claims(snapshot, claims)})
        self.number = self._file.number
        self.worker_slots = self._file.worker_slots

    def end(self) -> None:
        """Release the worker file after ``release_all()`` was committed. It needs no transaction."""
        self._file.end()

    def leave_to_parent(self) -> None:
        """Close the worker file in a forked child, because the claims belong to the parent. It needs no transaction."""
        self._file.leave_to_parent()

    # Slots

    def open_slot(self) -> Slot:
        """Reserve a slot for an iterator of this thread."""
        number = self._file.open_slot()
        slot = self._running[number] = Slot(number, self.worker_slots.begin(number), this_thread())
        return slot

    def close_slot(self, slot: Slot, waiting: Iterable[tuple[int, int]], own: set[int]) -> None:
        """Release the claims of an iterator that were never yielded. ``end_slot()`` follows when this was committed.

        ``waiting`` are the sequence numbers and positions of these claims. A task in ``own`` was claimed by this worker
        before the iterator claimed it again. It stays claimed for the thread of the iterator. This may run again if the
        map was full, or after an interrupt.
        """
        lost: dict[int, int | None] = {}
        kept = {}
        for seq, position in waiting:
            record = self._record(seq)
            if record is not None and record[:3] == (self.number, slot.number, position):
                lost[seq] = record.tries
                if seq in own:
                    kept[seq] = pack_claim(record._replace(slot=FAILED_SLOT, position=slot.thread))
        self._release_claims(lost, kept)

    def end_slot(self, slot: Slot) -> None:
        """End an iterator. It needs no transaction."""
        if self._running.get(slot.number) is not slot:
            return  # an earlier call, which an interrupt has ended, did this already
        self.worker_slots.end(slot.number)
        left: list[tuple[int, int]] = []
        for end, thread in (*self._left.get(slot.number, ()), (self.worker_slots.count(slot.number), slot.thread)):
            holder = thread if is_alive(thread) else 0
            if left and left[-1][1] == holder:
                left.pop()
            left.append((end, holder))
        self._left[slot.number] = left
        # In this order, because a slot that is freed twice would serve two iterators.
        del self._running[slot.number]
        self._file.close_slot(slot.number)
        self.ended_iterators += 1

    def open_queue(self, remote: bool) -> int:
        """Return a slot for the claims of a queue, whose tasks count as yielded. ``remote``: see ClaimQueue."""
        number = self._next_queue + (REMOTE_SLOTS if remote else 0)
        self._next_queue += 1
        self._queues.add(number)
        return number

    def close_queue(self, number: int, waiting: Iterable[int], own: set[int]) -> None:
        """End a queue. Its claims stay for the thread of the queue, as those of tasks that have failed.

        ``waiting`` are the sequence numbers of tasks that the queue has claimed and never returned. Their claims are
        released, unless they are in ``own``, as for ``close_slot()``. ``abandon_queue()`` follows when this was
        committed. It may run again if the map was full.
        """
        never_returned = set(waiting)
        lost: dict[int, int | None] = {}
        kept = {}
        for seq, record in self._records():
            if record.slot == number:
                lost[seq] = record.tries if seq in never_returned else None
                if seq not in never_returned or seq in own:
                    kept[seq] = pack_claim(record._replace(slot=FAILED_SLOT))
        self._release_claims(lost, kept)

    def abandon_queue(self, number: int) -> None:
        """Leave the claims of a queue to its thread as they are. It needs no transaction."""
        if number in self._queues:
            self._queues.discard(number)
            self.ended_iterators += 1

    # Claiming

    def is_free(self, record: ClaimRecord) -> bool:
        """Return whether this thread may claim a task that this worker has claimed already.

        It may if no iterator and no other thread works on the task. It needs no transaction.
        """
        if record.worker != self.number or record.slot in self._queues:
            return False
        holder = record.position
        if 0 < record.slot < FAILED_SLOT:
            slot = self._running.get(record.slot)
            if slot is not None and record.position >= slot.start:
                return False
            left = self._left.get(record.slot, ())
            holder = next((thread for end, thread in left if record.position < end), 0)
        return holder == this_thread() or not is_alive(holder)

    def is_free_or_mine(self, record: ClaimRecord) -> bool:
        """Return whether ``is_free()`` is true, or an iterator of this thread has the task."""
        slot = self._running.get(record.slot)
        is_mine = record.worker == self.number and slot is not None and slot.thread == this_thread()
        return is_mine or self.is_free(record)

    def stop_own_slot(self, record: ClaimRecord) -> bool:
        """Stop a running iterator of this process before it yields a task that it has claimed. False if it did already.

        The caller releases the claim in this transaction.
        """
        return record.slot in self._running and self.worker_slots.stop(record.slot, record.position)

    def free_tasks(self) -> list[int]:
        """Return the sequence numbers, ascending, of this worker's claimed tasks that this thread may claim."""
        return sorted(seq for seq, record in self._records() if self.is_free(record))

    def claim_one(self, key: bytes, allow_aborted: bool, max_tries: int) -> bool:
        """Claim a task for this thread, and return whether it is to be tried and no other worker or iterator has it."""
        record = ClaimRecord(self.number, 0, this_thread(), time.time())
        tasks = self._transaction.cache
        claimed = None
        while claimed is None:
            claimed = claim_one(tasks, key, allow_aborted, max_tries, self.is_free_or_mine, self.stop_own_slot, record)
            if claimed is None and not self.recover_claims():
                break
        return bool(claimed)

    # Releasing

    def release(self, seq: int) -> None:
        """Release the claim on a task, whichever worker has it. The try stays counted, if the task was yielded."""
        self._transaction.cache.sync(False)
        record = self._record(seq)
        if record is not None and record.worker != self.number and self.recover_claims():
            record = self._record(seq)
        if record is not None:
            if record.worker == self.number:
                was_stopped = self.worker_slots.stop(record.slot, record.position)
            else:
                was_stopped = stop_slot(self._transaction.path, record.worker, record.slot, record.position)
            self._release_claims({seq: record.tries if was_stopped else None})

    def release_all(self) -> None:
        """Release all claims of this worker. Tries of tasks that never began or ran in other processes come back."""
        self._release_claims({
            seq: record.tries if record.slot >= REMOTE_SLOTS or self.worker_slots.stop(record.slot, record.position)
            else None for seq, record in self._records()})

    def recover_claims(self) -> bool:
        """Release the claims of dead workers. Whether there were any."""
        self.recovered_at = time.monotonic()
        transaction = self._transaction
        if not has_claims(transaction.snapshot, transaction.claims):
            return False
        if all(worker.is_alive for worker in read_worker_files(transaction.path, self.number)):
            return False
        lost = find_orphaned_claims(transaction.snapshot, transaction.claims, transaction.path, self.number)
        self._release_claims(lost)
        return bool(lost)

    def _release_claims(self, lost: dict[int, int | None], kept: dict[int, bytes] | None = None) -> None:
        """Release claims in the open transaction, bypassing its cache (see ``release_claims()``)."""
        if lost:
            transaction = self._transaction
            transaction.cache.sync(False)
            release_claims(transaction.snapshot, transaction.status, transaction.claims, lost, transaction.images, kept)
            transaction.written_directly()

    def _record(self, seq: int) -> ClaimRecord | None:
        raw = self._transaction.snapshot.get(claim_key(seq), db=self._transaction.claims)
        return None if raw is None else read_claim(raw)

    def _records(self) -> Iterable[tuple[int, ClaimRecord]]:
        """Yield all claims of this worker, by ascending sequence number."""
        for seq, record in read_claims(self._transaction.snapshot, self._transaction.claims):
            if record.worker == self.number:
                yield seq, record
