"""``tracker.run()``: what becomes of results, errors and tries, with every kind of tracker and executor."""

from __future__ import annotations

import functools
import math
import threading
import time
from itertools import count

import pytest

from tastypy_fast import RunInProgressError, SharedTracker, TasksFailedError, Tracker
from tastypy_fast._inspect.store_info import read_run
from tastypy_fast.pipeline import Abort, Retry, RunReport, TaskResult, current_task, task_source
from tests.support.children import Child


def status(tracker, key):
    task = tracker[key]
    return task["_done"], task["_aborted"], task["_tries"]


def data(tracker, key):
    return {name: value for name, value in tracker[key].items() if name not in ("_done", "_aborted", "_tries")}


# Results


def test_every_task_is_done_once_and_results_are_kept(make, run, calls):
    tracker = make(max_tries=3)
    tracker.add_many(range(300))

    def work(key):
        calls.note(key)
        return {"square": key * key}

    report = run(tracker, work)
    assert (report.done, report.failed, report.left, report.reason) == (300, 0, 0, "finished")
    assert calls.counts() == {str(key): 1 for key in range(300)}
    assert [tracker[key] for key in (0, 299)] == [
        {"_done": True, "_aborted": False, "_tries": 1, "square": key * key} for key in (0, 299)]
    assert run(tracker, work).done == 0


# What is made of a result or of the number of tries is decided in the process of the run. The ordinary run takes those
# that come from another process and those that do not.
far_and_near = pytest.mark.parametrize("run", [
    "processes", "inline", *(pytest.param(kind, marks=pytest.mark.storm) for kind in ("threads", "async")),
], indirect=True)


@far_and_near
@pytest.mark.parametrize(("result", "kept"), [
    (None, {"old": 1}),
    ({}, {"old": 1}),
    ({"new": [1]}, {"old": 1, "new": [1]}),
    ({"old": None}, {"old": None}),
    (8, {"old": 1, "result": 8}),
    (False, {"old": 1, "result": False}),
    (["a"], {"old": 1, "result": ["a"]}),
    (TaskResult({"x": 1}), {"old": 1, "x": 1}),
    (TaskResult("text", add=["b", "a"]), {"old": 1, "result": "text"}),
])
def test_result_is_mixed_into_the_task(make, run, result, kept):
    tracker = make(init={"a": {"old": 1}})
    report = run(tracker, lambda key: result if key == "a" else None)
    assert data(tracker, "a") == kept
    assert tracker.done("a")
    assert report.done == len(tracker) == 1 + ("b" in tracker)


def test_nan_is_kept(make, run):
    tracker = make(init={"a": {}})
    run(tracker, lambda key: math.nan)
    assert math.isnan(tracker["a"]["result"])


def test_tasks_that_a_result_adds_are_run_in_the_same_run(make, run):
    tracker = make(max_tries=3)
    tracker.add(1)
    report = run(tracker, lambda key: TaskResult({"key": key}, add=[2 * key, 2 * key + 1] if key < 64 else []))
    assert report.done == len(tracker) == tracker.num_done() == 127
    assert tracker[100]["key"] == 100


def test_tasks_that_another_thread_adds_during_the_run_are_run(make, run):
    tracker = make(max_tries=3)
    tracker.add("first")

    def add(key, data):
        if key == "first":
            tracker.add("second")

    report = run(tracker, lambda key: {"key": key}, on_result=add)
    assert report.done == 2
    assert tracker["second"]["key"] == "second"


@far_and_near
@pytest.mark.parametrize("result", [{1, 2}, b"bytes", {"a": {1}}, object, {1: 2, "_done": False}, {"_tries": 5},
                                    TaskResult(add=[1.5])])
def test_result_that_cannot_be_kept_fails_its_task_only(make, run, result):
    tracker = make(max_tries=2)
    tracker.add_many("abc")
    report = run(tracker, lambda key: result if key == "b" else {"key": key})
    assert (report.done, report.failed, report.retried) == (2, 1, 1)
    assert [status(tracker, key) for key in "abc"] == [(True, False, 1), (False, False, 2), (True, False, 1)]
    assert tracker["b"]["_error"]["message"]
    assert report.errors[0][0] == "b"


# Errors and retries


