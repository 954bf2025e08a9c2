"""What users write: each public method of the four classes, with the exact type of what it returns.

mypy --strict and pyright check this file (see test_typing.py); it is never run.
"""

# pyright: strict

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import assert_type

from tastypy_fast import (
    POD,
    PersistentOrderedDict,
    ProgressTracker,
    SharedPersistentOrderedDict,
    SharedPOD,
    SharedProgressTracker,
    SharedTracker,
    Tracker,
)
from tastypy_fast.pipeline import Abort, CurrentTask, Retry, RunReport, TaskResult, current_task
from tastypy_fast.types import (
    Claim,
    ClaimIterator,
    ClaimState,
    Durability,
    Key,
    Mode,
    Pairs,
    ProgressBar,
    StatusCounts,
    StoreIterator,
    StoreLike,
    TaskStatus,
    TrackerLike,
)

Task = dict[str, Any]
Page = dict[str, int]
V = TypeVar("V")


# PersistentOrderedDict


def pod(pod: PersistentOrderedDict[str, Page]) -> None:
    # Reading
    assert_type(pod["a"], Page)
    assert_type(pod.get("a"), Page | None)
    assert_type(pod.get("a", {}), Page)
    assert_type(pod.get("a", 0), Page | int)
    assert_type("a" in pod, bool)
    assert_type(len(pod), int)
    assert_type(pod == {}, bool)
    assert_type(list(pod), list[str])
    assert_type(list(reversed(pod)), list[str])
    assert_type(pod.keys(), list[str])
    assert_type(pod.values(), list[Page])
    assert_type(pod.items(), list[tuple[str, Page]])
    assert_type(pod.keys()[0], str)
    assert_type(pod.items()[0], tuple[str, Page])
    assert_type(pod.iterkeys(), StoreIterator[str])
    assert_type(pod.itervalues(), StoreIterator[Page])
    assert_type(pod.iteritems(), StoreIterator[tuple[str, Page]])
    assert_type(next(pod.iteritems()), tuple[str, Page])
    assert_type(next(iter(pod)), str)
    assert_type(pod.get_many(["a", "b"]), Iterator[tuple[str, Page]])
    assert_type(dict(pod.get_many(key for key in pod)), dict[str, Page])
    assert_type(list(pod.get_many(pod)), list[tuple[str, Page]])

    # Changing
    pod["a"] = {"n": 1}
    del pod["a"]
    pod.update({"a": {}}, [("b", {"n": 1})], c={})
    pod.update(pod)
    pod |= {"a": {}}
    assert_type(pod, PersistentOrderedDict[str, Page])
    assert_type(pod.setdefault("a", {}), Page)
    assert_type(pod.pop("a"), Page)
    assert_type(pod.pop("a", None), Page | None)
    assert_type(pod.pop("a", {}), Page)
    assert_type(pod.popitem(), tuple[str, Page])
    assert_type(pod.popitem(last=False), tuple[str, Page])
    pod.move_to_end("a")
    assert_type(pod.copy(), dict[str, Page])
    assert_type(pod | {"a": Page()}, dict[str, Page])
    assert_type({"a": Page()} | pod, dict[str, Page])
    assert_type(pod | {1: None}, dict[str | int, Page | None])
    pod.clear()
    pod.set["a"] = {}
    pod.set["a"]["n"] += 1
    pod.set["a"].update(n=1)
    del pod.set["a"]["n"]
    pod.set |= {"a": {}}

    # Saving
    pod.sync()
    pod.sync_key("a")
    pod.mark_dirty("a")
    assert_type(pod.dirty(), set[str])
    pod.revert()
    pod.hold()
    pod.unhold()

    # Blocks and the end of a store
    assert_type(pod.locked(), AbstractContextManager[PersistentOrderedDict[str, Page], None])
    with pod.locked() as locked:
        assert_type(locked, PersistentOrderedDict[str, Page])
    with pod as opened:
        assert_type(opened, PersistentOrderedDict[str, Page])
    pod.close()

    # Attributes
    assert_type(pod.path, str)
    assert_type(pod.mode, Mode)
    assert_type(pod.durability, Durability)
    assert_type(pod.gzipped, bool)
    assert_type(pod.file_size, int)
    assert_type(pod.closed, bool)
    assert_type(repr(pod), str)

    # Import and export
    assert_type(pod.export_json("folder"), int)
    assert_type(pod.export_jsonl(Path("x.jsonl")), int)
    assert_type(pod.export_jsonl(io.StringIO()), int)
    assert_type(pod.import_jsonl(io.BytesIO()), int)
    assert_type(
        PersistentOrderedDict[str, Page].import_json("folder", "path", sync_at=10), PersistentOrderedDict[str, Page]
    )


