"""tastypy-fast run: commands and functions on the tasks of a tracker, in real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tastypy_fast import POD, SharedTracker, Tracker
from tastypy_fast.cli import app
from tastypy_fast.cli.option_types import Duration, FailureLimit
from tests.support.children import Child
from tests.support.command import COMMAND, ENVIRONMENT, HOSTILE, call, hold_private, lines, run
from tests.support.terminal import Terminal, needs_terminal

# A failed task is tried again at once.
AT_ONCE = ("--backoff", "0")


@pytest.fixture
def store(path):
    """A closed tracker with the tasks a, b and c."""
    Tracker(path, init=[(key, {"size": number}) for number, key in enumerate("abc")]).close()
    return path


def run_tasks(*arguments, code=0, cwd=None, stdin="", **environment):
    """Run ``tastypy-fast run``, check its exit code, and return its output and its errors."""
    found, out, error = call("run", *arguments, cwd=cwd, stdin=stdin, **environment)
    assert found == code, error
    assert "Traceback" not in error
    return out, error


@contextmanager
def running(*arguments, **options):
    """A run in a process group of its own, as a shell starts it."""
    with subprocess.Popen([*COMMAND, "run", *map(str, arguments)], env=ENVIRONMENT, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition, seconds=30):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
    return found


def numbers_in(path):
    """The process numbers in a file, of which the last line may not be complete."""
    return [int(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def script(tmp_path, text, name="work.sh"):
    """A program of the shell that gets the key as $1."""
    file = tmp_path / name
    file.write_text(f"#!/bin/sh\ncd '{tmp_path}'\n{text}\n")
    file.chmod(0o755)
    return file


# A command that takes ten minutes, as does its child in the background. Both write their process numbers.
HANG = "sleep 600 & echo $! >>pids; echo $$ >>pids; exec sleep 600"


def task_of(path, key):
    with Tracker(path, mode="r") as tracker:
        return tracker[key]


def statuses(path):
    """What became of each task: d(one), a(borted) or the number of its tries."""
    with Tracker(path, mode="r") as tracker:
        return {key: "d" if task["_done"] else "a" if task["_aborted"] else task["_tries"]
                for key, task in tracker.iteritems()}


# Commands


def test_run_marks_tasks_done(store):
    assert sorted(run_tasks(store, "-j", "2", "--", "echo")[0]) == sorted("a\nb\nc\n")
    assert statuses(store) == dict.fromkeys("abc", "d")
    out, error = run_tasks(store, "--", "echo")
    assert out == ""
    assert error.startswith("tastypy-fast: 0 done, 0 failed, 0 aborted, 0 left in ")


def test_keys_are_passed_unchanged(path):
    Tracker(path, init=[(key, {}) for key in HOSTILE]).close()
    show = [sys.executable, "-c", "import json, sys; print(json.dumps({'shown': sys.argv[1:]}))"]
    # A lone surrogate is in no argument, but is in JSON.
    _, error = run_tasks(path, "--result", "json", "--", *show, "{key}", "{json}", code=1)
    assert "1 failed" in error
    with Tracker(path, mode="r") as tracker:
        for key, task in tracker.iteritems():
            if key == "\ud800":
                assert "lone surrogate" in task["_error"]["message"]
            else:
                text = key if isinstance(key, str) else json.dumps(key, separators=(",", ":"))
                assert task["shown"][0] == text
                assert json.loads(task["shown"][1].encode("utf-8", "surrogateescape")) == json.loads(json.dumps(key))
    assert "1 done" in run_tasks(path, "--", "true", "{json}")[1]


def test_keys_of_find_become_arguments(tmp_path, path):
    files = tmp_path / "files"
    files.mkdir()
    names = [b"a b", b"it's", b"a\nb", b"$(touch hacked)", b"-rf", b"\xff", b'"']
    for name in names:
        (files / os.fsdecode(name)).write_bytes(name)
    subprocess.run("find . -type f -print0 | $COMMAND add $STORE --create -0 -", shell=True, check=True, cwd=files,
                   stdout=subprocess.DEVNULL, env={**ENVIRONMENT, "COMMAND": " ".join(COMMAND), "STORE": str(path)})
    run_tasks(path, "--shell", "--", "cat {key} > ../copy-$(basename {key} | md5sum | cut -c -32)", cwd=files)
    assert sorted(file.read_bytes() for file in tmp_path.glob("copy-*")) == sorted(names)
    assert len(os.listdir(files)) == len(names)


def test_placeholders_have_the_data_and_the_number_of_the_try(store):
    fails = "echo '{try} {slot} {data.size} {data.name}'; test {try} = 2"
    run("set", store, "a", '{"size": 7, "name": "x"}')
    out, _ = run_tasks(store, "--match", "a", "--max-tries", "3", "-j", "1", *AT_ONCE, "--shell", "--",
                       fails.replace("'", ""))
    assert out == "1 0 7 x\n2 0 7 x\n"
    assert task_of(store, "a") == {"_done": True, "_aborted": False, "_tries": 2, "size": 7, "name": "x"}


def test_stdin_of_a_command(store):
    run_tasks(store, "--stdin", "json", "--result", "json", "--", "sh", "-c", "cat; true {try}")
    assert {name: task_of(store, "b")[name] for name in ("key", "value")} == {"key": "b", "value": {"size": 1}}
    run("reset", store, "--done")
    run_tasks(store, "--stdin", "key", "--result", "text", "--", "sh", "-c", "cat; true {try}")
    assert task_of(store, "b")["result"] == "b"


def test_run_in_a_loop_reads_nothing_from_its_stdin(store):
    loop = 'while read -r line; do $COMMAND run $STORE --limit 1 -- sh -c "cat; true {try}"; echo "read $line"; done'
    done = subprocess.run(["sh", "-c", loop], input="1\n2\n3\n", capture_output=True, text=True, timeout=60,
                          env={**ENVIRONMENT, "COMMAND": " ".join(COMMAND), "STORE": str(store)})
    assert done.stdout == "read 1\nread 2\nread 3\n"
    assert statuses(store) == dict.fromkeys("abc", "d")


def test_lines_that_a_command_prints_become_tasks(path):
    Tracker(path, init={"0": {}}).close()
    crawl = "n={key}; for link in $((2 * n + 1)) $((2 * n + 2)); do test $link -gt 30 || echo $link; done"
    _, error = run_tasks(path, "--add-lines", "--shell", "--", crawl)
    assert "31 done" in error
    assert statuses(path) == {str(number): "d" for number in range(31)}


def test_output_of_each_command_is_one_piece(path):
    Tracker(path, init=[(str(number), {}) for number in range(8)]).close()
    noisy = "for i in 1 2 3 4 5; do echo {key}; sleep 0.02; done"
    out, _ = run_tasks(path, "-j", "4", "--shell", "--", noisy)
    found = out.split()
    assert [found[start:start + 5] for start in range(0, 40, 5)] == [
        [key] * 5 for key in dict.fromkeys(found)]
    assert len(found) == 40


def test_output_goes_to_a_file_or_nowhere(store, tmp_path):
    noisy = ["sh", "-c", "echo out; echo error >&2; true {try}"]
    assert run_tasks(store, "--output", "file", "--", *noisy, cwd=tmp_path)[0] == ""
    assert (tmp_path / "file").read_text() == "out\nerror\n" * 3
    run("reset", store, "--done")
    out, error = run_tasks(store, "--output", "none", "--", *noisy)
    assert (out, error.count("\n")) == ("", 1)
    assert "No such file" in run_tasks(store, "--output", tmp_path / "no" / "file", "--", *noisy, code=4)[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
@pytest.mark.parametrize("options", [[], ["--output", "/dev/full"]])
def test_output_that_cannot_be_written_ends_the_run_and_costs_no_try(store, options):
    """A log on a full disk used up all tries of all tasks."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, "run", store, "-j", "1", "--max-tries", "3", *options, "--", "echo"],
                              env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert "the output of commands cannot be written: No space left on device" in done.stderr
    assert [(task["_done"], task["_tries"]) for task in Tracker(store, mode="r").values()] == [(False, 0)] * 3
    assert "3 done" in run_tasks(store, "--", "echo")[1]