class Broken(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def test_failed_task_keeps_its_error_and_is_tried_as_often_as_allowed(make, run):
    tracker = make(max_tries=3)
    tracker.add_many("abc")

    def work(key):
        if key == "b":
            raise Broken("not this", 2)

    report = run(tracker, work)
    assert (report.done, report.failed, report.retried, report.left) == (2, 1, 2, 0)
    assert status(tracker, "b") == (False, False, 3)
    error = tracker["b"]["_error"]
    assert error["type"].endswith("Broken")
    assert (error["message"], error["try"]) == ("not this", 3)
    assert "raise Broken" in error["traceback"]
    assert "worker.py" not in error["traceback"]
    assert "retry_at" not in error
    with pytest.raises(TasksFailedError, match="not this") as raised:
        report.raise_for_failed()
    assert raised.value.report is report


def test_success_removes_the_error(make, run, calls):
    tracker = make(max_tries=3, init={"a": {"error": "the user's own"}})

    def work(key):
        calls.note(key)
        if calls.counts()[key] < 3:
            raise ValueError("not yet")
        return {"ok": True}

    report = run(tracker, work)
    assert (report.done, report.retried) == (1, 2)
    assert tracker["a"] == {"_done": True, "_aborted": False, "_tries": 3, "error": "the user's own", "ok": True}


def test_without_max_tries_a_task_is_tried_once_in_a_run(make, run):
    tracker = make(init={"a": {}, "b": {}})

    def work(key):
        raise ValueError(key)

    for number in (1, 2):
        report = run(tracker, work)
        assert (report.failed, report.left, tracker.tries("a")) == (2, 2, number)


@far_and_near
@pytest.mark.parametrize(("max_tries", "retries", "tries"), [(0, 2, 3), (2, 5, 2), (5, 0, 1), (5, 1, 2)])
def test_retries_are_tried_again_within_max_tries(make, run, max_tries, retries, tries):
    tracker = make(max_tries=max_tries, init={"a": {}})

    def work(key):
        raise ValueError(key)

    report = run(tracker, work, retries=retries)
    assert (tracker.tries("a"), report.failed, report.retried) == (tries, 1, tries - 1)


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), RecursionError("deep"), MemoryError()])
def test_any_exception_ends_only_the_try(make, run, error):
    tracker = make(max_tries=1)
    tracker.add_many("ab")

    def work(key):
        if key == "a":
            raise error

    report = run(tracker, work)
    assert (report.done, report.failed) == (1, 1)
    assert tracker["a"]["_error"]["type"] == type(error).__name__


def test_abort_ends_the_task_for_good_and_keeps_the_reason(make, run):
    tracker = make(max_tries=3)
    tracker.add_many("abc")

    def work(key):
        if key == "a":
            raise Abort("gone")
        if key == "b":
            raise FileNotFoundError(2, "no such file")

    report = run(tracker, work, abort_on=(OSError,))
    assert (report.done, report.aborted, report.failed, report.left) == (1, 2, 0, 0)
    assert [status(tracker, key) for key in "ab"] == [(False, True, 1)] * 2
    assert (tracker["a"]["_error"]["type"], tracker["a"]["_error"]["message"]) == ("Abort", "gone")
    assert "traceback" not in tracker["a"]["_error"]
    assert tracker["b"]["_error"]["type"] == "FileNotFoundError"
    assert run(tracker, work).done == 0
    assert run(tracker, lambda key: None, allow_aborted=True).done == 2


@pytest.mark.parametrize("count", [False, True])
def test_retry_is_tried_again_and_counts_only_if_asked(make, run, calls, count):
    tracker = make(max_tries=3, init={"a": {}})

    def work(key):
        calls.note(key)
        if calls.counts()[key] < 3:
            raise Retry(after=0.01, count=count, reason="busy")

    report = run(tracker, work)
    assert report.done == 1
    assert status(tracker, "a") == (True, False, 3 if count else 1)
    assert data(tracker, "a") == {}


