"""The command while other processes have the store open."""

from __future__ import annotations

import json
import os

import pytest

from tastypy_fast import SharedTracker
from tastypy_fast._inspect import lock_holders
from tastypy_fast._inspect.lock_holders import find_lock_holders
from tastypy_fast.cli import app
from tastypy_fast.types import StatusCounts
from tests.support.children import Child, start
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


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system has no /proc")

ORPHAN = """
    import os, sys
    from tastypy_fast import SharedTracker
    tracker = SharedTracker(sys.argv[1], init={"a": {}})
    child = os.fork()
    if child:
        os._exit(0)
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""


@needs_proc
def test_orphaned_child_is_named_and_its_ended_parent_is_not(path):
    with start(ORPHAN, path) as process:
        orphan = int(process.stdout.readline())
        assert process.wait(60) == 0
        assert orphan != process.pid
        assert find_lock_holders(str(path))[:3] == ("shared", "", (orphan,))
        assert f"open        shared by process {orphan}\n" in run("status", path)
        process.stdin.close()
        # The orphan is no child of this process, which cannot wait for it. It closes its output at its end.
        assert process.stdout.read() == ""
    assert find_lock_holders(str(path))[:3] == ("nobody", "", ())


@needs_proc
def test_child_that_inherited_a_private_lock_is_named_after_the_owner(path):
    """A program that the owner has started may hold the lock, if it inherited the file."""
    program = """
        import os, subprocess, sys
        from tastypy_fast import Tracker
        tracker = Tracker(sys.argv[1], init={"a": {}})
        number = tracker._store._files.owner_lock._file.fileno()
        child = subprocess.Popen(["sleep", "600"], pass_fds=[number], stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
        sys.stdin.readline()
        os._exit(0)
    """
    with start(program, path) as owner:
        child = int(owner.stdout.readline())
        holders = find_lock_holders(str(path))
        assert (holders.how, holders.processes) == ("private", tuple(sorted((owner.pid, child))))
        assert f"process {owner.pid} on " in (text := run("status", path))
        assert f"has it open privately, and so has process {child}\n" in text
        owner.stdin.close()
        assert owner.wait(60) == 0
        assert find_lock_holders(str(path))[:3] == ("private", "", (child,))
        assert f"process {child} has it open privately\n" in run("status", path)
        os.kill(child, 9)


def test_without_proc_the_command_says_what_is_known(tasks, monkeypatch, capsys):
    monkeypatch.setattr(lock_holders, "_processes", list)
    with SharedTracker(tasks):
        assert find_lock_holders(str(tasks))[:3] == ("shared", "", ())
        assert app.run(["status", str(tasks)]) == 0
        assert "shared (this system does not tell by which processes)" in capsys.readouterr().out
