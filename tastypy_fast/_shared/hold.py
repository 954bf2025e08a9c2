"""Which processes suspend the automatic sync of a shared store, by ``hold()``.

``held`` in the database ``meta`` has the numbers of their workers, 8 bytes each. A process that ends by itself takes
its own away; that of a killed one is ignored, and taken away by whoever finds it. Whether one lives is told by the lock
on its file (see _workers).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tastypy_fast._shared.write_transaction import WriteTransaction
from tastypy_fast._store.worker_files import facts_of_workers

if TYPE_CHECKING:
    from tastypy_fast._shared.store import SharedStore

__all__ = ["Hold", "drop_all", "drop_holder", "keep_holder"]

HELD = b"held"

# How long, in seconds, holders that were found to live are taken to live.
LOOK_AGAIN = 0.5


def keep_holder(transaction: WriteTransaction, worker: int) -> None:
    """Note that a worker suspends the automatic sync."""
    _write(transaction, {*_read(transaction), worker})


def drop_holder(transaction: WriteTransaction, worker: int) -> None:
    """Note that a worker does not suspend it any more."""
    holders = _read(transaction)
    if worker in holders:
        _write(transaction, holders - {worker})


def drop_all(transaction: WriteTransaction) -> None:
    """Note that nobody suspends it any more."""
    if transaction.snapshot.get(HELD, db=transaction.meta) is not None:
        _write(transaction, ())


class Hold:
    """What this process knows of the holders."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._known = b""
        self._until = 0.0

    def lasts(self, raw: bytes) -> bool:
        """Whether one of the holders lives; those that do not are taken away. ``raw`` is what is in ``held`` now. The
        caller is in a transaction, and commits it."""
        worker = self._store.worker
        own = worker.number if worker else 0
        holders = _numbers(raw)
        if own in holders or (raw == self._known and time.monotonic() < self._until):
            return True
        living = {worker.number for worker in facts_of_workers(self._store.path, own)
                  if worker.number in holders and worker.lives}
        if living != holders or not living:
            raw = _write(self._store.transaction, living)
        self._known, self._until = raw, time.monotonic() + LOOK_AGAIN
        return bool(living)


def _numbers(raw: bytes | None) -> set[int]:
    # (an earlier version has written b"1", which names nobody)
    return set(struct.unpack(f"={len(raw) // 8}q", raw)) if raw and len(raw) % 8 == 0 else set()


def _read(transaction: WriteTransaction) -> set[int]:
    raw: Any = transaction.snapshot.get(HELD, db=transaction.meta)
    return _numbers(raw)


def _write(transaction: WriteTransaction, holders: Iterable[int]) -> bytes:
    numbers = sorted(holders)
    raw = struct.pack(f"={len(numbers)}q", *numbers)
    if raw:
        transaction.snapshot.put(HELD, raw, db=transaction.meta)
    else:
        transaction.snapshot.delete(HELD, db=transaction.meta)
    transaction.wrote = True
    return raw
