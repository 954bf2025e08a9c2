"""A status that a caller sets in a dict counts, whenever the caller drops its reference to the dict."""

from __future__ import annotations

import pytest

from tastypy_fast import UnstorableValueError
from tests.support.tasks import of_one_process, reopened

pytestmark = of_one_process


@pytest.fixture
def tracker(make):
    tracker = make(init={"a": {"x": 1}, "b": {"x": 2}})
    tracker.sync()
    return tracker


# Each of these reads the status from the dict of "a".
READS = {
    "a status": lambda tracker: tracker.done("a"),
    "a count": lambda tracker: tracker.num_done(),
    "a change": lambda tracker: tracker.increment_tries("a"),
    "a loop": lambda tracker: list(tracker.todo_keys()),
    "the next step": lambda tracker: next(tracker.try_keys()),
    "dirty keys": lambda tracker: tracker.dirty(),
    "a sync": lambda tracker: tracker.sync(),
}


@pytest.fixture(params=READS)
def read(request):
    return READS[request.param]


def test_change_after_a_read_while_the_dict_was_held(make, tracker, read):
    task = tracker["a"]
    read(tracker)
    task["_done"] = True
    del task
    assert tracker.done("a")
    tracker._check()
    assert reopened(tracker, make).done("a")


def test_change_after_a_read_while_the_dict_was_held_is_saved_without_another_read(make, tracker, read):
    task = tracker["a"]
    read(tracker)
    task["_done"] = True
    task["_aborted"] = True
    del task
    again = reopened(tracker, make)
    assert again.done("a")
    assert again.aborted("a")


def test_change_of_a_dict_that_was_read_before_it_was_returned_again(make, tracker, read):
    tracker["a"]["y"] = 1
    read(tracker)
    tracker["a"]["_done"] = True
    assert tracker.done("a")
    assert reopened(tracker, make)["a"]["_done"]


@pytest.mark.parametrize(
    "returned",
    [
        lambda tracker: tracker["a"],
        lambda tracker: tracker.get("a"),
        lambda tracker: tracker.setdefault("a", {}),
        lambda tracker: next(task for key, task in tracker.todo_items() if key == "a"),
        lambda tracker: next(iter(tracker.todo_values())),
    ],
)
def test_every_way_to_get_the_dict(make, tracker, returned):
    tracker["a"]["y"] = 1
    assert not tracker.done("a")
    returned(tracker)["_done"] = True
    assert tracker.done("a")
    tracker["a"]["_done"] = False
    assert not tracker.done("a")
    assert not reopened(tracker, make).done("a")


def test_change_through_set_after_a_read(make, tracker, read):
    tracker.set["a"]["y"] = 1
    read(tracker)
    tracker.set["a"]["_done"] = True
    tracker.set["a"].update({"_aborted": True})
    assert tracker.done("a")
    assert tracker.aborted("a")
    assert reopened(tracker, make).aborted("a")


def test_update_with_a_status_after_a_read(make, tracker, read):
    tracker["a"]["y"] = 1
    read(tracker)
    tracker.update({"a": {"_done": True}})
    assert tracker.done("a")
    assert reopened(tracker, make).done("a")


def test_error_after_a_read(make, tracker, read):
    tracker["a"]["y"] = 1
    read(tracker)
    tracker.set["a"]["_error"] = {"type": "X"}
    tracker.reset_tries("a")
    assert "_error" not in tracker["a"]
    tracker.set["a"]["_error"] = {"type": "Y"}
    tracker.mark_done("a")
    tracker._check()
    assert "_error" not in reopened(tracker, make)["a"]


def test_method_after_a_read_shows_in_the_dict(make, tracker, read):
    tracker["a"]["y"] = 1
    read(tracker)
    tracker.mark_done("a")
    tracker.abort("a")
    task = tracker["a"]
    assert (task["_done"], task["_aborted"]) == (True, True)
    del task
    again = reopened(tracker, make)
    assert again.done("a")
    assert again.aborted("a")


def test_status_that_cannot_be_stored_is_read_again(tracker):
    tracker["a"]["_tries"] = "many"
    for _ in range(2):
        with pytest.raises(UnstorableValueError, match="_tries"):
            tracker.tries("a")
    with pytest.raises(UnstorableValueError):
        tracker.sync()
    tracker["a"]["_tries"] = 3
    assert tracker.tries("a") == 3
    tracker._check()


def test_a_list_that_is_held_inside_a_dict_that_is_not(make, tracker, read):
    tracker["a"]["list"] = []
    inner = tracker["a"]["list"]
    read(tracker)
    inner.append(1)
    tracker.sync()
    inner.append(2)
    tracker["a"]["_done"] = True
    again = reopened(tracker, make)
    assert again["a"]["list"] == [1, 2]
    assert again.done("a")


def test_loop_reads_the_status_that_its_body_set(tracker):
    tracker.add_many(["c", "d"])
    seen = []
    for key in tracker.try_keys():
        seen.append(key)
        task = tracker[key]
        tracker.increment_tries(key)
        task["_done"] = key != "b"
        del task
    assert seen == ["a", "b", "c", "d"]
    assert [tracker.done(key) for key in "abcd"] == [True, False, True, True]


def test_loop_finds_a_task_that_a_released_dict_opened(tracker):
    tracker.mark_done("b")
    task = tracker["b"]
    assert tracker.done("b")
    seen = []
    for key in tracker.try_keys():
        seen.append(key)
        if key == "a":
            task["_done"] = False
            del task
        tracker.mark_done(key)
    assert seen == ["a", "b"]
