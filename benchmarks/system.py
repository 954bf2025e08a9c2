"""Read from the operating system: memory, size on disk, and the facts of the machine."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

# The highest load, in the last minute, at which a published run starts.
MAX_LOAD = 1.0


class Usage(NamedTuple):
    """What this process, all its threads included, has used since it began: see ``usage()``.

    ``seconds`` is elapsed time. ``user`` and ``system`` are processor seconds. ``calls`` is the number of write calls,
    and ``written`` their bytes. ``flushed`` is the number of bytes that were sent to the disk. These three are zero if
    the system does not report them.
    """

    seconds: float
    user: float
    system: float
    calls: int
    written: int
    flushed: int

    def since(self, before: Usage) -> Usage:
        """Return what was used after ``before``."""
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))


def usage() -> Usage:
    """Return what this process has used. Cost: about 10 microseconds."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    counts: dict[str, int] = {}
    try:
        for line in Path("/proc/self/io").read_text().splitlines():
            name, _, number = line.partition(": ")
            counts[name] = int(number)
    except OSError:
        pass
    written = (counts.get(name, 0) for name in ("syscw", "wchar", "write_bytes"))
    return Usage(perf_counter(), found.ru_utime, found.ru_stime, *written)


def total(usages: Iterable[Usage]) -> Usage:
    """Return the sum of what several processes, or several parts of one, have used."""
    return Usage(*(sum(column) for column in zip(*usages, strict=True)))


def anonymous_memory(process: int | str = "self") -> int | None:
    """Return the anonymous memory of a process in bytes, or None if the system does not report it."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def processor_seconds() -> float:
    """Return the processor time of this process and of all that it started, also of those that have ended.

    If the system has no ``/proc``, the processes that still run are missing.
    """
    total = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name of the program, in brackets, may contain spaces.
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(file.parent.name)] = int(fields[1])
        ticks[int(file.parent.name)] = sum(map(int, fields[11:15]))
    found = {os.getpid()}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        total += sum(ticks[child] for child in new) / os.sysconf("SC_CLK_TCK")
        found |= new
    return total


def disk_use(path: Path) -> int:
    """Return the bytes that the files of a folder occupy on disk."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def load() -> tuple[float, float, float]:
    """Return how many processes ran or wanted to run, on average in the last 1, 5 and 15 minutes."""
    return os.getloadavg()


def refusal(load_before: Sequence[float]) -> str | None:
    """Return why nothing that is published can be measured under this load, or None."""
    if load_before[0] <= MAX_LOAD:
        return None
    return (
        f"A published run needs a quiet machine. The load is {load_before[0]:.2f}, and may be {MAX_LOAD:.1f} at most. "
        "End what else runs on this machine, wait until the first number of uptime is lower, and start the run again. "
        "Nothing was measured. Runs without --published have no limit."
    )


def machine(folder: Path, load_before: Iterable[float]) -> dict[str, str]:
    """Return the facts of the machine that affect the results."""
    return {
        "processor": _first_field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "file system": _file_system(folder),
        "load before": " ".join(f"{average:.2f}" for average in load_before),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def stolen_ticks() -> tuple[int, int]:
    """Return all processor ticks since boot, and those that the host gave to other machines. Zeros if unknown."""
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


def _memory() -> str:
    found = _first_field("/proc/meminfo", "MemTotal")
    return f"{int(found.split()[0]) / 1024**2:.0f} GiB" if found else "unknown"


def _file_system(folder: Path) -> str:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    containing = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(containing)[1] if containing else "unknown"
