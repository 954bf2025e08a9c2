"""``_error`` of a task: ``record_error()`` keeps it, success removes it, and a flag in the status shows it."""

from __future__ import annotations

import pytest

from tastypy_fast import ProgressTracker, SharedTracker, Tracker
from tastypy_fast._core.iterators import KEYS
from tastypy_fast._core.status_block import ERROR, STATUSES
from tastypy_fast._inspect.failures import iter_failures
from tests.support.claims import Worker, call
from tests.support.tasks import reopened


@pytest.fixture
def tracker(make):
    return make(init={"a": {"size": 3, "_tries": 2}, "b": {}, "long" * 200: {}})


def flagged(tracker):
    """Close a tracker, and return the keys of unfinished tasks whose status has the flag on disk."""
    tracker.close()
    with Tracker(tracker.path, mode="r") as reader:
        return list(reader._tasks_with_error(KEYS))


def failed(message="it is broken"):
    try:
        raise LookupError(message)
    except LookupError as error:
        return error


@pytest.mark.parametrize("key", ["a", "long" * 200])
def test_error_is_kept_after_the_data_and_changes_nothing_else(tracker, make, place, key):
    place(tracker)
    before = tracker[key]
    before = dict(before)
    tracker.record_error(key, failed())
    task = tracker[key]
    error = task["_error"]
    assert list(task)[:3] == ["_done", "_aborted", "_tries"]
    assert list(task)[-1] == "_error"
    assert {name: value for name, value in task.items() if name != "_error"} == before
    assert (error["type"], error["message"], error["try"]) == ("LookupError", "it is broken", before["_tries"])
    assert "raise LookupError(message)" in error["traceback"]
    assert error["at"].endswith("Z")
    assert (tracker.num_done(), tracker.num_tried()) == (0, 1)
    assert reopened(tracker, make)[key]["_error"] == error


def test_text_is_an_error_and_replaces_the_earlier_one(tracker):
    tracker.record_error("a", failed())
    tracker.record_error("a", "no such file")
    error = tracker["a"]["_error"]
    assert (error["type"], error["message"], error["try"]) == ("Error", "no such file", 2)
    assert "traceback" not in error


@pytest.mark.parametrize("error", [None, 1, b"text", LookupError, {"type": "x"}])
def test_anything_else_is_a_type_error(tracker, error):
    with pytest.raises(TypeError, match="an exception or a str"):
        tracker.record_error("a", error)
    assert "_error" not in tracker["a"]


def test_missing_task_is_a_key_error(tracker):
    with pytest.raises(KeyError, match="'missing'"):
        tracker.record_error("missing", "x")
    assert "missing" not in tracker


def test_texts_that_json_cannot_hold_and_long_ones_are_kept_in_part(tracker):
    tracker.record_error("a", failed("\ud800" + "x" * 10_000))
    error = tracker["a"]["_error"]
    assert len(error["message"]) < 2100
    assert error["message"].startswith("\\ud800xxx")


SUCCESSES = {
    "mark_done": lambda tracker, key: tracker.mark_done(key),
    "mark_done with data": lambda tracker, key: tracker.mark_done(key, {"new": 1}),
    "mark_done_many": lambda tracker, key: tracker.mark_done_many(["b", key, key]),
    "done before": lambda tracker, key: (tracker.set[key].__setitem__("_done", True), tracker.mark_done(key)),
    "done before, many": lambda tracker, key: (tracker.set[key].__setitem__("_done", True),
                                               tracker.mark_done_many([key])),
}


@pytest.mark.parametrize("key", ["a", "long" * 200])
@pytest.mark.parametrize("success", SUCCESSES.values(), ids=SUCCESSES)
@pytest.mark.parametrize("with_data", [True, False])
def test_success_removes_the_error(tracker, make, place, success, key, with_data):
    if not with_data:
        tracker[key] = {}
    tracker.record_error(key, "x")
    place(tracker)
    success(tracker, key)
    expected = {"size": 3} if with_data and key == "a" else {}
    if success is SUCCESSES["mark_done with data"]:
        expected["new"] = 1
    for again in False, True:
        found = reopened(tracker, make) if again else tracker
        task = found[key]
        assert {name: value for name, value in task.items() if name[0] != "_"} == expected
        assert "_error" not in task
        assert found.done(key)
        found._check()