def pod_made() -> None:
    assert_type(PersistentOrderedDict("path"), PersistentOrderedDict[Any, Any])
    assert_type(PersistentOrderedDict("path", init={"a": 1})["a"], Any)
    assert_type(
        PersistentOrderedDict[str, int](Path("path"), {"a": 1}, True, 10, 20, False, mode="w", durability="full"),
        PersistentOrderedDict[str, int],
    )
    annotated: PersistentOrderedDict[tuple[str, int], list[str]] = PersistentOrderedDict("path")
    assert_type(annotated.keys(), list[tuple[str, int]])
    nothing: PersistentOrderedDict[str, int | None] = PersistentOrderedDict("path")
    assert_type(nothing.setdefault("a"), int | None)


# SharedPersistentOrderedDict


def shared_pod(pod: SharedPersistentOrderedDict[str, Page]) -> None:
    # Reading
    assert_type(pod["a"], Page)
    assert_type(pod.get("a"), Page | None)
    assert_type(pod.get("a", {}), Page)
    assert_type(pod.get("a", 0), Page | int)
    assert_type("a" in pod, bool)
    assert_type(len(pod), int)
    assert_type(pod == {}, bool)
    assert_type(list(pod), list[str])
    assert_type(list(reversed(pod)), list[str])
    assert_type(pod.keys(), list[str])
    assert_type(pod.values(), list[Page])
    assert_type(pod.items(), list[tuple[str, Page]])
    assert_type(pod.keys()[0], str)
    assert_type(pod.items()[0], tuple[str, Page])
    assert_type(pod.iterkeys(), StoreIterator[str])
    assert_type(pod.itervalues(), StoreIterator[Page])
    assert_type(pod.iteritems(), StoreIterator[tuple[str, Page]])
    assert_type(next(pod.iteritems()), tuple[str, Page])
    assert_type(next(iter(pod)), str)
    assert_type(pod.get_many(["a", "b"]), Iterator[tuple[str, Page]])
    assert_type(dict(pod.get_many(key for key in pod)), dict[str, Page])
    assert_type(list(pod.get_many(pod)), list[tuple[str, Page]])

    # Changing
    pod["a"] = {"n": 1}
    del pod["a"]
    pod.update({"a": {}}, [("b", {"n": 1})], c={})
    pod.update(pod)
    pod |= {"a": {}}
    assert_type(pod, SharedPersistentOrderedDict[str, Page])
    assert_type(pod.setdefault("a", {}), Page)
    assert_type(pod.pop("a"), Page)
    assert_type(pod.pop("a", None), Page | None)
    assert_type(pod.pop("a", {}), Page)
    assert_type(pod.popitem(), tuple[str, Page])
    assert_type(pod.popitem(last=False), tuple[str, Page])
    pod.move_to_end("a")
    assert_type(pod.copy(), dict[str, Page])
    assert_type(pod | {"a": Page()}, dict[str, Page])
    assert_type({"a": Page()} | pod, dict[str, Page])
    assert_type(pod | {1: None}, dict[str | int, Page | None])
    pod.clear()
    pod.set["a"] = {}
    pod.set["a"]["n"] += 1
    pod.set["a"].update(n=1)
    del pod.set["a"]["n"]
    pod.set |= {"a": {}}

    # Saving
    pod.sync()
    pod.sync_key("a")
    pod.mark_dirty("a")
    assert_type(pod.dirty(), set[str])
    pod.revert()
    pod.hold()
    pod.unhold()

    # Blocks and the end of a store
    assert_type(pod.locked(), AbstractContextManager[SharedPersistentOrderedDict[str, Page], None])
    with pod.locked() as locked:
        assert_type(locked, SharedPersistentOrderedDict[str, Page])
    with pod as opened:
        assert_type(opened, SharedPersistentOrderedDict[str, Page])
    pod.close()

    # Attributes
    assert_type(pod.path, str)
    assert_type(pod.mode, Mode)
    assert_type(pod.durability, Durability)
    assert_type(pod.gzipped, bool)
    assert_type(pod.file_size, int)
    assert_type(pod.closed, bool)
    assert_type(repr(pod), str)

    # Import and export
    assert_type(pod.export_json("folder"), int)
    assert_type(pod.export_jsonl(Path("x.jsonl")), int)
    assert_type(pod.export_jsonl(io.StringIO()), int)
    assert_type(pod.import_jsonl(io.BytesIO()), int)
    assert_type(
        SharedPersistentOrderedDict[str, Page].import_json("folder", "path", sync_at=10),
        SharedPersistentOrderedDict[str, Page],
    )


