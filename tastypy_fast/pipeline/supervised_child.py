"""Run tasks with a time limit in a worker of another engine: in a child process, because only a process can be ended.

A worker has one child for each of its threads. A signal does not do, because such workers run tasks in threads. The
child says when it is ready, when it has received a chunk, and what became of each task. It ends with its worker, and
after CHILD_IDLE seconds without a chunk. This module is sent by value, and imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tastypy_fast.pipeline.worker import (
    CHUNK_BYTES,
    CHUNK_SECONDS,
    FAILED,
    Outcome,
    encode_item,
    exit_facts,
    exit_text,
    task_failure,
)

__all__ = ["Results", "end_children", "run_in_child", "serve"]

# What a chunk returns: its seconds, the seconds of its last task, and the outcomes of the tasks that have begun.
Results = tuple[float, float, list[Any]]

# How long a child waits for a chunk before it ends, and how long its start may take, in seconds.
CHILD_IDLE = 60.0
CHILD_START = 120.0
# How often a child asks whether its worker is alive, and the worker whether its child is, in seconds. A closed pipe
# tells it at once, unless a process that the task has forked holds the pipe open.
WATCH = 0.5
# How many children a worker keeps.
KEPT = 64

# What the child runs at first: it reads the import path and the setup, and serves.
_LOADER = """
import os, pickle, struct, sys
file = os.fdopen(os.dup(0), "rb")
path, payload = pickle.loads(file.read(struct.unpack("=Q", file.read(8) or sys.exit())[0]))
sys.path[:] = path
pickle.loads(payload).serve(file)
"""


# In the child


def serve(call: Callable[[tuple[Any, int, Any], int], Outcome], file: Any) -> None:
    """Run chunks until the worker ends, or sends none for a while."""
    parent = os.getppid()
    out = os.dup(1)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    try:
        _send(out, "ready")
        while select.select([file], [], [], CHILD_IDLE)[0]:
            header = file.read(8)
            if len(header) < 8:
                break
            tasks = pickle.loads(file.read(struct.unpack("=Q", header)[0]))
            _send(out, "received")
            end = time.monotonic() + CHUNK_SECONDS
            size = 0
            for task in tasks:
                item = encode_item(call(task, 0))
                _send(out, ("outcome", item))
                size += len(item) if isinstance(item, bytes) else 0
                if time.monotonic() >= end or size >= CHUNK_BYTES:
                    break
            _send(out, "end")
    finally:
        # What tasks have left behind ends, too, also if the worker has ended in the middle of a message.
        os.killpg(0, signal.SIGKILL)


def _send(file: int, message: Any) -> None:
    data = pickle.dumps(message, 5)
    rest = memoryview(struct.pack("=Q", len(data)) + data)
    while rest:
        rest = rest[os.write(file, rest):]


# In the worker


class _ChildEnded(Exception):
    """The child has ended, and all that it had sent was received."""


class _Child:
    """The child of one thread of this worker."""

    def __init__(self, payload: bytes) -> None:
        self._buffer = bytearray()
        self._process = subprocess.Popen([sys.executable, "-c", _LOADER], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, start_new_session=True)
        try:
            self._send((sys.path, payload))
            self._receive_only("ready")
        except BaseException:
            self.end()
            raise

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        try:
            _send(self._process.stdin.fileno(), message)
        except BrokenPipeError:
            raise _ChildEnded from None

    def receive(self, deadline: float) -> Any:
        """Return the next message, or None if there is none before ``deadline`` (``time.monotonic()``)."""
        assert self._process.stdout is not None
        file = self._process.stdout.fileno()
        # Not select.select(), which takes small numbers of files only.
        poll = select.poll()
        poll.register(file, select.POLLIN)
        has_ended = False
        while True:
            if len(self._buffer) >= 8:
                end = 8 + struct.unpack_from("=Q", self._buffer)[0]
                if len(self._buffer) >= end:
                    message = pickle.loads(bytes(memoryview(self._buffer)[8:end]))
                    del self._buffer[:end]
                    return message
            seconds = 0.0 if has_ended else max(0.0, min(WATCH, deadline - time.monotonic()))
            if poll.poll(seconds * 1000):
                data = os.read(file, 1 << 16)
                if not data:
                    raise _ChildEnded
                self._buffer += data
            elif has_ended:
                raise _ChildEnded
            elif time.monotonic() >= deadline:
                return None
            else:
                has_ended = self._process.poll() is not None

    def _receive_only(self, expected: str) -> None:
        if self.receive(time.monotonic() + CHILD_START) != expected:
            raise RuntimeError("the child process of a worker does not answer")

    def begin(self, tasks: list[Any]) -> None:
        """Send a chunk, and wait until the child has it. Raises _ChildEnded if the child was idle for too long."""
        self._send(tasks)
        self._receive_only("received")

    def end(self) -> int:
        """Kill the child with all that it has started, and return its exit status."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for file in (self._process.stdin, self._process.stdout):
            if file is not None:
                file.close()
        return self._process.wait()


def _children() -> dict[tuple[str, int], _Child]:
    """Return the idle children of this process, by the setup and the thread. A forked process has none at first."""
    return vars(sys).setdefault(f"_tastypy_fast_children_{os.getpid()}", {})  # type: ignore[no-any-return]


def end_children(digest: str) -> None:
    """End the children that this process has for a setup."""
    children = _children()
    for name in list(children):
        child = children.pop(name, None) if name[0] == digest else None
        if child is not None:
            child.end()


def run_in_child(digest: str, payload: bytes, tasks: list[Any], timeout: float) -> Results:
    """Run a chunk in the child of this thread. The chunk ends with a task that takes too long, or kills the child."""
    children = _children()
    name = digest, threading.get_ident()
    child = children.pop(name, None)
    for _ in range(3):
        try:
            if child is None:
                child = _Child(payload)
            child.begin(tasks)
            break
        except _ChildEnded:
            if child is not None:
                child.end()
            child = None
        except BaseException:
            if child is not None:
                child.end()
            raise
    else:
        raise RuntimeError("a child process of a worker cannot be started, or ends before it is ready")
    began = before = last = time.monotonic()
    items: list[Any] = []
    failure = None
    while failure is None:
        try:
            message = child.receive(last + timeout)
            if message is None:
                child.end()
                failure = task_failure("TaskTimeout", f"the task took longer than {timeout:g} s",
                                       seconds=round(time.monotonic() - last, 3))
            elif message == "end":
                break
            else:
                items.append(message[1])
                before, last = last, time.monotonic()
        except _ChildEnded:
            failure = _death(child.end())
        except KeyboardInterrupt:
            child.end()
            failure = task_failure("KeyboardInterrupt", "")
        except BaseException:
            child.end()
            raise
    now = time.monotonic()
    if failure is None:
        now = last
        children[name] = child
        while len(children) > KEPT:
            children.pop(next(iter(children))).end()
    elif len(items) < len(tasks):
        items.append(encode_item(Outcome(FAILED, None, failure)))
        before = last
    return now - began, now - before, items


def _death(status: int) -> dict[str, Any]:
    return task_failure("WorkerDied", f"the process of the task ended with {exit_text(status)}", **exit_facts(status))
