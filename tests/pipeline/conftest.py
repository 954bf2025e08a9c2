"""Fixtures for the tests of ``tracker.run()``."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tastypy_fast import SharedProgressTracker
from tests.support.storm import is_storm

KINDS = ["processes", "threads", "async", "inline"]


def pytest_collection_modifyitems(config, items):
    """Leave threads and coroutines on a shared tracker to the storm, because they are handled as inline tasks are."""
    if not is_storm(config):
        dropped = [item for item in items if "tests/pipeline/test_run.py" in item.nodeid
                   and ("[shared_tracker-threads" in item.nodeid or "[shared_tracker-async" in item.nodeid)]
        if dropped:
            left_out = set(dropped)
            items[:] = [item for item in items if item not in left_out]
            config.hook.pytest_deselected(items=dropped)


@pytest.fixture
def opened(opened):
    """Trackers that the test has opened. A run leaves no claim in them."""
    yield opened
    for store in opened:
        if isinstance(store, SharedProgressTracker) and not store.closed:
            assert store.claimed_keys() == []


@pytest.fixture(params=KINDS)
def run(request):
    """Call ``tracker.run()`` with each executor. The function may be a closure."""

    def run(tracker, function, **options):
        if request.param == "processes":
            options = {"start_method": "fork", "workers": 2, **options}
        elif request.param == "threads":
            options = {"workers": 2, **options}
        elif request.param == "async":
            plain = function

            async def function(*arguments):
                return plain(*arguments)

        return tracker.run(function, executor=request.param, **{"backoff": 0, **options})

    run.kind = request.param
    return run


class CallLog:
    """Count calls in any process: each appends a line to a file."""

    def __init__(self, path):
        self._path = path

    def note(self, key):
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{key}\n".encode())
        os.close(file)

    def counts(self):
        return Counter(self._path.read_text().splitlines()) if self._path.exists() else Counter()


@pytest.fixture
def calls(tmp_path):
    return CallLog(tmp_path / "calls")
