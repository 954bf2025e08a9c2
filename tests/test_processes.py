"""Many processes on one shared store: however they began, nothing is lost and nothing waits for ever."""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from lmdb.verify import verify

from tastypy_fast import (
    POD,
    DiskFullError,
    DuplicateKeyError,
    ForkedStoreError,
    NotLockedError,
    SharedPOD,
    SharedTracker,
    StorageError,
    StoreConflictError,
    StoreInUseError,
    Tracker,
)
from tastypy_fast._lmdb import engine
from tastypy_fast._shared.store import SharedStore
from tests.children import Child, outcome_of, send_to_waiting
from tests.workers import PROCESSES, THREADS, apart, in_processes, in_workers, result_of, started, tell, told

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

TIMES = 60
METHODS = ["fork", "spawn", "forkserver"]


def contents(path, cls=SharedPOD):
    """What a later run of the program finds; every invariant holds."""
    assert not verify(path)
    with cls(path) as store:
        store._check()
        return store.items()


@pytest.fixture(params=["inherited", "opened by each"])
def opened(request, path):
    """Opens the shared store in a worker: the instance that it was forked with, or one of its own."""
    store = SharedPOD(path, sync_at=50)
    if request.param == "inherited":
        yield lambda: store
    else:
        yield lambda: SharedPOD(path, sync_at=50)
    store._check()
    store.close()


# However a child is started

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
def test_instances_reach_children(tmp_path, method, way):
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
            assert told(process) == "ready"
        with SharedPOD(path, init={"n": 0}) as pod:
            for process in programs:
                tell(process)
            for _ in range(60):
                pod.set["n"] += 1
            for process in programs:
                assert process.communicate()[1] == ""
                assert process.returncode == 0
            assert pod["n"] == 60 * (PROCESSES + 1)
    keys = [key for key, _ in contents(path) if key != "n"]
    for number in range(PROCESSES):
        assert [key for key in keys if key[0] == f"by {number}"] == [(f"by {number}", n) for n in range(60)]


def test_many_open_a_new_store_at_once(path):
    """Whoever comes first makes it."""

    def work(number):
        with SharedPOD(path) as pod:
            pod[number] = number
            pod.set.setdefault("n", 0)
            pod.set["n"] += 1

    in_processes(work, 6)
    assert dict(contents(path)) == {**{n: n for n in range(6)}, "n": 6}


def test_many_open_a_store_at_once_that_was_private_before(path, monkeypatch):
    """The name of the owner is still there, and its process lives."""
    with POD(path) as pod:
        pod["n"] = 0
    open_databases = SharedStore._open_databases
    # A slow disk.
    monkeypatch.setattr(
        SharedStore, "_open_databases", lambda self: (time.sleep(0.2), open_databases(self))
    )

    def work(number):
        with SharedPOD(path) as pod:
            pod.set["n"] += 1

    in_processes(work, 5)
    assert contents(path) == [("n", 5)]


# No update is lost


def test_no_increment_is_lost(opened):
    opened()["n"] = 0
    opened()["dict"] = {"list": [0]}

    def work(process, thread):
        pod = opened()
        for _ in range(TIMES):
            pod.set["n"] += 1
            pod.set["dict"]["list"][0] -= 2

    in_workers(work)
    assert opened()["n"] == PROCESSES * THREADS * TIMES
    assert opened()["dict"] == {"list": [-2 * PROCESSES * THREADS * TIMES]}


def test_no_append_to_one_list_is_lost(opened):
    opened()["list"] = []

    def work(process, thread):
        pod = opened()
        for number in range(TIMES):
            pod.set["list"].append([process, thread, number])

    in_workers(work)
    found = opened()["list"]
    assert len(found) == PROCESSES * THREADS * TIMES
    for process, thread in itertools.product(range(PROCESSES), range(THREADS)):
        assert [n for p, t, n in found if (p, t) == (process, thread)] == list(range(TIMES))


@contextmanager
def explicitly(pod):
    pod.lock()
    try:
        yield
    finally:
        pod.unlock()


