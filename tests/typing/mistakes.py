"""What must not type check: each line that ends with an "error" comment is one mistake, and no other line is.

mypy --strict and pyright find all of them (see test_typing.py), so that types that became vague are noticed.
"""

# pyright: strict

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker
from tastypy_fast.types import ClaimIterator, StoreLike, TrackerLike


def keys_and_values(pod: POD[str, int], shared: SharedPOD[str, int]) -> None:
    pod[1]  # error
    pod["a"] = "text"  # error
    pod.get(1)  # error
    pod.update({"a": "text"})  # error
    pod.setdefault("a", [])  # error
    pod.pop(("a",))  # error
    pod.sync_key(1)  # error
    shared[1]  # error
    shared["a"] = "text"  # error
    shared.update([("a", "text")])  # error
    shared.mark_dirty(1)  # error
    shared.set = 3  # error
    pod.mode = "r"  # error


def results(pod: POD[str, int], shared: SharedPOD[str, int], one: SharedTracker[str]) -> None:
    assert_type(pod["a"], Any)  # error
    assert_type(pod.get("a"), int)  # error
    assert_type(pod.keys(), list[Any])  # error
    assert_type(shared["a"], Any)  # error
    assert_type(shared.items(), list[Any])  # error
    assert_type(shared.popitem(), Any)  # error
    assert_type(one.claims(), Any)  # error
    assert_type(one.try_keys(), ClaimIterator[Any])  # error


def arguments() -> None:
    POD[float, int]("path")  # error
    POD[str, int]("path", mode="x")  # error
    POD[str, int]("path", durability="most")  # error
    SharedPOD[str, int]("path", mode="r")  # error
    SharedTracker[str]("path", durability="none")  # error
    Tracker[str, int]("path")  # error


def tasks(tracker: Tracker[str], one: SharedTracker[str]) -> None:
    tracker["a"] = 1  # error
    tracker.add(1)  # error
    tracker.add_many([1, 2])  # error
    tracker.mark_done(1)  # error
    tracker.record_error("a", 1)  # error
    one.mark_done_many([1])  # error
    one.abort(1)  # error
    one.release(1)  # error
    tracker.claims()  # error
    tracker.transaction()  # error
    tracker.try_keys(10, 5)  # error


def wrong_result(key: int, data: None) -> None:
    pass


def pipeline(tracker: Tracker[str], one: SharedTracker[str], either: TrackerLike[str]) -> None:
    tracker.run("print")  # error
    tracker.run(print, 4)  # error
    tracker.run(print, workers="4")  # error
    tracker.run(print, on_result=wrong_result)  # error
    tracker.run(print, tasks=[1, 2])  # error
    one.run(print, abort_on=[ValueError])  # error
    one.run(print, stop=True)  # error
    one.run(print).missing()  # error
    either.run(print, chunk=5)  # error


def plain(pod: POD[str, dict[str, Any]], other: dict[str, int]) -> None:
    tracker: TrackerLike[str] = pod  # error
    store: StoreLike[str, int] = other  # error
    pod.lock()  # error
    del tracker, store
