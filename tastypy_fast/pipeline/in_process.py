"""Run tasks in this process: in threads, as coroutines of one event loop, or in the calling thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import selectors
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tastypy_fast.exceptions import WorkerStartError
from tastypy_fast.pipeline.chunk_size import QUICK_SECONDS, ChunkSize
from tastypy_fast.pipeline.executor import NOT_BEGUN, Event, Task, TaskExecutor
from tastypy_fast.pipeline.worker import (
    DONE,
    FAILED,
    Outcome,
    TaskFunction,
    describe_error,
    run_chunk,
    task_failure,
)

__all__ = ["AsyncExecutor", "InlineExecutor", "RunningTask", "ThreadExecutor"]

# How long close() waits for a thread that is idle, in seconds.
CLOSE_SECONDS = 5.0
# How long close() waits after kill() for coroutines that were cancelled, in seconds. A system may be about to kill the
# program.
KILL_SECONDS = 1.0
# The weight of the latest task in the mean of an AsyncExecutor.
WEIGHT = 0.1
# An AsyncExecutor keeps quick tasks for this time waiting, in seconds, and at most this number.
ASYNC_SECONDS = 0.02
MAX_WAITING = 1000
# A coroutine lets others run after this time, in seconds.
PAUSE_SECONDS = 0.005


class RunningTask(Protocol):
    """Notes the task that a thread or a coroutine runs, so that a task that kills the program is counted."""

    def begin(self, key: Any, tries: int) -> object:
        """Note that a task begins."""

    def end(self) -> object:
        """Note that it has ended."""


class _NoRunningTask:
    def begin(self, key: Any, tries: int) -> None:
        pass

    def end(self) -> None:
        pass


class _Results:
    """Takes results from other threads to the driver, and wakes the driver with a pipe.

    After ``close()``, results are dropped, because their tasks were given back.
    """

    def __init__(self, wakeup: int | None) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._has_rung = self._is_closed = False
        self._selector = selectors.DefaultSelector()
        self._reader, self._writer = os.pipe()
        self._selector.register(self._reader, selectors.EVENT_READ)
        if wakeup is not None:
            self._selector.register(wakeup, selectors.EVENT_READ)

    def put(self, result: Any) -> None:
        """Add a result, from any thread."""
        with self._lock:
            if self._is_closed:
                return
            self._queue.put(result)
            if not self._has_rung:
                self._has_rung = True
                os.write(self._writer, b"\0")

    def take(self, seconds: float) -> list[Any]:
        """Wait at most this long for a result, or for ``wakeup``, and return all results."""
        for key, _ in self._selector.select(seconds):
            if key.fd == self._reader:
                with self._lock:
                    os.read(self._reader, 1)
                    self._has_rung = False
        results = []
        with contextlib.suppress(queue.Empty):
            while True:
                results.append(self._queue.get_nowait())
        return results

    def close(self) -> None:
        """Drop what comes from now on."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._selector.close()
                os.close(self._reader)
                os.close(self._writer)


class _InProcess(TaskExecutor):
    """What the executors of this module have in common."""

    in_process = True

    def __init__(
        self, function: TaskFunction, workers: int, initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...], running: Callable[[], RunningTask] | None, wakeup: int | None,
    ) -> None:
        self.workers = workers
        self._function = function
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._running: Callable[[], RunningTask] = running or _NoRunningTask
        self._wakeup = wakeup
        self._flying: dict[int, Task] = {}
        self._error: WorkerStartError | None = None
        self._is_draining = self._is_ending = self._is_killed = False

    def _initialize(self) -> None:
        if self._initializer is not None:
            self._initializer(*self._initargs)

    def _launch(self, tasks: list[Task]) -> None:
        self._flying.update((id(task), task) for task in tasks)

    def _land(self, task: Task, outcome: Outcome | None) -> Event:
        del self._flying[id(task)]
        return Event(task, outcome)

    def _deliver(self, events: list[Event]) -> list[Event]:
        """Return events. Raises the error of an initializer when there is none."""
        if self._error is not None and not events:
            raise self._error
        return events

    def begin_no_more(self) -> None:
        """Give back the tasks of threads and chunks that have not begun. See ``TaskExecutor.begin_no_more()``."""
        self._is_draining = True

    def is_busy(self) -> bool:
        """Return whether tasks are in flight. See ``TaskExecutor.is_busy()``."""
        return bool(self._flying)

    def kill(self) -> list[Task]:
        """Give all tasks back. A thread that runs one cannot be ended. See ``TaskExecutor.kill()``."""
        tasks = list(self._flying.values())
        self._flying.clear()
        if tasks:
            self._is_killed = True
            self._abandon()
        else:
            self.close()
        return tasks

    @abstractmethod
    def _abandon(self) -> None:
        """Begin no more tasks, and release everything."""


