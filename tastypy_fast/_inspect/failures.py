"""List the unfinished tasks of a tracker that have an error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from tastypy_fast._core.iterators import ITEMS
from tastypy_fast._core.status_block import DONE, HEAD, PRESENT, TASKS_PER_BLOCK, failed_in
from tastypy_fast._shared.claims import key_at

__all__ = ["iter_failures", "iter_own_errors"]


def iter_failures(tracker: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Iterate over pairs of key and dict of the tasks that have ``_error`` and are not done.

    Aborted tasks are among them. Cost: O(n) over 4 bytes for each task, and reading the values of the failed ones.
    """
    for key, task in tracker._tasks_with_error(ITEMS):
        # The flag in the status is a hint.
        if "_error" in task:
            yield key, task


def iter_own_errors(tracker: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Iterate over pairs of key and dict of the tasks on disk that were tried, are not done, and have only an "error".

    This field is the user's own. Cost: 16 bytes for every 500 tasks, and the values of the tasks that were tried.
    """
    store = tracker._store
    with store.lock, store.begin_reading() as txn:
        numbers = [bytes(raw) for raw, block in txn.cursor(store.status) if _may_have_failed(block)]
    for raw in numbers:
        with store.lock, store.begin_reading() as txn:
            block = txn.get(raw, db=store.status)
        first = int.from_bytes(raw, sys.byteorder) * TASKS_PER_BLOCK
        for position in failed_in(block, 1, PRESENT | DONE) if block is not None else ():
            key = key_at(tracker._open_cache, first + position)
            task = tracker.get(key) if key is not None else None
            if task is not None and not task["_done"] and "_error" not in task and "error" in task:
                yield key, task


def _may_have_failed(block: bytes) -> bool:
    present, done, _, tried, *_ = HEAD.unpack_from(block)
    return bool(tried and present > done)
