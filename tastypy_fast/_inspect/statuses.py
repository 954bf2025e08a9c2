"""Define the six words for the status of a task, and tell which one a task has.

The words are new, running, to retry, failed, aborted and done. ``types.TaskStatus`` defines them for users. Each task
has exactly one of them, so the numbers of tasks with each add up. Everything that shows or filters statuses uses
``classify()``. ``task_counts`` counts tasks, and ``StatusReader`` returns the states of single ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple, get_args

from tastypy_fast._core.key_codec import encode_key, index_key
from tastypy_fast._core.status_block import ABORTED, DONE, HEAD, PRESENT, TASKS_PER_BLOCK, tries_in
from tastypy_fast._inspect.claims import ActiveClaim, ClaimReader, Claims, one_snapshot
from tastypy_fast._inspect.store_info import limit_to_show
from tastypy_fast._shared.claims import key_at
from tastypy_fast.types import TaskStatus

__all__ = ["STATUSES", "StatusEntries", "StatusReader", "TaskState", "classify", "classify_entry", "flags_of",
           "status_words"]

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


def status_words(status: str | Iterable[str]) -> frozenset[str]:
    """Return the words in an argument ``status``. Raises TypeError or ValueError for anything else."""
    words = [status] if isinstance(status, str) or not isinstance(status, Iterable) else list(status)
    for word in words:
        if word not in STATUSES:
            error = ValueError if isinstance(word, str) else TypeError
            raise error(f"status must be one or more of {', '.join(STATUSES)}; {word!r:.80} is none")
    return frozenset(words)


def flags_of(words: Collection[str]) -> tuple[int, int]:
    """Return the flags that all tasks with one of these statuses have, and the flags that none of them has."""
    left = set(words)
    if left == {"done"}:
        return DONE, 0
    if left == {"aborted"}:
        return ABORTED, DONE
    return 0, (0 if "done" in left else DONE) | (0 if left & {"done", "aborted", "running"} else ABORTED)


class TaskState(NamedTuple):
    """The status of one task in a word, what it was made from, and the claim of a living worker on the task, if any."""

    status: TaskStatus
    done: bool
    aborted: bool
    tries: int
    claim: ActiveClaim | None


class StatusEntries:
    """The status entries on disk of single tasks, in one snapshot."""

    def __init__(self, txn: Any, store: Any) -> None:
        self._txn = txn
        self._store = store
        self._number, self._block = -1, None

    def at(self, seq: int) -> int:
        """Return the entry of the task with this sequence number, or 0 if it does not exist."""
        number, slot = divmod(seq, TASKS_PER_BLOCK)
        if number != self._number:  # claims come in the order of their tasks
            self._number, self._block = number, self._txn.get(number.to_bytes(8, sys.byteorder), db=self._store.status)
        start = HEAD.size + slot * 4
        return 0 if self._block is None else int.from_bytes(self._block[start:start + 4], sys.byteorder)

    def find(self, raw_key: bytes) -> int | None:
        """Return the sequence number of a key in the index, or None."""
        raw_id = self._txn.get(raw_key, db=self._store.order)
        return None if raw_id is None else int.from_bytes(raw_id, sys.byteorder)

    def of(self, raw_key: bytes) -> int:
        """Return the entry of the task with this key in the index, or 0 if it does not exist."""
        seq = self.find(raw_key)
        return 0 if seq is None else self.at(seq)


class StatusReader:
    """Return the states of single tasks of a tracker, private or shared."""

    def __init__(self, tracker: Any, max_tries: int | None = None) -> None:
        """``max_tries`` is the limit of tries, 0 for no limit. None is the one that the tracker shows."""
        self._tracker = tracker
        self._max_tries = max_tries
        # The keys of the claimed tasks, because most claims are there at the next call, too.
        self._keys: dict[int, Any] = {}

    def read(self, keys: Sequence[Any], claims: ClaimReader | None = None,
             seqs: Sequence[int] = ()) -> list[TaskState | None]:
        """Return the states of tasks in one snapshot. It is None for a key that does not exist.

        ``claims`` is needed inside an operation only, see ``ClaimReader``. ``seqs`` are the sequence numbers of the
        tasks, if they are known.

        Cost: one lookup in the index for each key without a sequence number and for each new claim, and the state of
        each worker.
        """
        claims = claims or ClaimReader(self._tracker._store)
        with one_snapshot(self._tracker) as (store, txn):
            found = claims.read(txn, store)
            limit = limit_to_show(self._tracker, txn, store) if self._max_tries is None else self._max_tries
            by_key = dict(zip(self._keys_of(found), found.active, strict=True))
            untried = self._untried_of(found)
            if seqs and not store.writable:  # a private tracker that writes has statuses that are not on disk
                entries = StatusEntries(txn, store)
                statuses: Iterable[Any] = map(_status_in, map(entries.at, seqs))
            else:
                statuses = map(self._status_of, keys)
            return [status and self._state_of(key, status, limit, by_key.get(key), untried, found.tried_keys)
                    for key, status in zip(keys, statuses, strict=True)]

    def classifier(self) -> Callable[[Any, dict[str, Any]], TaskStatus]:
        """Return a function from a key and the dict of its task to the status of the task. It reads the claims once.

        Cost: O(claims), and of a call O(1).
        """
        claims = ClaimReader(self._tracker._store)
        with one_snapshot(self._tracker) as (store, txn):
            found = claims.read(txn, store)
            limit = limit_to_show(self._tracker, txn, store) if self._max_tries is None else self._max_tries
            keys = self._keys_of(found)
            untried = self._untried_of(found)
            claimed = {key: self._state_of(key, status, limit, claim, untried, ()).status
                       for key, claim in zip(keys, found.active, strict=True)
                       if (status := self._status_of(key)) is not None}
            tried_keys = found.tried_keys

        def status_of(key: Any, task: dict[str, Any]) -> TaskStatus:
            if not task["_done"]:
                if key in claimed:
                    return claimed[key]
                # By key, because tasks that are only in memory are not in the index.
                if tried_keys and index_key(encode_key(key)) in tried_keys:
                    return "running"
            return classify(task["_done"], task["_aborted"], task["_tries"], limit)

        return status_of

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

    def _untried_of(self, claims: Claims) -> dict[Any, int]:
        return {self._key_at(seq): tries for seq, tries in claims.never_yielded.items()}

    def _key_at(self, seq: int) -> Any:
        return key_at(self._tracker._read_handle()._open_cache, seq)

    def _status_of(self, key: Any) -> tuple[bool, bool, int] | None:
        try:
            status: tuple[bool, bool, int] = self._tracker._read_handle()._status_of(key)
        except KeyError:
            return None
        return status

    @staticmethod
    def _state_of(key: Any, status: tuple[bool, bool, int], max_tries: int, claim: ActiveClaim | None,
                  untried: dict[Any, int], tried_keys: Collection[bytes]) -> TaskState:
        done, aborted, tries = status
        if untried.get(key, tries + 1) <= tries:
            tries -= 1  # the try never began
        is_running = claim is not None and claim.is_running
        if tried_keys and not is_running:
            is_running = index_key(encode_key(key)) in tried_keys
        return TaskState(classify(done, aborted, tries, max_tries, is_running), done, aborted, tries, claim)


def _status_in(entry: int) -> tuple[bool, bool, int] | None:
    """Return (done, aborted, tries) of an entry, or None if the task does not exist."""
    return (bool(entry & DONE), bool(entry & ABORTED), tries_in(entry)) if entry & PRESENT else None