def shared_pod_made() -> None:
    assert_type(SharedPersistentOrderedDict("path"), SharedPersistentOrderedDict[Any, Any])
    assert_type(SharedPersistentOrderedDict("path", init={"a": 1})["a"], Any)
    assert_type(
        SharedPersistentOrderedDict[str, int](Path("path"), {"a": 1}, True, 10, 20, durability="full"),
        SharedPersistentOrderedDict[str, int],
    )
    annotated: SharedPersistentOrderedDict[tuple[str, int], list[str]] = SharedPersistentOrderedDict("path")
    assert_type(annotated.keys(), list[tuple[str, int]])
    nothing: SharedPersistentOrderedDict[str, int | None] = SharedPersistentOrderedDict("path")
    assert_type(nothing.setdefault("a"), int | None)


def shared_pod_shared(pod: SharedPersistentOrderedDict[str, Page]) -> int:
    assert_type(pod.transaction(), AbstractContextManager[SharedPersistentOrderedDict[str, Page], None])
    with pod.transaction() as inside:
        assert_type(inside, SharedPersistentOrderedDict[str, Page])
    pod.lock()
    pod.unlock()
    with pod.locked():
        return 1


# ProgressTracker


def tracker(tracker: ProgressTracker[str]) -> None:
    # As a dict
    assert_type(tracker["a"], Task)
    assert_type(tracker.get("a"), Task | None)
    assert_type(tracker.items(), list[tuple[str, Task]])
    assert_type(tracker.pop("a", None), Task | None)
    assert_type(tracker.setdefault("a", {}), Task)
    assert_type(tracker.iteritems(), StoreIterator[tuple[str, Task]])
    assert_type(tracker.dirty(), set[str])
    tracker["a"] = {"size": 1}
    tracker.update({"a": {"size": 1}}, [("b", {})], c={})
    tracker |= {"a": {}}
    tracker.set["a"]["size"] += 1
    with tracker as opened:
        assert_type(opened, ProgressTracker[str])
    with tracker.locked() as locked:
        assert_type(locked, ProgressTracker[str])
    assert_type(tracker.max_tries, int)
    assert_type(tracker.kept_max_tries, int)

    # Adding
    tracker.add("a")
    tracker.add_if_absent("a")
    tracker.add_many(["a", "b"])
    tracker.add_many_if_absent(key for key in "abc")

    # One task
    tracker.mark_done("a")
    tracker.mark_done("a", {"size": 1})
    tracker.mark_done_many(["a"])
    tracker.record_error("a", ValueError("x"))
    tracker.record_error("a", "text")
    tracker.mark_not_done("a")
    tracker.abort("a")
    tracker.unabort("a")
    tracker.increment_tries("a")
    tracker.decrement_tries("a")
    tracker.reset_tries("a")
    tracker.release("a")
    assert_type(tracker.done("a"), bool)
    assert_type(tracker.aborted("a"), bool)
    assert_type(tracker.tries("a"), int)
    assert_type(tracker.status("a"), TaskStatus)
    assert_type(tracker.count_by_status(), StatusCounts)
    assert_type(tracker.count_by_status().to_retry + tracker.count_by_status().tasks, int)
    assert_type(tracker.should_do("a"), bool)
    assert_type(tracker.should_do_add("a", allow_aborted=True), bool)
    assert_type(tracker.should_try("a"), bool)
    assert_type(tracker.should_try_add("a"), bool)

    # All tasks
    assert_type(tracker.num_done(), int)
    assert_type(tracker.num_aborted(), int)
    assert_type(tracker.num_tried(), int)
    assert_type(tracker.fraction_done(), float)
    assert_type(tracker.fraction_aborted(), float)
    assert_type(tracker.fraction_tried(), float)
    assert_type(tracker.percent_done(), str)
    assert_type(tracker.percent_not_done(1), str)
    assert_type(tracker.percent_aborted(decimals=0), str)
    assert_type(tracker.percent_not_aborted(), str)
    assert_type(tracker.percent_tried(), str)
    assert_type(tracker.percent_not_tried(), str)

    # Loops
    assert_type(tracker.todo_keys(), StoreIterator[str])
    assert_type(tracker.todo_values(allow_aborted=True), StoreIterator[Task])
    assert_type(tracker.todo_items(), StoreIterator[tuple[str, Task]])
    assert_type(tracker.aborted_keys(), StoreIterator[str])
    assert_type(tracker.aborted_values(), StoreIterator[Task])
    assert_type(tracker.aborted_items(), StoreIterator[tuple[str, Task]])
    assert_type(tracker.try_keys(batch=10), ClaimIterator[str])
    assert_type(tracker.try_values(), ClaimIterator[Task])
    assert_type(tracker.try_items(True, batch=2), ClaimIterator[tuple[str, Task]])
    for key, task in tracker.try_items():
        assert_type(key, str)
        assert_type(task, Task)
    assert_type(tracker.progress(), ProgressBar[str])
    assert_type(tracker.progress(tracker.todo_items(), desc="x"), ProgressBar[tuple[str, Task]])
    with tracker.progress() as bar:
        bar.update()
        bar.set_postfix(x=1)
    assert_type(tracker.to_arrow(as_json=["a"]), Any)
    assert_type(tracker.to_arrow(columns=["key"], status="to retry"), Any)
    assert_type(tracker.to_pandas(), Any)
    assert_type(tracker.to_pandas(columns=("key",), status=["done", "failed"], types_mapper=None), Any)
    assert_type(tracker.to_polars(), Any)


