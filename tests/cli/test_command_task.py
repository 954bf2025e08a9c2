"""CommandTask: a command that runs as a task, as a worker of tracker.run() calls it."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys

import pytest

from tastypy_fast import Tracker
from tastypy_fast.cli.command_output import Output
from tastypy_fast.cli.command_task import CommandTask
from tastypy_fast.cli.command_template import CommandTemplate, TaskValues
from tastypy_fast.pipeline.worker import ABORTED, DONE, FAILED, MAX_RESULT, RETRY, TaskFunction
from tests.support.children import Child
from tests.support.command import ENVIRONMENT, HOSTILE

SHOW = [sys.executable, "-c", "import sys; sys.stdout.write(ascii([a for a in sys.argv[1:]]))"]


def run_task(*arguments, key="k", data=None, tries=1, slot=0, shell=False, **options):
    """The outcome of one task, with its data unpickled. The task is pickled, as on its way to a worker."""
    task = pickle.loads(pickle.dumps(CommandTask(CommandTemplate(arguments, shell), **options)))
    outcome = TaskFunction(task, with_data=task.needs_data)((key, tries, data), slot)
    return outcome._replace(data=outcome.data and pickle.loads(outcome.data))


def printed(*arguments, **options):
    """What a command prints that succeeds, without line breaks at the end."""
    outcome = run_task(*arguments, result="text", **options)
    assert outcome.kind == DONE, outcome.error
    return outcome.data[0]["result"]


def failure(*arguments, **options):
    """The error of a command that fails."""
    outcome = run_task(*arguments, **options)
    assert outcome.kind == FAILED
    json.dumps(outcome.error)
    assert outcome.error.pop("at")
    assert outcome.error.pop("seconds") >= 0
    return outcome.error


# Placeholders


def test_placeholders_of_a_task():
    data = {"size": 7, "name": "a b", "deep": {"x": [1, None]}, "dotted.name": True}
    arguments = ["{key}|{json}|{try}|{slot}", "{data.size}", "{data.name}", "{data.deep.x}", "{data.dotted.name}"]
    shown = printed(*SHOW, *arguments, key="it's", data=data, tries=2, slot=3)
    assert shown == str(['it\'s|"it\'s"|2|3', "7", "a b", "[1,null]", "true"])


@pytest.mark.parametrize(("arguments", "expanded"), [
    (["ls"], ["ls", "k"]),
    (["a", "{key}.png", "{key}{key}"], ["a", "k.png", "kk"]),
    (["a", "{{key}} {key}"], ["a", "{key} k"]),
    (["a", "{{key}}"], ["a", "{key}", "k"]),
    (["a", '{{"x": {json}}}'], ["a", '{"x": "k"}']),
    # Braces that are no placeholders stay as they are.
    (["awk", "{print $1}", "{key}"], ["awk", "{print $1}", "k"]),
    (["jq", "{a: {b: 1}}"], ["jq", "{a: {b: 1}}", "k"]),
    (["docker", "-f", "{{.Name}}", "{}", "{key}"], ["docker", "-f", "{{.Name}}", "{}", "k"]),
    (["bash", "-c", "echo ${x} ${key} {key}"], ["bash", "-c", "echo ${x} ${key} k"]),
    (["{key}", "{try}"], ["k", "1"]),
])
def test_expansion_of_arguments(arguments, expanded):
    assert [part.decode() for part in CommandTemplate(arguments).expand(TaskValues("k"))] == expanded


@pytest.mark.parametrize(("arguments", "message"), [
    (["rm", "{keys}"], "{keys} in 'rm {keys}'|{keys} in '{keys}' is not a placeholder; these are {key}"),
    (["rm", "{}"], "write {key} where the key belongs"),
    (["rm", "{data.}"], "is not a placeholder"),
    (["rm", "{key} }"], "} in '{key} }'"),
    (["rm", "{key"], ""),
    (["awk", "{print}"], "{{ and }} are braces"),
])
def test_placeholder_that_does_not_exist(arguments, message):
    if not message:
        assert CommandTemplate(arguments).expand(TaskValues("k")) == [b"rm", b"{key", b"k"]
        return
    for shell in (False, True):
        with pytest.raises(ValueError, match="placeholder") as raised:
            CommandTemplate(arguments, shell)
        assert shell or any(part in str(raised.value) for part in message.split("|"))


@pytest.mark.parametrize("key", [key for key in HOSTILE if key != "\ud800"], ids=ascii)
@pytest.mark.parametrize("shell", [False, True])
def test_hostile_keys_reach_the_command_unchanged(key, shell):
    text = key if isinstance(key, str) else json.dumps(key, separators=(",", ":"))
    show = [sys.executable, "-c", "'import sys; print(ascii(sys.argv[1:]))'"] if shell else SHOW
    assert printed(*show, "{key}", "x{key}", key=key, shell=shell) == ascii([text, f"x{text}"])
    assert printed(*show, key=key, shell=shell) == ascii([text])
    assert json.loads(printed("printf", "%s", "{json}", key=key, shell=shell)) == json.loads(json.dumps(key))


@pytest.mark.parametrize("key", ["$(touch hacked)", "`touch hacked`", "'; touch hacked; '", '"; touch hacked; "',
                                 "\n touch hacked\n", "&& touch hacked", "\\", "*", "~", "a\\'b"])
def test_shell_never_runs_a_key(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    assert printed("printf %s {key} | cat; printf '[%s]' x{key}", key=key, shell=True) == f"{key}[x{key}]".rstrip("\n")
    assert os.listdir() == ["there"]


@pytest.mark.parametrize("script", ["echo '{key}'", 'echo "{key}"', 'echo "x$(cat {key})"', "echo it\\'s '{json}'"])
def test_shell_refuses_placeholders_in_quotes(script):
    with pytest.raises(ValueError, match="inside quotes"):
        CommandTemplate([script], shell=True)


def test_shell_joins_its_arguments():
    assert printed("echo", "a;", "echo", "{key}", "'$x' ${HOME:+h}", key="b  c", shell=True) == "a\nb  c $x h"


def test_value_that_no_argument_can_have():
    assert "null character" in failure("echo", key="a\0b")["message"]
    assert "lone surrogate" in failure("echo", key="\ud800")["message"]
    assert printed("echo", "{json}", key="a\0\ud800") == '"a\\u0000\\ud800"'
    assert "no field 'x.y'" in failure("echo", "{data.x.y}", data={"x": 1})["message"]


# What the command reads


@pytest.mark.parametrize(("stdin", "text"), [("none", b""), ("key", b"a\n\xff\n"),
                                             ("json", b'{"key":"a\\n\\udcff","value":{"size":7}}\n')])
def test_stdin(stdin, text, tmp_path):
    read = tmp_path / "read"
    assert run_task("sh", "-c", f"cat >{read}", "{key}", key="a\n\udcff", data={"size": 7}, stdin=stdin).kind == DONE
    assert read.read_bytes() == text


def test_stdin_larger_than_a_pipe_that_the_command_does_not_read(tmp_path):
    assert run_task("true", stdin="key", key="x" * 200_000).error["message"].endswith("Argument list too long")
    assert run_task("sh", "-c", "true {try}", stdin="key", key="x" * 200_000).kind == DONE
    assert run_task("sh", "-c", "cat; true {try}", stdin="key", key="x" * 200_000, result="text").data[0] == {
        "result": "x" * 200_000}


# What becomes of its output


def test_results(path):
    assert run_task("echo", "x") == (DONE, None, None, None, True)
    assert printed("printf", "%s\\n\\n", key="a\nb \udcff") == "a\nb \udcff"
    assert run_task("echo", '{{"size": 7, "key": {json}}}', result="json").data == ({"size": 7, "key": "k"}, None)
    assert run_task("echo", "[1]{try}", result="json").kind == FAILED
    assert run_task("echo", "{try}", result="json").data == ({"result": 1}, None)
    assert "no valid JSON" in failure("true", result="json")["message"]
    # Any text can be kept.
    with Tracker(path, init={"a": {}}) as tracker:
        tracker.mark_done("a", run_task("printf", "\\377{try}", result="text").data[0])
    with Tracker(path) as tracker:
        assert tracker["a"]["result"] == "\udcff1"


def test_lines_become_tasks():
    added = run_task("printf", 'b\\r\\n\\n c \\n"d"', add_lines=True)
    assert added.data == (None, ["b", " c ", '"d"'])
    added = run_task("printf", '1\\n["a", 2]\\n', add_lines=True, json_keys=True)
    assert added.data == (None, [1, ("a", 2)])
    assert run_task("true", add_lines=True).kind == DONE
    assert "no valid key" in failure("echo", add_lines=True, json_keys=True)["message"]


def test_result_that_is_too_large():
    error = failure("sh", "-c", f"head -c {MAX_RESULT + 1} /dev/zero", result="text")
    assert error["type"] == "ResultTooLarge"
    assert "67,108,865 bytes" in error["message"]


# How it ends


def test_failures():
    assert failure("sh", "-c", "echo out; echo no answer >&2; exit 3") == {
        "type": "CommandFailed", "message": "no answer", "exit_code": 3}
    assert failure("false") == {"type": "CommandFailed", "message": "exit code 1", "exit_code": 1}
    assert failure("sh", "-c", "kill -9 $$") == {
        "type": "CommandFailed", "message": "killed by SIGKILL", "signal": "SIGKILL"}
    assert "no-such-program" in failure("{key}", key="no-such-program")["message"]


def test_failure_keeps_the_end_of_stderr():
    error = failure("sh", "-c", "printf 'é%.0s' $(seq 9000) >&2; printf '\\377\\033[31m\\0end' >&2; exit 1")
    assert len(error["message"]) == 2000
    assert error["message"].startswith("éé")
    assert error["message"].endswith("é\ufffd\x1b[31m\0end")


def test_exit_code_that_aborts():
    outcome = run_task("sh", "-c", "echo gone >&2; exit 4", abort_codes=frozenset({4}))
    assert (outcome.kind, outcome.error["type"], outcome.error["message"]) == (ABORTED, "Abort", "gone")
    assert outcome.error["exit_code"] == 4
    assert "traceback" not in outcome.error
    assert run_task("sh", "-c", "exit 5", abort_codes=frozenset({4})).kind == FAILED


def test_command_has_default_signals_and_no_descriptors_of_the_worker():
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        # A program of Python ignores SIGPIPE, and its commands must not.
        assert failure("sh", "-c", "kill -PIPE $$")["signal"] == "SIGPIPE"
        assert printed("sh", "-c", f"test -e /dev/fd/{file.fileno()} || echo closed; true {{try}}") == "closed"


# Output of several commands

WRITERS = '''
import sys
from tastypy_fast.cli.command_output import Output
from tastypy_fast.cli.command_task import CommandTask
from tastypy_fast.cli.command_template import CommandTemplate
from tastypy_fast.pipeline.worker import TaskFunction
import os
file, lock = sys.argv[1] or None, sys.argv[2]
script = """for i in 1 2 3; do printf "$0 %s\\n" a b c; echo $0 e >&2; done
            head -c 100000 /dev/zero | tr "\\\\0" $0; echo"""
task = CommandTask(CommandTemplate(["sh", "-c", script, "{key}"]), output=Output(file, lock=lock))
for key in "pqr":
    if not os.fork():
        for _ in range(5):
            assert TaskFunction(task)((key, 1, None), 0).kind == 0
        os._exit(0)
for _ in range(3):
    assert os.wait()[1] == 0
'''


@pytest.mark.parametrize("to_file", [False, True])
def test_output_of_commands_is_never_mixed(to_file, tmp_path):
    file, lock = tmp_path / "output", tmp_path / "lock"
    lock.touch()
    done = subprocess.run([sys.executable, "-c", WRITERS, file if to_file else "", lock], env=ENVIRONMENT, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    text = file.read_text() if to_file else done.stdout
    pieces = {key: f"{key} a\n{key} b\n{key} c\n" * 3 + key * 100_000 + "\n" + f"{key} e\n" * 3 for key in "pqr"}
    found = []
    while text:
        key = text[0]
        assert text.startswith(pieces[key])
        text = text[len(pieces[key]):]
        found.append(key)
    assert sorted(found) == sorted("pqr" * 5)


def test_output_can_all_go_to_stderr_and_be_discarded(capfd):
    script = ["sh", "-c", "echo out; echo error >&2; true {try}"]
    run_task(*script, output=Output())
    assert capfd.readouterr() == ("out\n", "error\n")
    run_task(*script, output=Output(stderr_only=True))
    assert capfd.readouterr() == ("", "out\nerror\n")
    run_task(*script)
    run_task(*script, result="text")
    assert capfd.readouterr() == ("", "")
    run_task(*script, result="text", output=Output())
    assert capfd.readouterr() == ("", "error\n")


@pytest.mark.parametrize(("command", "kind"), [("echo", RETRY), ("true", DONE)])
def test_output_without_a_reader_is_not_done_and_costs_no_try(command, kind):
    """Tasks were done whose output was lost."""
    def work(pipe, task):
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(reader)
        outcome = TaskFunction(task)(("k", 1, None), 0)
        pipe.send((outcome.kind, outcome.counted))

    with Child(work, CommandTask(CommandTemplate([command]), output=Output())) as child:
        assert child.receive_all() == [(kind, kind == DONE)]


def test_terminal_that_is_gone_takes_the_output_and_ends_nothing(monkeypatch, tmp_path):
    """A run in the background outlives its terminal. A disk that gives the same error is a fault."""
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    main, terminal = os.openpty()
    monkeypatch.setattr("tastypy_fast.cli.command_output._write_all", fail)
    (tmp_path / "file").write_bytes(b"x")
    with open(tmp_path / "file", "rb") as file:
        Output()._copy(terminal, file.fileno(), 1)
        with pytest.raises(OSError, match="Input/output error"):
            Output()._copy(file.fileno(), file.fileno(), 1)
    os.close(main)
    os.close(terminal)


def test_worker_that_is_killed_leaves_no_lock(tmp_path):
    lock = tmp_path / "lock"
    lock.touch()

    def work(pipe):
        output = Output(lock=str(lock))
        output.open()
        with output._locked():
            pipe.send("locked")
            pipe.recv()

    with Child(work) as child:
        assert child.pipe.recv() == "locked"
        child.kill()
        child.wait()
        output = Output(lock=str(lock))
        output.open()
        with output._locked():
            pass
        output.close()


def test_process_that_a_command_leaves_behind_is_not_waited_for(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # It has the command's stdout and stderr open.
    assert printed("sh", "-c", f"cat {fifo} & echo done; true {{try}}") == "done"
    fifo.write_bytes(b"late")
    assert printed("echo", "{try}") == "1"
