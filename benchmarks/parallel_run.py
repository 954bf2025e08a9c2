"""Run a workload on one store in several processes at once. Each process measures its own share."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import perf_counter, process_time
from typing import Any, NamedTuple

from benchmarks.shared_workloads import SHARED_WORKLOADS, Scale, Share
from benchmarks.system import anonymous_memory


class WorkerResult(NamedTuple):
    """What one process measured: begin and end on the system's clock, processor seconds, growth of memory in bytes,
    and what the operation returned."""

    begin: float
    end: float
    cpu_seconds: float
    memory: int
    returned: Any


class TotalResult(NamedTuple):
    """The sum over all processes. ``seconds`` is from the first begin to the last end."""

    seconds: float
    cpu_seconds: float
    memory: int
    returned: list[Any]


class Workers:
    """Processes that begin at the same moment.

    Each runs ``work(pipe, *arguments, share)``. It sends any message when its input is ready, receives one that tells
    it to begin, and sends its result. The constructor returns when all are ready.

    Raises:
        EOFError: A process failed.
    """

    def __init__(self, work: Callable[..., None], arguments: tuple[Any, ...], scale: Scale, processes: int) -> None:
        # "spawn", because a forked process would inherit the memory of the preparation.
        context = get_context("spawn")
        self._workers, self._pipes = [], []
        for number in range(processes):
            pipe, child_end = context.Pipe()
            share = Share(scale, number, processes)
            worker = context.Process(target=work, args=(child_end, *arguments, share), daemon=True)
            worker.start()
            child_end.close()
            self._workers.append(worker)
            self._pipes.append(pipe)
        for pipe in self._pipes:
            pipe.recv()
        # Without this the system would write the prepared data to disk during the measurement.
        os.sync()

    def results(self) -> list[Any]:
        """Let all processes begin, and return their results."""
        for pipe in self._pipes:
            pipe.send("begin")
        return [pipe.recv() for pipe in self._pipes]

    def join(self) -> None:
        """Wait until all processes have ended."""
        for worker in self._workers:
            worker.join()


def run(workload: str, store: Any, scale: Scale, processes: int) -> TotalResult:
    """Run a workload on a prepared store.

    Raises:
        EOFError: A process failed.
    """
    workers = Workers(_work, (workload, store), scale, processes)
    cpu_before, memory_before = store.server_usage()
    results: list[WorkerResult] = workers.results()
    cpu_after, memory_after = store.server_usage()
    workers.join()
    return TotalResult(
        # perf_counter() is the same clock in all processes.
        max(each.end for each in results) - min(each.begin for each in results),
        sum(each.cpu_seconds for each in results) + cpu_after - cpu_before,
        sum(each.memory for each in results) + memory_after - memory_before,
        [each.returned for each in results],
    )


def _work(pipe: Connection, name: str, store: Any, share: Share) -> None:
    workload = SHARED_WORKLOADS[name]
    operation = getattr(store, workload.method(share.scale.batch) or "")
    argument = workload.argument(share)
    # The first access opens the files or connections, which is not measured.
    len(store)
    memory = anonymous_memory() or 0
    pipe.send("ready")
    pipe.recv()
    cpu = process_time()
    begin = perf_counter()
    returned = operation(argument)
    end = perf_counter()
    cpu = process_time() - cpu
    pipe.send(WorkerResult(begin, end, cpu, (anonymous_memory() or 0) - memory, returned))
    store.close()
