"""Functions that tests run as tasks. They are in a module that workers of all start methods can import."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

from tastypy_fast.pipeline import Abort, Retry, TaskResult, current_task


def nothing(key):
    return None


def double(key):
    return {"double": 2 * key}


def large(key):
    return {"key": key, "text": "x" * 300_000}


def give_task(key):
    task = current_task()
    return {"key": task.key, "tries": task.tries, "slot": task.slot}


def give_data(key, data):
    return {"size": len(data["text"])}


def give_pid(key):
    return {"pid": os.getpid()}


class TwoArguments(Exception):
    """pickle can write it, and cannot read it."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Unreadable:
    """pickle can write it, and cannot read it."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise LookupError("unreadable")


def sleep_long():
    time.sleep(1000)


def sleep_unkillable():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1000)


def segfault():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


def raise_two_arguments():
    raise TwoArguments("one", "two")


def abort():
    raise Abort("gone")


def retry():
    raise Retry(after=3, count=True, reason="busy")


def interrupt():
    raise KeyboardInterrupt


def close_files():
    os.closerange(3, 1024)
    time.sleep(1000)


def leave_child_and_die():
    if os.fork() == 0:
        time.sleep(1000)
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": segfault,
    "_exit 3": lambda: os._exit(3),
    "_exit 0": lambda: os._exit(0),
    "killed with a child": leave_child_and_die,
    "closes its files": close_files,
    "sys.exit": lambda: sys.exit(2),
    "interrupt": interrupt,
    "two arguments": raise_two_arguments,
    "abort": abort,
    "retry": retry,
    "lambda": lambda: lambda: 0,
    "unreadable": lambda: Unreadable(),
    "set": lambda: {1, 2},
    "task result": lambda: TaskResult({"a": 1}, add=["b"]),
    "sleeps": sleep_long,
    "unkillable": sleep_unkillable,
}


def fault(key):
    """The fault that the key names. Every other key is a task without a fault."""
    return FAULTS[key]() if key in FAULTS else {"key": key}


def start_child(key):
    """Start a process that lives long, and write both process ids to the file that the key names."""
    folder, what = key
    child = subprocess.Popen(["sleep", "1000"])
    write(folder, f"{os.getpid()} {child.pid}")
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "hangs":
        time.sleep(1000)
    elif what == "hangs in C":
        ctypes.PyDLL(None).pause()  # does not let other threads run


def fork_or_close(key):
    """Close all files of the worker, or fork if the key is a number."""
    if key == "closes its files":
        os.closerange(3, 1024)
    if isinstance(key, str):
        return None
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return {"key": key}


def write(path, text):
    """Write a file at once."""
    temporary = Path(f"{path}.{os.getpid()}")
    temporary.write_text(text)
    temporary.rename(path)


def wait_for_file(path):
    while not Path(path).exists():
        time.sleep(0.005)


def block(key):
    """Wait for a file, or make it, as the key says."""
    path, what = key
    if what == "waits":
        write(f"{path}.begun", "")
        wait_for_file(path)
    elif what == "makes":
        write(path, "")


def sleep(key):
    path, seconds = key
    write(path, "")
    time.sleep(seconds)


# Logging

logger = logging.getLogger("task.functions")


class Unpicklable:
    def __str__(self):
        return "unpicklable"

    def __reduce__(self):
        raise pickle.PicklingError("never")

    __repr__ = __str__


def log(key):
    logger.debug("key %s with %s", key, Unpicklable(), extra={"more": [key], "odd": Unpicklable()})
    thread = threading.Thread(target=lambda: logging.getLogger("task.thread").warning("in a thread"))
    thread.start()
    thread.join()
    try:
        raise_two_arguments()
    except TwoArguments:
        logger.exception("an exception")
    logger.log(5, "below the level")


def log_much(key):
    for number in range(2000):
        logger.warning("%s", "x" * 1000, extra={"number": number})


def log_in_child(key):
    """A forked child of a task, whose records must not get into the worker's socket."""
    pid = os.fork()
    if pid == 0:
        logger.warning("from the child")
        os._exit(0)
    os.waitpid(pid, 0)
    logger.warning("from the task")


def fork_often(key):
    """The warnings of forks beside threads, which Python 3.12 and later give."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
    return {"warnings": [str(warning.message) for warning in caught],
            "threads": sorted(thread.name for thread in threading.enumerate())}


def fork_twice(key):
    """The exit status of a forked child, whose own child leaves a daemon behind."""
    pid = os.fork()
    if pid == 0:
        inner = os.fork()
        if inner == 0:
            os.setsid()
            if os.fork() == 0:
                write(key, str(os.getpid()))
                time.sleep(1000)
            os._exit(0)
        time.sleep(0.05)
        os._exit(3 if os.waitpid(inner, 0)[1] == 0 else 4)
    return {"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}


# Initializers


def set_variable(value):
    os.environ["TASTYPY_FAST_TEST"] = value


def give_variable(key):
    return {"value": os.environ.get("TASTYPY_FAST_TEST")}


def fail_to_start(how):
    if how == "raises":
        raise LookupError("no model here")
    if how == "sys.exit":
        sys.exit(3)
    if how == "dies":
        os._exit(3)


def die_once(path):
    """An initializer that kills the first worker only."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        os.kill(os.getpid(), signal.SIGKILL)


# Coroutines


async def double_async(key):
    return {"double": 2 * key}
