"""Share with each worker the place and the start of its task in progress, so that a death or a delay has one task."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile

__all__ = ["Heartbeats", "map_heartbeat"]

# A heartbeat is two doubles: the place of the task in its chunk, from 1 (0: none is in progress), and the time of
# time.monotonic() when it began. The worker writes the time first, so that a place never has an older time.
SIZE = 2


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
        """Return the two doubles of a worker."""
        return self._doubles[slot * SIZE:(slot + 1) * SIZE]

    def read(self, slot: int) -> tuple[int, float]:
        """Return the place and the start of the task in progress."""
        doubles = self._doubles
        return int(doubles[slot * SIZE]), doubles[slot * SIZE + 1]

    def clear(self, slot: int) -> None:
        """Say that no task is in progress."""
        self._doubles[slot * SIZE] = 0.0

    def close(self) -> None:
        """Unmap the memory, and close its descriptor."""
        self._doubles.release()
        # Raised if a view of one slot is still in use. The memory goes with it.
        with contextlib.suppress(BufferError):
            self._memory.close()
        os.close(self.descriptor)


def map_heartbeat(descriptor: int, slot: int) -> memoryview[float]:
    """Return the two doubles of a worker, in the worker. Closes the descriptor."""
    memory = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    return memoryview(memory).cast("d")[slot * SIZE:(slot + 1) * SIZE]
