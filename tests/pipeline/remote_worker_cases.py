"""What runs in the workers of other engines, and how it gets there: by value, with time limits in a child."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from tastypy_fast import UnsendableFunctionError
from tastypy_fast.pipeline import Abort, TaskResult, current_task, remote_call, remote_worker, supervised_child
from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.remote_call import RemoteFunction
from tastypy_fast.pipeline.remote_worker import RemoteSetup
from tastypy_fast.pipeline.supervised_child import end_children
from tastypy_fast.pipeline.wire import decode_outcome
from tastypy_fast.pipeline.worker import ABORTED, DONE, FAILED, MAX_RESULT, TaskFunction
from tests.support import task_functions
from tests.support.executors import has_ended, until
from tests.support.refused_modules import without
from tests.support.task_functions import TwoArguments

pytest.importorskip("cloudpickle")

LOCK = threading.Lock()


@pytest.fixture(autouse=True)
def _no_children():
    yield
    children = supervised_child._children()
    for child in list(children.values()):
        child.end()
    children.clear()
    vars(sys).pop("_tastypy_fast_setups", None)


def remote(function, timeout=None, **options):
    return RemoteFunction(RemoteSetup(TaskFunction(function, **options), timeout))


def run(function, *keys, timeout=None, data=None, **options):
    """The outcomes of a chunk, after a way through pickle."""
    call = remote(function, timeout, **options).pickle_call([Task(key, 1, data) for key in keys], True)
    _, _, items = load(call)
    return [decode_outcome(item) for item in items]


def load(call):
    """Run a call, and return the time and the outcomes of its chunk."""
    return pickle.loads(pickle.loads(call))


def result(outcome):
    assert outcome.kind == DONE, outcome
    return pickle.loads(outcome.data)[0] if outcome.data is not None else None


# By value


class Adder:
    def __init__(self, number):
        self.number = number

    def __call__(self, key):
        return {"sum": self.number + key}

    def add(self, key):
        return self(key)


def add(number, key):
    return {"sum": number + key}


def closure(number):
    return lambda key: {"sum": number + key}


FUNCTIONS = {
    "closure": closure(2), "partial": functools.partial(add, 2), "object": Adder(2), "method": Adder(2).add,
    "builtin": len,
}


class Gone(Exception):
    pass


def task_of_any_kind(key):
    if key == "abort":
        raise Abort("gone")
    if key == "own class":
        raise Gone("gone, too")
    if key == "other module":
        raise TwoArguments(1, 2)
    return TaskResult({"try": current_task().tries, "has": [name for name in ("tastypy_fast", "tests") if has(name)]},
                      add=["b"])


def has(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True


RUN = "import pickle, sys; sys.stdout.buffer.write(pickle.dumps(pickle.loads(sys.stdin.buffer.read())))"


def run_without(folder, call, *names):
    return subprocess.run([sys.executable, "-c", RUN], input=call, capture_output=True, cwd=folder.parent,
                          env=without(folder, *names), timeout=60)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("timeout", [None, 30])
def test_functions_of_all_kinds_are_sent(name, timeout):
    key = "ab" if name == "builtin" else 5
    assert result(run(FUNCTIONS[name], key, timeout=timeout)[0]) == ({"result": 2} if name == "builtin" else {"sum": 7})


# A program of several modules, one of which is used as a module.
PROGRAM = {
    "program.py": """
import sys
import helpers.numbers
from helpers import texts
from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.remote_call import RemoteFunction
from tastypy_fast.pipeline.remote_worker import RemoteSetup
from tastypy_fast.pipeline.worker import TaskFunction
import steps
sys.stdout.buffer.write(RemoteFunction(RemoteSetup(TaskFunction(steps.step), None)).pickle_call([Task(2, 1)], True))
""",
    "steps.py": """
import logging
import helpers.numbers
from helpers import texts
from helpers.texts import join
log = logging.getLogger(__name__)
def step(key):
    log.debug("step")
    return {"is": join(texts.TEXT, helpers.numbers.twice(key))}
