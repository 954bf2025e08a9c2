"""The queue of tasks of a tracker, and ``_finish_many()``, which a program uses that hands tasks to workers."""

from __future__ import annotations

import os
import random
from contextlib import suppress

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
    InvalidKeyError,
    PersistentOrderedDictException,
    ProgressTracker,
    SharedTracker,
    Tracker,
    UnstorableValueError,
    maintenance,
)
from tastypy_fast._core.finishing import FINISH_ABORTED as ABORTED
from tastypy_fast._core.finishing import FINISH_DONE as DONE
from tastypy_fast._core.finishing import FINISH_FAILED as FAILED
from tastypy_fast._core.finishing import FINISH_GIVEN_BACK as GIVEN_BACK
from tastypy_fast._core.finishing import FINISH_POSTPONED as POSTPONED
from tastypy_fast._core.finishing import FINISH_RELEASED as RELEASED
from tastypy_fast._core.finishing import FINISH_RETRY as RETRY
from tastypy_fast._inspect.store_info import read_run
from tests.support.children import Child, result_of_child
from tests.support.tasks import FRESH, is_open, reopened

ERROR = {"type": "ValueError", "message": "x"}
KEYS = ["a", 1, "long" * 200, ("t", 2), "é", ""]


@pytest.fixture
def tracker(make):
    tracker = make(max_tries=3)
    tracker.add_many(KEYS)
    return tracker


def claimed(tracker):
    return tracker.claimed_keys() if isinstance(tracker, SharedTracker) else None


def in_flight(tracker):
    """Return the part of a try that is counted when its task is taken. A private tracker counts it at its end."""
    return int(isinstance(tracker, SharedTracker))


# Taking


def test_tasks_are_taken_in_order(tracker, place):
    place(tracker)
    queue = tracker._open_queue(False)
    assert queue.take(2) == [("a", 1, False), (1, 1, False)]
    assert queue.take(3) == [(KEYS[2], 1, False), (("t", 2), 1, False), ("é", 1, False)]
    assert [tracker.tries(key) for key in KEYS] == [in_flight(tracker)] * 5 + [0]
    assert queue.take(100) == [("", 1, False)]
    queue.close()


def test_queue_can_be_asked_again_after_an_empty_answer(tracker):
    queue = tracker._open_queue(False)
    assert len(queue.take(100)) == 6
    for number in range(3):
        assert queue.take(100) == []
        tracker.add(("new", number))
        assert queue.take(100) == [(("new", number), 1, False)]
    assert queue.take(0) == []


def test_queue_skips_what_is_not_to_be_done(make):
    tasks = {number: {"_done": number % 2 == 0, "_aborted": number % 3 == 0, "_tries": number % 5}
             for number in range(60)}
    for allow_aborted in (False, True):
        tracker = make(max_tries=3, init=tasks)
        queue = tracker._open_queue(allow_aborted)
        expected = [(key, task["_tries"] + 1, False) for key, task in tasks.items()
                    if is_open(task, allow_aborted, 3)]
        assert queue.take(7) + queue.take(1000) == expected
        queue.close()
        tracker.clear()
        tracker.close()


def test_negative_tries_and_no_limit(make):
    tracker = make(init={"a": {"_tries": -4}, "b": {"_tries": 1000}, "c": {"_tries": 2**26 - 1}})
    queue = tracker._open_queue(False)
    assert queue.take(10) == [("a", -3, False), ("b", 1001, False)]
    assert queue.claim(["c", "b"]) == [0, 1001 + in_flight(tracker)]


def test_queue_says_whether_a_task_has_an_error(tracker):
    tracker.record_error(1, "x")
    assert tracker._open_queue(False).take(2) == [("a", 1, False), (1, 1, True)]


