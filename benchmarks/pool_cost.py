"""Compare the worker processes of ``tracker.run()`` with concurrent.futures: ``python -m benchmarks.pool_cost --help``.

The tasks do nothing, and no store is involved. The pools take turns. The last line is the heavy tail: many tasks that
do nothing, then some long ones, which the workers should share.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any

from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.worker import TaskFunction
from tastypy_fast.pipeline.worker_pool import ProcessPool

__all__ = ["POOLS", "drive", "main", "measure", "tail"]

QUICK_TASKS, LONG_TASKS, LONG_SECONDS = 20_000, 20, 0.5


def nothing(key: Any) -> None:
    """Do nothing."""


def long_at_the_end(key: int) -> None:
    """Sleep in the last tasks."""
    if key >= QUICK_TASKS:
        time.sleep(LONG_SECONDS)


def drive(pool: ProcessPool, tasks: int, size: int | None) -> None:
    """Run tasks in chunks of ``size``, or of the size that the pool chooses."""
    waiting = deque(Task(number, 1) for number in range(tasks))
    while waiting or pool.is_busy():
        while waiting and (room := pool.room()):
            pool.put([waiting.popleft() for _ in range(min(size or room, len(waiting)))])
        waiting.extend(event.task for event in pool.step(1.0) if event.outcome is None)


def own(function: Callable[[Any], Any], tasks: int, workers: int, method: str, size: int | None = None) -> float:
    """Return the seconds that a ProcessPool takes, without its start."""
    pool = ProcessPool(TaskFunction(function), workers, start_method=method)
    pool.start()
    try:
        drive(pool, 100, 1)
        began = time.perf_counter()
        drive(pool, tasks, size)
        return time.perf_counter() - began
    finally:
        pool.kill()


def futures(tasks: int, workers: int, method: str, size: int) -> float:
    """Return the seconds that concurrent.futures takes, without its start."""
    with ProcessPoolExecutor(workers, get_context(method)) as pool:
        deque(pool.map(nothing, range(100)), 0)
        began = time.perf_counter()
        deque(pool.map(nothing, range(tasks), chunksize=size), 0)
        return time.perf_counter() - began


POOLS: dict[str, Callable[[int, int, str], float]] = {
    "run(), chunks of its choice": lambda tasks, workers, method: own(nothing, 10 * tasks, workers, method) / 10,
    "run(), one by one": lambda tasks, workers, method: own(nothing, tasks, workers, method, 1),
    "concurrent.futures, 100 at once": lambda tasks, workers, method: futures(10 * tasks, workers, method, 100) / 10,
    "concurrent.futures, one by one": lambda tasks, workers, method: futures(tasks, workers, method, 1),
}


def measure(name: str, tasks: int, workers: int, method: str) -> float:
    """Return the microseconds that a pool takes for a task that does nothing."""
    return POOLS[name](tasks, workers, method) / tasks * 1e6


def tail(workers: int, method: str) -> float:
    """Return the time of the heavy tail, divided by the time of the long tasks if the workers share them."""
    took = own(long_at_the_end, QUICK_TASKS + LONG_TASKS, workers, method)
    return took / (-(-LONG_TASKS // workers) * LONG_SECONDS)


def main() -> int:
    """Print a table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool_cost", description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of each measurement (default: 20000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--start-method", default="fork")
    given = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in POOLS}
    tails = []
    for _ in range(given.rounds):
        for name in POOLS:
            found[name].append(measure(name, given.tasks, given.workers, given.start_method))
        tails.append(tail(given.workers, given.start_method))
    base = median(found["concurrent.futures, one by one"])
    for name, times in found.items():
        print(f"{name:>32}  {median(times):>7.2f} us a task ({min(times):.2f} .. {max(times):.2f})  "
              f"{median(times) / base:.2f} of concurrent.futures, one by one")
    print(f"{'heavy tail':>32}  {median(tails):>7.2f} of the ideal time ({min(tails):.2f} .. {max(tails):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
