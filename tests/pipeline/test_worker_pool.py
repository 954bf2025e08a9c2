"""Worker processes: what a fault costs, what is given back, and what is left behind."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import pytest

from tastypy_fast import UnsendableFunctionError, WorkerStartError
from tastypy_fast.pipeline import worker, worker_pool
from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.worker import ABORTED, DONE, FAILED, RETRY, TaskFunction
from tastypy_fast.pipeline.worker_pool import ProcessPool
from tests.support import task_functions as functions
from tests.support.executors import (
    drive,
    failures,
    first_events,
    has_ended,
    pool_of,
    state_of,
    until,
    until_room,
    workers_of,
)

METHODS = multiprocessing.get_all_start_methods()


@pytest.fixture(params=[pytest.param(method, marks=pytest.mark.storm) if method == "forkserver" else method
                        for method in METHODS])
def method(request):
    """Each start method, forkserver in the storm only.

    Processes that multiprocessing keeps are started before, so that none counts as a leak.
    """
    if request.param != "fork":
        resource_tracker.ensure_running()
    if request.param == "forkserver":
        worker_pool._preload_in_fork_server()
        forkserver.ensure_running()
    return request.param


KEYS = list(range(40))


# What a task does to its worker


@pytest.mark.parametrize(("fault", "error"), [
    ("killed", {"type": "WorkerDied", "signal": "SIGKILL"}),
    ("segfault", {"type": "WorkerDied", "signal": "SIGSEGV"}),
    ("_exit 3", {"type": "WorkerDied", "exit_code": 3}),
    ("_exit 0", {"type": "WorkerDied", "exit_code": 0}),
    ("killed with a child", {"type": "WorkerDied", "signal": "SIGKILL"}),
    ("closes its files", {"type": "WorkerDied", "signal": "SIGKILL"}),
])
def test_death_fails_the_task_in_progress_only(fault, error):
    """cpython #82265, joblib #812, dask #5234 (queued tasks were blamed), temporalio #245 (the pool stayed broken)."""
    keys = [*KEYS[:20], fault, *KEYS[20:]]
    with pool_of(functions.fault, start_method="fork") as pool:
        outcomes = drive(pool, keys)
        # Any task of a chunk may have closed the files of its worker, so its tasks run again, one by one.
        assert 1 <= pool.workers_lost <= (3 if fault == "closes its files" else 1)
        pool.close()
    assert len(outcomes) == 41
    failed = failures(outcomes)
    assert list(failed) == [fault]
    assert error.items() <= failed[fault].items()
    assert failed[fault]["message"].startswith("the worker process ended during the task")


def test_deaths_in_one_chunk(method):
    """The tasks before a deadly one have run, and their results are lost. They run again."""
    faults = ["killed", "segfault", "_exit 3", "killed with a child", "closes its files"]
    keys = [key for number, fault in enumerate(faults) for key in (fault, number, -number - 1)]
    with pool_of(functions.fault, start_method=method) as pool:
        until_room(pool)
        pool.put([Task(key, 1) for key in keys])
        outcomes = drive(pool, [])
        assert 5 <= pool.workers_lost <= 7
        pool.close()
    assert len(outcomes) == 15
    failed = failures(outcomes)
    assert {key: error.get("signal", error.get("exit_code")) for key, error in failed.items()} == {
        "killed": "SIGKILL", "segfault": "SIGSEGV", "_exit 3": 3, "killed with a child": "SIGKILL",
        "closes its files": "SIGKILL"}
    assert {error["type"] for error in failed.values()} == {"WorkerDied"}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_tasks_that_fork_after_one_that_closes_files_are_not_blamed(method, capfd):
    """The watching thread of the worker, which a fork restarts, took the closed pipe for the end of the driver."""
    keys = ["before", "closes its files", *range(5)]
    with pool_of(functions.fork_or_close, 1, start_method=method) as pool:
        until_room(pool)
        pool.put([Task(key, 1) for key in keys])
        outcomes = drive(pool, [])
    assert {key for key, outcome in outcomes.items() if outcome.kind != DONE} == {"closes its files"}
    assert "Exception ignored" not in capfd.readouterr().err


