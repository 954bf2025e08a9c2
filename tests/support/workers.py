"""Several processes and threads that work on one shared store."""

from __future__ import annotations

import functools
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from tests.support.children import Child, result_of_child, start

PROCESSES = 3
THREADS = 2


def in_processes(work, count=PROCESSES):
    """The results of ``work(number)`` in each of several forked children, which begin at the same time."""

    def begin(pipe, number):
        pipe.send("ready")
        pipe.recv()
        pipe.send(work(number))

    with ExitStack() as stack:
        children = [stack.enter_context(Child(begin, number)) for number in range(count)]
        for child in children:
            assert child.pipe.recv() == "ready"
        for child in children:
            child.pipe.send("go")
        results = [child.receive_all() for child in children]
        assert [child.wait() for child in children] == [0] * count
    return [result for (result,) in results]


def in_workers(work):
    """The results of ``work(process, thread)`` in each of several threads of several processes."""

    def begin(process):
        sys.setswitchinterval(1e-5)
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(work, itertools.repeat(process), range(THREADS)))

    return list(itertools.chain(*in_processes(begin)))


def in_forked_child(test):
    """Run a test in a child, because a test that waits forever in the wrong place can only be killed."""

    @functools.wraps(test)
    def run_apart(*arguments, **keywords):
        result_of_child(lambda pipe: test(*arguments, **keywords))

    return run_apart


@contextmanager
def started(program, *arguments):
    """A program in a fresh interpreter, which is ended with the block in any case."""
    with start(program, *arguments) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process):
    """The next line of a program, or its errors if it has ended."""
    return process.stdout.readline().rstrip("\n") or process.stderr.read()


def send_line(process):
    """Let a program continue that waits for a line."""
    process.stdin.write("\n")
    process.stdin.flush()


def result_of(program, *arguments):
    """Exit status, output and errors of a program."""
    with started(program, *arguments) as process:
        output, errors = process.communicate()
    return process.returncode, output, errors
