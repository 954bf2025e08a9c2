"""Several trackers on one path, and trackers opened as plain stores."""

from __future__ import annotations

import json

import pytest

from tastypy_fast import (
    POD,
    ProgressTracker,
    StoreConflictError,
    StoreKindError,
)
from tests.support.stores import changing
from tests.support.tasks import counts, of_one_process

# Two trackers on one path


def test_trackers_with_shared_memory_see_statuses_of_each_other_at_once(make):
    one, other = make(init={"a": {}}), make()
    one.mark_done("a")
    assert other.done("a")
    changing(other)["a"]["_aborted"] = True
    assert one.num_aborted() == 1


@of_one_process
def test_trackers_with_separate_memory_see_statuses_of_each_other_after_a_sync(make):
    one, other = make(init={"a": {}, "b": {}}, clone=False), make(clone=False)
    one.sync()
    one.mark_done("a")
    other.mark_done("b")
    other.increment_tries("a")
    assert (one.num_done(), other.num_done()) == (1, 1)
    assert other.done("a") is False
    one.sync()
    assert (one.num_done(), other.num_done()) == (1, 1) or other.num_done() == 2
    other.sync()
    assert one.done("b")
    assert one.tries("a") == 1
    assert counts(one) == counts(other)


@of_one_process
def test_trackers_with_separate_memory_add_and_delete_tasks(make):
    one, other = make(init={number: {} for number in range(600)}, clone=False), make(clone=False)
    one.sync()
    for number in range(0, 600, 2):
        del one[number]
        other.mark_done(number + 1)
    one.add("one")
    other.add("other")
    one.sync()
    other.sync()
    assert sorted(map(str, one)) == sorted(map(str, other)) == sorted(map(str, [*range(1, 600, 2), "one", "other"]))
    assert counts(one) == counts(other) == (302, 300, 0, 0)
    one._check()
    other._check()


# Trackers and plain stores


def test_dict_store_and_tracker_are_not_opened_as_each_other(path, tmp_path):
    with POD(path, init={"a": 1}) as pod:
        with pytest.raises(StoreKindError, match="ProgressTracker"):
            ProgressTracker(path)
        with pytest.raises(StoreKindError):
            ProgressTracker(path, clone=False)
        assert pod["a"] == 1
    with pytest.raises(StoreKindError) as caught:
        ProgressTracker(path)
    assert isinstance(caught.value, TypeError)
    with ProgressTracker(tmp_path / "tracker", init={"a": {}}):
        pass
    with pytest.raises(StoreKindError):
        POD(tmp_path / "tracker")
    with POD(path) as pod:
        assert pod.items() == [("a", 1)]


def test_tracker_with_conflicting_options_is_refused(make):
    make()
    with pytest.raises(StoreConflictError, match="gzipped"):
        make(gzipped=True)


def test_positional_arguments_are_in_the_documented_order(tracker_class, path):
    clone = [False] * (tracker_class is ProgressTracker)
    with tracker_class(path, 3, {"a": {}}, False, 7, 5, *clone) as tracker:
        assert (tracker.max_tries, tracker.keys(), tracker.gzipped, tracker.file_size) == (3, ["a"], False, 7)
        for number in range(4):
            tracker.add(number)
        assert tracker.dirty() == set()


def test_status_is_not_in_the_json(make, path):
    """A task without data needs no value on disk, with any status."""
    tracker = make(init={number: {"_done": True, "_tries": number} for number in range(300)})
    tracker.close()
    assert b"_done" not in (path / "data.mdb").read_bytes()
    again = make()
    assert json.dumps(again[7]) == '{"_done": true, "_aborted": false, "_tries": 7}'
