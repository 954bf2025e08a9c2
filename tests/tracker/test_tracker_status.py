"""The status of a task, by method and in the task dict: both are the same."""

from __future__ import annotations

from itertools import product
from pathlib import PurePosixPath

import pytest

from tastypy_fast import (
    InvalidKeyError,
    UnstorableValueError,
)
from tests.support.stores import changing
from tests.support.tasks import FRESH, of_one_process, reopened

CHANGES = {
    "mark_done": ("mark_done", {"_done": True}), "mark_not_done": ("mark_not_done", {"_done": False}),
    "abort": ("abort", {"_aborted": True}), "unabort": ("unabort", {"_aborted": False}),
    "increment_tries": ("increment_tries", {"_tries": 6}), "decrement_tries": ("decrement_tries", {"_tries": 4}),
    "reset_tries": ("reset_tries", {"_tries": 0}),
}
STATES = [{"_done": done, "_aborted": aborted, "_tries": 5} for done, aborted in product((False, True), repeat=2)]


def status_by_method(tracker, key):
    return {"_done": tracker.done(key), "_aborted": tracker.aborted(key), "_tries": tracker.tries(key)}


def assert_status(tracker, key, status):
    """Check that every read of the status gives the same result."""
    assert status_by_method(tracker, key) == status
    assert {name: tracker[key][name] for name in FRESH} == status
    assert {name: dict(tracker.items())[key][name] for name in FRESH} == status
    assert tracker.num_done() == status["_done"]
    assert tracker.num_aborted() == status["_aborted"]
    assert tracker.num_tried() == (status["_tries"] > 0)
    open_task = not status["_done"] and not status["_aborted"]
    assert tracker.should_do(key) is open_task
    assert list(tracker.todo_keys()) == [key] * open_task
    assert list(tracker.todo_keys(allow_aborted=True)) == [key] * (not status["_done"])
    assert list(tracker.aborted_keys()) == [key] * status["_aborted"]
    assert status_by_method(tracker, key) == status


