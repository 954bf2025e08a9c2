"""What a tracker adds to the contract: statuses, gates, counts, and iterators over what is left to do."""

from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastypy_fast import (
    POD,
    DuplicateKeyError,
    InvalidKeyError,
    PersistentOrderedDictException,
    ProgressTracker,
    SharedProgressTracker,
    StoreConflictError,
    StoreKindError,
    UnstorableValueError,
)
from tests.conftest import changing

FRESH = {"_done": False, "_aborted": False, "_tries": 0}


@pytest.fixture
def opened():
    stores = []
    yield stores
    for store in stores:
        if not store.closed:
            store._check()
            store.close()


@pytest.fixture(params=[ProgressTracker, SharedProgressTracker], ids=["tracker", "shared_tracker"])
def tracker_class(request):
    return request.param


# What the shared class does otherwise: its operations are there or not, it claims, and what it hands out is a copy.
of_one_process = pytest.mark.parametrize("tracker_class", [ProgressTracker], ids=["tracker"])


@pytest.fixture
def make(path, opened, tracker_class):
    """Open a tracker; its invariants are checked at the end of the test."""

    def make(**options):
        opened.append(tracker_class(path, **options))
        return opened[-1]

    return make


@pytest.fixture
def tracker(make):
    return make()


def reopened(tracker, make, **options):
    tracker.close()
    return make(**options)


@pytest.fixture(params=["in memory", "on disk", "watched"])
def place(request):
    """Bring tasks to where their status can be: in the cache, only on disk, or in a dict that was handed out."""
    held = []

    def bring(tracker):
        if request.param != "in memory":
            tracker.sync()
        if request.param == "watched":
            held.extend(tracker[key] for key in tracker)
        return tracker

    return bring


# Adding


@pytest.mark.parametrize("add", [
    lambda tracker: tracker.add("a"), lambda tracker: tracker.add_if_absent("a"),
    lambda tracker: tracker.add_many(["a"]), lambda tracker: tracker.add_many_if_absent(iter(["a"])),
    lambda tracker: tracker.should_do_add("a"), lambda tracker: tracker.update({"a": {}}),
    lambda tracker: tracker.update(a={}), lambda tracker: tracker.__setitem__("a", {}),
    lambda tracker: tracker.setdefault("a", {}), lambda tracker: tracker.set.add("a"),
    lambda tracker: tracker.__ior__({"a": {}}),
])
def test_added_task_is_fresh(tracker, make, add):
    add(tracker)
    assert tracker["a"] == FRESH
    assert list(tracker["a"]) == list(FRESH)
    assert (tracker.done("a"), tracker.aborted("a"), tracker.tries("a")) == (False, False, 0)
    assert len(tracker) == 1
    assert reopened(tracker, make)["a"] == FRESH


def test_adding_what_is_there_raises_and_changes_nothing(make, place):
    tracker = place(make(init={"a": {"_done": True, "_tries": 2, "x": 1}}))
    for add in (tracker.add, lambda key: tracker.add_many([key])):
        with pytest.raises(DuplicateKeyError, match="'a'") as caught:
            add("a")
        assert isinstance(caught.value, PersistentOrderedDictException)
        assert isinstance(caught.value, ValueError)
    assert tracker["a"] == {"_done": True, "_aborted": False, "_tries": 2, "x": 1}


@of_one_process
def test_key_too_long_for_its_repr_does_not_spoil_the_errors(tracker):
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


def test_adding_if_absent_leaves_alone_what_is_there(make, place):
    tracker = place(make(init={"a": {"_done": True, "x": 1}}))
    tracker.add_if_absent("a")
    tracker.add_many_if_absent(["a", "b", "a", "b"])
    assert tracker.keys() == ["a", "b"]
    assert tracker["a"] == {**FRESH, "_done": True, "x": 1}
    assert tracker["b"] == FRESH


