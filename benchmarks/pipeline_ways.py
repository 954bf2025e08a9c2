"""The ways to run tasks that are measured: ``tracker.run()``, a loop, pools of processes, commands, and Dask.

A class runs the tasks of one measurement. Its constructor does what is not timed: it adds the tasks to a tracker, and
starts the workers of a pool that serves many calls. ``seconds()`` is timed, ``close()`` is not.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tastypy_fast
from benchmarks.verify import expect

PROGRAMS = ("parallel", "xargs")
# What is kept with a task.
KEPT = {"size": 123, "title": "a page"}
LONG_SECONDS = 0.5


# The tasks


def nothing(key: int) -> None:
    """Do nothing."""


def kept(key: int) -> dict[str, Any]:
    """Return a result."""
    return KEPT


def sleep_if_long(key: int) -> None:
    """Sleep in the long tasks, which have negative keys."""
    if key < 0:
        time.sleep(LONG_SECONDS)


def moment(key: int) -> dict[str, float]:
    """Return when the task began, on the clock that all processes share."""
    return {"began": time.perf_counter()}


# The ways


class Execution:
    """The tasks of one measurement, run by ``run()``. ``driver`` is False if another process drives the workers."""

    driver: ClassVar[bool] = True

    def __init__(self, path: Path, keys: Sequence[int], workers: int) -> None:
        self.path, self.keys, self.workers = path, keys, workers

    def seconds(self) -> float:
        """Return the time of ``run()``."""
        began = time.perf_counter()
        done = self.run()
        took = time.perf_counter() - began
        expect(done, len(self.keys), "the number of finished tasks")
        return took

    def run(self) -> int:
        """Run all tasks, and return their number."""
        raise NotImplementedError

    def close(self) -> None:
        """End the workers."""

    def verify(self) -> None:
        """Verify what is kept of the tasks."""


class Run(Execution):
    """``tracker.run()``, with the start and the end of its workers, on a tracker that has all tasks."""

    def __init__(self, function: Callable[[int], Any], shared: bool, path: Path, keys: Sequence[int],
                 workers: int) -> None:  # fmt: skip
        super().__init__(path, keys, workers)
        self.function = function
        # run() imports it, and modules are loaded before the clock starts.
        import_module("tastypy_fast.pipeline.runner")
        self.tracker_class: Any = tastypy_fast.SharedTracker if shared else tastypy_fast.Tracker
        self.tracker = self.tracker_class(path / "store", max_tries=3)
        self.tracker.add_many(keys)
        self.tracker.sync()

    def run(self) -> int:
        return int(self.tracker.run(self.function, workers=self.workers).done)

    def close(self) -> None:
        self.tracker.close()

    def verify(self) -> None:
        with self.tracker_class(self.path / "store") as tracker:
            expect(tracker.num_done(), len(tracker), "the number of done tasks")
            if self.function is kept:
                found = tracker[self.keys[-1]]
                expect({name: found[name] for name in KEPT}, KEPT, "the result that is kept")


class Loop(Run):
    """A loop over the tasks of a private tracker, in this process."""

    def run(self) -> int:
        tracker, function, done = self.tracker, self.function, 0
        for key in tracker.try_keys():
            tracker.mark_done(key, function(key))
            done += 1
        tracker.sync()
        return done


class ResumedRun(Run):
    """The start of a run whose tasks are all done but the last one. The time ends when that task begins."""

    def __init__(self, path: Path, keys: Sequence[int], workers: int) -> None:
        super().__init__(moment, False, path, keys, workers)
        for key in keys[:-1]:
            self.tracker.mark_done(key)
        self.tracker.close()

    def seconds(self) -> float:
        began = time.perf_counter()
        self.tracker = self.tracker_class(self.path / "store", max_tries=3)
        expect(self.run(), 1, "the number of finished tasks")
        return float(self.tracker[self.keys[-1]]["began"]) - began


class Futures(Execution):
    """``concurrent.futures``, with the start and the end of its workers."""

    def __init__(self, function: Callable[[int], Any], chunk: int, path: Path, keys: Sequence[int],
                 workers: int) -> None:  # fmt: skip
        super().__init__(path, keys, workers)
        self.function, self.chunk = function, chunk

    def run(self) -> int:
        with ProcessPoolExecutor(self.workers) as pool:
            return sum(1 for _ in pool.map(self.function, self.keys, chunksize=self.chunk))


class WorkerPool(Execution):
    """The workers of ``run()`` without a tracker, with one task in each message."""

    def run(self) -> int:
        executor, worker = (import_module(f"tastypy_fast.pipeline.{name}") for name in ("executor", "worker"))
        pool = import_module("tastypy_fast.pipeline.worker_pool").ProcessPool(
            worker.TaskFunction(nothing), self.workers
        )  # fmt: skip
        waiting = deque(executor.Task(key, 1) for key in self.keys)
        done = 0
        pool.start()
        try:
            while waiting or pool.is_busy():
                while waiting and pool.room():
                    pool.put([waiting.popleft()])
                for event in pool.step(1.0):
                    if event.outcome is executor.NOT_BEGUN:
                        waiting.append(event.task)
                    else:
                        done += 1
        finally:
            pool.kill()
        return done


class MultiprocessingPool(Execution):
    """``multiprocessing.Pool``, with the start and the end of its workers."""

    def __init__(self, function: Callable[[int], Any], path: Path, keys: Sequence[int], workers: int) -> None:
        super().__init__(path, keys, workers)
        self.function = function

    def run(self) -> int:
        with get_context().Pool(self.workers) as pool:
            return sum(1 for _ in pool.imap_unordered(self.function, self.keys, chunksize=1))


class Joblib(Execution):
    """joblib. Its workers are started before, because they serve many calls."""

    def __init__(self, function: Callable[[int], Any], batch: int | str, path: Path, keys: Sequence[int],
                 workers: int) -> None:  # fmt: skip
        super().__init__(path, keys, workers)
        joblib = import_module("joblib")
        self.pool, self.function = joblib.Parallel(n_jobs=workers, batch_size=batch), joblib.delayed(function)
        self.pool(joblib.delayed(nothing)(number) for number in range(10 * workers))

    def run(self) -> int:
        return len(self.pool(self.function(key) for key in self.keys))

    def close(self) -> None:
        import_module("joblib.externals.loky").get_reusable_executor().shutdown(wait=True)


class Command(Execution):
    """The command ``true`` for each key, run by a program that reads the keys from a file."""

    driver = False
    program: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path, keys: Sequence[int], workers: int) -> None:
        super().__init__(path, keys, workers)
        self.input = path / "keys"
        self.input.write_text("".join(f"{key}\n" for key in keys))

    def command(self) -> list[str]:
        """Return the program, with its arguments."""
        return [part.format(workers=self.workers, path=self.path) for part in self.program]

    def run(self) -> int:
        with self.input.open() as keys:
            done = subprocess.run(self.command(), stdin=keys, capture_output=True, text=True, check=False)
        expect(done.returncode, 0, f"the exit status, after {done.stderr[-1000:]!r}")
        return len(self.keys)


class RunCommand(Command):
    """``tastypy-fast run``."""

    program = (sys.executable, "-m", "tastypy_fast", "run", "{path}/store", "-j", "{workers}", "--", "true")

    def __init__(self, path: Path, keys: Sequence[int], workers: int) -> None:
        super().__init__(path, keys, workers)
        with tastypy_fast.Tracker(path / "store") as tracker:
            tracker.add_many(map(str, keys))

    def verify(self) -> None:
        with tastypy_fast.Tracker(self.path / "store") as tracker:
            expect(tracker.num_done(), len(self.keys), "the number of done tasks")


class Xargs(Command):
    """xargs."""

    program = ("xargs", "-P", "{workers}", "-n", "1", "true")


class Parallel(Command):
    """GNU parallel with a log of jobs."""

    program = ("parallel", "--will-cite", "-j", "{workers}", "--joblog", "{path}/log", "true")

    def verify(self) -> None:
        expect(len((self.path / "log").read_text().splitlines()), len(self.keys) + 1, "the lines of the log of jobs")


class ResumedParallel(Parallel):
    """The start of GNU parallel where all jobs are in the log but the last one. The time ends when that one prints."""

    program = ("parallel", "--will-cite", "-j", "{workers}", "--resume", "--joblog", "{path}/log", "echo")

    def __init__(self, path: Path, keys: Sequence[int], workers: int) -> None:
        super().__init__(path, keys, workers)
        fields = "\t:\t1700000000.000\t0.001\t0\t0\t0\t0\techo "
        lines = [f"{number}{fields}{key}" for number, key in enumerate(keys[:-1], 1)]
        head = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand"
        (path / "log").write_text("\n".join([head, *lines, ""]))

    def seconds(self) -> float:
        began = time.perf_counter()
        with self.input.open() as keys, subprocess.Popen(self.command(), stdin=keys, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            printed = child.stdout.readline()
            took = time.perf_counter() - began
        expect(printed, b"%d\n" % self.keys[-1], "the first job that is run again")
        return took


class Dask(Execution):
    """``client.map()`` on a local cluster, which is started before."""

    def __init__(self, path: Path, keys: Sequence[int], workers: int) -> None:
        super().__init__(path, keys, workers)
        distributed = import_module("distributed")
        self.ending = contextlib.ExitStack()
        self.cluster = self.ending.enter_context(distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        ))  # fmt: skip
        self.client = self.ending.enter_context(distributed.Client(self.cluster))
        # The workers import this module.
        self.client.run(nothing, 0)

    def run(self) -> int:
        # Not pure, because Dask would otherwise compute a digest of each call.
        return len(self.client.gather(self.client.map(nothing, self.keys, pure=False)))

    def close(self) -> None:
        self.ending.close()


class RunOnDask(Dask):
    """``run(executor=client)`` on such a cluster."""

    def __init__(self, path: Path, keys: Sequence[int], workers: int) -> None:
        super().__init__(path, keys, workers)
        self.local = Run(kept, False, path, keys, workers)

    def run(self) -> int:
        return int(self.local.tracker.run(kept, executor=self.client).done)

    def close(self) -> None:
        self.local.close()
        super().close()

    def verify(self) -> None:
        self.local.verify()


class Way(NamedTuple):
    """A way to run tasks. ``needs`` is the module or the program; ``call`` is how it is called, as Markdown."""

    execution: Callable[[Path, Sequence[int], int], Execution]
    call: str
    keeps: str
    needs: str = "tastypy_fast"

    def is_installed(self) -> bool:
        """Return whether it can be measured."""
        return bool(shutil.which(self.needs) if self.needs in PROGRAMS else find_spec(self.needs))

    def version(self) -> str:
        """Return the version of the module or the program."""
        if self.needs in PROGRAMS:
            asked = subprocess.run([self.needs, "--version"], capture_output=True, text=True, check=False)
            return asked.stdout.partition("\n")[0] or self.needs
        found = getattr(import_module(self.needs), "__version__", None)
        return f"{self.needs} {found}" if found else "part of Python"

    def facts(self) -> dict[str, str]:
        """Return what the results file stores about it."""
        return {"version": self.version(), "promise": self.call, "about": f"keeps {self.keeps}", "flushed": ""}