BLOCKS = {"locked": SharedPOD.locked, "transaction": SharedPOD.transaction, "lock and unlock": explicitly}


@pytest.mark.parametrize("name", BLOCKS)
def test_nobody_comes_into_a_block(opened, name):
    """Reading and then writing; and several keys that are the same before and after each block."""
    opened().update(a=0, b=0)
    opened()["list"] = []

    def work(process, thread):
        pod = opened()
        for _ in range(TIMES):
            with BLOCKS[name](pod):
                number = pod["a"]
                assert pod["b"] == number
                pod["a"] = number + 1
                pod.set["list"].append(number)
                assert pod.items()[0] == ("a", number + 1)
                pod["b"] = number + 1
            seen = dict(pod.items())
            # (a snapshot is never from the middle of a block)
            assert seen["a"] == seen["b"] == len(seen["list"])

    in_workers(work)
    total = PROCESSES * THREADS * TIMES
    assert dict(opened().items()) == {"a": total, "b": total, "list": list(range(total))}


def test_transfers_that_fail_change_nothing(opened):
    accounts = range(5)
    opened().update((account, 100) for account in accounts)

    def work(process, thread):
        pod = opened()
        rng = random.Random(process * THREADS + thread)
        refused = 0
        for _ in range(TIMES):
            source, target = rng.sample(accounts, 2)
            try:
                with pod.transaction():
                    pod.set[source] -= rng.randrange(80)
                    pod.set[target] += 100 - pod[source]
                    if pod[source] < 0:
                        raise ValueError("not enough")
                    # What was moved in excess goes back.
                    pod.set[target] -= sum(pod.values()) - 500
            except ValueError:
                refused += 1
            assert sum(pod.values()) == 500
        return refused

    assert sum(in_workers(work)) > 0
    assert min(opened().values()) >= 0


def test_setdefault_sets_once(opened):
    def work(process, thread):
        return [opened().setdefault(number, [process, thread]) for number in range(TIMES)]

    results = in_workers(work)
    assert results == [opened().values()] * len(results)


@pytest.mark.parametrize("last", [True, False])
def test_popitem_gives_each_item_to_one(opened, last):
    total = 4 * TIMES
    opened().update((number, number) for number in range(total))

    def work(process, thread):
        pod, mine = opened(), []
        while True:
            try:
                mine.append(pod.popitem(last))
            except KeyError:
                return mine

    results = in_workers(work)
    # Each takes them in order, as one that comes later is popped later.
    assert all(mine == sorted(mine, reverse=last) for mine in results)
    assert sorted(itertools.chain(*results)) == [(number, number) for number in range(total)]
    assert len(opened()) == 0


def test_pop_gives_each_value_to_one(opened):
    opened().update((number, f"value {number}") for number in range(TIMES))

    def work(process, thread):
        return [value for number in range(TIMES) if (value := opened().pop(number, None))]

    assert sorted(itertools.chain(*in_workers(work))) == sorted(f"value {number}" for number in range(TIMES))


def test_a_key_that_many_add_is_there_once(opened):
    def work(process, thread):
        pod = opened()
        for number in random.Random(process).sample(range(TIMES), TIMES):
            pod[number] = process
            pod.update({number: thread, ("more", number): None})

    in_workers(work)
    pod = opened()
    assert len(pod) == len(pod.keys()) == len(set(pod.keys())) == 2 * TIMES


def test_an_update_is_seen_as_a_whole(opened):
    keys = range(20)
    opened().update((key, [-1]) for key in keys)

    def work(process, thread):
        pod = opened()
        for number in range(TIMES):
            pod.update((key, [process, thread, number]) for key in keys)
            values = pod.values()
            assert values == [values[0]] * len(keys)

    in_workers(work)


