"""Methods of trackers that private and shared ones share: ``mark_done_many()``, ``release()``, ``batch``."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    InvalidKeyError,
    ProgressTracker,
    ReadOnlyStoreError,
    SharedProgressTracker,
    UnstorableValueError,
)

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


@pytest.fixture(params=[ProgressTracker, SharedProgressTracker], ids=["private", "shared"])
def some_tracker(request, path):
    with request.param(path, init={key: {} for key in "abc"}) as tracker:
        yield tracker
        tracker._check()


def test_mark_done_many_marks_all_tasks_or_none(some_tracker):
    with pytest.raises(KeyError, match="'x'"):
        some_tracker.mark_done_many(["a", "x", "b"])
    assert some_tracker.num_done() == 0
    some_tracker.mark_done_many(key for key in ["a", "b", "a"])
    some_tracker.mark_done_many([])
    assert [key for key in some_tracker if some_tracker.done(key)] == ["a", "b"]
    for key, error in ((1.5, KeyError), ([], InvalidKeyError)):
        with pytest.raises(error):
            some_tracker.mark_done_many(["c", key])
    assert not some_tracker.done("c")


def test_release_of_a_missing_task_raises_key_error(some_tracker):
    with pytest.raises(KeyError, match="'x'"):
        some_tracker.release("x")
    assert next(some_tracker.try_keys()) == "a"
    some_tracker.release("a")
    assert some_tracker.tries("a") == 1
    assert not some_tracker.done("a")


@pytest.mark.parametrize("method", ["try_keys", "try_values", "try_items"])
def test_try_loops_accept_a_batch_size(some_tracker, method):
    loop = getattr(some_tracker, method)
    assert len(list(loop(batch=2))) == 3
    for wrong, error in ((0, ValueError), (-1, ValueError), ("1", TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="batch"):
            loop(batch=wrong)
    with pytest.raises(TypeError):
        loop(False, 2)
    assert [some_tracker.tries(key) for key in "abc"] == [1, 1, 1]


def test_read_only_tracker_refuses_mark_done_many(path):
    with ProgressTracker(path, init={"a": {}}):
        pass
    with ProgressTracker(path, mode="r") as reader:
        for keys in ([], ["a"]):
            with pytest.raises(ReadOnlyStoreError):
                reader.mark_done_many(keys)
        reader.release("a")
        assert reader.mode == "r"


def test_mark_done_many_counts_towards_the_automatic_sync(path):
    with ProgressTracker(path, init={key: {} for key in "abc"}, sync_at=2) as tracker:
        tracker.sync()
        tracker.mark_done_many("ab")
        assert tracker.dirty() == set()
        tracker.hold()
        tracker.mark_done_many("abc")
        assert tracker.dirty() == {"c"}


def test_status_that_cannot_be_stored_marks_none(path):
    with ProgressTracker(path, init={"a": {}, "b": {}}) as tracker:
        task = tracker["b"]
        task["_tries"] = "many"
        with pytest.raises(UnstorableValueError):
            tracker.mark_done_many("ab")
        assert not tracker.done("a")
        tracker.revert()
