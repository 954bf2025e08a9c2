"""Threads, coroutines and the calling thread as executors."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import threading
import time

import pytest

from tastypy_fast import WorkerStartError
from tastypy_fast.pipeline import Abort, Retry, current_task
from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.in_process import AsyncExecutor, InlineExecutor, ThreadExecutor
from tastypy_fast.pipeline.worker import ABORTED, DONE, FAILED, RETRY, TaskFunction
from tests.support.executors import drive, failures, first_events, started, until, until_room

KINDS = {"threads": ThreadExecutor, "async": AsyncExecutor, "inline": InlineExecutor}


@pytest.fixture(params=KINDS)
def make(request):
    """Makes an executor for a plain function, which is a coroutine function for an AsyncExecutor."""

    def make_executor(function, workers=2, *, with_data=False, **options):
        if request.param == "async":

            async def coroutine(*arguments):
                return function(*arguments)

            return AsyncExecutor(TaskFunction(coroutine, with_data), workers, **options)
        return KINDS[request.param](TaskFunction(function, with_data), workers, **options)

    return make_executor


def value(outcome):
    return pickle.loads(outcome.data)[0]


def act(key):
    if key == "raises":
        raise ValueError(key)
    if key == "exits":
        raise SystemExit(3)
    if key == "aborts":
        raise Abort("gone")
    if key == "retries":
        raise Retry(after=2)
    return {"key": key, "task": current_task().tries, "slot": current_task().slot}


def test_each_task_has_one_outcome(make, no_leaks):
    with started(make(act)) as executor:
        assert executor.in_process
        outcomes = drive(executor, [*range(2000), "raises", "exits", "aborts", "retries"])
        assert not executor.is_busy()
        executor.close()
        assert executor.kill() == []
    assert len(outcomes) == 2004
    assert all(value(outcomes[number])["key"] == number for number in range(2000))
    assert {value(outcomes[number])["slot"] for number in range(2000)} <= {0, 1}
    kinds = {key: outcomes[key].kind for key in ("raises", "exits", "aborts", "retries")}
    assert kinds == {"raises": FAILED, "exits": FAILED, "aborts": ABORTED, "retries": RETRY}
    assert outcomes["exits"].error["type"] == "SystemExit"
    assert executor.workers_lost == 0


def test_data_is_passed_on(make):
    with started(make(lambda key, data: data["n"] * 2, with_data=True)) as executor:
        outcomes = drive(executor, [Task("a", 1, {"n": 3})])
    assert value(outcomes["a"]) == {"result": 6}


def test_initializer_that_raises_ends_the_run(make, no_leaks):
    threads = threading.active_count()

    def initialize(text):
        raise LookupError(text)

    executor = make(act, initializer=initialize, initargs=("no model",))
    with pytest.raises(WorkerStartError, match="the initializer raised: LookupError: no model") as caught, \
            started(executor):
        until_room(executor)
    assert "in initialize" in str(caught.value)
    assert executor.kill() == []
    until(lambda: threading.active_count() == threads)


def test_initializer_runs_before_the_first_task(make):
    local = threading.local()

    def work(key):
        return {"value": local.value}

    with started(make(work, initializer=lambda value: setattr(local, "value", value), initargs=(3,))) as executor:
        outcomes = drive(executor, range(10))
    assert {value(outcome)["value"] for outcome in outcomes.values()} == {3}


class Note:
    """Collects what the executor says of running tasks. Each object is used by one thread or coroutine at a time."""

    def __init__(self, notes, objects):
        self.notes = notes
        self.task = None
        objects.append(self)

    def begin(self, key, tries):
        assert self.task is None
        self.task = key
        self.notes.append(("begin", key, tries))

    def end(self):
        self.notes.append(("end", self.task))
        self.task = None


def test_running_tasks_are_noted(make):
    notes, objects = [], []

    def work(key):
        assert [note.task for note in objects].count(key) == 1
        return act(key)

    with started(make(work, running=lambda: Note(notes, objects))) as executor:
        outcomes = drive(executor, [*(Task(number, 3) for number in range(50)), "raises"])
    assert list(failures(outcomes)) == ["raises"]
    assert 1 <= len(objects) <= 2
    assert sorted(note for note in notes if note[0] == "begin" and note[1] != "raises") == [
        ("begin", number, 3) for number in range(50)]
    assert len(notes) == 102


def test_wakeup_ends_a_wait(make):
    ours, theirs = socket.socketpair()
    with ours, theirs, started(make(act, wakeup=ours.fileno())) as executor:
        until_room(executor)
        while executor.step(0):
            pass
        theirs.send(b"!")
        began = time.monotonic()
        assert executor.step(50) == []
        assert time.monotonic() - began < 40
        assert ours.recv(1) == b"!"


# Threads


def test_keyboard_interrupt_of_a_task_in_a_thread_is_a_failure():
    def work(key):
        raise KeyboardInterrupt

    with started(ThreadExecutor(TaskFunction(work), 1)) as executor:
        assert failures(drive(executor, [1]))[1]["type"] == "KeyboardInterrupt"


def test_kill_gives_back_what_threads_still_do(no_leaks):
    threads = threading.active_count()
    go = threading.Event()
    begun = []

    def work(key):
        begun.append(key)
        go.wait()

    executor = ThreadExecutor(TaskFunction(work), 2)
    with started(executor):
        for key in range(2):
            until_room(executor)
            executor.put([Task(key, 1), Task(key + 10, 1)])
        until(lambda: len(begun) == 2)
        assert sorted(task.key for task in executor.kill()) == [0, 1, 10, 11]
        assert not executor.is_busy()
    # The threads end with their tasks, and begin no other one.
    go.set()
    until(lambda: threading.active_count() == threads)
    assert len(begun) == 2


@pytest.mark.parametrize("kind", ["threads", "async"])
def test_close_after_kill_does_not_wait_for_a_task_that_cannot_be_ended(kind):
    began, go = threading.Event(), threading.Event()

    def wait(key):
        began.set()
        go.wait(60)

    async def wait_async(key):
        wait(key)

    executor = KINDS[kind](TaskFunction(wait_async if kind == "async" else wait), 1)
    with started(executor):
        until_room(executor)
        executor.put([Task(1, 1)])
        assert began.wait(60)
        executor.kill()
        at = time.monotonic()
        executor.close()
        assert time.monotonic() - at < 4
        go.set()


def test_threads_run_at_once():
    barrier = threading.Barrier(3)
    with started(ThreadExecutor(TaskFunction(lambda key: barrier.wait(30)), 3)) as executor:
        assert not failures(drive(executor, range(3), size=1))


# Coroutines


def test_coroutines_run_at_once():
    running = set()

    async def work(key):
        running.add(key)
        while len(running) < 50:
            await asyncio.sleep(0)

    with started(AsyncExecutor(TaskFunction(work), 50)) as executor:
        assert not failures(drive(executor, range(50)))


def test_no_more_coroutines_run_than_workers():
    counts = []
    running = set()

    async def work(key):
        running.add(key)
        counts.append(len(running))
        await asyncio.sleep(0)
        running.remove(key)

    with started(AsyncExecutor(TaskFunction(work), 3)) as executor:
        assert not failures(drive(executor, range(500)))
    assert max(counts) == 3


def test_late_coroutine_is_cancelled():
    seen = []

    async def work(key):
        try:
            await asyncio.sleep(1000 if key in ("late", "stubborn") else 0)
        except asyncio.CancelledError:
            seen.append(key)
            if key == "late":
                raise
        return {"key": key}

    with started(AsyncExecutor(TaskFunction(work), 2, timeout=1)) as executor:
        outcomes = drive(executor, ["late", *range(20), "stubborn", *range(20, 40)])
    assert sorted(seen) == ["late", "stubborn"]
    # One that returns a result nevertheless is done.
    assert list(failures(outcomes)) == ["late"]
    error = outcomes["late"].error
    assert error["type"] == "TaskTimeout"
    assert error["message"] == "the task took longer than 1 s"
    assert 1 <= error["seconds"] < 50


def test_kill_cancels_coroutines(no_leaks):
    threads = threading.active_count()
    cancelled = []

    async def work(key):
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(key)
            raise

    executor = AsyncExecutor(TaskFunction(work), 3)
    with started(executor):
        until_room(executor)
        executor.put([Task(key, 1) for key in range(3)])
        until(lambda: len(executor._coroutines) == 3)
        assert [task.key for task in executor.kill()] == [0, 1, 2]
        until(lambda: threading.active_count() == threads)
    assert sorted(cancelled) in ([0, 1, 2], [])


def test_kill_before_the_loop_runs(no_leaks):
    threads = threading.active_count()
    async def work(key):
        pass

    for _ in range(20):
        executor = AsyncExecutor(TaskFunction(work), 1)
        executor.start()
        assert executor.kill() == []
    until(lambda: threading.active_count() == threads)


def test_context_of_a_coroutine_is_its_own():
    async def work(key):
        await asyncio.sleep(0)
        return {"key": current_task().key}

    with started(AsyncExecutor(TaskFunction(work), 10)) as executor:
        outcomes = drive(executor, range(100))
    assert all(value(outcome)["key"] == key for key, outcome in outcomes.items())


# The calling thread


def test_inline_tasks_run_in_the_calling_thread():
    with started(InlineExecutor(TaskFunction(lambda key: threading.get_ident()))) as executor:
        assert value(drive(executor, [1])[1]) == {"result": threading.get_ident()}


def test_keyboard_interrupt_of_an_inline_task_goes_through_at_once():
    def work(key):
        if key == 2:
            raise KeyboardInterrupt
        return key

    notes = []
    with started(InlineExecutor(TaskFunction(work), running=lambda: Note(notes, []))) as executor:
        executor.put([Task(key, 1) for key in (1, 2, 3)])
        assert executor.room() == 0
        ((task, outcome),) = first_events(executor)
        assert (task.key, outcome.kind) == (1, DONE)
        with pytest.raises(KeyboardInterrupt):
            executor.step(1)
        assert [task.key for task in executor.kill()] == [2, 3]
        assert not executor.is_busy()
    assert notes[-1] == ("end", 2)


def test_keyboard_interrupt_of_an_inline_initializer_goes_through():
    def initialize():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InlineExecutor(TaskFunction(act), initializer=initialize).start()


def test_executors_of_this_process_fork_nothing(make):
    with started(make(lambda key: os.getpid())) as executor:
        assert value(drive(executor, [1])[1]) == {"result": os.getpid()}