def test_success_removes_the_error_from_a_held_dict_and_from_a_yielded_copy(path):
    with ProgressTracker(path, init={"a": {}}) as tracker:
        tracker.record_error("a", "x")
        held = tracker["a"]
        tracker.mark_done("a")
        assert held == {"_done": True, "_aborted": False, "_tries": 0}
        tracker.record_error("a", "x")
        del held
        tracker.sync()
        for key, task in tracker.iteritems():
            assert "_error" in task
            tracker.mark_done(key)
            assert "_error" not in task
            tracker.mark_dirty(key)
        assert "_error" not in tracker["a"]


@pytest.mark.parametrize("state", ["done", "aborted", "to retry"])
def test_reset_tries_removes_the_error_and_changes_nothing_else(tracker, make, place, state):
    tracker.record_error("a", "x")
    if state == "done":
        tracker.set["a"]["_done"] = True
    elif state == "aborted":
        tracker.abort("a")
    place(tracker)
    tracker.reset_tries("a")
    for again in False, True:
        found = reopened(tracker, make) if again else tracker
        assert found["a"] == {"_done": state == "done", "_aborted": state == "aborted", "_tries": 0, "size": 3}
        found._check()
    assert flagged(found) == []


@pytest.mark.parametrize("change", [
    lambda tracker: tracker.mark_not_done("a"), lambda tracker: tracker.abort("a"),
    lambda tracker: tracker.unabort("a"), lambda tracker: tracker.increment_tries("a"),
    lambda tracker: tracker.decrement_tries("a"),
    lambda tracker: tracker.set["a"].__setitem__("_tries", -5), lambda tracker: next(tracker.try_keys()),
    lambda tracker: tracker.should_try("a"), lambda tracker: tracker.release("a"),
    lambda tracker: tracker.update(a={"size": 4}), lambda tracker: tracker.record_error("a", "again"),
])
def test_every_other_change_keeps_the_error_and_the_flag(tracker, place, change):
    tracker.record_error("a", "x")
    place(tracker)
    change(tracker)
    assert "_error" in tracker["a"]
    assert flagged(tracker) == ["a"]


def test_setting_done_in_a_dict_keeps_the_error(tracker, make):
    tracker.record_error("a", "x")
    tracker.set["a"]["_done"] = True
    assert "_error" in tracker["a"]
    assert "_error" in reopened(tracker, make)["a"]


def test_an_error_that_is_data_is_never_touched(tracker):
    tracker.update(a={"error": {"type": "mine"}})
    tracker.record_error("a", "x")
    tracker.mark_done("a")
    assert tracker["a"]["error"] == {"type": "mine"}


def test_flag_follows_the_dict_however_it_is_changed(tracker, make, tracker_class):
    tracker["b"] = {"_error": 1}
    assert flagged(tracker) == ["b"]
    tracker = make()
    if tracker_class is ProgressTracker:
        del tracker["b"]["_error"]
        tracker["a"]["_error"] = "by keying"
    else:
        del tracker.set["b"]["_error"]
        tracker.set["a"]["_error"] = "by keying"
    assert flagged(tracker) == ["a"]


def test_flag_is_kept_by_the_largest_and_smallest_number_of_tries(tracker, make):
    for tries in (2**26 - 1, -(2**26 - 1), 0):
        tracker["a"] = {"_tries": tries, "_error": 1}
        assert flagged(tracker) == ["a"]
        tracker = make()
        assert (tracker.tries("a"), tracker["a"]["_tries"], tracker.num_tried()) == (tries, tries, int(tries > 0))
        tracker["a"] = {"_tries": tries}
        assert flagged(tracker) == []
        tracker = make()
        assert tracker.tries("a") == tries


