"""Single operations, which ``benchmarks.instructions`` runs under callgrind: this file is a program.

It imports the tastypy_fast that PYTHONPATH names, of any commit, and nothing else of this package. Each operation is a
function that gets an open store and returns the function to count, which does the operation for ``COUNT`` keys. No
store syncs by itself meanwhile. An operation looks its methods up before it returns, so that it is left out where the
store lacks one.

Usage: ``python benchmarks/single_operations.py LIBRARY [NAME ...]``, in an empty folder. LIBRARY is compiled from
``callgrind_requests.c``. Prints the names of what was left out.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable
from ctypes import CDLL
from itertools import islice
from typing import Any, NamedTuple

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker

__all__ = ["COUNT", "OPERATIONS", "Operation", "main", "prepared"]

KEYS = 4000
COUNT = 400

Work = Callable[[], Any]


CLASSES: dict[str, Any] = {"POD": POD, "Tracker": Tracker, "SharedPOD": SharedPOD, "SharedTracker": SharedTracker}


class Operation(NamedTuple):
    """An operation of the stores of a class. ``prepare`` returns the function to count."""

    cls: Any
    prepare: Callable[[Any], Work]


OPERATIONS: dict[str, Operation] = {}


def operation(cls: str, name: str) -> Callable[[Callable[[Any], Work]], Callable[[Any], Work]]:
    """Add a function to ``OPERATIONS``."""

    def added(prepare: Callable[[Any], Work]) -> Callable[[Any], Work]:
        OPERATIONS[f"{cls}: {name}"] = Operation(CLASSES[cls], prepare)
        return prepare

    return added


def key_of(number: int) -> str:
    return f"https://www.example.com/articles/{number:09d}.html"


def value_of(number: int) -> dict[str, Any]:
    return {"status": 200, "size": number % 90_000, "title": f"The article number {number:07d}", "links": [1, 2]}


# Existing keys in mixed order, new keys, and as many values.
SOME = [key_of(number * 1237 % KEYS) for number in range(COUNT)]
NEW = [key_of(KEYS + number) for number in range(COUNT)]
VALUES = [value_of(number) for number in range(COUNT)]


def assign(store: Any, keys: list[str]) -> None:
    for key, value in zip(keys, VALUES, strict=True):
        store[key] = value


def exhaust(iterator: Any) -> None:
    deque(islice(iterator, COUNT), maxlen=0)


def for_each(method: Callable[[str], Any], keys: list[str]) -> Work:
    def work() -> None:
        for key in keys:
            method(key)

    return work


# One process


@operation("POD", "assign a new key")
def assign_new(store: Any) -> Work:
    return lambda: assign(store, NEW)


@operation("POD", "assign to an existing key")
def assign_existing(store: Any) -> Work:
    return lambda: assign(store, SOME)


@operation("POD", "add by update()")
def update(store: Any) -> Work:
    add = store.update
    return lambda: add(zip(NEW, VALUES, strict=True))


@operation("POD", "read by key")
def read(store: Any) -> Work:
    return for_each(store.__getitem__, SOME)


@operation("POD", "read by key again")
def read_again(store: Any) -> Work:
    kept = [store[key] for key in SOME]
    return lambda: [store[key] for key in SOME] == kept


@operation("POD", "read by get_many()")
def read_many(store: Any) -> Work:
    get_many = store.get_many
    return lambda: exhaust(get_many(SOME))


@operation("POD", "get() of a missing key")
def get_missing(store: Any) -> Work:
    return for_each(store.get, NEW)


@operation("POD", "key in store")
def contains(store: Any) -> Work:
    return for_each(store.__contains__, SOME)


@operation("POD", "set[key][field] = value")
def set_field(store: Any) -> Work:
    def work() -> None:
        changed = store.set
        for key in SOME:
            changed[key]["status"] = 201

    return work


@operation("POD", "next key of a loop")
def next_key(store: Any) -> Work:
    return lambda: exhaust(iter(store))


@operation("POD", "next item of a loop")
def next_item(store: Any) -> Work:
    iteritems = store.iteritems
    return lambda: exhaust(iteritems())


@operation("POD", "append to a value of a loop")
def append_in_loop(store: Any) -> Work:
    iteritems, mark_dirty = store.iteritems, store.mark_dirty

    def work() -> None:
        for key, value in islice(iteritems(), COUNT):
            value["links"].append(3)
            mark_dirty(key)

    return work


@operation("POD", "delete")
def delete(store: Any) -> Work:
    return for_each(store.__delitem__, SOME)


@operation("POD", "sync of a new key")
def sync_new(store: Any) -> Work:
    assign(store, NEW)
    return store.sync


@operation("POD", "sync of an existing key")
def sync_existing(store: Any) -> Work:
    assign(store, SOME)
    return store.sync


@operation("Tracker", "add()")
def add(store: Any) -> Work:
    return for_each(store.add, NEW)


@operation("Tracker", "add_many()")
def add_many(store: Any) -> Work:
    method = store.add_many
    return lambda: method(NEW)


@operation("Tracker", "mark_done()")
def mark_done(store: Any) -> Work:
    return for_each(store.mark_done, SOME)


@operation("Tracker", "increment_tries()")
def increment_tries(store: Any) -> Work:
    return for_each(store.increment_tries, SOME)


@operation("Tracker", "status of a task")
def status(store: Any) -> Work:
    return for_each(store.done, SOME)


@operation("Tracker", "next task of a loop")
def next_task(store: Any) -> Work:
    try_keys = store.try_keys
    return lambda: exhaust(try_keys())


@operation("Tracker", "sync of a done task")
def sync_done(store: Any) -> Work:
    for key in SOME:
        store.mark_done(key)
    return store.sync


# Shared stores: each operation is a commit


@operation("SharedPOD", "assign a new key")
def shared_assign_new(store: Any) -> Work:
    return assign_new(store)


@operation("SharedPOD", "assign to an existing key")
def shared_assign_existing(store: Any) -> Work:
    return assign_existing(store)


@operation("SharedPOD", "read by key")
def shared_read(store: Any) -> Work:
    return read(store)


@operation("SharedPOD", "+= in a block")
def shared_increment(store: Any) -> Work:
    store["number"] = 0

    def work() -> None:
        for _ in range(COUNT):
            with store.locked():
                store.set["number"] += 1

    return work


@operation("SharedTracker", "claim, done")
def claim_and_done(store: Any) -> Work:
    try_keys, mark_done = store.try_keys, store.mark_done

    def work() -> None:
        for key in islice(try_keys(), COUNT):
            mark_done(key)

    return work


@operation("SharedTracker", "claim, done, batches of 100")
def claim_and_done_many(store: Any) -> Work:
    try_keys, mark_done_many = store.try_keys, store.mark_done_many

    def work() -> None:
        tasks = try_keys(batch=100)
        for _ in range(COUNT // 100):
            mark_done_many(list(islice(tasks, 100)))

    return work


# The program


def prepared(name: str, path: str) -> tuple[Any, Work]:
    """Return an open store with all keys on disk and none in memory, and the function to count."""
    cls, prepare = OPERATIONS[name]
    with cls(path) as store:
        if hasattr(store, "add_many"):
            store.add_many(key_of(number) for number in range(KEYS))
        else:
            store.update((key_of(number), value_of(number)) for number in range(KEYS))
    store = cls(path)
    try:
        store.hold()
        return store, prepare(store)
    except BaseException:
        store.close()
        raise


def main(library: str, *names: str) -> None:
    """Count each operation, or these."""
    requests = CDLL(library)
    # Without the background thread, because it would sync or flush at another point in each run.
    threading.Thread.start = lambda self: None  # type: ignore[method-assign]
    for name in names or OPERATIONS:
        try:
            store, work = prepared(name, "store")
        except AttributeError:
            print(name)
            continue
        # What exists is not collected again, so that the time of a collection depends on the operation only.
        gc.collect()
        gc.freeze()
        requests.start_counting()
        work()
        requests.save_count(name.encode())
        store.close()
        shutil.rmtree("store")
    sys.stdout.flush()
    # The end of the interpreter would wait for the thread.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