@of_one_process
def test_add_many_keeps_what_came_before_a_duplicate(make, place):
    tracker = place(make(init={"b": {}}))
    with pytest.raises(DuplicateKeyError):
        tracker.add_many(["a", "b", "c"])
    assert tracker.keys() == ["b", "a"]
    with pytest.raises(DuplicateKeyError):
        tracker.add_many(["d", "d"])
    assert tracker.keys() == ["b", "a", "d"]


@of_one_process
def test_add_many_keeps_what_came_before_an_error_of_the_iterable(tracker):
    def keys():
        yield "a"
        yield "b"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tracker.add_many(keys())
    with pytest.raises(InvalidKeyError):
        tracker.add_many_if_absent(["b", "c", 1.5, "d"])
    assert tracker.keys() == ["a", "b", "c"]


def test_add_many_takes_more_than_a_chunk_and_keeps_the_order(make):
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
def test_add_many_is_as_if_each_was_added_whatever_is_synced_with_it(
    tmp_path_factory, tracker_class, wal_min_places, sync_at, steps
):
    """Chunks that are synced at once go past the cache."""
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
    # How far such a loop sees its own additions depends on the chunks; each key comes once in any case.
    tracker.add_many_if_absent(key + "x" for key in tracker if len(key) < 6)
    assert tracker.keys()[:2] == ["x", "xx"]
    assert len(set(tracker)) == len(tracker)


def test_task_that_was_deleted_and_added_again_is_fresh(make, place):
    tracker = place(make(init={"a": {"_done": True, "_tries": 3, "x": 1}, "b": {}}))
    del tracker["a"]
    assert tracker.done("a") is False
    tracker.add("a")
    assert tracker.keys() == ["b", "a"]
    assert tracker["a"] == FRESH
    assert tracker.num_done() == 0
    assert reopened(tracker, make)["a"] == FRESH


# The status: by method and by keying is one and the same

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
    """Every way of asking gives the same answer."""
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
def test_change_is_seen_everywhere_at_once(make, place, state, way, method, change):
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
def test_change_is_reverted(make, place, way):
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
def test_a_dict_that_somebody_holds_follows_the_methods(make, place):
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


def test_both_ways_mixed_lose_nothing(tracker, make):
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


def test_special_keys_that_are_taken_away_are_back_with_the_next_reading(make, place):
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


def test_data_alone_is_saved_beside_a_status(make, place):
    tracker = place(make(init={"a": {"x": []}}))
    changing(tracker)["a"]["x"].append(1)
    changing(tracker)["a"]["result"] = {"deep": [2**70, float("inf")]}
    tracker.mark_done("a")
    assert reopened(tracker, make)["a"] == {
        "_done": True, "_aborted": False, "_tries": 0, "x": [1], "result": {"deep": [2**70, float("inf")]}
    }


def test_data_that_is_taken_away_is_gone(make, place):
    tracker = place(make(init={"a": {"x": 1}}))
    del changing(tracker)["a"]["x"]
    assert reopened(tracker, make)["a"] == FRESH


def test_tries_below_zero_are_kept_and_do_not_count_as_tried(tracker, make):
    tracker.add("a")
    tracker.decrement_tries("a")
    tracker.decrement_tries("a")
    assert_status(tracker, "a", {**FRESH, "_tries": -2})
    assert_status(reopened(tracker, make, max_tries=1), "a", {**FRESH, "_tries": -2})


def test_ones_and_zeros_are_taken_as_flags(tracker):
    tracker["a"] = {"_done": 1, "_aborted": 0}
    assert tracker["a"] == {**FRESH, "_done": True}
    assert tracker["a"]["_done"] is True


BAD_STATUS = [
    {"_done": "x"}, {"_done": None}, {"_done": 2}, {"_done": 1.0}, {"_done": []}, {"_aborted": "False"},
    {"_aborted": -1}, {"_tries": 1.5}, {"_tries": "1"}, {"_tries": None}, {"_tries": True}, {"_tries": [1]},
    {"_tries": 10**9}, {"_tries": -(10**9)}, {"_tries": 2**64},
]


