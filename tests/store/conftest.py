"""Fixtures for the tests of opening and reading stores."""

from __future__ import annotations

import shutil

import pytest

from tastypy_fast import (
    POD,
    Tracker,
)
from tests.support.damage import content


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with an undamaged store of each class."""
    folder = tmp_path_factory.mktemp("sound")
    for cls in (POD, Tracker):
        with cls(folder / cls.__name__) as store:
            for key, value in content():
                store[key] = value
            if cls is Tracker:
                for number in range(0, 399, 3):
                    store.mark_done(f"key {number}")
                    store.increment_tries(f"key {number + 1}")
                store.abort("key 2")
    return folder


@pytest.fixture
def victim(sound, any_class, path):
    shutil.copytree(sound / any_class.__name__, path)
    return path