def test_delay_of_a_retry_is_kept_when_the_program_ends(make, run):
    tracker = make(max_tries=3, init={"a": {}, "b": {}})
    stop = threading.Event()

    def work(key):
        if key == "a":
            raise Retry(after=3600, count=True)

    report = run(tracker, work, stop=stop, on_result=lambda key, data: stop.set())
    assert (report.done, report.failed, report.left, report.reason) == (1, 0, 1, "stopped")
    assert status(tracker, "a") == (False, False, 1)
    # The next run waits for it as well.
    stop.clear()
    tracker.add("c")
    report = run(tracker, work, stop=stop, on_result=lambda key, data: stop.set())
    assert (report.done, status(tracker, "a")) == (1, (False, False, 1))
    assert tracker["a"]["_error"]["retry_at"]


def test_backoff_is_asked_with_the_number_of_the_try(make, run):
    tracker = make(max_tries=4, init={"a": {}})
    asked = []

    def backoff(number):
        asked.append(number)
        return 0.0

    def work(key):
        raise ValueError(key)

    run(tracker, work, backoff=backoff)
    assert asked == [1, 2, 3]


@pytest.mark.parametrize("is_chosen", [False, True])
def test_more_failed_tasks_than_wait_in_memory_are_all_tried_again(make, run, monkeypatch, is_chosen):
    monkeypatch.setattr(task_source, "MAX_WAITING", 5)
    tracker = make(max_tries=3)
    tracker.add_many(range(60))

    def work(key):
        raise ValueError(key)

    report = run(tracker, work, backoff=lambda tries: 0.01, tasks=iter(range(60)) if is_chosen else None)
    assert (report.failed, report.retried, report.left) == (60, 120, 0)
    assert {tracker.tries(key) for key in range(60)} == {3}


def test_retries_of_a_run_are_kept_for_tasks_that_do_not_wait_in_memory(make, run, monkeypatch):
    monkeypatch.setattr(task_source, "MAX_WAITING", 5)
    tracker = make()
    tracker.add_many(range(60))

    def work(key):
        raise ValueError(key)

    report = run(tracker, work, retries=1, backoff=lambda tries: 0.01)
    assert (report.failed, {tracker.tries(key) for key in range(60)}) == (60, {2})


def test_errors_in_the_millisecond_of_the_beginning_belong_to_the_run_that_made_them(make, monkeypatch):
    monkeypatch.setattr(task_source, "MAX_WAITING", 1)
    clock = count(time.time(), 50e-6)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    tracker = make()
    tracker.add_many(range(5))

    def work(key):
        raise ValueError(key)

    for number in range(1, 4):
        report = tracker.run(work, executor="inline", retries=1, backoff=lambda tries: 0.0001)
        assert (report.failed, {tracker.tries(key) for key in range(5)}) == (5, {2 * number})


# Options


def test_function_gets_a_copy_of_the_data(make, run):
    tracker = make(max_tries=1, init={"a": {"list": [1], "error": "own"}})

    def work(key, data):
        assert data == {"list": [1], "error": "own"}
        data["list"].append(2)
        return {"seen": data["list"]}

    assert run(tracker, work, with_data=True).done == 1
    assert data(tracker, "a") == {"list": [1], "error": "own", "seen": [1, 2]}


def test_current_task_tells_key_try_and_slot(make, run):
    tracker = make(max_tries=2, init={"a": {"x": 1}})

    def work(key, data):
        task = current_task()
        if task.tries == 1:
            raise ValueError
        return {"task": [task.key, task.tries, task.slot, task.data]}

    run(tracker, work, workers=1, with_data=True) if run.kind != "inline" else run(tracker, work, with_data=True)
    assert tracker["a"]["task"] == ["a", 2, 0, {"x": 1}]
    with pytest.raises(RuntimeError, match="no task is running"):
        current_task()


def test_tasks_chooses_order_and_selection(make, run):
    tracker = make(max_tries=2)
    tracker.add_many(range(10))
    tracker.mark_done(4)
    tracker.abort(5)
    order = []
    report = run(tracker, lambda key: None, tasks=[8, 4, 5, 2, 8, 6], on_result=lambda key, data: order.append(key))
    assert report.done == 3
    assert sorted(order) == [2, 6, 8]
    assert [key for key in range(10) if tracker.tries(key)] == [2, 6, 8]
    assert report.left == 5


