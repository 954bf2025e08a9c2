"""How far a tracker is, counted for those who watch it from outside.

Counts come from the heads of the status blocks (16 bytes for 500 tasks). Only blocks with tasks that were tried and are
still open are looked into, as those may have failed; what was found in one is kept until it changes.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, NamedTuple

from tastypy_fast._core.claim_record import read_claim
from tastypy_fast._core.status_block import ABORTED, DONE, HEAD, PRESENT, TASKS_PER_BLOCK, TRIES_SHIFT
from tastypy_fast._lmdb.engine import NotFound
from tastypy_fast._shared.claims import key_at
from tastypy_fast._store.store import Store
from tastypy_fast._store.worker_files import read_worker_files
from tastypy_fast.types import ClaimState

__all__ = ["ActiveClaim", "Counts", "TaskCounter", "active_claims", "claims_in", "look_at_claims"]

# Blocks whose failures are remembered, of 2 kB each.
_REMEMBERED = 2048


class Counts(NamedTuple):
    """Tasks by what became of them.

    ``done``; ``aborted`` and not done; ``failed``: neither, in nobody's hands, and tried as often as allowed, or at
    least once where that is not known; ``left``: what is still to be done (where it is not known how often a task may
    be tried, the failed ones are among these); ``claimed``: in the hands of workers that live; ``tried``: at least
    once.
    """

    tasks: int = 0
    done: int = 0
    aborted: int = 0
    failed: int = 0
    left: int = 0
    claimed: int = 0
    tried: int = 0


class ActiveClaim(NamedTuple):
    """A task that a living worker has claimed: its order number, the worker's process and host, and since when.

    ``state``: "running"; "failed", where the loop that had it in hand has ended or gone on to another, and left it
    unfinished, so that it stays its worker's for the next loop; or "waiting", where a batch has claimed it and not
    handed it out yet.
    """

    order: int
    process: int
    host: str
    since: datetime
    state: ClaimState

    @property
    def failed(self) -> bool:
        """Whether its worker is not at it any more."""
        return self.state == "failed"

    def as_dict(self) -> dict[str, Any]:
        """What a program gets, beside the task."""
        return {"process": self.process, "host": self.host, "since": self.since.isoformat(), "state": self.state,
                "passed": self.failed}


def active_claims(store: Store) -> list[ActiveClaim]:
    """What the workers that live have claimed, in order. Cost: of as many claims as there are."""
    return look_at_claims(store)[0]


def look_at_claims(store: Store) -> tuple[list[ActiveClaim], dict[int, int]]:
    """What the workers that live have claimed, in order; and what dead ones have and never handed out, with the tries
    as they were counted: it is nobody's, and the next worker that looks for the dead takes one of these tries back."""
    with store.lock:
        with store.begin_reading():  # (which opens the files, if they are not)
            db: Any = store.db
        with db.begin() as txn:
            try:
                # (in a transaction that reads: without one, it would wait for all that write)
                database = db.open_db(b"claims", txn=txn, create=False, integerkey=True)
            except NotFound:  # never shared
                return [], {}
            return claims_in(txn, database, store.path)


def claims_in(txn: Any, database: Any, path: str, own: int = 0) -> tuple[list[ActiveClaim], dict[int, int]]:
    """The same of a transaction. ``own``: the number of this process's worker."""
    found = [(int.from_bytes(order, sys.byteorder), read_claim(raw)) for order, raw in txn.cursor(database)]
    if not found:
        return [], {}
    workers = {worker.number: worker for worker in read_worker_files(path, own)}
    held, waiting = [], {}
    for order, claim in found:
        worker = workers.get(claim.worker)
        if worker is None:
            continue
        if worker.is_alive:
            since = datetime.fromtimestamp(claim.since, timezone.utc)
            held.append(ActiveClaim(order, worker.process, worker.host, since, worker.state_of(claim)))
        elif worker.state_of(claim) == "waiting":
            waiting[order] = claim.tries
    return held, waiting


