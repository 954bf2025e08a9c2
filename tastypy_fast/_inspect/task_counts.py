"""Count a tracker's tasks by status, and list which tasks workers have claimed.

A task has *failed* if it is neither done nor aborted, was tried as often as allowed, and is not running in a living
worker. No count of failed tasks is stored, so they are counted from the status blocks. The header of a block shows
whether it can contain failed tasks. Only the entries of these blocks are read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

from tastypy_fast._core.claim_record import ClaimRecord, read_claim
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
    has_failed,
    make_status,
    tries_in,
)
from tastypy_fast._lmdb.engine import NotFound
from tastypy_fast._shared.claims import key_at
from tastypy_fast._store.live_workers import WorkerFacts, counts_as_tried, read_worker_files
from tastypy_fast._store.store import Store
from tastypy_fast.types import ClaimState

__all__ = [
    "ActiveClaim",
    "FailureRule",
    "ProgressCounts",
    "StatusCounts",
    "TaskCounter",
    "active_claims",
    "count_progress",
    "read_claims",
    "read_claims_in",
]

# How many blocks of 2 kB a TaskCounter keeps, to find the tasks that have failed since its previous count.
_KEPT_BLOCKS = 2048


class StatusCounts(NamedTuple):
    """The number of tasks by status, as another process sees them.

    ``aborted`` counts tasks that are aborted and not done. ``failed`` is defined above. If the limit of tries is not
    known, a task that was tried once counts as failed. ``left`` counts tasks that are still to be done, including
    failed tasks if the limit is not known. ``claimed`` counts tasks that run in living workers. ``tried`` counts tasks
    that were tried at least once.
    """

    tasks: int = 0
    done: int = 0
    aborted: int = 0
    failed: int = 0
    left: int = 0
    claimed: int = 0
    tried: int = 0


class ProgressCounts(NamedTuple):
    """The number of tasks, of done tasks, and of unfinished tasks that the iterator will not yield again.

    ``given_up`` counts the failed tasks. It also counts the aborted tasks, unless the iterator yields them.
    """

    tasks: int
    done: int
    given_up: int


class ActiveClaim(NamedTuple):
    """A claim of a living worker: the task's sequence number, the worker's process and host, and when the claim began.

    ``state`` is "running", "failed" or "waiting" (see ``WorkerFacts.state_of()``).
    """

    seq: int
    process: int
    host: str
    since: datetime
    state: ClaimState

    @property
    def failed(self) -> bool:
        """Return whether the worker no longer works on the task."""
        return self.state == "failed"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of the JSON output."""
        return {"process": self.process, "host": self.host, "since": self.since.isoformat(), "state": self.state,
                "failed": self.failed}


# Claims


def active_claims(store: Store) -> list[ActiveClaim]:
    """Return the claims of living workers, in the order of their tasks. Cost: O(claims)."""
    return read_claims(store)[0]


def read_claims(store: Store) -> tuple[list[ActiveClaim], dict[int, int]]:
    """Return the claims of living workers, and a dict of claims that dead workers never yielded: seq to tries.

    A claim of the second kind has counted a try that never began. The next worker that recovers the claims of dead
    workers subtracts this try, so the task must not count as failed because of it.
    """
    with store.lock:
        with store.begin_reading():  # opens the files if they are not open
            db: Any = store.db
        with db.begin() as txn:
            try:
                # Open the database in a read transaction, because outside one LMDB would wait for the writer lock.
                database = db.open_db(b"claims", txn=txn, create=False, integerkey=True)
            except NotFound:  # the store was never shared
                return [], {}
            return read_claims_in(txn, database, store.path)


def read_claims_in(txn: Any, database: Any, path: str, own: int = 0) -> tuple[list[ActiveClaim], dict[int, int]]:
    """Read claims in an open transaction. See ``read_claims()``. ``own`` is the number of this process's worker."""
    active, never_yielded = [], {}
    for seq, claim, worker in _with_workers(list(_stored_claims(txn, database)), path, own):
        if worker.is_alive:
            since = datetime.fromtimestamp(claim.since, timezone.utc)
            active.append(ActiveClaim(seq, worker.process, worker.host, since, worker.state_of(claim)))
        elif not counts_as_tried(claim, worker):
            never_yielded[seq] = claim.tries
    return active, never_yielded


def _stored_claims(txn: Any, database: Any) -> Iterator[tuple[int, ClaimRecord]]:
    for raw_id, raw in txn.cursor(database):
        yield int.from_bytes(raw_id, sys.byteorder), read_claim(raw)


def _with_workers(
    claims: list[tuple[int, ClaimRecord]], path: str, own: int
) -> Iterator[tuple[int, ClaimRecord, WorkerFacts]]:
    """Yield each claim with its worker. Skips claims of workers whose file is missing."""
    if not claims:
        return
    workers = {worker.number: worker for worker in read_worker_files(path, own)}
    for seq, claim in claims:
        worker = workers.get(claim.worker)
        if worker is not None:
            yield seq, claim, worker