@pytest.mark.parametrize("bad", BAD_STATUS, ids=str)
def test_special_value_without_sense_is_refused_and_nothing_changes(make, place, bad):
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
def test_special_value_spoilt_by_keying_is_told_at_the_next_sync(make, bad):
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
def test_missing_task_is_a_key_error(make, method, state):
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


def test_missing_task_is_a_key_error_also_right_after_an_iterator_handed_it_out(make):
    tracker = make(init={"a": {}, "b": {}})
    tracker.sync()
    for key in tracker.todo_keys():
        del tracker[key]
        with pytest.raises(KeyError):
            tracker.mark_done(key)
        assert tracker.done(key) is False
    assert len(tracker) == 0


@pytest.mark.parametrize("key", [1.5, None, b"a", ("a", None)], ids=repr)
def test_invalid_key_raises_in_every_method(tracker, key):
    for name in [*STATUS_METHODS, "done", "add", "add_if_absent", "should_do_add", "should_try_add"]:
        with pytest.raises(InvalidKeyError):
            getattr(tracker, name)(key)
    assert len(tracker) == 0


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
    # Beside one that did change, in the same block of statuses.
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


def test_sync_key_saves_a_status_alone(make):
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
def test_unstorable_task_leaves_its_neighbours_saved(make):
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


# update() mixes in


def test_update_mixes_into_what_is_there(make, place):
    tracker = place(make(init={"a": {"x": 1, "y": [1], "_tries": 3}}))
    tracker.update({"a": {"y": 2, "z": 3}}, [("a", {"_done": True})], a={"z": 4}, b={"x": 1})
    assert tracker.items() == [
        ("a", {"_done": True, "_aborted": False, "_tries": 3, "x": 1, "y": 2, "z": 4}), ("b", {**FRESH, "x": 1}),
    ]
    assert reopened(tracker, make).items() == [
        ("a", {"_done": True, "_aborted": False, "_tries": 3, "x": 1, "y": 2, "z": 4}), ("b", {**FRESH, "x": 1}),
    ]


def test_update_keeps_what_a_method_set(make, place):
    tracker = place(make(init={"a": {}}))
    tracker.mark_done("a")
    tracker.increment_tries("a")
    tracker.update({"a": {"x": 1}})
    assert tracker["a"] == {"_done": True, "_aborted": False, "_tries": 1, "x": 1}


@of_one_process
def test_update_changes_the_dict_that_somebody_holds(make, place):
    tracker = place(make(init={"a": {"x": 1}}))
    task = tracker["a"]
    task["held"] = True
    tracker.update({"a": {"x": 2, "_done": True}})
    assert task == {**FRESH, "_done": True, "x": 2, "held": True}
    assert reopened(tracker, make)["a"] == {**FRESH, "_done": True, "x": 2, "held": True}


def test_update_mixes_into_a_task_that_was_deleted_as_into_a_new_one(make, place):
    tracker = place(make(init={"a": {"x": 1, "_done": True}, "b": {}}))
    del tracker["a"]
    tracker.update({"a": {"y": 1}})
    assert tracker.items() == [("b", FRESH), ("a", {**FRESH, "y": 1})]


def test_init_mixes_in_too(tracker, make):
    tracker.update({"a": {"x": 1, "_tries": 2}})
    assert reopened(tracker, make, init={"a": {"y": 1}})["a"] == {**FRESH, "_tries": 2, "x": 1, "y": 1}


def test_ior_and_set_mix_in_too(tracker):
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


# Gates

SITUATIONS = [{"_done": done, "_aborted": aborted, "_tries": tries}
              for done, aborted, tries in product((False, True), (False, True), (0, 1, 2, 3, 9))]