@pytest.mark.parametrize("method", METHODS)
def test_exceptions_and_results_that_cannot_be_sent_fail_one_task(method):
    """cpython #79492, #103061, strictdoc #3201: the pool hangs, or breaks."""
    keys = ["sys.exit", "interrupt", "two arguments", "lambda", "unreadable", "set", "abort", "retry", "task result"]
    with pool_of(functions.fault, start_method=method) as pool:
        outcomes = drive(pool, [*KEYS, *keys])
        assert pool.workers_lost == 0
        pool.close()
    failed = failures(outcomes)
    assert {key: error["type"] for key, error in failed.items()} == {
        "sys.exit": "SystemExit", "interrupt": "KeyboardInterrupt", "abort": "Abort", "retry": "Retry",
        "two arguments": "tests.support.task_functions.TwoArguments", "lambda": failed["lambda"]["type"]}
    assert failed["two arguments"]["message"] == "one and two"
    assert "lambda" in failed["lambda"]["message"]
    assert "raise TwoArguments" in failed["two arguments"]["traceback"]
    assert outcomes["abort"].kind == ABORTED
    assert outcomes["retry"][3:] == (3.0, True)
    assert outcomes["retry"].kind == RETRY
    # What a result contains is read by the runner, and fails one task there.
    with pytest.raises(LookupError, match="unreadable"):
        pickle.loads(outcomes["unreadable"].data)
    assert pickle.loads(outcomes["set"].data) == ({"result": {1, 2}}, None)
    assert pickle.loads(outcomes["task result"].data) == ({"a": 1}, ["b"])
    assert pickle.loads(outcomes[7].data) == ({"key": 7}, None)


def test_result_above_the_limit_fails_its_task(monkeypatch):
    monkeypatch.setattr(worker, "MAX_RESULT", 100_000)
    with pool_of(functions.large, start_method="fork") as pool:
        outcomes = drive(pool, [1, 2])
    assert [error["type"] for error in failures(outcomes).values()] == ["ResultTooLarge"] * 2


def test_outcome_that_cannot_be_sent_becomes_a_failure(monkeypatch):
    def describe(error, skip_frames=0):
        return {"type": "Odd", "message": lambda: 0}

    monkeypatch.setattr(worker, "describe_error", describe)
    with pool_of(functions.fault, 1, start_method="fork") as pool:
        until_room(pool)
        outcomes = drive(pool, [1, "two arguments", 2], size=3)
    assert "lambda" in failures(outcomes)["two arguments"]["message"]


# Time limits


def test_late_worker_is_killed_and_its_task_has_failed(method):
    """joblib #522, dask #391, pebble #129, dramatiq #211: nothing stops a task that hangs."""
    began = time.monotonic()
    with pool_of(functions.fault, timeout=2, start_method=method) as pool:
        outcomes = drive(pool, [*KEYS[:20], "sleeps", "unkillable", *KEYS[20:]])
        assert pool.workers_lost == 0
        pool.close()
    assert len(outcomes) == 42
    failed = failures(outcomes)
    assert {key: error["type"] for key, error in failed.items()} == dict.fromkeys(("sleeps", "unkillable"),
                                                                                  "TaskTimeout")
    assert failed["sleeps"]["message"] == "the task took longer than 2 s"
    assert 2 <= failed["sleeps"]["seconds"] < 30
    assert time.monotonic() - began < 50


def test_result_that_has_arrived_counts_though_the_worker_is_killed_as_late(tmp_path):
    with pool_of(functions.sleep, 1, timeout=0.2, start_method="fork") as pool:
        until_room(pool)
        pool.put([Task((str(tmp_path / "begun"), 0.4), 1)])
        # The driver looks only when the result is in the buffer.
        until(lambda: (tmp_path / "begun").exists())
        until(lambda: pool._crew[0].has_more())
        ((_, outcome),) = first_events(pool)
        assert outcome.kind == DONE


def test_time_while_the_program_is_stopped_does_not_count(method, tmp_path):
    keys = [(str(tmp_path / name), 1.0) for name in ("one", "two")]
    with pool_of(functions.sleep, timeout=0.5, start_method=method) as pool:
        for key in keys:
            until_room(pool)
            pool.put([Task(key, 1)])
        until(lambda: all(Path(key[0]).exists() for key in keys))
        pool.suspend()
        until(lambda: [state_of(pid) for pid in workers_of(pool)] == ["T", "T"])
        pool.resume(1000)
        assert not failures(drive(pool, []))
        # No time was spent in between, so this task is late.
        until_room(pool)
        pool.put([Task((str(tmp_path / "three"), 1000.0), 1)])
        until(lambda: (tmp_path / "three").exists())
        pool.suspend()
        pool.resume(0)
        ((_, outcome),) = first_events(pool)
        assert outcome.error["type"] == "TaskTimeout"