# Which tasks have failed


class FailureRule:
    """Decide from statuses alone, without the claims, whether tasks have failed.

    A status is an entry of a block, or the special keys of a task's dict. ``min_tries`` is the number of tries after
    which a task has failed; 0 means never. With ``allow_aborted``, an aborted task is treated like an open one.
    """

    def __init__(self, min_tries: int, allow_aborted: bool = False) -> None:
        self.min_tries = min_tries
        self.allow_aborted = allow_aborted
        # An entry holds no larger number of tries.
        self._min_tries = min(min_tries, MAX_TRIES + 1)
        # A task has failed only if just PRESENT is set of these bits.
        self._bits = PRESENT | DONE if allow_aborted else PRESENT | DONE | ABORTED

    @classmethod
    def of_limit(cls, max_tries: int) -> FailureRule:
        """Return the rule for a pipeline's limit of tries. If it is 0, not known, one try is enough to have failed."""
        return cls(max(max_tries, 1))

    def has_failed(self, entry: int) -> bool:
        """Return whether a task with this entry has failed, unless a living worker is running it."""
        return has_failed(entry, self._min_tries, self._bits)

    def has_task_failed(self, task: dict[str, Any]) -> bool:
        """Return what ``has_failed()`` returns, for a task's dict."""
        return self.has_failed(make_status(task["_done"], task["_aborted"], task["_tries"]))

    def count(self, block: bytes) -> int:
        """Return how many tasks of a block have failed."""
        return count_failed(block, self._min_tries, self._bits)

    def tries_of_failed(self, block: bytes) -> dict[int, int]:
        """Return a dict of the failed tasks of a block: position in the block to tries."""
        return failed_in(block, self._min_tries, self._bits)

    def without_try(self, entry: int) -> bool:
        """Return whether the failed task would still have failed with one try less."""
        return tries_in(entry) > self.min_tries


