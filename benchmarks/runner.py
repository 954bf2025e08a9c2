"""Measures in rounds, each store in turn, and finds out how far a slow one gets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import log
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from benchmarks.measure import ALL_WORKLOADS, measure, stores_of
from benchmarks.results import Case, Result, Sample
from benchmarks.stores import OURS
from benchmarks.workloads import PREPARATIONS, WORKLOADS, Workload

FIRST_PROBE = 1000
STEPS = sorted(step * 10**power for step in (1, 2, 5) for power in range(2, 9))


class Step(NamedTuple):
    """A part of a run: every combination of these, in so many rounds. ``peers`` are all where it is None; a workload
    of one process has no ``processes`` and ``batches``. No measurement of a peer is to take more than ``limit``
    seconds: where it would, it is done to fewer keys; and what takes more than half of that is done only once."""

    workloads: Sequence[str]
    sizes: Sequence[int]
    keys: Sequence[str] = ("url",)
    processes: Sequence[int] = (1,)
    batches: Sequence[int] = (1,)
    rounds: int = 3
    peers: Sequence[str] | None = None
    limit: float = 20

    def tables(self, n: int) -> list[list[Result]]:
        """For each case at one size what is to be measured."""
        tables = []
        for case in self._cases(n):
            about = ALL_WORKLOADS[case.workload]
            names = [name for name in stores_of(case.workload, case.batch) if not self.peers or name in self.peers]
            tables.append([Result(case, name, n, about.unit == "ms", []) for name in names])
        return [table for table in tables if table]

    def _cases(self, n: int) -> Iterator[Case]:
        for workload in self.workloads:
            if workload in WORKLOADS:
                yield from (Case(workload, n, kind) for kind in self.keys if kind in WORKLOADS[workload].kinds)
            else:
                yield from (
                    Case(workload, n, "url", processes, batch)
                    for processes in self.processes
                    for batch in self.batches
                )

    def measurements(self) -> int:
        return self.rounds * sum(len(table) for n in self.sizes for table in self.tables(n))


class Runner:
    """Measures steps. Stores lie below ``folder``; one that a workload begins with is made once."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._limit = 0.0
        self._made: set[Path] = set()
        # Seconds by store and workload, then by n.
        self._seconds: dict[tuple[str, Case], dict[int, float]] = {}
        self._wanted: set[str | None] = set()
        self.failures: list[str] = []

    def run(self, steps: Sequence[Step], keep: Callable[[list[Result]], None]) -> list[Result]:
        """Every case of every step, with all stores that have it. In each round the stores take turns, so that a noisy
        minute hits all alike, and each time another one begins. ``keep`` is called often with what there is by then."""
        began = monotonic()
        total = sum(step.measurements() for step in steps)
        count = 0
        results: list[Result] = []
        for step in steps:
            self._limit = step.limit
            for n in step.sizes:
                tables = step.tables(n)
                results += [result for table in tables for result in table]
                self._wanted = {before(table[0].case.workload) for table in tables}
                self._wanted |= {before(name) for name in self._wanted if name}
                for turn in range(step.rounds):
                    for table in tables:
                        first = turn % len(table)
                        for result in table[first:] + table[:first]:
                            said = self._measure(result)
                            count += 1
                            passed = monotonic() - began
                            left = passed / count * (total - count)
                            self._tell(
                                f"[{count}/{total}, {passed / 60:.1f} min, perhaps {left / 60:.0f} more]  "
                                f"{title(result.case)}, round {turn + 1} of {step.rounds}, {result.peer}: {said}"
                            )
                        keep(results)
                self._clear()
        return [result for result in results if result.samples]

    def _measure(self, result: Result) -> str:
        """Measure once more, and say what came out. A peer that fails is left out; tastypy_fast must not."""
        if any(failure.startswith(f"{title(result.case)}, {result.peer}:") for failure in self.failures):
            return "left out"
        if result.peer != OURS and result.samples and result.samples[0].seconds > self._limit / 2:
            return "takes long, measured once"
        try:
            if not result.samples:
                result.reached = self._reach(result.peer, result.case)
            sample = self._sample(result.peer, result.case._replace(n=result.reached))
        except RuntimeError as error:
            if result.peer == OURS:
                raise
            self.failures.append(f"{title(result.case)}, {result.peer}: {error}")
            result.samples.clear()
            return f"FAILED: {error}"
        result.samples.append(sample)
        rate = f"{sample.seconds * 1000:,.2f} ms" if result.milliseconds else f"{sample.items / sample.seconds:,.0f}/s"
        return rate if result.reached == result.case.n else f"{rate} at n={result.reached:,}"

    def _reach(self, peer: str, case: Case) -> int:
        """At how many keys a workload can be done within the limit, up to the case's own."""
        n = case.n
        if peer == OURS:
            return n
        earlier = before(case.workload)
        if earlier:
            n = min(n, self._reach(peer, Case(earlier, n, case.keys)))
        seconds = self._seconds_of(peer, case)
        probe = FIRST_PROBE
        while probe < n:
            if probe not in seconds:
                self._sample(peer, case._replace(n=probe, processes=1))
            if estimate(seconds, n) <= self._limit:
                return n
            further = [step for step in STEPS if probe < step < n and estimate(seconds, step) <= self._limit]
            if not further:
                return probe
            probe = min(further[-1], probe * 10)
        return n

    def _sample(self, peer: str, case: Case) -> Sample:
        about = {**ALL_WORKLOADS, **PREPARATIONS}[case.workload]
        path = self._folder / f"{peer}-work"
        try:
            if isinstance(about, Workload) and about.before:
                made = self._make(peer, case._replace(workload=about.before))
                if about.writes:
                    copy_to_disk(made, path)
                else:
                    path = made
            sample = measure(peer, case, path)
            seconds = self._seconds_of(peer, case)
            seconds[case.n] = max(sample.seconds, seconds.get(case.n, 0))
            if case.workload in self._wanted and self._path(peer, case) not in self._made:
                path.rename(self._path(peer, case))
                self._made.add(self._path(peer, case))
            return sample
        finally:
            if path not in self._made:
                shutil.rmtree(path, ignore_errors=True)

    def _seconds_of(self, peer: str, case: Case) -> dict[int, float]:
        return self._seconds.setdefault((peer, case._replace(n=0, processes=1)), {})

    def _path(self, peer: str, case: Case) -> Path:
        return self._folder / f"{peer}-{case.workload}-{case.keys}-{case.n}"

    def _make(self, peer: str, case: Case) -> Path:
        """The store that another workload leaves."""
        path = self._path(peer, case)
        if path not in self._made:
            self._wanted.add(case.workload)
            self._sample(peer, case)
        return path

    def _clear(self) -> None:
        for path in self._made:
            shutil.rmtree(path)
        self._made.clear()


def before(workload: str) -> str | None:
    """The workload whose result another begins with."""
    about = {**ALL_WORKLOADS, **PREPARATIONS}[workload]
    return about.before if isinstance(about, Workload) else None


def title(case: Case) -> str:
    """A case in words."""
    parts = [f"n={case.n:,}", case.workload]
    if case.keys != "url":
        parts.append(f"{case.keys} keys")
    if case.workload not in WORKLOADS:
        parts.append(f"{case.processes} at once")
    if case.batch != 1:
        parts.append(f"batches of {case.batch:,}")
    return " ".join(parts)


def estimate(seconds: dict[int, float], n: int) -> float:
    """How long n keys will take, by what fewer did: as fast growing as between the last two, squared with only one."""
    known = sorted(seconds.items())
    size, took = known[-1]
    power = 2.0
    for (smaller, before_that), (larger, then) in pairwise(known):
        power = max(1.0, log(then / before_that) / log(larger / smaller))
    return took * float((n / size) ** power)


def copy_to_disk(source: Path, target: Path) -> None:
    """Copy a folder and flush it, so that no measured flush has to write the copy too."""
    shutil.copytree(source, target)
    for file in target.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