def test_add_succeeds_for_one(path):
    tracker = SharedTracker(path)

    def work(process, thread):
        added = []
        for number in range(TIMES):
            try:
                tracker.add(number)
                added.append(number)
            except DuplicateKeyError:
                pass
            tracker.add_if_absent(("both", number))
            tracker.add_many_if_absent(("many", other) for other in range(number))
            if tracker.should_do_add(("gate", number)):
                tracker.increment_tries(("gate", number))
        return added

    results = in_workers(work)
    assert sorted(itertools.chain(*results)) == list(range(TIMES))
    assert len(tracker.keys()) == len(set(tracker.keys())) == len(tracker) == 4 * TIMES - 1
    assert [tracker.tries(("gate", number)) for number in range(TIMES)] == [len(results)] * TIMES
    tracker._check()
    tracker.close()


def test_no_status_is_lost(path):
    """Neighbours lie in one block on the disk."""
    tracker = SharedTracker(path, init=[(number, {}) for number in range(TIMES * 6)])

    def work(process, thread):
        for number in range(process * THREADS + thread, len(tracker), PROCESSES * THREADS):
            tracker.increment_tries(number)
            tracker.set[number]["by"] = [process, thread]
            tracker.abort(number)
            tracker.mark_done(number)
            tracker.unabort(number)
            tracker.increment_tries(0)

    in_workers(work)
    assert (tracker.num_done(), tracker.num_aborted(), tracker.num_tried()) == (TIMES * 6, 0, TIMES * 6)
    assert tracker.tries(0) == TIMES * 6 + 1
    assert all("by" in task for task in tracker.values())
    tracker._check()
    tracker.close()


# Visible at once

SEEN = {
    "pod[key]": lambda pod, number: pod["n"] == number,
    "get": lambda pod, number: pod.get("n") == number,
    "in": lambda pod, number: ("key", number) in pod and ("key", number + 1) not in pod,
    "len": lambda pod, number: len(pod) == number + 2,
    "keys": lambda pod, number: pod.keys()[-1] == ("key", number),
    "values": lambda pod, number: pod.values()[0] == number,
    "iteritems": lambda pod, number: next(pod.iteritems()) == ("n", number),
    "reversed": lambda pod, number: next(reversed(pod)) == ("key", number),
    "set": lambda pod, number: pod.set["n"].__str__ is not None and pod.set.get("n") == number,
    "dirty": lambda pod, number: pod.dirty() == {"n", *(("key", n) for n in range(number + 1))},
    "locked": lambda pod, number: read_in_block(pod) == number,
}


def read_in_block(pod):
    with pod.locked():
        return pod["n"]


@pytest.mark.parametrize("name", SEEN)
def test_a_write_is_seen_by_others_when_it_returns(path, name):
    seen = SEEN[name]
    turns = 40

    def write(pod, number):
        if number % 3 == 0:
            pod.update({"n": number, ("key", number): None})
        elif number % 3 == 1:
            with pod.locked():
                pod["n"] = number
                pod["key", number] = None
        else:
            pod.set["n"] += 1
            pod["key", number] = None

    def other(pipe):
        with SharedPOD(path) as pod:
            for number in range(0, turns, 2):
                assert pipe.recv() == number
                assert seen(pod, number)
                write(pod, number + 1)
                assert seen(pod, number + 1)
                pipe.send(number + 1)
            # (closing syncs)
            pipe.recv()

    with SharedPOD(path, init={"n": -1}) as pod, Child(other) as child:
        pod.sync()
        for number in range(0, turns, 2):
            write(pod, number)
            child.pipe.send(number)
            assert child.pipe.recv() == number + 1
            assert seen(pod, number + 1)
        child.pipe.send("end")
        assert child.wait() == 0


