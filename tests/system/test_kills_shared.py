"""Processes of a shared store are killed with SIGKILL at random points.

No operation is lost or saved in part, no task is lost or claimed twice, and no other process is delayed.

The workers on a tracker write one log, a line with each system call. They log a task after they got it, and before they
give it back. The test logs each kill before it happens. So the log shows a task that two workers had at once.
"""

from __future__ import annotations

import os
import random
import signal
import traceback
from collections import Counter
from contextlib import ExitStack, nullcontext, suppress

import pytest
from lmdb.verify import verify

from tastypy_fast import SharedPOD, SharedTracker
from tastypy_fast._lmdb import engine
from tests.support.children import Child, Progress
from tests.support.operations import Player, change_model, pod_operations, tracker_operations
from tests.support.workers import next_line, started

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def some_time(rng):
    for _ in range(rng.randrange(rng.choice((1, 1_000, 100_000, 300_000)))):
        pass


def check(path, cls):
    """Check that the store passes all checks of the engine and of the package, while no other process has it open."""
    assert not verify(path)
    with cls(path) as store:
        store._check()
        return store.items()


# Several workers on the tasks of one tracker

WORKERS = 4


class Log:
    """Lines that several processes write, in the order of the writes."""

    def __init__(self, path):
        self.path = path
        self.file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def write(self, *words):
        os.write(self.file, (" ".join(map(str, words)) + "\n").encode())

    def read(self):
        os.close(self.file)
        return [line.split() for line in self.path.read_text().splitlines()]


class LogChecker:
    """Check the log: which worker had which task, and how often each task was yielded."""

    def __init__(self):
        self.holder = {}
        self.gone = set()
        self.yielded = Counter()

    def read(self, lines):
        for what, worker, *task in lines:
            assert what != "failed", " ".join([worker, *task])
            if what in ("killed", "closes"):
                self.gone.add(worker)
            elif what == "has":
                (task,) = task
                holder = self.holder.get(task, worker)
                is_over = holder in self.gone or holder.partition(".")[0] in self.gone
                assert holder == worker or is_over, f"{worker} got {task}, which {holder} is running"
                self.holder[task] = worker
                self.yielded[task] += 1
            elif what == "gives":
                self.holder.pop(task[0], None)


def work(pipe, path, name, seed, log):
    """The operations of a worker until it is killed, or until all tasks are done."""
    # The map is so small that it grows while others are killed.
    engine.MAP_SIZE = 1 << 18
    rng = random.Random(seed)
    for life in range(10**9):
        worker = f"{name}.{life}"
        try:
            with SharedTracker(path, sync_at=rng.choice((1, 20, 1000))) as tracker:
                for _ in range(rng.choice((1, 5))):
                    pass_over_tasks(tracker, worker, rng, log)
                is_over = tracker.num_done() == len(tracker)
                log.write("closes", worker)
        except BaseException:
            log.write("failed", worker, *traceback.format_exc().split())
            raise
        if is_over:
            return


def pass_over_tasks(tracker, worker, rng, log):
    finish = rng.choice((mark_done, with_result, in_block, in_transaction, many_at_once))
    ready = []
    for key in tasks_of(tracker, rng):
        log.write("has", worker, key)
        if rng.random() < 0.02:
            return
        chance = rng.random()
        if chance < 0.15:
            continue
        log.write("gives", worker, key)
        if chance < 0.25:
            tracker.release(key)
        elif chance < 0.3:
            tracker.mark_not_done(key)
        else:
            finish(tracker, key, ready)
    many_at_once(tracker, None, ready)


def tasks_of(tracker, rng):
    batch = rng.choice((1, 3, 50))
    chance = rng.random()
    if chance < 0.5:
        return tracker.try_keys(batch=batch)
    if chance < 0.8:
        return (key for key, task in tracker.try_items(batch=batch) if task["_tries"])
    keys = list(tracker.todo_keys())
    return filter(tracker.should_try, rng.sample(keys, min(len(keys), 50)))