def tracker_made() -> None:
    assert_type(ProgressTracker("path"), ProgressTracker[Any])
    assert_type(ProgressTracker("path")["a"], Task)
    assert_type(
        ProgressTracker[int](Path("path"), 3, {1: {}}, True, 10, 20, False, mode="r", durability="full"),
        ProgressTracker[int],
    )
    plain: PersistentOrderedDict[int, Task] = ProgressTracker[int]("path")
    assert_type(plain.keys(), list[int])


# SharedProgressTracker


def shared_tracker(tracker: SharedProgressTracker[str]) -> None:
    # As a dict
    assert_type(tracker["a"], Task)
    assert_type(tracker.get("a"), Task | None)
    assert_type(tracker.items(), list[tuple[str, Task]])
    assert_type(tracker.pop("a", None), Task | None)
    assert_type(tracker.setdefault("a", {}), Task)
    assert_type(tracker.iteritems(), StoreIterator[tuple[str, Task]])
    assert_type(tracker.dirty(), set[str])
    tracker["a"] = {"size": 1}
    tracker.update({"a": {"size": 1}}, [("b", {})], c={})
    tracker |= {"a": {}}
    tracker.set["a"]["size"] += 1
    with tracker as opened:
        assert_type(opened, SharedProgressTracker[str])
    with tracker.locked() as locked:
        assert_type(locked, SharedProgressTracker[str])
    assert_type(tracker.max_tries, int)
    assert_type(tracker.kept_max_tries, int)

    # Adding
    tracker.add("a")
    tracker.add_if_absent("a")
    tracker.add_many(["a", "b"])
    tracker.add_many_if_absent(key for key in "abc")

    # One task
    tracker.mark_done("a")
    tracker.mark_done("a", {"size": 1})
    tracker.mark_done_many(["a"])
    tracker.record_error("a", ValueError("x"))
    tracker.record_error("a", "text")
    tracker.mark_not_done("a")
    tracker.abort("a")
    tracker.unabort("a")
    tracker.increment_tries("a")
    tracker.decrement_tries("a")
    tracker.reset_tries("a")
    tracker.release("a")
    assert_type(tracker.done("a"), bool)
    assert_type(tracker.aborted("a"), bool)
    assert_type(tracker.tries("a"), int)
    assert_type(tracker.status("a"), TaskStatus)
    assert_type(tracker.count_by_status(), StatusCounts)
    assert_type(tracker.count_by_status().to_retry + tracker.count_by_status().tasks, int)
    assert_type(tracker.should_do("a"), bool)
    assert_type(tracker.should_do_add("a", allow_aborted=True), bool)
    assert_type(tracker.should_try("a"), bool)
    assert_type(tracker.should_try_add("a"), bool)

    # All tasks
    assert_type(tracker.num_done(), int)
    assert_type(tracker.num_aborted(), int)
    assert_type(tracker.num_tried(), int)
    assert_type(tracker.fraction_done(), float)
    assert_type(tracker.fraction_aborted(), float)
    assert_type(tracker.fraction_tried(), float)
    assert_type(tracker.percent_done(), str)
    assert_type(tracker.percent_not_done(1), str)
    assert_type(tracker.percent_aborted(decimals=0), str)
    assert_type(tracker.percent_not_aborted(), str)
    assert_type(tracker.percent_tried(), str)
    assert_type(tracker.percent_not_tried(), str)

    # Loops
    assert_type(tracker.todo_keys(), StoreIterator[str])
    assert_type(tracker.todo_values(allow_aborted=True), StoreIterator[Task])
    assert_type(tracker.todo_items(), StoreIterator[tuple[str, Task]])
    assert_type(tracker.aborted_keys(), StoreIterator[str])
    assert_type(tracker.aborted_values(), StoreIterator[Task])
    assert_type(tracker.aborted_items(), StoreIterator[tuple[str, Task]])
    assert_type(tracker.try_keys(batch=10), ClaimIterator[str])
    assert_type(tracker.try_values(), ClaimIterator[Task])
    assert_type(tracker.try_items(True, batch=2), ClaimIterator[tuple[str, Task]])
    for key, task in tracker.try_items():
        assert_type(key, str)
        assert_type(task, Task)
    assert_type(tracker.progress(), ProgressBar[str])
    assert_type(tracker.progress(tracker.todo_items(), desc="x"), ProgressBar[tuple[str, Task]])
    with tracker.progress() as bar:
        bar.update()
        bar.set_postfix(x=1)
    assert_type(tracker.to_arrow(as_json=["a"]), Any)
    assert_type(tracker.to_arrow(columns=["key"], status="to retry"), Any)
    assert_type(tracker.to_pandas(), Any)
    assert_type(tracker.to_pandas(columns=("key",), status=["done", "failed"], types_mapper=None), Any)
    assert_type(tracker.to_polars(), Any)


