"""Read from the operating system: memory, size on disk, and the facts of the machine."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path


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


def machine(folder: Path) -> dict[str, str]:
    """Return the facts of the machine that affect the results."""
    return {
        "processor": _first_field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "file system": _file_system(folder),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
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