@pytest.mark.parametrize("work", [["--", "echo"], ["builtins:print"]])
def test_closed_stdout_is_found_before_anything_is_run(store, work):
    """The output of all commands was lost, and their tasks were done."""
    done = subprocess.run(["bash", "-c", '"$@" >&-', "-", *COMMAND, "run", str(store), *work], env=ENVIRONMENT,
                          stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("stdout cannot be written")) == (4, 1)
    assert set(statuses(store).values()) == {0}


def test_report_as_json_has_stdout_for_itself(store):
    out, error = run_tasks(store, "--json", "--", "sh", "-c", "echo out; test $0 != b", code=1)
    report = json.loads(out)
    assert report.pop("seconds") > 0
    assert report == {"done": 2, "failed": 1, "aborted": 0, "retried": 0, "timed_out": 0, "workers_lost": 0,
                      "errors": [{"key": "b", "error": "CommandFailed: exit code 1"}], "left": 1, "reason": "finished"}
    assert error.count("out\n") == 3


# How tasks fail


def test_failed_tasks_keep_their_error(store):
    fails = ["sh", "-c", "test {key} = c || { echo no {key} >&2; exit 3; }".replace("{ ", "{{ ").replace(" }", " }}")]
    _, error = run_tasks(store, "--max-tries", "2", *AT_ONCE, "--", *fails, code=1)
    assert "1 done, 2 failed, 0 aborted, 0 left" in error
    assert f"tastypy-fast errors {store} shows why" in error
    assert statuses(store) == {"a": 2, "b": 2, "c": "d"}
    kept = task_of(store, "a")["_error"]
    assert (kept["type"], kept["exit_code"], kept["message"], kept["try"]) == ("CommandFailed", 3, "no a", 2)
    assert lines("errors", store)[:1] == ["1  CommandFailed (exit code 3): no a"]
    # A second run has nothing to do, and is not complete.
    _, error = run_tasks(store, "--max-tries", "2", "--", *fails, code=1)
    assert "0 done, 0 failed, 0 aborted, 0 left" in error
    assert "2 tasks failed in earlier runs" in error
    # Success removes the error.
    run_tasks(store, "--", "true")
    assert "_error" not in task_of(store, "a")
    assert run("errors", store) == "no task has an error\n"