def test_a_status_is_seen_by_others_when_it_is_set(path):
    def other(pipe):
        with SharedTracker(path, max_tries=3) as tracker:
            for number in range(20):
                assert pipe.recv() == number
                assert tracker.num_done() == tracker.num_tried() == tracker.num_aborted() == number
                assert next(tracker.todo_keys()) == number
                tracker.increment_tries(number)
                tracker.mark_done(number)
                tracker.abort(number)
                pipe.send(number)

    tasks = [(number, {}) for number in range(21)]
    with SharedTracker(path, max_tries=3, init=tasks) as tracker, Child(other) as child:
        for number in range(20):
            child.pipe.send(number)
            child.pipe.recv()
            assert tracker.done(number)
            assert tracker.aborted(number)
            assert tracker.tries(number) == 1
            assert not tracker.should_do(number, allow_aborted=True)
            assert tracker[number] == {"_done": True, "_aborted": True, "_tries": 1}
            assert next(tracker.todo_keys()) == number + 1
            assert list(tracker.aborted_keys()) == list(range(number + 1))
        assert child.wait() == 0


def test_a_running_loop_comes_to_what_others_add(path):
    def other(pipe):
        with SharedPOD(path) as pod:
            for number in range(1, 50):
                pipe.recv()
                pod[number] = {"n": number}
                if number % 3 == 0:
                    del pod[number - 1]
                pipe.send(number)

    with SharedPOD(path, init={0: {"n": 0}}) as pod, Child(other) as child:
        found = []
        for key, value in pod.iteritems():
            assert value == {"n": key}
            found.append(key)
            if key < 49:
                child.pipe.send("next")
                child.pipe.recv()
        assert found == list(range(50))
        assert child.wait() == 0


def test_sync_hold_and_revert_are_for_all_processes(path):
    def other(pipe):
        pipe.recv()
        with SharedPOD(path, sync_at=3) as pod:
            pod["theirs"] = 1
            pod.set["both"].append("theirs")
            pipe.send(pod.dirty())
            pipe.recv()
            for number in range(10):
                pod[number] = number
            pipe.send(pod.dirty())
            pipe.recv()
            assert pod.items() == [("both", [])]
            assert pod.dirty() == set()
            pod.update({1: 1, 2: 2, 3: 3})
            assert pod.dirty() == {1, 2, 3}
            # (enough for the automatic sync)
            pod.unhold()
            pipe.send(pod.dirty())

    with SharedPOD(path, init={"both": []}, sync_at=100) as pod, Child(other) as child:
        pod.sync()
        pod.hold()
        pod.set["both"].append("mine")
        child.pipe.send("begin")
        assert child.pipe.recv() == {"theirs", "both"}
        child.pipe.send("write")
        assert child.pipe.recv() == {"theirs", "both", *range(10)} == pod.dirty()
        pod.revert()
        assert pod.items() == [("both", [])]
        child.pipe.send("go on")
        assert child.pipe.recv() == pod.dirty() == set()
        pod.revert()
        assert pod.items() == [("both", []), (1, 1), (2, 2), (3, 3)]
        assert child.wait() == 0


# Fork

FORKS = 40


@apart
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


@apart
def test_threads_may_fork_and_use_the_store_side_by_side(path):
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
def test_a_fork_inside_of_a_block_leaves_the_block_to_the_parent(path, name):
    """The child has no part in it, waits for its end before it writes, and reads what was there before."""

    def other(pipe):
        # (a copy of the stack of blocks: what the child does on its way out must not end the parent's)
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


def test_a_child_that_leaves_its_parents_block_ends_nothing(path):
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
            # It comes out of both blocks, and has a block of its own.
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
def test_the_end_of_a_child_that_was_forked_in_a_block_frees_nothing(path, ending):
    """Neither the lock, so that others still wait, nor the pages that the parent reads."""
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
        assert told(other) == "ready"
        assert told(holder) == "ended"
        tell(other)
        assert pod["n"] == 0
        tell(holder)
        assert holder.communicate()[0] == ""
        assert holder.returncode == 0
        assert other.communicate()[0] == "written 2002\n"
        assert pod["n"] == 2002
        pod._check()


@apart
def test_forks_among_blocks_of_two_stores(path):
    """One thread takes a and then b, or b and then a, while another one forks, which needs both."""
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


@apart
def test_a_fork_waits_for_a_block_that_opens_and_closes_stores(path):
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


@apart
def test_a_fork_inside_of_an_operation_is_refused_in_the_child_alone(path):
    """What a method calls back may fork; the operation is the parent's."""
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


