"""``tracker.run()`` on Dask clusters: workers and schedulers that are killed, and workers without this package."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tastypy_fast import ExecutorLostError, SharedTracker
from tastypy_fast.pipeline import Abort, TaskResult, current_task, futures_executor, supervised_child
from tastypy_fast.pipeline.futures_executor import dask_client
from tests.support import task_functions
from tests.support.executors import has_ended, until
from tests.support.refused_modules import without

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
psutil = pytest.importorskip("psutil")

# Each cluster has threads and sockets that it closes a moment after its end, and says so.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

# One death is enough to give a task up (otherwise 4 workers are started anew for it). A local cluster ends workers that
# were killed 15 s before, even those that have been replaced.
CONFIG = {"distributed.scheduler.allowed-failures": 0, "distributed.deploy.lost-worker-timeout": "1 hour",
          "distributed.admin.tick.limit": "1 hour", "distributed.dashboard.link": ""}


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    # Each death is an error in Dask's logs.
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def cluster():
    with dask.config.set(CONFIG), distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


@pytest.fixture
def shared(path):
    with SharedTracker(path, max_tries=1) as tracker:
        yield tracker
        tracker._check()
        assert tracker.claimed_keys() == []


def pids_of(client):
    return list(client.run(os.getpid).values())


# A local cluster


def test_tasks_run_once_and_faults_with_a_time_limit_cost_exactly_themselves(shared, client):
    shared.add_many([*range(60), "segfault", "_exit 3", "sleeps", "task result"])
    workers = pids_of(client)
    report = shared.run(task_functions.fault, executor=client, timeout=2)
    assert (report.done, report.failed, report.timed_out, report.workers_lost) == (62, 3, 1, 0)
    assert [shared[key]["_error"]["type"] for key in ("segfault", "_exit 3", "sleeps")] == [
        "WorkerDied", "WorkerDied", "TaskTimeout"]
    assert all(shared.tries(key) == 1 for key in shared)
    assert shared.done("b")
    assert pids_of(client) == workers


def test_task_that_kills_its_worker_is_blamed_and_its_neighbours_are_not(shared, client):
    # dask #2694 #5234 #2142 #2181
    shared.add_many([*range(20), "_exit 3", *range(20, 40)])
    report = shared.run(task_functions.fault, executor=client)
    assert (report.done, report.failed) == (40, 1)
    assert report.workers_lost > 0
    assert all(shared.tries(key) == 1 for key in shared)
    assert shared["_exit 3"]["_error"]["type"] == "WorkerDied"
    assert "KilledWorker" in shared["_exit 3"]["_error"]["message"]


def test_worker_that_is_killed_takes_its_child_along_and_its_tasks_run_elsewhere(shared, client, tmp_path):
    def work(key):
        task_functions.write(tmp_path / str(key), str(os.getpid()))
        time.sleep(0.1)
        return {"worker": os.getppid()}

    ended = []

    def kill():
        until((tmp_path / "3").exists)
        child = int((tmp_path / "3").read_text())
        worker = psutil.Process(child).ppid()
        os.kill(worker, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: has_ended(child))
        ended.append((worker, time.monotonic() - began))

    shared.add_many(range(20))
    # (a death counts as a failure of all tasks that were there, and Dask gives them up after the first)
    client.run_on_scheduler(set_allowed_failures, number=3)
    try:
        thread = threading.Thread(target=kill)
        thread.start()
        report = shared.run(work, executor=client, timeout=30)
        thread.join()
    finally:
        client.run_on_scheduler(set_allowed_failures, number=0)
    assert (report.done, report.failed, sum(map(shared.tries, shared))) == (20, 0, 20)
    worker, seconds = ended[0]
    assert seconds < 30
    assert {shared[key]["worker"] for key in range(20)} - {worker}


def set_allowed_failures(dask_scheduler, number):
    dask_scheduler.allowed_failures = number


def test_result_of_60_mb_arrives(shared, client):
    shared.add("a")
    report = shared.run(lambda key: {"text": "x" * 60_000_000}, executor=client, on_result=lambda key, data: None)
    assert report.done == 1
    assert len(shared["a"]["text"]) == 60_000_000


def test_client_that_is_closed_ends_the_run(shared, cluster):
    shared.add_many(range(1000))
    with distributed.Client(cluster) as client:
        def close(key, data):
            if key == 30:
                client.close()

        began = time.monotonic()
        with pytest.raises(ExecutorLostError):
            shared.run(lambda key: time.sleep(0.01), executor=client, on_result=close)
    assert time.monotonic() - began < 40
    assert shared.num_done() == sum(map(shared.tries, shared)) < 1000


def test_cluster_of_a_function_is_closed_with_the_run(shared):
    made = []

    def make():
        made.append(distributed.Client(n_workers=2, threads_per_worker=2, processes=False, dashboard_address=":0"))
        return made[-1]

    with dask.config.set(CONFIG):
        shared.add_many([*range(20), "_exit 3"])
        report = shared.run(task_functions.fault, executor=make, timeout=20)
    assert (report.done, report.failed) == (20, 1)
    assert made[0].status == made[0].cluster.status.name == "closed"
    assert supervised_child._children() == {}


def test_run_says_that_it_waits_for_the_first_worker_of_a_cluster(shared, monkeypatch):
    monkeypatch.setattr(futures_executor, "WARN_SECONDS", 0.0)
    heard = []

    class Scale(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())
            client.cluster.scale(1)

    shared.add("a")
    handler, logger = Scale(), logging.getLogger("tastypy_fast")
    with dask.config.set(CONFIG), distributed.Client(n_workers=0, processes=False, dashboard_address=":0") as client:
        logger.addHandler(handler)
        try:
            assert shared.run(lambda key: None, executor=client).done == 1
        finally:
            logger.removeHandler(handler)
    assert heard == ["run() waits for the first worker of the cluster"]


PROGRAM = """
import time
from distributed import Client
from tastypy_fast import SharedTracker

