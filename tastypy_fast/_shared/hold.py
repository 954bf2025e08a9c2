"""Record which processes suspend the automatic sync of a shared store by ``hold()``.

The entry ``held`` of the database ``meta`` has the numbers of their workers, 8 bytes each. A process that closes the
store removes its own number. The number of a killed process is ignored, and the first process that finds it removes it.
The lock on a worker's file shows whether its process is alive (see ``_store.live_workers``).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable

from tastypy_fast._shared.write_transaction import WriteTransaction
from tastypy_fast._store.live_workers import read_worker_files

__all__ = ["Hold"]

HELD = b"held"

# For how many seconds a holder that was found alive is not checked again.
RECHECK_AFTER = 0.5


class Hold:
    """The holders of one store. Its methods are called inside the write transaction."""

    def __init__(self, transaction: WriteTransaction) -> None:
        self._transaction = transaction
        # The entry in which a living holder was found last, and the time until which this is trusted.
        self._known = b""
        self._until = 0.0

    def add(self, worker: int) -> None:
        """Suspend the automatic sync for a worker."""
        self._write({*self.holders(), worker})

    def remove(self, worker: int) -> None:
        """End the hold of one worker."""
        holders = self.holders()
        if worker in holders:
            self._write(holders - {worker})

    def clear(self) -> None:
        """End the holds of all workers."""
        if self.is_recorded():
            self._write(())

    def is_recorded(self) -> bool:
        """Whether there are holders, alive or dead. It reads no worker file."""
        return self._read() is not None

    def holders(self) -> set[int]:
        """Return the numbers of all workers that suspend the automatic sync, including dead ones."""
        return _numbers(self._read())

    def is_active(self) -> bool:
        """Return whether a holder is alive. The numbers of dead holders are removed with this transaction."""
        raw = self._read()
        if raw is None:
            return False
        own = self._transaction.worker_number
        holders = _numbers(raw)
        if own in holders or (raw == self._known and time.monotonic() < self._until):
            return True
        living = {worker.number for worker in read_worker_files(self._transaction.path, own)
                  if worker.number in holders and worker.is_alive}
        if living != holders or not living:
            raw = self._write(living)
        self._known, self._until = raw, time.monotonic() + RECHECK_AFTER
        return bool(living)

    def _read(self) -> bytes | None:
        raw: bytes | None = self._transaction.snapshot.get(HELD, db=self._transaction.meta)
        return raw

    def _write(self, holders: Iterable[int]) -> bytes:
        transaction = self._transaction
        numbers = sorted(holders)
        raw = struct.pack(f"={len(numbers)}q", *numbers)
        if raw:
            transaction.snapshot.put(HELD, raw, db=transaction.meta)
        else:
            transaction.snapshot.delete(HELD, db=transaction.meta)
        transaction.wrote = True
        return raw


def _numbers(raw: bytes | None) -> set[int]:
    # An earlier version wrote b"1", which is the number of no worker.
    return set(struct.unpack(f"={len(raw) // 8}q", raw)) if raw and len(raw) % 8 == 0 else set()
