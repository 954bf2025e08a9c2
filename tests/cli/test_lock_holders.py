"""The command while other processes have the store open."""

from __future__ import annotations

import json

from tastypy_fast import SharedTracker
from tastypy_fast._inspect.lock_holders import find_lock_holders
from tastypy_fast.types import StatusCounts
from tests.support.children import Child
from tests.support.command import hold_private, lines, refused, run


def hold_shared(pipe, path, rounds=1):
    with SharedTracker(path, max_tries=3) as tracker:
        for _ in range(rounds):
            key = next(tasks := tracker.try_keys())
            pipe.send(key)
            pipe.recv()
            tasks.close()


def test_private_process_allows_reading_and_refuses_writing(tasks):
    with Child(hold_private, tasks) as child:
        assert child.pipe.recv() == "ready"
        assert lines("ls", tasks) == [*"abcdefg", "new"]
        before = run("ls", tasks, "--json")
        for command in (("set", "a", "{}"), ("rm", "a"), ("add", "z"), ("done", "c"), ("reset", "c"), ("abort", "c")):
            error = refused(command[0], tasks, *command[1:], code=3)
            assert f"process {child.pid} " in error
            assert "nothing was changed" in error
        assert run("ls", tasks, "--json") == before
        status = json.loads(run("status", tasks, "--json"))
        assert status["open"]["how"] == "private"
        assert status["open"]["processes"] == [child.pid]
        assert status["durability"] == "full"
        assert f"process {child.pid} " in run("status", tasks)
        child.pipe.send("end")
        assert child.wait() == 0
    assert json.loads(run("status", tasks, "--json"))["open"]["how"] == "nobody"


def test_all_commands_work_while_processes_share_the_store(tasks):
    with Child(hold_shared, tasks) as child:
        assert child.pipe.recv() == "e"  # (c has no tries left)
        status = json.loads(run("status", tasks, "--json"))
        assert status["open"]["how"] == "shared"
        assert status["durability"] == "process"
        assert [(task["key"], task["status"], task["claim"]["process"]) for task in status["claims"]] == [
            ("e", "running", child.pid)]
        # The worker's limit of tries is kept with the tracker.
        assert [status[name] for name in StatusCounts._fields] == [2, 1, 0, 1, 1, 2]
        assert status["max_tries"] == 3
        assert "1 running task of 1 worker" in run("status", tasks)
        assert lines("ls", tasks, "--running") == ["e"]
        assert json.loads(run("ls", tasks, "--running", "--json"))["claim"]["process"] == child.pid
        assert run("ls", tasks, "--running", "--long") == 'running\t1\te\t{"size":7}\n'
        assert lines("ls", tasks, "--failed") == ["c"]
        # A filter skips a task that a worker is running. A key given by name does not.
        assert run("abort", tasks, "--new", "--failed") == "3 tasks aborted\n"
        assert run("add", tasks, "h") == "added 1 task, 0 existed already\n"
        assert run("done", tasks, "e") == "1 task marked done\n"
        child.pipe.send("go on")
        assert child.wait() == 0
    assert lines("ls", tasks, "--done") == [*"abe"]


def test_lock_holders_exclude_killed_processes(tasks):
    with Child(hold_private, tasks) as child:
        child.pipe.recv()
        child.kill()
        child.wait()
    assert find_lock_holders(str(tasks))[:3] == ("nobody", "", ())