def test_restart_begins_at_the_first_task_again(tracker):
    queue = tracker._open_queue(False)
    queue.take(100)
    assert tracker._finish_many([(1, FAILED, ERROR), ("é", GIVEN_BACK, None), ("", DONE, None)]) == []
    assert queue.take(100) == []
    queue.restart()
    found = queue.take(100)
    # A private queue does not know what is running.
    assert [item for item in found if item[0] in (1, "é")] == [(1, 2, True), ("é", 1, False)]
    assert len(found) == (2 if isinstance(tracker, SharedTracker) else 5)


def test_large_values_are_not_read(make):
    tracker = make(init={number: {"x": "y" * 10_000} for number in range(50)})
    tracker.sync()
    tracker[7] = {"x": "changed"}
    queue = tracker._open_queue(False)
    assert [key for key, _, _ in queue.take(20)] == list(range(20))
    assert [key for key, _, _ in queue.take(90)] == list(range(20, 50))


def test_many_tasks_with_gaps(make):
    tracker = make()
    tracker.add_many(range(3000))
    tracker.mark_done_many(number for number in range(3000) if number % 7 and number // 500 != 3)
    tracker.sync()
    for number in range(0, 3000, 50):
        del tracker[number]
    queue = tracker._open_queue(False)
    found = []
    while taken := queue.take(37):
        found += [key for key, _, _ in taken]
    assert found == [number for number in range(3000) if (not number % 7 or number // 500 == 3) and number % 50]


def test_watched_dicts_decide(path):
    with Tracker(path, init={key: {} for key in "abc"}) as tracker:
        queue = tracker._open_queue(False)
        a, c = tracker["a"], tracker["c"]
        a["_done"] = True
        assert queue.take(1) == [("b", 1, False)]
        c["_tries"] = 4
        assert queue.take(9) == [("c", 5, False)]
        assert c["_tries"] == 4
        tracker._finish_many([("c", FAILED, None)])
        assert c["_tries"] == 5
        tracker.mark_done("c")
        c["_done"] = False
        queue.restart()
        assert queue.take(9) == [("b", 1, False), ("c", 6, False)]


# Claiming by key


def test_claim_gives_the_next_try_of_tasks_that_are_to_be_done(tracker, place):
    tracker.mark_done("a")
    tracker.abort(1)
    tracker.update([("é", {"_tries": 3})])
    place(tracker)
    queue = tracker._open_queue(False)
    assert queue.claim(["", "é", 1, "a", "missing", ("t", 2), ""]) == [1, 0, 0, 0, -1, 1, 0]
    assert [tracker.tries(key) for key in KEYS] == [0, 0, 0, in_flight(tracker), 3, in_flight(tracker)]
    assert queue.claim([]) == []
    tracker._finish_many([("", RETRY, None), (("t", 2), RETRY, None)])
    assert queue.claim(["", ("t", 2)]) == [2, 2]
    allowing = tracker._open_queue(True)
    assert allowing.claim([1, "a"]) == [1, 0]
    with pytest.raises(InvalidKeyError):
        queue.claim([1.5])


def test_position_stays_after_a_claim_by_key(tracker):
    queue = tracker._open_queue(False)
    assert queue.claim([""]) == [1]
    assert queue.take(1) == [("a", 1, False)]


# Finishing

# For each kind what becomes of a task whose try is counted.
KINDS = {
    DONE: lambda task, data: {**FRESH, **{name: value for name, value in {**task, **(data or {})}.items()
                                          if name != "_error"}, "_done": True},
    FAILED: lambda task, data: {**task, **({"_error": data} if data else {})},
    ABORTED: lambda task, data: {**task, **({"_error": data} if data else {}), "_aborted": True},
    RETRY: lambda task, data: {**task, **({"_error": data} if data else {})},
    POSTPONED: lambda task, data: {**task, **({"_error": data} if data else {}), "_tries": task["_tries"] - 1},
    GIVEN_BACK: lambda task, data: {**task, **({"_error": data} if data else {}), "_tries": task["_tries"] - 1},
    RELEASED: lambda task, data: {**task, **({"_error": data} if data else {})},
}
IS_TRY = {DONE, FAILED, ABORTED, RETRY}
STAYS_CLAIMED = {RETRY, POSTPONED}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [None, {}, {"x": [1]}], ids=str)
@pytest.mark.parametrize("before", [{}, {"x": 0, "y": {"z": 1}}, {"y": 1, "_error": {"type": "old"}}], ids=str)
def test_finishing(make, place, kind, data, before):
    tracker = make(init=dict.fromkeys(KEYS, before))
    queue = tracker._open_queue(False)
    queue.take(100)
    place(tracker)
    task = {**FRESH, "_tries": in_flight(tracker), **before}
    # A release ends no try. A shared tracker has counted one with the claim.
    counted = in_flight(tracker) if kind == RELEASED else 1
    expected = KINDS[kind]({**task, "_tries": counted}, data)
    if data == {} and kind != DONE:
        expected["_error"] = {}
    assert tracker._finish_many([(key, kind, data) for key in KEYS[1:]]) == []
    assert tracker["a"] == task
    for key in KEYS[1:]:
        assert tracker[key] == expected
    if claimed(tracker) is not None:
        assert claimed(tracker) == (KEYS if kind in STAYS_CLAIMED else ["a"])
    tracker._check()
    queue.close()
    again = reopened(tracker, make)
    assert [again[key] for key in KEYS[1:]] == [expected] * 5
    # The flag follows the data.
    again.mark_done_many(KEYS)
    assert not any("_error" in task for task in again.values())


def test_a_held_dict_is_changed_in_place(path):
    with Tracker(path, init={"a": {"x": 1}, "b": {}}) as tracker:
        tracker._open_queue(False).take(2)
        a, b = tracker["a"], tracker["b"]
        tracker._finish_many([("a", FAILED, ERROR), ("b", DONE, {"y": 2})])
        assert (a["_error"], b) == (ERROR, {**FRESH, "_tries": 1, "_done": True, "y": 2})
        tracker._finish_many([("a", DONE, {"x": 2})])
        assert a == {**FRESH, "_tries": 2, "_done": True, "x": 2}


def test_data_may_set_the_status_too(tracker):
    tracker._open_queue(False).take(9)
    assert tracker._finish_many([("a", DONE, {"_tries": 7, "_done": False, "x": 1})]) == []
    assert tracker["a"] == {"_done": True, "_aborted": False, "_tries": 7, "x": 1}


def test_what_cannot_be_stored_is_listed_and_left_unchanged(tracker, place):
    tracker._open_queue(False).take(9)
    place(tracker)
    failures = tracker._finish_many([
        ("a", DONE, {"x": 1}), (1, DONE, {"x": object()}), (KEYS[2], FAILED, {"x": {1}}), ("missing", DONE, None),
        (("t", 2), DONE, {"_tries": "x"}), ("é", FAILED, ERROR), ("", DONE, {"x": "\ud800"}),
    ])
    assert [index for index, _ in failures if index != 6] == [1, 2, 4]
    assert all(isinstance(error, UnstorableValueError) for _, error in failures)
    fresh = {**FRESH, "_tries": in_flight(tracker)}
    ended = {**FRESH, "_tries": 1}
    assert [tracker[key] for key in KEYS[:5]] == [
        {**ended, "_done": True, "x": 1}, fresh, fresh, fresh, {**ended, "_error": ERROR}]
    assert "missing" not in tracker
    if claimed(tracker) is not None:
        assert claimed(tracker)[:3] == [1, KEYS[2], ("t", 2)]
    tracker._check()


@pytest.mark.parametrize("kind", [FAILED, ABORTED, RETRY, POSTPONED, GIVEN_BACK, RELEASED])
def test_a_task_that_was_marked_done_meanwhile_stays_as_it_is(tracker, kind):
    tracker._open_queue(False).take(9)
    tracker.mark_done("a", {"x": 1})
    before = tracker["a"]
    assert tracker._finish_many([("a", kind, ERROR)]) == []
    assert tracker["a"] == {**before, "_tries": int(kind in IS_TRY or isinstance(tracker, SharedTracker))}
    assert claimed(tracker) in (None, KEYS[1:])


@pytest.mark.parametrize("kind", [POSTPONED, GIVEN_BACK])
def test_a_try_is_not_subtracted_after_a_reset(tracker, kind):
    tracker._open_queue(False).take(9)
    tracker.reset_tries("a")
    tracker._finish_many([("a", kind, None)])
    assert tracker.tries("a") == 0


def test_a_task_may_come_twice(tracker):
    tracker._open_queue(False).take(9)
    changes = [(key, kind, {"x": kind, "long": "y" * 9000}, 1) for kind in (RETRY, FAILED, DONE) for key in KEYS]
    changes += [("a", DONE, {"_tries": 5}, 1), ("a", DONE, {"z": object()}, 1)]
    assert [index for index, _ in tracker._finish_many(changes)] == [len(changes) - 1]
    expected = {**FRESH, "_done": True, "_tries": 1, "x": DONE, "long": "y" * 9000}
    assert tracker.items() == [(key, {**expected, "_tries": 5} if key == "a" else expected) for key in KEYS]


@pytest.mark.parametrize("count", [99, 100, 101, 1234])
def test_batches_of_any_size(make, count):
    tracker = make()
    tracker.add_many(range(count))
    tracker._open_queue(False).take(count)
    changes = [(number * 7 % count, DONE, {"x": object() if number % 50 == 3 else number}) for number in range(count)]
    left = {number for number in range(count) if number % 50 == 3}
    assert [index for index, _ in tracker._finish_many(changes)] == sorted(left)
    assert tracker.num_done() == len({key for number, (key, _, _) in enumerate(changes) if number not in left})
    tracker._check()


def test_a_task_that_was_deleted_and_added_again(tracker):
    tracker._open_queue(False).take(9)
    del tracker["a"]
    tracker.add("a")
    assert tracker._finish_many([("a", DONE, {"x": 1})]) == []
    assert tracker["a"] == {**FRESH, "_done": True, "_tries": 1 - in_flight(tracker), "x": 1}


@pytest.mark.parametrize("kind", IS_TRY)
def test_a_try_counts_once_although_its_change_is_made_again(tracker, kind):
    """A program that failed to write some changes writes all of them again."""
    tracker.update([(1, {"_tries": 1})])
    queue = tracker._open_queue(False)
    changes = [(key, kind, None, tries) for key, tries, _ in queue.take(9)]
    for _ in range(3):
        tracker._finish_many(changes)
        assert [tracker.tries(key) for key in KEYS] == [1, 2, 1, 1, 1, 1]


def test_a_try_counts_after_a_reset_on_a_private_tracker(path):
    with Tracker(path, init={"a": {"_tries": 4}}) as tracker:
        [(key, tries, _)] = tracker._open_queue(False).take(9)
        tracker.reset_tries("a")
        tracker._finish_many([(key, FAILED, ERROR, tries)])
        assert tracker.tries("a") == 1


def test_sync_comes_at_the_end_and_not_between(path, monkeypatch):
    with Tracker(path, sync_at=2, sync_every=None) as tracker:
        tracker.add_many(range(100))
        queue = tracker._open_queue(False)
        store, calls = type(tracker._store), []
        write = store.write_sync
        monkeypatch.setattr(store, "write_sync", lambda self, *arguments: calls.append(1) or write(self, *arguments))
        queue.take(100)
        assert (calls, len(tracker.dirty())) == ([], 0)  # taking changes nothing
        tracker._finish_many([(number, DONE, {"x": number}) for number in range(100)])
        assert (calls, tracker.dirty()) == ([1], set())
        tracker.hold()
        queue.claim(range(100))
        tracker._finish_many([(number, FAILED, ERROR) for number in range(100)])
        assert calls == [1]


def test_one_transaction_or_a_part_of_the_open_one(path):
    with SharedTracker(path, init={key: {} for key in "abc"}) as tracker:
        tracker.sync()
        queue = tracker._open_queue(False)
        with suppress(ZeroDivisionError), tracker.transaction():
            assert len(queue.take(2)) == 2
            tracker._finish_many([("a", DONE, {"x": 1})])
            assert tracker.done("a")
            raise ZeroDivisionError
        assert (tracker.num_done(), tracker.claimed_keys(), tracker.num_tried()) == (0, [], 0)
        with tracker.locked():
            found = queue.take(1)
            tracker._finish_many([(key, DONE, {"x": 1}) for key, _, _ in found])
        assert tracker.num_done() == 1


# Errors


def test_closed_stores_and_queues_raise(tracker):
    queue, slot = tracker._open_queue(False), tracker._open_running_slot()
    other = tracker._open_queue(False)
    other.take(1)
    other.close()
    other.close()
    for call in (lambda: other.take(1), lambda: other.claim(["a"])):
        with pytest.raises(CalledClosedTrackerError):
            call()
    tracker.close()
    for call in (lambda: queue.take(1), lambda: queue.claim(["a"]), lambda: tracker._finish_many([("a", DONE, None)]),
                 lambda: tracker._open_queue(False), lambda: tracker._save_run({})):
        with pytest.raises(CalledClosedTrackerError):
            call()
    queue.close()
    slot.end()


def test_error_of_a_task_comes_after_the_tasks_before_it(path):
    with Tracker(path, init={key: {} for key in "0abc"}) as tracker:
        queue, b = tracker._open_queue(False), tracker["b"]
        assert queue.take(1) == [("0", 1, False)]
        b["_tries"] = "x"
        assert queue.take(3) == [("a", 1, False)]
        for _ in range(2):
            with pytest.raises(UnstorableValueError):
                queue.take(3)
        b["_tries"] = 4
        assert queue.take(3) == [("b", 5, False), ("c", 1, False)]


def test_reader_and_forked_child_cannot_take(path):
    with Tracker(path, init={"a": {}}) as tracker:
        queue = tracker._open_queue(False)
        assert result_of_child(lambda pipe: pipe.send(refusals(tracker, queue))) == [5]
    with Tracker(path, mode="r") as reader:
        assert refusals(reader, None) == 4
        reader._open_running_slot().end()


def refusals(tracker, queue):
    count = 0
    for call in (lambda: queue and queue.take(1), lambda: tracker._open_queue(False).take(1),
                 lambda: tracker._finish_many([("a", DONE, None)]), lambda: tracker._save_run({}),
                 lambda: tracker._open_running_slot().begin("a", 1)):
        try:
            call()
        except PersistentOrderedDictException:
            count += 1
    return count


# The facts of a run


def test_facts_of_the_last_run_are_kept(tracker, make, tmp_path):
    assert read_run(tracker._store) is None
    for info in {"workers": 4}, {"function": "é", "ended": None}:
        tracker._save_run(info)
        assert read_run(tracker._store) == info
    tracker.sync()
    tracker = reopened(tracker, make)
    assert read_run(tracker._store) == info
    tracker.close()
    with Tracker(tracker.path, mode="r") as reader:
        assert read_run(reader._store) == info
    maintenance.copy(tracker.path, tmp_path / "copy")
    with Tracker(tmp_path / "copy") as other:
        assert read_run(other._store) == info
        for raw in b"[]", b"{", b"":
            other._store.write(lambda txn, raw=raw: txn.put(b"run", raw, db=other._store.meta))
            assert read_run(other._store) is None
    assert maintenance.verify(tracker.path) == []


# Everything together


@pytest.mark.parametrize("seed", range(12))
def test_random_operations_agree_with_a_model(make, seed):
    rng = random.Random(f"task queue {seed}")
    max_tries = rng.choice([0, 2, 3])
    tracker = make(max_tries=max_tries, sync_at=rng.choice([1, 5, 1000]))
    shared = isinstance(tracker, SharedTracker)
    model = {}
    queue, in_flight, waiting = tracker._open_queue(False), set(), set()
    position, count = -1, 0
    places = {}
    for _ in range(300):
        what = rng.choice(["add", "take", "take", "finish", "finish", "finish", "claim", "restart", "sync", "status"])
        if what == "add":
            key = f"task {count}"
            tracker.add(key)
            model[key], places[key] = dict(FRESH), count
            count += 1
        elif what == "take":
            limit = rng.randrange(1, 6)
            expected = [key for key, task in model.items() if places[key] > position
                        and is_open(task, False, max_tries) and not (shared and key in in_flight | waiting)][:limit]
            for key in expected:
                model[key]["_tries"] += shared
                position = places[key]
            in_flight.update(expected)
            waiting.difference_update(expected)
            assert queue.take(limit) == [
                (key, model[key]["_tries"] + (not shared), "_error" in model[key]) for key in expected]
        elif what == "claim":
            keys = rng.sample(list(model), min(len(model), 3))
            expected = []
            for key in keys:
                opens = is_open(model[key], False, max_tries)
                model[key]["_tries"] += opens and shared
                expected.append(model[key]["_tries"] + (not shared) if opens else 0)
                if opens:
                    in_flight.add(key)
                    waiting.discard(key)
            assert queue.claim(keys) == expected
        elif what == "finish":
            changes = []
            for key in rng.sample(sorted(in_flight, key=places.get), min(len(in_flight), rng.randrange(4))):
                kind = rng.choice(list(KINDS))
                data = rng.choice([None, {"type": rng.random()}])
                changes.append((key, kind, data))
                model[key]["_tries"] += not shared and kind != RELEASED
                model[key] = KINDS[kind](model[key], data)
                in_flight.discard(key)
                if kind in STAYS_CLAIMED:
                    waiting.add(key)
            if waiting and rng.random() < 0.3:
                key = min(waiting, key=places.get)
                waiting.remove(key)
                changes.append((key, RELEASED, None))
            if shared and rng.random() < 0.3:
                with tracker.transaction():
                    # Only the first of them can be written without the cache.
                    half = len(changes) // 2
                    for part in changes[:half], changes[half:]:
                        assert tracker._finish_many(part) == []
            else:
                assert tracker._finish_many(iter(changes)) == []
        elif what == "restart":
            queue.restart()
            position = -1
        elif what == "sync":
            tracker.sync()
        elif model:
            key = rng.choice(list(model))
            if key not in in_flight | waiting:
                tracker.mark_not_done(key)
                tracker.unabort(key)
                model[key].update(_done=False, _aborted=False)
        assert dict(tracker.items()) == model
    tracker._check()
    if shared:
        assert set(tracker.claims()) == in_flight | waiting
        assert {claim.state for claim in tracker.claims().values()} <= {"running"}


# The running task of a thread


def test_task_in_a_running_slot_is_counted_when_it_kills_the_process(path):
    with Tracker(path) as tracker:
        tracker.add_many("abcd")
    with Child(lambda pipe: run_and_die(path)) as child:
        assert child.wait() == -9
    with Tracker(path) as tracker:
        assert [tracker.tries(key) for key in "abcd"] == [0, 1, 1, 0]


def run_and_die(path):
    tracker = ProgressTracker(path, sync_every=None)
    queue = tracker._open_queue(False)
    slots = [tracker._open_running_slot() for _ in range(4)]
    for slot, (key, tries, _) in zip(slots, queue.take(4), strict=True):
        slot.begin(key, tries)
    slots[0].end()
    slots[3].begin("missing", 1)
    # The try stays noted although the task's status changes.
    tracker.record_error("b", "x")
    os.kill(os.getpid(), 9)