def test_iterators_go_on_across_a_fork(path):
    with SharedPOD(path, init=[(number, {}) for number in range(1000)]) as pod:
        keys, items = iter(pod), pod.iteritems()
        assert [next(keys), next(items)[0]] == [0, 0]

        def child(pipe):
            pod["new"] = {}
            assert list(keys) == [key for key, _ in items] == [*range(1, 1000), "new"]

        outcome_of(child)
        assert list(keys) == [key for key, _ in items] == [*range(1, 1000), "new"]


def test_a_child_that_outlives_its_parent_goes_on(path):
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


# Private and shared

KINDS = [(POD, SharedPOD), (Tracker, SharedTracker)]


OPENS = """
import sys
import tastypy_fast
_, path, private, wanted = sys.argv
options = {"clone": False} if wanted == private else {}
for more in ({}, options):
    try:
        getattr(tastypy_fast, wanted)(path, **more)
    except tastypy_fast.StoreInUseError as error:
        assert isinstance(error, BlockingIOError)
        print(error)
with getattr(tastypy_fast, private)(path, mode="r") as reader:
    print(reader.keys())
"""


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_a_private_store_is_refused_while_others_share_it(path, private, shared):
    with shared(path, init={"a": {}}):
        status, output, errors = result_of(OPENS, path, private.__name__, private.__name__)
        assert (status, errors) == (0, "")
        *refusals, keys = output.splitlines()
        assert len(refusals) == 2
        for words in ("share", f"Shared{private.__name__}", 'mode="r"'):
            assert all(words in line for line in refusals)
        assert keys == "['a']"
    with private(path) as store:
        store["b"] = {}


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_a_shared_store_is_refused_while_it_is_private(path, private, shared):
    with private(path, init={"a": {}}) as store:
        store.sync()
        status, output, errors = result_of(OPENS, path, private.__name__, shared.__name__)
        assert (status, errors) == (0, "")
        *refusals, keys = output.splitlines()
        assert len(refusals) == 2
        assert all(f"process {os.getpid()} " in line and shared.__name__ in line for line in refusals)
        assert keys == "['a']"
        store["b"] = {}
    with shared(path) as store:
        assert store.keys() == ["a", "b"]


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_private_and_shared_exclude_one_another_in_one_process(path, private, shared):
    for first, second in ((private, shared), (shared, private)):
        with first(path, init={"a": {}}) as store:
            with pytest.raises(StoreConflictError, match="same class"):
                second(path)
            store["b"] = {}
        second(path).close()


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_a_child_of_a_private_store_cannot_share_it(path, private, shared):
    with private(path, init={"a": {}}) as store:
        store.sync()

        def child(pipe):
            with pytest.raises((ForkedStoreError, StoreInUseError, StoreConflictError)):
                shared(path)
            assert store.keys() == ["a"]

        outcome_of(child)


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_a_reader_of_a_shared_store_sees_what_others_write(path, private, shared):
    """At once, as each of their operations is a commit."""
    program = f"""
        import sys
        from tastypy_fast import {private.__name__}
        with {private.__name__}(sys.argv[1], mode="r") as reader:
            for number in range(20):
                print("ready", flush=True)
                input()
                assert reader[number]["n"] == number
                assert len(reader) == len(reader.keys()) == number + 1
        """
    with shared(path, init={0: {"n": 0}}) as store, started(program, path) as other:
        for number in range(20):
            assert told(other) == "ready"
            store[number] = {"n": number}
            tell(other)
        assert other.wait() == 0, other.stderr.read()


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_a_killed_sharer_leaves_a_store_that_may_be_private(path, private, shared):
    def work(pipe):
        store = shared(path, init={"a": {}})
        if shared is SharedTracker:
            store.should_try("a")
        store["b"] = {}
        os.kill(os.getpid(), signal.SIGKILL)

    with Child(work) as child:
        assert child.wait() == -signal.SIGKILL
    with private(path) as store:
        assert store.keys() == ["a", "b"]
        store._check()
        store["c"] = {}
    with shared(path) as store:
        store._check()
        assert store.keys() == ["a", "b", "c"]


