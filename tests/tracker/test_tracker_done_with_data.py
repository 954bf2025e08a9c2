"""``mark_done(key, data)``: the data and the mark are one operation."""

from __future__ import annotations

import threading

import pytest

from tastypy_fast import ProgressTracker, SharedTracker, UnstorableValueError
from tests.support.claims import Worker, call
from tests.support.tasks import reopened


@pytest.fixture
def tracker(make):
    return make(init={"a": {"old": 1, "kept": [2]}, "b": {}})


@pytest.mark.parametrize("where", ["memory", "disk", "read"])
def test_data_is_mixed_into_the_task_and_the_task_is_done(tracker, make, where):
    if where == "disk":
        tracker.sync()
    held = tracker["a"] if where == "read" else None
    data = {"old": 3, "new": {"x": None}}
    tracker.mark_done("a", data)
    if where != "read":  # where the caller holds the dict, update() puts the values themselves into it
        data["new"]["x"] = "later"
    expected = {"_done": True, "_aborted": False, "_tries": 0, "old": 3, "kept": [2], "new": {"x": None}}
    assert (tracker["a"], tracker.num_done()) == (expected, 1)
    if held is not None and isinstance(tracker, ProgressTracker):
        assert held == expected
    again = reopened(tracker, make)
    assert (again["a"], again.done("a"), again.num_done()) == (expected, True, 1)


def test_empty_data_only_marks_the_task(tracker):
    tracker.mark_done("a", {})
    assert tracker["a"] == {"_done": True, "_aborted": False, "_tries": 0, "old": 1, "kept": [2]}


def test_the_mark_comes_after_the_data(tracker):
    tracker.mark_done("a", {"_done": False, "_tries": 4, "_aborted": True})
    assert (tracker.done("a"), tracker.tries("a"), tracker.aborted("a")) == (True, 4, True)


@pytest.mark.parametrize(("data", "error"), [
    ([1], TypeError), ("text", TypeError), (0, TypeError), ([("x", 1)], TypeError),
    ({"x": object()}, UnstorableValueError), ({"x": {1, 2}}, UnstorableValueError),
    ({"_tries": "1"}, UnstorableValueError),    ({1: object()}, UnstorableValueError),
])
@pytest.mark.parametrize("read", [False, True])
def test_what_cannot_be_stored_changes_nothing(tracker, data, error, read):
    held = tracker["a"] if read else None
    before = tracker.items()
    with pytest.raises(error):
        tracker.mark_done("a", data)
    assert (tracker.items(), tracker.num_done()) == (before, 0)
    del held
    tracker._check()


def test_missing_task_is_not_added(tracker):
    for data in None, {}, {"x": 1}:
        with pytest.raises(KeyError, match="'missing'"):
            tracker.mark_done("missing", data)
    assert tracker.keys() == ["a", "b"]


def test_loop_can_finish_its_tasks_with_data(tracker):
    for number, key in enumerate(tracker.try_keys()):
        tracker.mark_done(key, {"number": number})
    assert [(task["_tries"], task["number"]) for task in tracker.values()] == [(1, 0), (1, 1)]
    assert list(tracker.try_keys()) == []
    tracker._check()


def test_a_claim_ends_with_the_mark_and_others_see_both_or_neither(path):
    with SharedTracker(path, init={"a": {}, "b": {}}) as tracker, Worker(path) as worker:
        loop = tracker.try_keys()
        assert next(loop) == "a"
        with tracker.transaction():
            tracker.mark_done("a", {"x": 1})
            assert worker.ask(call, "done", "a") is False
        assert worker.ask(call, "done", "a") is True
        assert tracker.claims() == {}
        loop.close()
        worker.end("close")


def test_threads_see_the_data_with_the_mark(tracker):
    seen = []

    def look():
        while not seen or not seen[-1][0]:
            task = tracker["b"]
            seen.append((task["_done"], task.get("x")))

    thread = threading.Thread(target=look)
    thread.start()
    tracker.mark_done("b", {"x": 1})
    thread.join()
    assert set(seen) <= {(False, None), (True, 1)}
