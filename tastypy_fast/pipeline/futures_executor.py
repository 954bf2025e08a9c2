"""Run tasks on an engine that exists: any executor of concurrent.futures, or a Dask cluster.

The engine may lose a chunk because a task killed its worker, and does not say which task. A task is blamed only if it
was lost while nothing else was in flight, because engines also lose what was near it. Until then, a lost chunk is taken
apart, and what was lost with an engine that broke as a whole runs again, one chunk at a time.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError
from typing import Any, NamedTuple

from tastypy_fast.exceptions import ExecutorLostError, WorkerStartError
from tastypy_fast.pipeline.chunk_size import MAX_TASKS, ChunkSize
from tastypy_fast.pipeline.engines import Engine, ThreadEngine, dask_client, open_engine
from tastypy_fast.pipeline.executor import NOT_BEGUN, Event, Task, TaskExecutor
from tastypy_fast.pipeline.remote_call import RemoteFunction
from tastypy_fast.pipeline.remote_worker import RemoteSetup
from tastypy_fast.pipeline.supervised_child import end_children
from tastypy_fast.pipeline.wire import decode_outcome
from tastypy_fast.pipeline.worker import FAILED, Outcome, TaskFunction, task_failure

__all__ = ["FuturesExecutor", "dask_client"]

# A second chunk waits for each worker while a task takes less than this, in seconds.
LONG_SECONDS = 1.0
# Chunks may be larger than those of local workers while at most this number of tasks is in flight, because each chunk
# costs a scheduler several milliseconds.
MAX_FLYING = 20_000
# How often an engine may fail in a row before it has run a task.
MAX_STARTS = 3
# How long a run waits for the first worker of a cluster before it says so, in seconds.
WARN_SECONDS = 10.0
# How many tasks of lost chunks wait for a moment when nothing else is in flight. More of them interrupt the run.
MAX_ACCUSED = 100
# The errors with which engines say that a task killed its worker, by name, because they may not be installed.
_DEATHS = ("KilledWorker", "WorkerCrashedError", "LocalRayletDiedError", "NodeDiedError")
# The errors with which they say that a call will never run.
_LOSSES = ("FutureCancelledError", "FuturesCancelledError", "CommClosedError", "TimeoutError")


class _Chunk(NamedTuple):
    """A chunk in flight. That without tasks is a probe, which shows that a worker can load the function."""

    tasks: list[Task]
    has_payload: bool


class FuturesExecutor(TaskExecutor):
    """Runs tasks on another engine.

    Args:
        function: The function of the run.
        executor: An executor, a client of Dask, or a function that makes one. What the function makes is ended with the
            run, and made anew if it breaks.
        workers: The number of tasks that run at once; None for what the engine says.
        timeout: The time limit of a task, in seconds.
        wakeup: A file descriptor. ``step()`` returns when it can be read.
    """

    def __init__(self, function: TaskFunction, executor: Any, workers: int | None = None, *,
                 timeout: float | None = None, wakeup: int | None = None) -> None:
        is_given = hasattr(executor, "submit") and not isinstance(executor, type)
        self._given = executor if is_given else None
        self._make: Callable[[], Any] | None = None if is_given else executor
        self._chosen_workers = workers
        self._setup = RemoteSetup(function, timeout)
        # None if tasks run in threads of this process, which need no pickle.
        self._remote: RemoteFunction | None = None
        self._engine: Engine | None = None
        self._size = ChunkSize()
        # The chunks in flight, by their futures.
        self._chunks: dict[Any, _Chunk] = {}
        self._events: list[Event] = []
        # Raised by step() after the last event.
        self._error: Exception | None = None
        # Whether the probe of this engine has come back, and how many engines in a row have failed.
        self._is_ready = False
        self._failed_starts = 0
        self._warn_at = float("inf")
        # Tasks of lost chunks, each of which runs in a chunk of its own.
        self._suspects: deque[Task] = deque()
        # Chunks that run while nothing else is in flight, and the one that does. They run at once if the engine broke.
        self._accused: deque[list[Task]] = deque()
        self._trial: Any = None
        self._is_careful = False
        # Whether no more chunks are submitted, because the run is about to end.
        self._is_draining = False
        # The tasks that Ctrl-C has interrupted in a worker. It reaches the workers of most engines.
        self._interrupted: set[Any] = set()
        self._done: queue.SimpleQueue[tuple[Any, Any, BaseException | None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._has_rung = self._is_closed = False
        self._reader, self._writer = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        if wakeup is not None:
            self._selector.register(wakeup, selectors.EVENT_READ)
        self.workers = workers or 1

    # Starting

    def start(self) -> None:
        """Make the engine, and pickle the function. See ``TaskExecutor.start()``."""
        self._open_engine()
        self._send_probe()
        self._warn_at = time.monotonic() + WARN_SECONDS

    def _open_engine(self) -> None:
        pool = self._given
        if self._make is not None:
            try:
                pool = self._make()
            except Exception as error:
                raise WorkerStartError(f"the executor cannot be made: {type(error).__name__}: {error}") from error
            if not hasattr(pool, "submit"):
                raise TypeError(f"executor= takes an executor with submit(), or a function that makes one; it has made "
                                f"{pool!r}")
        name = getattr(self._setup.function.function, "__name__", "task")
        self._engine = open_engine(pool, self._make is not None, name)
        self._is_ready = False
        self._window()
        if self._remote is None and not self._runs_here():
            self._remote = RemoteFunction(self._setup)

    def _runs_here(self) -> bool:
        assert self._engine is not None
        return self._engine.is_in_process and self._setup.timeout is None

    def _send_probe(self) -> None:
        """Submit a chunk without tasks. Nothing else is submitted until a worker has returned it."""
        self._submit([], with_payload=True)

    # Handing out

    def _window(self) -> int:
        """Return how many chunks may be in flight.

        A chunk that waits gives a worker something to do while the driver receives results. No long task waits, because
        a run that is stopped would have to wait for it, too.
        """
        assert self._engine is not None
        count = self._engine.count_workers()
        self.workers = self._chosen_workers or count or os.cpu_count() or 1
        is_limited = count is not None and self.workers < count
        window = self.workers * (2 if 0 <= self._size.seconds < LONG_SECONDS and not is_limited else 1)
        self._size.max_tasks = max(MAX_TASKS, MAX_FLYING // window)
        return window

    def room(self) -> int:
        """Return the size of the next chunk. See ``TaskExecutor.room()``."""
        if not self._is_ready or self._error is not None or self._suspects or self._trial is not None:
            return 0
        if self._accused and (self._is_careful or len(self._accused) >= MAX_ACCUSED):
            return 0
        return self._size.tasks if len(self._chunks) < self._window() else 0

    def put(self, tasks: list[Task]) -> None:
        """Submit a chunk. See ``TaskExecutor.put()``."""
        self._submit(list(tasks))

    def _submit(self, tasks: list[Task], with_payload: bool = False) -> Any:
        """Submit a chunk, and return its future, or None if that fails."""
        assert self._engine is not None
        try:
            if self._remote is None:
                assert isinstance(self._engine, ThreadEngine)
                # Copies, because a task may change its data.
                copies = pickle.loads(pickle.dumps([(task.key, task.tries, task.data) for task in tasks], 5))
                future = self._engine.submit_here(self._note_done, self._setup.run, "", b"", copies)
            else:
                call = self._remote.pickle_call(tasks, with_payload)
                if tasks and tasks[0].data is not None:
                    self._size.learn_bytes(len(call) / len(tasks))
                future = self._engine.submit(self._note_done, call)
        except Exception as error:
            # The engine broke or was shut down before, and says so only now. These tasks have not begun.
            self._give_back(tasks)
            self._break(error, is_late=True)
            return None
        self._chunks[future] = _Chunk(tasks, with_payload)
        return future

    def _submit_lost(self) -> None:
        """Submit tasks of lost chunks as soon as that is allowed."""
        if self._is_draining:
            assert self._engine is not None
            if self._chunks and self._engine.has_no_workers():
                # Ctrl-C ends the workers of a local cluster, too. Their tasks would wait for new ones.
                self._engine.cancel(list(self._chunks))
                self._give_back([task for chunk in self._chunks.values() for task in chunk.tasks])
                self._chunks.clear()
            self._give_back([*self._suspects, *(task for tasks in self._accused for task in tasks)])
            self._suspects.clear()
            self._accused.clear()
        while self._is_ready and self._suspects and self._trial is None and len(self._chunks) < self._window():
            self._submit([self._suspects.popleft()])
        if self._is_ready and self._accused and not self._chunks and self._error is None:
            self._trial = self._submit(self._accused.popleft())
        if not self._accused and self._trial is None:
            self._is_careful = False

    # Receiving

    def _note_done(self, future: Any, result: Any, error: BaseException | None) -> None:
        """Wake the driver, from any thread."""
        with self._lock:
            if self._is_closed:
                return
            self._done.put((future, result, error))
            if not self._has_rung:
                self._has_rung = True
                os.write(self._writer, b"\0")

    def step(self, seconds: float) -> list[Event]:
        """Wait for chunks that have ended. See ``TaskExecutor.step()``."""
        assert self._engine is not None
        self._submit_lost()
        reason = self._engine.why_lost()
        if reason is not None:
            self._lose_engine(reason)
        if not self._is_ready and time.monotonic() >= self._warn_at:
            self._warn_at = float("inf")
            if self._engine.has_no_workers():
                logging.getLogger("tastypy_fast").warning("run() waits for the first worker of the cluster")
        for key, _ in self._selector.select(0.0 if self._events or self._error else seconds):
            if key.fd == self._reader:
                with self._lock:
                    os.read(self._reader, 1)
                    self._has_rung = False
        # Results first, because an engine that breaks forgets what else is in flight.
        done = [self._done.get_nowait() for _ in range(self._done.qsize())]
        for future, result, error in sorted(done, key=lambda entry: entry[2] is not None):
            chunk = self._chunks.pop(future, None)
            if chunk is None:
                continue
            is_trial = future is self._trial
            if is_trial:
                self._trial = None
            if error is None:
                self._receive(chunk, result)
            else:
                self._lose(chunk.tasks, error, is_trial)
        self._submit_lost()
        events, self._events = self._events, []
        if self._error is not None and not events:
            raise self._error
        return events

    def _receive(self, chunk: _Chunk, result: Any) -> None:
        tasks = chunk.tasks
        if result is None and not chunk.has_payload:
            if self._is_draining:
                self._give_back(tasks)
            else:
                self._submit(tasks, with_payload=True)
            return
        if isinstance(result, str):
            self._give_back(tasks)
            self._fail_to_start(f"a worker has Python {result}, and this program another version. Functions are sent "
                                f"as byte code, so both need the same version, as 3.12")
            return
        seconds, last, items = pickle.loads(result) if isinstance(result, bytes) else result
        if not tasks:
            self._is_ready = True
            return
        self._failed_starts = 0
        for task, item in zip(tasks, items, strict=False):
            outcome = decode_outcome(item)
            if outcome.error is not None and outcome.error["type"] == "KeyboardInterrupt" and (
                    task.key not in self._interrupted):
                # Perhaps by Ctrl-C, which is no try. A task that does it again has raised it.
                self._interrupted.add(task.key)
                self._events.append(Event(task, NOT_BEGUN))
            else:
                self._events.append(Event(task, outcome))
        self._give_back(tasks[len(items):])
        self._size.learn(len(tasks), len(items), seconds, last)

    def _give_back(self, tasks: list[Task]) -> None:
        self._events.extend(Event(task, NOT_BEGUN) for task in tasks)

    # Faults

    def _lose(self, tasks: list[Task], error: BaseException, is_trial: bool) -> None:
        """Find out what it means that a chunk has raised."""
        name = type(error).__name__
        if isinstance(error, BrokenExecutor):
            if is_trial:
                self._judge(tasks, error)
            elif self._make is None:
                self._give_back(tasks)
            elif tasks:
                self._accused.append(tasks)
            self._break(error, is_late=False)
        elif name in _DEATHS and tasks:
            self.workers_lost += 1
            if len(tasks) > 1:
                self._suspects.extend(tasks)
            elif is_trial:
                self._judge(tasks, error)
            else:
                self._accused.append(tasks)
        elif isinstance(error, CancelledError) or name in _LOSSES:
            self._give_back(tasks)
            self._lose_engine(f"{name}: {error}")
        else:
            self._give_back(tasks)
            self._fail_to_start(f"a worker of the executor cannot run tasks: {name}: {error}{self._advice(error)}")

    def _judge(self, tasks: list[Task], error: BaseException) -> None:
        """Blame a task that was lost while nothing else was in flight, or take a chunk apart."""
        if len(tasks) == 1:
            self._failed_starts = 0
            message = f"the worker of the task died: {type(error).__name__}: {error}"
            self._events.append(Event(tasks[0], Outcome(FAILED, None, task_failure("WorkerDied", message))))
        else:
            self._accused.extendleft([task] for task in reversed(tasks))

    def _break(self, error: BaseException, is_late: bool) -> None:
        """Make the engine anew, after it broke with all that was in flight. One that was given is lost.

        ``is_late`` says that it broke before, and says so only now.
        """
        assert self._engine is not None
        reason = f"{type(error).__name__}: {error}"
        was_ready, self._is_ready = self._is_ready, False
        self.workers_lost += was_ready
        self._failed_starts += is_late or not was_ready
        if self._make is None and (was_ready or is_late):
            self._lose_engine(reason)
            return
        if self._make is None or self._failed_starts >= MAX_STARTS:
            self._fail_to_start(f"the executor broke before a task could run: {reason}")
            return
        self._accused.extend(chunk.tasks for chunk in self._chunks.values() if chunk.tasks)
        self._chunks.clear()
        self._trial = None
        self._is_careful = True
        self._engine.end(at_once=True)
        if self._is_draining:
            return
        try:
            self._open_engine()
        except Exception as failure:
            self._error = self._error or failure
        else:
            self._send_probe()

    def _advice(self, error: BaseException) -> str:
        if isinstance(error, ImportError) and error.name == "cloudpickle":
            return ". Workers need cloudpickle: pip install cloudpickle"
        if isinstance(error, ImportError):
            reason = self._remote.reason if self._remote is not None else None
            return ". Install it where the workers are" + (
                f", because the program's modules cannot be sent: {reason}" if reason else "")
        return ""

    def _fail_to_start(self, reason: str) -> None:
        if self._error is None:
            self._error = WorkerStartError(reason)

    def _lose_engine(self, reason: str) -> None:
        """Let step() raise, after the events of the chunks that have ended."""
        if self._error is None:
            self._error = ExecutorLostError(f"the executor was lost: {reason}. What was done is committed; make a new "
                                            f"executor, and call run() again")

    # Ending

    def begin_no_more(self) -> None:
        """Give back the chunks that wait for a worker. See ``TaskExecutor.begin_no_more()``."""
        self._is_draining = True
        assert self._engine is not None
        for future, chunk in list(self._chunks.items()):
            if chunk.tasks and self._engine.cancel_waiting(future):
                del self._chunks[future]
                self._give_back(chunk.tasks)

    def is_busy(self) -> bool:
        """Return whether a task is in flight. See ``TaskExecutor.is_busy()``."""
        return bool(self._events or self._suspects or self._accused or any(
            chunk.tasks for chunk in self._chunks.values()))

    def kill(self) -> list[Task]:
        """Cancel what has not begun, and forget the rest. See ``TaskExecutor.kill()``.

        An engine that was given may still run tasks that have begun. Their results are dropped.
        """
        tasks = [task for chunk in [*(chunk.tasks for chunk in self._chunks.values()), *self._accused]
                 for task in chunk]
        tasks += [*self._suspects, *(event.task for event in self._events)]
        futures = list(self._chunks)
        self._chunks.clear()
        self._suspects.clear()
        self._accused.clear()
        self._events.clear()
        if self._engine is not None:
            self._engine.cancel(futures)
        self._end(at_once=True)
        return tasks

    def close(self) -> None:
        """End the engine, if it is ours. See ``TaskExecutor.close()``."""
        self._end(at_once=False)

    def _end(self, at_once: bool) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._selector.close()
            os.close(self._reader)
            os.close(self._writer)
        if self._engine is not None:
            self._engine.end(at_once)
        if self._remote is not None:
            # Those of workers in this process. Other processes end theirs.
            end_children(self._remote.digest)
