"""Run measurements in rounds, with the stores in turn, and find the size that a slow store can manage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from math import inf, log
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from benchmarks.measure import ALL_WORKLOADS, measure, stores_of
from benchmarks.results import Case, Result, Sample
from benchmarks.shared_workloads import SHARED_WORKLOADS
from benchmarks.stores import OURS
from benchmarks.workloads import PREPARATIONS, WORKLOADS, Workload

FIRST_PROBE = 1000
PROBE_SIZES = sorted(digit * 10**power for digit in (1, 2, 5) for power in range(2, 9))


class Step(NamedTuple):
    """A part of a run: every combination of its fields, in ``rounds`` rounds.

    ``stores`` is None for all stores. ``keys`` apply to workloads of one process, ``processes`` to the others (they are
    the workers of a pipeline), ``batches`` to shared workloads. ``limit`` is the longest time of a measurement of
    another store, in seconds: a slower store is measured with fewer keys. A measurement of more than half the limit is
    not repeated, unless ``repeat_slow``.
    """

    workloads: Sequence[str]
    sizes: Sequence[int]
    keys: Sequence[str] = ("url",)
    processes: Sequence[int] = (1,)
    batches: Sequence[int] = (1,)
    rounds: int = 3
    stores: Sequence[str] | None = None
    limit: float = 20
    repeat_slow: bool = False

    def tables(self, n: int) -> list[list[Result]]:
        """Return the results to measure at one size: a list of all stores for each case."""
        tables = []
        for case in self._cases(n):
            in_milliseconds = ALL_WORKLOADS[case.workload].unit == "ms"
            tables.append([Result(case, name, n, in_milliseconds, []) for name in self.names(case)])
        return [table for table in tables if table]

    def names(self, case: Case) -> list[str]:
        """Return the names of the stores to measure in one case."""
        found = stores_of(case.workload, case.batch)
        return [name for name in found if not self.stores or name in self.stores]

    def _cases(self, n: int) -> Iterator[Case]:
        for workload in self.workloads:
            if workload in WORKLOADS:
                yield from (Case(workload, n, kind) for kind in self.keys if kind in WORKLOADS[workload].key_kinds)
            else:
                yield from (
                    Case(workload, n, "url", processes, batch)
                    for processes in self.processes
                    for batch in (self.batches if workload in SHARED_WORKLOADS else (1,))
                )

    def measurements(self) -> int:
        """Return the number of measurements."""
        return self.rounds * sum(len(table) for n in self.sizes for table in self.tables(n))


class Runner:
    """Measure the steps of a run.

    Stores are created below ``folder``. A store that several workloads start from is created once. A store in
    ``required`` is measured at full size, and its failure ends the run; any other store that fails is skipped.
    ``measure`` runs one measurement, by the name of the store.
    """

    def __init__(
        self,
        folder: Path,
        log: Callable[[str], None],
        measure: Callable[[str, Case, Path], Sample] = measure,
        required: Collection[str] = (OURS,),
    ) -> None:
        self._folder = folder
        self._log = log
        self._measure_store = measure
        self._required = required
        self._limit = inf
        self._repeat_slow = False
        self._prepared: set[Path] = set()
        # Seconds by store and case, then by n.
        self._seconds: dict[tuple[str, Case], dict[int, float]] = {}
        self._reused: set[str | None] = set()
        self.failures: list[str] = []

    def run(self, steps: Sequence[Step], save: Callable[[list[Result]], None]) -> list[Result]:
        """Measure every case of every step with every store that supports it.

        In each round the stores are measured in turn, so that a noisy minute affects all of them. Each round starts
        with another store. ``save`` is called after each case with all results so far.
        """
        began = monotonic()
        total = sum(step.measurements() for step in steps)
        count = 0
        results: list[Result] = []
        for step in steps:
            self._limit, self._repeat_slow = step.limit, step.repeat_slow
            for n in step.sizes:
                tables = step.tables(n)
                results += [result for table in tables for result in table]
                self._reused = {starts_from(table[0].case.workload) for table in tables}
                self._reused |= {starts_from(name) for name in self._reused if name}
                for number in range(step.rounds):
                    for table in tables:
                        first = number % len(table)
                        for result in table[first:] + table[:first]:
                            outcome = self._measure(result)
                            count += 1
                            passed = monotonic() - began
                            left = passed / count * (total - count)
                            self._log(
                                f"[{count}/{total}, {passed / 60:.1f} min, about {left / 60:.0f} min left]  "
                                f"{title(result.case)}, round {number + 1} of {step.rounds}, {result.store}: {outcome}"
                            )
                        save(results)
                self._remove_prepared()
        return [result for result in results if result.samples]

    def _measure(self, result: Result) -> str:
        """Add one sample, and return the outcome as text."""
        if any(failure.startswith(f"{title(result.case)}, {result.store}:") for failure in self.failures):
            return "skipped"
        required = result.store in self._required
        is_slow = result.samples and result.samples[0].seconds > self._limit / 2
        if is_slow and not required and not self._repeat_slow:
            return "slow, measured once"
        try:
            if not result.samples:
                result.measured_n = result.case.n if required else self._reachable_n(result.store, result.case)
            sample = self._sample(result.store, result.case._replace(n=result.measured_n))
        except RuntimeError as error:
            if required:
                raise
            self.failures.append(f"{title(result.case)}, {result.store}: {error}")
            result.samples.clear()
            return f"FAILED: {error}"
        result.samples.append(sample)
        if result.in_milliseconds:
            text = f"{sample.seconds * 1000:,.2f} ms"
        else:
            text = f"{sample.items / sample.seconds:,.0f}/s"
        return text if result.measured_n == result.case.n else f"{text} at n={result.measured_n:,}"

    def _reachable_n(self, store: str, case: Case) -> int:
        """Return the number of keys, up to the case's own, at which the workload ends within the limit."""
        n = case.n
        if self._limit == inf:
            return n
        prerequisite = starts_from(case.workload)
        if prerequisite:
            n = min(n, self._reachable_n(store, Case(prerequisite, n, case.keys)))
        seconds = self._seconds_of(store, case)
        probe = FIRST_PROBE
        while probe < n:
            if probe not in seconds:
                self._sample(store, case._replace(n=probe, processes=1))
            if estimate(seconds, n) <= self._limit:
                return n
            larger = [size for size in PROBE_SIZES if probe < size < n and estimate(seconds, size) <= self._limit]
            if not larger:
                return probe
            probe = min(larger[-1], probe * 10)
        return n

    def _sample(self, store: str, case: Case) -> Sample:
        about = {**ALL_WORKLOADS, **PREPARATIONS}[case.workload]
        path = self._folder / f"{store}-work"
        try:
            if isinstance(about, Workload) and about.starts_from:
                prepared = self._prepare(store, case._replace(workload=about.starts_from))
                if about.writes:
                    copy_to_disk(prepared, path)
                else:
                    path = prepared
            sample = self._measure_store(store, case, path)
            seconds = self._seconds_of(store, case)
            seconds[case.n] = max(sample.seconds, seconds.get(case.n, 0))
            if case.workload in self._reused and self._path(store, case) not in self._prepared:
                path.rename(self._path(store, case))
                self._prepared.add(self._path(store, case))
            return sample
        finally:
            if path not in self._prepared:
                shutil.rmtree(path, ignore_errors=True)

    def _seconds_of(self, store: str, case: Case) -> dict[int, float]:
        return self._seconds.setdefault((store, case._replace(n=0, processes=1)), {})

    def _path(self, store: str, case: Case) -> Path:
        return self._folder / f"{store}-{case.workload}-{case.keys}-{case.n}"

    def _prepare(self, store: str, case: Case) -> Path:
        """Return the path of the store that a workload left; run that workload if it was not run yet."""
        path = self._path(store, case)
        if path not in self._prepared:
            self._reused.add(case.workload)
            self._sample(store, case)
        return path

    def _remove_prepared(self) -> None:
        for path in self._prepared:
            shutil.rmtree(path)
        self._prepared.clear()