# Nothing is left

ENDS = {
    "returns": lambda tracker: None,
    "closes": lambda tracker: tracker.close(),
    "is killed": lambda tracker: os.kill(os.getpid(), signal.SIGKILL),
    "is killed in a block": lambda tracker: (tracker.lock(), os.kill(os.getpid(), signal.SIGKILL)),
    "is terminated": lambda tracker: os.kill(os.getpid(), signal.SIGTERM),
}


def slots_of_readers(path):
    """How many slots of LMDB's reader table were ever in use."""
    program = "import lmdb, sys; print(lmdb.open(sys.argv[1], readonly=True).info()['num_readers'])"
    return int(result_of(program, path)[1])


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here")
def test_short_lived_processes_leave_nothing(path):
    times = 30

    def live(pipe, end, inherited):
        store = tracker if inherited else SharedTracker(path)
        assert store.should_try_add(("mine", os.getpid()))
        loop = store.try_keys(batch=3)
        next(loop)
        assert store["kept"]["n"] == 1
        len(store.values())
        end(store)

    with SharedTracker(path, init={"kept": {"n": 1}, **{n: {} for n in range(5)}}) as tracker:
        tracker.mark_done("kept")
        descriptors = None
        for number, end in itertools.product(range(times), ENDS.values()):
            with Child(live, end, number % 2 == 0) as child:
                assert child.wait() in (0, -signal.SIGKILL, -signal.SIGTERM)
            if descriptors is None:
                descriptors = len(os.listdir("/proc/self/fd"))
        assert tracker.claims() == {}
        assert len(os.listdir("/proc/self/fd")) == descriptors
        # At most two of them were there at any time: the one before may not have been noticed.
        assert len(os.listdir(path / "workers")) <= 3
        assert slots_of_readers(path) <= 20
        loop = tracker.try_keys()
        assert list(loop) == [*range(5), *tracker.keys()[6:]]
        tracker._check()
    # (every child has added one)
    with SharedTracker(path) as tracker:
        assert len(tracker) == 6 + times * len(ENDS)
        assert tracker.claims() == {}
        tracker._check()


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
        # An exception ends a block as its kind says; SIGTERM ends the program in the middle of it.
        ("pod.locked()", signal.SIGTERM, BEFORE),
        ("pod.locked()", signal.SIGINT, AFTER),
        ("pod.transaction()", signal.SIGTERM, BEFORE),
        ("pod.transaction()", signal.SIGINT, BEFORE),
    ],
)
def test_a_signal_inside_and_outside_of_a_block(path, block, number, left):
    with SharedPOD(path) as pod, started(SIGNALLED.format(block=block), path) as process:
        assert told(process) == "ready"
        assert pod["n"] == (AFTER if "null" in block else BEFORE)
        send_to_waiting(process, number)
        output, errors = process.communicate()
        assert process.returncode == -number
        assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
        assert output == ("" if number == signal.SIGTERM else f"[('n', {left}), ('list', [])]\n")
        assert pod["n"] == left
        # The lock is free.
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
        assert told(process) == "ready"
        send_to_waiting(process, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        assert pod["n"] == 1
        pod.set["n"] += 1
        assert pod["n"] == 2
        pod._check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_at_any_moment_of_work(path, number, seed):
    """What a method has returned from is there; the one that the signal came into is there or not."""
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
            # A block that KeyboardInterrupt came into is kept as far as it was.
            assert 0 <= pod["n", worker] - told[-1] <= 1
            assert 0 <= pod["block", worker] - 2 * told[-1] <= 2
            assert number == signal.SIGINT or pod["block", worker] % 2 == 0
            assert all(pod["key", worker, count] == [count] for count in range(1, told[-1] + 1))
        pod._check()


# A stopped holder of the lock

READS = "import sys; from tastypy_fast import POD; print(POD(sys.argv[1], mode='r').items())"


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGCONT])
def test_a_stopped_holder_of_the_lock_holds_up_writers_alone(path, ending):
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
            # Reading goes on, for those that are there and those that come.
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


