"""Fixtures for the tests of copying, compacting, verifying and repairing."""

from __future__ import annotations

import shutil

import pytest

from tests.support.children import Child
from tests.support.maintenance import ORDINARY, PRIVATE, fill, leave_a_log, state_of
from tests.support.stores import CLASSES, logging


@pytest.fixture(params=[
    pytest.param(cls, id=name, marks=() if name in ORDINARY else pytest.mark.storm) for name, cls in CLASSES.items()
])
def cls(request):
    return request.param


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A folder with an undamaged store of each class, and the contents of each."""
    folder = tmp_path_factory.mktemp("sound")
    found = {}
    for one in CLASSES.values():
        # At this level pages are reused at once. Flush points keep many old ones, whose free list is a tree of its own.
        with one(folder / one.__name__, durability="normal") as store:
            fill(store)
        found[one] = folder / one.__name__, state_of(PRIVATE.get(one, one), folder / one.__name__)
    return found


@pytest.fixture
def victim(stores, cls, path):
    shutil.copytree(stores[cls][0], path)
    return path


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "target"


@pytest.fixture
def logged(path):
    """The store of a killed process, with many changes in its log."""
    with logging(10**6), Child(leave_a_log, path) as child:
        expected = child.pipe.recv()
        child.kill()
        child.wait()
    return expected
