"""Fixtures for the tests of the core."""

from __future__ import annotations

import pytest


@pytest.fixture
def nested(private_kit):
    store = private_kit.open(init=private_kit.pairs({"k": {"l": [1], "d": {"x": [0]}}, "other": [5]}))
    store.sync()
    return store


@pytest.fixture
def data(private_kit, nested):
    """The nested value of a key, watched."""
    return lambda key="k": private_kit.plain(nested[key])


@pytest.fixture
def partly_unstorable(nested, data):
    """A store with three values, of which one has become unstorable."""
    data()["l"].append({1})
    data("other").append(6)
    nested["third"] = nested["other"]
    return nested