def shared_tracker_made() -> None:
    assert_type(SharedProgressTracker("path"), SharedProgressTracker[Any])
    assert_type(SharedProgressTracker("path")["a"], Task)
    assert_type(
        SharedProgressTracker[int](Path("path"), 3, {1: {}}, True, 10, 20, durability="full"),
        SharedProgressTracker[int],
    )
    plain: SharedPersistentOrderedDict[int, Task] = SharedProgressTracker[int]("path")
    assert_type(plain.keys(), list[int])


def shared_tracker_shared(tracker: SharedProgressTracker[str]) -> None:
    assert_type(tracker.claims(), dict[str, Claim])
    assert_type(tracker.claimed_keys(), list[str])
    assert_type(tracker.claims()["a"].state, ClaimState)
    assert_type(tracker.claims()["a"].process, int)
    tracker.try_keys().close()
    with tracker.transaction() as inside:
        assert_type(inside, SharedProgressTracker[str])
    tracker.lock()
    tracker.unlock()


# A pipeline


def fetch(url: str) -> TaskResult | Task | None:
    task = current_task()
    assert_type(task, CurrentTask)
    assert_type(task.key, Any)
    assert_type(task.tries, int)
    assert_type(task.slot, int)
    assert_type(task.data, Task | None)
    if task.tries > 2:
        raise Abort("gone")
    if task.slot:
        raise Retry(after=1.5, count=True, reason="busy")
    result = TaskResult({"size": 1}, add=["a"])
    assert_type(result.data, Any)
    assert_type(result.add, list[Any])
    return result if url else None


async def fetch_async(url: str, data: Task) -> list[int]:
    return [len(url), len(data)]


def on_result(key: str, data: Task | None) -> None:
    pass


def on_failure(key: str, error: Task, final: bool) -> bool:
    return final