def starts_from(workload: str) -> str | None:
    """Return the workload that prepares the store of another one."""
    about = {**ALL_WORKLOADS, **PREPARATIONS}[workload]
    return about.starts_from if isinstance(about, Workload) else None


def title(case: Case) -> str:
    """Return a case as text."""
    parts = [f"n={case.n:,}", case.workload]
    if case.keys != "url":
        parts.append(f"{case.keys} keys")
    if case.workload not in WORKLOADS:
        parts.append(f"{case.processes} process{'es' * (case.processes > 1)}")
    if case.batch != 1:
        parts.append(f"batches of {case.batch:,}")
    return " ".join(parts)


def estimate(seconds: dict[int, float], n: int) -> float:
    """Extrapolate the time for n keys from smaller sizes.

    The growth is that between the last two sizes. With a single size it is taken to be quadratic.
    """
    known = sorted(seconds.items())
    size, took = known[-1]
    power = 2.0
    for (smaller, smaller_took), (larger, larger_took) in pairwise(known):
        power = max(1.0, log(larger_took / smaller_took) / log(larger / smaller))
    return took * float((n / size) ** power)


def copy_to_disk(source: Path, target: Path) -> None:
    """Copy a folder and flush it, because a measured flush would otherwise also write the copy."""
    shutil.copytree(source, target)
    for file in target.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