def test_missing_key_in_tasks_raises_and_leaves_the_rest(make, run):
    tracker = make(max_tries=2)
    tracker.add_many("ab")
    with pytest.raises(KeyError, match="missing"):
        run(tracker, lambda key: None, tasks=["a", "missing", "b"])
    assert tracker.num_done() + sum(1 for _ in tracker.todo_keys()) == 2
    assert all(tracker.done(key) == bool(tracker.tries(key)) for key in "ab")


def test_iterable_that_raises_ends_the_run_after_a_commit(make, run):
    tracker = make(max_tries=2)
    tracker.add_many(range(5))

    def keys():
        yield 0
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        run(tracker, lambda key: None, tasks=keys())
    assert [tracker.tries(key) for key in range(1, 5)] == [0] * 4


@pytest.mark.parametrize("callback", ["on_result", "on_failure"])
def test_callback_that_raises_ends_the_run_after_a_commit(make, run, callback):
    tracker = make(max_tries=1)
    tracker.add_many(range(200))

    def work(key):
        if key % 2:
            raise ValueError(key)

    def raises(*arguments):
        raise LookupError("from the callback")

    with pytest.raises(LookupError, match="from the callback"):
        run(tracker, work, **{callback: raises})
    for key in range(200):
        assert status(tracker, key) in [(False, False, 0), (not key % 2, False, 1)]


def test_callbacks_get_every_result_and_every_failed_try(make, run):
    tracker = make(max_tries=2)
    tracker.add_many(range(4))
    results, failures = [], []

    def work(key):
        if key == 3:
            raise ValueError("three")
        return key

    run(tracker, work, on_result=lambda key, data: results.append((key, data)),
        on_failure=lambda key, error, final: failures.append((key, error["message"], error["try"], final)))
    assert sorted(results) == [(key, {"result": key}) for key in range(3)]
    assert failures == [(3, "three", 1, False), (3, "three", 2, True)]


def test_stop_ends_the_run_in_order(make, run):
    tracker = make(max_tries=2)
    tracker.add_many(range(10_000))
    stop = threading.Event()
    report = run(tracker, lambda key: None, stop=stop, on_result=lambda key, data: stop.set())
    assert report.reason == "stopped"
    assert 0 < report.done == tracker.num_done() <= 10_000
    assert report.left == 10_000 - report.done
    assert sum(tracker.tries(key) for key in tracker) == report.done
    assert run(tracker, lambda key: None).done == report.left


@pytest.mark.parametrize("run", ["processes", "threads", "inline"], indirect=True)
def test_stop_begins_none_of_the_tasks_that_wait_in_a_worker(make, run, calls, tmp_path):
    tracker = make(max_tries=2)
    tracker.add_many(range(1000))
    workers = 1 if run.kind == "inline" else 2
    stop = threading.Event()

    def work(key):
        if key < 200:
            time.sleep(0.001)
            return
        calls.note(key)
        while not (tmp_path / "go").exists():
            time.sleep(0.01)

    def end():
        while len(calls.counts()) < workers:
            time.sleep(0.01)
        stop.set()
        time.sleep(0.5)  # not to win a race: the running tasks could go on for ever
        (tmp_path / "go").touch()

    thread = threading.Thread(target=end)
    thread.start()
    report = run(tracker, work, stop=stop)
    thread.join()
    assert len(calls.counts()) == workers
    assert report.reason == "stopped"
    assert sum(tracker.tries(key) for key in tracker) == report.done == tracker.num_done()


def test_stop_that_is_set_already_runs_nothing(make, run):
    tracker = make(init={"a": {}})
    stop = threading.Event()
    stop.set()
    report = run(tracker, lambda key: None, stop=stop)
    assert (report.done, report.left, tracker.tries("a")) == (0, 1, 0)


def test_deadline_ends_a_crawl_without_end(make, run):
    tracker = make(max_tries=2, init={0: {}})
    report = run(tracker, lambda key: TaskResult(add=[key + 1]), deadline=0.5)
    assert report.reason == "deadline"
    assert report.left == 1
    assert report.done == tracker.num_done() == len(tracker) - 1


@pytest.mark.parametrize(("limit", "failed"), [(0, 1), (3, 4)])
def test_max_failures_ends_the_run(make, run, limit, failed):
    tracker = make(max_tries=1)
    tracker.add_many(range(5_000))

    def work(key):
        raise ValueError(key)

    report = run(tracker, work, max_failures=limit)
    assert report.reason == "max_failures"
    assert failed <= report.failed < 5_000
    assert sum(tracker.tries(key) for key in tracker) == report.failed


