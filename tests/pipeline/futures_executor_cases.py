"""``tracker.run()`` on executors of concurrent.futures and loky: results, faults, and engines that break."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import Future as PlainFuture
from functools import partial

import pytest

from tastypy_fast import ExecutorLostError, SharedTracker, Tracker, UnsendableFunctionError, WorkerStartError
from tastypy_fast.pipeline import Abort, TaskResult, current_task, runner
from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.futures_executor import FuturesExecutor
from tastypy_fast.pipeline.worker import TaskFunction
from tests.support import task_functions
from tests.support.executors import drive, failures, first_events, has_ended, started, until, until_room

pytest.importorskip("cloudpickle")
psutil = pytest.importorskip("psutil")  # comes with distributed

# (a pool that forks while the threads of another one run)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def processes(method, workers=2):
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method))


def loky(workers=2):
    return pytest.importorskip("loky").ProcessPoolExecutor(workers)


POOLS = {"fork": partial(processes, "fork"), "spawn": partial(processes, "spawn"), "threads": partial(
    ThreadPoolExecutor, 2), "loky": loky}


@pytest.fixture(params=POOLS)
def make_pool(request):
    return POOLS[request.param]


def executor_for(function, executor, *, with_data=False, **options):
    return FuturesExecutor(TaskFunction(function, with_data), executor, **options)


@pytest.fixture
def tracker(path):
    with Tracker(path, max_tries=1) as tracker:
        yield tracker
        tracker._check()


@pytest.fixture
def shared(path):
    with SharedTracker(path, max_tries=1) as tracker:
        yield tracker
        tracker._check()
        assert tracker.claimed_keys() == []


def counts(tracker):
    return tracker.num_done(), sum(map(tracker.tries, tracker))


class Gone(Exception):
    pass


def work(key):
    if key == 3:
        raise Abort("three")
    if key == 4:
        raise Gone
    if key == 5:
        raise task_functions.TwoArguments(1, 2)
    return TaskResult({"square": key * key, "try": current_task().tries}, add=["more"] if key == 1 else [])


# Any pool


@pytest.mark.parametrize("kind", ["given", "function"])
def test_tasks_run_once_and_what_becomes_of_them_is_kept(tracker, make_pool, kind):
    tracker.add_many(range(100))

    def run(executor):
        return tracker.run(lambda key: None if key == "more" else work(key), executor=executor, abort_on=Gone)

    if kind == "given":
        with make_pool() as pool:
            report = run(pool)
    else:
        report = run(make_pool)
    assert (report.done, report.aborted, report.failed, report.workers_lost) == (98, 2, 1, 0)
    assert tracker[7] == {"_done": True, "_aborted": False, "_tries": 1, "square": 49, "try": 1}
    assert "TwoArguments: 1 and 2" in tracker[5]["_error"]["traceback"]
    assert tracker.done("more")


@pytest.mark.parametrize("executor", [ProcessPoolExecutor, ThreadPoolExecutor], ids=lambda kind: kind.__name__)
def test_class_of_an_executor_is_a_function_that_makes_one(tracker, executor):
    tracker.add_many(range(10))
    assert tracker.run(lambda key: key, executor=executor, workers=2).done == 10


def test_with_a_time_limit_faults_cost_exactly_themselves(shared, make_pool):
    shared.add_many(range(60))
    shared.add_many(["segfault", "_exit 3", "killed with a child", "sleeps", "interrupt"])
    with make_pool() as pool:
        report = shared.run(task_functions.fault, executor=pool, timeout=2)
    assert (report.done, report.failed, report.timed_out, report.workers_lost) == (60, 5, 1, 0)
    assert {key: shared[key]["_error"]["type"] for key in shared if not shared.done(key)} == {
        "segfault": "WorkerDied", "_exit 3": "WorkerDied", "killed with a child": "WorkerDied",
        "sleeps": "TaskTimeout", "interrupt": "KeyboardInterrupt"}
    assert all(shared.tries(key) == 1 for key in shared)


@pytest.mark.parametrize("timeout", [None, 30])
def test_run_leaves_no_files_threads_or_processes(timeout, no_leaks):
    before = set(psutil.Process().children())
    with started(executor_for(task_functions.give_pid, partial(ThreadPoolExecutor, 2), timeout=timeout)) as executor:
        outcomes = drive(executor, range(20))
        executor.close()
        executor.close()
        assert executor.kill() == []
    assert failures(outcomes) == {}
    assert set(psutil.Process().children()) <= before


def test_data_of_a_task_is_a_copy(tracker):
    tracker.update({"a": {"list": [1]}})
    with ThreadPoolExecutor(1) as pool:
        tracker.run(lambda key, data: data["list"].append(2), executor=pool, with_data=True)
    assert tracker["a"]["list"] == [1]


def test_threads_run_the_function_itself(tracker):
    tracker.add_many(range(10))
    lock, seen = threading.Lock(), []

    def note(key):
        with lock:
            seen.append(key)

    with ThreadPoolExecutor(2) as pool:
        tracker.run(note, executor=pool)
        assert sorted(seen) == list(range(10))
        tracker.add("more")
        with pytest.raises(UnsendableFunctionError):
            tracker.run(note, executor=pool, timeout=5)
    assert tracker.tries("more") == 0


class Counting(ThreadPoolExecutor):
    """Counts calls that run at once."""

    now = most = 0

    def submit(self, function, *arguments):
        def call():
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                return function(*arguments)
            finally:
                self.now -= 1

        return super().submit(call)


def test_workers_limits_how_many_tasks_run_at_once(tracker):
    tracker.add_many(range(20))
    with Counting(8) as pool:
        tracker.run(lambda key: time.sleep(0.01), executor=pool, workers=2)
    assert pool.most == 2


class SubmitOnly:
    """What other engines have to offer at least."""

    def __init__(self, pool):
        self.pool = pool
        self.calls = 0

    def submit(self, function, *arguments):
        self.calls += 1
        return self.pool.submit(function, *arguments)


def test_large_function_and_large_data_are_sent_in_small_parts(tracker):
    text = os.urandom(3 << 20).hex()
    tracker.update({key: {"text": "x" * 300_000} for key in range(20)})

    def length(key, data):
        return {"length": len(text) + len(data["text"])}

    with processes("fork") as pool:
        executor = SubmitOnly(pool)
        assert tracker.run(length, executor=executor, with_data=True, workers=2).done == 20
    assert tracker[0]["length"] == (6 << 20) + 300_000
    assert executor.calls > 5


# Engines that break


def test_pool_of_a_function_that_breaks_is_made_anew_and_the_guilty_are_blamed(shared):
    # temporalio #245, apscheduler #362, chancy #94
    shared.add_many([*range(30), "_exit 3", *range(30, 60), "killed", "two arguments"])
    report = shared.run(task_functions.fault, executor=POOLS["fork"])
    assert (report.done, report.failed) == (60, 3)
    assert report.workers_lost >= 2
    assert [shared[key]["_error"]["type"] for key in ("_exit 3", "killed")] == ["WorkerDied"] * 2
    assert "BrokenProcessPool" in shared["killed"]["_error"]["message"]
    assert all(shared.tries(key) == 1 for key in shared)


def test_given_pool_that_breaks_ends_the_run_and_another_goes_on(shared):
    shared.add_many([*range(20), "_exit 3", *range(20, 40)])
    with processes("fork") as pool, pytest.raises(
            ExecutorLostError, match=r"BrokenProcessPool.* make a new executor"):
        shared.run(task_functions.fault, executor=pool)
    assert counts(shared)[0] == counts(shared)[1] < 40
    report = shared.run(task_functions.fault, executor=POOLS["fork"])
    assert (shared.num_done(), report.failed) == (40, 1)


def test_idle_worker_that_is_killed_breaks_only_the_pool():
    pools = []

    def make():
        pools.append(processes("fork"))
        return pools[-1]

    with started(executor_for(task_functions.fault, make)) as executor:
        assert failures(drive(executor, range(20))) == {}
        process = next(iter(pools[0]._processes.values()))
        process.kill()
        process.join()
        until(lambda: pools[0]._broken)
        assert failures(drive(executor, range(20))) == {}
    assert (executor.workers_lost, len(pools)) == (1, 2)


class Broken:
    """Each call has an error."""

    def __init__(self, error, at_submit):
        self.error, self.at_submit = error, at_submit

    def submit(self, function, *arguments):
        if self.at_submit:
            raise self.error
        future = PlainFuture()
        future.set_exception(self.error)
        return future

    def shutdown(self, wait, cancel_futures):
        pass


@pytest.mark.parametrize("at_submit", [False, True])
def test_pool_that_is_broken_whenever_it_is_made_ends_the_run(shared, at_submit):
    shared.add("a")
    made = []

    def make():
        made.append(Broken(BrokenExecutor("never"), at_submit))
        return made[-1]

    with pytest.raises(WorkerStartError, match="broke before a task could run: BrokenExecutor: never"):
        shared.run(len, executor=make)
    assert len(made) == 3
    assert counts(shared) == (0, 0)


def fail(pool):
    raise LookupError("no cluster")


@pytest.mark.parametrize(("executor", "error", "message"), [
    (lambda: fail(0), WorkerStartError, "the executor cannot be made: LookupError: no cluster"),
    (lambda: 3, TypeError, "it has made 3"),
    (partial(ProcessPoolExecutor, 1, initializer=fail, initargs=(0,)), WorkerStartError, "BrokenProcessPool"),
    (partial(ThreadPoolExecutor, 1, initializer=fail, initargs=(0,)), WorkerStartError, "BrokenThreadPool"),
    (partial(processes, "fork"), WorkerStartError, "need cloudpickle: pip install cloudpickle"),
    (lambda: Broken(ImportError("No module named 'x'", name="x"), False), WorkerStartError, "Install it where the wo"),
    (lambda: Broken(OSError("what"), False), WorkerStartError, "cannot run tasks: OSError: what"),
])
def test_workers_that_cannot_start_raise_an_error_and_cost_no_try(shared, monkeypatch, executor, error, message):
    shared.add_many("ab")
    if "cloudpickle" in message:
        executor = partial(executor.func, *executor.args)
        executor = partial(ProcessPoolExecutor, 1, mp_context=multiprocessing.get_context("fork"),
                           initializer=sys.modules.__setitem__, initargs=("cloudpickle", None))
    with pytest.raises(error, match=message):
        shared.run(len, executor=executor)
    assert counts(shared) == (0, 0)


def test_pool_that_was_shut_down_is_lost(shared):
    shared.add("a")
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(ExecutorLostError, match="cannot schedule new futures after shutdown"):
        shared.run(len, executor=pool)
    assert counts(shared) == (0, 0)


def test_futures_that_somebody_cancels_mean_that_the_pool_is_lost(shared):
    shared.add_many(range(50))
    pool = ThreadPoolExecutor(1)

    def work(key):
        time.sleep(0.03)
        if key == 5:
            pool.shutdown(wait=False, cancel_futures=True)

    with pytest.raises(ExecutorLostError):
        shared.run(work, executor=pool)
    assert counts(shared)[0] == counts(shared)[1] > 0


@pytest.mark.storm
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_storm_of_kills_loses_no_task(path, seed, method):
    import random

    choose, pools, is_over = random.Random(seed), [], threading.Event()

    def make():
        pools.append(processes(method))
        return pools[-1]

    def kill():
        # A pool that breaks three times before it has run a task ends the run. spawn takes a second on a busy machine.
        while not is_over.wait(choose.uniform(0.3, 1.0) * (1 if method == "fork" else 4)):
            found = list((pools[-1]._processes or {}).values()) if pools else []
            if found:
                choose.choice(found).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with Tracker(path) as tracker:
            tracker.add_many(range(3000))
            report = tracker.run(lambda key: time.sleep(0.005), executor=make, retries=20, backoff=0)
            assert (report.done, report.failed) == (3000, 0)
            assert report.workers_lost > (3 if method == "fork" else 0)
            tracker._check()
    finally:
        is_over.set()
        thread.join()


# Stopping


def test_task_that_is_interrupted_once_is_tried_again_and_costs_nothing(tracker, calls):
    tracker.add_many("ab")

    def work(key):
        calls.note(key)
        if key == "a" and calls.counts()["a"] == 1:
            raise KeyboardInterrupt

    assert tracker.run(work, executor=POOLS["fork"]).done == 2
    assert (tracker.tries("a"), calls.counts()["a"]) == (1, 2)


def test_task_that_interrupts_itself_has_failed():
    with started(executor_for(task_functions.fault, POOLS["fork"])) as executor:
        assert failures(drive(executor, ["a", "interrupt"]))["interrupt"]["type"] == "KeyboardInterrupt"


@pytest.mark.parametrize(("reason", "timeout"), [("stop", None), ("stop", 100), ("deadline", None)])
def test_run_ends_although_a_task_of_a_given_pool_does_not(shared, tmp_path, monkeypatch, reason, timeout):
    monkeypatch.setattr(runner, "GRACE", 0.3)
    stop, file = threading.Event(), tmp_path / "pids"
    shared.add((str(file), "hangs"))
    with processes("fork") as pool:
        thread = threading.Thread(target=lambda: (until(file.exists), stop.set()))
        thread.start()
        options = {"stop": stop} if reason == "stop" else {"deadline": 2}
        report = shared.run(task_functions.start_child, executor=pool, timeout=timeout, **options)
        thread.join()
        assert report.reason == {"stop": "stopped", "deadline": "deadline"}[reason]
        assert counts(shared) == (0, 0)
        pids = list(map(int, file.read_text().split()))
        assert not has_ended(pids[0])  # it belongs to the caller of run()
        for process in pool._processes.values():
            process.kill()
    if timeout is None:
        os.kill(pids[1], signal.SIGKILL)
    until(lambda: all(map(has_ended, pids)))


def test_chunks_that_wait_are_given_back_before_the_end(tracker):
    tracker.add_many(range(10))
    stop, seen = threading.Event(), []

    def work(key):
        seen.append(key)
        stop.set()
        time.sleep(0.5)

    with ThreadPoolExecutor(1) as pool:
        report = tracker.run(work, executor=pool, workers=4, stop=stop)
    assert (report.done, len(seen), counts(tracker)) == (1, 1, (1, 1))


def test_kill_ends_the_processes_of_an_own_pool_and_returns_the_tasks(tmp_path):
    file = tmp_path / "pids"
    with started(executor_for(task_functions.start_child, POOLS["fork"])) as executor:
        until_room(executor)
        task = Task((str(file), "hangs"), 1)
        executor.put([task])
        until(file.exists)
        assert executor.kill() == [task]
        pids = list(map(int, file.read_text().split()))
        until(lambda: has_ended(pids[0]))
        os.kill(pids[1], signal.SIGKILL)


PROGRAM = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from tastypy_fast import SharedTracker

def work(key):
    with open("begun", "a"):
        pass
    while key == 1 or {hangs}:
        try:
            time.sleep(0.01 if {hangs} else 0.5)
        except KeyboardInterrupt:
            if not {hangs}:
                raise
        if not {hangs}:
            break

def make():
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))

if __name__ == "__main__":
    with SharedTracker("t", max_tries=1) as tracker:
        tracker.add_many(range(100))
        print("runs", flush=True)
        tracker.run(work, executor=make, workers=2)
"""


