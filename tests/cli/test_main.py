"""The command: help, version, completion, and errors at opening a store."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys

import pytest

import tastypy_fast
from tastypy_fast import POD
from tastypy_fast.cli import app
from tests.support.command import COMMAND, ENVIRONMENT, refused, run
from tests.support.privileges import HAS_PERMISSIONS

COMMANDS = """
    abort add compact copy done errors export get import ls man repair reset rm run set status verify watch
""".split()  # noqa: SIM905


# Help, version, completion


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(command):
    text = run(command, "--help")
    assert text.startswith(f"Usage: tastypy-fast {command} [OPTIONS]")
    assert len(text.splitlines()[2].strip()) > 20
    assert max(map(len, text.splitlines())) <= 100


def test_help_lists_commands_exit_codes_and_completion():
    text = run("--help")
    assert all(f"\n  {command} " in text for command in COMMANDS)
    assert all(f"\n    {code} " in text for code in (0, 1, 2, 3, 4, 130, 141))
    assert "_TASTYPY_FAST_COMPLETE=bash_source" in text
    assert run(code=2)[0] == text


def test_version_option_prints_the_version():
    assert run("--version") == f"tastypy-fast, version {tastypy_fast.__version__}\n"


def test_completion_of_commands_and_options():
    found = run(_TASTYPY_FAST_COMPLETE="bash_complete", COMP_WORDS="tastypy-fast re", COMP_CWORD="1")
    assert found.split() == ["plain,repair", "plain,reset"]
    found = run(_TASTYPY_FAST_COMPLETE="bash_complete", COMP_WORDS="tastypy-fast ls --fa", COMP_CWORD="2")
    assert "plain,--failed" in found


def test_missing_extra_is_reported_in_one_line(tmp_path):
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError(\"No module named 'click'\", name='click')")
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60, env={
        **ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "tastypy-fast: this needs click: pip install 'tastypy_fast[cli]'\n"


def test_help_shows_whole_summaries(capsys):
    assert app.run(["--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2].partition("Exit codes:")[0]


def test_manual_page_has_the_help_of_every_command(capsys):
    assert app.run(["man"]) == 0
    page = capsys.readouterr().out
    assert page.startswith('.TH "TASTYPY\\-FAST" "1"')
    page = page.replace("\\-", "-").replace("\\(aq", "'")
    for name, command in app.tastypy_fast.commands.items():
        assert f'.SS "tastypy-fast {name} ' in page
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.opts[0] in page
    assert all(not line.startswith("'") for line in page.splitlines())


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_manual_page_is_ascii_on_every_terminal(capsys):
    app.run(["man"])
    page = capsys.readouterr().out
    shown = subprocess.run(["groff", "-man", "-Tutf8", "-P-c"], input=page.encode(), capture_output=True, check=True)
    assert not shown.stderr
    assert shown.stdout.isascii()
    assert b"find . -name '*.pdf' -print0" in shown.stdout


@pytest.mark.parametrize(("encoding", "options"), [("utf-8", ""), ("ascii", "-E ascii "), ("latin-1", "-E ascii ")])
def test_man_gets_the_encoding_of_the_terminal(tmp_path, monkeypatch, capfd, encoding, options):
    program = tmp_path / "man"
    program.write_text('#!/bin/sh\necho "$@"\ncat >/dev/null\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert app.run(["man"]) == 0
    assert capfd.readouterr().out == f"{options}-l -\n"


# Errors at opening


@pytest.mark.parametrize("command", ["status", "ls", "watch", "get STORE x", "add STORE x", "set STORE x 1",
                                     "rm STORE x", "done STORE x", "reset STORE --failed", "abort STORE x",
                                     "export STORE -"])
def test_missing_store_is_reported_by_every_command(command, path):
    name, *rest = command.replace("STORE", str(path)).split()
    assert "there is no store at" in refused(name, *(rest or [path]), code=3)
    assert not path.exists()


def test_exit_codes_for_no_store_and_for_damage(tmp_path, tasks):
    assert "not a store" in refused("status", tmp_path, code=3)
    with open(tasks / "data.mdb", "r+b") as file:
        file.write(b"\xff" * 9000)
    assert "damaged" in refused("status", tasks, code=3)


@pytest.mark.skipif(not HAS_PERMISSIONS, reason="root may read everything")
def test_exit_codes_for_what_may_not_be_read(tasks, tmp_path):
    keys = tmp_path / "keys.jsonl"
    keys.write_text("a\n")
    for path in (tasks, keys):
        path.chmod(0)
    try:
        assert "permissions" in refused("status", tasks, code=3, restricted=True)
        assert "Permission denied" in refused("import", keys, tmp_path / "new", code=4, restricted=True)
    finally:
        tasks.chmod(0o700)
    assert "Permission denied" in run("add", tasks, "--file", keys, code=4, restricted=True)[1]


@pytest.mark.skipif(not HAS_PERMISSIONS, reason="root may read everything")
@pytest.mark.parametrize("command", ["ls STORE", "copy STORE NEW", "compact STORE", "verify STORE", "repair STORE NEW"])
def test_store_in_a_folder_that_may_not_be_read_is_not_missing(tasks, tmp_path, command):
    closed = tmp_path / "closed"
    closed.mkdir()
    tasks.rename(closed / "tasks")
    closed.chmod(0)
    name, *rest = command.replace("STORE", str(closed / "tasks")).replace("NEW", str(tmp_path / "new")).split()
    try:
        assert "cannot be opened (Permission denied); change" in refused(name, *rest, code=3, restricted=True)
        closed.chmod(0o700)
        (closed / "tasks").chmod(0)
        assert "(Permission denied)" in refused(name, *rest, code=3, restricted=True)
    finally:
        closed.chmod(0o700)
        (closed / "tasks").chmod(0o700)
    assert not (tmp_path / "new").exists()


def test_exit_codes_for_input_that_cannot_be_read(tasks, tmp_path):
    assert "No such file" in refused("import", tmp_path / "nothing.jsonl", tmp_path / "new", code=4)
    assert "No such file" in refused("import", tmp_path / "nothing", tmp_path / "new", code=4)
    assert "directory" in run("add", tasks, "--file", tmp_path, code=4)[1]
    assert "No such file" in run("reset", tasks, "--file", tmp_path / "nothing", code=4)[1]
    assert "line 1" in run("reset", tasks, "--json-keys", "-", stdin="{", code=4)[1]
    assert "is empty" in refused("status", "", code=2)


def test_invalid_arguments_exit_with_2(tasks):
    assert "nonsense" in refused("nonsense", code=2)
    assert "STORE" in refused("ls", code=2)
    assert "--limit" in refused("ls", tasks, "--limit", "-1", code=2)
    assert "needs keys" in refused("reset", tasks, code=2)
    assert "not both" in refused("reset", tasks, "a", "--failed", code=2)
    assert "JSON" in refused("get", tasks, "--json-keys", "a", code=2)
    assert "a key must be" in refused("get", tasks, "--json-keys", "1.5", code=2)
    assert "JSON" in refused("set", tasks, "a", "{", code=2)
    assert "object" in refused("set", tasks, "a", "1", code=2)
    assert "does not select a format" in refused("export", tasks, "tasks.csv", code=2)


def test_task_commands_refuse_a_dict(path):
    POD(path, init={"a": 1}).close()
    assert "plain dict" in refused("ls", path, "--failed", code=3)
    assert "plain dict" in run("done", path, "a", code=3)[1]
    assert "plain dict" in refused("add", path, "b", code=3)