# Room


def test_a_slow_reader_keeps_no_old_pages(path):
    """While others write, the file stays within three times what lives in it."""
    value = {"text": "x" * 400}
    count = 8000
    blocks = 60

    def write(pipe, seed):
        rng = random.Random(seed)
        with SharedPOD(path) as pod:
            for _ in range(blocks):
                with pod.locked():
                    for _ in range(100):
                        pod[rng.randrange(count)] = {**value, "n": rng.random()}
                pod.set[rng.randrange(count)]["n"] = 0
                pipe.send("a block")

    with SharedPOD(path) as pod:
        pod.update((number, value) for number in range(count))
        pod.sync()
        size = (path / "data.mdb").stat().st_size
        with ExitStack() as stack:
            loops = [pod.iteritems(), iter(pod), pod.itervalues(), reversed(pod)]
            writers = [stack.enter_context(Child(write, seed)) for seed in range(2)]
            for _ in range(blocks):
                for writer in writers:
                    assert writer.pipe.recv() == "a block"
                for loop in loops:
                    next(loop)
            assert [writer.wait() for writer in writers] == [0, 0]
            for loop in loops:
                assert len(list(loop)) == count - blocks
        assert len(pod) == count
        assert (path / "data.mdb").stat().st_size < 3 * size


SMALL = 1 << 18


def fill_one_by_one(pod, number, texts, begin=0):
    for place, text in enumerate(texts, begin):
        pod[number, place] = text


def fill_in_blocks(block, pod, number, texts):
    """A block for which the others have left no room is done again."""
    for begin in range(0, len(texts), 5):
        while not fill_block(block(pod), pod, number, texts[begin : begin + 5], begin):
            assert (number, begin) not in pod


def fill_block(block, pod, number, texts, begin):
    try:
        with block:
            fill_one_by_one(pod, number, texts, begin)
    except StorageError:
        return False
    return True


def fill_by_update(pod, number, texts):
    for place in range(0, len(texts), 40):
        pod.update(((number, place + n), text) for n, text in enumerate(texts[place : place + 40]))


def fill_through_set(pod, number, texts):
    for place, text in enumerate(texts):
        pod.set[number, place] = ""
        pod.set[number, place] += text


@contextmanager
def transaction_in_block(pod):
    with pod.locked(), pod.transaction():
        yield


def fill_one_value(pod, number, texts):
    pod[number, "list"] = []
    for place, text in enumerate(texts):
        pod.set[number, "list"].append(text)
        pod[number, place] = pod[number, "list"][place]
    del pod[number, "list"]


FILLINGS = {
    "one by one": fill_one_by_one,
    "update": fill_by_update,
    "set": fill_through_set,
    "one value": fill_one_value,
    "blocks": functools.partial(fill_in_blocks, SharedPOD.locked),
    "transactions": functools.partial(fill_in_blocks, transaction_in_block),
}


@pytest.mark.parametrize("names", [*([name] * PROCESSES for name in FILLINGS), list(FILLINGS)], ids="-".join)
def test_a_map_that_several_processes_fill_grows_unseen(path, monkeypatch, names):
    monkeypatch.setattr(engine, "MAP_SIZE", SMALL)
    monkeypatch.setattr(engine, "SMALLEST_MAP_SIZE", SMALL)
    texts = [f"{number} " * 700 for number in range(200)]

    def work(number):
        with SharedPOD(path, sync_at=30) as pod:
            FILLINGS[names[number]](pod, number, texts)
            # Others have grown it meanwhile.
            assert [pod[number, place] for place in range(len(texts))] == texts

    count = len(names)
    with SharedPOD(path, init={"first": 1}) as pod:
        in_processes(work, count)
        assert len(pod) == 1 + count * len(texts)
        assert pod["first"] == 1
        assert (path / "data.mdb").stat().st_size > 4 * SMALL
        pod["last"] = 1
        pod._check()
    found = dict(contents(path))
    assert [found[number, place] for number in range(count) for place in range(len(texts))] == texts * count


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_larger_than_the_map_raises_and_works_when_done_again(path, monkeypatch, name):
    monkeypatch.setattr(engine, "MAP_SIZE", SMALL)
    monkeypatch.setattr(engine, "SMALLEST_MAP_SIZE", SMALL)
    with SharedPOD(path, init={"before": 1}) as pod:
        failed = 0
        while fill_with_large_ones(pod, BLOCKS[name]) is not None:
            failed += 1
            assert failed < 10
            assert pod.items() == [("before", 1)]
        assert failed
        assert len(pod) == 101
        pod._check()