def _start_error(error: BaseException) -> WorkerStartError:
    info = describe_error(error, 2)
    return WorkerStartError(f"the initializer raised: {info['type']}: {info['message']}\n\n{info['traceback']}")


class ThreadExecutor(_InProcess):
    """Runs tasks in threads of this process.

    Args:
        function: The function of the run.
        workers: The number of threads.
        initializer: A function that each thread calls before its first task.
        initargs: The arguments of the initializer.
        running: Makes an object for each thread, whose ``begin(key, tries)`` and ``end()`` are called around each task.
        wakeup: A file descriptor. ``step()`` returns when it can be read.
    """

    def __init__(
        self, function: TaskFunction, workers: int, *, initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (), running: Callable[[], RunningTask] | None = None, wakeup: int | None = None,
    ) -> None:
        super().__init__(function, workers, initializer, initargs, running, wakeup)
        self._size = ChunkSize()
        self._chunks: queue.SimpleQueue[list[Task] | None] = queue.SimpleQueue()
        self._results: _Results | None = None
        self._threads: list[threading.Thread] = []
        self._ready = self._open_chunks = 0

    def start(self) -> None:
        """Start the threads. See ``TaskExecutor.start()``."""
        self._results = _Results(self._wakeup)
        try:
            for slot in range(self.workers):
                thread = threading.Thread(
                    target=self._work, args=(slot, self._results), name=f"tastypy_fast worker {slot}", daemon=True)
                thread.start()
                self._threads.append(thread)
        except RuntimeError as error:
            self.kill()
            raise WorkerStartError(f"no thread can be started: {error}") from error

    def room(self) -> int:
        """Return the size of the next chunk. See ``TaskExecutor.room()``."""
        return self._size.tasks if self._open_chunks < self._ready * self._size.chunks else 0

    def put(self, tasks: list[Task]) -> None:
        """Give a chunk to the threads. See ``TaskExecutor.put()``."""
        self._launch(tasks)
        self._open_chunks += 1
        self._chunks.put(list(tasks))

    def step(self, seconds: float) -> list[Event]:
        """Wait for news. See ``TaskExecutor.step()``."""
        assert self._results is not None
        events: list[Event] = []
        for result in self._results.take(seconds):
            if result is None:
                self._ready += 1
            elif isinstance(result, BaseException):
                self._error = _start_error(result)
            else:
                tasks, outcomes, took, last = result
                self._open_chunks -= 1
                events += [self._land(task, outcome) for task, outcome in zip(tasks, outcomes, strict=False)]
                events += [self._land(task, NOT_BEGUN) for task in tasks[len(outcomes):]]
                self._size.learn(len(tasks), len(outcomes), took, last)
        return self._deliver(events)

    def _work(self, slot: int, results: _Results) -> None:
        """Run chunks, in a thread."""
        try:
            self._initialize()
            running = self._running()
        except BaseException as error:
            results.put(error)
            return
        results.put(None)
        run_task = _Noting(self._function, running)
        last = 0.0

        def begin(index: int, now: float) -> bool:
            nonlocal last
            last = now
            return not self._is_draining and not self._is_ending

        while (tasks := self._chunks.get()) is not None:
            began = time.monotonic()
            outcomes = run_chunk(run_task, [(task.key, task.tries, task.data) for task in tasks], slot, begin)
            now = time.monotonic()
            results.put((tasks, outcomes, now - began, now - last))

    def _abandon(self) -> None:
        self._is_ending = True
        for _ in self._threads:
            self._chunks.put(None)
        if self._results is not None:
            self._results.close()

    def close(self) -> None:
        """End the threads, which are idle, unless they were left alone. See ``TaskExecutor.close()``."""
        self._abandon()
        if not self._is_killed:
            _join(self._threads, CLOSE_SECONDS)


class _Noting:
    """Runs a task in this thread, and notes it while it runs."""

    def __init__(self, function: TaskFunction, running: RunningTask) -> None:
        self._function = function
        self._running = running

    def __call__(self, task: tuple[Any, int, Any], slot: int) -> Outcome:
        """Return the outcome of a task. Ctrl-C does not reach a thread, so a task itself raised KeyboardInterrupt."""
        self._running.begin(task[0], task[1])
        began = time.monotonic()
        try:
            return self._function(task, slot)
        except KeyboardInterrupt as error:
            return self._function.outcome_of_error(error, began)
        finally:
            self._running.end()


