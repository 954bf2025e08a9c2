"""Helpers for the tests with many processes on one shared store."""

from __future__ import annotations

from contextlib import contextmanager

from lmdb.verify import verify

from tastypy_fast import (
    SharedPOD,
)


def contents(path, cls=SharedPOD):
    """The contents that a later run of the program reads. Checks every invariant."""
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
