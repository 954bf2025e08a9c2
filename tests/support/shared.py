"""Blocks, threads and places for the tests of the shared classes."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from tests.support.stores import is_tracker

FRESH = {"_done": False, "_aborted": False, "_tries": 0}
ABC = {"a": 1, "b": 2, "c": 3}


class Boom(Exception):
    """What the tests raise themselves."""


def together(*works):
    """Each in a thread of its own, at the same time; what they return."""
    with ThreadPoolExecutor(len(works)) as executor:
        return [future.result(60) for future in [executor.submit(work) for work in works]]


def place_of(kit, store, key):
    """Where the plain value of a key lies below ``.set``."""
    return store.set[key]["value"] if is_tracker(kit.cls) else store.set[key]


def listed(kit, store):
    """The plain values by key, as a list, so that the order counts."""
    return list(kit.contents(store).items())


BLOCKS = ["alone", "locked", "transaction", "lock"]


@contextlib.contextmanager
def block_of(store, kind):
    """A block of one of the kinds; ``alone`` is none."""
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
    """An iterator that has given some values when it raises."""
    yield from values
    raise Boom


KINDS = ["locked", "transaction", "lock"]

THREADS = 4