def work(key):
    with open("begun", "a"):
        pass
    time.sleep(0.2)

if __name__ == "__main__":
    with SharedTracker("store", max_tries=1) as tracker:
        tracker.add_many(range(1000))
        tracker.run(work, executor=lambda: Client(n_workers=1, threads_per_worker=2, dashboard_address=":0"))
"""


def test_ctrl_c_that_ends_the_workers_of_a_local_cluster_ends_the_run(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    with subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as program:
        until((tmp_path / "begun").exists)
        os.killpg(program.pid, signal.SIGINT)
        began = time.monotonic()
        _, errors = program.communicate(timeout=60)
    assert time.monotonic() - began < 60
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    with SharedTracker(tmp_path / "store") as tracker:
        assert tracker.claimed_keys() == []
        assert tracker.num_done() == sum(map(tracker.tries, tracker)) < 1000
        assert all("_error" not in tracker[key] for key in tracker)


def test_client_without_the_extra_raises_an_error_that_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'tastypy_fast\[dask\]'"):
        dask_client("tcp://localhost:1")


# A scheduler and workers that are commands, as on a cluster


class Cluster:
    """A scheduler, and workers that can import neither this package nor this module."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.workers = []
        self._environment = {**without(folder / "site", "tastypy_fast", "tests", "lmdb"),
                             "DASK_DISTRIBUTED__DASHBOARD__LINK": ""}
        self.scheduler = self._start("dask_scheduler", "--port", "0", "--scheduler-file", self.file, "--no-dashboard")
        until(self.file.exists)

    def _start(self, command, *arguments):
        code = f"import sys; from distributed.cli.{command} import main; sys.argv[0] = {command!r}; main()"
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], cwd=self.folder,
            env=self._environment, stdout=subprocess.DEVNULL, stderr=(self.folder / "log").open("ab"),
            start_new_session=True)

    def start_worker(self):
        self.workers.append(self._start(
            "dask_worker", "--scheduler-file", self.file, "--nthreads", "1", "--no-dashboard", "--no-nanny",
            "--local-directory", self.folder))
        return self.workers[-1]

    def end(self):
        for process in [*self.workers, self.scheduler]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def command_cluster(folder):
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.end()


def work(key):
    if key == 3:
        raise Abort("three")
    try:
        import tastypy_fast
    except ImportError:
        tastypy_fast = None
    return TaskResult({"has": tastypy_fast is not None, "try": current_task().tries}, add=["more"] if key == 1 else [])


def test_scheduler_that_is_killed_ends_the_run_and_another_cluster_goes_on(shared, tmp_path):
    # dask #5666 #5667 #8690
    shared.add_many(range(40))
    with command_cluster(tmp_path / "one") as cluster, dask_client(cluster.file) as client:
        # The run waits for its first worker.
        threading.Timer(0.5, cluster.start_worker).start()
        report = shared.run(work, executor=client)
        assert (report.done, report.aborted) == (40, 1)
        assert shared[5] == {"_done": True, "_aborted": False, "_tries": 1, "has": False, "try": 1}
        shared.add(100)
        assert shared.run(work, executor=client, timeout=30).done == 1

        shared.add_many(range(101, 1100))
        killed = []

        def kill(key, data):
            if not killed and shared.num_done() > 100:
                cluster.scheduler.kill()
                killed.append(time.monotonic())

        with pytest.raises(ExecutorLostError, match=r"make a new executor, and call run\(\) again"):
            shared.run(lambda key: time.sleep(0.01), executor=client, on_result=kill)
        assert time.monotonic() - killed[0] < 10
        done = shared.num_done()
        assert done == sum(map(shared.tries, (key for key in shared if key != 3))) < 1041
        assert shared.claimed_keys() == []
    with command_cluster(tmp_path / "two") as cluster:
        cluster.start_worker()
        with dask_client(cluster.file) as client:
            report = shared.run(lambda key: None, executor=client)
    assert (report.done, report.left) == (1040 - done, 0)
    assert all(shared.tries(key) == 1 for key in shared if key != 3)


@pytest.mark.storm
def test_storm_of_killed_workers_loses_no_task(path, tmp_path, seed):
    import random

    choose, is_over = random.Random(seed), threading.Event()
    with command_cluster(tmp_path / "cluster") as cluster, SharedTracker(path) as tracker:
        for _ in range(3):
            cluster.start_worker()

        def kill():
            while not is_over.wait(choose.uniform(0.5, 2.0)):
                cluster.workers.pop(choose.randrange(len(cluster.workers))).kill()
                cluster.start_worker()

        thread = threading.Thread(target=kill)
        with dask_client(cluster.file) as client:
            client.wait_for_workers(3, timeout=60)
            thread.start()
            try:
                tracker.add_many(range(3000))
                report = tracker.run(lambda key: time.sleep(0.01), executor=client, retries=20, backoff=0)
            finally:
                is_over.set()
                thread.join()
        assert (report.done, report.failed) == (3000, 0)
        tracker._check()
