"""Has several processes do a workload to one store at once, each timed over its own share."""

from __future__ import annotations

import os
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import perf_counter, process_time
from typing import Any, NamedTuple

from benchmarks.shared_workloads import SHARED_WORKLOADS, Scale, Share
from benchmarks.system import anonymous_memory


class Done(NamedTuple):
    """What one process did: from when to when, seconds of processor time, by how many bytes its memory grew, and what
    the operation returned."""

    begin: float
    end: float
    running: float
    memory: int
    found: Any


class Total(NamedTuple):
    """The same of all processes; ``seconds`` from the first one's beginning to the last one's end."""

    seconds: float
    running: float
    memory: int
    found: list[Any]


def run(workload: str, store: Any, scale: Scale, processes: int) -> Total:
    """Do a workload to a store that was made ready for it. Raises EOFError when a process fails."""
    # New interpreters: none has anything of the preparation in its memory.
    context = get_context("spawn")
    workers, pipes = [], []
    for number in range(processes):
        pipe, theirs = context.Pipe()
        arguments = (theirs, workload, store, Share(scale, number, processes))
        worker = context.Process(target=_work, args=arguments, daemon=True)
        worker.start()
        theirs.close()
        workers.append(worker)
        pipes.append(pipe)
    for pipe in pipes:
        pipe.recv()
    # What the preparation wrote would otherwise go to the disk while the clock runs.
    os.sync()
    running, memory = store.used_elsewhere()
    for pipe in pipes:
        pipe.send("begin")
    done: list[Done] = [pipe.recv() for pipe in pipes]
    running_now, memory_now = store.used_elsewhere()
    for worker in workers:
        worker.join()
    return Total(
        # The clock is the system's, the same for all processes.
        max(each.end for each in done) - min(each.begin for each in done),
        sum(each.running for each in done) + running_now - running,
        sum(each.memory for each in done) + memory_now - memory,
        [each.found for each in done],
    )


def _work(pipe: Connection, name: str, store: Any, share: Share) -> None:
    workload = SHARED_WORKLOADS[name]
    operation = getattr(store, workload.method(share.scale.batch) or "")
    given = workload.given(share)
    # Each opens its files or connections only when it is used.
    len(store)
    memory = anonymous_memory() or 0
    pipe.send("ready")
    pipe.recv()
    running = process_time()
    begin = perf_counter()
    found = operation(given)
    end = perf_counter()
    running = process_time() - running
    pipe.send(Done(begin, end, running, (anonymous_memory() or 0) - memory, found))
    store.close()