@lru_cache(maxsize=_REMEMBERED)
def _failing(raw: bytes, least: int) -> dict[int, int]:
    """The open tasks of a block that were tried at least so often: place in the block to tries."""
    entries = memoryview(raw)[HEAD.size:].cast("i")
    return {
        slot: entry >> TRIES_SHIFT for slot, entry in enumerate(entries)
        if entry & (PRESENT | DONE | ABORTED) == PRESENT and entry >> TRIES_SHIFT >= least
    }


def _begun_again(raw: bytes, waiting: dict[int, int]) -> dict[int, int]:
    """How often tasks of a block will have been tried, once those that are ``waiting`` got a try back."""
    entries = memoryview(raw)[HEAD.size:].cast("i")
    tries = {slot: entries[slot] >> TRIES_SHIFT for slot in waiting if entries[slot] & PRESENT}
    return {slot: count - 1 for slot, count in tries.items() if waiting[slot] <= count}


class TaskCounter:
    """Counts the tasks of one tracker, again and again. ``max_tries``: as the pipeline has it, 0 where not known."""

    def __init__(self, tracker: Any, max_tries: int = 0) -> None:
        self._tracker = tracker
        self._store: Store = tracker._store
        self._max_tries = max_tries
        self._least = max(max_tries, 1)
        self._blocks: dict[int, bytes] = {}
        #: What has failed since the count before, order number to tries. After the first count: the last of all.
        self.lately: dict[int, int] = {}

    def count(self) -> Counts:
        """The counts as they are on disk now."""
        in_hand: dict[int, set[int]] = {}
        waiting: dict[int, dict[int, int]] = {}
        held_now, given_back = look_at_claims(self._store)
        for hand in held_now:
            if not hand.failed:
                in_hand.setdefault(hand.order // TASKS_PER_BLOCK, set()).add(hand.order % TASKS_PER_BLOCK)
        for order, tries in given_back.items():
            waiting.setdefault(order // TASKS_PER_BLOCK, {})[order % TASKS_PER_BLOCK] = tries
        tasks = done = still_open = tried = failed = 0
        blocks: dict[int, bytes] = {}
        lately: dict[int, int] = {}
        with self._store.lock, self._store.begin_reading() as txn:
            for raw_number, raw in txn.cursor(self._store.status):
                present, here, _, attempted, available, *_ = HEAD.unpack_from(raw)
                tasks += present
                done += here
                still_open += available
                tried += attempted
                if not (available and attempted):
                    continue
                number = int.from_bytes(raw_number, sys.byteorder)
                failing = _failing(raw, self._least)
                held = in_hand.get(number, set())
                if number in waiting:
                    once_more = _begun_again(raw, waiting[number])
                    tried -= sum(not tries for tries in once_more.values())
                    held = held | {slot for slot, tries in once_more.items() if tries < self._least}
                failed += len(failing) - len(held & failing.keys())
                if failing and len(blocks) < _REMEMBERED:
                    before = self._blocks.get(number, b"")
                    blocks[number] = raw
                    if before != raw:
                        known = _failing(before, self._least) if before else {}
                        lately.update({number * TASKS_PER_BLOCK + slot: tries for slot, tries in failing.items()
                                       if known.get(slot) != tries and slot not in held})
        self._blocks = blocks
        self.lately = lately
        left = still_open - failed if self._max_tries else still_open
        return Counts(tasks, done, tasks - still_open - done, failed, left, sum(map(len, in_hand.values())),
                      tried)

    def task(self, order: int) -> tuple[Any, dict[str, Any]] | None:
        """Key and task of an order number, if the task is there and has still failed."""
        key = key_at(self._tracker._open_cache, order)
        task = None if key is None else self._tracker.get(key)
        if task is None or task["_done"] or task["_aborted"] or task["_tries"] < self._least:
            return None
        return key, task
