"""Runs each measurement in a process of its own, watches its memory from outside, and sums up the rounds.

The child prints a line of JSON when it begins (how much memory it has by then), one when the work is done, and
one when the result was found to be right. In between the parent samples its anonymous memory: mapped files
count as resident too, so that the resident size of an LMDB store says nothing.
"""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.stores import PEERS
from benchmarks.workloads import WORKLOADS, Clock

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.005


class Sample(NamedTuple):
    """One measurement. ``running``: the seconds of processor time in ``seconds``. ``memory``: how much anonymous
    memory grew at most, in bytes; None where it cannot be told. ``disk``: bytes."""

    seconds: float
    running: float
    items: int
    memory: int | None
    disk: int


class Result(NamedTuple):
    """One store under one workload, all rounds."""

    n: int
    workload: str
    peer: str
    samples: list[Sample]

    def value(self, choose: Callable[[list[float]], float] = median) -> float:
        """Items a second, or milliseconds for the whole, by the workload's unit."""
        if WORKLOADS[self.workload].unit == "ms":
            return choose([sample.seconds * 1000 for sample in self.samples])
        return choose([sample.items / sample.seconds for sample in self.samples])

    def times_faster(self, other: Result) -> float:
        """How many times as fast as another this is, by the medians."""
        if WORKLOADS[self.workload].unit == "ms":
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


def anonymous_memory(process: int | str = "self") -> int | None:
    """Bytes of anonymous memory that a process has now; None where the system does not tell."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def disk_use(path: Path) -> int:
    """Bytes that the files of a folder take on the disk."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


# The child


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _child(peer_name: str, workload_name: str, n: int, path: str) -> None:
    peer, workload, clock = PEERS[peer_name], WORKLOADS[workload_name], Clock()
    make = peer.tasks_class if workload.tasks else peer.dict_class
    _say(memory=anonymous_memory())
    items = workload.run(lambda: make(path), n, clock)
    memory = anonymous_memory()
    _say(seconds=clock.seconds, running=clock.running, items=items, memory=memory, disk=disk_use(Path(path)))
    workload.check(lambda: make(path), n)
    _say(right=True)


# The parent


def measure(peer: str, workload: str, n: int, path: Path) -> Sample:
    """Run one workload on the store at ``path`` in a new process. Raises RuntimeError when it fails."""
    command = [sys.executable, "-m", "benchmarks.measure", peer, workload, str(n), str(path)]
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

    def run(self, sizes: Sequence[int], workloads: Sequence[str], rounds: int) -> list[Result]:
        """Every workload of every store at every size. In each round the stores take turns, so that a noisy
        minute hits all alike, and each time another one begins."""
        names = list(PEERS)
        results: list[Result] = []
        for n in sizes:
            found = {
                (workload, peer): Result(n, workload, peer, []) for workload in workloads for peer in names
            }
            for turn in range(rounds):
                first = turn % len(names)
                for workload in workloads:
                    for peer in names[first:] + names[:first]:
                        self._tell(f"n={n:,}  round {turn + 1} of {rounds}  {workload}  {peer}")
                        found[workload, peer].samples.append(self._sample(peer, workload, n))
            results += found.values()
            self._clear()
        return results

    def _sample(self, peer: str, workload: str, n: int) -> Sample:
        about = WORKLOADS[workload]
        path = self._folder / f"{peer}-work"
        if about.before:
            made = self._folder / f"{peer}-{about.before}"
            if made not in self._made:
                measure(peer, about.before, n, made)
                self._made.add(made)
            if not about.writes:
                return measure(peer, workload, n, made)
            copy_to_disk(made, path)
        try:
            return measure(peer, workload, n, path)
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


# Where it was measured


def machine(folder: Path) -> dict[str, str]:
    """What the figures depend on."""
    facts = {
        "processor": _first_field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": _first_field("/proc/meminfo", "MemTotal") or "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "file system": _file_system(folder),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    return facts | {name: f"{peer.version}; {peer.promise}" for name, peer in PEERS.items()}


def stolen_ticks() -> tuple[int, int]:
    """(all ticks, those that a virtual machine's host gave to others) since the start; zeros if unknown."""
    try:
        ticks = [int(tick) for tick in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0, 0
    return sum(ticks), ticks[7]


def _first_field(file: str, name: str) -> str | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)


def _file_system(folder: Path) -> str:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    fitting = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(fitting)[1] if fitting else "unknown"


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
