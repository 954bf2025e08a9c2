"""Run chunks of tasks in a worker of another pool: of concurrent.futures, loky, Dask, and so on.

Like ``worker``, this module imports the standard library only, and is sent by value. The worker needs cloudpickle, and
neither this package nor the module of the user's function. It keeps what it was sent, by its digest.

With a time limit, tasks run in a child of the worker, one for each of its threads, because only a process can be
ended. The child says when it is ready, when it has received a chunk, and what became of each task. It ends with its
worker, and after CHILD_IDLE seconds without a chunk. A signal does not do, because such workers run tasks in threads.
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
from typing import Any, NamedTuple

from tastypy_fast.pipeline.worker import (
    CHUNK_BYTES,
    CHUNK_SECONDS,
    FAILED,
    Outcome,
    TaskFunction,
    encode_item,
    run_chunk,
    task_failure,
)

__all__ = ["RemoteSetup", "enter"]

# How long a child waits for a chunk before it ends, and for its start, in seconds.
CHILD_IDLE = 60.0
CHILD_START = 60.0
# How often a child asks whether its worker is alive, in seconds.
CHILD_WATCH = 0.5
# How many setups and children a worker keeps.
KEPT = 8

# What the child runs at first: it reads the import path and the setup, and serves.
_LOADER = """
import os, pickle, struct, sys
file = os.fdopen(os.dup(0), "rb")
path, payload = pickle.loads(file.read(struct.unpack("=Q", file.read(8))[0]))
sys.path[:] = path
pickle.loads(payload).serve(file)
"""

# What a chunk returns: its seconds, the seconds of its last task, and the outcomes of the tasks that have begun.
Results = tuple[float, float, list[Any]]


def enter(digest: str, payload: bytes, tasks: list[tuple[Any, int, Any]]) -> Results:
    """Run a chunk in this worker. ``payload`` is the pickle of a RemoteSetup, and ``digest`` its name."""
    import pickle
    import sys

    setups = vars(sys).setdefault("_tastypy_fast_setups", {})
    setup = setups.get(digest)
    if setup is None:
        while len(setups) >= 8:
            setups.pop(next(iter(setups)), None)
        setup = setups[digest] = pickle.loads(payload)
    return setup.run(digest, payload, tasks)  # type: ignore[no-any-return]


class RemoteSetup(NamedTuple):
    """What a worker needs to run the tasks of a run."""

    function: TaskFunction
    timeout: float | None

    def run(self, digest: str, payload: bytes, tasks: list[tuple[Any, int, Any]]) -> Results:
        """Run a chunk, in a child if there is a time limit."""
        if self.timeout is not None:
            return _run_in_child(digest, payload, tasks, self.timeout)
        function: Any = self.function
        began = last = time.monotonic()

        def note(index: int, now: float) -> None:
            nonlocal last
            last = now

        outcomes = run_chunk(function, tasks, 0, note)
        now = time.monotonic()
        return now - began, now - last, [encode_item(outcome) for outcome in outcomes]

    def serve(self, file: Any) -> None:
        """Run chunks in the child until its worker ends."""
        parent = os.getppid()
        out = os.dup(1)
        os.dup2(2, 1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(CHILD_WATCH)
            os.killpg(0, signal.SIGKILL)

        threading.Thread(target=watch, daemon=True).start()
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
                item = encode_item(self.function(task, 0))
                _send(out, ("outcome", item))
                size += len(item) if isinstance(item, bytes) else 0
                if time.monotonic() >= end or size >= CHUNK_BYTES:
                    break
            _send(out, "end")


def _send(file: int, message: Any) -> None:
    data = pickle.dumps(message, 5)
    data = struct.pack("=Q", len(data)) + data
    while data:
        data = data[os.write(file, data):]


class _ChildEnded(Exception):
    """The child has closed its output."""


class _Child:
    """The child of one thread of this worker."""

    def __init__(self, payload: bytes) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", _LOADER], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, start_new_session=True)
        self._buffer = bytearray()
        self._send((sys.path, payload))
        self._receive_only("ready", time.monotonic() + CHILD_START)

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
        while True:
            if len(self._buffer) >= 8:
                end = 8 + struct.unpack_from("=Q", self._buffer)[0]
                if len(self._buffer) >= end:
                    message = pickle.loads(bytes(self._buffer[8:end]))
                    del self._buffer[:end]
                    return message
            # Not select.select(), which takes small numbers of files only.
            poll = select.poll()
            poll.register(file, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            data = os.read(file, 1 << 16)
            if not data:
                raise _ChildEnded
            self._buffer += data

    def _receive_only(self, expected: str, deadline: float) -> None:
        message = self.receive(deadline)
        if message != expected:
            self.end()
            raise RuntimeError("the child process of a worker does not answer")

    def begin(self, tasks: list[Any]) -> None:
        """Send a chunk, and wait until the child has it. Raises _ChildEnded if the child was idle for too long."""
        self._send(tasks)
        self._receive_only("received", time.monotonic() + CHILD_START)

    def end(self) -> int:
        """Kill the child with all that it has started, and return its exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for file in (self._process.stdin, self._process.stdout):
            if file is not None:
                file.close()
        return self._process.wait()


def _run_in_child(digest: str, payload: bytes, tasks: list[Any], timeout: float) -> Results:
    children = vars(sys).setdefault("_tastypy_fast_children", {})
    name = threading.get_ident(), digest
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
    else:
        raise RuntimeError("a child process of a worker cannot be started, or ends before it is ready")
    began = last = time.monotonic()
    items: list[Any] = []
    while True:
        failure = None
        try:
            message = child.receive(last + timeout)
        except _ChildEnded:
            status = child.end()
            failure = _death(status)
        else:
            if message == "end":
                break
            if message is None:
                child.end()
                failure = task_failure("TaskTimeout", f"the task took longer than {timeout:g} s",
                                       seconds=round(time.monotonic() - last, 3))
        now = time.monotonic()
        if failure is not None:
            if len(items) < len(tasks):
                items.append(encode_item(Outcome(FAILED, None, failure)))
            return now - began, now - last, items
        items.append(message[1])
        last = now
    children[name] = child
    while len(children) > KEPT * 8:
        children.pop(next(iter(children))).end()
    return time.monotonic() - began, time.monotonic() - last, items


def _death(status: int) -> dict[str, Any]:
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return task_failure("WorkerDied", f"the process of the task was ended by {name}", signal=name)
    return task_failure("WorkerDied", f"the process of the task ended with exit code {status}", exit_code=status)
