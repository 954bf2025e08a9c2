"""Define the six words for the status of a task, and tell which one a task has.

The words are new, running, to retry, failed, aborted and done. ``types.TaskStatus`` defines them for users. Each task
has exactly one of them, so the numbers of tasks with each add up. Everything that shows or filters statuses uses
``classify()``. ``task_counts`` counts tasks, and ``StatusReader`` returns the states of single ones.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple, get_args

from tastypy_fast._core.key_codec import encode_key, index_key
from tastypy_fast._core.status_block import ABORTED, DONE, PRESENT, tries_in
from tastypy_fast._inspect.claims import ActiveClaim, ClaimReader, Claims, one_snapshot
from tastypy_fast._inspect.store_info import limit_to_show
from tastypy_fast._shared.claims import key_at
from tastypy_fast.types import TaskStatus

__all__ = ["STATUSES", "StatusReader", "TaskState", "classify", "classify_entry"]

STATUSES: tuple[TaskStatus, ...] = get_args(TaskStatus)


def classify(done: bool, aborted: bool, tries: int, max_tries: int, is_running: bool = False) -> TaskStatus:
    """Return the status of a task.

    ``max_tries`` is the limit of tries; with 0, no limit, a failed try is "to retry". ``is_running`` says that a living
    process has claimed the task or is trying it.

    >>> classify(False, False, 3, 3), classify(False, False, 3, 0), classify(False, False, 3, 3, is_running=True)
    ('failed', 'to retry', 'running')
    """
    if done:
        return "done"
    if is_running:
        return "running"
    if aborted:
        return "aborted"
    if 0 < max_tries <= tries:
        return "failed"
    return "to retry" if tries > 0 else "new"


def classify_entry(entry: int, max_tries: int, is_running: bool = False) -> TaskStatus | None:
    """Return the status of a task with this entry of a status block, or None if it does not exist."""
    if not entry & PRESENT:
        return None
    return classify(bool(entry & DONE), bool(entry & ABORTED), tries_in(entry), max_tries, is_running)


class TaskState(NamedTuple):
    """The status of one task in a word, what it was made from, and the claim of a living worker on the task, if any."""

    status: TaskStatus
    done: bool
    aborted: bool
    tries: int
    claim: ActiveClaim | None


class StatusReader:
    """Return the states of single tasks of a tracker, private or shared."""

    def __init__(self, tracker: Any, max_tries: int | None = None) -> None:
        """``max_tries`` is the limit of tries, 0 for no limit. None is the one that the tracker shows."""
        self._tracker = tracker
        self._max_tries = max_tries
        # The keys of the claimed tasks, because most claims are there at the next call, too.
        self._keys: dict[int, Any] = {}

    def read(self, keys: Iterable[Any], claims: ClaimReader | None = None) -> list[TaskState | None]:
        """Return the states of tasks in one snapshot. It is None for a key that does not exist.

        ``claims`` is needed inside an operation only, see ``ClaimReader``.

        Cost: one lookup in the index for each key and each new claim, and the state of each worker.
        """
        claims = claims or ClaimReader(self._tracker._store)
        with one_snapshot(self._tracker) as (store, txn):
            found = claims.read(txn, store)
            limit = limit_to_show(self._tracker, txn, store) if self._max_tries is None else self._max_tries
            by_key = dict(zip(self._keys_of(found), found.active, strict=True))
            untried = {self._key_at(seq): tries for seq, tries in found.never_yielded.items()}
            return [self._state_of(key, limit, by_key.get(key), untried, found.tried_keys) for key in keys]

    def running_keys(self) -> list[Any]:
        """Return the keys of the tasks that are claimed or tried, in order. Cost: O(claims)."""
        claims = ClaimReader(self._tracker._store)
        with one_snapshot(self._tracker) as (store, txn):
            found = claims.read(txn, store)
            raw_seqs = {txn.get(raw_key, db=store.order) for raw_key in found.tried_keys}
            seqs = sorted(int.from_bytes(raw, sys.byteorder) for raw in raw_seqs if raw is not None)
            tried = map(self._key_at, seqs)
            return [key for key in (*self._keys_of(found), *tried) if key is not None]

    def _keys_of(self, claims: Claims) -> list[Any]:
        known = self._keys
        self._keys = {claim.seq: known[claim.seq] if claim.seq in known else self._key_at(claim.seq)
                      for claim in claims.active}
        return [*self._keys.values()]

    def _key_at(self, seq: int) -> Any:
        return key_at(self._tracker._read_handle()._open_cache, seq)

    def _state_of(self, key: Any, max_tries: int, claim: ActiveClaim | None, untried: dict[Any, int],
                  tried_keys: Collection[bytes]) -> TaskState | None:
        try:
            done, aborted, tries = self._tracker._read_handle()._status_of(key)
        except KeyError:
            return None
        if untried.get(key, tries + 1) <= tries:
            tries -= 1  # the try never began
        is_running = claim is not None and claim.is_running
        if tried_keys and not is_running:
            is_running = index_key(encode_key(key)) in tried_keys
        return TaskState(classify(done, aborted, tries, max_tries, is_running), done, aborted, tries, claim)