def is_open(task, allow_aborted, max_tries):
    """What every gate and iterator should think of a task."""
    return (not task["_done"] and (allow_aborted or not task["_aborted"])
            and (not max_tries or task["_tries"] < max_tries))


@pytest.mark.parametrize("max_tries", [0, 1, 2, 3])
@pytest.mark.parametrize("allow_aborted", [False, True])
@pytest.mark.parametrize("gate", ["should_do", "should_do_add", "should_try", "should_try_add"])
def test_gate_follows_done_aborted_and_tries(make, place, gate, allow_aborted, max_tries):
    tracker = place(make(max_tries=max_tries, init=enumerate(SITUATIONS)))
    for key, task in enumerate(SITUATIONS):
        opens = is_open(task, allow_aborted, max_tries)
        assert getattr(tracker, gate)(key, allow_aborted) is opens
        assert getattr(tracker, gate)(key, allow_aborted=allow_aborted) in (opens, False)
        attempts = tracker.tries(key) - task["_tries"]
        assert attempts in ((1, 2) if opens and "try" in gate else (0,))
        # A gate never changes anything else.
        assert tracker[key] == {**task, "_tries": task["_tries"] + attempts}
    assert len(tracker) == len(SITUATIONS)


@pytest.mark.parametrize("max_tries", [0, 1, 3])
def test_gates_that_add_add_and_open(make, max_tries):
    tracker = make(max_tries=max_tries)
    assert tracker.should_do_add("a") is True
    assert tracker["a"] == FRESH
    assert tracker.should_try_add("b", allow_aborted=True) is True
    assert tracker["b"] == {**FRESH, "_tries": 1}
    assert tracker.keys() == ["a", "b"]


def test_tries_run_out_at_max_tries(make, place):
    tracker = place(make(max_tries=3, init={"a": {}}))
    assert [tracker.should_try("a") for _ in range(5)] == [True, True, True, False, False]
    assert tracker.tries("a") == 3
    tracker.reset_tries("a")
    assert [tracker.should_try_add("a") for _ in range(5)] == [True, True, True, False, False]
    tracker.decrement_tries("a")
    assert tracker.should_do("a") is True


def test_max_tries_is_the_instances_own_and_not_stored(make):
    tracker = make(max_tries=1, init={"a": {"_tries": 1}})
    assert tracker.max_tries == 1
    assert tracker.should_do("a") is False
    assert make(max_tries=2).should_do("a") is True
    assert tracker.should_do("a") is False
    assert make().max_tries == 0


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), (1.0, TypeError), ("1", TypeError), (None, TypeError),
                                              (True, TypeError)])
def test_wrong_max_tries_is_refused_before_anything_is_made(tracker_class, path, wrong, error):
    with pytest.raises(error, match="max_tries"):
        tracker_class(path, wrong)
    assert not path.exists()


# Iterating

FAMILIES = [(family, part) for family in ("todo", "try", "aborted") for part in ("keys", "values", "items")]


@pytest.mark.parametrize("max_tries", [0, 1, 2, 3])
@pytest.mark.parametrize("allow_aborted", [False, True])
@pytest.mark.parametrize(("family", "part"), FAMILIES)
def test_iterator_hands_out_what_its_gate_lets_through(make, place, family, part, allow_aborted, max_tries):
    tracker = place(make(max_tries=max_tries, init=((key, {**task, "n": key}) for key, task in enumerate(SITUATIONS))))
    after, expected = {}, []
    for key, task in enumerate(SITUATIONS):
        wanted = task["_aborted"] if family == "aborted" else is_open(task, allow_aborted, max_tries)
        after[key] = {**task, "_tries": task["_tries"] + (wanted and family == "try"), "n": key}
        if wanted:
            expected.append({"keys": key, "values": after[key], "items": (key, after[key])}[part])
    arguments = () if family == "aborted" else (allow_aborted,)
    iterator = getattr(tracker, f"{family}_{part}")(*arguments)
    assert iter(iterator) is iterator
    assert list(iterator) == expected
    assert next(iterator, None) is None
    assert dict(tracker.items()) == after


