"""Fixtures for the tests of the tracker."""

from __future__ import annotations

import pytest


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
