"""Run in a worker process: receive chunks of tasks, run them, and send what became of them.

A worker has a process group of its own, so that it can be killed together with what its tasks have started. It ends
with the driver, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from tastypy_fast.pipeline.heartbeat import LIMIT, POSITION, TIME, map_heartbeat
from tastypy_fast.pipeline.wire import (
    HEADER,
    LOG,
    NOT_STARTED,
    READY,
    encode_results,
)
from tastypy_fast.pipeline.worker import Outcome, TaskFunction, describe_error, run_chunk
from tastypy_fast.pipeline.worker_log import ForwardingHandler, redirect_logging

__all__ = ["DEFAULT_SIGNALS", "WorkerSetup", "run_forked", "run_spawned"]

# Signals that a terminal or a system sends to programs. In a worker they have their default effect.
DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
# A payload up to this size is copied behind its header, to be sent with one system call.
SMALL = 1 << 16
# How often a worker looks whether it has another parent, and whether its task in progress takes long, in seconds.
# Usually a pipe tells the end of the driver at once. But another process that the driver has forked may hold it open.
WATCH_INTERVAL = 0.25


class WorkerSetup(NamedTuple):
    """What a worker runs. ``levels`` are those of the driver's loggers, or None if the worker has inherited them."""

    function: TaskFunction
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    levels: Mapping[str | None, int] | None


def run_forked(
    drivers_end: socket.socket, connection: socket.socket, slot: int, heartbeat: memoryview[float], setup: WorkerSetup,
) -> None:
    """Run a worker in a forked process, which has inherited everything."""
    drivers_end.close()
    watch = _become_worker(connection)
    _Worker(connection, slot, heartbeat, watch).run(setup)


def run_spawned(connection: socket.socket, slot: int) -> None:
    """Run a worker in a fresh process. The memory of its heartbeat and the pickled setup come over the socket."""
    watch = _become_worker(connection)
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if descriptors:
        _Worker(connection, slot, map_heartbeat(descriptors[0], slot), watch).run(None)


def _become_worker(connection: socket.socket) -> _DriverWatch:
    """Leave the driver's process group, terminal input and signal handlers, and watch the driver."""
    driver = multiprocessing.parent_process()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    # Where the driver has no standard input, its descriptor may be one of those that are needed here.
    if 0 not in (connection.fileno(), driver.sentinel if driver is not None else -1):
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if null:
            os.close(null)
    _leave_terminal()
    signal.set_wakeup_fd(-1)
    for number in DEFAULT_SIGNALS:
        # To ignore a signal also drops one that was sent to the driver's group while this process started.
        signal.signal(number, signal.SIG_IGN)
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DEFAULT_SIGNALS)
    watch = _DriverWatch()
    watch.start()
    os.register_at_fork(before=watch.stop)
    if driver is not None:
        _end_with(driver.sentinel)
    return watch


def _end_with(sentinel: int) -> None:
    """Let the kernel kill this process group when the driver's end of a pipe is closed (Linux).

    The watching thread does the same. But it cannot run while a task hangs in code in C that holds the interpreter's
    lock. The driver writes nothing to this pipe any more, so the only event that raises the signal is its end.
    """
    if hasattr(fcntl, "F_SETSIG"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(sentinel, fcntl.F_SETOWN, -os.getpid() if os.getpgrp() == os.getpid() else os.getpid())
            fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def _leave_terminal() -> None:
    """Give up the controlling terminal, so that a program that asks there for a password fails.

    It would be stopped without end, because the worker is in a background process group.
    """
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR)
        try:
            fcntl.ioctl(terminal, termios.TIOCNOTTY)
        finally:
            os.close(terminal)