@of_one_process
def test_try_keys_counts_each_try_before_it_hands_the_key_out(make, place):
    tracker = place(make(max_tries=2, init={key: {} for key in "abc"}))
    iterator = tracker.try_keys()
    for key in "abc":
        assert next(iterator) == key
        assert tracker.tries(key) == 1
        assert tracker[key]["_tries"] == 1
    assert tracker.num_tried() == 3
    assert list(tracker.try_keys()) == ["a", "b", "c"]
    assert list(tracker.try_keys()) == []


def test_loop_over_tasks_is_live(make, place):
    tracker = place(make(init={"a": {}, "b": {}, "c": {}, "d": {}, "e": {}}))
    seen = []
    for key in tracker.try_keys():
        seen.append(key)
        if key == "a":
            tracker.mark_done("b")
            changing(tracker)["c"]["_aborted"] = True
            del tracker["d"]
            tracker.add("f")
            tracker.add("g")
            changing(tracker)["g"]["_done"] = True
        tracker.mark_done(key)
    assert seen == ["a", "e", "f"]


def test_loop_does_not_come_back_to_a_task_that_is_open_again(make, place):
    tracker = place(make(init={key: {} for key in "abc"}))
    seen = []
    for key in tracker.try_keys():
        seen.append(key)
        for other in "abc":
            tracker.mark_not_done(other)
            tracker.reset_tries(other)
    assert seen == ["a", "b", "c"]


@pytest.mark.parametrize("way", ["method", "keying"])
def test_task_that_gets_open_ahead_of_the_loop_is_handed_out(make, place, way):
    closed = [{"_done": True}, {"_aborted": True}, {"_tries": 1}]
    # (open ones between them, so that a chunk that was read ahead spans all)
    tracker = place(make(max_tries=1, init=enumerate([{}, *closed, {}, *closed, {}])))
    seen = []
    for key in tracker.todo_keys():
        seen.append(key)
        if key == 0 and way == "method":
            tracker.mark_not_done(1)
            tracker.unabort(2)
            tracker.reset_tries(3)
            tracker.decrement_tries(7)
        elif key == 0:
            changing(tracker)[1]["_done"] = False
            changing(tracker)[2]["_aborted"] = False
            changing(tracker)[3]["_tries"] = 0
            tracker[7] = {}
    assert seen == [0, 1, 2, 3, 4, 7, 8]


@pytest.mark.parametrize("way", ["method", "keying"])
def test_task_that_gets_aborted_ahead_of_the_loop_is_handed_out(make, place, way):
    tracker = place(make(init={key: {"_aborted": key % 2 == 0} for key in range(7)}))
    seen = []
    for key in tracker.aborted_keys():
        seen.append(key)
        if key == 2 and way == "method":
            tracker.abort(1)
            tracker.abort(3)
            tracker.unabort(4)
        elif key == 2:
            changing(tracker)[1]["_aborted"] = changing(tracker)[3]["_aborted"] = True
            changing(tracker)[4]["_aborted"] = False
    assert seen == [0, 2, 3, 6]


@pytest.mark.parametrize("disturb", ["sync", "revert", "clear"])
def test_loop_over_tasks_survives(make, disturb):
    tracker = make(init={number: {} for number in range(100)})
    tracker.sync()
    seen = []
    for key in tracker.try_keys():
        seen.append(key)
        tracker.mark_done(key)
        if key in (5, 40):
            getattr(tracker, disturb)()
    assert seen == (list(range(6)) if disturb == "clear" else list(range(100)))
    assert tracker.num_done() == (0 if disturb == "clear" else 59 if disturb == "revert" else 100)


