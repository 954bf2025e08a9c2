"""update() of a tracker merges into existing tasks."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    UnstorableValueError,
)
from tests.support.tasks import FRESH, of_one_process, reopened


def test_update_merges_into_existing_tasks(make, place):
    tracker = place(make(init={"a": {"x": 1, "y": [1], "_tries": 3}}))
    tracker.update({"a": {"y": 2, "z": 3}}, [("a", {"_done": True})], a={"z": 4}, b={"x": 1})
    assert tracker.items() == [
        ("a", {"_done": True, "_aborted": False, "_tries": 3, "x": 1, "y": 2, "z": 4}), ("b", {**FRESH, "x": 1}),
    ]
    assert reopened(tracker, make).items() == [
        ("a", {"_done": True, "_aborted": False, "_tries": 3, "x": 1, "y": 2, "z": 4}), ("b", {**FRESH, "x": 1}),
    ]


def test_update_keeps_a_status_set_by_a_method(make, place):
    tracker = place(make(init={"a": {}}))
    tracker.mark_done("a")
    tracker.increment_tries("a")
    tracker.update({"a": {"x": 1}})
    assert tracker["a"] == {"_done": True, "_aborted": False, "_tries": 1, "x": 1}


@of_one_process
def test_update_changes_the_dict_that_the_program_holds(make, place):
    tracker = place(make(init={"a": {"x": 1}}))
    task = tracker["a"]
    task["held"] = True
    tracker.update({"a": {"x": 2, "_done": True}})
    assert task == {**FRESH, "_done": True, "x": 2, "held": True}
    assert reopened(tracker, make)["a"] == {**FRESH, "_done": True, "x": 2, "held": True}


def test_update_of_a_deleted_task_adds_a_new_one(make, place):
    tracker = place(make(init={"a": {"x": 1, "_done": True}, "b": {}}))
    del tracker["a"]
    tracker.update({"a": {"y": 1}})
    assert tracker.items() == [("b", FRESH), ("a", {**FRESH, "y": 1})]


def test_init_merges_into_existing_tasks(tracker, make):
    tracker.update({"a": {"x": 1, "_tries": 2}})
    assert reopened(tracker, make, init={"a": {"y": 1}})["a"] == {**FRESH, "_tries": 2, "x": 1, "y": 1}


def test_ior_and_set_merge_into_existing_tasks(tracker):
    tracker.update({"a": {"x": 1}})
    tracker |= {"a": {"y": 1}}
    tracker.set.update({"a": {"z": 1}})
    tracker.set["a"]["x"] += 41
    tracker.set["a"]["_tries"] += 1
    tracker.set.mark_done("a")
    assert tracker["a"] == {"_done": True, "_aborted": False, "_tries": 1, "x": 42, "y": 1, "z": 1}


@of_one_process
def test_refused_update_of_one_task_leaves_the_ones_before_it(make, place):
    tracker = place(make(init={"a": {"x": 1}}))
    with pytest.raises(UnstorableValueError):
        tracker.update({"new": {}, "a": {"x": 2, "y": {1}}, "late": {}})
    assert tracker.items() == [("a", {**FRESH, "x": 1}), ("new", FRESH)]