def test_revert_restores_the_error_or_its_absence(tracker, tracker_class):
    tracker.record_error("a", "x")
    tracker.sync()
    tracker.mark_done("a")
    tracker.record_error("b", "y")
    tracker.revert()
    assert ("_error" in tracker["a"], "_error" in tracker["b"]) == (True, False)
    tracker.mark_done("a")
    assert "_error" not in tracker["a"]
    tracker._check()


def test_claim_stays_with_the_error_and_ends_with_success(path):
    with SharedTracker(path, init={"a": {}, "b": {}}) as tracker, Worker(path) as worker:
        loop = tracker.try_keys()
        assert next(loop) == "a"
        tracker.record_error("a", "x")
        assert worker.ask(call, "claimed_keys") == ["a"]
        tracker.mark_done("a")
        assert worker.ask(call, "claimed_keys") == []
        loop.close()
        worker.end("close")


def test_two_instances_that_write_the_same_task_keep_the_flag(path):
    with Tracker(path, init={"a": {}}, clone=True) as one, Tracker(path, clone=False) as other:
        one.sync()
        one.increment_tries("a")
        other.record_error("a", "x")
        other.sync()
        one.sync()
    with Tracker(path) as tracker:
        tracker.mark_done("a")
        assert "_error" not in tracker["a"]


def test_jsonl_and_tables_keep_the_error(tracker, tmp_path, tracker_class):
    tracker.record_error("a", "x")
    tracker.export_jsonl(tmp_path / "tasks.jsonl")
    with tracker_class(tmp_path / "other") as other:
        other.import_jsonl(tmp_path / "tasks.jsonl")
        assert other["a"] == tracker["a"]
        other.mark_done("a")
        assert "_error" not in other["a"]
    row = tracker.to_arrow().to_pylist()[0]
    assert (row["_error"]["message"], row["size"]) == ("x", 3)


@pytest.mark.parametrize("first", ["todo", "items"])
def test_loops_that_are_under_way_see_the_same_task(tracker, first):
    loop = tracker.todo_keys() if first == "todo" else tracker.iteritems()
    next(loop)
    tracker.record_error("b", "x")
    assert next(loop) == "b" if first == "todo" else "_error" in next(loop)[1]
    assert list(tracker._tasks(KEYS, False, *[False] * isinstance(tracker, Tracker))) == tracker.keys()


# Listing them


def test_failures_are_listed_without_reading_other_values(tracker, place):
    assert list(iter_failures(tracker)) == []
    tracker.record_error("a", "x")
    tracker.record_error("b", "y")
    tracker.abort("b")
    tracker.record_error("long" * 200, "z")
    tracker.set["long" * 200]["_done"] = True
    tracker.add_many(range(1200))
    tracker.record_error(1100, "late")
    place(tracker)
    expected = [(key, tracker[key]) for key in ("a", "b", 1100)]
    assert list(iter_failures(tracker)) == expected
    tracker.close()
    with Tracker(tracker.path, mode="r") as reader:
        assert list(iter_failures(reader)) == expected


def test_flag_without_an_error_is_no_failure(path):
    """As a negative number of tries of format 3 leaves it."""
    with Tracker(path, init={"a": {"_tries": -1}, "b": {"_error": 1}}) as tracker:
        tracker.sync()
        tracker._store.write(lambda txn: set_all_flags(txn, tracker._store.status))
    with Tracker(path, mode="r") as reader:
        assert list(reader._tasks_with_error(KEYS)) == ["a", "b"]
        assert [key for key, _ in iter_failures(reader)] == ["b"]
    with Tracker(path) as tracker:
        assert tracker["a"]["_tries"] == -1  # which also puts the flag right
        tracker.sync()
        assert list(tracker._tasks_with_error(KEYS)) == ["b"]
        tracker._check()


def set_all_flags(txn, status):
    fields = list(STATUSES.unpack(txn.get(bytes(8), db=status)))
    txn.put(bytes(8), STATUSES.pack(*fields[:8], *[entry | ERROR if entry else 0 for entry in fields[8:]]), db=status)