def fill_with_large_ones(pod, block):
    """In one block; the error that it ended with."""
    try:
        with block(pod):
            for number in range(100):
                pod[number] = "x" * 10_000
                # (what was set is in the transaction when something is read)
                assert len(pod) == number + 2
    except StorageError as error:
        return error


class SizeLimit:
    """A limit on the size of every file that this process writes. (Only for a child process.)"""

    def __init__(self, folder):
        self.folder = folder

    def fill(self, room):
        largest = max(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + room, resource.RLIM_INFINITY))

    def free(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_full_disk_for_one_process_does_not_stop_the_others(path):
    def limited(pipe):
        disk = SizeLimit(path)
        with SharedPOD(path) as pod:
            disk.fill(room=100_000)
            pod["small"] = 1
            for write in (
                lambda: pod.__setitem__("large", "x" * 1_000_000),
                lambda: pod.update({"small": 2, "large": "x" * 1_000_000}),
                lambda: pod.set["list"].extend(["x" * 1000] * 1000),
                lambda: pod.setdefault("large", "x" * 1_000_000),
            ):
                with pytest.raises(DiskFullError, match="disk is full"):
                    write()
            with pytest.raises(DiskFullError), pod.locked():  # noqa: PT012
                pod["small"] = 3
                pod["large"] = "x" * 1_000_000
            assert pod["small"] == 1
            assert pod["list"] == []
            assert "large" not in pod
            pipe.send("full")
            assert pipe.recv() == "others have written"
            assert len(pod["others"]) == 1_000_000
            # What they have added to the file is there for this one.
            pod["small"] = 4
            disk.free()
            pod["large"] = "x" * 3_000_000
            pod._check()

    with SharedPOD(path, init={"list": [], "ballast": ["x" * 1000] * 200}) as pod, Child(limited) as child:
        assert child.pipe.recv() == "full"
        assert pod["small"] == 1
        pod["others"] = "x" * 1_000_000
        pod.set["list"].append(1)
        child.pipe.send("others have written")
        assert child.wait() == 0
        assert (pod["small"], len(pod["large"]), pod["list"]) == (4, 3_000_000, [1])
        pod._check()
    contents(path)


@pytest.fixture
def small_file_system(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    may_mount = os.geteuid() == 0 and shutil.which("mount")
    if not may_mount or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system, and not everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_several_processes_fill_a_small_disk(small_file_system):
    """Each comes to its end, keeps what it has written, and goes on when there is room."""
    path = small_file_system / "store"

    def work(number):
        with SharedTracker(path) as tracker:
            written = 0
            with pytest.raises(DiskFullError):  # noqa: PT012
                for written in itertools.count():
                    tracker[number, written] = {"text": "x" * 2000}
            assert (number, written) not in tracker
            assert tracker.tries((number, 0)) == 0
            return written

    with SharedTracker(path) as tracker:
        counts = in_processes(work)
        assert min(counts) >= 0
        assert sum(counts) > 100
        assert len(tracker) == sum(counts)
        for number, count in enumerate(counts):
            assert [key for key in tracker if key[0] == number] == [(number, place) for place in range(count)]
        tracker._check()
        shutil.copytree(path, small_file_system.parent / "copy")
    assert len(contents(small_file_system.parent / "copy", SharedTracker)) == sum(counts)