# Processes that a task has started


@pytest.mark.parametrize(("method", "what"), [
    ("fork", "hangs"), ("fork", "ends"), *((method, "dies") for method in METHODS)])
def test_children_of_a_task_end_with_its_worker(method, what, tmp_path):
    """mpire #98, joblib #1221: what a killed task has started goes on."""
    key = str(tmp_path / "pids"), what
    with pool_of(functions.start_child, 1, timeout=1, start_method=method) as pool:
        outcomes = drive(pool, [key])
        pids = [int(pid) for pid in Path(key[0]).read_text().split()]
        if what == "ends":
            assert outcomes[key].kind == DONE
            assert state_of(pids[1])
            pool.close()
        else:
            assert outcomes[key].kind == FAILED
        until(lambda: all(map(has_ended, pids)))


DRIVER = """
import os, sys, time
from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.worker import TaskFunction
from tastypy_fast.pipeline.worker_pool import ProcessPool
from tests.support import task_functions as functions
from tests.support.executors import until_room, workers_of
{guard}
    pool = ProcessPool(TaskFunction(functions.start_child), 2, start_method=sys.argv[1])
    pool.start()
    for number in range(2):
        until_room(pool)
        pool.put([Task((f"{{sys.argv[2]}}/pids-{{number}}", sys.argv[3]), 1)])
    {end}
"""


def start_driver(tmp_path, *arguments, guard='if __name__ == "__main__":', end="time.sleep(1000)"):
    program = tmp_path / "driver.py"
    program.write_text(textwrap.dedent(DRIVER.format(guard=guard, end=end)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, program, *map(str, arguments)], env=environment, text=True,
                            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("end", "what"), [("killed", "hangs"), ("returns", "hangs"), pytest.param(
    "killed", "hangs in C", marks=pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not kill"))])
def test_no_process_outlives_the_driver(method, end, what, tmp_path):
    """cpython #111873, loky #360, img2dataset #289, bbot #3203."""
    files = [tmp_path / "pids-0", tmp_path / "pids-1"]
    last_line = "time.sleep(1000)" if end == "killed" else "functions.wait_for_file(sys.argv[2] + '/end')"
    with start_driver(tmp_path, method, tmp_path, what, end=last_line) as driver:
        until(lambda: all(file.exists() for file in files))
        pids = [int(pid) for file in files for pid in file.read_text().split()]
        assert len(pids) == 4
        assert all(map(state_of, pids))
        if end == "killed":
            driver.kill()
        else:
            (tmp_path / "end").touch()
        driver.wait()
        until(lambda: all(map(has_ended, pids)))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "fork"])
def test_program_without_a_main_guard_gets_a_hint(method, tmp_path):
    with start_driver(tmp_path, method, tmp_path, guard="if True:") as driver:
        _, errors = driver.communicate()
    assert driver.returncode == 1
    assert "WorkerStartError: 3 worker processes in a row ended before they were ready" in errors
    assert 'if __name__ == "__main__":' in errors


INTERRUPTED = """
import os, signal, sys, time
from tastypy_fast.pipeline.worker import TaskFunction
from tastypy_fast.pipeline.worker_pool import ProcessPool
from tests.support import task_functions as functions
from tests.support.executors import drive, until_room
if __name__ == "__main__":
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: signals.append(number))
    pool = ProcessPool(TaskFunction(functions.nothing), 1, start_method=sys.argv[1])
    pool.start()
    until_room(pool)
    assert len(drive(pool, range(10))) == 10
    pool.close()
    assert pool.workers_lost == 0
    assert signals == [signal.SIGINT]
else:
    # A worker that is starting, in the driver's process group.
    os.killpg(0, signal.SIGINT)
"""


@pytest.mark.skipif("spawn" not in METHODS, reason="no workers that import the main module")
def test_ctrl_c_does_not_reach_a_worker_that_is_starting(tmp_path):
    program = tmp_path / "driver.py"
    program.write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, program, "spawn"], env=environment, start_new_session=True,
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# Start and end


