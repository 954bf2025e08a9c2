"""Fixtures for the tests of the shared classes."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tastypy_fast import (
    SharedPOD,
    SharedTracker,
)
from tests.support.shared import ABC
from tests.support.stores import kit_for


@pytest.fixture
def tracker(path):
    """An open tracker, which is checked at the end of the test."""
    with SharedTracker(path) as tracker:
        yield tracker
        if not tracker.closed:
            tracker._check()


@pytest.fixture(params=[SharedPOD, SharedTracker], ids=["pod", "tracker"])
def shared_class(request):
    return request.param


@pytest.fixture
def kit(shared_class, tmp_path):
    yield from kit_for(shared_class, tmp_path)


@pytest.fixture
def abc(kit):
    """A store of ABC, synced."""
    store = kit.open(init=kit.pairs(ABC))
    store.sync()
    return store


@pytest.fixture
def in_other_thread():
    """Call a function in another thread, always the same one, and return the result."""
    with ThreadPoolExecutor(1) as executor:
        yield lambda work, *arguments: executor.submit(work, *arguments).result(30)


@pytest.fixture
def switching_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
