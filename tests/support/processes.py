"""Helpers for the tests with many processes on one shared store."""

from __future__ import annotations

from contextlib import contextmanager

from lmdb.verify import verify

from tastypy_fast import (
    SharedPOD,
)


def contents(path, cls=SharedPOD):
    """What a later run of the program finds; every invariant holds."""
    assert not verify(path)
    with cls(path) as store:
        store._check()
        return store.items()


@contextmanager
def explicitly(pod):
    pod.lock()
    try:
        yield
    finally:
        pod.unlock()


BLOCKS = {"locked": SharedPOD.locked, "transaction": SharedPOD.transaction, "lock and unlock": explicitly}