@pytest.mark.parametrize(("how", "message"), [
    ("raises", "the initializer raised: LookupError: no model here"),
    ("sys.exit", "the initializer raised: SystemExit: 3"),
    ("dies", "3 worker processes in a row ended before they were ready; the last one ended with exit code 3"),
])
def test_initializer_that_fails_ends_the_run_at_once(method, how, message, no_leaks):
    """parsl #1035 (a silent hang), CAPEv2 #3142 (a task orphaned)."""
    with pool_of(functions.nothing, initializer=functions.fail_to_start, initargs=(how,), start_method=method) as pool:
        with pytest.raises(WorkerStartError) as caught:
            until_room(pool)
        assert str(caught.value).startswith(message)
        assert ("task_functions.py" in str(caught.value)) == (how != "dies")
        # No task was given out, so no try is counted.
        assert pool.kill() == []


def test_worker_that_dies_once_before_it_is_ready_is_replaced(method, tmp_path):
    with pool_of(functions.double, 1, initializer=functions.die_once, initargs=(str(tmp_path / "dead"),),
                 start_method=method) as pool:
        assert len(drive(pool, KEYS)) == 40
        assert pool.workers_lost == 1


def test_initializer_runs_in_each_worker(method):
    with pool_of(functions.give_variable, initializer=functions.set_variable, initargs=("set",),
                 start_method=method) as pool:
        outcomes = drive(pool, KEYS[:4], size=1)
    assert {pickle.loads(outcome.data)[0]["value"] for outcome in outcomes.values()} == {"set"}
    assert "TASTYPY_FAST_TEST" not in os.environ


@pytest.mark.parametrize("end", ["close", "kill"])
def test_nothing_is_left_of_a_pool(method, end, no_leaks):
    with pool_of(functions.double, start_method=method) as pool:
        drive(pool, KEYS)
        pids = workers_of(pool)
        getattr(pool, end)()
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        # Both may be called again.
        pool.close()
        assert pool.kill() == []
    assert multiprocessing.active_children() == []


def test_kill_returns_the_tasks_without_an_event(method, tmp_path):
    keys = [(str(tmp_path / "go"), what) for what in ("waits", "nothing", "more")]
    with pool_of(functions.block, 1, start_method=method) as pool:
        until_room(pool)
        pool.put([Task(key, 1) for key in keys])
        until(lambda: (tmp_path / "go.begun").exists())
        assert [task.key for task in pool.kill()] == keys
        assert not pool.is_busy()


def test_worker_that_does_not_end_is_killed_by_close(monkeypatch):
    monkeypatch.setattr(worker_pool, "CLOSE_SECONDS", 0.2)
    with pool_of(functions.nothing, initializer=_start_thread, start_method="fork") as pool:
        until_room(pool)
        pids = workers_of(pool)
        pool.close()
        assert all(map(has_ended, pids))


def _start_thread():
    threading.Thread(target=time.sleep, args=(1000,)).start()


def test_daemon_of_multiprocessing_may_not_start_workers(monkeypatch, no_leaks):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(WorkerStartError, match="may not start processes; use executor="):
        ProcessPool(TaskFunction(functions.nothing), 2).start()


@pytest.mark.parametrize("error", [OSError(11, "no process is free"), BrokenPipeError(), ZeroDivisionError()])
def test_start_that_fails_leaves_nothing(error, monkeypatch, no_leaks):
    begin = multiprocessing.get_context("fork").Process.start
    count = []

    def start(self):
        count.append(self)
        if len(count) == 2:
            raise error
        begin(self)

    monkeypatch.setattr(multiprocessing.get_context("fork").Process, "start", start)
    pool = ProcessPool(TaskFunction(functions.nothing), 2, start_method="fork")
    with pytest.raises(WorkerStartError if isinstance(error, OSError) else ZeroDivisionError):
        pool.start()
    count.clear()
    assert multiprocessing.active_children() == []


def test_process_that_cannot_be_started_is_started_later(monkeypatch):
    process_class = multiprocessing.get_context("fork").Process
    begin = process_class.start
    refusals = []

    def start(self):
        if len(refusals) < 2:
            refusals.append(self)
            raise BlockingIOError(11, "no process is free")
        begin(self)

    with pool_of(functions.fault, 1, start_method="fork") as pool:
        monkeypatch.setattr(process_class, "start", start)
        outcomes = drive(pool, [*KEYS[:20], "killed", *KEYS[20:]])
        assert list(failures(outcomes)) == ["killed"]
    assert len(refusals) == 2