@pytest.mark.parametrize("hangs", [False, True])
def test_ctrl_c_reaches_workers_too_and_costs_no_try(tmp_path, hangs):
    # joblib #181, loky #477
    (tmp_path / "program.py").write_text(PROGRAM.format(hangs=hangs))
    with subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          start_new_session=True, text=True) as program:
        until((tmp_path / "begun").exists)
        time.sleep(0.2)
        os.killpg(program.pid, signal.SIGINT)
        if hangs:
            time.sleep(0.5)
            assert program.poll() is None  # it waits for running tasks
            os.killpg(program.pid, signal.SIGINT)
        began = time.monotonic()
        _, errors = program.communicate(timeout=60)
        assert time.monotonic() - began < 50
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert "ExecutorLostError" not in errors
    with SharedTracker(tmp_path / "t") as tracker:
        assert tracker.claimed_keys() == []
        assert counts(tracker)[0] == counts(tracker)[1]
        assert all("_error" not in tracker[key] for key in tracker)


# Without a tracker


def test_tasks_that_cannot_be_put_yet_wait_for_the_first_worker():
    pool = ThreadPoolExecutor(1)
    begin = threading.Event()
    pool.submit(begin.wait)
    with started(executor_for(len, pool)) as executor:
        assert executor.step(0.05) == []
        assert (executor.room(), executor.is_busy()) == (0, False)
        begin.set()
        assert drive(executor, ["a"])["a"].error is None
    pool.shutdown()


def test_events_of_a_lost_engine_come_before_its_error():
    pool = ThreadPoolExecutor(1)
    with started(executor_for(task_functions.fault, pool)) as executor:
        until_room(executor)
        executor.put([Task("a", 1)])
        pool.shutdown()
        until(lambda: executor._done.qsize())
        executor.put([Task("b", 1)])
        events = first_events(executor)
        assert {event.task.key: event.outcome is None for event in events} == {"a": False, "b": True}
        with pytest.raises(ExecutorLostError):
            executor.step(1)
