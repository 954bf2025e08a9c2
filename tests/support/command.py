"""Run the command in a process of its own.

A server has imported the command, and forks for each call, because an interpreter needs most of the time to start and
to import. ``COMMAND`` starts a fresh interpreter, for tests with signals, closed streams and other environments.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tastypy_fast
from tastypy_fast import Tracker
from tests.support.privileges import RESTRICTED

SEARCH = [str(Path(tastypy_fast.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(SEARCH), "COLUMNS": "100"}

INTERPRETER = [sys.executable, "-W", "error"]
COMMAND = [*INTERPRETER, "-m", "tastypy_fast"]

# A call brings the three streams and a pipe for the exit status. The command is a grandchild, whose parent waits for
# it, so that several commands can run at the same time. The command ends as a program does, with all that runs at exit.
SERVER = """
import gc, json, os, signal, socket, sys
from tastypy_fast import cli
from tastypy_fast.cli import app

calls = socket.socket(fileno=int(sys.argv[1]))
gc.freeze()
gc.freeze()
waiting = set()
while True:
    message, files, *_ = socket.recv_fds(calls, 1 << 20, 4)
    if not message:
        os._exit(0)
    waiting -= {child for child in waiting if os.waitpid(child, os.WNOHANG)[0]}
    if not (child := os.fork()):
        break
    waiting.add(child)
    for file in files:
        os.close(file)
calls.close()
*streams, status = files
command = os.fork()
if command:
    for stream in range(3):
        os.close(stream)
    for stream in streams:
        os.close(stream)
    os.write(status, b"%d" % os.waitstatus_to_exitcode(os.waitpid(command, 0)[1]))
    os._exit(0)
os.close(status)
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
arguments, environment, folder = json.loads(message)
sys.argv[1:] = arguments
os.environ.clear()
os.environ.update(environment)
os.chdir(folder)
signal.alarm(60)
sys.exit(cli.main())
"""


class Server:
    """A process that forks for each call of the command."""

    def __init__(self):
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            # Python looks once whether a stream is a file. So these are pipes, too, and the server does not use them.
            self._process = subprocess.Popen(
                [*INTERPRETER, "-c", SERVER, str(other.fileno())], env=ENVIRONMENT, pass_fds=[other.fileno()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )

    def call(self, arguments, environment, folder, stdin):
        """The exit code, stdout and stderr of the command. It is killed after a minute."""
        pipes = [os.pipe() for _ in range(4)]
        theirs = [pipes[0][0], *(write for _, write in pipes[1:])]
        message = json.dumps([arguments, environment, folder]).encode()
        socket.send_fds(self._socket, [message], theirs)
        for file in theirs:
            os.close(file)
        with ThreadPoolExecutor(3) as readers:
            results = [readers.submit(_read, read) for read, _ in pipes[1:]]
            try:
                with open(pipes[0][1], "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(stdin)
            except BrokenPipeError:  # the command does not read all of it
                pass
        out, error, status = [result.result() for result in results]
        return int(status), out, error

    def close(self):
        self._socket.close()
        self._process.communicate()


def _read(pipe):
    with open(pipe, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


@functools.cache
def server():
    """The server of this process, which ends with it."""
    started = Server()
    atexit.register(started.close)
    return started


def call(*arguments, stdin="", cwd=None, **environment):
    """Run the command, and return its exit code, stdout and stderr."""
    return server().call([*map(str, arguments)], {**ENVIRONMENT, **environment}, str(cwd or os.getcwd()), stdin)


def run(*arguments, stdin="", code=0, restricted=False, **environment):
    """Run the command, check its exit code, and return its output. On success, nothing is on stderr.

    With ``restricted``, it has to respect the permissions of files, also if the tests are run by root.
    """
    if restricted and RESTRICTED:
        done = subprocess.run(
            [*RESTRICTED, *COMMAND, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60,
            env={**ENVIRONMENT, **environment}, errors="surrogateescape",
        )
        found, out, error = done.returncode, done.stdout, done.stderr
    else:
        found, out, error = call(*arguments, stdin=stdin, **environment)
    assert found == code, error
    assert code or not error
    return out if not code else (out, error)


def refused(*arguments, code, **options):
    """The one line on stderr of a command that refuses to run."""
    out, error = run(*arguments, code=code, **options)
    assert error.startswith("tastypy-fast: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert out == ""
    return error


def lines(*arguments, **options):
    return run(*arguments, **options).splitlines()


def hold_private(pipe, path):
    with Tracker(path, durability="full") as tracker:
        tracker.add("new")
        tracker.sync()
        pipe.send("ready")
        pipe.recv()


HOSTILE = ["", " ", "a\tb", "a\nb", "\udcff", "\ud800", "é", "5", 5, -(10**30), (), ("a", 1, ("b",)), "-", "--help",
           "[1]"]
