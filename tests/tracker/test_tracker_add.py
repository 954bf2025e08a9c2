"""Add tasks: one, many, if absent, again after a deletion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastypy_fast import (
    DuplicateKeyError,
    InvalidKeyError,
    PersistentOrderedDictException,
    UnstorableValueError,
)
from tests.support.tasks import FRESH, of_one_process, reopened


@pytest.mark.parametrize("add", [
    lambda tracker: tracker.add("a"), lambda tracker: tracker.add_if_absent("a"),
    lambda tracker: tracker.add_many(["a"]), lambda tracker: tracker.add_many_if_absent(iter(["a"])),
    lambda tracker: tracker.should_do_add("a"), lambda tracker: tracker.update({"a": {}}),
    lambda tracker: tracker.update(a={}), lambda tracker: tracker.__setitem__("a", {}),
    lambda tracker: tracker.setdefault("a", {}), lambda tracker: tracker.set.add("a"),
    lambda tracker: tracker.__ior__({"a": {}}),
])
def test_added_task_has_the_default_status(tracker, make, add):
    add(tracker)
    assert tracker["a"] == FRESH
    assert list(tracker["a"]) == list(FRESH)
    assert (tracker.done("a"), tracker.aborted("a"), tracker.tries("a")) == (False, False, 0)
    assert len(tracker) == 1
    assert reopened(tracker, make)["a"] == FRESH


def test_adding_an_existing_task_raises_and_changes_nothing(make, place):
    tracker = place(make(init={"a": {"_done": True, "_tries": 2, "x": 1}}))
    for add in (tracker.add, lambda key: tracker.add_many([key])):
        with pytest.raises(DuplicateKeyError, match="'a'") as caught:
            add("a")
        assert isinstance(caught.value, PersistentOrderedDictException)
        assert isinstance(caught.value, ValueError)
    assert tracker["a"] == {"_done": True, "_aborted": False, "_tries": 2, "x": 1}


@of_one_process
def test_errors_for_a_key_beyond_the_digit_limit_are_raised(tracker):
    key = 10**5000
    tracker.add(key)
    with pytest.raises(DuplicateKeyError):
        tracker.add(key)
    with pytest.raises(UnstorableValueError):
        tracker.update({key: 5})
    tracker[key]["x"] = {1}
    with pytest.raises(UnstorableValueError):
        tracker.sync()
    tracker[key].clear()


def test_add_if_absent_does_not_change_existing_tasks(make, place):
    tracker = place(make(init={"a": {"_done": True, "x": 1}}))
    tracker.add_if_absent("a")
    tracker.add_many_if_absent(["a", "b", "a", "b"])
    assert tracker.keys() == ["a", "b"]
    assert tracker["a"] == {**FRESH, "_done": True, "x": 1}
    assert tracker["b"] == FRESH


@of_one_process
def test_add_many_keeps_the_tasks_before_a_duplicate(make, place):
    tracker = place(make(init={"b": {}}))
    with pytest.raises(DuplicateKeyError):
        tracker.add_many(["a", "b", "c"])
    assert tracker.keys() == ["b", "a"]
    with pytest.raises(DuplicateKeyError):
        tracker.add_many(["d", "d"])
    assert tracker.keys() == ["b", "a", "d"]


@of_one_process
def test_add_many_keeps_the_tasks_before_an_error_of_the_iterable(tracker):
    def keys():
        yield "a"
        yield "b"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tracker.add_many(keys())
    with pytest.raises(InvalidKeyError):
        tracker.add_many_if_absent(["b", "c", 1.5, "d"])
    assert tracker.keys() == ["a", "b", "c"]


def test_add_many_of_several_chunks_keeps_the_order(make):
    tracker = make(sync_at=700)
    keys = [number * 7919 % 5003 for number in range(5003)]
    tracker.add_many(iter(keys))
    tracker.add_many_if_absent(reversed(keys))
    assert tracker.keys() == keys
    assert len(tracker.dirty()) < 700
    assert reopened(tracker, make).keys() == keys


some_keys = st.lists(st.integers(0, 12) | st.sampled_from(["x" * 600, ("a", 1), "b"]), max_size=9)


@of_one_process
@pytest.mark.parametrize("wal_min_places", [0, 10**6], ids=["log", "no log"])
@given(
    sync_at=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["add", "add if absent", "done", "delete", "sync"]), some_keys),
                   max_size=8),
)
def test_add_many_equals_single_adds_with_any_unsynced_changes(
    tmp_path_factory, tracker_class, wal_min_places, sync_at, steps
):
    """Chunks that are synced at once bypass the cache."""
    path = tmp_path_factory.mktemp("tracker") / "store"
    model = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tastypy_fast._store.store.Store.wal_min_places", wal_min_places)
        with tracker_class(path, sync_at=sync_at) as tracker, tracker_class(path, clone=False, sync_at=100) as beside:
            for step, keys in steps:
                if step == "add" and (len({*keys}) < len(keys) or model.keys() & {*keys}):
                    with pytest.raises(DuplicateKeyError):
                        tracker.add_many(iter(keys))
                elif step == "add":
                    tracker.add_many(iter(keys))
                elif step == "add if absent":
                    tracker.add_many_if_absent(iter(keys))
                for key in keys:
                    if step.startswith("add"):
                        if key in model and step == "add":
                            break
                        model.setdefault(key, False)
                    elif step == "done" and key in model:
                        tracker.mark_done(key)
                        model[key] = True
                    elif step == "delete" and model.pop(key, None) is not None:
                        del tracker[key]
                if step == "sync":
                    tracker.sync()
                assert [(key, tracker.done(key)) for key in tracker] == list(model.items())
                assert (len(tracker), tracker.num_done()) == (len(model), sum(model.values()))
                assert len(tracker.dirty()) < 2 * sync_at
                tracker._check()
            tracker.sync()
            assert list(beside) == list(model)
    with tracker_class(path, mode="r") as tracker:
        tracker._check()
        assert [(key, tracker.done(key)) for key in tracker] == list(model.items())


def test_iterable_may_read_the_tracker_that_it_is_added_to(make):
    tracker = make(init={"x": {}}, sync_at=2)
    # How many of its own additions such a loop sees depends on the chunks. It yields each key once in any case.
    tracker.add_many_if_absent(key + "x" for key in tracker if len(key) < 6)
    assert tracker.keys()[:2] == ["x", "xx"]
    assert len(set(tracker)) == len(tracker)


def test_task_deleted_and_added_again_has_the_default_status(make, place):
    tracker = place(make(init={"a": {"_done": True, "_tries": 3, "x": 1}, "b": {}}))
    del tracker["a"]
    assert tracker.done("a") is False
    tracker.add("a")
    assert tracker.keys() == ["b", "a"]
    assert tracker["a"] == FRESH
    assert tracker.num_done() == 0
    assert reopened(tracker, make)["a"] == FRESH


@pytest.mark.parametrize("count", [1, 3, 8, 9, 30])
@pytest.mark.parametrize("wal_min_places", [0, 10**6], ids=["log", "no log"])
def test_few_and_many_keys_are_added_alike(make, place, count, wal_min_places):
    """A few keys are looked up one by one, and many at once."""
    tracker = make(init={"kept": {"x": 1}, "deleted": {"x": 1}, "long" * 300: {"x": 1}})
    if hasattr(tracker, "_store"):
        tracker._store.wal_min_places = wal_min_places
    tracker.sync()
    tracker = place(tracker)
    del tracker["deleted"]
    keys = (["kept", "deleted", "long" * 300, "new", "deleted", "more" * 300, "new", 5] * 4)[:count]
    tracker.add_many_if_absent(iter(keys))
    expected = {"kept": {**FRESH, "x": 1}, "long" * 300: {**FRESH, "x": 1}}
    assert dict(tracker.items()) == {**expected, **{key: FRESH for key in keys if key not in expected}}
    tracker._check()
    tracker.sync()
    assert list(reopened(tracker, make)) == list(dict.fromkeys([*expected, *keys]))
