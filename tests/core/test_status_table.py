"""The status table below a tracker: blocks of 500 tasks, and every number around that."""

from __future__ import annotations

import random

import pytest

from tastypy_fast import ProgressTracker

BLOCK = 500


@pytest.fixture(params=[10, 1000, None], ids=["sync_at=10", "sync_at=1000", "on hold"])
def tracker(request, path):
    with ProgressTracker(path, max_tries=3, sync_at=request.param or 1) as tracker:
        if request.param is None:
            tracker.hold()
        yield tracker
        tracker._check()


def counts(tracker):
    return len(tracker), tracker.num_done(), tracker.num_aborted(), tracker.num_tried()


SIZES = [1, 499, 500, 501, 999, 1000, 1001, 1500, 1501]


@pytest.mark.parametrize("size", SIZES)
def test_counts_and_iterators_work_across_block_boundaries(tracker, path, size):
    tracker.add_many(range(size))
    borders = [key for key in (0, 498, 499, 500, 501, 999, 1000, 1499, 1500) if key < size]
    for number, key in enumerate(borders):
        assert counts(tracker) == (size, number, number, number)
        tracker.mark_done(key)
        tracker.abort(key)
        tracker.increment_tries(key)
    expected = (size, len(borders), len(borders), len(borders))
    rest = [key for key in range(size) if key not in borders]
    for _ in range(2):
        assert counts(tracker) == expected
        assert list(tracker.todo_keys()) == rest
        assert list(tracker.todo_keys(allow_aborted=True)) == rest
        assert list(tracker.aborted_keys()) == borders
        tracker.sync()
        tracker._check()
    for key in borders:
        tracker.mark_not_done(key)
    assert list(tracker.todo_keys(allow_aborted=True)) == list(range(size))
    with ProgressTracker(path) as other:
        assert counts(other) == (size, 0, len(borders), len(borders))


@pytest.mark.parametrize("size", SIZES)
def test_every_task_of_every_block_can_be_deleted(tracker, path, size):
    tracker.add_many(range(size))
    tracker.sync()
    for key in range(size):
        tracker.mark_done(key)
    for key in range(size):
        del tracker[key]
        left = size - key - 1
        if left % 250 == 0:
            assert counts(tracker) == (left, left, 0, 0)
    tracker.sync()
    tracker._check()
    assert counts(tracker) == (0, 0, 0, 0)
    assert list(tracker.todo_keys()) == []
    tracker.add("again")
    assert list(tracker.try_keys()) == ["again"]
    assert counts(tracker) == (1, 0, 0, 1)


def test_loops_and_counts_skip_thousands_of_deleted_tasks(tracker):
    size, kept = 6000, [0, 1, 2499, 2500, 5999]
    tracker.add_many(range(size))
    for key in range(0, size, 3):
        tracker.increment_tries(key)
    tracker.sync()
    for key in range(size):
        if key not in kept:
            del tracker[key]
    for _ in range(2):
        assert tracker.keys() == kept
        assert list(reversed(tracker)) == kept[::-1]
        assert list(tracker.todo_keys()) == kept
        assert [task["_tries"] for task in tracker.todo_values()] == [1, 0, 1, 0, 0]
        assert counts(tracker) == (5, 0, 0, 2)
        tracker.sync()
        tracker._check()
    tracker.add_many(range(10_000, 10_600))
    assert list(tracker.todo_keys()) == [*kept, *range(10_000, 10_600)]


def test_sequence_numbers_of_deleted_tasks_are_not_reused(path):
    """A status that was left behind would be that of the next task with its number."""
    for size in (3, 600):
        with ProgressTracker(path) as tracker:
            tracker.add_many(range(size))
            for key in range(size):
                tracker.mark_done(key)
                tracker.abort(key)
            tracker.sync()
            tracker.clear()
        with ProgressTracker(path) as tracker:
            tracker.add_many(range(size))
            assert counts(tracker) == (size, 0, 0, 0)
            tracker._check()
            tracker.clear()


def test_revert_restores_status_blocks(path):
    with ProgressTracker(path) as tracker:
        tracker.add_many(range(1200))
        tracker.sync()
        tracker.hold()
        for key in tracker.try_keys():
            tracker.mark_done(key)
        tracker.add_many(range(5000, 7000))
        for key in range(400, 600):
            del tracker[key]
        tracker.revert()
        tracker._check()
        assert counts(tracker) == (1200, 0, 0, 0)
        assert list(tracker.todo_keys()) == list(range(1200))


def test_store_may_have_more_blocks_than_the_cache_holds(path):
    size = 120_000
    with ProgressTracker(path, sync_at=50_000) as tracker:
        tracker.add_many(range(size))
        tracker.hold()
        for key in range(0, size, 100):
            tracker.mark_done(key)
        assert tracker.num_done() == size // 100
        tracker.sync()
        tracker.abort(7)
        for key in range(0, size, 100):
            assert tracker.done(key)
        assert tracker.num_aborted() == 1
        assert len(tracker.dirty()) == 1
        tracker._check()
    with ProgressTracker(path, max_tries=1) as tracker:
        assert counts(tracker) == (size, size // 100, 1, 0)
        todo = tracker.todo_keys()
        assert [next(todo) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        assert next(todo) == 8
        assert sum(1 for _ in todo) == size - size // 100 - 8


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_to_thousands_of_tasks_agree_with_a_dict(path, seed):
    seed_random = random.Random(seed)
    model, size = {}, 2600
    with ProgressTracker(path, max_tries=2, sync_at=seed_random.choice([30, 300, 10_000])) as tracker:
        for _ in range(3):
            for _ in range(2500):
                key = seed_random.randrange(size)
                task = model.get(key)
                if task is None:
                    tracker.add(key)
                    model[key] = {"_done": False, "_aborted": False, "_tries": 0}
                    continue
                change = seed_random.randrange(6)
                if change == 0:
                    tracker.mark_done(key)
                    task["_done"] = True
                elif change == 1:
                    tracker[key]["_aborted"] = task["_aborted"] = not task["_aborted"]
                elif change == 2:
                    tracker.increment_tries(key)
                    task["_tries"] += 1
                elif change == 3:
                    del tracker[key]
                    del model[key]
                elif change == 4:
                    tracker[key] = task = {"_done": False, "_aborted": True, "_tries": -1}
                    model[key] = task
                else:
                    tracker.update({key: {"_done": False}})
                    task["_done"] = False
            tracker._check()
            assert tracker.items() == list(model.items())
            assert counts(tracker) == (
                len(model), sum(task["_done"] for task in model.values()),
                sum(task["_aborted"] for task in model.values()), sum(task["_tries"] > 0 for task in model.values()),
            )
            for allow_aborted in (False, True):
                assert list(tracker.todo_keys(allow_aborted)) == [
                    key for key, task in model.items()
                    if not task["_done"] and task["_tries"] < 2 and (allow_aborted or not task["_aborted"])
                ]
            assert list(tracker.aborted_keys()) == [key for key, task in model.items() if task["_aborted"]]