def test_share_of_failures_ends_the_run(make, run):
    tracker = make(max_tries=1)
    tracker.add_many(range(1_000))

    def work(key):
        if key % 2:
            raise ValueError(key)

    assert run(tracker, work, max_failures=0.75).reason == "finished"
    tracker.add_many(range(1_000, 2_000))
    assert run(tracker, work, max_failures=0.25).reason == "max_failures"


@pytest.mark.parametrize(("options", "error"), [
    ({"workers": 0}, "workers="), ({"workers": 1.5}, "workers="), ({"timeout": 0}, "timeout="),
    ({"timeout": math.inf}, "timeout="), ({"retries": -1}, "retries="), ({"deadline": -1}, "deadline="),
    ({"backoff": -1}, "backoff="), ({"max_failures": 1.5}, "max_failures="), ({"executor": "process"}, "executor="),
    ({"executor": "threads", "timeout": 3}, "timeout="), ({"executor": "inline", "timeout": 3}, "timeout="),
    ({"executor": "async"}, "coroutine"), ({"executor": "threads", "start_method": "fork"}, "start_method="),
])
def test_wrong_argument_is_refused_before_anything_is_run(make, options, error):
    tracker = make(init={"a": {}})
    with pytest.raises(ValueError, match=error):
        tracker.run(print, **options)
    assert tracker.tries("a") == 0


def test_wrong_function_is_refused(make):
    tracker = make(init={"a": {}})
    with pytest.raises(TypeError, match="takes a function"):
        tracker.run("print")
    with pytest.raises(TypeError, match="abort_on="):
        tracker.run(print, abort_on=ValueError("instance"))

    async def work(key):
        pass

    with pytest.raises(ValueError, match="executor=\"async\""):
        tracker.run(functools.partial(work), executor="threads")


def test_coroutine_function_runs_async_by_default(make):
    import asyncio

    tracker = make(init={"a": {}, "b": {}})
    both = asyncio.Event()
    inside = []

    async def work(key):
        inside.append(key)
        if len(inside) == 2:
            both.set()
        await both.wait()
        return threading.current_thread() is threading.main_thread()

    assert tracker.run(work).done == 2
    assert tracker["a"]["result"] is False


def test_empty_tracker_and_report_texts(make, run):
    report = run(make(), lambda key: None)
    assert (report.done, report.left) == (0, 0)
    assert str(report).startswith("0 done in ")
    report.raise_for_failed()
    text = str(RunReport(done=1000, failed=2, timed_out=1, left=3, seconds=1.234, reason="stopped"))
    assert text == "1,000 done, 2 failed, 1 timed out, 3 left in 1.2 s (stopped)"


@pytest.mark.parametrize("name", ["try_keys", "try_items"])
def test_iterators_that_count_tries_are_refused_as_tasks(make, name):
    """With max_tries=1, no task would have had a try left."""
    tracker = make(max_tries=1)
    tracker.add_many("ab")
    with pytest.raises(TypeError, match=r"use todo_keys\(\) instead"):
        tracker.run(print, tasks=getattr(tracker, name)(), executor="inline")
    assert [tracker.tries(key) for key in "ab"] == [0, 0]
    assert tracker.run(lambda key: None, tasks=tracker.todo_keys(), executor="inline").done == 2


# The state of the store


def test_second_run_on_a_private_tracker_is_refused(path):
    with Tracker(path, init={"a": {}}) as tracker:
        refused = []

        def nested(key, data):
            try:
                tracker.run(print, executor="inline")
            except RunInProgressError as error:
                refused.append(error)

        tracker.run(lambda key: None, executor="inline", on_result=nested)
        assert len(refused) == 1
        assert tracker.run(lambda key: None, executor="inline").done == 0


def test_second_run_is_refused_while_the_first_one_begins(path):
    """Both ran every task, and the automatic sync stayed off."""
    refused = []

    class Second(Tracker):
        def hold(self):
            if not refused:
                refused.append(None)
                with pytest.raises(RunInProgressError) as caught:
                    self.run(print, executor="inline")
                refused.append(caught.value)
            super().hold()

    with Second(path, init={"a": {}}) as tracker:
        assert tracker.run(lambda key: None, executor="inline").done == 1
        assert len(refused) == 2
        assert not tracker._is_held