""",
    "helpers/__init__.py": "",
    "helpers/numbers.py": "def twice(key):\n    return 2 * key\n",
    "helpers/texts.py": "TEXT = 'x'\ndef join(a, b):\n    return f'{a}{b}'\n",
}


def test_modules_of_a_program_are_sent_with_the_function(tmp_path):
    for name, text in PROGRAM.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    call = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, check=True,
                          timeout=60).stdout
    done = run_without(tmp_path / "site", call, "tastypy_fast", "helpers", "steps")
    assert done.returncode == 0, done.stderr
    assert result(decode_outcome(load(done.stdout)[2][0])) == {"is": "x4"}


@pytest.mark.parametrize("timeout", [None, 30])
def test_worker_needs_neither_the_package_nor_the_modules_of_the_program(tmp_path, timeout):
    # adaptive #206, dask #6803
    call = remote(task_of_any_kind, timeout, abort_on=(Gone,)).pickle_call(
        [Task("a", 3), Task("abort", 1), Task("own class", 1), Task("other module", 1)], True)
    done = run_without(tmp_path / "site", call, "tastypy_fast", "tests", "lmdb")
    assert done.returncode == 0, done.stderr
    outcomes = [decode_outcome(item) for item in load(done.stdout)[2]]
    assert pickle.loads(outcomes[0].data) == ({"try": 3, "has": []}, ["b"])
    assert [outcome.kind for outcome in outcomes] == [DONE, ABORTED, ABORTED, FAILED]
    assert outcomes[1].error["message"] == "gone"


def test_worker_without_cloudpickle_raises_an_error_that_names_it(tmp_path):
    done = run_without(tmp_path / "site", remote(add).pickle_call([], True), "cloudpickle")
    assert done.stderr.decode().rstrip().endswith("No module named 'cloudpickle'")


def test_worker_with_another_version_of_python_returns_its_version(monkeypatch):
    monkeypatch.setattr(remote_call, "sys", SimpleNamespace(version_info=(3, 4, 0), modules=sys.modules))
    loaded = pickle.loads(remote(add).pickle_call([Task("a", 1)], True))
    assert loaded == ".".join(map(str, sys.version_info[:3]))


def test_large_function_is_sent_to_workers_that_lack_it():
    data = os.urandom(1 << 20)
    function = remote(lambda key: {"size": len(data)})
    tasks = [Task("a", 1)]
    short, long = (function.pickle_call(tasks, with_payload) for with_payload in (False, True))
    assert len(short) < 10_000 < len(data) < len(long)
    assert pickle.loads(short) is None
    assert [len(load(call)[2]) for call in (long, short)] == [1, 1]


def test_worker_keeps_few_functions():
    for number in range(20):
        run(closure(number), 1)
    assert len(sys._tastypy_fast_setups) == 8


def test_function_that_cannot_be_sent_raises_an_error():
    lock = threading.Lock()
    with pytest.raises(UnsendableFunctionError, match=r"cannot pickle '_thread.lock' object. Open files, locks"):
        remote(lambda key: lock.locked())


def uses_a_lock(key):
    with LOCK:
        return


def test_function_whose_module_cannot_be_sent_goes_by_reference():
    # (the lock is a global of the module, so this works where the worker can import it)
    assert "cannot pickle '_thread.lock' object" in remote(uses_a_lock).reason
    assert run(uses_a_lock, 1)[0].kind == DONE


def test_without_cloudpickle_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(UnsendableFunctionError, match=r"pip install 'tastypy_fast\[run\]'"):
        remote(add)


def test_registry_of_cloudpickle_is_left_as_it_was():
    import cloudpickle

    cloudpickle.register_pickle_by_value(task_functions)
    try:
        remote(add)
        assert cloudpickle.list_registry_pickle_by_value() == {task_functions.__name__}
    finally:
        cloudpickle.unregister_pickle_by_value(task_functions)


# In the worker


@pytest.mark.parametrize("timeout", [None, 30])
def test_task_gets_its_data(timeout):
    outcome, = run(lambda key, data: {"n": data["n"] + 1}, "a", data={"n": 1}, with_data=True, timeout=timeout)
    assert result(outcome) == {"n": 2}


@pytest.mark.parametrize("timeout", [None, 30])
def test_faults_that_leave_the_process_alive_cost_their_task_only(timeout):
    outcomes = run(task_functions.fault, "a", "lambda", "two arguments", "interrupt", "sys.exit", "unreadable",
                   timeout=timeout)
    assert [outcome.error["type"] if outcome.error else None for outcome in outcomes] == [
        None, "AttributeError", "tests.support.task_functions.TwoArguments", "KeyboardInterrupt", "SystemExit",
        "_pickle.PicklingError"]


@pytest.mark.parametrize("timeout", [None, 30])
def test_chunk_ends_after_its_time(timeout):
    function = remote(lambda key: time.sleep(0.15), timeout)
    seconds, last, items = load(function.pickle_call([Task(key, 1) for key in range(5)], True))
    assert 1 <= len(items) <= 2
    assert 0 < last <= seconds
    end_children(function.digest)


def test_result_of_60_mb_arrives_from_a_child():
    assert len(result(run(lambda key: {"text": "x" * 60_000_000}, 1, timeout=30)[0])["text"]) == 60_000_000
    outcome, = run(lambda key: "x" * (MAX_RESULT + 1), 1, timeout=30)
    assert (outcome.kind, outcome.error["type"]) == (FAILED, "ResultTooLarge")


# Supervised children


@pytest.mark.parametrize(("fault", "type_name", "detail"), [
    ("killed", "WorkerDied", {"signal": "SIGKILL"}),
    ("segfault", "WorkerDied", {"signal": "SIGSEGV"}),
    ("_exit 3", "WorkerDied", {"exit_code": 3}),
    ("killed with a child", "WorkerDied", {"signal": "SIGKILL"}),
    ("sleeps", "TaskTimeout", {}),
    ("unkillable", "TaskTimeout", {}),
    ("closes its files", "WorkerDied", {}),
])
def test_fault_ends_the_child_and_costs_its_task_only(fault, type_name, detail):
    function = remote(task_functions.fault, 2 if type_name == "TaskTimeout" else 30)
    began = time.monotonic()
    seconds, _, items = load(function.pickle_call([Task(key, 1) for key in ("a", fault, "b")], True))
    error = decode_outcome(items[1]).error
    assert (len(items), error["type"]) == (2, type_name)
    assert error.items() >= detail.items()
    assert supervised_child._children() == {}
    assert time.monotonic() - began < 40
    assert seconds < 30


def test_child_is_kept_for_the_next_chunk_and_replaced_when_it_has_ended():
    function = remote(task_functions.give_pid, 30)

    def pid():
        return result(decode_outcome(load(function.pickle_call([Task(1, 1)], True))[2][0]))["pid"]

    first = pid()
    assert first == pid() != os.getpid()
    os.kill(first, signal.SIGKILL)
    assert pid() != first
    last = pid()
    end_children("another")
    assert not has_ended(last)
    end_children(function.digest)
    assert has_ended(last)


def test_children_leave_no_files_open(no_leaks):
    function = remote(task_functions.fault, 30)
    for keys in (["a"], ["_exit 3"], ["a"]):
        load(function.pickle_call([Task(key, 1) for key in keys], True))
    end_children(function.digest)
    supervised_child._children().clear()


def test_child_that_cannot_start_raises(monkeypatch):
    monkeypatch.setattr(supervised_child, "_LOADER", "raise SystemExit(1)")
    with pytest.raises(RuntimeError, match="cannot be started"):
        remote_worker.RemoteSetup(TaskFunction(add), 1.0).run("digest", b"", [(1, 1, None)])


WORKER = """
import pickle, sys
pickle.loads(sys.stdin.buffer.read())
"""


@pytest.mark.parametrize("what", ["hangs", "waits"])
def test_child_ends_with_its_worker(tmp_path, what):
    file = tmp_path / "pids"
    call = remote(task_functions.start_child, 100).pickle_call([Task((str(file), what), 1)], True)
    code = WORKER + ("import time; time.sleep(1000)" if what == "waits" else "")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=tmp_path) as process:
        process.stdin.write(call)
        process.stdin.close()
        until(file.exists)
        pids = [int(pid) for pid in file.read_text().split()]
        process.kill()
    began = time.monotonic()
    until(lambda: all(map(has_ended, pids)))
    assert time.monotonic() - began < 40
