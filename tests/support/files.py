"""Make, use and read a store, here and in another process."""

from __future__ import annotations

from tastypy_fast import (
    POD,
    SharedTracker,
    Tracker,
)


def reader_class(cls):
    """The class that reads the stores of ``cls`` with mode="r"."""
    return Tracker if issubclass(cls, (Tracker, SharedTracker)) else POD


def made(cls, path, count=3):
    with cls(path, init={key: {"n": number} for number, key in enumerate("abcdefgh"[:count])}) as store:
        if isinstance(store, SharedTracker):
            assert next(store.try_keys()) == "a"  # so that there is a worker file


def contents(path, cls):
    with reader_class(cls)(path, mode="r") as store:
        return {key: value["n"] for key, value in store.items()}


def use(cls, path):
    with cls(path) as store:
        store["x"] = {"n": 1}
        if isinstance(store, SharedTracker):
            list(store.try_keys())
