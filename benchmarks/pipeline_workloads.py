"""The workloads of a pipeline: the same tasks, run in different ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from benchmarks.pipeline_ways import (
    Dask,
    Futures,
    Joblib,
    Loop,
    MultiprocessingPool,
    Parallel,
    ResumedParallel,
    ResumedRun,
    Run,
    RunCommand,
    RunOnDask,
    Way,
    WorkerPool,
    Xargs,
    kept,
    nothing,
    sleep_if_long,
)
from benchmarks.stores import OURS

RESULTS, MARKS, NOTHING = "marks and results", "marks", "nothing"
# One long task for so many quick ones.
QUICK_TASKS = 1000


class PipelineWorkload(NamedTuple):
    """Tasks that can be run in several ways, with the number of workers of the case. ``keys(n)`` are the tasks."""

    about: str
    ways: dict[str, Way]
    keys: Callable[[int], Sequence[int]] = range
    unit: str = "items/s"

    def stores(self) -> dict[str, Way]:
        """Return the ways that are installed, by name. To the runner they are what stores are to other workloads."""
        return {name: way for name, way in self.ways.items() if way.is_installed()}


def with_long_tasks(n: int) -> Sequence[int]:
    """Return the keys of n quick tasks, and of the long ones after them."""
    return [*range(n), *range(-long_tasks(n), 0)]


def long_tasks(n: int) -> int:
    """Return the number of long tasks."""
    return max(1, n // QUICK_TASKS)


def with_one_more(n: int) -> Sequence[int]:
    """Return the keys of n done tasks, and of one that is to be done."""
    return range(n + 1)


PIPELINE_WORKLOADS = {
    "pipeline_nothing": PipelineWorkload(
        "functions that do nothing",
        {
            OURS: Way(partial(Run, kept, False), "`Tracker.run()`", RESULTS),
            "run shared": Way(partial(Run, kept, True), "`SharedTracker.run()`", RESULTS),
            "run marks": Way(partial(Run, nothing, False), "`Tracker.run()`", MARKS),
            "run workers": Way(WorkerPool, "without a tracker, one by one", NOTHING),
            "loop": Way(partial(Loop, kept, False), "`for key in tracker.try_keys()`", RESULTS),
            "futures": Way(partial(Futures, nothing, 1), "`ProcessPoolExecutor.map(chunksize=1)`", NOTHING,
                           "concurrent.futures"),
            "futures 100": Way(partial(Futures, nothing, 100), "`ProcessPoolExecutor.map(chunksize=100)`", NOTHING,
                               "concurrent.futures"),
            "multiprocessing": Way(partial(MultiprocessingPool, nothing), "`Pool.imap_unordered(chunksize=1)`",
                                   NOTHING, "multiprocessing"),
            "joblib": Way(partial(Joblib, nothing, 1), "`Parallel(batch_size=1)`", NOTHING, "joblib"),
            "joblib auto": Way(partial(Joblib, nothing, "auto"), '`Parallel(batch_size="auto")`', NOTHING, "joblib"),
        },
    ),
    "pipeline_commands": PipelineWorkload(
        'the command "true"',
        {
            OURS: Way(RunCommand, "`tastypy-fast run`", MARKS),
            "xargs": Way(Xargs, "`xargs -P -n 1`", NOTHING, "xargs"),
            "parallel": Way(Parallel, "`parallel --joblog`", "a log of jobs", "parallel"),
        },
    ),
    "pipeline_dask": PipelineWorkload(
        "functions that do nothing, on Dask",
        {
            OURS: Way(RunOnDask, "`Tracker.run(executor=client)`", RESULTS, "distributed"),
            "client.map": Way(Dask, "`client.map()`, `client.gather()`", NOTHING, "distributed"),
        },
    ),
    "pipeline_tail": PipelineWorkload(
        "long functions at the end",
        {
            OURS: Way(partial(Run, sleep_if_long, False), "`Tracker.run()`", MARKS),
            "futures": Way(partial(Futures, sleep_if_long, 1), "`ProcessPoolExecutor.map(chunksize=1)`", NOTHING,
                           "concurrent.futures"),
            "joblib auto": Way(partial(Joblib, sleep_if_long, "auto"), '`Parallel(batch_size="auto")`', NOTHING,
                               "joblib"),
        },
        with_long_tasks, "ms",
    ),
    "pipeline_resume": PipelineWorkload(
        "resume: until the first task begins",
        {
            OURS: Way(ResumedRun, "`Tracker()`, `run()`", RESULTS),
            "parallel": Way(ResumedParallel, "`parallel --resume --joblog`", "a log of jobs", "parallel"),
        },
        with_one_more, "ms",
    ),
}  # fmt: skip
