"""What has become of a tracker's tasks: how many are done, and how many a loop will not hand out again all the same.

The second number is nowhere kept: it is counted from the blocks of statuses (as ``_status`` describes them). Blocks in
which nothing was tried, or nothing is open, are told by their heads; in the others bytes are counted.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any, NamedTuple

from tastypy_fast._core.claim_record import read_claim
from tastypy_fast._core.key_codec import encode_key, index_key
from tastypy_fast._core.status_block import ABORTED, DONE, HEAD, PRESENT, TASKS_PER_BLOCK, TRIES_SHIFT
from tastypy_fast._store.worker_files import read_worker_files

__all__ = ["TaskCounts", "count_tasks"]

# Where the bytes of the entries begin, from the lowest one.
_BYTES = [HEAD.size + (place if sys.byteorder == "little" else 3 - place) for place in range(4)]


class TaskCounts(NamedTuple):
    """Tasks, those that are done, and those that are not and will not be handed out again: aborted, or out of tries."""

    tasks: int
    done: int
    failed: int


class _Failing:
    """Which tasks count as failed, told by their entries."""

    def __init__(self, max_tries: int, allow_aborted: bool) -> None:
        self.max_tries = max_tries
        self.allow_aborted = allow_aborted
        # Of tasks with up to 15 tries, told by the lowest byte alone.
        self._by_byte = bytes(map(self, range(256)))

    def __call__(self, entry: int) -> bool:
        if entry & (PRESENT | DONE) != PRESENT:
            return False
        is_aborted = bool(entry & ABORTED) and not self.allow_aborted
        return is_aborted or (self.max_tries > 0 and entry >> TRIES_SHIFT >= self.max_tries)

    def count(self, raw: bytes) -> int:
        """How many of a block."""
        lowest, *others = (raw[start::4] for start in _BYTES)
        if all(part.count(0) == TASKS_PER_BLOCK for part in others):
            return lowest.translate(self._by_byte).count(1)
        entries = Counter(memoryview(raw)[HEAD.size:].cast("i"))
        return sum(times for entry, times in entries.items() if self(entry))


def count_tasks(handle: Any, store: Any, max_tries: int, allow_aborted: bool) -> TaskCounts:
    """Count for a private tracker, or for a handle of a shared one, what is not synced or committed yet included.

    What a worker that lives has in hand has not failed yet, though it be the last try. Cost: a walk over the blocks of
    statuses (3 to 20 ms for a million tasks, 70 where more than 15 tries are common), and a look at each key that is
    not synced and at each claim.
    """
    with handle._one_step:
        tasks, done, aborted, tried = handle._totals()
        failing = _Failing(max_tries, allow_aborted)
        failed = 0
        if (aborted and not allow_aborted) or (max_tries and tried):
            if store.options.shared:
                failed = _failed_in_shared(handle, store, failing)
            else:
                failed = _failed_in_private(handle, store, failing)
        # (another process may have written between two looks of one that only reads)
        return TaskCounts(tasks, done, min(max(failed, 0), tasks - done))


def _failed_in_shared(handle: Any, shared: Any, failing: _Failing) -> int:
    cache = handle._open_cache
    cache.sync(False)  # into the transaction, inside of a block
    store = cache.store
    failed = _failed_on_disk(store.snapshot, store.status, failing)
    return failed - _last_tries_in_hand(shared, store, failing.max_tries) if failed else 0


def _failed_in_private(handle: Any, store: Any, failing: _Failing) -> int:
    cache = handle._open_cache
    with store.begin_reading() as txn:
        failed = _failed_on_disk(txn, store.status, failing)
        for key in cache.dirty_keys():
            number = txn.get(index_key(encode_key(key)), db=store.order)
            if number is not None:
                failed -= failing(_entry_on_disk(txn, store.status, int.from_bytes(number, sys.byteorder)))
            failed += failing(_entry_in_memory(handle, key))
    return failed


def _failed_on_disk(txn: Any, status: Any, failing: _Failing) -> int:
    failed = 0
    for _, raw in txn.cursor(status):
        present, done, aborted, tried, still_open, *_ = HEAD.unpack_from(raw)
        if failing.allow_aborted:
            still_open = present - done
        if still_open and tried and failing.max_tries:
            failed += failing.count(raw)
        elif aborted:
            failed += present - done - still_open
    return failed


def _entry_on_disk(txn: Any, status: Any, number: int) -> int:
    raw = txn.get((number // TASKS_PER_BLOCK).to_bytes(8, sys.byteorder), db=status)
    place = HEAD.size + number % TASKS_PER_BLOCK * 4
    return 0 if raw is None else int.from_bytes(raw[place:place + 4], sys.byteorder, signed=True)


def _entry_in_memory(handle: Any, key: Any) -> int:
    try:
        done, aborted, tries = handle._status_of(key)
    except KeyError:  # deleted
        return 0
    return int(PRESENT | DONE * done | ABORTED * aborted | tries << TRIES_SHIFT)


def _last_tries_in_hand(shared: Any, store: Any, max_tries: int) -> int:
    """How many tasks are with a worker that lives, for their last try. (A failed one stays its worker's, too.)"""
    if not max_tries:
        return 0
    claims = ((int.from_bytes(order, sys.byteorder), read_claim(raw))
              for order, raw in store.snapshot.cursor(store.claims))
    # (the claim may know of tries that were set back since)
    last = [claim for order, claim in claims if claim.tries >= max_tries
            and _entry_on_disk(store.snapshot, store.status, order) >> TRIES_SHIFT >= max_tries]
    if not last:
        return 0
    worker = shared.worker
    own = worker.number if worker else 0
    workers = {worker.number: worker for worker in read_worker_files(shared.path, own) if worker.is_alive}
    return sum(
        1 for claim in last
        if claim.worker in workers and workers[claim.worker].state_of(claim) != "failed"
        and not (claim.worker == own and worker.is_free(claim))
    )