def _read_entry(txn: Any, status: Any, seq: int) -> int:
    """Return the status entry of a task on disk, or 0 if it does not exist."""
    block = txn.get((seq // TASKS_PER_BLOCK).to_bytes(8, sys.byteorder), db=status)
    start = HEAD.size + seq % TASKS_PER_BLOCK * 4
    return 0 if block is None else int.from_bytes(block[start:start + 4], sys.byteorder)


# Counting for other processes, which watch a store


class TaskCounter:
    """Count the tasks of one tracker repeatedly. ``max_tries`` is the pipeline's limit of tries, or 0 if not known.

    Cost of a count: it reads 16 bytes for every block of 500 tasks, and all 2 kB of a block with tried open tasks.
    """

    def __init__(self, tracker: Any, max_tries: int = 0) -> None:
        self._tracker = tracker
        self._store: Store = tracker._store
        self._is_limit_known = bool(max_tries)
        self._rule = FailureRule.of_limit(max_tries)
        # The blocks with failed tasks at the previous count, with the number of these tasks.
        self._blocks: dict[int, tuple[bytes, int]] = {}
        # The tasks that have failed since the previous count: sequence number to tries. After the first count, all
        # failed tasks.
        self.newly_failed: dict[int, int] = {}

    def count(self) -> StatusCounts:
        """Count the tasks on disk."""
        # Read the claims before the statuses, because a task that ends in between must count as done, not as failed.
        active, never_yielded = read_claims(self._store)
        running = {claim.seq for claim in active if not claim.failed}
        tasks = done = still_open = tried = failed = 0
        blocks: dict[int, tuple[bytes, int]] = {}
        newly_failed: dict[int, int] = {}
        with self._store.lock, self._store.begin_reading() as txn:
            status = self._store.status
            for raw_number, block in txn.cursor(status):
                present, done_here, _, tried_here, open_here, *_ = HEAD.unpack_from(block)
                tasks += present
                done += done_here
                still_open += open_here
                tried += tried_here
                if not (open_here and tried_here):
                    continue
                number = int.from_bytes(raw_number, sys.byteorder)
                before, failed_here = self._blocks.get(number, (b"", 0))
                if block != before:
                    failed_here = self._rule.count(block)
                failed += failed_here
                if failed_here and len(blocks) < _KEPT_BLOCKS:
                    blocks[number] = block, failed_here
                    if block != before:
                        newly_failed.update(self._new_in(number, block, before))
            claimed = set()
            for seq in running:
                if self._rule.has_failed(_read_entry(txn, status, seq)):
                    claimed.add(seq)
            for seq, claimed_tries in never_yielded.items():
                entry = _read_entry(txn, status, seq)
                if entry & PRESENT and claimed_tries <= tries_in(entry):
                    tried -= tries_in(entry) == 1
                    if self._rule.has_failed(entry) and not self._rule.without_try(entry):
                        claimed.add(seq)
        failed -= len(claimed)
        self._blocks = blocks
        self.newly_failed = {seq: tries for seq, tries in newly_failed.items() if seq not in claimed}
        left = still_open - failed if self._is_limit_known else still_open
        return StatusCounts(tasks, done, tasks - still_open - done, failed, left, len(running), tried)

    def _new_in(self, number: int, block: bytes, before: bytes) -> dict[int, int]:
        """Return a dict of the tasks that have failed in a block but not in ``before``: sequence number to tries."""
        known = self._rule.tries_of_failed(before) if before else {}
        failed = self._rule.tries_of_failed(block)
        first = number * TASKS_PER_BLOCK
        return {first + position: tries for position, tries in failed.items() if known.get(position) != tries}

    def failed_task(self, seq: int) -> tuple[Any, dict[str, Any]] | None:
        """Return the key and the task with this sequence number; None if it was deleted or is no longer failed."""
        key = key_at(self._tracker._open_cache, seq)
        task = None if key is None else self._tracker.get(key)
        if task is None or not self._rule.has_task_failed(task):
            return None
        return key, task


# Counting for progress bars of this process


def count_progress(handle: Any, store: Any, max_tries: int, allow_aborted: bool) -> ProgressCounts:
    """Count the tasks of a private tracker or a handle of a shared one, including changes that are not on disk yet.

    Cost: one walk over the status blocks, and one lookup for each unsynced key and each claim. The walk takes 3 to 20
    ms for a million tasks.
    """
    with handle._one_step:
        tasks, done, aborted, tried = handle._totals()
        rule = FailureRule(max_tries, allow_aborted)
        given_up = 0
        if (aborted and not allow_aborted) or (max_tries and tried):
            if store.options.shared:
                given_up = _given_up_in_shared(handle, store, rule)
            else:
                given_up = _given_up_in_private(handle, store, rule)
        # Limit the sum to the number of tasks, because a reader's totals and blocks may belong to different commits.
        return ProgressCounts(tasks, done, min(max(given_up, 0), tasks - done))


def _given_up_in_shared(handle: Any, shared: Any, rule: FailureRule) -> int:
    cache = handle._open_cache
    cache.sync(False)  # flush into the transaction if one is open
    store = cache.store
    given_up = _given_up_on_disk(store.snapshot, store.status, rule)
    return given_up - _count_last_tries(shared, store, rule) if given_up else 0


def _given_up_in_private(handle: Any, store: Any, rule: FailureRule) -> int:
    cache = handle._open_cache
    with store.begin_reading() as txn:
        given_up = _given_up_on_disk(txn, store.status, rule)
        for key in cache.dirty_keys():
            raw_id = txn.get(index_key(encode_key(key)), db=store.order)
            if raw_id is not None:
                seq = int.from_bytes(raw_id, sys.byteorder)
                given_up -= _is_given_up(_read_entry(txn, store.status, seq), rule)
            given_up += _is_given_up(_entry_in_memory(handle, key), rule)
    return given_up


def _given_up_on_disk(txn: Any, status: Any, rule: FailureRule) -> int:
    given_up = 0
    for _, block in txn.cursor(status):
        present, done, aborted, tried, still_open, *_ = HEAD.unpack_from(block)
        if rule.allow_aborted:
            still_open = present - done
        elif aborted:
            given_up += present - done - still_open
        if still_open and tried and rule.min_tries:
            given_up += rule.count(block)
    return given_up


def _is_given_up(entry: int, rule: FailureRule) -> bool:
    is_aborted = entry & (PRESENT | DONE | ABORTED) == PRESENT | ABORTED and not rule.allow_aborted
    return is_aborted or rule.has_failed(entry)


def _entry_in_memory(handle: Any, key: Any) -> int:
    try:
        return make_status(*handle._status_of(key))
    except KeyError:  # deleted
        return 0


def _count_last_tries(shared: Any, store: Any, rule: FailureRule) -> int:
    """Return how many tasks a living worker is running for the last time, so that they have not failed yet.

    A task that its worker left unfinished has failed, although its claim stays. A task that this thread could claim
    again has also failed.
    """
    # A claim counts only if the entry agrees, because the tries may have been reset since the claim.
    last = [(seq, claim) for seq, claim in _stored_claims(store.snapshot, store.claims)
            if 0 < rule.min_tries <= claim.tries
            and rule.has_failed(_read_entry(store.snapshot, store.status, seq))]
    worker = shared.worker
    own = worker.number if worker else 0
    return sum(
        1 for _, claim, holder in _with_workers(last, shared.path, own)
        if holder.is_alive and holder.state_of(claim) != "failed"
        and not (claim.worker == own and worker.is_free(claim))
    )
