"""Run tasks on an engine that exists: any executor of concurrent.futures, or a Dask cluster.

A chunk is one call, ``pickle.loads(bytes)``, which is a function of the standard library: unpickling the bytes *is* the
run of the chunk (see ``remote_worker.enter()``). So neither a scheduler nor a pool that pickles by reference imports
anything of this package or of the program.

The engine may lose a chunk because a task killed its worker, and does not say which task. Such a chunk is taken apart:
each of its tasks runs alone, and a task that is lost alone has killed its worker. If the whole engine breaks with it,
it is made anew, and the suspects run one at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import queue
import selectors
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from typing import Any

from tastypy_fast._optional import optional_import
from tastypy_fast.exceptions import ExecutorLostError, UnsendableFunctionError, WorkerStartError
from tastypy_fast.pipeline import remote_worker, worker
from tastypy_fast.pipeline.chunk_size import ChunkSize
from tastypy_fast.pipeline.executor import NOT_BEGUN, Event, Task, TaskExecutor
from tastypy_fast.pipeline.wire import decode_outcome
from tastypy_fast.pipeline.worker import FAILED, Outcome, TaskFunction, task_failure

__all__ = ["FuturesExecutor", "is_dask_client"]

# How many chunks are in flight for each worker. The engine gives a waiting chunk to the worker that is free first, so
# no chunk waits behind a long one.
CHUNKS = 2
# How often the number of Dask's workers is read, in seconds.
COUNT_EVERY = 5.0
# How long a scheduler may be away before the run ends, in seconds.
MAX_AWAY = 5.0
# How long to wait for the result of a chunk that has ended, in seconds.
MAX_GATHER = 3.0
# The errors with which engines say that a task killed its worker, by name, because they may not be installed.
_DEATHS = ("KilledWorker", "WorkerCrashedError", "LocalRayletDiedError", "NodeDiedError")


class _Call:
    """A call that takes place when its pickle is loaded."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return remote_worker.enter, self._arguments


class _NotYetError(Exception):
    """A future has to be waited for again."""


class _Engine:
    """What is needed of an executor of concurrent.futures."""

    def __init__(self, pool: Any, is_own: bool) -> None:
        self._pool = pool
        # Whether run() has made the pool, and therefore ends it.
        self._is_own = is_own

    def count_workers(self) -> int:
        count = getattr(self._pool, "_max_workers", None)
        return count if isinstance(count, int) else os.cpu_count() or 1

    def submit(self, call: bytes) -> Any:
        return self._pool.submit(pickle.loads, call)

    def result(self, future: Any) -> Any:
        """Return the result of a future that has ended, or raise its error."""
        return future.result(timeout=0)

    def is_lost(self) -> bool:
        """Return whether the engine is gone although no future says so."""
        return False

    def cancel(self, futures: list[Any]) -> None:
        for future in futures:
            future.cancel()

    def end(self, at_once: bool) -> None:
        """End the pool, if run() has made it."""
        if not self._is_own:
            return
        processes = list((getattr(self._pool, "_processes", None) or {}).values()) if at_once else []
        self._pool.shutdown(wait=not at_once, cancel_futures=True)
        for process in processes:
            with contextlib.suppress(Exception):
                process.kill()


class _Dask(_Engine):
    """What is needed of a client of Dask."""

    def __init__(self, client: Any, is_own: bool) -> None:
        super().__init__(client, is_own)
        self._counted_at = -COUNT_EVERY
        self._count = 1
        self._away_since: float | None = None

    def count_workers(self) -> int:
        now = time.monotonic()
        if now - self._counted_at >= COUNT_EVERY:
            self._counted_at = now
            with contextlib.suppress(Exception):
                # Tasks may be submitted before the first worker of a cluster has come.
                self._count = max(1, sum(self._pool.nthreads().values()))
        return self._count

    def submit(self, call: bytes) -> Any:
        return self._pool.submit(pickle.loads, call, pure=False)

    def result(self, future: Any) -> Any:
        # A future that has ended is pending again when the worker that kept its result has died: Dask runs it again.
        if future.status not in ("finished", "error", "cancelled"):
            raise _NotYetError
        try:
            return future.result(timeout=MAX_GATHER)
        except TimeoutError:
            raise _NotYetError from None

    def is_lost(self) -> bool:
        if self._pool.status == "running":
            self._away_since = None
            return False
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        return now - self._away_since > MAX_AWAY

    def cancel(self, futures: list[Any]) -> None:
        with contextlib.suppress(Exception):
            self._pool.cancel(futures, force=True)

    def end(self, at_once: bool) -> None:
        if self._is_own:
            with contextlib.suppress(Exception):
                self._pool.close(timeout=5)


