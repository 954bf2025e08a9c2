"""Fixtures for the tests of the tracker."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    ProgressTracker,
    SharedProgressTracker,
)


@pytest.fixture
def opened():
    stores = []
    yield stores
    for store in stores:
        if not store.closed:
            store._check()
            store.close()


@pytest.fixture(params=[ProgressTracker, SharedProgressTracker], ids=["tracker", "shared_tracker"])
def tracker_class(request):
    return request.param


@pytest.fixture
def make(path, opened, tracker_class):
    """Open a tracker; its invariants are checked at the end of the test."""

    def make(**options):
        opened.append(tracker_class(path, **options))
        return opened[-1]

    return make


@pytest.fixture
def tracker(make):
    return make()


@pytest.fixture(params=["in memory", "on disk", "watched"])
def place(request):
    """Bring tasks into each place that may have their status: the cache, only the disk, or a held dict."""
    held = []

    def bring(tracker):
        if request.param != "in memory":
            tracker.sync()
        if request.param == "watched":
            held.extend(tracker[key] for key in tracker)
        return tracker

    return bring