def test_exit_code_that_aborts_a_task(store):
    _, error = run_tasks(store, "--max-tries", "3", "--abort-code", "4", "--abort-code", "5", "--", "sh", "-c",
                         "test $0 = a || exit 4")
    assert "1 done, 0 failed, 2 aborted, 0 left" in error
    assert statuses(store) == {"a": "d", "b": "a", "c": "a"}
    assert task_of(store, "b")["_error"]["type"] == "Abort"
    run_tasks(store, "--", "true")
    assert statuses(store)["b"] == "a"
    run_tasks(store, "--aborted", "--", "true")
    assert statuses(store)["b"] == "d"


def test_timeout_kills_the_command_and_its_children(store, tmp_path):
    hang = script(tmp_path, f"test $1 != b || {{ {HANG}; }}")
    _, error = run_tasks(store, "--timeout", "1s", "--", hang, code=1)
    assert "2 done, 1 failed" in error
    assert task_of(store, "b")["_error"]["type"] == "TaskTimeout"
    assert len(numbers_in(tmp_path / "pids")) == 2
    wait_until(lambda: not any(map(is_running, numbers_in(tmp_path / "pids"))))


def test_worker_that_is_killed_takes_its_command_along(store, tmp_path):
    hang = script(tmp_path, f"test $1 != b || {{ echo $PPID >>worker; {HANG}; }}")
    with running(store, "-j", "1", "--", hang) as process:
        wait_until(lambda: len(numbers_in(tmp_path / "pids")) == 2)
        os.kill(numbers_in(tmp_path / "worker")[0], signal.SIGKILL)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "2 done, 1 failed" in error
    assert task_of(store, "b")["_error"]["type"] == "WorkerDied"
    wait_until(lambda: not any(map(is_running, numbers_in(tmp_path / "pids"))))