@pytest.mark.parametrize("sync_at", [5, 1000])
def test_crawl_over_several_blocks_does_every_task_once(make, sync_at):
    tracker = make(sync_at=sync_at, init={1: {}})
    seen = []
    for key, task in tracker.try_items():
        seen.append(key)
        (task if isinstance(tracker, ProgressTracker) else tracker.set[key])["length"] = key % 10
        tracker.add_many_if_absent(link for link in (2 * key, 2 * key + 1) if link < 1300)
        tracker.mark_done(key)
    assert seen == list(range(1, 1300))
    again = reopened(tracker, make)
    assert again.num_done() == again.num_tried() == len(again) == 1299
    assert list(again.try_keys()) == []
    assert all(task["length"] == key % 10 for key, task in again.iteritems())


@of_one_process
@pytest.mark.parametrize("family", ["todo", "try", "aborted"])
@pytest.mark.parametrize("part", ["values", "items"])
@pytest.mark.parametrize("sync_at", [2, 1000])
def test_what_is_changed_in_a_task_that_a_loop_hands_out_is_saved(make, family, part, sync_at):
    tracker = make(sync_at=sync_at, init={number: {"_aborted": family == "aborted", "l": []} for number in range(20)})
    tracker.sync()
    for task in getattr(tracker, f"{family}_{part}")():
        task = task[1] if part == "items" else task
        task["l"].append(tracker.num_done())
        task["_done"] = True
    again = reopened(tracker, make)
    assert [task["l"] for task in again.values()] == [[number] for number in range(20)]
    assert again.num_done() == 20


@of_one_process
class TestThousandsOfTasksThatAreHeld:
    """``tasks = list(tracker.todo_items())``: what such a list promises holds for all of it."""

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
        # (as many changes as make several automatic syncs)
        tracker.add_many(range(-2000, 0))
        return tasks

    def test_data_and_status_are_saved(self, make, tracker, tasks):
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
        # Tasks that are opened again while a loop runs, and lie ahead.
        loop = tracker.todo_keys()
        assert next(loop) == wanted[0]
        for task in tasks.values():
            task["_done"] = task["_aborted"] = False
        seen = [wanted[0], *(key for key in loop if key >= 0)]
        assert set(wanted) <= set(seen)
        assert seen == sorted(set(seen))
        assert [key for key in tracker.todo_keys() if key >= 0] == list(tasks)

    def test_revert_drops_all_and_a_loop_begins_anew(self, make, tracker, tasks):
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

    def test_tasks_that_were_deleted_or_replaced_are_nobodys(self, make, tracker, tasks):
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

    def test_bad_status_in_one_is_told_and_the_others_are_saved(self, make, tracker, tasks):
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


@of_one_process
def test_sync_between_hand_out_and_change_loses_nothing(make):
    tracker = make(sync_at=3, init={number: {"l": []} for number in range(10)})
    tracker.sync()
    for key, task in tracker.todo_items():
        tracker.sync()
        for other in range(10):
            assert tracker[other]["_done"] is (other < key)
        task["l"].append(key)
        tracker.mark_done(key)
    again = reopened(tracker, make)
    assert again.items() == [(key, {**FRESH, "_done": True, "l": [key]}) for key in range(10)]


@of_one_process
def test_iterators_and_gates_see_each_others_tries(make):
    tracker = make(max_tries=2, init={key: {} for key in "ab"})
    first, second = tracker.try_keys(), tracker.try_keys()
    assert [next(first), next(second)] == ["a", "a"]
    assert tracker.should_try("a") is False
    assert tracker.should_try("b") is True
    assert next(first) == "b"
    assert list(second) == []


def test_reading_tracker_reads_statuses_and_refuses_to_try(make, path, opened):
    make(init={"a": {"_done": True}, "b": {"_tries": 1}, "c": {"_aborted": True}}).close()
    opened.append(ProgressTracker(path, mode="r"))
    reader = opened[-1]
    assert list(reader.todo_keys()) == ["b"]
    assert list(reader.aborted_keys()) == ["c"]
    assert (reader.num_done(), reader.num_aborted(), reader.num_tried()) == (1, 1, 1)
    assert reader.done("a")
    assert reader.should_do("b")
    assert reader.percent_done() == "33.33 %"


