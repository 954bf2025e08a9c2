"""The command as people run it: a process of its own for each, and the live view in a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tastypy_fast
from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker
from tastypy_fast._inspect.lock_holders import find_lock_holders
from tastypy_fast._inspect.task_counts import TaskCounter
from tastypy_fast.cli import app
from tastypy_fast.cli.formatting import key_as_json, key_text, parse_key
from tests.children import Child, start

COMMANDS = """
    abort add compact copy done export get import ls repair reset rm set status verify watch
""".split()  # noqa: SIM905
SEARCH = [str(Path(tastypy_fast.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(SEARCH), "COLUMNS": "100"}
# (a terminal knows how wide it is)
TERMINAL = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "TMUX")}
COMMAND = [sys.executable, "-W", "error", "-m", "tastypy_fast"]


def run(*arguments, stdin="", code=0, **environment):
    """Run the command to its end, which has to be this one. What it prints; nothing goes to stderr if all is well."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60,
        env={**ENVIRONMENT, **environment}, errors="surrogateescape",
    )
    assert done.returncode == code, done.stderr
    assert code or not done.stderr
    return done.stdout if not code else (done.stdout, done.stderr)


def refused(*arguments, code, stdin=""):
    """The one line on stderr of a command that does not do what it was asked to."""
    out, error = run(*arguments, code=code, stdin=stdin)
    assert error.startswith("tastypy-fast: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert out == ""
    return error


@pytest.fixture
def tasks(path):
    """A tracker that nobody has open: a and b are done, c failed three times, d is aborted, e, f and g are left."""
    with Tracker(path, init=[(key, {}) for key in "abcdefg"]) as tracker:
        for key in "ab":
            tracker.increment_tries(key)
            tracker.mark_done(key)
        tracker["c"] = {"_tries": 3, "error": "OSError: gone"}
        tracker.abort("d")
        tracker["e"]["size"] = 7
    return path


def lines(*arguments, **options):
    return run(*arguments, **options).splitlines()


# Help, version, completion


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    text = run(command, "--help")
    assert text.startswith(f"Usage: tastypy-fast {command} [OPTIONS]")
    assert len(text.splitlines()[2].strip()) > 20
    assert max(map(len, text.splitlines())) <= 100


def test_help_of_the_whole_names_commands_exit_codes_and_completion():
    text = run("--help")
    assert all(f"\n  {command} " in text for command in COMMANDS)
    assert all(f"\n    {code} " in text for code in (0, 1, 2, 3, 4, 130, 141))
    assert "_TASTYPY_FAST_COMPLETE=bash_source" in text
    assert run(code=2)[0] == text


def test_version():
    assert run("--version") == f"tastypy-fast, version {tastypy_fast.__version__}\n"


def test_completion_of_commands_and_options():
    found = run(_TASTYPY_FAST_COMPLETE="bash_complete", COMP_WORDS="tastypy-fast re", COMP_CWORD="1")
    assert found.split() == ["plain,repair", "plain,reset"]
    found = run(_TASTYPY_FAST_COMPLETE="bash_complete", COMP_WORDS="tastypy-fast ls --fa", COMP_CWORD="2")
    assert "plain,--failed" in found


def test_without_the_extra_one_line_names_it(tmp_path):
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError(\"No module named 'click'\", name='click')")
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60, env={
        **ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "tastypy-fast: this needs click: pip install 'tastypy_fast[cli]'\n"


# What opening says


@pytest.mark.parametrize("command", ["status", "ls", "watch", "get STORE x", "add STORE x", "set STORE x 1",
                                     "rm STORE x", "done STORE x", "reset STORE --failed", "abort STORE x",
                                     "export STORE -"])
def test_there_is_no_store(command, path):
    name, *rest = command.replace("STORE", str(path)).split()
    assert "there is no store at" in refused(name, *(rest or [path]), code=3)
    assert not path.exists()


def test_what_is_not_a_store_and_what_is_damaged(tmp_path, tasks):
    assert "not a store" in refused("status", tmp_path, code=3)
    with open(tasks / "data.mdb", "r+b") as file:
        file.write(b"\xff" * 9000)
    assert "damaged" in refused("status", tasks, code=3)


def test_arguments_that_make_no_sense(tasks):
    assert "nonsense" in refused("nonsense", code=2)
    assert "STORE" in refused("ls", code=2)
    assert "--limit" in refused("ls", tasks, "--limit", "-1", code=2)
    assert "needs keys" in refused("reset", tasks, code=2)
    assert "not both" in refused("reset", tasks, "a", "--failed", code=2)
    assert "JSON" in refused("get", tasks, "--json-keys", "a", code=2)
    assert "a key must be" in refused("get", tasks, "--json-keys", "1.5", code=2)
    assert "JSON" in refused("set", tasks, "a", "{", code=2)
    assert "object" in refused("set", tasks, "a", "1", code=2)
    assert "what format" in refused("export", tasks, "tasks.csv", code=2)


def test_a_dict_has_no_tasks(path):
    POD(path, init={"a": 1}).close()
    assert "plain dict" in refused("ls", path, "--failed", code=3)
    assert "plain dict" in run("done", path, "a", code=3)[1]
    assert "plain dict" in refused("add", path, "b", code=3)


# Who has it


def hold_private(pipe, path):
    with Tracker(path, durability="full") as tracker:
        tracker.add("new")
        tracker.sync()
        pipe.send("ready")
        pipe.recv()


def hold_shared(pipe, path, rounds=1):
    with SharedTracker(path, max_tries=3) as tracker:
        for _ in range(rounds):
            key = next(tasks := tracker.try_keys())
            pipe.send(key)
            pipe.recv()
            tasks.close()


def test_while_a_private_process_has_it_reading_works_and_writing_says_so(tasks):
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


def test_beside_processes_that_share_it_all_commands_work(tasks):
    with Child(hold_shared, tasks) as child:
        assert child.pipe.recv() == "e"  # (c has no tries left)
        status = json.loads(run("status", tasks, "--json"))
        assert status["open"]["how"] == "shared"
        assert status["durability"] == "process"
        assert [(claim["key"], claim["process"], claim["passed"]) for claim in status["claims"]] == [
            ("e", child.pid, False)]
        assert (status["claimed"], status["failed"], status["left"]) == (1, 1, 4)
        assert "1 task of 1 worker" in run("status", tasks)
        assert lines("ls", tasks, "--claimed") == ["e"]
        assert json.loads(run("ls", tasks, "--claimed", "--json"))["claim"]["process"] == child.pid
        assert lines("ls", tasks, "--failed") == ["c"]
        # what a worker is at is left to it, unless it is named
        assert run("abort", tasks, "--todo") == "3 tasks aborted\n"
        assert run("add", tasks, "h") == "added 1 task, 0 existed already\n"
        assert run("done", tasks, "e") == "1 task marked done\n"
        child.pipe.send("go on")
        assert child.wait() == 0
    assert lines("ls", tasks, "--done") == [*"abe"]


def test_who_has_it_is_told_from_a_process_that_was_killed(tasks):
    with Child(hold_private, tasks) as child:
        child.pipe.recv()
        child.kill()
        child.wait()
    assert find_lock_holders(str(tasks))[:3] == ("nobody", "", ())


# status


def test_status(tasks):
    status = json.loads(run("status", tasks, "--json"))
    assert {name: status[name] for name in ("kind", "keys", "done", "failed", "aborted", "left", "tried")} == {
        "kind": "tracker", "keys": 7, "done": 2, "failed": 1, "aborted": 1, "left": 4, "tried": 3}
    assert status["disk"]["bytes"] > status["disk"]["free"] >= 0
    assert status["path"] == str(tasks)
    status = json.loads(run("status", tasks, "--max-tries", "3", "--json"))
    assert (status["failed"], status["left"]) == (1, 3)
    status = json.loads(run("status", tasks, "--max-tries", "4", "--json"))
    assert (status["failed"], status["left"]) == (0, 4)
    text = run("status", tasks)
    assert "28.57 %" in text
    assert "normal" in text
    assert "\x1b" not in text


def test_status_of_a_dict(path):
    POD(path, init={"a": 1}, file_size=50).close()
    status = json.loads(run("status", path, "--json"))
    assert (status["kind"], status["keys"], status["file_size"]) == ("dict", 1, 50)
    assert "a dict" in run("status", path)
    # what a store was opened with once stays, whoever writes
    run("set", path, "b", "2")
    assert json.loads(run("status", path, "--json"))["file_size"] == 50


def test_free_room_is_what_deleting_leaves(path):
    with POD(path) as pod:
        pod.update((number, "x" * 1000) for number in range(2000))
        pod.sync()
        pod.clear()
    free = json.loads(run("status", path, "--json"))["disk"]["free"]
    assert 2_000_000 < free < os.path.getsize(path / "data.mdb")


STATUS = st.tuples(st.booleans(), st.booleans(), st.integers(0, 3))


@settings(max_examples=20)
@given(st.lists(STATUS, max_size=1200), st.integers(0, 3))
def test_the_census_counts_what_a_walk_finds(tmp_path_factory, statuses, max_tries):
    path = tmp_path_factory.mktemp("census") / "store"
    with Tracker(path, init=[(n, {"_done": d, "_aborted": a, "_tries": t}) for n, (d, a, t) in enumerate(statuses)]):
        pass
    with Tracker(path, mode="r") as tracker:
        counts = TaskCounter(tracker, max_tries).count()
    is_open = [tries for done, aborted, tries in statuses if not done and not aborted]
    failed = sum(tries >= max(max_tries, 1) for tries in is_open)
    assert counts == (len(statuses), sum(done for done, _, _ in statuses),
                      sum(aborted and not done for done, aborted, _ in statuses), failed,
                      len(is_open) - (failed if max_tries else 0), 0, sum(tries > 0 for _, _, tries in statuses))


# ls and get


def test_what_is_in_hand_has_not_failed_in_any_block(path):
    with SharedTracker(path) as tracker:
        tracker.add_many(range(1700))
        with tracker.locked():
            for key in range(0, 1700, 2):
                tracker.increment_tries(key)
        loop = tracker.try_keys(batch=1200)
        assert next(loop) == 0
        status = json.loads(run("status", path, "--json"))
        assert (status["claimed"], status["failed"], status["left"], status["tried"]) == (1200, 250, 1700, 1450)
        assert [int(key) for key in lines("ls", path, "--failed")] == list(range(1200, 1700, 2))
        loop.close()
    status = json.loads(run("status", path, "--json"))
    assert (status["claimed"], status["failed"]) == (0, 850)


def test_what_a_killed_worker_has_not_begun_has_not_failed(path):
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
            # (before a worker has looked for the dead, and after it)
            for max_tries, failed in ((0, 10), (1, 10), (2, 1)):
                status = json.loads(run("status", path, "--max-tries", str(max_tries), "--json"))
                assert (status["claimed"], status["failed"], status["tried"]) == (0, failed, 10)
                assert len(lines("ls", path, "--failed", "--max-tries", str(max_tries))) == failed
            with SharedTracker(path) as other:
                other.release(0)
        assert tracker.claims() == {}
        tracker._check()


@pytest.mark.parametrize(("options", "keys"), [
    ("", "abcdefg"), ("--done", "ab"), ("--todo", "cefg"), ("--aborted", "d"), ("--failed", "c"), ("--claimed", ""),
    ("--failed --max-tries 3", "c"), ("--failed --max-tries 4", ""), ("--todo --max-tries 3", "efg"),
    ("--done --aborted", "abd"), ("--failed --done", "abc"), ("--match [a-c]", "abc"), ("--todo --match [a-c]", "c"),
    ("--from c", "cdefg"), ("--to c", "abc"), ("--from b --to d", "bcd"), ("--from c --todo", "cefg"),
    ("--to e --todo", "ce"), ("--offset 2 --limit 3", "cde"), ("--limit 0", ""), ("--todo --offset 1 --limit 2", "ef"),
    ("--from d --to b", ""),
])
def test_ls_filters(tasks, options, keys, capsys):
    assert app.run(["ls", str(tasks), *options.split()]) == 0
    assert capsys.readouterr().out.split() == [*keys]


def test_ls_shows_more_when_asked(tasks):
    assert lines("ls", tasks, "-l", "--limit", "5")[2:] == [
        'open\t3\tc\t{"error":"OSError: gone"}', "aborted\t0\td", 'open\t0\te\t{"size":7}']
    assert json.loads(lines("ls", tasks, "--json", "--failed")[0]) == {
        "key": "c", "value": {"_done": False, "_aborted": False, "_tries": 3, "error": "OSError: gone"}}
    assert "no key" in refused("ls", tasks, "--from", "nobody", code=1)


HOSTILE = ["", " ", "a\tb", "a\nb", "\udcff", "\ud800", "é", "5", 5, -(10**30), (), ("a", 1, ("b",)), "-", "--help",
           "[1]"]


def test_hostile_keys_come_out_and_go_in_again(path):
    POD(path, init=[(key, [number]) for number, key in enumerate(HOSTILE)]).close()
    found = lines("ls", path, "--json-keys")
    assert [parse_key(line, True) for line in found] == HOSTILE
    values = lines("get", path, "--json-keys", "--file", "-", stdin="\n".join(found))
    assert [json.loads(line.split("\t")[-1]) for line in values] == [[number] for number in range(len(HOSTILE))]
    assert json.loads(run("get", path, "--", "--help")) == [HOSTILE.index("--help")]
    assert json.loads(run("get", path, "\udcff")) == [HOSTILE.index("\udcff")]
    assert json.loads(run("get", path, "5")) == [HOSTILE.index("5")]
    assert json.loads(run("get", path, "5", "--json-keys")) == [HOSTILE.index(5)]
    assert run("rm", path, "--json-keys", "-", stdin="\n".join(found)) == f"{len(HOSTILE)} keys removed\n"
    assert lines("ls", path) == []


@given(st.recursive(st.text() | st.integers(), lambda parts: st.lists(parts, max_size=3).map(tuple)))
def test_keys_as_text_and_back(key):
    assert parse_key(key_as_json(key), True) == key
    assert "\n" not in key_text(key)


def test_get(tasks):
    assert json.loads(run("get", tasks, "e"))["size"] == 7
    assert lines("get", tasks, "a", "e")[1] == 'e\t{"_done":false,"_aborted":false,"_tries":0,"size":7}'
    assert json.loads(run("get", tasks, "e", "--json"))["key"] == "e"
    out, error = run("get", tasks, "nobody", "e", code=1)
    assert out.startswith("e\t")
    assert error == 'tastypy-fast: no such key: "nobody"\n'


def test_a_key_of_the_other_type_is_hinted_at(path):
    POD(path, init={5: 0, "7": 0}).close()
    assert "--json-keys" in refused("get", path, "5", code=1)
    assert 'the string "7"' in refused("get", path, "7", "--json-keys", code=1)


def test_a_reader_that_goes_away_is_no_error(path):
    Tracker(path, init=[(f"{number:050}", {}) for number in range(20_000)]).close()
    with subprocess.Popen([*COMMAND, "ls", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=ENVIRONMENT) as process:
        assert process.stdout.readline() == b"0" * 50 + b"\n"
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


# What changes something


def test_set(path):
    assert run("set", path, "a", '{"x": [1, null]}', "--create") == 'added "a"\n'
    assert run("set", path, "a", "1e400") == 'changed "a"\n'
    assert run("set", path, "b", "--text", "plain", "--json") == '{"key":"b","added":true}\n'
    run("set", path, '["t", 1]', "-", "--json-keys", stdin=str(10**40))
    with POD(path) as pod:
        assert pod.items() == [("a", float("inf")), ("b", "plain"), (("t", 1), 10**40)]


def test_set_of_a_task(tasks):
    run("set", tasks, "a", '{"_tries": 2, "n": 1}')
    assert json.loads(run("get", tasks, "a")) == {"_done": False, "_aborted": False, "_tries": 2, "n": 1}


def test_add(path, tmp_path):
    assert run("add", path, "a", "b", "a", "--create") == "added 2 tasks, 1 existed already\n"
    keys = tmp_path / "keys"
    keys.write_bytes(b"\xef\xbb\xbfc\r\n\n d\xff \nb")
    assert json.loads(run("add", path, "--file", keys, "--json")) == {"added": 2, "there": 1}
    assert json.loads(run("add", path, "-", "--json", "--json-keys", stdin='1\n["x",2]\n')) == {"added": 2, "there": 0}
    with Tracker(path) as tracker:
        assert tracker.keys() == ["a", "b", "c", " d\udcff ", 1, ("x", 2)]
    out, error = run("add", path, "--json-keys", "-", stdin='"new"\nnonsense\n', code=2)
    assert "stdin, line 2" in error
    assert out == "added 0 tasks, 0 existed already\n"
    assert "No such file" in run("add", path, "--file", tmp_path / "nothing", code=4)[1]


def test_done_reset_abort_and_rm_on_keys(tasks):
    assert run("done", tasks, "e", "e") == "1 task marked done\n"
    out, error = run("done", tasks, "f", "nobody", code=1)
    assert (out, error) == ("1 task marked done\n", 'tastypy-fast: no such key: "nobody"\n')
    assert json.loads(run("abort", tasks, "g", "--json")) == {"changed": 1, "missing": 0, "what": "aborted"}
    assert run("reset", tasks, "-", stdin="a\nc\nd\n") == "3 tasks reset\n"
    assert run("rm", tasks, "b", "c") == "2 tasks removed\n"
    with Tracker(tasks) as tracker:
        assert {key: (task["_done"], task["_aborted"], task["_tries"]) for key, task in tracker.iteritems()} == {
            "a": (False, False, 0), "d": (False, False, 0), "e": (True, False, 0), "f": (True, False, 0),
            "g": (False, True, 0)}
        tracker._check()


def test_done_reset_abort_and_rm_on_what_a_filter_lets_through(tasks):
    before = run("ls", tasks, "--json")
    assert run("reset", tasks, "--failed", "-n") == "1 task would be reset\n"
    assert run("ls", tasks, "--json") == before
    assert run("reset", tasks, "--failed", "--max-tries", "3") == "1 task reset\n"
    assert json.loads(run("get", tasks, "c")) == {"_done": False, "_aborted": False, "_tries": 0,
                                                  "error": "OSError: gone"}
    assert run("abort", tasks, "--todo", "--match", "[ef]") == "2 tasks aborted\n"
    assert run("done", tasks, "--from", "c", "--to", "d") == "2 tasks marked done\n"
    assert run("rm", tasks, "--aborted", "--limit", "1") == "1 task removed\n"
    assert lines("ls", tasks) == [*"abcefg"]


def test_changing_many_is_one_pass(path):
    Tracker(path, init=[(number, {}) for number in range(3500)]).close()
    assert run("done", path, "--match", "*7") == "350 tasks marked done\n"
    assert run("reset", path, "--done") == "350 tasks reset\n"
    assert run("rm", path, "--todo") == "3,500 tasks removed\n"


# export and import


@pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.jsonl.gz", "tasks.jsonl.zst", "folder"])
def test_export_and_import_by_name(tasks, tmp_path, name):
    target = tmp_path / name
    assert run("export", tasks, target) == f"wrote 7 lines to {target}\n"
    assert "already" in run("export", tasks, target, code=3)[1] or name == "folder"
    copy = tmp_path / "copy"
    assert run("import", target, copy) == f"read 7 lines into {copy}, a new tracker\n"
    assert run("ls", copy, "--json") == run("ls", tasks, "--json")


def test_export_and_import_through_a_pipe(path, tmp_path):
    with SharedPOD(path) as pod:
        pod.update((key, {"_done": True}) for key in HOSTILE)
        pod["large"] = "x" * 100_000
        text = run("export", path, "-")
    copy = tmp_path / "copy"
    assert json.loads(run("import", "-", copy, "--json", stdin=text)) == {
        "lines": len(HOSTILE) + 1, "kind": "dict", "new": True}
    assert run("export", copy, "-") == text
    assert json.loads(run("import", "-", copy, "--json", stdin=text))["new"] is False


def test_import_says_where_it_is_damaged(path):
    POD(path).close()
    error = refused("import", "-", path, stdin='{"key": "a", "value": 1}\n{"key"', code=4)
    assert "line 2" in error
    assert "the one before it is in" in error
    assert lines("ls", path) == ["a"]
    assert "is a dict" in refused("import", "-", path, "--tracker", code=2)


TASK = '{"_done": false, "_aborted": false, "_tries": 0, "n": %d}'
GOOD = f'{{"key": "a", "value": {TASK % 1}}}\n'
# What is to be imported, the exit code, and what is said.
FAILING = {
    "empty": ("", 2, "--tracker or --dict"),
    "only empty lines": ("\n  \n\n", 2, "--tracker or --dict"),
    "only a mark of the order of bytes": ("\ufeff", 2, "--tracker or --dict"),
    "damaged at once": ('{"key": "a", "val', 4, "line 1 of"),
    "damaged later": (GOOD + '{"key"', 4, "line 2 of .*; nothing was imported"),
    "damaged much later": ("".join(f'{{"key": {n}, "value": 1}}\n' for n in range(2500)) + "x", 4, "line 2501 of"),
    "no such line": (GOOD + "5\n", 4, "line 2 of .*; nothing was imported"),
    "no key": ('{"key": 1.5, "value": 1}\n', 4, "line 1 of .*; nothing was imported"),
    "no such value": (f'{{"key": 1, "value": 1}}\n{{"key": 2, "value": {"9" * 5000}}}', 4, "line 2 .*; nothing was"),
    "no task": (GOOD + '{"key": "b", "value": 1}\n', 4, "line 2 of .* not a task, .* --tracker or --dict; nothing was"),
    "half a task": (GOOD + '{"key": "b", "value": {"_done": true}}\n', 4, "line 2 of .* not a task"),
    "no such task": (GOOD + GOOD.replace("0,", '"x",').replace('"a"', '"b"'), 4, "line 2 of .*; nothing was imported"),
}


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("place", ["new", "an empty folder", "far/below"])
def test_a_first_import_that_fails_leaves_nothing(tmp_path, case, place):
    text, code, said = FAILING[case]
    (tmp_path / "lines.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "an empty folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for source in ("-", tmp_path / "lines.jsonl"):
        error = refused("import", source, tmp_path / place, stdin=text, code=code)
        assert re.search(said, error), error
        assert sorted(tmp_path.rglob("*")) == before
    # The mended input is what it is.
    assert json.loads(run("import", "-", tmp_path / place, "--json", stdin=GOOD)) == {
        "lines": 1, "kind": "tracker", "new": True}


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.jsonl.gz", "lines.jsonl.zst", "files"])
def test_a_new_store_is_of_the_kind_of_its_input(tmp_path, name):
    for kind, cls, init in (("tracker", Tracker, {"a": {}}), ("dict", POD, {"a": {}, "b": {"_done": True}})):
        with cls(tmp_path / kind, init=init) as store:
            store.sync()
        source, empty = tmp_path / f"{kind}-{name}", tmp_path / f"{kind}-empty-{name}"
        run("export", tmp_path / kind, source)
        copy = tmp_path / f"{kind}-copy"
        assert run("import", source, copy).endswith(f"a new {kind}\n")
        assert run("export", copy, "-") == run("export", tmp_path / kind, "-")
        run("rm", tmp_path / kind, "--match", "*")
        run("export", tmp_path / kind, empty)
        none = tmp_path / f"{kind}-none"
        assert "--tracker or --dict" in refused("import", empty, none, code=2)
        assert not none.exists()
        assert run("import", empty, none, f"--{kind}") == f"read 0 lines into {none}, a new {kind}\n"
        assert json.loads(run("status", none, "--json"))["kind"] == kind


def test_a_new_store_is_of_the_kind_that_was_asked_for(tmp_path):
    mixed = GOOD + '{"key": "b", "value": {"x": 1}}\n'
    for kind in ("tracker", "dict"):
        run("import", "-", tmp_path / kind, f"--{kind}", stdin=mixed)
        assert json.loads(run("status", tmp_path / kind, "--json"))["kind"] == kind
        error = refused("import", "-", tmp_path / "new", f"--{kind}", stdin=mixed + "x", code=4)
        assert "line 3" in error
        assert not (tmp_path / "new").exists()
    assert json.loads(run("get", tmp_path / "tracker", "b")) == {"_done": False, "_aborted": False, "_tries": 0, "x": 1}
    # With the mark of the order of bytes and empty lines in front.
    assert json.loads(run("import", "-", tmp_path / "marked", "--json", stdin="\ufeff" + GOOD))["kind"] == "tracker"
    assert json.loads(run("import", "-", tmp_path / "blank", "--json", stdin="\n" + GOOD))["kind"] == "tracker"


def test_a_first_import_of_the_originals_files_that_fails_leaves_nothing(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for content, code, said in (
        (f'"a"\t{TASK % 1}\n"b"\t', 4, r"0\.json, line 2"), ("", 2, "--tracker or --dict"), ("x", 4, "line 1"),
        (f'"a"\t{TASK % 1}\n"a"\t{TASK % 2}\n', 4, "there already"),
        (f'"a"\t{TASK % 1}\n"b"\t{{}}\n', 4, r"0\.json, line 2: this value is not a task"),
    ):
        (files / "0.json").write_text(content)
        assert re.search(said, refused("import", files, tmp_path / "new", code=code))
        assert os.listdir(tmp_path) == ["files"]


def test_an_import_into_a_store_that_is_there_keeps_what_came_before(path):
    POD(path, init={"z": 1}).close()
    for text in ("", "\n"):
        assert json.loads(run("import", "-", path, "--json", stdin=text)) == {"lines": 0, "kind": "dict", "new": False}
    error = refused("import", "-", path, stdin=GOOD + "x", code=4)
    assert "line 2 of" in error
    assert "the one before it is in the store" in error
    assert lines("ls", path) == ["z", "a"]


def test_an_import_that_is_stopped_leaves_nothing(tmp_path):
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        with subprocess.Popen([*COMMAND, "import", "-", tmp_path / "new"], stdin=subprocess.PIPE, env=ENVIRONMENT,
                              stderr=subprocess.PIPE) as process:
            process.stdin.write((GOOD * 1500).encode())
            process.stdin.flush()
            while not list(tmp_path.glob("new.tastypy_fast-*/new/data.mdb")):
                assert process.poll() is None
            process.send_signal(number)
            process.stdin.close()
            assert process.wait() == code
        assert not (tmp_path / "new").exists()
    run("import", "-", tmp_path / "new", stdin=GOOD)
    assert os.listdir(tmp_path) == ["new"]


def test_a_value_that_cannot_be_stored_makes_no_store(path):
    assert "too many digits" in refused("set", path, "a", "9" * 5000, "--create", code=4)
    assert "nests deeper" in refused("set", path, "[" * 600 + "]" * 600, "1", "--create", "--json-keys", code=4)
    assert not path.exists()


def test_opening_the_originals_files_names_the_command(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "0.json").write_text('"a"\t{"x": 1}\n')
    assert f"tastypy-fast import {tmp_path / 'old'}" in refused("status", tmp_path / "old", code=3)
    run("import", tmp_path / "old", tmp_path / "new")
    assert json.loads(run("get", tmp_path / "new", "a")) == {"x": 1}


# copy, compact, verify, repair


@pytest.fixture
def maintenance():
    return pytest.importorskip("tastypy_fast.maintenance")


def test_copy_compact_and_verify(maintenance, tasks, tmp_path):
    assert str(tmp_path / "copy") in run("copy", tasks, tmp_path / "copy")
    assert run("ls", tmp_path / "copy", "--json") == run("ls", tasks, "--json")
    assert "not empty" in refused("copy", tasks, tmp_path / "copy", code=3)
    with POD(tmp_path / "large") as pod:
        pod.update((number, "x" * 1000) for number in range(2000))
        pod.sync()
        pod.clear()
    given_back = json.loads(run("compact", tmp_path / "large", "--json"))
    assert given_back["given_back"] == given_back["before"] - given_back["after"] > 1_000_000
    assert run("compact", tmp_path / "large").startswith("freed ")
    assert run("verify", tmp_path / "large") == f"{tmp_path / 'large'} is sound\n"
    assert json.loads(run("verify", tasks, "--json")) == {"sound": True, "faults": []}
    with Child(hold_private, tasks) as child:
        child.pipe.recv()
        assert str(child.pid) in refused("compact", tasks, code=3)


def test_verify_and_repair_of_a_damaged_store(maintenance, tasks, tmp_path):
    data = tasks / "data.mdb"
    data.write_bytes(data.read_bytes().replace(b'"error"', b"\xff" * 7))
    before = data.read_bytes()
    out, error = run("verify", tasks, code=1)
    assert "fault" in out.splitlines()[-1]
    assert error == ""
    found = json.loads(run("verify", tasks, "--json", code=1)[0])
    assert not found["sound"]
    assert found["faults"]
    out, _ = run("repair", tasks, tmp_path / "new", "--json", code=1)
    result = json.loads(out)
    assert result["lost"]
    assert len(lines("ls", tmp_path / "new")) == result["kept"]
    assert "sound" in run("verify", tmp_path / "new")
    assert "what was lost is listed above" in run("repair", tasks, tmp_path / "other", code=1)[0]
    assert data.read_bytes() == before


# Ctrl-C


def test_ctrl_c_is_quiet(tasks):
    with subprocess.Popen([*COMMAND, "watch", str(tasks), "--interval", "0.1", "--json"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == ""


# watch

PIPELINE = """
    import sys
    from tastypy_fast import SharedTracker, Tracker
    tracker = {"shared": SharedTracker, "private": Tracker}[sys.argv[1]](sys.argv[2], max_tries=2)
    for number, key in enumerate(tracker.try_keys()):
        if number % 10 == 3:
            tracker.set[key]["error"] = f"OSError: page {key} is gone"
        else:
            tracker.mark_done(key)
        tracker.sync()
        print(key, flush=True)
        sys.stdin.readline()
"""


def test_watch_until_done_counts_from_this_view_on(path):
    # most of it was done before this view: its rate says nothing of that
    Tracker(path, init=[(number, {"_done": number < 900}) for number in range(1000)]).close()
    with start(PIPELINE, "private", path) as pipeline, subprocess.Popen(
        [*COMMAND, "watch", str(path), "--interval", "0.1", "--json"], stdout=subprocess.PIPE, text=True,
        env=ENVIRONMENT,
    ) as view:
        pipeline.stdout.readline()
        first = json.loads(view.stdout.readline())
        assert first["per_second"] is None
        assert first["done"] >= 900
        for _ in range(50):
            pipeline.stdin.write("\n")
            pipeline.stdin.flush()
            pipeline.stdout.readline()
        while (seen := json.loads(view.stdout.readline()))["done"] < 940:
            pass
        began = time.monotonic()
        # (as many as were done since the view began, at the most, and not 900)
        assert 0 < seen["per_second"] < 900
        assert seen["seconds_left"] == pytest.approx(seen["left"] / seen["per_second"])
        while not seen["failures"]:
            assert time.monotonic() - began < 60
            pipeline.stdin.write("\n")
            pipeline.stdin.flush()
            seen = json.loads(view.stdout.readline())
        assert all("is gone" in failure["error"] for failure in seen["failures"])
        view.terminate()
        pipeline.kill()
    Tracker(path, init=[(number, {"_done": True}) for number in range(1000)]).close()
    assert "nothing left to do" in run("watch", path, "--until-done")


class Terminal:
    """A real terminal, with something running in it."""

    def __init__(self, *command, columns=90, rows=36):
        self.name = f"tastypy-fast-{uuid.uuid4().hex}"
        quoted = " ".join(f"'{part}'" for part in command)
        self.tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), f"{quoted}; echo code $?; sleep 600")

    def tmux(self, *arguments):
        return subprocess.run(["tmux", "-L", self.name, "-f", os.devnull, *arguments], env=TERMINAL, check=True,
                              capture_output=True, text=True, timeout=60).stdout

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", ":0")

    def wait_for(self, *parts):
        until = time.monotonic() + 60
        while not all(part in (screen := self.screen()) for part in parts):
            assert time.monotonic() < until, screen
            time.sleep(0.05)
        return screen

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.tmux("kill-server")


@pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux")
def test_watch_in_a_terminal(path):
    SharedTracker(path, init=[(number, {}) for number in range(100)]).close()
    with start(PIPELINE, "shared", path) as pipeline, Terminal(
            *COMMAND, "watch", path, "--interval", "0.1", "--max-tries", "2") as terminal:
        pipeline.stdout.readline()
        screen = terminal.wait_for("done", "failed", "aborted", "left", "in the last minute", "now")
        assert str(path) in screen
        for _ in range(54):
            pipeline.stdin.write("\n")
            pipeline.stdin.flush()
            pipeline.stdout.readline()
        screen = terminal.wait_for("49.00 %", " left\n")
        assert "┤" in screen
        pipeline.stdin.close()
        pipeline.stdout.read()
        # each of those that failed was tried once by a worker that has ended: it is left
        terminal.wait_for("90.00 %", "10.00 %", "in the last minute")
        terminal.tmux("resize-window", "-x", "40", "-y", "12")
        terminal.wait_for("90.00 %")
        terminal.tmux("send-keys", "C-c")
        assert "code 130" in terminal.wait_for("code 130")
        assert "Traceback" not in terminal.screen()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux")
def test_no_color_is_kept_to(tasks):
    for variables, colored in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Terminal("env", *(f"{name}={value}" for name, value in variables.items()), *COMMAND, "watch", tasks
                      ) as terminal:
            terminal.wait_for("tasks")
            found = terminal.tmux("capture-pane", "-p", "-e", "-t", ":0")
            assert ("\x1b[33m" in found) is colored, found