def mark_done(tracker, key, ready):
    tracker.mark_done(key)


def with_result(tracker, key, ready):
    tracker.set[key]["result"] = ["x" * (int(key) % 300)]
    tracker.mark_done(key)


def in_block(tracker, key, ready):
    """The number of tasks that are done in this way is right at every moment."""
    with tracker.locked():
        tracker.set[key]["counted"] = True
        tracker.set["0"]["count"] += 1
        tracker.mark_done(key)
        tracker.set["0"]["after"] += 1


def in_transaction(tracker, key, ready):
    try:
        with tracker.transaction():
            in_block(tracker, key, ready)
            if int(key) % 3 == 0 and tracker.tries(key) < 3:
                raise KeyError(key)
    except KeyError:
        tracker.release(key)


def many_at_once(tracker, key, ready):
    if key is not None:
        ready.append(key)
    if len(ready) >= 5 or key is None:
        tracker.mark_done_many(ready)
        ready.clear()


def write_on_request(pipe, cls, path, durability="process"):
    """Write on request, and report each write."""
    with cls(path, durability=durability) as store:
        count = 0
        while pipe.recv():
            store.set["0"]["beats"] += 1
            count += 1
            pipe.send(store["0"]["beats"] == count)


def storm(path, rounds, kills, rng, log):
    """Rounds of killing workers at random points. No worker is left after a round. Returns the number of tasks."""
    names = iter(range(10**9))
    tasks = 1
    with SharedTracker(path, init={"0": {"count": 0, "after": 0, "beats": 0}}) as tracker:
        tracker.mark_done("0")
    for _ in range(rounds):
        with ExitStack() as stack, Child(write_on_request, SharedTracker, path) as heart:
            workers = {}

            def begin(workers=workers, stack=stack):
                name = next(names)
                workers[name] = stack.enter_context(Child(work, path, name, rng.random(), log))

            def kill(name, workers=workers):
                worker = workers.pop(name)
                log.write("killed", name)
                worker.kill()
                assert worker.wait() in (0, -signal.SIGKILL)

            adder = stack.enter_context(Child(add_tasks, path))
            for _ in range(WORKERS):
                begin()
            for _ in range(kills):
                tasks = more(adder, tasks)
                some_time(rng)
                kill(rng.choice(list(workers)))
                begin()
                # No process waits for a dead one.
                heart.pipe.send(True)
                assert heart.pipe.recv()
            for name in list(workers):
                kill(name)
            for child in (adder, heart):
                child.pipe.send(None)
                assert child.wait() == 0
        with SharedTracker(path) as tracker:
            tracker.set["0"]["beats"] = 0
        check_round(path, tasks)
    return tasks


def more(adder, tasks):
    adder.pipe.send((tasks, 15))
    assert adder.pipe.recv()
    return tasks + 15


def add_tasks(pipe, path):
    with SharedTracker(path) as tracker:
        while asked := pipe.recv():
            first, count = asked
            tracker.add_many(map(str, range(first, first + count)))
            pipe.send(True)


def check_round(path, tasks):
    found = dict(check(path, SharedTracker))
    assert list(found) == [str(number) for number in range(tasks)]
    count = found["0"]
    assert count["count"] == count["after"] == sum("counted" in task for task in found.values())
    assert not any("counted" in task and not task["_done"] for task in found.values())
    with SharedTracker(path) as tracker:
        assert tracker.claims() == {}