@pytest.mark.parametrize("way", ["method", "keying"])
@pytest.mark.parametrize(("method", "change"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("state", STATES, ids=str)
def test_every_read_sees_a_status_change_at_once(make, place, state, way, method, change):
    tracker = place(make(init={"a": state}))
    if way == "method":
        assert getattr(tracker, method)("a") is None
    else:
        for name, value in change.items():
            changing(tracker)["a"][name] = value
    expected = {**state, **change}
    assert_status(tracker, "a", expected)
    tracker.sync()
    assert tracker.dirty() == set()
    assert_status(tracker, "a", expected)
    assert_status(reopened(tracker, make), "a", expected)


@pytest.mark.parametrize("way", ["method", "keying"])
def test_revert_undoes_a_status_change(make, place, way):
    tracker = make(init={"a": {"_tries": 5, "x": 1}})
    tracker.sync()
    place(tracker)
    if way == "method":
        tracker.mark_done("a")
        tracker.abort("a")
        tracker.increment_tries("a")
    else:
        changing(tracker)["a"].update(_done=True, _aborted=True, _tries=9, x=2)
    assert tracker.dirty() == {"a"}
    tracker.revert()
    assert tracker.dirty() == set()
    assert_status(tracker, "a", {**FRESH, "_tries": 5})
    assert tracker["a"]["x"] == 1


@of_one_process
def test_held_task_dict_shows_changes_by_methods(make, place):
    tracker = place(make(init={"a": {"x": 1}}))
    task = tracker["a"]
    tracker.mark_done("a")
    assert task["_done"] is True
    tracker.sync()
    tracker.abort("a")
    tracker.increment_tries("a")
    assert task == {"_done": True, "_aborted": True, "_tries": 1, "x": 1}
    task["_done"] = False
    assert tracker.done("a") is False
    assert tracker.num_done() == 0


def test_status_changes_by_method_and_by_dict_can_be_mixed(tracker, make):
    tracker.add("a")
    changing(tracker)["a"]["_tries"] += 1
    tracker.increment_tries("a")
    changing(tracker)["a"]["_tries"] += 1
    changing(tracker)["a"]["note"] = tracker.tries("a")
    tracker.mark_done("a")
    changing(tracker)["a"]["_aborted"] = True
    expected = {"_done": True, "_aborted": True, "_tries": 3, "note": 3}
    assert tracker["a"] == expected
    assert reopened(tracker, make)["a"] == expected


def test_assigning_replaces_data_and_status(make, place):
    tracker = place(make(init={"a": {"_done": True, "_tries": 4, "x": 1}}))
    tracker["a"] = {"y": 2, "_aborted": True}
    assert tracker["a"] == {"_done": False, "_aborted": True, "_tries": 0, "y": 2}
    assert_status(tracker, "a", {"_done": False, "_aborted": True, "_tries": 0})
    assert reopened(tracker, make)["a"] == {"_done": False, "_aborted": True, "_tries": 0, "y": 2}


def test_deleted_status_keys_are_restored_at_the_next_read(make, place):
    tracker = place(make(init={"a": {"_done": True, "_tries": 4, "x": 1}}))
    for name in FRESH:
        del changing(tracker)["a"][name]
    tracker.sync()
    assert status_by_method(tracker, "a") == FRESH
    assert reopened(tracker, make)["a"] == {**FRESH, "x": 1}


def test_task_given_to_the_tracker_is_not_changed(tracker):
    mine = {"x": [1], "_done": True}
    tracker["a"] = mine
    tracker.update({"b": mine})
    tracker.mark_not_done("a")
    assert mine == {"x": [1], "_done": True}


def test_data_changed_in_the_task_dict_is_saved_with_the_status(make, place):
    tracker = place(make(init={"a": {"x": []}}))
    changing(tracker)["a"]["x"].append(1)
    changing(tracker)["a"]["result"] = {"deep": [2**70, float("inf")]}
    tracker.mark_done("a")
    assert reopened(tracker, make)["a"] == {
        "_done": True, "_aborted": False, "_tries": 0, "x": [1], "result": {"deep": [2**70, float("inf")]}
    }


def test_data_deleted_from_the_task_dict_is_deleted(make, place):
    tracker = place(make(init={"a": {"x": 1}}))
    del changing(tracker)["a"]["x"]
    assert reopened(tracker, make)["a"] == FRESH


def test_tries_below_zero_are_kept_and_do_not_count_as_tried(tracker, make):
    tracker.add("a")
    tracker.decrement_tries("a")
    tracker.decrement_tries("a")
    assert_status(tracker, "a", {**FRESH, "_tries": -2})
    assert_status(reopened(tracker, make, max_tries=1), "a", {**FRESH, "_tries": -2})


def test_ones_and_zeros_are_accepted_as_flags(tracker):
    tracker["a"] = {"_done": 1, "_aborted": 0}
    assert tracker["a"] == {**FRESH, "_done": True}
    assert tracker["a"]["_done"] is True


BAD_STATUS = [
    {"_done": "x"}, {"_done": None}, {"_done": 2}, {"_done": 1.0}, {"_done": []}, {"_aborted": "False"},
    {"_aborted": -1}, {"_tries": 1.5}, {"_tries": "1"}, {"_tries": None}, {"_tries": True}, {"_tries": [1]},
    {"_tries": 10**9}, {"_tries": -(10**9)}, {"_tries": 2**64},
]


@pytest.mark.parametrize("bad", BAD_STATUS, ids=str)
def test_invalid_status_is_refused_and_changes_nothing(make, place, bad):
    (name,) = bad
    tracker = place(make(init={"a": {"_tries": 3, "x": 1}}))
    dirty = tracker.dirty()
    uses = [
        lambda: tracker.__setitem__("a", bad), lambda: tracker.__setitem__("new", bad),
        lambda: tracker.update({"a": bad}), lambda: tracker.update(new={**bad, "y": 1}),
        lambda: tracker.setdefault("new", bad),
    ]
    for use in uses:
        with pytest.raises(UnstorableValueError, match=name):
            use()
    assert tracker.items() == [("a", {**FRESH, "_tries": 3, "x": 1})]
    assert tracker.dirty() == dirty


@of_one_process
@pytest.mark.parametrize("bad", BAD_STATUS, ids=str)
def test_invalid_status_in_the_task_dict_is_reported_at_the_next_sync(make, bad):
    (name,) = bad
    tracker = make(init={"a": {"x": 1}, "b": {}})
    tracker.sync()
    tracker["a"].update(bad)
    tracker.mark_done("b")
    with pytest.raises(UnstorableValueError, match=f"'a'.*{name}"):
        tracker.sync()
    assert tracker.dirty() == {"a"}
    assert tracker.done("b") is True
    del tracker["a"][name]
    tracker["a"]["x"] = 2
    assert reopened(tracker, make).items() == [("a", {**FRESH, "x": 2}), ("b", {**FRESH, "_done": True})]


@pytest.mark.parametrize("value", [None, [], 1, "x", [("_done", True)]], ids=repr)
def test_task_must_be_a_dict(make, place, value):
    tracker = place(make(init={"a": {"x": 1}}))
    for use in (
        lambda: tracker.__setitem__("a", value), lambda: tracker.setdefault("new", value),
        lambda: tracker.update({"a": value}), lambda: tracker.update([("new", value)]),
    ):
        with pytest.raises(UnstorableValueError, match="dict"):
            use()
    assert tracker.items() == [("a", {**FRESH, "x": 1})]


@of_one_process
@pytest.mark.parametrize("synced", [False, True])
def test_mark_dirty_in_a_loop_keeps_a_status_that_was_set_in_it(make, place, synced):
    tracker = place(make(init={"a": {"x": 1}}))
    for key, task in tracker.iteritems():
        tracker.mark_done(key)
        tracker.increment_tries(key)
        if synced:
            tracker.sync()
        task["x"] = 2
        tracker.mark_dirty(key)
    assert reopened(tracker, make)["a"] == {"_done": True, "_aborted": False, "_tries": 1, "x": 2}


STATUS_METHODS = [name for name, _ in CHANGES.values()] + ["tries", "aborted", "should_do", "should_try"]


@pytest.mark.parametrize("method", STATUS_METHODS)
@pytest.mark.parametrize("state", ["never there", "deleted", "deletion on disk"])
def test_missing_task_raises_key_error(make, method, state):
    tracker = make(init={"b": {}})
    if state != "never there":
        tracker.add("a")
        tracker.sync()
        del tracker["a"]
        if state == "deletion on disk":
            tracker.sync()
    with pytest.raises(KeyError) as caught:
        getattr(tracker, method)("a")
    assert caught.value.args == ("a",)
    assert tracker.done("a") is False
    assert tracker.keys() == ["b"]


def test_task_deleted_after_an_iterator_yielded_it_raises_key_error(make):
    tracker = make(init={"a": {}, "b": {}})
    tracker.sync()
    for key in tracker.todo_keys():
        del tracker[key]
        with pytest.raises(KeyError):
            tracker.mark_done(key)
        assert tracker.done(key) is False
    assert len(tracker) == 0


ADDING = ["add", "add_if_absent", "should_do_add", "should_try_add"]


@pytest.mark.parametrize("key", [1.5, None, b"a", ("a", None)], ids=repr)
def test_other_hashable_object_is_no_task(tracker, key):
    assert tracker.done(key) is False
    for name in [*STATUS_METHODS, "release"]:
        with pytest.raises(KeyError):
            getattr(tracker, name)(key)
    for name in ADDING:
        with pytest.raises(InvalidKeyError):
            getattr(tracker, name)(key)
    assert len(tracker) == 0


@pytest.mark.parametrize("key", [[], ("a", {}), PurePosixPath("a")], ids=repr)
def test_unhashable_object_and_path_raise_in_every_method(tracker, key):
    for name in [*STATUS_METHODS, *ADDING, "done", "release"]:
        with pytest.raises(InvalidKeyError):
            getattr(tracker, name)(key)
    assert len(tracker) == 0


def test_numbers_of_numpy_are_the_int_keys_of_tasks(tracker):
    numpy = pytest.importorskip("numpy")
    tracker.add_many(numpy.arange(5))
    tracker.add(numpy.int32(5))
    assert [repr(key) for key in tracker] == list("012345")
    assert tracker.should_try(numpy.int64(0))
    tracker.mark_done(numpy.int64(3))
    tracker.mark_done(numpy.int64(4), {"size": numpy.int64(7)})
    tracker.mark_done_many(numpy.arange(2))
    tracker.abort(numpy.uint8(5))
    assert [tracker.done(key) for key in range(6)] == [True, True, False, True, True, False]
    assert (tracker.tries(numpy.int64(0)), tracker.aborted(5), tracker[4]["size"]) == (1, True, 7)


def test_status_changes_count_towards_sync_at(make):
    tracker = make(init={number: {} for number in range(10)}, sync_at=4)
    tracker.sync()
    tracker.mark_done(0)
    tracker.mark_done(0)
    tracker.abort(1)
    tracker.increment_tries(1)
    tracker[2]["x"] = 1
    tracker.mark_done(2)
    assert tracker.dirty() == {0, 1, 2}
    assert tracker.should_try(3)
    assert tracker.dirty() == set()
    tracker.revert()
    assert (tracker.num_done(), tracker.num_aborted(), tracker.num_tried()) == (2, 1, 2)


def change_in_the_dict(tracker, key, **status):
    tracker[key].update(status)


def change_in_a_loop(tracker, key, **status):
    task = next(task for found, task in tracker.todo_items() if found == key)
    task.update(status)


THERE_AND_BACK = {
    "mark_done": (lambda tracker: tracker.mark_done(1), lambda tracker: tracker.mark_not_done(1)),
    "mark_not_done": (lambda tracker: tracker.mark_not_done(5), lambda tracker: tracker.mark_done(5)),
    "abort": (lambda tracker: tracker.abort(1), lambda tracker: tracker.unabort(1)),
    "tries": (lambda tracker: tracker.increment_tries(1), lambda tracker: tracker.decrement_tries(1)),
    "gate": (lambda tracker: tracker.should_try(1), lambda tracker: tracker.decrement_tries(1)),
    "reset": (lambda tracker: tracker.reset_tries(6), lambda tracker: tracker.increment_tries(6)),
    "by keying": (lambda tracker: change_in_the_dict(tracker, 1, _done=True, _tries=7),
                  lambda tracker: change_in_the_dict(tracker, 1, _done=False, _tries=0)),
    "by keying and method": (lambda tracker: change_in_the_dict(tracker, 1, _done=True),
                             lambda tracker: tracker.mark_not_done(1)),
    "by method and keying": (lambda tracker: tracker.mark_done(1),
                             lambda tracker: change_in_the_dict(tracker, 1, _done=False)),
    "in a loop": (lambda tracker: change_in_a_loop(tracker, 1, _aborted=True), lambda tracker: tracker.unabort(1)),
    "loop of tries": (lambda tracker: next(tracker.try_keys()), lambda tracker: tracker.decrement_tries(0)),
    "task and its tries": (lambda tracker: next(tracker.try_items()), lambda tracker: tracker.reset_tries(0)),
    "added": (lambda tracker: tracker.add("new"), lambda tracker: tracker.pop("new")),
    "nothing": (lambda tracker: tracker.mark_done(5), lambda tracker: tracker.reset_tries(1)),
}


@of_one_process
@pytest.mark.parametrize("asked", [False, True], ids=["", "asked in between"])
@pytest.mark.parametrize("way", THERE_AND_BACK)
def test_status_that_was_changed_and_changed_back_is_not_dirty(make, way, asked):
    there, back = THERE_AND_BACK[way]
    tracker = make(init={number: {"x": number} for number in range(700)})
    tracker.update({5: {"_done": True}, 6: {"_tries": 1}})
    tracker.sync()
    before, disk_version = tracker.items(), tracker._store.disk_version
    for _ in range(2):
        there(tracker)
        if asked:
            assert len(tracker.dirty()) == (way != "nothing")
            assert tracker.num_done() in (0, 1, 2)
        back(tracker)
        assert tracker.dirty() == set()
        tracker._check()
    tracker.sync()
    assert tracker._store.disk_version == disk_version, "the sync has written something"
    assert tracker.items() == before
    # The next task in the same status block did change.
    there(tracker)
    tracker.increment_tries(3)
    back(tracker)
    assert tracker.dirty() == {3}
    tracker.sync_key(3)
    assert tracker.dirty() == set()
    tracker._check()
    assert reopened(tracker, make).tries(3) == 1


@of_one_process
def test_status_that_was_changed_back_does_not_count_towards_sync_at(make):
    tracker = make(sync_at=3, init={number: {} for number in range(10)})
    tracker.sync()
    disk_version = tracker._store.disk_version
    for number in range(10):
        tracker.mark_done(number)
        tracker.mark_not_done(number)
    tracker.mark_done(8)
    tracker.mark_done(9)
    assert tracker.dirty() == {8, 9}
    assert tracker._store.disk_version == disk_version
    tracker.mark_done(0)
    assert tracker.dirty() == set()
    tracker.mark_not_done(0)
    assert tracker.dirty() == {0}
    tracker.revert()
    assert [tracker.done(number) for number in range(10)] == [number in (0, 8, 9) for number in range(10)]


def test_hold_keeps_status_changes_in_memory(make):
    tracker = make(init={number: {} for number in range(10)}, sync_at=2)
    tracker.sync()
    tracker.hold()
    for key in tracker.try_keys():
        tracker.mark_done(key)
    assert tracker.dirty() == set(range(10))
    tracker.revert()
    assert (tracker.num_done(), tracker.num_tried()) == (0, 0)
    tracker.unhold()
    tracker.mark_done(0)
    tracker.mark_done(1)
    tracker.revert()
    assert tracker.num_done() == 2


def test_sync_key_saves_only_the_status_of_its_key(make):
    tracker = make(init={number: {"x": number} for number in range(3)})
    tracker.sync()
    tracker.mark_done(0)
    tracker.mark_done(1)
    changing(tracker)[2]["_done"] = True
    tracker.sync_key(1)
    assert tracker.dirty() == {0, 2}
    tracker.sync_key(2)
    assert tracker.dirty() == {0}
    tracker._check()
    tracker.revert()
    assert [tracker.done(number) for number in range(3)] == [False, True, True]
    assert tracker.num_done() == 2


def test_sync_key_saves_a_deleted_and_an_added_task(make):
    tracker = make(init={"a": {"_done": True}, "b": {"_done": True}})
    tracker.sync()
    del tracker["a"]
    tracker.sync_key("a")
    tracker._check()
    del tracker["b"]
    tracker.add("b")
    tracker.sync_key("b")
    tracker.add("c")
    tracker.sync_key("c")
    tracker.revert()
    assert tracker.items() == [("b", FRESH), ("c", FRESH)]
    assert tracker.num_done() == 0


@of_one_process
@pytest.mark.parametrize("sync", [lambda tracker: tracker.sync(), lambda tracker: tracker.sync_key("a")],
                         ids=["sync", "sync_key"])
@pytest.mark.parametrize("known", [False, True], ids=["new", "on disk"])
def test_unstorable_task_keeps_data_and_status_together(make, sync, known):
    tracker = make(init={"a": {"x": 1}})
    if known:
        tracker.sync()
    tracker["a"].update(x={1}, _done=True)
    tracker.increment_tries("a")
    with pytest.raises(UnstorableValueError, match="'a'"):
        sync(tracker)
    tracker._check()
    assert tracker.dirty() == {"a"}
    assert status_by_method(tracker, "a") == {"_done": True, "_aborted": False, "_tries": 1}
    tracker.revert()
    assert tracker.items() == ([("a", {**FRESH, "x": 1})] if known else [])


@of_one_process
def test_unstorable_task_does_not_prevent_saving_its_neighbours(make):
    tracker = make(init={number: {} for number in range(5)})
    tracker.sync()
    tracker[2]["x"] = object()
    for number in range(5):
        tracker.mark_done(number)
    tracker.add_many([5, 6])
    with pytest.raises(UnstorableValueError, match="2"):
        tracker.sync()
    assert tracker.dirty() == {2}
    del tracker[2]["x"]
    tracker.sync()
    tracker.revert()
    assert [tracker.done(number) for number in range(7)] == [True] * 5 + [False] * 2


def test_loop_body_uses_its_key_again_after_each_change(make, place):
    tracker = make(init={"a": {"n": 0}, "b": {"n": 0}, "c": {"n": 0}})
    tracker = place(tracker)
    seen = []
    for key in tracker.try_keys():
        seen.append(key)
        tracker.set[key].update(n=1)
        if key == "a":
            del tracker[key]
            with pytest.raises(KeyError):
                tracker.mark_done(key)
            tracker.add(key)
        elif key == "b":
            tracker.move_to_end(key)
        tracker.set[key].update(x=2)
        assert tracker.tries(key) == (key != "a")
        tracker.mark_done(key)
    assert seen == ["a", "b", "c"]
    assert tracker["a"] == {**FRESH, "_done": True, "x": 2}
    assert tracker["b"] == {**FRESH, "_done": True, "_tries": 1, "n": 1, "x": 2}
    tracker._check()
    assert reopened(tracker, make)["b"] == {**FRESH, "_done": True, "_tries": 1, "n": 1, "x": 2}
