"""Processes started in every way open the same shared store."""

from __future__ import annotations

import pickle
import time
from contextlib import ExitStack

import pytest

from tastypy_fast import (
    POD,
    SharedPOD,
    SharedTracker,
)
from tastypy_fast._shared.store import SharedStore
from tests.support.processes import contents
from tests.support.workers import PROCESSES, in_processes, next_line, result_of, send_line, started

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

METHODS = ["fork", "spawn", "forkserver"]

PROGRAM = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from tastypy_fast import SharedPOD, SharedTracker

WORKERS, TIMES = 3, 20

def work(pod, tracker, worker):
    assert (tracker.max_tries, tracker.gzipped, tracker.durability) == (7, True, "normal")
    for number in range(TIMES):
        pod.set["n"] += 1
        pod.set["list"].append([worker, number])
    done = 0
    for key in tracker.try_keys():
        tracker.set[key]["by"] = worker
        tracker.mark_done(key)
        done += 1
    return done

def keep(*stores):
    global kept
    kept = stores

def work_on_kept(worker):
    return work(*kept, worker)

def work_on_given(arguments):
    return work(*arguments)

def from_a_queue(queue, answers):
    answers.put(work(*queue.get()))

def from_a_pipe(pipe):
    pipe.send(work(*pipe.recv()))

def by_argument(context, arguments):
    answers = context.SimpleQueue()
    queue = context.SimpleQueue()
    for one in arguments:
        queue.put(one)
    processes = [context.Process(target=put_work, args=(answers, *one)) for one in arguments]
    return ended(processes, lambda: [answers.get() for _ in arguments])

def put_work(answers, *arguments):
    answers.put(work(*arguments))

def by_queue(context, arguments):
    queue, answers = context.Queue(), context.Queue()
    processes = [context.Process(target=from_a_queue, args=(queue, answers)) for _ in arguments]

    def feed():
        for one in arguments:
            queue.put(one)
        return [answers.get() for _ in arguments]

    return ended(processes, feed)

def by_pipe(context, arguments):
    pipes = [context.Pipe() for _ in arguments]
    processes = [context.Process(target=from_a_pipe, args=(theirs,)) for _, theirs in pipes]

    def talk():
        for (mine, _), one in zip(pipes, arguments):
            mine.send(one)
        return [mine.recv() for mine, _ in pipes]

    return ended(processes, talk)

def ended(processes, talk):
    for process in processes:
        process.start()
    answers = talk()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return answers

def by_pool(context, arguments):
    with context.Pool(WORKERS, keep, arguments[0][:2]) as pool:
        return pool.map(work_on_given, arguments[1:], 1) + pool.map(work_on_kept, [0], 1)

def by_executor(context, arguments):
    with ProcessPoolExecutor(WORKERS, context, keep, arguments[0][:2]) as pool:
        return [*pool.map(work, *zip(*arguments[1:])), *pool.map(work_on_kept, [0])]

if __name__ == "__main__":
    folder, method, way = sys.argv[1:]
    pod = SharedPOD(folder + "/pod", init={"n": 0, "list": []})
    tracker = SharedTracker(folder + "/tracker", max_tries=7, gzipped=True, durability="normal")
    tracker.add_many(range(40))
    answers = globals()[way](multiprocessing.get_context(method), [(pod, tracker, n) for n in range(WORKERS)])
    assert sum(answers) == tracker.num_done() == 40, answers
    assert pod["n"] == WORKERS * TIMES
    for worker in range(WORKERS):
        assert [number for w, number in pod["list"] if w == worker] == list(range(TIMES))
    assert all(task["_tries"] == 1 and task["by"] in range(WORKERS) for task in tracker.values())
    assert tracker.claims() == {}
    pod._check()
    tracker._check()
"""

WAYS = ["by_argument", "by_queue", "by_pipe", "by_pool", "by_executor"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_children_can_use_a_passed_instance(tmp_path, method, way):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    status, _, errors = result_of(program, tmp_path, method, way)
    assert (status, errors) == (0, "")


@pytest.mark.parametrize("cls", [SharedPOD, SharedTracker])
def test_pickling_carries_path_and_options_never_data(path, cls):
    options = {"gzipped": True, "file_size": 7, "sync_at": 3, "durability": "full"}
    with cls(path, **options) as store:
        empty = pickle.dumps(store)
        store["secret"] = {"text": "secret " * 10_000}
        assert pickle.dumps(store) == empty
        with pickle.loads(empty) as again:
            assert again._arguments() == store._arguments()
            assert again.items() == store.items()


def test_unrelated_programs_open_the_same_path(path):
    program = """
        import sys
        from tastypy_fast import SharedPOD
        print("ready", flush=True)
        input()
        with SharedPOD(sys.argv[1]) as pod:
            for number in range(60):
                pod.set["n"] += 1
                pod["by " + sys.argv[2], number] = number
        """
    with ExitStack() as stack:
        programs = [stack.enter_context(started(program, path, number)) for number in range(PROCESSES)]
        for process in programs:
            assert next_line(process) == "ready"
        with SharedPOD(path, init={"n": 0}) as pod:
            for process in programs:
                send_line(process)
            for _ in range(60):
                pod.set["n"] += 1
            for process in programs:
                assert process.communicate()[1] == ""
                assert process.returncode == 0
            assert pod["n"] == 60 * (PROCESSES + 1)
    keys = [key for key, _ in contents(path) if key != "n"]
    for number in range(PROCESSES):
        assert [key for key in keys if key[0] == f"by {number}"] == [(f"by {number}", n) for n in range(60)]


def test_many_processes_can_create_a_store_at_once(path):
    """The first process creates it."""

    def work(number):
        with SharedPOD(path) as pod:
            pod[number] = number
            pod.set.setdefault("n", 0)
            pod.set["n"] += 1

    in_processes(work, 6)
    assert dict(contents(path)) == {**{n: n for n in range(6)}, "n": 6}


def test_many_processes_can_open_a_formerly_private_store_at_once(path, monkeypatch):
    """The name of the owner is still in the file, and its process is alive."""
    with POD(path) as pod:
        pod["n"] = 0
    open_databases = SharedStore._open_databases
    # This simulates a slow disk.
    monkeypatch.setattr(
        SharedStore, "_open_databases", lambda self: (time.sleep(0.2), open_databases(self))
    )

    def work(number):
        with SharedPOD(path) as pod:
            pod.set["n"] += 1

    in_processes(work, 5)
    assert contents(path) == [("n", 5)]
