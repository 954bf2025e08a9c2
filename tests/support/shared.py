"""Blocks, threads and places for the tests of the shared classes."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from tests.support.stores import is_tracker

FRESH = {"_done": False, "_aborted": False, "_tries": 0}
ABC = {"a": 1, "b": 2, "c": 3}


class Boom(Exception):
    """The exception that the tests raise."""


def run_concurrently(*works):
    """Run each function in a thread, at the same time, and return the results."""
    with ThreadPoolExecutor(len(works)) as executor:
        return [future.result(60) for future in [executor.submit(work) for work in works]]


def place_of(kit, store, key):
    """The place of the plain value of a key below ``.set``."""
    return store.set[key]["value"] if is_tracker(kit.cls) else store.set[key]


def listed(kit, store):
    """The plain values by key, as a list, so that the order is compared."""
    return list(kit.contents(store).items())


BLOCKS = ["alone", "locked", "transaction", "lock"]


@contextlib.contextmanager
def block_of(store, kind):
    """A block of one kind; ``alone`` means no block."""
    if kind == "lock":
        store.lock()
        try:
            yield
        finally:
            store.unlock()
    else:
        with contextlib.nullcontext() if kind == "alone" else getattr(store, kind)():
            yield


def later(values):
    """An iterator that yields some values and then raises."""
    yield from values
    raise Boom


KINDS = ["locked", "transaction", "lock"]

THREADS = 4
