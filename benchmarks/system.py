"""Read from the operating system: memory, size on disk, and the facts of the machine."""

from __future__ import annotations

import os
import platform
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
