"""tastypy-fast status: counts of tasks by state."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tastypy_fast import POD, SharedTracker, Tracker
from tastypy_fast._inspect.statuses import STATUSES, classify
from tastypy_fast._inspect.task_counts import TaskCounter
from tastypy_fast.types import StatusCounts
from tests.support.children import Child
from tests.support.command import lines, run

# status


def test_status_prints_counts(tasks):
    status = json.loads(run("status", tasks, "--json"))
    assert {name: status[name] for name in ("kind", "keys", *StatusCounts._fields)} == {
        "kind": "tracker", "keys": 7, "new": 3, "running": 0, "to_retry": 1, "failed": 0, "aborted": 1, "done": 2}
    assert status["max_tries"] is None
    assert status["disk"]["bytes"] > status["disk"]["free"] >= 0
    assert status["path"] == str(tasks)
    status = json.loads(run("status", tasks, "--max-tries", "3", "--json"))
    assert (status["failed"], status["to_retry"], status["max_tries"]) == (1, 0, 3)
    status = json.loads(run("status", tasks, "--max-tries", "4", "--json"))
    assert (status["failed"], status["to_retry"]) == (0, 1)
    text = run("status", tasks)
    assert "28.57 %" in text
    assert "normal" in text
    assert "\x1b" not in text


def test_status_of_a_dict_prints_its_keys(path):
    POD(path, init={"a": 1}, file_size=50).close()
    status = json.loads(run("status", path, "--json"))
    assert (status["kind"], status["keys"], status["file_size"]) == ("dict", 1, 50)
    assert "a dict" in run("status", path)
    # The durability that a store was first opened with is kept when another process writes.
    run("set", path, "b", "2")
    assert json.loads(run("status", path, "--json"))["file_size"] == 50


STATUS = st.tuples(st.booleans(), st.booleans(), st.integers(0, 3))


@settings(max_examples=20)
@given(st.lists(STATUS, max_size=1200), st.integers(0, 3))
def test_task_counter_agrees_with_a_scan_of_all_tasks(tmp_path_factory, statuses, max_tries):
    path = tmp_path_factory.mktemp("census") / "store"
    with Tracker(path, init=[(n, {"_done": d, "_aborted": a, "_tries": t}) for n, (d, a, t) in enumerate(statuses)]):
        pass
    with Tracker(path, mode="r") as tracker:
        counter = TaskCounter(max_tries)
        counts = counter.count(tracker).counts
    words = Counter(classify(*status, max_tries) for status in statuses)
    assert counts == tuple(words[status] for status in STATUSES)
    assert len(counter.newly_failed) == counts.to_retry + counts.failed


# ls and get


def test_running_tasks_are_not_counted_as_failed(path):
    with SharedTracker(path) as tracker:
        tracker.add_many(range(1700))
        with tracker.locked():
            for key in range(0, 1700, 2):
                tracker.increment_tries(key)
        loop = tracker.try_keys(batch=1200)
        assert next(loop) == 0
        status = json.loads(run("status", path, "--max-tries", "1", "--json"))
        assert [status[name] for name in StatusCounts._fields] == [250, 1200, 0, 250, 0, 0]
        assert [int(key) for key in lines("ls", path, "--failed", "--max-tries", "1")] == list(range(1200, 1700, 2))
        assert [int(key) for key in lines("ls", path, "--running")] == list(range(1200))
        loop.close()
    status = json.loads(run("status", path, "--json"))
    assert [status[name] for name in StatusCounts._fields] == [850, 0, 850, 0, 0, 0]


def test_unstarted_tasks_of_a_killed_worker_are_not_failed(path):
    with SharedTracker(path) as tracker:
        tracker.add_many(range(1200))
        tracker.increment_tries(3)

        def live(pipe):
            worker = SharedTracker(path)
            loop = worker.try_keys(batch=1000)
            for _ in range(10):
                next(loop)
            os.kill(os.getpid(), signal.SIGKILL)

        with Child(live) as child:
            assert child.wait() == -signal.SIGKILL
        for _ in range(2):
            # The result is the same before and after a worker looks for dead workers.
            for max_tries, failed in ((0, 0), (1, 10), (2, 1)):
                status = json.loads(run("status", path, "--max-tries", str(max_tries), "--json"))
                assert [status[name] for name in StatusCounts._fields] == [1190, 0, 10 - failed, failed, 0, 0]
                assert len(lines("ls", path, "--failed", "--max-tries", str(max_tries))) == failed
            with SharedTracker(path) as other:
                other.release(0)
        assert tracker.claims() == {}
        tracker._check()