def test_forked_child_is_told_that_it_may_not_use_the_store(path):
    with Tracker(path, init={"a": {}}) as tracker:
        found = []

        def in_child(pipe):
            try:
                tracker.run(print, executor="inline")
            except BaseException as error:
                pipe.send(type(error).__name__)

        def fork(key, data):
            with Child(in_child) as child:
                found.append(child.pipe.recv())
                child.wait()

        tracker.run(lambda key: None, executor="inline", on_result=fork)
    assert found == ["ForkedStoreError"]


def test_hold_of_the_user_stays(path):
    with Tracker(path, init={"a": {}}, sync_at=1) as tracker:
        tracker.run(lambda key: None, executor="inline")
        tracker.add("b")
        assert tracker.dirty() == set()
        tracker.hold()
        tracker.run(lambda key: None, executor="inline")
        tracker.add("c")
        assert tracker.dirty() == {"c"}


def test_task_that_is_aborted_or_done_by_others_while_it_waits_is_not_tried_again(make, run):
    tracker = make(max_tries=5)
    tracker.add_many("ab")

    def work(key):
        raise ValueError(key)

    def act(key, error, final):
        (tracker.abort if key == "a" else tracker.mark_done)(key)

    report = run(tracker, work, on_failure=act, backoff=0.01)
    assert report.left == 0
    assert [tracker.tries(key) for key in "ab"] == [1, 1]
    assert (tracker.aborted("a"), tracker.done("b")) == (True, True)


def test_task_that_was_deleted_while_it_ran_stays_deleted(make, run):
    tracker = make(max_tries=2)
    tracker.add_many("ab")

    def delete(key, data):
        tracker.pop("b", None)

    run(tracker, lambda key: {"x": 1}, on_result=delete)
    assert "b" not in tracker


def test_closed_store_raises_its_error(make):
    tracker = make()
    tracker.close()
    with pytest.raises(ValueError, match="closed"):
        tracker.run(print)


def test_no_thread_and_no_descriptor_is_left(path, run, no_leaks):
    with SharedTracker(path, max_tries=2) as tracker:
        tracker.add_many(range(50))
        run(tracker, lambda key: None)


def test_claims_of_another_worker_are_left_alone(path, run):
    with SharedTracker(path, max_tries=2) as tracker:
        tracker.add_many(range(20))
        loop = tracker.try_keys()
        mine = next(loop)
        report = run(tracker, lambda key: None)
        assert report.done == 19
        assert not tracker.done(mine)
        tracker.mark_done(mine)
        loop.close()


def test_run_ends_in_time_although_a_retry_would_be_due_much_later(make, run):
    tracker = make(max_tries=2, init={"a": {}})
    began = time.monotonic()

    def work(key):
        raise Retry(after=1000)

    report = run(tracker, work, deadline=0.2)
    assert (report.reason, report.left, tracker.tries("a")) == ("deadline", 1, 0)
    assert time.monotonic() - began < 100


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_results_before_a_long_task_do_not_wait_for_its_end(make, kind, tmp_path):
    """The long task ends when a task has run that an earlier one of its chunk has added."""
    tracker = make(max_tries=1)
    tracker.add_many(range(101))

    def work(key):
        if key == 99:
            return TaskResult(add=["added"])
        if key == 100:
            while not (tmp_path / "added").exists():
                time.sleep(0.01)
        elif key == "added":
            (tmp_path / "added").touch()
        return None

    options = {"start_method": "fork"} if kind == "processes" else {}
    report = tracker.run(work, workers=2, executor=kind, deadline=60, **options)
    assert (report.done, report.reason) == (102, "finished")


def test_facts_of_the_last_run_are_kept_however_it_ended(make, run):
    tracker = make(init={"a": {}})

    def raises(key, data):
        raise LookupError

    with pytest.raises(LookupError):
        run(tracker, lambda key: None, on_result=raises)
    assert read_run(tracker._store)["reason"] == "LookupError"
    run(tracker, lambda key: None)
    info = read_run(tracker._store)
    assert (info["reason"], "test_facts" in info["function"] or run.kind == "async") == ("finished", True)