MORE_TASKS = """
import sys
from tastypy_fast import ProgressTracker
with ProgressTracker(sys.argv[1]) as tracker:
    tracker.add_many(range(10, 2000))
    tracker.mark_done(0)
    tracker.abort(1999)
    del tracker[3]
"""


def test_reading_tracker_comes_to_tasks_that_a_writer_adds(make, path, opened, run_python):
    make(init={number: {} for number in range(10)}).close()
    opened.append(ProgressTracker(path, mode="r"))
    reader = opened[-1]
    iterator = reader.todo_keys()
    assert [next(iterator) for _ in range(5)] == list(range(5))
    assert reader.tries(3) == 0
    assert reader.num_done() == 0
    run_python(MORE_TASKS, path)
    assert (reader.num_done(), reader.num_aborted(), len(reader)) == (1, 1, 1999)
    assert reader.done(0)
    assert list(iterator) == list(range(5, 1999))
    assert list(reader.aborted_keys()) == [1999]
    with pytest.raises(KeyError):
        reader.tries(3)


def test_reading_tracker_does_not_take_a_deleted_task_for_the_one_it_handed_out_last(make, path, opened, run_python):
    make(init={3: {"_tries": 2}, 4: {}}).close()
    opened.append(ProgressTracker(path, mode="r"))
    reader = opened[-1]
    key = next(reader.todo_keys())
    run_python(MORE_TASKS.replace("mark_done(0)", "mark_done(4)"), path)
    assert key == 3
    with pytest.raises(KeyError):
        reader.tries(key)


# Counting


@pytest.mark.parametrize("name", ["done", "tried", "aborted"])
def test_empty_tracker_counts_nothing(tracker, name):
    assert getattr(tracker, f"num_{name}")() == 0
    fraction = getattr(tracker, f"fraction_{name}")()
    assert fraction == 0.0
    assert type(fraction) is float
    assert getattr(tracker, f"percent_{name}")() == "0.00 %"
    assert getattr(tracker, f"percent_not_{name}")() == "100.00 %"


@pytest.mark.parametrize("name", ["done", "tried", "aborted"])
@pytest.mark.parametrize(("count", "total", "decimals", "text", "opposite"), [
    (0, 3, 2, "0.00 %", "100.00 %"), (1, 3, 2, "33.33 %", "66.67 %"), (2, 3, 2, "66.67 %", "33.33 %"),
    (3, 3, 2, "100.00 %", "0.00 %"), (1, 3, 0, "33 %", "67 %"), (1, 3, 5, "33.33333 %", "66.66667 %"),
    (1, 8, 1, "12.5 %", "87.5 %"), (347, 1000, 2, "34.70 %", "65.30 %"),
])
def test_counts_fractions_and_percent_texts(make, place, name, count, total, decimals, text, opposite):
    special = {"done": {"_done": True}, "tried": {"_tries": 2}, "aborted": {"_aborted": True}}[name]
    tracker = place(make(init=((number, special if number < count else {}) for number in range(total))))
    assert getattr(tracker, f"num_{name}")() == count
    assert getattr(tracker, f"fraction_{name}")() == count / total
    assert getattr(tracker, f"percent_{name}")(decimals) == text
    assert getattr(tracker, f"percent_{name}")(decimals=decimals) == text
    assert getattr(tracker, f"percent_not_{name}")(decimals) == opposite
    if decimals == 2:
        assert getattr(tracker, f"percent_{name}")() == text
        assert getattr(tracker, f"percent_not_{name}")() == opposite


def counts(tracker):
    return len(tracker), tracker.num_done(), tracker.num_aborted(), tracker.num_tried()


