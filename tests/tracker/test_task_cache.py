"""Thousands of tasks that the program holds: dicts and statuses stay consistent."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    ProgressTracker,
    UnstorableValueError,
)
from tests.support.tasks import FRESH, of_one_process, reopened


@of_one_process
class TestThousandsOfHeldTasks:
    """``tasks = list(tracker.todo_items())``: all dicts of such a list stay watched."""

    COUNT = 3000

    @pytest.fixture(params=[1000, 100])
    def tracker(self, request, make):
        tracker = make(sync_at=request.param, init={number: {"x": number} for number in range(self.COUNT)})
        tracker.sync()
        return tracker

    @pytest.fixture(params=["todo", "try"])
    def tasks(self, request, tracker):
        tasks = dict(getattr(tracker, f"{request.param}_items")())
        assert len(tasks) == self.COUNT
        # There are enough changes for several automatic syncs.
        tracker.add_many(range(-2000, 0))
        return tasks

    def test_data_and_status_of_held_tasks_are_saved(self, make, tracker, tasks):
        for key, task in tasks.items():
            task["x"] = -key
            task["_done"] = key % 2 == 0
            task["_aborted"] = key % 3 == 0
            task["_tries"] = key % 5
        assert tracker.dirty() >= tasks.keys()
        tracker.sync()
        assert tracker.dirty() == set()
        tracker._check()
        again = reopened(tracker, make)
        assert all(again[key] == task for key, task in tasks.items())
        assert again.num_done() == self.COUNT / 2

    def test_status_by_method_shows_in_the_dicts(self, tracker, tasks):
        for key in tasks:
            tracker.mark_done(key)
            tracker.increment_tries(key)
        assert all(task["_done"] and task["_tries"] for task in tasks.values())
        tracker._check()
        for key in tasks:
            tracker.mark_not_done(key)
            tracker.abort(key)
        assert all(not task["_done"] and task["_aborted"] for task in tasks.values())

    def test_status_in_the_dicts_shows_by_method(self, tracker, tasks):
        for key, task in tasks.items():
            task["_done"] = key % 2 == 0
            task["_aborted"] = key % 3 == 0
        assert tracker.num_done() == self.COUNT / 2
        assert tracker.num_aborted() == self.COUNT / 3
        assert all(tracker.done(key) is task["_done"] and tracker.aborted(key) is task["_aborted"]
                   and tracker.should_do(key) is not (task["_done"] or task["_aborted"]) for key, task in tasks.items())
        tracker._check()

    def test_loops_see_the_status_in_the_dicts(self, tracker, tasks):
        for key, task in tasks.items():
            task["_done"] = key % 2 == 0
            task["_aborted"] = key % 3 == 0
        wanted = [key for key, task in tasks.items() if not task["_done"] and not task["_aborted"]]
        assert [key for key in tracker.todo_keys() if key >= 0] == wanted
        assert all(task is tasks[key] for key, task in tracker.todo_items() if key >= 0)
        assert list(tracker.aborted_keys()) == [key for key, task in tasks.items() if task["_aborted"]]
        assert [task["_done"] for key, task in tracker.items() if key >= 0] == [
            task["_done"] for task in tasks.values()
        ]
        tracker.sync()
        # Tasks that are reopened ahead of a running loop.
        loop = tracker.todo_keys()
        assert next(loop) == wanted[0]
        for task in tasks.values():
            task["_done"] = task["_aborted"] = False
        seen = [wanted[0], *(key for key in loop if key >= 0)]
        assert set(wanted) <= set(seen)
        assert seen == sorted(set(seen))
        assert [key for key in tracker.todo_keys() if key >= 0] == list(tasks)

    def test_revert_drops_all_changes_and_restarts_the_loop(self, make, tracker, tasks):
        tracker.sync()
        for task in tasks.values():
            task.update(x="dropped", _done=True)
        tracker.mark_done(5)
        tracker.revert()
        assert tracker.dirty() == set()
        assert tracker.num_done() == 0
        assert tracker[7]["x"] == 7
        for task in tasks.values():
            task["x"] = "nobody's business"
        tracker.sync()
        assert all(task["x"] == key for key, task in reopened(tracker, make).items() if key >= 0)

    def test_dicts_of_deleted_or_replaced_tasks_are_not_watched(self, make, tracker, tasks):
        del tracker[0], tracker[1]
        tracker.add(1)
        tracker[2] = {"x": "new"}
        tracker.update({3: {"y": "mixed in"}})
        assert (tasks[3]["x"], tasks[3]["y"]) == (3, "mixed in")
        for key in range(4):
            tasks[key]["x"] = "changed"
            tasks[key]["_done"] = True
        again = reopened(tracker, make)
        assert 0 not in again
        assert (again[1], again[2]["x"]) == (FRESH, "new")
        assert (again[3]["x"], again[3]["y"], again.num_done()) == ("changed", "mixed in", 1)

    def test_status_of_another_memory_shows_in_the_dicts(self, tracker, tasks):
        tracker.sync()
        with ProgressTracker(tracker.path, clone=False) as other:
            for key in range(0, self.COUNT, 2):
                other.mark_done(key)
            other.sync()
        assert tracker.num_done() == self.COUNT / 2
        assert all(task["_done"] is (key % 2 == 0) for key, task in tasks.items())
        for task in tasks.values():
            task["x"] = "changed"
        tracker.sync()
        tracker.revert()
        assert all(task["x"] == "changed" and task["_done"] is (key % 2 == 0)
                   for key, task in tracker.items() if key >= 0)
        tracker._check()

    def test_bad_status_in_one_task_is_reported_and_the_others_are_saved(self, make, tracker, tasks):
        for task in tasks.values():
            task["x"] = "changed"
        tasks[1]["_done"] = "maybe"
        with pytest.raises(UnstorableValueError, match="_done"):
            tracker.sync()
        assert tracker.dirty() == {1}
        tasks[1]["_done"] = True
        again = reopened(tracker, make)
        assert again.num_done() == 1
        assert all(task["x"] == "changed" for key, task in again.items() if key >= 0)
