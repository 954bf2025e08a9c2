"""Drive an executor as ``tracker.run()`` does, and look at the processes that it has started."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path

from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.worker import DONE, TaskFunction
from tastypy_fast.pipeline.worker_pool import ProcessPool

# After this time, in seconds, something hangs.
HANGS = 60


@contextmanager
def started(executor):
    """A started executor, which is killed with the block unless it was closed."""
    executor.start()
    try:
        yield executor
    finally:
        executor.kill()


def pool_of(function, workers=2, *, with_data=False, abort_on=(), **options):
    """A started ProcessPool for a plain function."""
    return started(ProcessPool(TaskFunction(function, with_data, abort_on), workers, **options))


def drive(executor, tasks, size=None):
    """The outcome of each task by its key. Each task has exactly one.

    ``tasks`` are keys or Tasks. A task that is given back is put again. ``size`` overrides the size of chunks.
    """
    waiting = deque(task if isinstance(task, Task) else Task(task, 1) for task in tasks)
    outcomes = {}
    end = time.monotonic() + HANGS
    while waiting or executor.is_busy():
        while waiting and (room := executor.room()):
            executor.put([waiting.popleft() for _ in range(min(size or room, len(waiting)))])
        for task, outcome in executor.step(1.0):
            if outcome is None:
                waiting.append(task)
            else:
                assert task.key not in outcomes, f"{task} has two outcomes"
                outcomes[task.key] = outcome
        assert time.monotonic() < end, f"hangs: {len(outcomes)} have ended, {len(waiting)} wait"
    return outcomes


def first_events(executor):
    """The next events that there are."""
    end = time.monotonic() + HANGS
    while not (events := executor.step(1.0)):
        assert time.monotonic() < end, "hangs"
    return events


def until(condition):
    """Wait for a condition that is bound to become true."""
    end = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < end, "hangs"
        time.sleep(0.005)


def until_room(executor):
    """Wait until a task can be put."""
    until(lambda: executor.room() or executor.step(0.01))


def failures(outcomes):
    """The ``_error`` of each task that is not done."""
    return {key: outcome.error for key, outcome in outcomes.items() if outcome.kind != DONE}


def state_of(pid):
    """The state of a process as in ``/proc``, None if there is none. A zombie has ended, so it is none either."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else state


def has_ended(pid):
    return state_of(pid) is None


def workers_of(pool):
    """The process ids of a pool's workers."""
    return [worker._pid for worker in pool._crew]