# What is sent to workers


def test_lambdas_and_nested_functions_need_cloudpickle_unless_workers_are_forked(method, monkeypatch, no_leaks):
    """adaptive #206, dask #6803."""
    factor = 3
    nested = [lambda key: {"n": factor * key}]
    if method == "fork":
        with pool_of(nested[0], 1, start_method=method) as pool:
            assert pickle.loads(drive(pool, [2])[2].data) == ({"n": 6}, None)
        return
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(UnsendableFunctionError) as caught, pool_of(nested[0], 1, start_method=method):
        pass
    message = str(caught.value)
    assert message.startswith("the function test_lambdas_and_nested")
    assert "<lambda> cannot be sent to a worker process: " in message
    assert "pip install 'tastypy_fast[run]'" in message
    with pytest.raises(UnsendableFunctionError, match="the arguments of the initializer"), \
            pool_of(functions.nothing, initializer=functions.set_variable, initargs=(lambda: 0,), start_method=method):
        pass


@pytest.mark.parametrize("method", [method for method in METHODS if method != "fork"])
def test_lambdas_are_sent_by_value_with_cloudpickle(method):
    pytest.importorskip("cloudpickle")
    factor = 3
    with pool_of(lambda key: {"n": factor * key}, 1, start_method=method) as pool:
        assert pickle.loads(drive(pool, [2])[2].data) == ({"n": 6}, None)
    lock = threading.Lock()
    with pytest.raises(UnsendableFunctionError, match=r"cannot pickle '_thread\.lock' object") as caught, \
            pool_of(lambda key: lock, 1, start_method=method):
        pass
    assert "pip" not in str(caught.value)


def test_function_of_an_interactive_session_is_sent_by_value_or_refused(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.delattr(main, "__file__", raising=False)
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    monkeypatch.setattr(main, "work_here", functions.nothing, raising=False)
    exec("def work_here(key): return 1", vars(main))
    with pytest.raises(UnsendableFunctionError, match=r"work_here .* main module"), \
            pool_of(main.work_here, 1, start_method="spawn"):
        pass


def test_function_that_a_worker_cannot_load_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "only_here.py").write_text("import os\nassert os.getppid() == PARENT\ndef f(key): pass\n"
                                           .replace("PARENT", str(os.getppid())))
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    with pool_of(only_here.f, 1, start_method="spawn") as pool, \
            pytest.raises(WorkerStartError, match="the function cannot be loaded in a worker process: AssertionError"):
        until_room(pool)


def test_tasks_know_their_key_try_and_slot(method):
    with pool_of(functions.give_task, start_method=method) as pool:
        outcomes = drive(pool, [Task((1, "a"), 3), *KEYS[:6]], size=1)
    results = {key: pickle.loads(outcome.data)[0] for key, outcome in outcomes.items()}
    assert results[1, "a"]["tries"] == 3
    assert results[5]["key"] == 5
    assert {result["slot"] for result in results.values()} <= {0, 1}


def test_new_worker_has_the_slot_of_the_dead_one():
    with pool_of(_slot_or_die, start_method="fork") as pool:
        outcomes = drive(pool, [*KEYS[:10], "dies", *KEYS[10:]], size=1)
        assert sorted(worker.slot for worker in pool._crew) == [0, 1]
    assert list(failures(outcomes)) == ["dies"]


def _slot_or_die(key):
    return functions.give_task(key) if key != "dies" else functions.fault("killed")


@pytest.mark.parametrize("method", METHODS)
def test_message_of_a_chunk_with_much_data_is_bounded(method):
    tasks = [Task(number, 1, {"text": "x" * 400_000}) for number in range(10)]
    with pool_of(functions.give_data, 1, with_data=True, start_method=method) as pool:
        until_room(pool)
        pool.put(tasks)
        # The worker may have finished the first tasks already.
        events = pool.step(0)
        given_back = [task for task, outcome in events if outcome is None]
        assert given_back == tasks[3:]
        assert pool._size.tasks <= 3
        outcomes = {task.key: outcome for task, outcome in events if outcome is not None}
        outcomes |= drive(pool, given_back)
        assert len(outcomes) == 10
    assert {pickle.loads(outcome.data)[0]["size"] for outcome in outcomes.values()} == {400_000}