@pytest.mark.parametrize(
    ("rounds", "kills"),
    [(3, 25), pytest.param(40, 30, marks=[pytest.mark.storm, pytest.mark.timeout(3600)])],
)
def test_workers_killed_at_random_lose_no_task_and_never_share_one(path, tmp_path, rounds, kills, seed):
    rng = random.Random(seed)
    log = Log(tmp_path / "log")
    tasks = storm(path, rounds, kills, rng, log)
    # The remaining workers finish all tasks.
    with ExitStack() as stack:
        workers = [stack.enter_context(Child(work, path, f"last{number}", rng.random(), log)) for number in range(2)]
        assert [worker.wait() for worker in workers] == [0, 0]
    check_round(path, tasks)
    judge = LogChecker()
    judge.read(log.read())
    with SharedTracker(path) as tracker:
        assert tracker.num_done() == len(tracker) == tasks
        unlogged = Counter({key: tracker.tries(key) for key in tracker})
    unlogged.subtract(judge.yielded)
    # Each try belongs to a yielded task. A worker may be killed before it has logged one.
    assert min(unlogged.values()) >= 0
    killed = rounds * (kills + WORKERS)
    assert sum(unlogged.values()) <= killed, (seed, unlogged)


# One writer, whose every operation is known

ROUNDS = 15  # of each class
UNDONE = {"_done": False, "_aborted": False, "_tries": 0}


class SharedPlayer(Player):
    """Apply changes in place through ``.set``."""

    def do(self, operation, key, value):
        if operation == "loop" and self.loop is not None:
            # The garbage collector would do so at the end of the block.
            self.loop.close()
        if operation != "append":
            super().do(operation, key, value)
        elif "list" in self.store[key]:
            self.store.set[key]["list"].append(value)
        else:
            self.store.set[key]["list"] = [value]


def play(cls, seed, largest, model, store=None):
    """Apply operations derived from a seed to a model, and to a store. Each yield is one commit.

    ``largest`` is the maximum number of operations in one block.
    """
    make = tracker_operations if cls is SharedTracker else pod_operations
    steps, rng = make(random.Random(seed), model), random.Random(seed)
    player = SharedPlayer(store)
    while True:
        size = rng.choice((1, 1, 1, min(2, largest), largest))
        with store.locked() if store is not None and size > 1 else nullcontext():
            for _ in range(size):
                step = next(steps)
                if store is not None:
                    player.do(*step)
                change_model(model, *step)
        yield


def live(pipe, cls, path, seed, largest, options, progress):
    """The operations of the writer until it is killed."""
    # The map is so small that it grows, for stores in which no block can be too large for it.
    engine.MAP_SIZE = 1 << 18 if largest == 1 else 1 << 24
    store = cls(path, **options)
    model = dict(store.items())
    del model["0"]
    for count, _ in enumerate(play(cls, seed, largest, model, store), 1):
        progress.count = count


@pytest.mark.parametrize("cls", [SharedPOD, SharedTracker])
@pytest.mark.parametrize(
    "rounds", [ROUNDS, pytest.param(1000, marks=[pytest.mark.storm, pytest.mark.timeout(3600)])]
)
def test_kill_keeps_each_commit_completely_or_not_at_all(path, cls, rounds, seed):
    """Another process that writes at the same time is not delayed."""
    rng = random.Random(seed)
    state = {}
    endings = Counter()
    with cls(path) as store:
        store["0"] = {"beats": 0, "_done": True}
    for number in range(rounds):
        options = {"sync_at": rng.choice((1, 3, 1000)), "durability": rng.choice(tuple(engine.DURABILITY))}
        largest = rng.choice((1, 20))
        where = f"seed {seed}, round {number}, {options}, blocks of {largest}"
        progress, round_seed = Progress(), rng.random()
        with Child(write_on_request, cls, path, options["durability"]) as neighbour:
            with Child(live, cls, path, round_seed, largest, options, progress) as child:
                wanted = rng.randrange(100)
                while progress.count < wanted and not child.pipe.poll():
                    neighbour.pipe.send(True)
                    assert neighbour.pipe.recv(), where
                some_time(rng)
                child.kill()
                assert child.wait() == -signal.SIGKILL, where
            neighbour.pipe.send(True)
            assert neighbour.pipe.recv(), where
            neighbour.pipe.send(None)
            assert neighbour.wait() == 0, where
        found = dict(check(path, cls))
        del found["0"]
        units = play(cls, round_seed, largest, state)
        for _ in range(progress.count):
            next(units)
        # One more operation may have been committed and not counted.
        is_further = list(state.items()) != list(found.items())
        if is_further:
            next(units)
        assert list(state.items()) == list(found.items()), where
        endings[is_further] += 1
        with cls(path) as store:
            store["0"] = {"beats": 0, "_done": True}
    assert endings[False], endings


