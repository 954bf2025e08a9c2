"""What was measured, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

SAVED_VERSION = 1


class Sample(NamedTuple):
    """One measurement. ``running``: the seconds of processor time in ``seconds``, of all processes. ``memory``: how
    much anonymous memory grew at most, in bytes; None where it cannot be told. ``disk``: bytes."""

    seconds: float
    running: float
    items: int
    memory: int | None
    disk: int


class Case(NamedTuple):
    """What is measured of each store: one workload, at ``n`` keys of one kind, by so many processes at once, so many
    changes with each operation."""

    workload: str
    n: int
    keys: str = "url"
    processes: int = 1
    batch: int = 1


class Result:
    """One store in one case, all rounds. ``reached`` is the n at which it was measured: less than the case's where
    that would have taken too long. ``milliseconds``: the whole is of interest, and not a rate. ``run`` is the number of
    the run that measured it, among those of a file."""

    def __init__(
        self, case: Case, peer: str, reached: int, milliseconds: bool, samples: list[Sample], run: int = 0
    ) -> None:
        self.case = case
        self.peer = peer
        self.reached = reached
        self.milliseconds = milliseconds
        self.samples = samples
        self.run = run

    @property
    def key(self) -> tuple[Case, str]:
        return self.case, self.peer

    def of_run(self, run: int) -> Result:
        return Result(self.case, self.peer, self.reached, self.milliseconds, self.samples, run)

    def value(self, choose: Callable[[list[float]], float] = median) -> float:
        """Items a second, or milliseconds for the whole."""
        if self.milliseconds:
            return choose([sample.seconds * 1000 for sample in self.samples])
        return choose([sample.items / sample.seconds for sample in self.samples])

    def times_faster(self, other: Result) -> float:
        """How many times as fast as another this is, by the medians."""
        if self.milliseconds:
            return other.value() / self.value()
        return self.value() / other.value()

    @property
    def running(self) -> float:
        """Microseconds of processor time for each item."""
        return median([sample.running / sample.items for sample in self.samples]) * 1e6

    @property
    def memory(self) -> int | None:
        known = [sample.memory for sample in self.samples if sample.memory is not None]
        return max(known, default=None)

    @property
    def disk(self) -> int:
        return int(median([sample.disk for sample in self.samples]))


class Saved(NamedTuple):
    """What a file of results holds: the ``runs``, each with its facts (the machine and versions), and their results."""

    runs: list[dict[str, Any]]
    results: list[Result]

    @classmethod
    def load(cls, file: Path) -> Saved:
        """What a file holds; nothing when it is not there."""
        if not file.exists():
            return cls([], [])
        found = json.loads(file.read_text())
        if found["version"] != SAVED_VERSION:
            raise ValueError(f"{file} has version {found['version']}, not {SAVED_VERSION}: measure anew")
        return cls(found["runs"], [_result(**facts) for facts in found["results"]])

    def with_run(self, facts: dict[str, Any], results: Iterable[Result]) -> Saved:
        """The same with one more run, whose results take the place of older ones of the same store and case. Runs
        of which nothing is left are gone."""
        merged = {result.key: result for result in self.results}
        merged |= {result.key: result.of_run(len(self.runs)) for result in results if result.samples}
        runs = [*self.runs, facts]
        used = sorted({result.run for result in merged.values()})
        # Sorted, so that two files differ where what was measured differs.
        kept = [merged[key].of_run(used.index(merged[key].run)) for key in sorted(merged)]
        return Saved([runs[number] for number in used], kept)

    def save(self, file: Path) -> None:
        """Write it, a result a line."""
        lines = ",\n".join(
            json.dumps({
                **result.case._asdict(),
                "peer": result.peer,
                "reached": result.reached,
                "milliseconds": result.milliseconds,
                "run": result.run,
                "samples": [_rounded(sample) for sample in result.samples],
            })
            for result in self.results
        )
        runs = json.dumps(self.runs, indent=1)
        text = f'{{"version": {SAVED_VERSION},\n"runs": {runs},\n"results": [\n{lines}\n]}}\n'
        written = file.with_name(file.name + ".new")
        written.write_text(text)
        written.replace(file)


def _rounded(sample: Sample) -> list[Any]:
    return [float(f"{sample.seconds:.6g}"), float(f"{sample.running:.6g}"), *sample[2:]]


def _result(
    peer: str, reached: int, milliseconds: bool, run: int, samples: list[list[Any]], **case: Any
) -> Result:
    return Result(Case(**case), peer, reached, milliseconds, [Sample(*sample) for sample in samples], run)
