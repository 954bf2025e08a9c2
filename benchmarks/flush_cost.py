"""Compare the durability levels of a shared store: ``python -m benchmarks.flush_cost --help``.

Several processes do single operations on one store for some seconds, and the last ``sync()`` counts. The levels take
turns. The bytes are those that the processes have sent to the disk (``write_bytes`` of ``/proc/PID/io``, Linux).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.system import usage
from tastypy_fast import SharedPOD, SharedTracker
from tastypy_fast.types import Durability

__all__ = ["OPERATIONS", "main", "measure"]

KEYS = 20_000


def assign(path: str, level: Durability, worker: int, seconds: float) -> int:
    """Assign existing keys, one in each transaction, 100 at least."""
    done = 0
    with SharedPOD(path, durability=level) as store:
        deadline = time.monotonic() + seconds
        while done == 0 or time.monotonic() < deadline:
            for number in range(100):
                store[f"key {(worker + done + number) * 7919 % KEYS}"] = {"number": number}
            done += 100
        store.sync()
    return done


def claim_and_done(path: str, level: Durability, worker: int, seconds: float) -> int:
    """Claim a task and mark it done, each in a transaction, 100 at least."""
    done = 0
    with SharedTracker(path, durability=level) as tracker:
        deadline = time.monotonic() + seconds
        while done < 100 or time.monotonic() < deadline:
            for key in tracker.try_keys():
                tracker.mark_done(key)
                done += 1
                if done % 100 == 0 and time.monotonic() >= deadline:
                    break
            else:
                tracker.add_many(f"more {worker} {done} {number}" for number in range(5_000))
        tracker.sync()
    return done


OPERATIONS: dict[str, tuple[Any, Any]] = {
    "assign": (SharedPOD, assign), "claim and done": (SharedTracker, claim_and_done),
}


def _work(name: str, path: str, level: Durability, worker: int, seconds: float) -> tuple[int, int]:
    before = usage()
    done = OPERATIONS[name][1](path, level, worker, seconds)
    return done, usage().since(before).flushed


def measure(name: str, level: Durability, seconds: float, processes: int, folder: str | None) -> tuple[float, float]:
    """Return the operations a second, the last flush included, and the bytes that an operation has written."""
    with tempfile.TemporaryDirectory(prefix="flush_cost-", dir=folder) as place:
        path = str(Path(place) / "store")
        cls = OPERATIONS[name][0]
        with cls(path, durability=level) as store:
            if cls is SharedPOD:
                store.update({f"key {number}": {"number": 0} for number in range(KEYS)})
            else:
                store.add_many(f"task {number}" for number in range(KEYS))
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            began = time.monotonic()
            found = pool.starmap(_work, [(name, path, level, number, seconds) for number in range(processes)], 1)
            took = time.monotonic() - began
    done = sum(number for number, _ in found)
    return done / took, sum(size for _, size in found) / done


def main() -> int:
    """Print a table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flush_cost", description=__doc__.split("\n")[0])
    parser.add_argument("--levels", nargs="+", default=["unsafe", "process"])
    parser.add_argument("--seconds", type=float, default=30, help="the length of each measurement (default: 30)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", help="where to create the stores, on a real disk")
    given = parser.parse_args()
    for name in OPERATIONS:
        rates: dict[str, list[tuple[float, float]]] = {level: [] for level in given.levels}
        for _ in range(given.rounds):
            for level in given.levels:
                rates[level].append(measure(name, level, given.seconds, given.processes, given.folder))
        base = median(rate for rate, _ in rates[given.levels[0]])
        for level, found in rates.items():
            speeds = sorted(rate for rate, _ in found)
            print(f"{name:>15}  {level:>8}  {median(speeds):>9,.0f}/s ({speeds[0]:,.0f} .. {speeds[-1]:,.0f})  "
                  f"{median(speeds) / base:.2f} of {given.levels[0]}  "
                  f"{median(size for _, size in found):>8,.0f} bytes each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