def is_dask_client(value: Any) -> bool:
    """Return whether this is a Client of Dask, without importing Dask."""
    return any(cls.__module__.partition(".")[0] == "distributed" and cls.__name__ == "Client"
               for cls in type(value).__mro__)


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
        self._make: Callable[[], Any] | None = None
        self._given = None
        if hasattr(executor, "submit") and not isinstance(executor, type):
            self._given = executor
        else:
            self._make = executor
        self._chosen_workers = workers
        self._function = function
        self._timeout = timeout
        self._engine: _Engine | None = None
        self._size = ChunkSize()
        # The chunks in flight, by their futures.
        self._chunks: dict[Any, list[Task]] = {}
        self._events: list[Event] = []
        # Raised by step() after the last event.
        self._error: Exception | None = None
        # Tasks of chunks that were lost. Each runs alone.
        self._suspects: deque[Task] = deque()
        # Whether the engine broke as a whole, so that nothing else may run beside a suspect.
        self._is_careful = False
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._has_rung = self._is_closed = False
        self._reader, self._writer = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        if wakeup is not None:
            self._selector.register(wakeup, selectors.EVENT_READ)
        self._setup = b""
        self._digest = ""
        self.workers = workers or 1

    def start(self) -> None:
        """Pickle the function, and make the engine. See ``TaskExecutor.start()``."""
        self._cloudpickle = optional_import("cloudpickle", "run", "executors of other packages")
        with _by_value(self._cloudpickle, self._function):
            try:
                self._setup = self._cloudpickle.dumps(remote_worker.RemoteSetup(self._function, self._timeout), 5)
            except Exception as error:
                raise UnsendableFunctionError(
                    f"the function cannot be sent to a worker: {type(error).__name__}: {error}. Open files, locks and "
                    f"connections inside of it") from error
        self._digest = hashlib.sha256(self._setup).hexdigest()
        self._start_engine()

    def _start_engine(self) -> None:
        pool = self._given
        if self._make is not None:
            try:
                pool = self._make()
            except Exception as error:
                raise WorkerStartError(f"the executor cannot be made: {type(error).__name__}: {error}") from error
            if not hasattr(pool, "submit"):
                raise TypeError(f"executor= takes an executor with submit(), or a function that makes one; it has made "
                                f"{pool!r}")
        kind = _Dask if is_dask_client(pool) else _Engine
        self._engine = kind(pool, self._make is not None)
        self._count()

    def _count(self) -> int:
        assert self._engine is not None
        self.workers = self._chosen_workers or self._engine.count_workers()
        return self.workers

    def room(self) -> int:
        """Return the size of the next chunk. See ``TaskExecutor.room()``."""
        if self._suspects or self._error is not None:
            return 0
        return self._size.tasks if len(self._chunks) < self._count() * CHUNKS else 0

    def put(self, tasks: list[Task]) -> None:
        """Submit a chunk. See ``TaskExecutor.put()``."""
        self._submit(list(tasks))

    def _submit(self, tasks: list[Task]) -> None:
        assert self._engine is not None
        with _by_value(self._cloudpickle, self._function):
            call = self._cloudpickle.dumps(
                _Call(self._digest, self._setup, [(task.key, task.tries, task.data) for task in tasks]), 5)
        try:
            future = self._engine.submit(call)
        except Exception as error:
            # The engine broke before, and says so only now. These tasks have not begun.
            if isinstance(error, BrokenExecutor):
                self._events.extend(Event(task, NOT_BEGUN) for task in tasks)
                self._break(error, [])
            else:
                self._lose(tasks, error)
            return
        self._chunks[future] = tasks
        future.add_done_callback(self._note_done)

    def _note_done(self, future: Any) -> None:
        """Wake the driver, from any thread."""
        with self._lock:
            if self._is_closed:
                return
            self._done.put(future)
            if not self._has_rung:
                self._has_rung = True
                os.write(self._writer, b"\0")

    def step(self, seconds: float) -> list[Event]:
        """Wait for chunks that have ended. See ``TaskExecutor.step()``."""
        assert self._engine is not None
        self._submit_suspects()
        if self._engine.is_lost():
            self._lose_engine("its scheduler cannot be reached")
        for key, _ in self._selector.select(0.0 if self._events or self._error else seconds):
            if key.fd == self._reader:
                with self._lock:
                    os.read(self._reader, 1)
                    self._has_rung = False
        while True:
            try:
                future = self._done.get_nowait()
            except queue.Empty:
                break
            chunk = self._chunks.pop(future, None)
            if chunk is not None:
                self._finish(future, chunk)
        self._submit_suspects()
        events, self._events = self._events, []
        if self._error is not None and not events:
            raise self._error
        return events

    def _finish(self, future: Any, tasks: list[Task]) -> None:
        assert self._engine is not None
        try:
            seconds, last, items = self._engine.result(future)
        except _NotYetError:
            self._chunks[future] = tasks
            future.add_done_callback(self._note_done)
            return
        except BaseException as error:
            self._lose(tasks, error)
            return
        self._events.extend(Event(task, decode_outcome(item)) for task, item in zip(tasks, items, strict=False))
        self._events.extend(Event(task, NOT_BEGUN) for task in tasks[len(items):])
        self._size.learn(len(tasks), len(items), seconds, last)

    def _lose(self, tasks: list[Task], error: BaseException) -> None:
        """Find out what it means that a chunk has raised."""
        name = type(error).__name__
        if isinstance(error, BrokenExecutor):
            self._break(error, tasks)
        elif name in _DEATHS:
            self.workers_lost += 1
            if len(tasks) == 1:
                self._blame(tasks[0], f"the worker of the task died: {name}: {error}")
            else:
                self._suspects.extend(tasks)
        else:
            self._events.extend(Event(task, NOT_BEGUN) for task in tasks)
            if isinstance(error, CancelledError) or name in ("FutureCancelledError", "CommClosedError", "TimeoutError"):
                self._lose_engine(f"{name}: {error}")
            elif self._error is None:
                self._error = WorkerStartError(
                    f"a worker of the executor cannot run tasks: {name}: {error}. It needs cloudpickle, and the "
                    f"modules that the function imports")

    def _blame(self, task: Task, message: str) -> None:
        self._events.append(Event(task, Outcome(FAILED, None, task_failure("WorkerDied", message))))

    def _break(self, error: BaseException, tasks: list[Task]) -> None:
        """Make the engine anew, after it broke with ``tasks`` and all others in flight. A foreign one is lost."""
        assert self._engine is not None
        self.workers_lost += 1
        if self._make is None:
            self._events.extend(Event(task, NOT_BEGUN) for task in tasks)
            self._lose_engine(f"{type(error).__name__}: {error}")
            return
        tasks = tasks + [task for chunk in self._chunks.values() for task in chunk]
        self._chunks.clear()
        self._engine.end(at_once=True)
        if len(tasks) == 1:
            self._blame(tasks[0], f"the worker of the task died: {error}")
        else:
            self._suspects.extendleft(reversed(tasks))
        self._is_careful = True
        try:
            self._start_engine()
        except Exception as failure:
            self._error = failure

    def _submit_suspects(self) -> None:
        if not self._suspects:
            self._is_careful = False
        while self._suspects and self._error is None and len(self._chunks) < (1 if self._is_careful else self._count()):
            self._submit([self._suspects.popleft()])

    def _lose_engine(self, reason: str) -> None:
        """Let step() raise, after the events of the chunks that have ended."""
        if self._error is None:
            self._error = ExecutorLostError(f"the executor was lost: {reason}. What was done is committed; make a new "
                                            f"executor, and call run() again")

    def is_busy(self) -> bool:
        """Return whether a task is in flight. See ``TaskExecutor.is_busy()``."""
        return bool(self._chunks or self._suspects or self._events)

    def kill(self) -> list[Task]:
        """Cancel what has not begun, and forget the rest. See ``TaskExecutor.kill()``.

        The engine may still run tasks that have begun. Their results are dropped.
        """
        tasks = [task for chunk in self._chunks.values() for task in chunk] + list(self._suspects)
        tasks += [event.task for event in self._events]
        futures = [future for future in self._chunks if hasattr(future, "cancel")]
        self._chunks.clear()
        self._suspects.clear()
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


@contextlib.contextmanager
def _by_value(cloudpickle: Any, function: TaskFunction) -> Iterator[None]:
    """Let cloudpickle send our modules by value, and the module of the user's function, unless it is installed."""
    modules = [worker, remote_worker]
    own = _module_to_send(function.function)
    if own is not None:
        modules.append(own)
    registered = cloudpickle.list_registry_pickle_by_value()
    added = [module for module in modules if module.__name__ not in registered]
    for module in added:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)


def _module_to_send(function: Any) -> Any:
    """Return the top-level package or module of a function if workers may not have it, because it is not installed."""
    name = getattr(function, "__module__", None) or type(function).__module__
    module = sys.modules.get(name.partition(".")[0])
    file = getattr(module, "__file__", None)
    if file is None or name.partition(".")[0] in ("__main__", "tastypy_fast"):
        return None
    installed = {os.path.realpath(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    folder = os.path.realpath(file)
    return None if any(folder.startswith(place + os.sep) for place in installed) else module
