"""Measure what ``tracker.run()`` costs: ``python -m benchmarks.pipeline_cost --help``.

Every way runs in an interpreter of its own, and the ways take turns. The tasks do nothing. "kept" returns a small dict
that is kept with the task. The pools keep nothing. joblib is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from tastypy_fast import SharedTracker, Tracker

__all__ = ["WAYS", "main", "measure"]

RESULT = {"size": 123, "title": "a page"}


def nothing(key: int) -> None:
    """Do nothing."""


def kept(key: int) -> dict[str, Any]:
    """Return a result to keep."""
    return RESULT


def loop(path: str, tasks: int, workers: int) -> float:
    """Time a loop in one process over a private tracker."""
    with Tracker(path, max_tries=3) as tracker:
        tracker.add_many(range(tasks))
        tracker.sync()
        began = time.perf_counter()
        for key in tracker.try_keys():
            tracker.mark_done(key, kept(key))
        tracker.sync()
        return time.perf_counter() - began


def run_private(path: str, tasks: int, workers: int) -> float:
    """Time ``run()`` on a private tracker, with the start of its workers."""
    return _run(Tracker, path, tasks, workers, kept)


def run_shared(path: str, tasks: int, workers: int) -> float:
    """Time ``run()`` on a shared tracker."""
    return _run(SharedTracker, path, tasks, workers, kept)


def run_only_done(path: str, tasks: int, workers: int) -> float:
    """Time ``run()`` on a private tracker where nothing is kept but the mark."""
    return _run(Tracker, path, tasks, workers, nothing)


def _run(cls: Any, path: str, tasks: int, workers: int, function: Any) -> float:
    with cls(path, max_tries=3) as tracker:
        tracker.add_many(range(tasks))
        tracker.sync()
        began = time.perf_counter()
        report = tracker.run(function, workers=workers)
        assert report.done == tasks
        return time.perf_counter() - began


def futures_single(path: str, tasks: int, workers: int) -> float:
    """Time concurrent.futures with one task in each message."""
    with ProcessPoolExecutor(workers) as pool:
        began = time.perf_counter()
        for _ in pool.map(nothing, range(tasks), chunksize=1):
            pass
        return time.perf_counter() - began


def joblib_auto(path: str, tasks: int, workers: int) -> float:
    """Time joblib with its automatic batches."""
    return _joblib(tasks, workers, "auto")


def joblib_single(path: str, tasks: int, workers: int) -> float:
    """Time joblib with one task in each message."""
    return _joblib(tasks, workers, 1)


def _joblib(tasks: int, workers: int, size: int | str) -> float:
    import joblib

    pool = joblib.Parallel(n_jobs=workers, batch_size=size)
    began = time.perf_counter()
    pool(joblib.delayed(nothing)(key) for key in range(tasks))
    return time.perf_counter() - began


# The function, and which part of the tasks it gets, because some ways are slow.
WAYS: dict[str, tuple[Any, float]] = {
    "loop, one process, kept": (loop, 1), "run, private, kept": (run_private, 1), "run, shared, kept": (run_shared, 1),
    "run, private, only done": (run_only_done, 1), "concurrent.futures, one by one": (futures_single, 0.1),
    "joblib, auto": (joblib_auto, 1), "joblib, one by one": (joblib_single, 0.1),
}


def driver_memory() -> float:
    """Return the memory of this process that no file backs, in MB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1000
    return 0.0


def measure(name: str, tasks: int, workers: int, folder: str | None) -> tuple[float, float]:
    """Return the microseconds of one task, and the memory at the end in MB, measured in a new interpreter."""
    with tempfile.TemporaryDirectory(prefix="pipeline_cost-", dir=folder) as place:
        done = subprocess.run([sys.executable, "-m", "benchmarks.pipeline_cost", "--one", name, "--tasks", str(tasks),
                               "--workers", str(workers), "--folder", place], check=True, capture_output=True,
                              text=True)
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.pipeline_cost", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where stores are made (default: the system's temporary folder)")
    parser.add_argument("--only", nargs="+", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        function, part = WAYS[options.one]
        tasks = max(1, int(options.tasks * part))
        seconds = function(str(Path(options.folder) / "store"), tasks, options.workers)
        print(seconds / tasks * 1e6, driver_memory())
        return 0
    ways = [name for name in options.only if "joblib" not in name or importlib.util.find_spec("joblib")]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name in ways:
            found[name].append(measure(name, options.tasks, options.workers, options.folder))
    print(f"{options.tasks:,} tasks, {options.workers} workers, {options.rounds} rounds in turn, "
          f"{len(os.sched_getaffinity(0))} processors")
    for name in ways:
        times = sorted(time for time, _ in found[name])
        memory = max(memory for _, memory in found[name])
        print(f"{name:32} {median(times):9.1f} µs a task ({times[0]:.1f} to {times[-1]:.1f})   {memory:6.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