KILLS_ITSELF = {
    "locked": lambda store: in_scope(store.locked(), store),
    "transaction": lambda store: in_scope(store.transaction(), store),
    "transaction in a block": lambda store: in_two_scopes(store),
    "a method's callback": lambda store: store.set["list"].sort(key=lambda item: os.kill(os.getpid(), signal.SIGKILL)),
    "lock": lambda store: (store.lock(), in_scope(nullcontext(), store)),
}


def in_scope(scope, store):
    with scope:
        store["a"] = 2
        store.update(dict.fromkeys(range(1000), "x" * 1000))
        # The value is so large that it is written before the commit.
        assert len(store) > 1000
        del store["list"]
        os.kill(os.getpid(), signal.SIGKILL)


def in_two_scopes(store):
    with store.locked():
        store["b"] = 1
        in_scope(store.transaction(), store)


@pytest.mark.parametrize("name", KILLS_ITSELF)
def test_unfinished_block_of_a_killed_process_is_invisible(path, name):
    def die(pipe):
        KILLS_ITSELF[name](SharedPOD(path))

    with SharedPOD(path, init={"a": 1, "list": [2, 1]}) as pod:
        for _ in range(5):
            with Child(die) as child:
                assert child.wait() == -signal.SIGKILL
            assert pod.items() == [("a", 1), ("list", [2, 1])]
            pod.set["a"] += 0
        pod._check()
    assert check(path, SharedPOD) == [("a", 1), ("list", [2, 1])]


# The parent of the workers

PARENT = """
import os, sys
from tastypy_fast import SharedTracker
os.setsid()
tracker = SharedTracker(sys.argv[1])
batch = int(sys.argv[3])
for _ in range(3):
    if not os.fork():
        break
else:
    print("ready", flush=True)
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for key in tracker.try_keys(batch=batch):
    os.write(log, f"{key}\\n".encode())
    tracker.set[key]["result"] = key
    tracker.mark_done(key)
os._exit(0)
"""


@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("whom", [os.kill, os.killpg], ids=["the parent", "all of them"])
def test_killed_parent_loses_nothing(path, tmp_path, whom, batch, seed):
    rng = random.Random(seed)
    kills = 0
    with SharedTracker(path, init=[(number, {}) for number in range(1500)]) as tracker:
        while tracker.num_done() < len(tracker):
            wanted = tracker.num_done() + 100
            with started(PARENT, path, tmp_path / "log", batch) as parent:
                try:
                    assert next_line(parent) == "ready"
                    while tracker.num_done() < min(wanted, len(tracker)):
                        pass
                    some_time(rng)
                    whom(parent.pid, signal.SIGKILL)
                    kills += 1 if whom is os.kill else 4
                    # The test waits until the last of them has ended.
                    assert parent.stdout.read() == ""
                finally:
                    with suppress(ProcessLookupError):
                        os.killpg(parent.pid, signal.SIGKILL)
            tracker._check()
            assert tracker.claims() == {}
        assert all(task == {**UNDONE, "_done": True, "_tries": task["_tries"], "result": key}
                   for key, task in tracker.iteritems())
        logged = Counter(map(int, (tmp_path / "log").read_text().split()))
        unlogged = Counter({key: tracker.tries(key) for key in tracker})
        unlogged.subtract(logged)
        assert min(unlogged.values()) >= 0
        assert sum(unlogged.values()) <= kills, seed
    check(path, SharedTracker)