@pytest.mark.parametrize("synced", [False, True])
def test_counts_follow_every_kind_of_change(make, synced):
    tracker = make()
    steps = [
        (lambda: tracker.add_many("abcd"), (4, 0, 0, 0)),
        (lambda: tracker.mark_done("a"), (4, 1, 0, 0)),
        (lambda: tracker.mark_done("a"), (4, 1, 0, 0)),
        (lambda: changing(tracker)["b"].update(_done=True, _tries=1), (4, 2, 0, 1)),
        (lambda: tracker.abort("b"), (4, 2, 1, 1)),
        (lambda: changing(tracker)["c"].__setitem__("x", 1), (4, 2, 1, 1)),
        (lambda: tracker.__setitem__("c", {"_done": True, "_aborted": True, "_tries": 1}), (4, 3, 2, 2)),
        (lambda: tracker.__delitem__("b"), (3, 2, 1, 1)),
        (lambda: tracker.update({"b": {"_aborted": True}}), (4, 2, 2, 1)),
        (lambda: tracker.should_try("d"), (4, 2, 2, 2)),
        (lambda: tracker.should_try_add("e"), (5, 2, 2, 3)),
        (lambda: tracker.decrement_tries("e"), (5, 2, 2, 2)),
        (lambda: tracker.decrement_tries("e"), (5, 2, 2, 2)),
        (lambda: tracker.increment_tries("e"), (5, 2, 2, 2)),
        (lambda: list(tracker.try_keys()), (5, 2, 2, 3)),
        (lambda: list(tracker.try_values(True)), (5, 2, 2, 4)),
        (lambda: tracker.pop("a"), (4, 1, 2, 4)),
        (lambda: tracker.popitem(), (3, 1, 2, 3)),
        (lambda: tracker.mark_not_done("c"), (3, 0, 2, 3)),
        (lambda: tracker.unabort("c"), (3, 0, 1, 3)),
        (lambda: tracker.reset_tries("c"), (3, 0, 1, 2)),
        (lambda: tracker.clear(), (0, 0, 0, 0)),
        (lambda: tracker.add("a"), (1, 0, 0, 0)),
    ]
    for number, (change, expected) in enumerate(steps):
        change()
        assert counts(tracker) == expected, number
        if synced:
            tracker.sync()
            assert counts(tracker) == expected, number
        tracker._check()
    assert counts(reopened(tracker, make)) == (1, 0, 0, 0)


def test_counts_follow_a_revert(make):
    tracker = make(init={"a": {"_done": True}, "b": {}})
    tracker.sync()
    assert counts(tracker) == (2, 1, 0, 0)
    tracker.mark_done("b")
    changing(tracker)["a"]["_aborted"] = True
    tracker.add("c")
    tracker.increment_tries("c")
    assert counts(tracker) == (3, 2, 1, 1)
    tracker.revert()
    assert counts(tracker) == (2, 1, 0, 0)


# Two trackers on one path


def test_trackers_that_share_see_each_others_statuses_at_once(make):
    one, other = make(init={"a": {}}), make()
    one.mark_done("a")
    assert other.done("a")
    changing(other)["a"]["_aborted"] = True
    assert one.num_aborted() == 1


@of_one_process
def test_trackers_apart_see_each_others_statuses_after_a_sync(make):
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
def test_trackers_apart_add_and_delete(make):
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


def test_plain_store_is_not_opened_as_a_tracker_nor_the_other_way_round(path, tmp_path):
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


def test_tracker_of_conflicting_options_is_refused(make):
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
    """A task without data costs no value at all, whatever its status."""
    tracker = make(init={number: {"_done": True, "_tries": number} for number in range(300)})
    tracker.close()
    assert b"_done" not in (path / "data.mdb").read_bytes()
    again = make()
    assert json.dumps(again[7]) == '{"_done": true, "_aborted": false, "_tries": 7}'