def test_failures_end_the_run(path):
    Tracker(path, init=[(number, {}) for number in range(200)]).close()
    _, error = run_tasks(path, "-j", "1", "--max-failures", "3", "--", "sh", "-c", "sleep 0.05; false", code=1)
    assert "because too many tasks failed" in error
    assert 4 <= sum(1 for status in statuses(path).values() if status) < 200
    _, error = run_tasks(path, "-j", "1", "--retries", "2", *AT_ONCE, "--limit", "1", "--", "false", code=1)
    assert "1 failed" in error
    assert 3 in statuses(path).values() or 4 in statuses(path).values()


def test_deadline_ends_the_run(path):
    Tracker(path, init=[(number, {}) for number in range(1000)]).close()
    _, error = run_tasks(path, "-j", "1", "--deadline", "1s", "--", "sleep", "0.1{try}", code=1)
    assert "because the deadline has passed" in error
    found = list(statuses(path).values())
    assert 0 < found.count("d") < 1000
    assert found.count("d") + found.count(0) == 1000


# How a run is ended


def test_interrupt_waits_for_running_tasks(path, tmp_path):
    Tracker(path, init=[(number, {}) for number in range(100)]).close()
    slow = script(tmp_path, "echo $1 >>begun; while ! test -e go; do sleep 0.02; done; echo $1 >>ended")
    with running(path, "-j", "2", "--", slow) as process:
        wait_until(lambda: len(numbers_in(tmp_path / "begun")) == 2)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
        (tmp_path / "go").touch()
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "2 done, 0 failed, 0 aborted, 98 left" in error
    assert "Traceback" not in error
    assert sorted(numbers_in(tmp_path / "ended")) == sorted(numbers_in(tmp_path / "begun"))
    assert {key for key, status in statuses(path).items() if status == "d"} == set(numbers_in(tmp_path / "ended"))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_second_interrupt_kills_running_tasks(store, tmp_path, method):
    with running(store, "-j", "2", "--start-method", method, "--", script(tmp_path, HANG)) as process:
        wait_until(lambda: len(numbers_in(tmp_path / "pids")) == 4)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "0 done, 0 failed, 0 aborted, 3 left" in error
    assert "because it was stopped" in error
    wait_until(lambda: not any(map(is_running, numbers_in(tmp_path / "pids"))))
    # No try is counted.
    assert statuses(store) == dict.fromkeys("abc", 0)


def test_sigterm_ends_the_run_in_order(path, tmp_path):
    Tracker(path, init=[(number, {}) for number in range(100)]).close()
    slow = script(tmp_path, "echo $1 >>begun; while ! test -e go; do sleep 0.02; done; echo $1 >>ended")
    with running(path, "-j", "2", "--", slow) as process:
        wait_until(lambda: len(numbers_in(tmp_path / "begun")) == 2)
        process.terminate()
        time.sleep(0.2)
        (tmp_path / "go").touch()
        _, error = process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGTERM, 143)
    assert "Traceback" not in error
    assert sorted(numbers_in(tmp_path / "ended")) == sorted(numbers_in(tmp_path / "begun"))
    assert {key for key, status in statuses(path).items() if status == "d"} == set(numbers_in(tmp_path / "ended"))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_killed_run_leaves_no_command_behind(store, tmp_path, method):
    with running(store, "-j", "2", "--start-method", method, "--", script(tmp_path, HANG)) as process:
        wait_until(lambda: len(numbers_in(tmp_path / "pids")) == 4)
        process.kill()
        process.wait(timeout=30)
        wait_until(lambda: not any(map(is_running, numbers_in(tmp_path / "pids"))))
    assert "3 done" in run_tasks(store, "--", "true")[1]


