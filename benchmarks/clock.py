"""A stopwatch that pauses while input is generated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from time import perf_counter, process_time
from typing import Any

from benchmarks.stores.base import BATCH


class Clock:
    """Measure elapsed and processor time between ``start()`` and ``stop()``.

    ``seconds`` is elapsed time. ``cpu_seconds`` is user and system time of this process, without waiting for the disk
    or for other processes.
    """

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def start(self) -> None:
        """Start or resume the clock."""
        self.cpu_seconds -= process_time()
        self.seconds -= perf_counter()

    def stop(self) -> None:
        """Pause the clock."""
        self.seconds += perf_counter()
        self.cpu_seconds += process_time()

    def batches(self, items: Iterable[Any]) -> Iterator[list[Any]]:
        """Yield lists of up to 1,000 items. The running clock is paused while a list is generated."""
        iterator = iter(items)
        while True:
            self.stop()
            batch = list(islice(iterator, BATCH))
            self.start()
            if not batch:
                return
            yield batch
