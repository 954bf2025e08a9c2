"""Follow a store from outside: count its tasks repeatedly, and derive rate, time left and recent failures."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any, NamedTuple

from tastypy_fast._inspect.task_counts import StatusCounts, TaskCounter
from tastypy_fast._mixins.counting import percent
from tastypy_fast.cli.formatting import duration, error_text, key_text
from tastypy_fast.cli.open_store import Reader, is_tracker, open_reader

__all__ = ["WatchState", "speed_text"]

# How many seconds the rate and the chart cover.
RATE_SECONDS, CHART_SECONDS = 60.0, 300.0
# How many recent failures are shown.
FAILURES = 5


class Sample(NamedTuple):
    """The number of finished tasks (or of keys, for a dict) at one time, in seconds of the monotonic clock."""

    when: float
    finished: int


class WatchState:
    """Hold the counts, rates and failures of one run of ``watch``.

    Rates use only samples that this object took, because a resumed pipeline does not record its earlier speed.
    """

    def __init__(self, path: str, max_tries: int) -> None:
        self._path = path
        self._max_tries = max_tries
        self.samples: deque[Sample] = deque()
        self.counts = StatusCounts()
        self.failures: deque[tuple[str, str]] = deque(maxlen=FAILURES)
        self._suspects: dict[int, int] = {}
        self._open()

    def _open(self) -> None:
        self.reader: Reader = open_reader(self._path)
        self.is_tracker = is_tracker(self.reader)
        self._counter = TaskCounter(self.reader, self._max_tries) if self.is_tracker else None

    def close(self) -> None:
        """Close the store."""
        self.reader.close()

    def update(self, now: float) -> None:
        """Count once more. Reopens the store first if its files were replaced, as ``compact`` does."""
        if self.reader._store.is_gone():
            self.reader.close()
            self._open()
        if self._counter is None:
            finished = len(self.reader)
            self.counts = StatusCounts(tasks=finished)
        else:
            before, self.counts = self.counts, self._counter.count()
            finished = self.counts.done + self.counts.aborted + (self.counts.failed if self._max_tries else 0)
            self._record_failures(self._counter, self.counts != before)
        self.samples.append(Sample(now, finished))
        while self.samples[0].when < now - CHART_SECONDS:
            self.samples.popleft()

    def _record_failures(self, counter: TaskCounter, has_changed: bool) -> None:
        # Report a suspect only if it is still open when the counts have changed again. A task that a private pipeline
        # has just begun looks failed on disk, because private trackers write no claims.
        if has_changed or not self._suspects:
            for seq, tries in list(self._suspects.items())[-FAILURES:]:
                found = counter.failed_task(seq)
                if found is not None:
                    key, task = found
                    tried = f"tried {tries} times" if tries != 1 else "tried once"
                    self.failures.append((key_text(key), error_text(task) or tried))
            self._suspects = {}
        self._suspects.update(counter.newly_failed)

    def rate(self) -> float | None:
        """Return the tasks finished per second over the last minute; None before the second sample."""
        if not self.samples:
            return None
        last = self.samples[-1]
        first = next(sample for sample in self.samples if sample.when >= last.when - RATE_SECONDS)
        passed = last.when - first.when
        return (last.finished - first.finished) / passed if passed > 0 else None

    def seconds_left(self) -> float | None:
        """Return how long the open tasks take at the current rate; None if the rate is zero or unknown."""
        rate = self.rate()
        return self.counts.left / rate if self.is_tracker and rate is not None and rate > 0 else None

    def rates(self) -> list[tuple[float, float]]:
        """Return the points of the chart: seconds before now as a negative number, and the rate at that time."""
        samples = list(self.samples)
        now = samples[-1].when
        return [(after.when - now, max(after.finished - before.finished, 0) / (after.when - before.when))
                for before, after in pairwise(samples) if after.when > before.when]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of the JSON output."""
        rate, left = self.rate(), self.seconds_left()
        numbers = self.counts._asdict() if self.is_tracker else {"keys": self.counts.tasks}
        return {**numbers, "per_second": rate, "seconds_left": left,
                "failures": [{"key": key, "error": error} for key, error in self.failures]}

    def line(self) -> str:
        """Return a summary in one line."""
        counts, rate = self.counts, self.rate()
        speed = "" if rate is None else f"  {speed_text(rate)}"
        if not self.is_tracker:
            return f"{counts.tasks:,} keys{speed}"
        return (f"{counts.done:,} done ({percent(counts.done / max(counts.tasks, 1), 2)})  {counts.failed:,} failed  "
                f"{counts.aborted:,} aborted  {counts.left:,} left{speed}{self.left_text(', ')}")

    def rate_text(self) -> str:
        """Return the rate in words."""
        rate = self.rate()
        return "measuring the rate" if rate is None else f"{speed_text(rate)} in the last minute"

    def left_text(self, before: str) -> str:
        """Return the time left in words, after the separator ``before``; empty if it is unknown."""
        if not self.is_tracker or not self.counts.left:
            return f"{before}nothing left to do" if self.is_tracker and self.counts.tasks else ""
        seconds = self.seconds_left()
        return "" if seconds is None else f"{before}{duration(seconds)} left"


def speed_text(rate: float) -> str:
    """Format tasks per second, minute or hour, in the first unit that gives at least one.

    >>> speed_text(12.34), speed_text(0.5), speed_text(0.001)
    ('12.3 a second', '30.0 a minute', '3.6 an hour')
    """
    if 0 < rate < 1:
        return f"{rate * 60:,.1f} a minute" if rate * 60 >= 1 else f"{rate * 3600:,.1f} an hour"
    return f"{rate:,.1f} a second"
