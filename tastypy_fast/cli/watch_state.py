"""Follow a store from outside: count its tasks repeatedly, and derive rate, time left and recent failures."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any, NamedTuple

from tastypy_fast._inspect.lock_holders import how_is_open
from tastypy_fast._inspect.statuses import StatusReader, TaskState
from tastypy_fast._inspect.task_counts import TaskCounter
from tastypy_fast._mixins.counting import percent
from tastypy_fast._paths import resolved
from tastypy_fast.cli.formatting import duration, error_text, key_text, quantity
from tastypy_fast.cli.json_schema import store_object, task_object
from tastypy_fast.cli.open_store import Reader, is_tracker, open_reader
from tastypy_fast.types import StatusCounts

__all__ = ["Failure", "WatchState", "speed_text"]

# How many seconds the rate and the chart cover.
RATE_SECONDS, CHART_SECONDS = 60.0, 300.0
# How many recent failures are shown.
FAILURES = 5
# After how many seconds without a commit a private pipeline has nothing left to sync. It syncs changes in one second.
SETTLED_SECONDS = 2.0


class Sample(NamedTuple):
    """The number of finished tasks (or of keys, for a dict) at one time, in seconds of the monotonic clock."""

    when: float
    finished: int


class Failure(NamedTuple):
    """A failed try of a task. ``error`` is empty if the task has none."""

    key: Any
    state: TaskState
    error: str

    def text(self) -> str:
        """Return the key and the error in one line."""
        tried = f"tried {self.state.tries} times" if self.state.tries != 1 else "tried once"
        return f"{key_text(self.key)}  {self.error or tried}"


class WatchState:
    """Hold the counts, rates and failures of one run of ``watch``.

    The store is open during ``update()`` only, so that a command that needs it alone waits for one count at most. Rates
    use only samples that this object took, because a resumed pipeline does not record its earlier speed.
    """

    def __init__(self, path: str, max_tries: int | None) -> None:
        self._path = path
        self._given_limit = max_tries
        self.path = resolved(path)
        self.is_tracker = False
        self.samples: deque[Sample] = deque()
        self.counts = StatusCounts()
        # The number of keys of a dict, the limit by which tasks count as failed, and who has the store open to write:
        # "nobody", "private" or "shared".
        self.keys = self.max_tries = 0
        self.how = "nobody"
        self.failures: deque[Failure] = deque(maxlen=FAILURES)
        self._counter = TaskCounter(max_tries)
        self._suspects: dict[int, int] = {}
        # The last commit, and when it was first seen.
        self._commit, self._commit_at = -1, 0.0

    def update(self, now: float) -> None:
        """Count once more."""
        # Before the count: a process that ends in between has put its last results on disk.
        self.how = how_is_open(self.path)
        with open_reader(self._path) as reader:
            self.is_tracker = is_tracker(reader)
            if self.is_tracker:
                self._count(reader, now)
                finished = self.counts.tasks - self.counts.left
            else:
                finished = self.keys = len(reader)
        self.samples.append(Sample(now, finished))
        while self.samples[0].when < now - CHART_SECONDS:
            self.samples.popleft()

    def _count(self, reader: Reader, now: float) -> None:
        self.counts, _, self.max_tries = self._counter.count(reader)
        self.keys = self.counts.tasks
        # What a private pipeline has done is on disk after its next sync. A task that looks failed before may be done.
        before = self._commit
        self._commit = reader._store.db.info()["last_txnid"]
        if self._commit != before:
            self._commit_at = now
        if self.how != "private":
            self._suspects.update(self._counter.newly_failed)
        if self.how != "private" or self._commit != before or now - self._commit_at >= SETTLED_SECONDS:
            self._record_failures(reader)
        if self.how == "private":
            self._suspects.update(self._counter.newly_failed)

    def _record_failures(self, reader: Reader) -> None:
        """Show the latest of the suspects, if they are unfinished."""
        states = StatusReader(reader, self.max_tries)
        for seq in list(self._suspects)[-FAILURES:]:
            found = self._counter.failed_task(reader, seq)
            if found is not None:
                key, task = found
                (state,) = states.read([key])
                if state is not None and state.status in ("to retry", "failed"):
                    self.failures.append(Failure(key, state, error_text(task)))
        self._suspects = {}

    def is_finished(self) -> bool:
        """Return whether nothing is left that anybody will try.

        Without a limit of tries, failed tasks stay to retry. They will not be tried when no process has the store open.
        """
        counts = self.counts
        will_retry = counts.to_retry and self.how != "nobody"
        return self.is_tracker and not (counts.new or counts.running or will_retry)

    def rate(self) -> float | None:
        """Return the tasks finished per second over the last minute; None before the second sample.

        It is 0 if no process has the store open.
        """
        if not self.samples:
            return None
        if self.how == "nobody":
            return 0.0
        last = self.samples[-1]
        first = next(sample for sample in self.samples if sample.when >= last.when - RATE_SECONDS)
        passed = last.when - first.when
        return max(last.finished - first.finished, 0) / passed if passed > 0 else None

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
        return store_object(
            "watch", self.counts if self.is_tracker else None,
            path=self.path,
            kind="tracker" if self.is_tracker else "dict",
            keys=self.keys,
            max_tries=self.max_tries or None,
            open={"how": self.how},
            per_second=self.rate(),
            seconds_left=self.seconds_left(),
            failures=[task_object(one.key, one.state._replace(claim=None), tries=one.state.tries, error=one.error)
                      for one in self.failures],
        )

    def line(self) -> str:
        """Return a summary in one line."""
        if not self.is_tracker:
            return f"{quantity(self.keys, 'key')}  {self.rate_text(short=True)}"
        done = f" ({percent(self.counts.done / max(self.counts.tasks, 1), 2)})"
        numbers = "  ".join(f"{number:,} {word}{done if word == 'done' else ''}"
                            for word, number in self.counts.by_word().items())
        return f"{numbers}  {self.rate_text(short=True)}"

    def rate_text(self, short: bool = False) -> str:
        """Return the rate and the time left in words, or why there is none."""
        if self.is_tracker and self.counts.tasks and not self.counts.left:
            return "nothing left to do"
        if self.how == "nobody":
            return "no process has it open"
        rate, seconds = self.rate(), self.seconds_left()
        text = "measuring the rate" if rate is None else speed_text(rate) + ("" if short else " in the last minute")
        return text if seconds is None else f"{text}, {duration(seconds)} left"


def speed_text(rate: float) -> str:
    """Format tasks per second, minute or hour, in the first unit that gives at least one.

    >>> speed_text(12.34), speed_text(0.5), speed_text(0.001)
    ('12.3 a second', '30.0 a minute', '3.6 an hour')
    """
    if 0 < rate < 1:
        return f"{rate * 60:,.1f} a minute" if rate * 60 >= 1 else f"{rate * 3600:,.1f} an hour"
    return f"{rate:,.1f} a second"
