"""A clock that stands still while input is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from time import perf_counter, process_time
from typing import Any

from benchmarks.stores.common import BATCH


class Clock:
    """Seconds between start() and stop(), but for those in which a batch of input was made; and of these the
    seconds for which the process ran, user and system, so without waiting for the disk or other processes."""

    def __init__(self) -> None:
        self.seconds = self.running = 0.0

    def start(self) -> None:
        self.running -= process_time()
        self.seconds -= perf_counter()

    def stop(self) -> None:
        self.seconds += perf_counter()
        self.running += process_time()

    def batches(self, items: Iterable[Any]) -> Iterator[list[Any]]:
        """Lists of up to 1,000 items, made off the clock, which runs."""
        iterator = iter(items)
        while True:
            self.stop()
            batch = list(islice(iterator, BATCH))
            self.start()
            if not batch:
                return
            yield batch
