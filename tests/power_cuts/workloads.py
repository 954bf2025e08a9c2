"""Programs that use a store through the public API, and mark what they do (see ``history``).

python -m tests.power_cuts.workloads PATH [create/ | compact/]NAME LEVEL SEED

``create/`` makes an empty folder first and does little, ``compact/`` compacts the store at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random
from typing import Any

from tastypy_fast import POD, SharedTracker, Tracker, maintenance
from tastypy_fast._shared.store import SharedStore
from tastypy_fast._store.store import Store
from tests.power_cuts.history import POOL, digest, item_digest
from tests.power_cuts.recorder import mark

__all__ = ["WORKLOADS", "kind_of"]

WORKLOADS = ("pod", "pod-wal", "tracker", "shared-one", "shared-two", "shared-killed")

# Automatic syncs come by the number of changes only, so that a recording of one process is the same each time.
BY_COUNT: dict[str, Any] = {"sync_every": None}


def private(path: str, level: str, rng: Random, cls: Any, do: Any, operations: int, sync_at: int) -> None:
    """Do random operations on a private store."""
    store = cls(path, sync_at=sync_at, durability=level, **BY_COUNT)
    mark("start")
    # Key -> its digest, in the order of the store.
    model: dict[str, bytes] = {}
    values: dict[str, Any] = {}
    for number in range(operations):
        key, value, work = do(store, values, number, rng)
        if value is None:
            values.pop(key, None)
            model.pop(key, None)
        else:
            values[key] = value
            model[key] = item_digest(key, value)
        transaction = store._store.db.info()["last_txnid"]
        mark("begin", 0, number, digest(model.values()))
        work()
        mark("done", 0, number)
        if rng.random() < 0.02:
            mark("syncbegin", 0)
            store.sync()
            mark("syncend", 0)
        elif store._store.db.info()["last_txnid"] != transaction:
            # A sync that comes before a value is handed out leaves the operation itself dirty.
            mark("auto", 0, number - 1 if store.dirty() else number)
    mark("syncbegin", 0)
    store.sync()
    mark("syncend", 0)
    assert digest(item_digest(key, value) for key, value in store.items()) == digest(model.values())
    store.close()


def change_pod(pod: POD, values: dict[str, Any], number: int, rng: Random, keys: int) -> tuple[str, Any, Any]:
    """Choose an operation: the key, its value after it, and a function that does it."""
    chance, key = rng.random(), f"key{rng.randrange(keys)}"
    if chance < 0.75 or key not in values:
        value = [number, "v" * (rng.randrange(200) if chance < 0.7 else rng.randrange(4_000, 20_000))]
        return key, value, lambda: pod.__setitem__(key, value)
    if chance < 0.95:
        return key, None, lambda: pod.__delitem__(key)
    return key, [*values[key], number], lambda: pod[key].append(number)


def change_tracker(tracker: Tracker, values: dict[str, Any], number: int, rng: Random) -> tuple[str, Any, Any]:
    """Choose an operation, as ``change_pod()``."""
    chance = rng.random()
    if chance < 0.4 or not values:
        key = f"task{number}"
        return key, {"_done": False, "_aborted": False, "_tries": 0}, lambda: tracker.add(key)
    key = rng.choice(list(values))
    value = values[key]
    if chance < 0.55:
        return key, {**value, "_done": True}, lambda: tracker.mark_done(key)
    if chance < 0.65:
        return key, {**value, "_tries": value["_tries"] + 1}, lambda: tracker.increment_tries(key)
    if chance < 0.8:
        data = [number, "x" * rng.choice((3, 30, 300, 6_000))]
        return key, {**value, "v": data}, lambda: tracker[key].__setitem__("v", data)
    if chance < 0.9:
        return key, None, lambda: tracker.__delitem__(key)
    return key, {**value, "_done": False}, lambda: tracker.mark_not_done(key)


def pod(path: str, level: str, rng: Random) -> None:
    private(path, level, rng, POD, lambda *given: change_pod(*given, keys=200), 400, 20)


def pod_wal(path: str, level: str, rng: Random) -> None:
    """Every sync goes into the write-ahead log, and a checkpoint comes now and then."""
    Store.wal_min_places = 0
    Store.checkpoint_at = 250
    private(path, level, rng, POD, lambda *given: change_pod(*given, keys=400), 800, 40)


def tracker(path: str, level: str, rng: Random) -> None:
    private(path, level, rng, Tracker, change_tracker, 400, 20)


# Set in the processes of a workload whose name ends like this: no slot protects the flush point.
UNPINNED = "-unpinned"
UNPINNED_VARIABLE = "POWERCUT_UNPINNED"


def remove_the_slot() -> None:
    """Sabotage the flush points: LMDB may reuse the pages of the last one. The notes are kept as usual."""
    attach = SharedStore._attach_databases

    def attach_without_slot(store: SharedStore) -> None:
        attach(store)
        store.transaction.attach_flush_points(None, store._points.notes)
        store._points.slot.clear()

    SharedStore._attach_databases = attach_without_slot  # type: ignore[method-assign]


def open_shared(path: str, level: str) -> SharedTracker:
    return SharedTracker(path, max_tries=3, sync_at=30, durability=level)


def shared(path: str, level: str, workers: int, seed: int, kill_at: int | None = None) -> None:
    """Create a store with a pool of tasks, and let workers change their own tasks and compete for those.

    With ``kill_at``, the second worker dies in its write with that number, which is in a commit.
    """
    store = open_shared(path, level)
    store.add_many(range(POOL))
    store.sync()
    mark("start")
    children = []
    for worker in range(workers):
        environment = dict(os.environ)
        if worker == 1 and kill_at is not None:
            environment["POWERCUT_FAIL"] = f"write:{kill_at}:kill"
        children.append(subprocess.Popen(
            [sys.executable, "-m", __spec__.name, path, "worker", level, str(seed), str(worker)], env=environment
        ))
    statuses = [child.wait() for child in children]
    expected = [0, 0 if kill_at is None else -9][:workers]
    assert statuses == expected, statuses
    store.close()


def work(path: str, level: str, seed: int, worker: int) -> None:
    """Be one worker on a shared store."""
    rng = Random(f"{seed} {worker}")
    tracker = open_shared(path, level)
    model: dict[str, bytes] = {}
    values: dict[str, dict[str, Any]] = {}
    trying = iter(tracker.try_keys(batch=3))
    for number in range(150):
        chance, key = rng.random(), rng.choice(list(values)) if values else None
        if chance < 0.3 or key is None:
            what, key = "add", f"{worker}/{number}"
            # Done, so that no worker tries it.
            values[key] = {"_done": True, "_aborted": False, "_tries": 0}
        elif chance < 0.65:
            what, data = "set", [number, "x" * rng.choice((3, 30, 30, 300, 6_000))]
            values[key] = {**values[key], "v": data}
        elif chance < 0.75:
            what = "delete"
            del values[key], model[key]
        else:
            what = "try"
        if key in values:
            model[key] = item_digest(key, values[key])
        mark("begin", worker, number, digest(model.values()))
        if what == "add":
            with tracker.locked():
                tracker.add(key)
                tracker.mark_done(key)
        elif what == "set":
            tracker.set[key]["v"] = data
        elif what == "delete":
            del tracker[key]
        else:
            task = next(trying, None)
            if task is not None:
                tracker.set[task]["r"] = task * 2
                tracker.mark_done(task)
                mark("pooldone", task)
        mark("done", worker, number)
        if rng.random() < 0.02:
            mark("syncbegin", worker)
            tracker.sync()
            mark("syncend", worker)
    mark("syncbegin", worker)
    tracker.sync()
    mark("syncend", worker)
    tracker.close()


def run(path: str, name: str, level: str, seed: int) -> None:
    if name.startswith("shared"):
        kill_at = 200 + seed % 200 if name == "shared-killed" else None
        shared(path, level, 1 if name.startswith("shared-one") else 2, seed, kill_at)
    else:
        {"pod": pod, "pod-wal": pod_wal, "tracker": tracker}[name](path, level, Random(seed))


def create(path: str, kind: str, level: str) -> None:
    """Create a store, in a folder that exists, add some keys, and sync."""
    cls = {"pod": POD, "tracker": Tracker, "shared": SharedTracker}[kind]
    os.mkdir(path)
    store = cls(path, durability=level)
    model: list[bytes] = []
    pool = range(POOL if kind == "shared" else 0)
    if pool:
        store.add_many(pool)
    for number in range(3):
        key, value = f"0/{number}", {"_done": False, "_aborted": False, "_tries": 0} if kind != "pod" else number
        model.append(item_digest(key, value))
        mark("begin", 0, number, digest(model))
        if kind == "pod":
            store[key] = value
        else:
            store.add(key)
        mark("done", 0, number)
        mark("syncbegin", 0)
        store.sync()
        mark("syncend", 0)
        if number == 0:
            mark("start")
    store.close()


def kind_of(workload: str) -> str:
    """Return the kind of store of a workload: "pod", "tracker" or "shared" (a tracker)."""
    return workload.rpartition("/")[2].partition("-")[0]


def main() -> None:
    path, workload, level, seed, *worker = sys.argv[1:]
    if workload.endswith(UNPINNED):
        os.environ[UNPINNED_VARIABLE] = "1"
    if UNPINNED_VARIABLE in os.environ:
        remove_the_slot()
    before, _, name = workload.rpartition("/")
    if worker:
        work(path, level, int(seed), int(worker[0]))
    elif before == "create":
        create(path, name, level)
    else:
        run(path, name, level, int(seed))
        if before == "compact":
            mark("compact")
            maintenance.compact(path)
            mark("compacted")


if __name__ == "__main__":
    main()
