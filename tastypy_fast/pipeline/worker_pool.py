"""Run tasks in local worker processes, any of which may die or be killed at any moment without harm to the others.

Each worker has a socket pair of its own, and three doubles of shared memory. Workers share no lock and no queue, so
none can block another. The driver never waits for a worker: what it sends is buffered, and what it receives it reads
when there is something to read.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import multiprocessing
import multiprocessing.util  # its exit hook is registered before ours, and so runs after it
import os
import pickle
import selectors
import signal
import socket
import threading
import time
import weakref
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import connection as multiprocessing_connection
from multiprocessing import forkserver, resource_tracker
from typing import Any

from tastypy_fast.exceptions import WorkerStartError
from tastypy_fast.pipeline.chunk_size import ChunkSize
from tastypy_fast.pipeline.executor import NOT_BEGUN, Event, Task, TaskExecutor
from tastypy_fast.pipeline.function_pickle import main_as_workers_see_it, pickle_for_worker
from tastypy_fast.pipeline.heartbeat import NO_LIMIT, Heartbeats
from tastypy_fast.pipeline.wire import HEADER, LOG, NOT_STARTED, READY, FrameReader, decode_outcome
from tastypy_fast.pipeline.worker import (
    CHUNK_BYTES,
    FAILED,
    Outcome,
    TaskFunction,
    describe_error,
    exit_facts,
    exit_text,
    task_failure,
)
from tastypy_fast.pipeline.worker_log import handle_record, levels_in_use
from tastypy_fast.pipeline.worker_process import DEFAULT_SIGNALS, WorkerSetup, run_forked, run_spawned

__all__ = ["ProcessPool"]

# After this number of workers in a row that die before they are ready, no other one is started.
MAX_STILLBORN = 3
# The same for workers that were killed by SIGKILL, if none was ready for this time, in seconds. It comes from outside:
# the system is out of memory, or somebody kills workers at random.
MAX_KILLED = 30
KILLED_SECONDS = 60.0
# The delay before a process is started again that the system could not start, in seconds.
RESTART_SECONDS = 0.1
# While a worker is idle, a task that takes longer than this, in seconds, keeps no other task waiting.
STUCK_SECONDS = 0.02
# Time enough for a worker to see a new limit, or for the driver to see that a task has begun, in seconds.
REVOKE_SECONDS = 0.002
# How long a worker that has closed its socket may take to end, in seconds, so that its own exit code is known.
END_SECONDS = 1.0
# How long an idle worker may take to end, in seconds.
CLOSE_SECONDS = 2.0
# How long to wait for the end of a process after SIGKILL, in seconds. One that hangs in the kernel takes longer.
KILL_SECONDS = 5.0
# How much is read from a socket at once, in bytes, and how often before other workers have their turn.
READ_SIZE = 1 << 16
READS = 64
# A program may have set SIGPIPE to its default effect, which would be its end when a worker dies.
SEND_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)

# Held while a worker starts, so that no other worker that is forked meanwhile inherits its socket.
_starting = threading.Lock()
_pools: weakref.WeakSet[ProcessPool] = weakref.WeakSet()


class ProcessPool(TaskExecutor):
    """Runs tasks in processes of its own.

    Args:
        function: The function of the run.
        workers: The number of processes.
        timeout: The time limit of a task, in seconds. The worker of a late task is killed.
        initializer: A function that each worker calls before its first task.
        initargs: The arguments of the initializer.
        start_method: ``"fork"``, ``"spawn"`` or ``"forkserver"``. None is the default of multiprocessing.
        wakeup: A file descriptor. ``step()`` returns when it can be read.
    """

    def __init__(
        self, function: TaskFunction, workers: int, *, timeout: float | None = None,
        initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = (),
        start_method: str | None = None, wakeup: int | None = None,
    ) -> None:
        self.workers = workers
        self._function = function
        self._timeout = timeout
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._context: Any = multiprocessing.get_context(start_method)
        self._start_method: str = self._context.get_start_method()
        self._wakeup = wakeup
        self._setup = b""
        self._selector: selectors.BaseSelector | None = None
        self._heartbeats: Heartbeats | None = None
        self._crew: list[_Worker] = []
        # The slots without a worker.
        self._vacant: list[int] = []
        self._stillborn = self._killed = 0
        # When a worker was ready, or when the pool was started.
        self._ready_at = 0.0
        self._size = ChunkSize()
        # How many of the next tasks run in chunks of one.
        self._singles = 0
        self._events: list[Event] = []
        self._in_flight = 0
        self._error: WorkerStartError | None = None
        # No task can be late before this time of time.monotonic().
        self._next_check = 0.0
        # No worker is started before this time.
        self._next_start = 0.0

    def start(self) -> None:
        """Start the workers. See ``TaskExecutor.start()``."""
        if multiprocessing.current_process().daemon:
            raise WorkerStartError("this process is a daemon of multiprocessing, such as a worker of its Pool, and may "
                                   "not start processes; use executor=\"threads\" or \"inline\" here")
        try:
            if self._start_method != "fork":
                self._setup = self._pickle_setup()
                resource_tracker.ensure_running()
            if self._start_method == "forkserver":
                _preload_in_fork_server()
                forkserver.ensure_running()
            _pools.add(self)
            self._selector = selectors.DefaultSelector()
            if self._wakeup is not None:
                self._selector.register(self._wakeup, selectors.EVENT_READ)
            self._heartbeats = Heartbeats(self.workers)
            # multiprocessing's own hook would wait for the workers of a program that ends inside of a run.
            atexit.register(self.kill)
            self._ready_at = time.monotonic()
            for slot in range(self.workers):
                self._start_worker(slot)
        except BaseException as error:
            self.kill()
            if isinstance(error, OSError):
                raise WorkerStartError(f"no worker process can be started: {error}") from error
            raise

    def _pickle_setup(self) -> bytes:
        setup = WorkerSetup(self._function, self._initializer, self._initargs, levels_in_use())
        parts = {"the function": self._function.function, "the initializer": self._initializer,
                 "the arguments of the initializer,": self._initargs, "abort_on": self._function.abort_on}
        return pickle_for_worker(setup, parts)

    def _start_worker(self, slot: int) -> None:
        assert self._selector is not None
        assert self._heartbeats is not None
        self._heartbeats.clear(slot)
        with _starting:
            ours, theirs = socket.socketpair()
            try:
                ours.setblocking(False)
                # The view is released in the driver only, because the forked worker does not return from start().
                with self._heartbeats.of_slot(slot) as heartbeat:
                    if self._start_method == "fork":
                        setup = WorkerSetup(self._function, self._initializer, self._initargs, None)
                        process = self._context.Process(target=run_forked, args=(ours, theirs, slot, heartbeat, setup))
                    else:
                        process = self._context.Process(target=run_spawned, args=(theirs, slot))
                    process.name = f"tastypy_fast worker {slot}"
                    with main_as_workers_see_it(), _blocked_signals():
                        process.start()
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
            worker = _Worker(slot, process, ours)
            self._crew.append(worker)
        if self._start_method != "fork":
            worker.send_descriptor(self._heartbeats.descriptor)
            worker.send(self._setup)
        self._selector.register(ours, worker.interest(), worker)
        self._selector.register(worker.end, selectors.EVENT_READ, worker)

    def room(self) -> int:
        """Return the size of the next chunk. See ``TaskExecutor.room()``."""
        if self._choose() is None:
            return 0
        return 1 if self._singles else self._size.tasks

    def _choose(self) -> _Worker | None:
        """Return the worker that gets the next chunk: the one with the fewest, of those that are ready."""
        chosen, least = None, self._size.chunks
        for worker in self._crew:
            if worker.is_ready and worker.revoked_at is None and len(worker.chunks) < least:
                chosen, least = worker, len(worker.chunks)
                if not least:
                    break
        return chosen

    def put(self, tasks: list[Task]) -> None:
        """Give a chunk to a worker. See ``TaskExecutor.put()``."""
        worker = self._choose()
        if worker is None:
            raise RuntimeError("no worker has room for a chunk")
        if self._function.with_data:
            chunk, items = self._pickle_tasks(tasks)
        else:
            chunk, items = list(tasks), [(task.key, task.tries) for task in tasks]
        if not chunk:
            return
        self._in_flight += len(chunk)
        self._singles = max(0, self._singles - len(chunk))
        worker.add_chunk(chunk)
        was_waiting = bool(worker.unsent)
        worker.send(pickle.dumps(items, 5))
        if worker.unsent and not was_waiting:
            self._update_interest(worker)

    def _pickle_tasks(self, tasks: list[Task]) -> tuple[list[Task], list[Any]]:
        """Return the tasks that fit into one chunk, and their pickles. The others are given back."""
        chunk: list[Task] = []
        items: list[Any] = []
        size = 0
        for task in tasks:
            if size >= CHUNK_BYTES:
                self._events.append(Event(task, NOT_BEGUN))
                continue
            try:
                item = pickle.dumps((task.key, task.tries, task.data), 5)
            except Exception as error:
                self._events.append(Event(task, Outcome(FAILED, None, describe_error(error))))
                continue
            chunk.append(task)
            items.append(item)
            size += len(item)
        if chunk:
            self._size.learn_bytes(size / len(chunk))
        return chunk, items

    def _update_interest(self, worker: _Worker) -> None:
        assert self._selector is not None
        self._selector.modify(worker.socket, worker.interest(), worker)

    def step(self, seconds: float) -> list[Event]:
        """Wait for news. See ``TaskExecutor.step()``."""
        assert self._selector is not None
        if self._events or self._error is not None:
            seconds = 0.0
        elif self._vacant:
            seconds = min(seconds, RESTART_SECONDS)
        if self._timeout is not None and self._in_flight:
            seconds = min(seconds, max(0.0, self._next_check - time.monotonic()))
        if seconds and self._in_flight and any(worker.is_ready and not worker.chunks for worker in self._crew):
            seconds = min(seconds, self._revoke_stuck(time.monotonic()))
        for key, mask in self._selector.select(seconds):
            worker = key.data
            if worker is None or worker.is_buried:
                continue
            if key.fileobj is not worker.socket:
                self._bury(worker)
                continue
            if mask & selectors.EVENT_WRITE and worker.flush():
                self._update_interest(worker)
            if mask & selectors.EVENT_READ and not self._read(worker, READS):
                # The end of the process follows, unless a task has closed all files of its worker.
                has_ended = multiprocessing_connection.wait([worker.end.fileno()], END_SECONDS)
                self._bury(worker, is_cut=not has_ended)
        if self._timeout is not None and self._in_flight:
            self._kill_late(time.monotonic())
        if self._vacant and time.monotonic() >= self._next_start:
            self._fill_slots()
        events = self._events
        if events:
            self._events = []
        elif self._error is not None:
            raise self._error
        return events

    def _read(self, worker: _Worker, reads: int) -> bool:
        """Read what a worker has sent. Returns False if it will send nothing more."""
        for _ in range(reads):
            try:
                data = worker.socket.recv(READ_SIZE)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            for payload in worker.reader.feed(data):
                self._handle(worker, payload)
            if len(data) < READ_SIZE:
                return True
        return True

    def _handle(self, worker: _Worker, payload: bytes) -> None:
        kind, content = payload[:1], memoryview(payload)[1:]
        if kind == LOG:
            handle_record(content)
        elif kind == READY:
            worker.is_ready = True
            self._stillborn = self._killed = 0
            self._ready_at = time.monotonic()
        elif kind == NOT_STARTED:
            part, error = pickle.loads(content)
            self._error = WorkerStartError(f"{part}: {error['type']}: {error['message']}\n\n{error['traceback']}")
        else:
            seconds, last, items, is_end = pickle.loads(content)
            chunk = worker.chunks[0]
            tasks = chunk.tasks
            self._events.extend([Event(task, decode_outcome(item)) for task, item in zip(tasks, items, strict=False)])
            if not is_end:
                self._in_flight -= len(items)
                chunk.drop(len(items))
                return
            worker.chunks.popleft()
            self._in_flight -= len(tasks)
            self._events.extend([Event(task, NOT_BEGUN) for task in tasks[len(items):]])
            self._size.learn(chunk.answered + len(tasks), chunk.answered + len(items), seconds, last)
            if worker.revoked_at is not None and not worker.chunks:
                assert self._heartbeats is not None
                self._heartbeats.set_limit(worker.slot, NO_LIMIT)
                worker.revoked_at = None

    def _revoke_stuck(self, now: float) -> float:
        """Take back the tasks that wait behind a long one, because another worker is idle.

        This has two steps. The first sets the limit of the worker. The second, a little later, takes back what has not
        begun until then, because it will not begin any more. Returns the time until the next step, in seconds.
        """
        assert self._heartbeats is not None
        wait = STUCK_SECONDS
        for worker in self._crew:
            if not worker.waiting(0) or worker.late is not None:
                continue
            position, began = self._heartbeats.read(worker.slot)
            if worker.revoked_at is None:
                if not position or now - began < STUCK_SECONDS:
                    continue
                self._heartbeats.set_limit(worker.slot, position)
                worker.revoked_at = now
                wait = min(wait, REVOKE_SECONDS)
            elif now - worker.revoked_at < REVOKE_SECONDS:
                wait = min(wait, REVOKE_SECONDS)
            elif position and worker.waiting(position):
                tasks = worker.take_back(position)
                self._in_flight -= len(tasks)
                self._events.extend([Event(task, NOT_BEGUN) for task in tasks])
                self._size.learn(len(tasks) + 1, 1, now - began, now - began)
                wait = 0.0
        return wait

    def _kill_late(self, now: float) -> None:
        """Kill the workers whose task in progress is over the time limit."""
        assert self._heartbeats is not None
        assert self._timeout is not None
        if now < self._next_check:
            return
        # A task that begins later is late later.
        self._next_check = now + self._timeout
        for worker in self._crew:
            if worker.chunks and worker.late is None:
                position, began = self._heartbeats.read(worker.slot)
                if not position:
                    continue
                left = began + worker.pause_of(began) + self._timeout - now
                if left > 0:
                    self._next_check = min(self._next_check, now + left)
                else:
                    worker.late = position, now - began
                    worker.is_ready = False
                    worker.kill()

    def _bury(self, worker: _Worker, is_cut: bool = False) -> None:
        """Account for a worker that has ended, or can be of no use. ``is_cut``: it lives, and its socket was closed."""
        assert self._selector is not None
        assert self._heartbeats is not None
        worker.is_buried = True
        was_ready = worker.is_ready
        worker.is_ready = False
        # What it has started, before it is reaped: until then no other process can have its number.
        worker.kill()
        exit_code = worker.wait(None)
        # Results that are complete count.
        while self._read(worker, READS) and worker.has_more():
            pass
        position, _ = self._heartbeats.read(worker.slot)
        late = worker.late
        failure = None
        if late is not None:
            # If it finished the late task just before it was killed, the task after that is not to blame.
            position = late[0]
            failure = task_failure(
                "TaskTimeout", f"the task took longer than {self._timeout:g} s", seconds=round(late[1], 3))
        elif self._error is None:
            self.workers_lost += 1
            failure = _describe_death(exit_code)
            if is_cut and not worker.is_first(position):
                # Any of the tasks before this one may have closed the socket.
                position = 0
            if not position:
                # If a task has closed the worker's socket, it is found when it runs alone. The tasks that are given
                # back are nearly the next ones.
                self._singles += 2 * len(worker.tasks())
        self._give_back(worker, position, failure)
        self._selector.unregister(worker.socket)
        self._selector.unregister(worker.end)
        worker.close()
        self._crew.remove(worker)
        if not was_ready and late is None and self._error is None:
            self._count_stillborn(f"ended with {exit_text(exit_code)}", exit_code == -signal.SIGKILL)
        self._vacant.append(worker.slot)

    def _give_back(self, worker: _Worker, position: int, failure: dict[str, Any] | None) -> None:
        """Report the tasks of a dead worker. That at ``position`` failed. The others go back; results may be lost.

        There may be none at that position: its result was complete, or the worker was between two tasks.
        """
        blamed = worker.task_at(position) if failure is not None else None
        for task in worker.tasks():
            self._events.append(Event(task, Outcome(FAILED, None, failure) if task is blamed else NOT_BEGUN))
            self._in_flight -= 1
        worker.chunks.clear()

    def _count_stillborn(self, reason: str, was_killed: bool = False) -> None:
        """End the run if no worker becomes ready."""
        self._killed += was_killed
        self._stillborn += not was_killed
        if self._stillborn < MAX_STILLBORN and (
                self._killed < MAX_KILLED or time.monotonic() - self._ready_at < KILLED_SECONDS):
            return
        hint = "" if self._start_method == "fork" else (
            f". With the start method {self._start_method!r}, a worker imports the program's main module. So run() "
            f"must be called below: if __name__ == \"__main__\":")
        self._error = WorkerStartError(
            f"{self._stillborn + self._killed} worker processes in a row ended before they were ready; the last one "
            f"{reason}{hint}")

    def _fill_slots(self) -> None:
        """Start a worker in each slot whose worker has died."""
        slots, self._vacant = self._vacant, []
        while slots and self._error is None:
            slot = slots.pop()
            try:
                self._start_worker(slot)
            except OSError as error:
                # No memory or no process is free; or the process was killed while it was started.
                self._vacant.append(slot)
                self._next_start = time.monotonic() + RESTART_SECONDS
                self._count_stillborn(f"could not be started: {error}")

    def is_busy(self) -> bool:
        """Return whether tasks are in flight. See ``TaskExecutor.is_busy()``."""
        return self._in_flight > 0 or bool(self._events)

    def kill(self) -> list[Task]:
        """End all workers at once. See ``TaskExecutor.kill()``."""
        tasks = [event.task for event in self._events]
        self._events = []
        for worker in self._crew:
            worker.kill()
            tasks.extend(worker.tasks())
        self._end()
        return tasks

    def close(self) -> None:
        """End the workers, which are idle. See ``TaskExecutor.close()``."""
        for worker in self._crew:
            if worker.is_ready:
                worker.send(b"")
            else:
                worker.kill()
        end = time.monotonic() + CLOSE_SECONDS
        # Reads what they log at their end.
        while self._selector is not None and (left := end - time.monotonic()) > 0:
            if all(worker.has_ended() for worker in self._crew):
                break
            for key, mask in self._selector.select(left):
                worker = key.data
                if worker is None or key.fileobj is not worker.socket:
                    self._selector.unregister(key.fileobj)
                    continue
                if mask & selectors.EVENT_WRITE and worker.flush():
                    self._update_interest(worker)
                if mask & selectors.EVENT_READ and not self._read(worker, READS):
                    self._selector.unregister(worker.socket)
        for worker in self._crew:
            worker.kill()
        self._end()

    def _end(self) -> None:
        """Release everything, after all workers were killed."""
        end = time.monotonic() + KILL_SECONDS
        for worker in self._crew:
            worker.wait(max(0.0, end - time.monotonic()))
            worker.close()
        self._crew.clear()
        self._vacant.clear()
        self._in_flight = 0
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        if self._heartbeats is not None:
            self._heartbeats.close()
            self._heartbeats = None
        _pools.discard(self)
        atexit.unregister(self.kill)

    def begin_no_more(self) -> None:
        """Let each worker end after its task in progress. See ``TaskExecutor.begin_no_more()``."""
        assert self._heartbeats is not None
        for worker in self._crew:
            position, _ = self._heartbeats.read(worker.slot)
            self._heartbeats.set_limit(worker.slot, position)

    def suspend(self) -> None:
        """Stop the workers and what they have started. See ``TaskExecutor.suspend()``."""
        for worker in self._crew:
            worker.signal(signal.SIGSTOP)

    def resume(self, seconds: float) -> None:
        """Let the workers go on. See ``TaskExecutor.resume()``."""
        for worker in self._crew:
            if self._heartbeats is not None:
                worker.add_pause(self._heartbeats.read(worker.slot)[1], seconds)
            worker.signal(signal.SIGCONT)

    def leave_to_parent(self) -> None:
        """Close what a forked child has inherited, so that only the driver holds the workers."""
        for worker in self._crew:
            worker.close_descriptors()
        self._crew = []
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        atexit.unregister(self.kill)


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block the signals of a terminal while a worker starts, because it is still in the program's process group.

    A forked worker would call the program's handlers. Any other would end. The worker unblocks them when it has left.
    multiprocessing's own processes are started before, because all their children would inherit the mask.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEFAULT_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _preload_in_fork_server() -> None:
    """Make the fork server import this package once, before it forks, instead of each worker after that.

    It adds to the modules that the program has chosen. It has no effect if the fork server is running already.
    """
    chosen = getattr(getattr(forkserver, "_forkserver", None), "_preload_modules", None)
    if isinstance(chosen, list) and run_spawned.__module__ not in chosen:
        multiprocessing.get_context("forkserver").set_forkserver_preload([*chosen, run_spawned.__module__])


def _after_fork_in_child() -> None:
    global _starting
    _starting = threading.Lock()
    for pool in list(_pools):
        pool.leave_to_parent()
    _pools.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


class _Chunk:
    """Tasks that a worker was given together.

    ``before`` is the number of tasks that it was given before those in ``tasks``. ``answered`` is how many tasks of the
    chunk had their outcomes come, and are no longer in ``tasks``.
    """

    __slots__ = ("answered", "before", "tasks")

    def __init__(self, tasks: list[Task], before: int) -> None:
        self.tasks = tasks
        self.before = before
        self.answered = 0

    def drop(self, count: int) -> None:
        """Remove the first tasks, whose outcomes have come."""
        del self.tasks[:count]
        self.before += count
        self.answered += count


class _Worker:
    """One worker process, as the driver sees it.

    ``chunks`` are those that it has not answered: that in progress, then the waiting one. ``late`` is set when it is
    killed because of its task in progress: the position of the task, and the time that it took. ``revoked_at`` is the
    time when it was told not to begin any more of its tasks.
    """

    def __init__(self, slot: int, process: Any, ours: socket.socket) -> None:
        self.slot = slot
        self.socket = ours
        self.end = _ProcessEnd(process)
        self.reader = FrameReader()
        self.unsent: deque[memoryview] = deque()
        self.chunks: deque[_Chunk] = deque()
        self.is_ready = self.is_buried = False
        self.late: tuple[int, float] | None = None
        self.revoked_at: float | None = None
        self._given = 0
        self._process = process
        self._pid: int = process.pid
        self._pause = 0.0, 0.0
        # The worker does the same. Whichever is first, a signal to the group never misses it.
        with contextlib.suppress(OSError):
            os.setpgid(self._pid, self._pid)

    def send_descriptor(self, descriptor: int) -> None:
        """Send a file descriptor, before all frames. It takes one byte, for which there is room."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))
        with contextlib.suppress(OSError):
            self.socket.sendmsg([b"h"], [rights], SEND_FLAGS)

    def send(self, payload: bytes) -> None:
        """Send a frame, as far as the socket takes it. The rest is sent by ``flush()``."""
        self.unsent.append(memoryview(HEADER.pack(len(payload)) + payload))
        if len(self.unsent) == 1:
            self.flush()

    def flush(self) -> bool:
        """Send more of what has not been sent. Returns True when nothing is left."""
        unsent = self.unsent
        try:
            while unsent:
                sent = self.socket.send(unsent[0], SEND_FLAGS)
                if sent == len(unsent[0]):
                    unsent.popleft()
                else:
                    unsent[0] = unsent[0][sent:]
        except BlockingIOError:
            return False
        except OSError:
            # It has died, which the driver learns by the end of the process.
            unsent.clear()
        return True

    def add_chunk(self, tasks: list[Task]) -> None:
        """Add a chunk, which is to be sent."""
        self.chunks.append(_Chunk(tasks, self._given))
        self._given += len(tasks)

    def tasks(self) -> list[Task]:
        """Return the tasks of all chunks."""
        return list(itertools.chain.from_iterable(chunk.tasks for chunk in self.chunks))

    def task_at(self, position: int) -> Task | None:
        """Return the task at a position, or None if it is not one of the chunks'."""
        for chunk in self.chunks:
            if 0 < position - chunk.before <= len(chunk.tasks):
                return chunk.tasks[position - chunk.before - 1]
        return None

    def is_first(self, position: int) -> bool:
        """Return whether the task at a position is the first one without an outcome."""
        return bool(self.chunks) and position == self.chunks[0].before + 1

    def waiting(self, position: int) -> bool:
        """Return whether it has any task after this position; with 0, any task but one."""
        if not position:
            return bool(self.chunks) and (len(self.chunks) > 1 or len(self.chunks[0].tasks) > 1)
        return any(chunk.tasks and chunk.before + len(chunk.tasks) > position for chunk in self.chunks)

    def take_back(self, position: int) -> list[Task]:
        """Remove the tasks after this position from the chunks, and return them."""
        tasks: list[Task] = []
        for chunk in self.chunks:
            keep = max(0, position - chunk.before)
            tasks += chunk.tasks[keep:]
            del chunk.tasks[keep:]
        return tasks

    def interest(self) -> int:
        """Return what the selector has to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)

    def has_more(self) -> bool:
        """Return whether anything that it has sent can be read."""
        return bool(multiprocessing_connection.wait([self.socket], 0))

    def has_ended(self) -> bool:
        """Return whether the process has ended. It is not reaped by that."""
        return bool(multiprocessing_connection.wait([self.end.fileno()], 0))

    def signal(self, number: int) -> None:
        """Send a signal to the process and to what it has started."""
        try:
            os.killpg(self._pid, number)
        except OSError:
            # It has no group yet, or no process any more.
            with contextlib.suppress(OSError):
                os.kill(self._pid, number)

    def kill(self) -> None:
        """Kill the process and what it has started."""
        self.signal(signal.SIGKILL)

    def wait(self, seconds: float | None) -> int | None:
        """Reap the process after its end, and return its exit code: negative for a signal, None if unknown."""
        # Not join(seconds), which waits for the sentinel.
        if seconds is None or multiprocessing_connection.wait([self.end.fileno()], seconds):
            self._process.join()
        exit_code: int | None = self._process.exitcode
        return exit_code

    def pause_of(self, began: float) -> float:
        """Return how long the task that began at this time was suspended, in seconds."""
        return self._pause[1] if self._pause[0] == began else 0.0

    def add_pause(self, began: float, seconds: float) -> None:
        """Add to the time that the task in progress was suspended."""
        self._pause = began, self.pause_of(began) + seconds

    def close_descriptors(self) -> None:
        """Close the socket and the descriptor of the process's end."""
        self.socket.close()
        self.end.close()

    def close(self) -> None:
        """Close everything, after the process was reaped."""
        self.close_descriptors()
        with contextlib.suppress(ValueError):
            # Raised if it hangs in the kernel, and still is to be killed.
            self._process.close()


class _ProcessEnd:
    """A descriptor that can be read when a process has ended, for a selector.

    The sentinel of multiprocessing is a pipe that children of the process inherit, so it may say nothing while one of
    them lives. It is used only where the system has nothing better.
    """

    def __init__(self, process: Any) -> None:
        self._is_own = False
        self._descriptor: int = process.sentinel
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._descriptor = os.pidfd_open(process.pid)
                self._is_own = True

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor. A fork in between may leave it open in the child, but none is closed twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if self._is_own and descriptor >= 0:
            os.close(descriptor)


def _describe_death(exit_code: int | None) -> dict[str, Any]:
    """Return the ``_error`` of the task in progress of a worker that died."""
    message = f"the worker process ended during the task, with {exit_text(exit_code)}"
    return task_failure("WorkerDied", message, **exit_facts(exit_code))