def pipeline(tracker: ProgressTracker[str], shared: SharedProgressTracker[str], either: TrackerLike[str]) -> None:
    assert_type(tracker.run(fetch), RunReport)
    assert_type(tracker.run(fetch, workers=40, timeout=300, retries=2, progress=True), RunReport)
    assert_type(
        tracker.run(
            fetch_async,
            progress={"desc": "pages"},
            executor="async",
            tasks=(key for key in tracker.todo_keys() if key),
            with_data=True,
            allow_aborted=True,
            backoff=lambda tries: 10.0 * tries,
            abort_on=(KeyError, OSError),
            initializer=print,
            initargs=("a", 1),
            start_method="spawn",
            deadline=0.5,
            max_failures=0.05,
            on_result=on_result,
            on_failure=on_failure,
            stop=threading.Event(),
        ),
        RunReport,
    )
    shared.run(fetch, executor=ThreadPoolExecutor(2))
    shared.run(fetch, executor=lambda: ProcessPoolExecutor(2))
    report = shared.run(fetch, abort_on=ValueError, max_failures=10, backoff=2)
    assert_type(report, RunReport)
    assert_type(report.done + report.failed + report.aborted + report.retried, int)
    assert_type(report.timed_out + report.workers_lost + report.left, int)
    assert_type(report.seconds, float)
    assert_type(report.reason, str)
    assert_type(report.errors, list[tuple[Any, Task]])
    report.raise_for_failed()
    checked: RunReport = either.run(fetch, workers=2, on_result=on_result)
    del checked


# Names


def aliases() -> None:
    assert_type(POD[str, int]("path"), PersistentOrderedDict[str, int])
    assert_type(Tracker[str]("path"), ProgressTracker[str])
    assert_type(SharedPOD[str, int]("path"), SharedPersistentOrderedDict[str, int])
    assert_type(SharedTracker[str]("path"), SharedProgressTracker[str])
    key: Key = ("a", (1, "b"))
    pairs: Pairs[str, int] = {"a": 1}
    POD[str, int]("path").update(pairs)
    POD[Key, int]("path")[key] = 1


def without_parameters(pod: POD, shared: SharedPOD, tracker: Tracker, one: SharedTracker) -> None:
    assert_type(pod["a"], Any)
    assert_type(shared[1], Any)
    assert_type(tracker["a"], Task)
    assert_type(one.keys(), list[Any])


# Classes of the user's


class Pages(SharedPOD[str, Page]):
    def total(self) -> int:
        return sum(page["n"] for page in self.values())


class Jobs(Tracker[int]):
    pass


def subclasses(pages: Pages, jobs: Jobs) -> None:
    assert_type(pages["a"], Page)
    with pages.locked() as locked, pages.transaction() as inside:
        assert_type(locked, Pages)
        assert_type(inside.total(), int)
    with jobs.locked() as held:
        assert_type(held, Jobs)
    assert_type(jobs.keys(), list[int])
    assert_type(Jobs.import_json("folder", "path"), Jobs)


# Code for private and shared stores


def swap(store: StoreLike[str, int], one: str, other: str) -> None:
    with store.locked() as locked:
        assert_type(locked, StoreLike[str, int])
        store[one], store[other] = store[other], store[one]
    store.set["a"] = 1
    store.set["a"] += 1
    store.set |= {"b": 1}
    store.update({"a": 1})
    assert_type(store.get(one), int | None)
    assert_type(store.pop(one), int)
    assert_type(store.pop(one, default=None), Any)
    assert_type(store.items(), list[tuple[str, int]])
    assert_type(store.dirty(), set[str])


def values_of(store: StoreLike[str, V]) -> list[V]:
    return store.values()


def use_values_of() -> None:
    assert_type(values_of(PersistentOrderedDict[str, int]("path")), list[int])
    assert_type(values_of(SharedPersistentOrderedDict[str, Page]("path")), list[Page])
    assert_type(values_of(Tracker[str]("path")), list[Task])
    assert_type(values_of(SharedTracker[str]("path")), list[Task])


def work(tracker: TrackerLike[str], keys: Iterable[str]) -> int:
    tracker.add_many_if_absent(keys)
    for key, task in tracker.try_items(batch=100):
        assert_type(key, str)
        assert_type(task, Task)
        tracker.release(key)
    tracker.try_keys().close()
    tracker.mark_done_many(keys)
    assert_type(tracker.todo_keys(), StoreIterator[str])
    return tracker.num_done()


def all_kinds() -> None:
    swap(POD("path"), "a", "b")
    swap(POD[str, int]("path"), "a", "b")
    swap(SharedPOD[str, int]("path"), "a", "b")
    work(Tracker[str]("path"), "abc")
    work(SharedTracker[str]("path"), "abc")
    tracker: StoreLike[str, Task] = Tracker[str]("path")
    shared: StoreLike[str, Task] = SharedTracker[str]("path")
    iterator: StoreIterator[str] = SharedTracker[str]("path").try_keys()
    del tracker, shared, iterator
