"""Share with each worker which task it runs and since when, so that a death or a delay is blamed on one task."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile

__all__ = ["LIMIT", "NO_LIMIT", "POSITION", "TIME", "Heartbeats", "map_heartbeat"]

# A heartbeat is three doubles: the position of the task in progress (0: none is in progress), the time of
# time.monotonic() when it began, and the last position that the worker may begin. A position counts all tasks that this
# worker was given, from 1. The worker writes the time, then the position, and then reads the limit. So a task whose
# position is above the limit, and which has not begun some time after the limit was written, will not begin.
SIZE = 3
POSITION, TIME, LIMIT = range(SIZE)
NO_LIMIT = float("inf")


class Heartbeats:
    """The heartbeats of all workers, by slot. ``descriptor`` is that of the memory, for ``map_heartbeat()``."""

    def __init__(self, slots: int) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("tastypy_fast heartbeats")
        else:
            self.descriptor, name = tempfile.mkstemp(prefix="tastypy_fast-")
            os.unlink(name)
        try:
            os.ftruncate(self.descriptor, slots * SIZE * 8)
            self._memory = mmap.mmap(self.descriptor, slots * SIZE * 8)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._doubles = memoryview(self._memory).cast("d")

    def of_slot(self, slot: int) -> memoryview[float]:
        """Return the doubles of a worker."""
        return self._doubles[slot * SIZE:(slot + 1) * SIZE]

    def read(self, slot: int) -> tuple[int, float]:
        """Return the position and the start of the task in progress."""
        doubles = self._doubles
        return int(doubles[slot * SIZE + POSITION]), doubles[slot * SIZE + TIME]

    def set_limit(self, slot: int, limit: float) -> None:
        """Set the last position that a worker may begin."""
        self._doubles[slot * SIZE + LIMIT] = limit

    def clear(self, slot: int) -> None:
        """Prepare for a new worker."""
        self._doubles[slot * SIZE + POSITION] = 0.0
        self.set_limit(slot, NO_LIMIT)

    def close(self) -> None:
        """Unmap the memory, and close its descriptor."""
        self._doubles.release()
        # Raised if a view of one slot is still in use. The memory goes with it.
        with contextlib.suppress(BufferError):
            self._memory.close()
        os.close(self.descriptor)


def map_heartbeat(descriptor: int, slot: int) -> memoryview[float]:
    """Return the doubles of a worker, in the worker. Closes the descriptor."""
    memory = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    return memoryview(memory).cast("d")[slot * SIZE:(slot + 1) * SIZE]