def test_data_that_cannot_be_sent_fails_its_task():
    with pool_of(functions.give_data, 1, with_data=True, start_method="fork") as pool:
        outcomes = drive(pool, [Task(1, 1, {"text": lambda: 0}), Task(2, 1, {"text": "x"})])
    assert list(failures(outcomes)) == [1]


def test_worker_has_no_input_and_a_group_of_its_own(method):
    with pool_of(_look_around, 1, start_method=method) as pool:
        result = pickle.loads(drive(pool, [1])[1].data)[0]
    assert result == {"input": "", "group": True, "signals": True, "child": "0"}


def _look_around(key):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
    return {
        "input": os.read(0, 10).decode(),
        "group": os.getpgrp() == os.getpid(),
        "signals": all(signal.getsignal(number) == signal.SIG_DFL for number in numbers),
        "child": subprocess.run("read line; echo ${#line}", shell=True, capture_output=True, text=True).stdout.strip(),
    }


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Thread.join() returns before the system's thread ends")
def test_worker_has_no_thread_while_a_task_forks(method):
    with pool_of(functions.fork_often, 1, start_method=method) as pool:
        result = pickle.loads(drive(pool, [1])[1].data)[0]
    assert result == {"warnings": [], "threads": ["MainThread", "tastypy_fast driver"]}


@pytest.mark.parametrize("end", ["close", "kill"])
def test_daemon_that_a_task_leaves_behind_lives_and_delays_nothing(method, end, tmp_path, monkeypatch):
    """It holds the pipes of the worker that it inherited, and has left the worker's group on purpose."""
    monkeypatch.setattr(worker_pool, "CLOSE_SECONDS", 50)
    monkeypatch.setattr(worker_pool, "KILL_SECONDS", 50)
    key = str(tmp_path / "pid")
    with pool_of(functions.fork_twice, 1, start_method=method) as pool:
        assert pickle.loads(drive(pool, [key])[key].data)[0] == {"status": 3}
        until((tmp_path / "pid").exists)
        daemon = int((tmp_path / "pid").read_text())
        pids = workers_of(pool)
        began = time.monotonic()
        getattr(pool, end)()
        assert time.monotonic() - began < 40
    assert all(map(has_ended, pids))
    assert state_of(daemon)
    os.kill(daemon, signal.SIGKILL)


def test_forked_worker_holds_no_descriptor_of_the_others():
    """Otherwise nobody sees the end of a worker, or of the driver."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    before = _anonymous(_descriptors("self"))
    with pool_of(functions.nothing, 1, start_method="fork") as one, \
            pool_of(functions.nothing, 3, start_method="fork") as pool:
        crew = [*one._crew, *pool._crew]
        until(lambda: all(worker.is_ready for worker in crew) or (one.step(0.01), pool.step(0.01)) is None)
        ours = {os.readlink(f"/proc/self/fd/{worker.socket.fileno()}") for worker in crew}
        assert len(ours) == 4
        for worker in crew:
            links = _descriptors(worker._pid)
            assert not ours.intersection(links)
            assert _anonymous(links) <= before


def _descriptors(pid):
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(descriptor))
    return links


def _anonymous(links):
    """The number of selectors and of descriptors of processes."""
    return sum("eventpoll" in link or "pidfd" in link for link in links)


# Who gets which tasks


def test_task_does_not_wait_behind_a_long_one_while_a_worker_is_idle(method, tmp_path):
    """ray #29453, img2dataset #74, #164. Otherwise this hangs: the first task waits for what the last one makes."""
    path = str(tmp_path / "go")
    keys = [(path, "waits"), *((path, number) for number in range(8)), (path, "makes")]
    with pool_of(functions.block, start_method=method) as pool:
        until(lambda: all(worker.is_ready for worker in pool._crew) or pool.step(0.01))
        outcomes = drive(pool, keys, size=10)
        assert len(outcomes) == 10
        assert not failures(outcomes)
        # And its worker can be used again.
        assert len(drive(pool, [(path, number) for number in range(100)], size=10)) == 100


