"""Signals and stopped processes while a shared store is used."""

from __future__ import annotations

import itertools
import os
import random
import signal
from contextlib import nullcontext

import pytest

from tastypy_fast import (
    SharedPOD,
)
from tests.support.children import Child, send_to_waiting
from tests.support.workers import next_line, result_of, started

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# Signals

SIGNALLED = """
import signal, sys
from tastypy_fast import SharedPOD
pod = SharedPOD(sys.argv[1], init={{"n": 0, "list": []}})
pod.sync()
try:
    pod.set["n"] += 1
    with {block}:
        pod.set["n"] += 10
        print("ready", flush=True)
        signal.pause()
    print("never", flush=True)
except KeyboardInterrupt:
    print(pod.items(), flush=True)
    raise
"""

BEFORE, AFTER = 1, 11


@pytest.mark.parametrize(
    ("block", "number", "left"),
    [
        ("__import__('contextlib').nullcontext()", signal.SIGTERM, AFTER),
        ("__import__('contextlib').nullcontext()", signal.SIGINT, AFTER),
        # An exception ends a block as its kind defines. SIGTERM ends the program inside the block.
        ("pod.locked()", signal.SIGTERM, BEFORE),
        ("pod.locked()", signal.SIGINT, AFTER),
        ("pod.transaction()", signal.SIGTERM, BEFORE),
        ("pod.transaction()", signal.SIGINT, BEFORE),
    ],
)
def test_signal_inside_or_outside_a_block_commits_or_undoes_it(path, block, number, left):
    with SharedPOD(path) as pod, started(SIGNALLED.format(block=block), path) as process:
        assert next_line(process) == "ready"
        assert pod["n"] == (AFTER if "null" in block else BEFORE)
        send_to_waiting(process, number)
        output, errors = process.communicate()
        assert process.returncode == -number
        assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
        assert output == ("" if number == signal.SIGTERM else f"[('n', {left}), ('list', [])]\n")
        assert pod["n"] == left
        # The lock is released.
        pod.set["n"] += 1
        assert pod["n"] == left + 1
        pod._check()


def test_sigterm_while_another_thread_is_in_a_block_ends_the_program(path):
    program = """
        import signal, sys, threading
        from tastypy_fast import SharedPOD
        pod = SharedPOD(sys.argv[1])
        pod.set["n"] += 1
        def block():
            with pod.locked():
                pod.set["n"] += 10
                print("ready", flush=True)
                threading.Event().wait()
        threading.Thread(target=block, daemon=True).start()
        signal.pause()
        """
    with SharedPOD(path, init={"n": 0}) as pod, started(program, path) as process:
        assert next_line(process) == "ready"
        send_to_waiting(process, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        assert pod["n"] == 1
        pod.set["n"] += 1
        assert pod["n"] == 2
        pod._check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_at_any_moment_keeps_completed_operations(path, number, seed):
    """Operations that returned are saved. The interrupted one is saved or not."""
    rng = random.Random(seed)

    def work(pipe, worker):
        pod = SharedPOD(path, sync_at=rng.choice((1, 5, 1000)))
        try:
            for count in itertools.count(1):
                pod.set["n", worker] += 1
                pod["key", worker, count] = [count]
                with pod.locked():
                    pod.set["block", worker] += 1
                    pod.set["block", worker] += 1
                pipe.send(count)
        except KeyboardInterrupt:
            pod.set["n", worker] += 0
            pod._check()
            pod.close()

    with SharedPOD(path) as pod:
        for worker in range(25):
            pod.update({("n", worker): 0, ("block", worker): 0})
            with Child(work, worker) as child:
                told = [0]
                for _ in range(rng.randrange(1, 40)):
                    told.append(child.pipe.recv())
                for _ in range(rng.randrange(20_000)):
                    pass
                child.kill(number)
                told += child.receive_all()
                assert child.wait() == (0 if number == signal.SIGINT else -number)
            # A block that KeyboardInterrupt ended keeps its changes up to then.
            assert 0 <= pod["n", worker] - told[-1] <= 1
            assert 0 <= pod["block", worker] - 2 * told[-1] <= 2
            assert number == signal.SIGINT or pod["block", worker] % 2 == 0
            assert all(pod["key", worker, count] == [count] for count in range(1, told[-1] + 1))
        pod._check()


# A stopped process that has the writer lock

READS = "import sys; from tastypy_fast import POD; print(POD(sys.argv[1], mode='r').items())"


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGCONT])
def test_stopped_holder_of_the_writer_lock_blocks_only_writers(path, ending):
    def hold(pipe):
        with SharedPOD(path) as pod, pod.locked():
            pod.set["n"] += 10
            pipe.send("locked")
            os.kill(os.getpid(), signal.SIGSTOP)

    def write(pipe):
        with SharedPOD(path) as pod:
            pipe.send("writing")
            pod.set["n"] += 1
            pipe.send("written")

    with SharedPOD(path, init={"n": 0, "list": [1, 2]}) as pod, Child(hold) as holder:
        assert holder.pipe.recv() == "locked"
        os.waitpid(holder.pid, os.WUNTRACED)
        with Child(write) as writer:
            assert writer.pipe.recv() == "writing"
            assert not writer.pipe.poll(0.2)
            # Existing and new readers can read.
            assert pod["n"] == 0
            assert list(pod) == ["n", "list"]
            assert result_of(READS, path) == (0, f"{pod.items()}\n", "")
            assert not writer.pipe.poll()
            holder.kill(ending)
            assert writer.pipe.recv() == "written"
            assert writer.wait() == 0
        assert holder.wait() == (-ending if ending == signal.SIGKILL else 0)
        assert pod["n"] == (1 if ending == signal.SIGKILL else 11)
        pod._check()


# While a commit asks who holds the automatic sync, Python code runs, and so may a signal handler.


@pytest.mark.parametrize("kind", ["operation", "locked", "transaction"])
@pytest.mark.parametrize("is_held", [True, False])
def test_what_a_handler_changes_while_a_commit_asks_for_holders_is_in_that_commit(path, monkeypatch, is_held, kind):
    with SharedPOD(path, sync_at=2) as pod:
        pod.sync()
        asked = []

        def ask():
            asked.append(is_held)
            signal.raise_signal(signal.SIGUSR1)
            return is_held

        monkeypatch.setattr(pod._store, "is_sync_held", ask)
        before = signal.signal(signal.SIGUSR1, lambda *_: pod.__setitem__("handler", True))
        try:
            with pod.transaction() if kind == "transaction" else pod.locked() if kind == "locked" else nullcontext():
                pod.update(a=1, b=2)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert asked == [is_held]
        assert pod.get("handler") is True
        # (a rollback would drop what had stayed in the cache)
        with pytest.raises(ZeroDivisionError), pod.transaction():
            _ = 1 / 0
        assert pod.items() == [("a", 1), ("b", 2), ("handler", True)]
        pod._check()
