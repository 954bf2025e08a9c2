"""Kinds and options of a store: conflicts are refused."""

from __future__ import annotations

import os
import random

import pytest

from tastypy_fast import (
    POD,
    SharedPOD,
    StoreConflictError,
    StoreKindError,
    Tracker,
)
from tastypy_fast._lmdb import data_file

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.mark.parametrize("busy", [1, 4, 1000])
def test_store_is_recognised_while_it_is_being_created(path, monkeypatch, busy):
    """A commit frees the page that lists the databases, and a later commit reuses it."""
    newest_meta = data_file.newest_meta
    rng = random.Random(busy)
    left = 0

    def slowly(descriptor):
        nonlocal left
        meta = newest_meta(descriptor)
        if left > 0:
            left -= 1
            for _ in range(rng.randrange(1, 8)):
                store[rng.randrange(1000)] = "x" * rng.randrange(1000)
        return meta

    monkeypatch.setattr(data_file, "newest_meta", slowly)
    with SharedPOD(path) as store:
        store.update(dict.fromkeys(range(1000), "x" * 100))
        for _ in range(30):
            left = busy
            found = data_file.find_databases(os.fspath(path / "data.mdb"))
            assert set(found) == ({b"values", b"order", b"meta", b"log"} if busy < 5 else set())


@pytest.mark.parametrize(("made", "opened"), [(POD, Tracker), (Tracker, POD)])
@pytest.mark.parametrize("mode", ["w", "r"])
def test_store_of_the_other_kind_is_refused_and_not_changed(path, made, opened, mode):
    with made(path, init={"a": {"x": 1}}):
        pass
    before = (path / "data.mdb").read_bytes()
    with pytest.raises(StoreKindError) as raised:
        opened(path, mode=mode)
    assert isinstance(raised.value, TypeError)
    assert (path / "data.mdb").read_bytes() == before
    with made(path) as store:
        assert store["a"]["x"] == 1
        # The same while the store is open in this process.
        with pytest.raises(StoreKindError):
            opened(path, mode=mode)


CONFLICTS = [{"gzipped": True}, {"file_size": 5}, {"mode": "r"}, {"durability": "full"}]


@pytest.mark.parametrize("options", CONFLICTS, ids=lambda options: next(iter(options)))
def test_conflicting_options_are_refused(any_class, path, options):
    with any_class(path, init={"a": {}}) as store:
        for clone in (True, False):
            with pytest.raises(StoreConflictError, match=next(iter(options))) as raised:
                any_class(path, clone=clone, **options)
            assert isinstance(raised.value, ValueError)
        store["b"] = {}
        assert store.keys() == ["a", "b"]
    # At another opening they may differ.
    with any_class(path, **options) as store:
        assert store.keys() == ["a", "b"]


def test_refused_instance_does_not_affect_open_instances(any_class, path):
    with any_class(path) as store:
        for _ in range(3):
            with pytest.raises(StoreConflictError):
                any_class(path, gzipped=True)
        store["a"] = {}
        with pytest.raises(ZeroDivisionError):
            any_class(path, init=((number, {"x": 1 / (2 - number)}) for number in range(5)))
        assert store.keys() == ["a", 0, 1]
        assert not store.closed
    assert store.closed
