"""Choose how many tasks a chunk has: so many that sending it costs little, and so few that it ends soon."""

from __future__ import annotations

__all__ = ["ChunkSize"]

# A chunk takes about this time, in seconds.
GOAL_SECONDS = 0.1
# A chunk has at most this number of tasks, and this number of bytes of data.
MAX_TASKS = 1000
MAX_BYTES = 1 << 20
# A second chunk waits at a worker while a task takes less than this, in seconds. So no long task waits behind another
# one while other workers are idle.
QUICK_SECONDS = 0.02
# The weight of the latest chunk in the mean.
WEIGHT = 0.3


class ChunkSize:
    """The size of the next chunk, from the time and the size of tasks so far.

    ``tasks`` is the number of tasks, at first 1. ``chunks`` is the number of chunks that a worker may have: 1 or 2.
    ``seconds`` is the mean time of a task, negative while it is not known.
    """

    # The largest chunk. An executor may change it.
    max_tasks = MAX_TASKS

    def __init__(self) -> None:
        self.tasks = self.chunks = 1
        self.seconds = -1.0
        self._bytes = 1.0
        self._limit = 1 << 62

    def learn(self, size: int, begun: int, seconds: float, last: float) -> None:
        """Take the time of a chunk of ``size`` tasks into account. ``last`` is the time of the last one that began."""
        if not begun:
            return
        mean = seconds / begun
        if begun < size:
            # The chunk ended early: the last task took long, or the results are large. So the next chunk is small.
            self._limit = begun
            self.seconds = max(self.seconds, mean, last)
        else:
            self._limit = min(1 << 62, max(self._limit, size) * 2)
            self.seconds = mean if self.seconds < 0 else (1 - WEIGHT) * self.seconds + WEIGHT * mean
        self._choose()

    def learn_bytes(self, mean: float) -> None:
        """Take the mean size of the data of tasks into account."""
        self._bytes = max(mean, (1 - WEIGHT) * self._bytes, 1.0)
        self._choose()

    def _choose(self) -> None:
        most = min(self._limit, self.max_tasks, int(MAX_BYTES / self._bytes))
        if self.seconds < 0:
            most = 1
        elif self.seconds > 0:
            most = min(most, int(GOAL_SECONDS / self.seconds))
        self.tasks = max(1, most)
        self.chunks = 2 if 0 <= self.seconds < QUICK_SECONDS else 1
