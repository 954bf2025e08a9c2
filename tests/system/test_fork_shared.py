"""Forks of a process with a shared store, in blocks, in threads and in loops."""

from __future__ import annotations

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tastypy_fast import (
    NotLockedError,
    SharedPOD,
)
from tests.support.children import Child, result_of_child
from tests.support.processes import BLOCKS, contents
from tests.support.workers import in_forked_child, next_line, result_of, send_line, started

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

FORKS = 40


@in_forked_child
def test_forks_while_threads_write_and_hold_the_lock(path):
    stop = threading.Event()
    pod = SharedPOD(path, sync_at=20, init={"single": 0, "block": 0, "children": 0, "list": []})
    errors = []

    def single():
        pod.set["single"] += 1
        pod.set["list"].append(1)
        pod.set["list"].pop()

    def block():
        with pod.locked():
            for _ in range(20):
                pod["block"] = pod["block"] + 1

    def read():
        assert pod["block"] % 20 == 0
        assert pod.keys() == ["single", "block", "children", "list"]

    def repeat(work):
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            errors.append(error)

    def child(pipe):
        read()
        pod.set["children"] += 1
        with pod.locked():
            assert pod["block"] % 20 == 0
            pod.set["children"] += 1
        read()

    threads = [threading.Thread(target=repeat, args=(work,)) for work in (single, block, read)]
    for thread in threads:
        thread.start()
    try:
        for number in range(FORKS):
            with Child(child) as one:
                assert one.wait() == 0, number
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors
    assert pod["children"] == 2 * FORKS
    pod._check()
    written = pod.items()
    pod.close()
    assert contents(path) == written
    assert dict(written)["list"] == []


@in_forked_child
def test_threads_may_fork_while_others_use_the_store(path):
    pod = SharedPOD(path, init={"n": 0})

    def child(pipe):
        pod.set["n"] += 1

    def fork(number):
        for _ in range(10):
            with Child(child) as one:
                assert one.wait() == 0
            pod.set["n"] += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fork, range(4)))
    assert pod["n"] == 80
    pod.close()


@pytest.mark.parametrize("name", BLOCKS)
def test_block_belongs_to_the_parent_after_a_fork_inside_it(path, name):
    """The child is not in the block, waits for its end before it writes, and reads the state before it."""

    def other(pipe):
        # The child has a copy of the stack of blocks. When it leaves them, it must not end those of the parent.
        assert pod.items() == [("n", 0)]
        with pytest.raises(NotLockedError):
            pod.unlock()
        pipe.send("read")
        pod.set["n"] += 1
        pipe.send(pod.items())

    with SharedPOD(path, init={"n": 0}) as pod, ExitStack() as stack:
        with BLOCKS[name](pod):
            pod["n"] = 10
            child = stack.enter_context(Child(other))
            assert child.pipe.recv() == "read"
            pod["block"] = [1]
            assert pod.items() == [("n", 10), ("block", [1])]
            assert not child.pipe.poll(0.1)
        assert child.pipe.recv() == [("n", 11), ("block", [1])]
        assert child.wait() == 0
        assert pod.items() == [("n", 11), ("block", [1])]
        with pod.locked():
            pod["n"] = 12
        pod._check()


def test_child_that_leaves_the_block_of_its_parent_does_not_end_it(path):
    status, output, errors = result_of(
        """
        import os, sys
        from tastypy_fast import SharedPOD
        pod = SharedPOD(sys.argv[1], init={"n": 0})
        with pod.locked():
            pod["n"] = 1
            with pod.transaction():
                pod["n"] = 2
                child = os.fork()
                if not child:
                    pod.set["by the child"] = 2
            if child:
                pod["m"] = 3
        if not child:
            # The child leaves both blocks, and begins its own.
            with pod.locked():
                pod.set["by the child"] += 10
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        print(pod.items())
        """,
        path,
    )
    assert (status, errors) == (0, "")
    assert output.splitlines() == ["0", "[('n', 2), ('m', 3), ('by the child', 12)]"]


WRITES_WHEN_TOLD = """
import sys
from tastypy_fast import SharedPOD
with SharedPOD(sys.argv[1]) as pod:
    print("ready", flush=True)
    input()
    pod.set["n"] *= 2
    print("written", pod["n"], flush=True)
"""