def test_processes_left_in_the_background_end_with_the_run(store, tmp_path):
    run_tasks(store, "--", script(tmp_path, "sleep 600 & echo $! >>pids"))
    assert len(numbers_in(tmp_path / "pids")) == 3
    wait_until(lambda: not any(map(is_running, numbers_in(tmp_path / "pids"))))


def test_run_ends_when_nobody_reads_its_output(path):
    Tracker(path, init=[(number, {}) for number in range(10_000)]).close()
    done = subprocess.run(["bash", "-c", "$COMMAND run $STORE -j 1 -- echo | head -n 1; echo ${PIPESTATUS[0]}"],
                          env={**ENVIRONMENT, "COMMAND": " ".join(COMMAND), "STORE": str(path)},
                          capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n141\n", "")
    assert 0 < list(statuses(path).values()).count("d") < 10_000


def test_task_whose_output_has_no_reader_is_not_done(path):
    """All tasks of the last chunk were done, and their output was lost."""
    Tracker(path, init=[(number, {}) for number in range(20)]).close()
    # More than a pipe holds, so the first task is done only when its output was read.
    large = "head -c 100000 /dev/zero; true {key}"
    script = f"$COMMAND run $STORE -j 1 --shell -- '{large}' | head -c 100001 | wc -c; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env={**ENVIRONMENT, "COMMAND": " ".join(COMMAND), "STORE": str(path)},
                          capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["100001", "141"], "")
    assert statuses(path) == {0: "d", **dict.fromkeys(range(1, 20), 0)}


def test_status_shows_the_last_run(store, tmp_path, folder):
    def last_run():
        return json.loads(run("status", store, "--json"))["last_run"]

    assert last_run() is None
    run_tasks(store, "-j", "2", "--", "cat", "{json} a", code=1)
    assert {name: last_run()[name] for name in ("function", "workers", "reason")} == {
        "function": "cat '{json} a'", "workers": 2, "reason": "finished"}
    text = " ".join(run("status", store).split())
    assert re.search(r"last run cat '{json} a', begun \d+ s ago, ended after \d+ s: finished ", text)
    run_tasks(store, "work:Nested.Deep.work", cwd=folder)
    assert last_run()["function"] == "work.Nested.Deep.work"
    run("reset", store, "--done")
    with running(store, "-j", "1", "--", script(tmp_path, HANG)) as process:
        wait_until(lambda: len(numbers_in(tmp_path / "pids")) == 2)
        process.kill()
    wait_until(lambda: "ago, killed before its end" in run("status", store))


