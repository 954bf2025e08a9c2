"""Fixtures for the tests of the command."""

from __future__ import annotations

import pytest

from tastypy_fast import Tracker


@pytest.fixture
def tasks(path):
    """A closed tracker. a and b are done, c failed three times, d is aborted, and e, f and g are left."""
    with Tracker(path, init=[(key, {}) for key in "abcdefg"]) as tracker:
        for key in "ab":
            tracker.increment_tries(key)
            tracker.mark_done(key)
        tracker["c"] = {"_tries": 3, "error": "OSError: gone"}
        tracker.abort("d")
        tracker["e"]["size"] = 7
    return path