def test_waiting_chunk_does_not_wait_behind_a_long_task_either(tmp_path):
    path = str(tmp_path / "go")
    with pool_of(functions.block, start_method="fork") as pool:
        drive(pool, [(path, number) for number in range(100)], size=1)
        first, second = pool._crew
        # Both chunks are for the first worker.
        second.is_ready = False
        pool.put([Task((path, "waits"), 1), Task((path, 1), 1)])
        pool.put([Task((path, 2), 1), Task((path, "makes"), 1)])
        assert len(first.chunks) == 2
        second.is_ready = True
        assert len(drive(pool, [])) in (3, 4)
        assert len(drive(pool, [(path, 7)])) == 1


def test_chunks_grow_while_tasks_are_quick_and_shrink_when_one_is_slow():
    with pool_of(functions.nothing, start_method="fork") as pool:
        until_room(pool)
        assert pool.room() == 1
        drive(pool, range(20_000))
        assert pool.room() > 100
        assert pool._size.chunks == 2
    with pool_of(_sleep_a_little, start_method="fork") as pool:
        drive(pool, range(10))
        assert pool.room() <= 3
        assert pool._size.chunks == 1


def _sleep_a_little(key):
    time.sleep(0.03 if key else 0.2)


def test_room_is_none_while_every_worker_has_enough(tmp_path):
    path = str(tmp_path / "go")
    with pool_of(functions.block, start_method="fork") as pool:
        assert pool.room() == 0
        for _ in range(2):
            until_room(pool)
            pool.put([Task((path, "waits"), 1)])
        until(lambda: all(worker.is_ready for worker in pool._crew) or pool.step(0.01))
        assert pool.room() == 0
        with pytest.raises(RuntimeError):
            pool.put([Task((path, 1), 1)])
        (tmp_path / "go").touch()
        assert len(first_events(pool)) >= 1
        assert pool.room()


def test_wakeup_ends_a_wait():
    ours, theirs = socket.socketpair()
    with ours, theirs, pool_of(functions.nothing, wakeup=ours.fileno(), start_method="fork") as pool:
        until_room(pool)
        while pool.step(0):
            pass
        theirs.send(b"!")
        began = time.monotonic()
        assert pool.step(50) == []
        assert time.monotonic() - began < 40
        # The caller reads it.
        assert ours.recv(10) == b"!"


def test_program_that_dies_of_sigpipe_survives_a_dead_worker():
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with pool_of(functions.double, 1, start_method="fork") as pool:
            until_room(pool)
            os.kill(workers_of(pool)[0], signal.SIGKILL)
            until(lambda: pool._crew[0].has_ended())
            assert len(drive(pool, KEYS)) == 40
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_pool_inside_of_a_task():
    with pool_of(_run_pool, start_method="fork") as pool:
        outcomes = drive(pool, [1, 2], size=1)
    assert [pickle.loads(outcome.data)[0] for outcome in outcomes.values()] == [{"done": 40}] * 2


def _run_pool(key):
    with pool_of(functions.double, start_method="fork") as pool:
        return {"done": len(drive(pool, KEYS))}


def test_pool_in_a_thread_of_the_program():
    found = []
    with pool_of(functions.nothing, 1, start_method="fork"):
        thread = threading.Thread(target=lambda: found.append(_run_pool(1)))
        thread.start()
        thread.join()
    assert found == [{"done": 40}]


def test_forked_child_of_the_program_leaves_the_workers_alone():
    with pool_of(functions.double, start_method="fork") as pool:
        until_room(pool)
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                pool.kill()
            os._exit(0)
        os.waitpid(pid, 0)
        assert len(drive(pool, KEYS)) == 40
        assert pool.workers_lost == 0


# Logging


