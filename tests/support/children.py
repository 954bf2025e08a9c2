"""Helpers for tests with several processes: a function in a forked child, a program in a fresh interpreter."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

from tests.support.no_background import PRELUDE


class Child:
    """``work(pipe, *arguments)`` in a forked child, which ends with status 1 and a traceback when it raises.

    ``pipe`` is the child's end of a duplex pipe, ``self.pipe`` the other one.
    """

    def __init__(self, work, *arguments):
        self.pipe, other = multiprocessing.Pipe()
        self._status = None
        self.pid = os.fork()
        if self.pid == 0:
            self.pipe.close()
            _run(work, other, arguments)
        other.close()

    def receive_all(self):
        """All messages that the child has sent and will send, up to its end."""
        received = []
        try:
            while True:
                received.append(self.pipe.recv())
        except EOFError:
            return received

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def wait(self):
        """The exit status of the child, negative for a signal."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._status is None:
            self.kill()
            self.wait()
        self.pipe.close()


class Progress:
    """A number that parent and child share."""

    def __init__(self):
        self.memory = mmap.mmap(-1, 8)

    @property
    def count(self):
        return struct.unpack("=q", self.memory[:8])[0]

    @count.setter
    def count(self, value):
        self.memory[:8] = struct.pack("=q", value)


def _run(work, pipe, arguments):
    status = 1
    try:
        work(pipe, *arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def result_of_child(work, *arguments):
    """The message of ``work(pipe, *arguments)`` from a child, which must exit with 0."""
    with Child(work, *arguments) as child:
        received = child.receive_all()
        assert child.wait() == 0
    return received


def start(program, *arguments):
    """A Python program, given as its file or its source, in a fresh interpreter."""
    source = [program] if isinstance(program, Path) else ["-c", PRELUDE + textwrap.dedent(program)]
    return subprocess.Popen(
        [sys.executable, *source, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def send_to_waiting(process, number):
    """Send a signal to a program that has announced a wait, and only when it waits.

    Python checks for signals between two steps. A signal after the last check and before the blocking call is handled
    when the call returns, which may be never.
    """
    state = Path(f"/proc/{process.pid}/stat")
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] in "RD":
        os.sched_yield()
    process.send_signal(number)


def run(program, *arguments):
    """``start()``, and wait for the end: exit status, output and errors."""
    with start(program, *arguments) as process:
        output, errors = process.communicate()
    return process.returncode, output, errors