def test_status_of_a_run_that_has_not_ended(store, capsys):
    facts = {"function": "work", "begun": "2026-01-31T12:00:00.000Z", "workers": 2}
    with SharedTracker(store) as tracker:
        tracker._save_run(facts)
        tracker.sync()
        assert app.run(["status", str(store)]) == 0
        assert "ago, not ended (it runs, or was killed)" in " ".join(capsys.readouterr().out.split())
    # No process has the store open, so nothing runs.
    assert app.run(["status", str(store)]) == 0
    assert "ago, killed before its end" in " ".join(capsys.readouterr().out.split())
    assert app.run(["status", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["last_run"] == {"ended": None, "reason": None, **facts}


# With other processes


def test_other_processes_add_and_run_tasks_meanwhile(path, tmp_path):
    SharedTracker(path, init=[(number, {}) for number in range(4)]).close()
    slow = script(tmp_path, "echo $1 >>begun; while ! test -e go; do sleep 0.02; done")
    with running(path, "-j", "1", "--", slow) as first, running(path, "-j", "1", "--", slow) as second:
        wait_until(lambda: len(numbers_in(tmp_path / "begun")) == 2)
        assert run("add", path, "100") == "added 1 task, 0 existed already\n"
        assert "2 running tasks of 2 workers" in run("status", path)
        run("abort", path, "3", "--json-keys")
        (tmp_path / "go").touch()
        first.communicate(timeout=30)
        second.communicate(timeout=30)
    assert sorted(numbers_in(tmp_path / "begun")) == [0, 1, 2, 100]
    assert statuses(path) == {0: "d", 1: "d", 2: "d", 3: "a", "100": "d"}


def test_private_store(store):
    assert "3 done" in run_tasks(store, "--private", "--max-tries", "2", "--", "true")[1]
    run("reset", store, "--done")
    assert "2 done" in run_tasks(store, "--private", "--from", "b", "--", "true")[1]
    with Child(hold_private, store) as child:
        assert child.pipe.recv() == "ready"
        assert "open privately" in run_tasks(store, "--", "true", code=3)[1]
        child.pipe.send("end")
        child.wait()


# Which tasks


def test_options_select_tasks(path):
    Tracker(path, init=[(f"{letter}{number}", {}) for letter in "ab" for number in range(5)]).close()

    def run_some(*options):
        out, _ = run_tasks(path, *options, "--", "echo")
        run("reset", path, "--done")
        return out.split()

    assert sorted(run_some("--match", "a*")) == ["a0", "a1", "a2", "a3", "a4"]
    assert sorted(run_some("--from", "a4", "--to", "b1")) == ["a4", "b0", "b1"]
    assert run_some("--limit", "2", "-j", "1") == ["a0", "a1"]
    assert sorted(run_some("--match", "b*", "--limit", "2", "--from", "b2")) == ["b2", "b3"]
    assert sorted(run_some("--tail", "2")) == ["b3", "b4"]
    assert run_some("--match", "a*", "--tail", "1") == ["a4"]
    assert "--tail" in run_tasks(path, "--tail", "1", "--limit", "1", "--", "echo", code=2)[1]
    assert "no key 'nobody'" in run_tasks(path, "--from", "nobody", "--", "echo", code=1)[1]


@pytest.mark.parametrize("private", [(), ("--private",)], ids=["shared", "private"])
def test_run_selects_tasks_by_their_fields(path, private):
    with Tracker(path, init=[(str(size), {"size": size % 2, "_tries": 1}) for size in range(6)]) as tracker:
        for key in "014":
            tracker.record_error(key, OSError("gone"))
    out, error = run_tasks(path, *private, "--where", "_error.type=OSError", "--where", "size=0", "--", "echo")
    assert sorted(out.split()) == ["0", "4"]
    assert "2 done, 0 failed, 0 aborted, 4 left" in error
    assert lines("run", path, "--where", "size=1", "-n", "--", "echo") == ["echo 1", "echo 3", "echo 5"]


def test_dry_run_prints_commands_and_changes_nothing(store):
    before = run("export", store, "-")
    run("set", store, "it's", '{"_aborted": true}')
    assert lines("run", store, "-n", "--", "cp", "{key}", "$x {data.size}") == [
        "cp a '$x 0'", "cp b '$x 1'", "cp c '$x 2'"]
    assert lines("run", store, "--dry-run", "--aborted", "--match", "it*", "--shell", "--", "echo {key} > {try}") == [
        """/bin/sh -c 'echo "${1}" > "${2}"' sh 'it'"'"'s' 1"""]
    assert lines("run", store, "-n", "json:loads", "--limit", "1") == ["json:loads('a')"]
    assert json.loads(run("run", store, "-n", "--json", "--", "cp")) == {
        "tasks": 3, "first": [{"key": key, "run": f"cp {key}"} for key in "abc"]}
    assert run("export", store, "-").startswith(before)
    Tracker(store).add_many(range(20))
    assert lines("run", store, "-n", "--", "cp")[-1] == "# and 13 more"
    run("done", store, "--from", "a")
    assert run("run", store, "-n", "--", "cp") == "# no task is to be done\n"


# Functions


FUNCTIONS = '''
import os
from tastypy_fast.pipeline import Abort, TaskResult, current_task

ready = []

class Gone(Abort):
    pass

def abort(key):
    raise Gone("it was removed")

def size(key):
    if key == "b":
        raise ValueError(f"no {key}")
    return {"length": len(key), "process": os.getpid()}

class Nested:
    class Deep:
        @staticmethod
        def work(key):
            return key * 2

def with_data(key, data):
    return data["size"] + 1

def prepare():
    ready.append(1)

def is_ready(key):
    return ready

async def wait(key):
    return "waited"

not_a_function = 1
'''


@pytest.fixture
def folder(tmp_path):
    """A folder with modules."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "work.py").write_text(FUNCTIONS)
    (folder / "broken.py").write_text("x = 1\n\nimport no_such_package\n")
    (folder / "wrong.py").write_text("x = (\n")
    return folder


def test_function_of_a_module_in_the_current_folder(store, folder):
    _, error = run_tasks(store, "work:size", cwd=folder, code=1)
    assert "2 done, 1 failed" in error
    assert task_of(store, "a")["length"] == 1
    kept = task_of(store, "b")["_error"]
    assert (kept["type"], kept["message"]) == ("ValueError", "no b")
    assert "work.py" in kept["traceback"]
    assert "ValueError: no b" in run("errors", store, "--traceback")


def test_classes_of_abort_abort_tasks(store, folder):
    _, error = run_tasks(store, "work:abort", cwd=folder)
    assert "0 done, 0 failed, 3 aborted, 0 left" in error


@pytest.mark.parametrize(("options", "result"), [
    (["work:Nested.Deep.work"], "aa"),
    (["work:with_data", "--with-data"], 1),
    (["work:is_ready", "--initializer", "work:prepare", "--start-method", "spawn"], [1]),
    (["work:Nested.Deep.work", "--executor", "threads"], "aa"),
    (["work:wait"], "waited"),
    (["builtins:ascii"], "'a'"),
])
def test_function_and_how_it_runs(store, folder, options, result):
    run_tasks(store, *options, cwd=folder)
    assert task_of(store, "a")["result"] == result


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["work:nope"], 2, "the module 'work' has no 'nope'"),
    (["work:Nested.nope"], 2, "the module 'work' has no 'Nested.nope'"),
    (["work:not_a_function"], 2, "not a function, but an object of the type int"),
    (["nowhere:f"], 2, "there is no module 'nowhere'"),
    (["work.deeper:f"], 2, "there is no module 'work.deeper'"),
    (["work"], 2, "write -- before a command"),
    (["broken:f"], 4, "No module named 'no_such_package' (", ),
    (["wrong:f"], 4, "SyntaxError"),
    ([], 2, "needs a function"),
    (["ls", "-l"], 2, "write -- before a command"),
    (["--"], 2, "no command after --"),
    (["work:size", "--", "ls"], 2, "what is 'work:size'"),
    (["--", "no-such-program"], 2, "was not found in PATH"),
    (["--", "./work.py"], 2, "may not be executed"),
    (["--", "./nowhere"], 2, "does not exist"),
    (["--", "/"], 2, "is a folder"),
    (["--", "ls", "{keys}"], 2, "{keys} in '{keys}' is not a placeholder"),
    (["--shell", "--", "ls '{key}'"], 2, "inside quotes"),
    (["--shell", "work:size"], 2, "--shell is for commands"),
    (["--executor", "threads", "--", "ls"], 2, "--executor is for functions"),
    (["--add-lines", "--result", "json", "--", "ls"], 2, "not both"),
    (["--timeout", "5x", "--", "ls"], 2, "is not a time such as"),
    (["--max-failures", "200%", "--", "ls"], 2, "neither a number of tasks nor a share"),
    (["--executor", "threads", "--timeout", "5", "work:size"], 2, "timeout"),
    (["--executor", "processes", "work:wait"], 2, "coroutine"),
])
def test_mistakes_are_found_before_anything_is_run(store, folder, arguments, code, message):
    out, error = run_tasks(store, *arguments, cwd=folder, code=code)
    assert message in error
    assert (out, error.count("\n")) == ("", 1)
    assert statuses(store) == dict.fromkeys("abc", 0)


def test_stores_without_tasks(path, tmp_path):
    assert "there is no store" in run_tasks(path, "--", "true", code=3)[1]
    POD(path, init={"a": 1}).close()
    assert "plain dict" in run_tasks(path, "--", "true", code=3)[1]
    assert "plain dict" in run_tasks(path, "-n", "--", "true", code=3)[1]


def test_initializer_that_raises_ends_the_run(store, folder):
    _, error = run_tasks(store, "--initializer", "work:with_data", "work:size", cwd=folder, code=4)
    assert "with_data() missing 2 required positional arguments" in error
    assert statuses(store) == dict.fromkeys("abc", 0)


# Options


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("30s", 30), ("5m", 300), ("2h", 7200), ("1.5d", 129600),
                                               ("1h30m", 5400), (".5s", 0.5), ("1d2h3m4s", 93784)])
def test_duration(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "5x", "-1", "s", "1.2.3", "nan", "inf", "5 m", "m5", "1s1h", "9" * 400])
def test_duration_that_is_none(text):
    with pytest.raises(Exception, match="is not a time"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize("command", [
    "watch STORE --interval nan", "watch STORE --interval inf", "watch STORE --interval 1e10",
    "watch STORE --interval 9999999999", "watch STORE --interval 0.01", "run STORE -j 99999999999999999999 -- true",
    "set-max-tries STORE 99999999999999999999"])
def test_numbers_beyond_all_bounds_are_refused(store, command, capsys):
    """They ended in a traceback."""
    assert app.run([word.replace("STORE", str(store)) for word in command.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert command.split()[-1] in error or "99999999999999999999" in error


def test_limit_of_failures():
    assert [FailureLimit().convert(text, None, None) for text in ("0", "7", "5%", "0.5%")] == [0, 7, 0.05, 0.005]
    for text in ("", "-1", "0%", "100%", "x", "1.5", "nan%"):
        with pytest.raises(Exception, match="neither a number"):
            FailureLimit().convert(text, None, None)


# In a terminal


@needs_terminal
def test_run_in_a_terminal(path, tmp_path):
    Tracker(path, init=[(f"task-{number}", {}) for number in range(60)]).close()
    slow = script(tmp_path, f"echo output of $1; test $1 != task-3 || exit 9; sleep 0.05\n"
                            f"test $1 != task-20 || {{ {HANG}; }}")
    with Terminal(*COMMAND, "run", path, "-j", "2", "--max-tries", "1", "--", slow) as terminal:
        screen = terminal.wait_for("/60", "failed=1", "output of task-5\n")
        # The bar does not break lines of output.
        assert all(line.startswith("output of task-") for line in screen.splitlines() if "output" in line)
        wait_until(lambda: numbers_in(tmp_path / "pids"))
        # It is as wide as the terminal, and stands below the output.
        last = terminal.wait_for("output of task-59").split("\n")
        assert [line for line in last if line][-1].endswith("task/s, failed=1]")
        assert sum("/60" in line for line in last) == 1
        terminal.tmux("send-keys", "C-c")
        time.sleep(0.3)
        assert "code" not in terminal.screen()
        terminal.tmux("send-keys", "C-c")
        screen = terminal.wait_for("code 130")
        assert "1 failed" in screen
        assert "Traceback" not in screen
    wait_until(lambda: not any(map(is_running, numbers_in(tmp_path / "pids"))))
    with Terminal("sh", "-c", "stty tostop; exec \"$@\"", "sh", *COMMAND, "run", path, "-j", "1", "--", "echo"
                  ) as terminal:
        assert "task-3\ntask-20\n" in terminal.wait_for("code 0", " 0 left")


@pytest.mark.parametrize("name", ["dusk", "dask:", "inline"])
def test_unknown_executor_is_refused(store, name):
    assert "--executor" in run_tasks(store, "--executor", name, "json:dumps", code=2)[1]