class Collect(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def records():
    """The records that reach a handler of this process, whose loggers ``task`` have the level DEBUG."""
    handler = Collect()
    logger = logging.getLogger("task")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield handler.records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def test_log_records_come_once_with_the_key_of_their_task(method, records):
    """joblib #1017, #634, loky #306."""
    with pool_of(functions.log, start_method=method) as pool:
        drive(pool, ["a", "b"], size=1)
        pool.close()
    for key in ("a", "b"):
        of_key = [record for record in records if record.task_key == key]
        assert [(record.name, record.levelname, record.getMessage()) for record in of_key] == [
            ("task.functions", "DEBUG", f"key {key} with unpicklable"),
            ("task.thread", "WARNING", "in a thread"),
            ("task.functions", "ERROR", "an exception"),
        ]
        assert of_key[0].more == [key]
        assert of_key[0].odd == "unpicklable"
        assert "TwoArguments: one and two" in logging.Formatter().format(of_key[2])
        assert of_key[0].process != os.getpid()
    assert len(records) == 6


def test_level_of_the_program_holds_in_workers(method, records):
    logging.getLogger("task").setLevel(logging.ERROR)
    with pool_of(functions.log, 1, start_method=method) as pool:
        drive(pool, ["a"])
        pool.close()
    assert [record.getMessage() for record in records] == ["an exception"]


@pytest.mark.parametrize("method", METHODS)
def test_heavy_logging_neither_blocks_nor_loses_records(method, records):
    with pool_of(functions.log_much, start_method=method) as pool:
        drive(pool, range(4), size=1)
        pool.close()
    for key in range(4):
        assert [record.number for record in records if record.task_key == key] == list(range(2000))


def test_records_of_a_forked_child_of_a_task_do_not_reach_the_socket(records, capfd):
    with pool_of(functions.log_in_child, 1, start_method="fork") as pool:
        assert not failures(drive(pool, KEYS[:5]))
        pool.close()
    assert [record.getMessage() for record in records] == ["from the task"] * 5
    assert capfd.readouterr().err.count("from the child") == 5


def test_filter_that_raises_does_not_end_the_run(records, capfd):
    def refuse(record):
        raise ZeroDivisionError

    logger = logging.getLogger("task.functions")
    with pool_of(functions.log_much, 1, start_method="fork") as pool:
        until_room(pool)
        logger.addFilter(refuse)
        try:
            assert not failures(drive(pool, [1]))
            pool.close()
        finally:
            logger.removeFilter(refuse)
    assert "ZeroDivisionError" in capfd.readouterr().err


# Storm


@pytest.mark.storm
@pytest.mark.parametrize("size", [0, 300_000])
@pytest.mark.parametrize("method", METHODS)
def test_storm_of_killed_workers_loses_nothing(method, size, seed):
    """pebble #97, #163, joblib #812: after some kills the pool is broken."""
    chance = random.Random(seed)
    seconds = 30
    function = functions.large if size else functions.nothing
    outcomes = blamed = 0
    with pool_of(function, 3, start_method=method) as pool:
        until_room(pool)
        end = time.monotonic() + seconds
        next_kill = 0.0
        latest = time.monotonic()
        gap = 0.0
        number = 0
        waiting, flying, killed = [], set(), set()
        while True:
            now = time.monotonic()
            while now < end and (room := pool.room()):
                tasks = [waiting.pop() for _ in range(min(room, len(waiting)))]
                while len(tasks) < room:
                    tasks.append(Task(number, 1))
                    number += 1
                flying.update(task.key for task in tasks)
                pool.put(tasks)
            if now >= end:
                while waiting and (room := pool.room()):
                    tasks = [waiting.pop() for _ in range(min(room, len(waiting)))]
                    flying.update(task.key for task in tasks)
                    pool.put(tasks)
                if not waiting and not pool.is_busy():
                    break
            elif now >= next_kill:
                next_kill = now + chance.uniform(0.1, 0.3)
                ready = [worker for worker in pool._crew if worker.is_ready]
                if ready:
                    pool_worker = chance.choice(ready)
                    pool_worker.kill()
                    killed.add(pool_worker)
            for task, outcome in pool.step(0.02):
                flying.remove(task.key)
                if outcome is None:
                    waiting.append(task)
                    continue
                gap = max(gap, time.monotonic() - latest)
                latest = time.monotonic()
                if outcome.kind == DONE:
                    outcomes += 1
                    if size:
                        assert pickle.loads(outcome.data)[0]["key"] == task.key
                else:
                    assert outcome.error["type"] == "WorkerDied"
                    assert outcome.error["signal"] == "SIGKILL"
                    blamed += 1
        assert not flying
        assert outcomes + blamed == number
        until(lambda: pool.step(0.01) == [] and pool.workers_lost == len(killed))
    print(f"{method}, {size} bytes: {len(killed)} kills, {outcomes} results, {blamed} blamed, longest gap {gap:.2f} s")
    assert len(killed) > 30