@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit(0)", "1 / 0", "os.kill(os.getpid(), 9)"])
def test_exit_of_a_child_forked_in_a_block_releases_no_lock_or_snapshot(path, ending):
    """The exit releases neither the lock, so others still wait, nor the pages that the parent reads."""
    program = f"""
        import os, signal, sys
        from tastypy_fast import SharedPOD
        pod = SharedPOD(sys.argv[1])
        with pod.locked():
            pod.set["n"] += 1
            if not os.fork():
                {ending}
            os.wait()
            print("ended", flush=True)
            input()
            for _ in range(1000):
                pod.set["n"] += 1
            pod["more"] = "x" * 100_000
        pod._check()
        """
    with (
        SharedPOD(path, init={"n": 0}) as pod,
        started(WRITES_WHEN_TOLD, path) as other,
        started(program, path) as holder,
    ):
        assert next_line(other) == "ready"
        assert next_line(holder) == "ended"
        send_line(other)
        assert pod["n"] == 0
        send_line(holder)
        assert holder.communicate()[0] == ""
        assert holder.returncode == 0
        assert other.communicate()[0] == "written 2002\n"
        assert pod["n"] == 2002
        pod._check()


@in_forked_child
def test_fork_while_threads_hold_blocks_of_two_stores_does_not_deadlock(path):
    """One thread locks a and then b, or b and then a. Another thread forks, which needs both."""
    forks = 10
    stop = threading.Event()
    with SharedPOD(path / "a", init={"n": 0}) as a, SharedPOD(path / "b", init={"n": 0}) as b:
        rounds = []

        def both():
            for first, second in itertools.cycle([(a, b), (b, a)]):
                if stop.is_set():
                    return
                with first.locked():
                    first.set["n"] += 1
                    with second.locked():
                        second.set["n"] += 1
                rounds.append(None)

        def child(pipe):
            for pod in (a, b, a):
                pod.set["n"] += 1

        thread = threading.Thread(target=both)
        thread.start()
        try:
            for _ in range(forks):
                with Child(child) as one:
                    assert one.wait() == 0
        finally:
            stop.set()
            thread.join()
        assert (a["n"], b["n"]) == (len(rounds) + 2 * forks, len(rounds) + forks)


@in_forked_child
def test_fork_waits_for_a_block_that_opens_and_closes_stores(path):
    with SharedPOD(path / "a", init={"n": 0}) as a:
        forked = threading.Event()

        def block():
            number = 0
            while not forked.is_set():
                with a.locked(), SharedPOD(path / "b") as b:
                    b[number] = number
                    number += 1

        def child(pipe):
            a.set["n"] += 1

        thread = threading.Thread(target=block)
        thread.start()
        try:
            for _ in range(FORKS):
                with Child(child) as one:
                    assert one.wait() == 0
        finally:
            forked.set()
            thread.join()
        assert a["n"] == FORKS


@in_forked_child
def test_fork_inside_an_operation_raises_only_in_the_child(path):
    """A callback of a method may fork. The operation belongs to the parent."""
    with SharedPOD(path, init={"list": [3, 1, 2]}) as pod:
        parent, statuses = os.getpid(), []

        def key(item):
            if not statuses:
                process = os.fork()
                if process:
                    statuses.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
                else:
                    statuses.append(None)
            return item

        try:
            pod.set["list"].sort(key=key)
        except BaseException as error:
            if os.getpid() == parent:
                raise
            os._exit(7 if isinstance(error, IndexError) else 3)
        if os.getpid() != parent:
            os._exit(0)
        assert statuses[0] in (0, 3)
        assert pod["list"] == [1, 2, 3]
        pod._check()


def test_iterators_continue_after_a_fork(path):
    with SharedPOD(path, init=[(number, {}) for number in range(1000)]) as pod:
        keys, items = iter(pod), pod.iteritems()
        assert [next(keys), next(items)[0]] == [0, 0]

        def child(pipe):
            pod["new"] = {}
            assert list(keys) == [key for key, _ in items] == [*range(1, 1000), "new"]

        result_of_child(child)
        assert list(keys) == [key for key, _ in items] == [*range(1, 1000), "new"]


def test_child_that_outlives_its_parent_can_use_the_store(path):
    def parent(pipe):
        pod = SharedPOD(path, init={"n": 0})
        if os.fork() == 0:
            pipe.send(os.getpid())
            pipe.recv()
            pod.set["n"] += 1
            pipe.send(pod["n"])
            os._exit(0)
        os._exit(0)

    with Child(parent) as child:
        assert child.wait() == 0
        child.pipe.recv()
        with SharedPOD(path) as pod:
            pod.set["n"] += 1
        child.pipe.send("go on")
        assert child.pipe.recv() == 2
    assert contents(path) == [("n", 2)]