class AsyncExecutor(_InProcess):
    """Runs tasks as coroutines of one event loop, in a thread of its own.

    Args:
        function: The function of the run, a coroutine function.
        workers: The number of coroutines at once.
        timeout: The time limit of a task, in seconds. A late task is cancelled.
        initializer: A function that is called in the loop's thread before the first task.
        initargs: The arguments of the initializer.
        running: Makes an object for each coroutine at once, whose ``begin(key, tries)`` and ``end()`` are called around
            each task.
        wakeup: A file descriptor. ``step()`` returns when it can be read.
    """

    def __init__(
        self, function: TaskFunction, workers: int, *, timeout: float | None = None,
        initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = (),
        running: Callable[[], RunningTask] | None = None, wakeup: int | None = None,
    ) -> None:
        super().__init__(function, workers, initializer, initargs, running, wakeup)
        self._timeout = timeout
        self._results: _Results | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._is_ready = False
        # The mean time of a task, in seconds.
        self._seconds = -1.0
        # In the loop's thread: tasks that wait, free slots, what notes the task of each slot, and the coroutines.
        self._waiting: deque[Task] = deque()
        self._slots = list(range(workers - 1, -1, -1))
        self._notes: dict[int, RunningTask] = {}
        self._coroutines: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start the event loop. See ``TaskExecutor.start()``."""
        self._results = _Results(self._wakeup)
        self._thread = threading.Thread(target=self._run_loop, args=(self._results,), name="tastypy_fast event loop",
                                        daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            self.kill()
            raise WorkerStartError(f"no thread can be started: {error}") from error

    def room(self) -> int:
        """Return the number of free coroutines, and of quick tasks to keep waiting. See ``TaskExecutor.room()``."""
        if not self._is_ready:
            return 0
        waiting = 0
        if 0 <= self._seconds < QUICK_SECONDS:
            waiting = min(MAX_WAITING, int(self.workers * ASYNC_SECONDS / max(self._seconds, 1e-6)))
        room = self.workers + waiting - len(self._flying)
        # Quick tasks come in parts that are worth their costs.
        return room if room >= min(self.workers, waiting // 2) else 0

    def put(self, tasks: list[Task]) -> None:
        """Give tasks to the event loop. See ``TaskExecutor.put()``."""
        assert self._loop is not None
        self._launch(tasks)
        self._loop.call_soon_threadsafe(self._accept, list(tasks))

    def step(self, seconds: float) -> list[Event]:
        """Wait for news. See ``TaskExecutor.step()``."""
        assert self._results is not None
        events = []
        for result in self._results.take(seconds):
            if result is None:
                self._is_ready = True
            elif isinstance(result, BaseException):
                self._error = _start_error(result)
            else:
                task, outcome, took = result
                events.append(self._land(task, outcome))
                self._seconds = took if self._seconds < 0 else (1 - WEIGHT) * self._seconds + WEIGHT * took
        return self._deliver(events)

    def _run_loop(self, results: _Results) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._serve(results))

    async def _serve(self, results: _Results) -> None:
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            self._initialize()
        except BaseException as error:
            results.put(error)
            return
        results.put(None)
        if not self._is_ending:
            await self._ended.wait()

    def _accept(self, tasks: list[Task]) -> None:
        self._waiting.extend(tasks)
        self._fill_slots()

    def _fill_slots(self) -> None:
        """Start a coroutine for each task that waits, as far as slots are free."""
        assert self._loop is not None
        for _ in range(min(len(self._waiting), len(self._slots))):
            coroutine = self._loop.create_task(self._run_tasks(self._slots.pop()))
            # The loop itself keeps weak references only.
            self._coroutines.add(coroutine)
            coroutine.add_done_callback(self._coroutines.discard)

    async def _run_tasks(self, slot: int) -> None:
        """Run the tasks that wait, one after the other."""
        assert self._results is not None
        if slot not in self._notes:
            self._notes[slot] = self._running()
        note = self._notes[slot]
        pause = time.monotonic() + PAUSE_SECONDS
        while self._waiting:
            task = self._waiting.popleft()
            limit = None if self._timeout is None else _TimeLimit(self._timeout)
            note.begin(task.key, task.tries)
            began = time.monotonic()
            outcome = await self._function.run_async((task.key, task.tries, task.data), slot)
            now = time.monotonic()
            note.end()
            may_be_cancelled = outcome.kind != DONE
            if limit is not None:
                limit.end()
                if limit.is_over:
                    if may_be_cancelled:
                        outcome = Outcome(FAILED, None, task_failure(
                            "TaskTimeout", f"the task took longer than {self._timeout:g} s",
                            seconds=round(now - began, 3)))
                    may_be_cancelled = True
            self._results.put((task, outcome, now - began))
            if may_be_cancelled:
                # A coroutine remembers that it was cancelled, so another one goes on.
                break
            if now > pause:
                # Tasks that never wait would keep all others waiting.
                await asyncio.sleep(0)
                pause = time.monotonic() + PAUSE_SECONDS
        self._slots.append(slot)
        self._fill_slots()

    def _abandon(self) -> None:
        if self._results is not None:
            self._results.close()
        self._is_ready = False
        self._is_ending = True
        loop, ended = self._loop, self._ended
        if loop is not None and ended is not None:
            # Raised if the loop has ended.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end_loop)

    def _end_loop(self) -> None:
        """End the loop, which cancels what still runs in it."""
        assert self._ended is not None
        self._waiting.clear()
        self._slots.clear()
        self._ended.set()

    def close(self) -> None:
        """End the event loop, in which no task runs. See ``TaskExecutor.close()``."""
        self._abandon()
        if self._thread is not None:
            _join([self._thread], KILL_SECONDS if self._is_killed else CLOSE_SECONDS)


class _TimeLimit:
    """Cancels the coroutine that makes it after some time."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._coroutine = asyncio.current_task()
        self._handle = asyncio.get_running_loop().call_later(seconds, self._cancel)

    def _cancel(self) -> None:
        self.is_over = True
        if self._coroutine is not None:
            self._coroutine.cancel()

    def end(self) -> None:
        """Cancel no more."""
        self._handle.cancel()