class _DriverWatch:
    """A thread that waits for the end of the driver, and then kills this process and all that it has started.

    It ends before a task forks, and starts again after that, because Python warns of a fork beside a thread.
    """

    def __init__(self) -> None:
        # A forked child of a task inherits the hooks, and must not be watched.
        self._pid = os.getpid()
        self._parent = os.getppid()
        self._reader, self._writer = os.pipe()
        self._thread: threading.Thread | None = None
        self._is_registered = False
        driver = multiprocessing.parent_process()
        self._sentinel = driver.sentinel if driver is not None else None
        self._pipe = _identity(self._sentinel)
        # Called in the thread: at each interval, and before it kills this process because a task has closed its files.
        self.on_interval: Callable[[], object] | None = None
        self.on_closed: Callable[[], object] | None = None

    def start(self) -> None:
        """Start the thread. Without one, the worker ends when it next reads from the driver."""
        if os.getpid() != self._pid:
            return
        thread = threading.Thread(target=self._wait, name="tastypy_fast driver", daemon=True)
        # Raised while the interpreter ends.
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """End the thread, and wait for its end."""
        if not self._is_registered:
            self._is_registered = True
            os.register_at_fork(after_in_parent=_call_later(self.start))
        thread, self._thread = self._thread, None
        if thread is not None:
            # A task may have closed the descriptors. The thread finds that out by itself.
            with contextlib.suppress(OSError):
                os.write(self._writer, b"\0")
                thread.join()
                os.read(self._reader, 1)

    def _wait(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while self._sentinel is not None and os.getppid() == self._parent:
            ready = wait([self._sentinel, self._reader], WATCH_INTERVAL)
            if self._sentinel in ready:
                # A closed descriptor counts as ready, and its number may be that of another file now.
                if _identity(self._sentinel) != self._pipe and self.on_closed is not None:
                    self.on_closed()
                break
            if ready:
                return
            if self.on_interval is not None:
                self.on_interval()
        kill_own_group()


def _identity(descriptor: int | None) -> tuple[int, int] | None:
    """Return what tells an open file from others, or None."""
    with contextlib.suppress(OSError):
        if descriptor is not None:
            found = os.fstat(descriptor)
            return found.st_dev, found.st_ino
    return None


def _call_later(function: Callable[[], object]) -> Callable[[], object]:
    """Return a hook for forks that makes the main thread call a function before its next step in Python.

    Python counts the threads when all hooks have run. A hook in Python would call the function before that.
    """
    if sys.version_info < (3, 12):
        return function
    try:
        import ctypes
    except ImportError:
        return function

    def call(_: object) -> int:
        function()
        return 0

    pointer = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(call)
    return functools.partial(ctypes.pythonapi.Py_AddPendingCall, pointer, None)


def kill_own_group() -> None:
    """Kill this process and its process group."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


class _Channel:
    """Sends frames to the driver, from any thread."""

    def __init__(self, connection: socket.socket, on_error: Callable[[], object]) -> None:
        self._connection = connection
        self._on_error = on_error
        self._lock = threading.Lock()
        self._sender = 0
        # What this thread logs while it sends, in a signal handler or a finalizer.
        self._waiting: deque[bytes] = deque()

    def send(self, payload: bytes) -> None:
        """Send a frame. Waits until the driver reads, because nothing may be lost."""
        if self._sender == threading.get_ident():
            self._waiting.append(payload)
            return
        with self._lock:
            self._sender = threading.get_ident()
            try:
                self._send(payload)
                while self._waiting:
                    self._send(self._waiting.popleft())
            finally:
                self._sender = 0

    def _send(self, payload: bytes) -> None:
        header = HEADER.pack(len(payload))
        try:
            if len(payload) <= SMALL:
                self._connection.sendall(header + payload)
            else:
                self._connection.sendall(header)
                self._connection.sendall(payload)
        except OSError:
            # The driver has gone, or a task has closed the socket.
            self._on_error()
            kill_own_group()


class _Worker:
    """Runs chunks until the driver ends it."""

    def __init__(
        self, connection: socket.socket, slot: int, heartbeat: memoryview[float], watch: _DriverWatch,
    ) -> None:
        self._slot = slot
        self._heartbeat = heartbeat
        self._connection = connection
        self._channel = _Channel(connection, self._blame_last)
        self._input = connection.makefile("rb", SMALL)
        self._tasks: list[tuple[Any, int, Any]] = []
        # The outcomes of the chunk in progress, how many of them were sent, and the lock for sending them.
        self._outcomes: list[Outcome] = []
        self._sent = 0
        self._sending = threading.Lock()
        self._chunk_began = 0.0
        watch.on_interval = self._send_waiting
        watch.on_closed = self._accuse_one_or_none
        # The number of tasks in all chunks before this one, and the position of a task whose chunk had no other one.
        self._before = 0
        self._last = 0.0
        self._log = ForwardingHandler(lambda record: self._channel.send(LOG + record), self._task_key)
        self._function = TaskFunction(_no_function)
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def run(self, setup: WorkerSetup | None) -> None:
        """Start, and run chunks. ``setup`` comes as the first frame if it is None."""
        if self._start(setup):
            self._channel.send(READY)
            while payload := self._receive():
                self._run_chunk(payload)

    def _start(self, setup: WorkerSetup | None) -> bool:
        part = "the function cannot be loaded in a worker process"
        try:
            if setup is None:
                setup = pickle.loads(self._receive())
            redirect_logging(self._log, setup.levels)
            self._function = setup.function
            if setup.initializer is not None:
                part = "the initializer raised"
                setup.initializer(*setup.initargs)
        except BaseException as error:
            self._channel.send(NOT_STARTED + pickle.dumps((part, describe_error(error, 1)), 5))
            return False
        return True

    def _receive(self) -> bytes:
        """Return the payload of the next frame."""
        with contextlib.suppress(OSError):
            header = self._input.read(HEADER.size)
            if len(header) == HEADER.size:
                (length,) = HEADER.unpack(header)
                payload: bytes = self._input.read(length)
                if len(payload) == length:
                    return payload
        # The driver has gone without a word.
        kill_own_group()
        raise AssertionError("unreachable")

    def _run_chunk(self, payload: bytes) -> None:
        tasks = [pickle.loads(task) if type(task) is bytes else (*task, None) for task in pickle.loads(payload)]
        self._tasks = tasks
        with self._sending:
            self._outcomes, self._sent = [], 0
            self._chunk_began = time.monotonic()
        outcomes = run_chunk(self._run_task, tasks, self._slot, self._begin, self._outcomes)
        with self._sending:
            now = time.monotonic()
            last = now - self._heartbeat[TIME]
            self._last = self._heartbeat[POSITION] if len(tasks) == 1 else 0.0
            # A task that runs alone is in progress still: if there is no memory for its result, it has used it up.
            self._heartbeat[POSITION] = self._last
            results = encode_results(outcomes[self._sent:], now - self._chunk_began, last)
            self._heartbeat[POSITION] = 0.0
            self._tasks = []
            self._before += len(tasks)
            self._channel.send(results)

    def _send_waiting(self) -> None:
        """Send the outcomes of the tasks before the one in progress, if that takes long. The watching thread calls it.

        Otherwise they would wait for its end, and so would the tasks that they add.
        """
        if time.monotonic() - self._heartbeat[TIME] < WATCH_INTERVAL or not self._sending.acquire(blocking=False):
            return
        try:
            count = len(self._outcomes)
            if self._tasks and count > self._sent:
                waiting, self._sent = self._outcomes[self._sent:count], count
                self._channel.send(encode_results(waiting, 0.0, 0.0, is_end=False))
        finally:
            self._sending.release()

    def _blame_last(self) -> None:
        """Say which task is to blame if results cannot be sent. It would be run again without end.

        Of several, any may be. The driver then sends them one by one.
        """
        if not self._heartbeat[POSITION]:
            self._heartbeat[POSITION] = self._last

    def _accuse_one_or_none(self) -> None:
        """Say which task is to blame if files of this process were closed: that in progress, if it can be no other."""
        if int(self._heartbeat[POSITION]) - self._before - 1 > self._sent:
            self._heartbeat[POSITION] = 0.0

    def _run_task(self, task: tuple[Any, int, Any], slot: int) -> Outcome:
        try:
            return self._function(task, slot)
        except KeyboardInterrupt as error:
            # Raised by the task itself, because Ctrl-C does not reach this process group.
            return self._function.outcome_of_error(error, self._heartbeat[TIME])

    def _begin(self, index: int, now: float) -> bool:
        """Return whether the task at ``index`` of the chunk may begin. The driver may have given it to another one."""
        heartbeat = self._heartbeat
        position = self._before + index + 1
        heartbeat[TIME] = now
        heartbeat[POSITION] = position
        return position <= heartbeat[LIMIT]

    def _task_key(self) -> Any:
        """Return the key of the task in progress, for log records of any thread."""
        tasks, place = self._tasks, int(self._heartbeat[POSITION]) - self._before
        return tasks[place - 1][0] if 0 < place <= len(tasks) else None

    def _leave_to_parent(self) -> None:
        """Give up the socket in a forked child of a task, so that the driver sees the worker's end."""
        self._log.stop()
        # Not close(), because the main thread of the worker may have been reading: its lock is never released here.
        descriptor = self._connection.detach()
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # a task has closed it
                os.close(descriptor)


def _no_function(key: Any) -> None:
    raise AssertionError("the worker has not been set up")
