"""Measured results, and the JSON file that stores them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

FILE_VERSION = 1


class Sample(NamedTuple):
    """One measurement.

    ``seconds`` is elapsed time. ``cpu_seconds`` is the processor time of all processes in that time. ``memory`` is the
    peak growth of anonymous memory in bytes, or None if the system does not report it. ``disk`` is in bytes.
    """

    seconds: float
    cpu_seconds: float
    items: int
    memory: int | None
    disk: int


class Case(NamedTuple):
    """What is measured: a workload, the number and kind of keys, the number of processes, changes per operation."""

    workload: str
    n: int
    keys: str = "url"
    processes: int = 1
    batch: int = 1


class Result:
    """All samples of one store in one case.

    ``measured_n`` is the number of keys that was measured. It is less than ``case.n`` if the store was too slow.
    ``in_milliseconds`` means that the total time matters, not the rate. ``run`` is the index of the run in its file.
    """

    def __init__(
        self, case: Case, store: str, measured_n: int, in_milliseconds: bool, samples: list[Sample], run: int = 0
    ) -> None:
        self.case = case
        self.store = store
        self.measured_n = measured_n
        self.in_milliseconds = in_milliseconds
        self.samples = samples
        self.run = run

    @property
    def key(self) -> tuple[Case, str]:
        """Return what identifies the result in a file."""
        return self.case, self.store

    def with_run(self, run: int) -> Result:
        """Return the same result with another run index."""
        return Result(self.case, self.store, self.measured_n, self.in_milliseconds, self.samples, run)

    def values(self) -> list[float]:
        """Return items per second, or milliseconds, of each sample."""
        if self.in_milliseconds:
            return [sample.seconds * 1000 for sample in self.samples]
        return [sample.items / sample.seconds for sample in self.samples]

    def value(self, choose: Callable[[list[float]], float] = median) -> float:
        """Return the median, or another statistic, of the values."""
        return choose(self.values())

    def times_faster(self, other: Result) -> float:
        """Return the ratio of the median speeds: 2 means twice as fast as ``other``."""
        if self.in_milliseconds:
            return other.value() / self.value()
        return self.value() / other.value()

    @property
    def cpu_microseconds(self) -> float:
        """Return the median processor time per item, in microseconds."""
        return median([sample.cpu_seconds / sample.items for sample in self.samples]) * 1e6

    @property
    def memory(self) -> int | None:
        """Return the highest peak growth of memory in bytes, or None if it is unknown."""
        known = [sample.memory for sample in self.samples if sample.memory is not None]
        return max(known, default=None)

    @property
    def disk(self) -> int:
        """Return the median size of the files, in bytes."""
        return int(median([sample.disk for sample in self.samples]))


class SavedResults(NamedTuple):
    """The content of a results file: the facts of each run (machine, versions), and all results."""

    runs: list[dict[str, Any]]
    results: list[Result]

    @classmethod
    def load(cls, file: Path) -> SavedResults:
        """Read a file. Return no results if it does not exist."""
        if not file.exists():
            return cls([], [])
        found = json.loads(file.read_text())
        if found["version"] != FILE_VERSION:
            raise ValueError(f"{file} has version {found['version']}, not {FILE_VERSION}: measure again")
        return cls(found["runs"], [_from_json(**fields) for fields in found["results"]])

    def with_run(self, facts: dict[str, Any], results: Iterable[Result]) -> SavedResults:
        """Add a run. Its results replace earlier ones of the same store and case; a run without results is dropped."""
        merged = {result.key: result for result in self.results}
        merged |= {result.key: result.with_run(len(self.runs)) for result in results if result.samples}
        runs = [*self.runs, facts]
        used = sorted({result.run for result in merged.values()})
        # Sorted, so that a diff of two files shows only what was measured again.
        kept = [merged[key].with_run(used.index(merged[key].run)) for key in sorted(merged)]
        return SavedResults([runs[number] for number in used], kept)

    def save(self, file: Path) -> None:
        """Replace the file atomically. Each result is one line."""
        lines = ",\n".join(json.dumps(_to_json(result)) for result in self.results)
        runs = json.dumps(self.runs, indent=1)
        text = f'{{"version": {FILE_VERSION},\n"runs": {runs},\n"results": [\n{lines}\n]}}\n'
        new = file.with_name(file.name + ".new")
        new.write_text(text)
        new.replace(file)


# The keys of the file are those of its first version: "peer" is the store, "reached" is measured_n.


def _to_json(result: Result) -> dict[str, Any]:
    return {
        **result.case._asdict(),
        "peer": result.store,
        "reached": result.measured_n,
        "milliseconds": result.in_milliseconds,
        "run": result.run,
        "samples": [_rounded(sample) for sample in result.samples],
    }


def _rounded(sample: Sample) -> list[Any]:
    return [float(f"{sample.seconds:.6g}"), float(f"{sample.cpu_seconds:.6g}"), *sample[2:]]


def _from_json(peer: str, reached: int, milliseconds: bool, run: int, samples: list[list[Any]], **case: Any) -> Result:
    return Result(Case(**case), peer, reached, milliseconds, [Sample(*sample) for sample in samples], run)
