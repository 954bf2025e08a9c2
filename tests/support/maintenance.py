"""Stores to copy, compact, damage and repair."""

from __future__ import annotations

import os
import struct

from tastypy_fast import (
    POD,
    SharedPOD,
    SharedTracker,
    Tracker,
)
from tests.support.damage import PAGE, content

HOSTILE = ["", "tab\tand\nline", "\udc80", 0, -1, 2**70, -(2**70), (), ("a", (1, ("",))), "\0", "x" * 5000,
           ("y" * 600,)]

PRIVATE = {SharedPOD: POD, SharedTracker: Tracker}


def fill(store):
    for key, value in content():
        store[key] = value
    for number, key in enumerate(HOSTILE):
        store[key] = {"hostile": number}
    if isinstance(store, (Tracker, SharedTracker)):
        for number in range(0, 399, 3):
            store.mark_done(f"key {number}")
            store.increment_tries(f"key {number + 1}")
        store.abort("key 2")
    # The keys that were deleted before leave gaps in the sequence numbers, also at the end.
    store["deleted"] = {"x": 1}
    del store["deleted"]


def state(store):
    """All data of a store, in order."""
    if isinstance(store, (Tracker, SharedTracker)):
        return [(key, plain(value), store.done(key), store.aborted(key), store.tries(key))
                for key, value in store.items()]
    return [(key, value) for key, value in store.items()]


def plain(value):
    return {name: part for name, part in value.items() if name not in ("_done", "_aborted", "_tries")}


def state_of(cls, path):
    with cls(path) as store:
        store._check()
        return state(store)


# The ordinary run has one of these for each part of the code that differs.
ORDINARY = ("pod", "shared_tracker")


def files(path):
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.is_file() and entry.name != "lock.mdb"}


def nothing_left(target):
    return not target.parent.exists() or not list(target.parent.iterdir())


def leave_a_log(pipe, path):
    store = POD(path)
    fill(store)
    store.sync()
    assert store._store.wal
    pipe.send(state(store))
    pipe.recv()


def pages_of(path):
    return os.stat(path / "data.mdb").st_size // PAGE


def overwrite(path, number, make):
    with open(path / "data.mdb", "r+b") as file:
        file.seek(number * PAGE)
        page = bytearray(file.read(PAGE))
        file.seek(number * PAGE)
        file.write(make(page))


def page_that(path, wanted):
    """The number of the first page for which ``wanted(flags, content)`` holds."""
    data = (path / "data.mdb").read_bytes()
    for number in range(2, len(data) // PAGE):
        page = data[number * PAGE : (number + 1) * PAGE]
        own, _, flags = struct.unpack_from("=QHH", page)
        if own == number and wanted(flags, page):
            yield number
