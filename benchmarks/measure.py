"""Runs each measurement in a process of its own, watches its memory from outside, and sums up the rounds.

The child prints a line of JSON when it begins (how much memory it has by then), one when the work is done, and
one when the result was found to be right. In between the parent samples its anonymous memory: mapped files
count as resident too, so that the resident size of an LMDB store says nothing.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import together
from benchmarks.shared_stores import LEFT_OUT, SHARED_PEERS
from benchmarks.shared_workloads import SHARED_WORKLOADS, SharedWorkload
from benchmarks.stores import PEERS
from benchmarks.system import anonymous_memory, disk_use
from benchmarks.workloads import WORKLOADS, Clock, Workload

ALL_WORKLOADS: dict[str, Workload | SharedWorkload] = {**WORKLOADS, **SHARED_WORKLOADS}
ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.005


class Sample(NamedTuple):
    """One measurement. ``running``: the seconds of processor time in ``seconds``, of all processes. ``memory``: how
    much anonymous memory grew at most, in bytes; None where it cannot be told. ``disk``: bytes."""

    seconds: float
    running: float
    items: int
    memory: int | None
    disk: int


class Result(NamedTuple):
    """One store under one workload, all rounds."""

    n: int
    workload: str
    processes: int
    peer: str
    samples: list[Sample]

    @property
    def unit(self) -> str:
        return ALL_WORKLOADS[self.workload].unit

    @property
    def title(self) -> str:
        return f"{self.workload}, {self.processes} at once" if self.workload in SHARED_WORKLOADS else self.workload

    def value(self, choose: Callable[[list[float]], float] = median) -> float:
        """Items a second, or milliseconds for the whole, by the workload's unit."""
        if self.unit == "ms":
            return choose([sample.seconds * 1000 for sample in self.samples])
        return choose([sample.items / sample.seconds for sample in self.samples])

    def times_faster(self, other: Result) -> float:
        """How many times as fast as another this is, by the medians."""
        if self.unit == "ms":
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


def about_peers(workloads: Sequence[str]) -> dict[str, str]:
    """What takes part in these workloads, in which version, with which promise."""
    found: dict[str, str] = {}
    if not WORKLOADS.keys().isdisjoint(workloads):
        found |= {name: f"{peer.version}; {peer.promise}" for name, peer in PEERS.items()}
    if not SHARED_WORKLOADS.keys().isdisjoint(workloads):
        found |= {f"shared {name}": f"{peer.version}; {peer.promise}" for name, peer in SHARED_PEERS.items()}
        found |= LEFT_OUT
    return found


# The child


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _child(peer: str, name: str, n: int, path: str, processes: int) -> None:
    workload = ALL_WORKLOADS[name]
    make = workload.stores()[peer]
    if isinstance(workload, SharedWorkload):
        _work_together(name, workload, make(path), n, path, processes)
    else:
        _work_alone(workload, make, n, path)


def _work_alone(workload: Workload, make: Callable[[str], Any], n: int, path: str) -> None:
    clock = Clock()
    _say(memory=anonymous_memory())
    items = workload.run(lambda: make(path), n, clock)
    memory = anonymous_memory()
    _say(seconds=clock.seconds, running=clock.running, items=items, memory=memory, disk=disk_use(Path(path)))
    workload.check(lambda: make(path), n)
    _say(right=True)


def _work_together(name: str, workload: SharedWorkload, store: Any, n: int, path: str, processes: int) -> None:
    workload.prepare(store, n)
    memory = anonymous_memory()
    _say(memory=memory)
    total = together.run(name, store, n, processes)
    grown = None if memory is None else memory + total.memory
    _say(
        seconds=total.seconds, running=total.running, items=workload.items(n), memory=grown, disk=disk_use(Path(path))
    )
    workload.check(store, n, total.found)
    store.close()
    _say(right=True)


# The parent


def measure(peer: str, workload: str, n: int, path: Path, processes: int = 1) -> Sample:
    """Run one workload on the store at ``path`` in a new process, which starts the others where there are several
    at once. Raises RuntimeError when it fails."""
    command = [sys.executable, "-m", "benchmarks.measure", peer, workload, str(n), str(path), str(processes)]
    # Unbuffered: select() does not see a line that lies in a buffer of ours, and what is sampled meanwhile would
    # count for the wrong part.
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0) as child:
        facts = list(_watch(child))
    if child.returncode or not facts or "right" not in facts[-1]:
        raise RuntimeError(f"{workload} on {peer} failed with exit status {child.returncode}, see above")
    begin, end, _ = facts
    memory = None if begin["memory"] is None else max(end["memory"], end["peak"]) - begin["memory"]
    return Sample(end["seconds"], end["running"], end["items"], memory, end["disk"])


def _watch(child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """What the child says, with the ``peak`` of its memory since it spoke last."""
    assert child.stdout is not None
    peak = 0
    while True:
        readable, _, _ = select.select([child.stdout], [], [], SAMPLE_SECONDS)
        if not readable:
            peak = max(peak, anonymous_memory(child.pid) or 0)
            continue
        line = child.stdout.readline()
        if not line:
            return
        yield {"peak": peak, **json.loads(line)}
        peak = 0


class Runner:
    """Measures in rounds. Stores lie below ``folder``; one that a workload begins with is made once."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._made: set[Path] = set()

    def run(
        self, sizes: Sequence[int], workloads: Sequence[str], rounds: int, processes: Sequence[int]
    ) -> list[Result]:
        """Every workload of every store at every size, and with every number of processes where there are several
        at once. In each round the stores take turns, so that a noisy minute hits all alike, and each time another
        one begins."""
        results: list[Result] = []
        for n in sizes:
            tables = [
                [Result(n, workload, at_once, peer, []) for peer in ALL_WORKLOADS[workload].stores()]
                for workload in workloads
                for at_once in (processes if workload in SHARED_WORKLOADS else [1])
            ]
            for turn in range(rounds):
                for table in tables:
                    first = turn % len(table)
                    for result in table[first:] + table[:first]:
                        self._tell(f"n={n:,}  round {turn + 1} of {rounds}  {result.title}  {result.peer}")
                        result.samples.append(self._sample(result.peer, result.workload, n, result.processes))
            results += chain.from_iterable(tables)
            self._clear()
        return results

    def _sample(self, peer: str, workload: str, n: int, processes: int) -> Sample:
        about = ALL_WORKLOADS[workload]
        path = self._folder / f"{peer}-work"
        if isinstance(about, Workload) and about.before:
            made = self._folder / f"{peer}-{about.before}"
            if made not in self._made:
                measure(peer, about.before, n, made)
                self._made.add(made)
            if not about.writes:
                return measure(peer, workload, n, made)
            copy_to_disk(made, path)
        try:
            return measure(peer, workload, n, path, processes)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _clear(self) -> None:
        for path in self._made:
            shutil.rmtree(path)
        self._made.clear()


def copy_to_disk(source: Path, target: Path) -> None:
    """Copy a folder and flush it, so that no measured flush has to write the copy too."""
    shutil.copytree(source, target)
    for file in target.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
