"""``watch``: a pipeline as it runs, from another terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from itertools import pairwise
from typing import Any, NamedTuple

import click

from tastypy_fast._inspect.task_counts import TaskCounter, TaskCounts
from tastypy_fast._mixins.counting import percent
from tastypy_fast.cli.formatting import as_json, console, key_text, out, printable
from tastypy_fast.cli.key_filters import max_tries_option, store_argument
from tastypy_fast.cli.open_store import Reader, is_tracker, open_reader
from tastypy_fast.cli.status import duration
from tastypy_fast.cli.watch_screen import picture

__all__ = ["View", "speed_text", "watch"]

# Over how many seconds the rate is, and the chart.
RATE_OVER, CHART_OVER = 60.0, 300.0
# So many failures are shown.
FAILURES = 5


class Sample(NamedTuple):
    """How many tasks were finished at a time; or keys were there."""

    when: float
    finished: int


class View:
    """What is seen of a store from one terminal, since this view began: a store that was resumed an hour ago tells
    nothing of how fast it was before."""

    def __init__(self, path: str, max_tries: int) -> None:
        self._path = path
        self._max_tries = max_tries
        self.samples: deque[Sample] = deque()
        self.counts = TaskCounts()
        self.failures: deque[tuple[str, str]] = deque(maxlen=FAILURES)
        self._suspects: dict[int, int] = {}
        self._open()

    def _open(self) -> None:
        self.reader: Reader = open_reader(self._path)
        self.is_tracker = is_tracker(self.reader)
        self._census = TaskCounter(self.reader, self._max_tries) if self.is_tracker else None

    def close(self) -> None:
        """Let go of the store."""
        self.reader.close()

    def look(self, now: float) -> None:
        """Count once more. The store may have been exchanged for another one (``compact`` does so)."""
        if self.reader._store.is_gone():
            self.reader.close()
            self._open()
        if self._census is None:
            finished = len(self.reader)
            self.counts = TaskCounts(tasks=finished)
        else:
            before, self.counts = self.counts, self._census.count()
            finished = self.counts.done + self.counts.aborted + (self.counts.failed if self._max_tries else 0)
            self._note_failures(self._census, self.counts != before)
        self.samples.append(Sample(now, finished))
        while self.samples[0].when < now - CHART_OVER:
            self.samples.popleft()

    def _note_failures(self, census: TaskCounter, has_moved: bool) -> None:
        # What a private pipeline has just begun looks like what has failed. Once it went on, that is told apart.
        if has_moved or not self._suspects:
            for order, tries in list(self._suspects.items())[-FAILURES:]:
                found = census.task(order)
                if found is not None:
                    key, task = found
                    error = task.get("error")
                    self.failures.append((key_text(key), f"{error}" if error else f"tried {tries} times"
                                          if tries != 1 else "tried once"))
            self._suspects = {}
        self._suspects.update(census.lately)

    def rate(self) -> float | None:
        """Tasks finished in a second, over the last minute of this view; None before there is anything to tell."""
        if not self.samples:
            return None
        last = self.samples[-1]
        first = next(sample for sample in self.samples if sample.when >= last.when - RATE_OVER)
        passed = last.when - first.when
        return (last.finished - first.finished) / passed if passed > 0 else None

    def seconds_left(self) -> float | None:
        """How long what is left takes at this rate; None where nobody can tell."""
        rate = self.rate()
        return self.counts.left / rate if self.is_tracker and rate is not None and rate > 0 else None

    def rates(self) -> list[tuple[float, float]]:
        """For the chart: seconds ago, negative, and the rate then."""
        samples = list(self.samples)
        now = samples[-1].when
        return [(after.when - now, max(after.finished - before.finished, 0) / (after.when - before.when))
                for before, after in pairwise(samples) if after.when > before.when]

    def as_dict(self) -> dict[str, Any]:
        """What a program gets."""
        rate, left = self.rate(), self.seconds_left()
        numbers = self.counts._asdict() if self.is_tracker else {"keys": self.counts.tasks}
        return {**numbers, "per_second": rate, "seconds_left": left,
                "failures": [{"key": key, "error": error} for key, error in self.failures]}

    def line(self) -> str:
        """What there is room for in a line."""
        counts, rate = self.counts, self.rate()
        speed = "" if rate is None else f"  {speed_text(rate)}"
        if not self.is_tracker:
            return f"{counts.tasks:,} keys{speed}"
        return (f"{counts.done:,} done ({percent(counts.done / max(counts.tasks, 1), 2)})  {counts.failed:,} failed  "
                f"{counts.aborted:,} aborted  {counts.left:,} left{speed}{self.left_text(', ')}")

    def rate_text(self) -> str:
        """The rate, in words."""
        rate = self.rate()
        return "the rate is seen at the next look" if rate is None else f"{speed_text(rate)} in the last minute"

    def left_text(self, before: str) -> str:
        """The time that is left, in words."""
        if not self.is_tracker or not self.counts.left:
            return f"{before}nothing left to do" if self.is_tracker and self.counts.tasks else ""
        seconds = self.seconds_left()
        return "" if seconds is None else f"{before}{duration(seconds)} left"


def speed_text(rate: float) -> str:
    """A rate in the unit in which there is something to see."""
    if 0 < rate < 1:
        return f"{rate * 60:,.1f} a minute" if rate * 60 >= 1 else f"{rate * 3600:,.1f} an hour"
    return f"{rate:,.1f} a second"


@click.command()
@store_argument
@max_tries_option
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, metavar="SECONDS",
              help="Look so often.")
@click.option("--until-done", is_flag=True, help="End when nothing is left to do.")
@click.option("--json", "as_lines", is_flag=True, help="A JSON object in a line at each look.")
def watch(store: str, max_tries: int, interval: float, until_done: bool, as_lines: bool) -> None:
    """Watch a pipeline from another terminal, until Ctrl-C: how far it is, how fast, how long it still takes, and what
    failed lately.

    It only reads counts, and slows nobody down. Rate and time left are those of the last minute of this view, so they
    are right after a resume, too. Failed is as in status; an "error" among a task's data is shown with it. What a
    private pipeline did is seen when it syncs. Where there is no terminal it prints a line at each look.
    """
    view = View(store, max_tries)
    try:
        if as_lines or not sys.stdout.isatty():
            for _ in looks(view, interval, until_done):
                out(as_json(view.as_dict()) if as_lines else printable(view.line()))
                sys.stdout.flush()
        else:
            show(view, interval, until_done)
    finally:
        view.close()


def looks(view: View, interval: float, until_done: bool) -> Any:
    """Look at the store, and again after each interval."""
    while True:
        began = time.monotonic()
        view.look(began)
        yield
        if until_done and view.is_tracker and not view.counts.left:
            return
        time.sleep(max(interval - (time.monotonic() - began), 0.05))


def show(view: View, interval: float, until_done: bool) -> None:
    """The live view."""
    from rich.live import Live

    terminal = console()
    with Live(console=terminal, screen=True, auto_refresh=False) as live:
        for _ in looks(view, interval, until_done):
            live.update(picture(view, terminal.size.width, terminal.size.height, terminal.no_color), refresh=True)
    out(printable(f"{view.reader.path}: {view.line()}"))