class InlineExecutor(_InProcess):
    """Runs tasks in ``step()``, one in each, for debuggers.

    Args:
        function: The function of the run.
        workers: The number of workers that is reported.
        initializer: A function that is called by ``start()``.
        initargs: The arguments of the initializer.
        running: Makes an object whose ``begin(key, tries)`` and ``end()`` are called around each task.
        wakeup: A file descriptor. ``step()`` returns when it can be read.
    """

    def __init__(
        self, function: TaskFunction, workers: int = 1, *, initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (), running: Callable[[], RunningTask] | None = None, wakeup: int | None = None,
    ) -> None:
        super().__init__(function, workers, initializer, initargs, running, wakeup)
        self._note: RunningTask = _NoRunningTask()
        self._tasks: deque[Task] = deque()
        self._size = ChunkSize()

    def start(self) -> None:
        """Call the initializer. See ``TaskExecutor.start()``."""
        try:
            self._initialize()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise _start_error(error) from None
        self._note = self._running()

    def room(self) -> int:
        """Return the size of the next chunk, if all tasks have ended. See ``TaskExecutor.room()``."""
        return 0 if self._tasks else self._size.tasks

    def put(self, tasks: list[Task]) -> None:
        """Keep tasks for ``step()``. See ``TaskExecutor.put()``."""
        self._launch(tasks)
        self._tasks.extend(tasks)

    def step(self, seconds: float) -> list[Event]:
        """Run a task, or wait for ``wakeup`` if there is none. See ``TaskExecutor.step()``.

        Raises KeyboardInterrupt at once. The task is still in flight then, and ``kill()`` returns it.
        """
        if not self._tasks:
            self._wait(seconds)
            return []
        if self._is_draining:
            events = [self._land(task, NOT_BEGUN) for task in self._tasks]
            self._tasks.clear()
            return events
        task = self._tasks[0]
        self._note.begin(task.key, task.tries)
        began = time.monotonic()
        try:
            self.in_task = True
            outcome = self._function((task.key, task.tries, task.data), 0)
        finally:
            self.in_task = False
            self._note.end()
        took = time.monotonic() - began
        self._tasks.popleft()
        self._size.learn(1, 1, took, took)
        return [self._land(task, outcome)]

    def _wait(self, seconds: float) -> None:
        if self._wakeup is None:
            time.sleep(seconds)
        else:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wakeup, selectors.EVENT_READ)
                selector.select(seconds)

    def _abandon(self) -> None:
        self._tasks.clear()

    def close(self) -> None:
        """Do nothing, because nothing was started. See ``TaskExecutor.close()``."""


def _join(threads: list[threading.Thread], seconds: float) -> None:
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
