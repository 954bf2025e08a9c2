"""Measure what ``tastypy-fast run`` costs for each command: ``python -m benchmarks.command_cost --help``.

Every way runs the command ``true`` for each key, and the ways take turns. The time of each has the start of its own
program. xargs keeps nothing, and GNU parallel keeps a log of jobs. A way whose program is not installed is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tastypy_fast import Tracker

__all__ = ["WAYS", "main", "measure"]

RUN = [sys.executable, "-m", "tastypy_fast", "run"]


def run(keys: list[str], folder: Path, workers: str) -> list[str]:
    """Return the command that runs ``true`` for each task of a tracker."""
    Tracker(folder / "store", init=[(key, {}) for key in keys]).close()
    return [*RUN, str(folder / "store"), "-j", workers, "--", "true"]


def run_with_results(keys: list[str], folder: Path, workers: str) -> list[str]:
    """Return the command that also keeps what ``true`` prints."""
    return [*run(keys, folder, workers)[:-2], "--result", "text", "--", "true"]


def run_in_shells(keys: list[str], folder: Path, workers: str) -> list[str]:
    """Return the command that runs each ``true`` by a shell."""
    return [*run(keys, folder, workers)[:-2], "--shell", "--", "true {key}"]


def xargs(keys: list[str], folder: Path, workers: str) -> list[str]:
    """Return the command of xargs."""
    return ["xargs", "-P", workers, "-n", "1", "true"]


def gnu_parallel(keys: list[str], folder: Path, workers: str) -> list[str]:
    """Return the command of GNU parallel with a log of jobs."""
    return ["parallel", "--will-cite", "-j", workers, "--joblog", str(folder / "log"), "true"]


Way = Callable[[list[str], Path, str], list[str]]
WAYS: dict[str, Way] = {
    "run": run, "run, result kept": run_with_results, "run --shell": run_in_shells, "xargs": xargs,
    "GNU parallel --joblog": gnu_parallel,
}
PROGRAMS = {"xargs": "xargs", "GNU parallel --joblog": "parallel"}


def measure(way: Way, commands: int, workers: int) -> float:
    """Return the milliseconds for each command."""
    keys = [str(number) for number in range(commands)]
    with tempfile.TemporaryDirectory(prefix="command_cost-") as folder:
        command = way(keys, Path(folder), str(workers))
        began = time.perf_counter()
        subprocess.run(command, input="\n".join(keys) + "\n", text=True, check=True, capture_output=True)
        return (time.perf_counter() - began) / commands * 1000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.command_cost", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    ways = [name for name in WAYS if shutil.which(PROGRAMS.get(name, sys.executable))]
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name in ways:
            found[name].append(measure(WAYS[name], options.commands, options.workers))
    print(f"{options.commands:,} commands, {options.workers} at once, {options.rounds} rounds in turn, "
          f"{len(os.sched_getaffinity(0))} processors")
    for name in ways:
        times = sorted(found[name])
        print(f"{name:24} {median(times):7.2f} ms a command ({times[0]:.2f} to {times[-1]:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
