"""Fixtures for the tests of methods that the classes have in common."""

from __future__ import annotations

import gc

import pytest

from tests.support.progress import Screen


@pytest.fixture
def make(path, tracker_class):
    """Open a tracker. At the end it is checked and closed, and no bar may be left."""
    stores = []

    def make(cls=tracker_class, **options):
        stores.append(cls(path, **options))
        return stores[-1]

    yield make
    for store in stores:
        if not store.closed:
            store._check()
            store.close()
    gc.collect()
    tqdm = pytest.importorskip("tqdm")
    assert not getattr(tqdm.tqdm, "_instances", None)


@pytest.fixture
def screen():
    return Screen()
