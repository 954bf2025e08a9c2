"""What the command prints to terminals, pipes, and streams that are closed or full."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from tastypy_fast import POD, Tracker
from tastypy_fast.cli import app
from tastypy_fast.cli.formatting import can_redraw, terminal_text
from tests.support.command import COMMAND, ENVIRONMENT, run

# C1 controls, bidirectional overrides and isolates, separators of lines, an escape sequence, a bell, and a lone byte.
RUBBISH = "a\x85\x9b31mb\u202ec\u2066d\u2028e\u2029f\x1b[31mg\x07\t\n\0é\udcff\U000e0001"


class FakeTerminal(io.TextIOWrapper):
    """A stream that says that it is a terminal, and keeps what was written."""

    def __init__(self, encoding):
        self.written = io.BytesIO()
        super().__init__(self.written, encoding=encoding)

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Run a command on a terminal with an encoding, and return its exit code and its text."""

    def run_on_terminal(*arguments, encoding="utf-8", columns=40):
        monkeypatch.setenv("COLUMNS", str(columns))
        stream = FakeTerminal(encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        code = app.run([*map(str, arguments)])
        stream.flush()
        return code, stream.written.getvalue().decode(encoding)

    monkeypatch.setenv("TERM", "dumb")
    return run_on_terminal


@pytest.fixture
def hostile(path):
    """A closed tracker whose keys, data and errors have what a terminal must not get."""
    with Tracker(path, init=[(RUBBISH, {"data": RUBBISH}), (("t", RUBBISH), {}), ("é", {})]) as tracker:
        tracker.increment_tries(RUBBISH)
        tracker[RUBBISH]["_error"] = {"type": RUBBISH, "message": RUBBISH, "traceback": RUBBISH}
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("command", [
    "status STORE", "status STORE --json", "ls STORE", "ls STORE --json-keys", "ls STORE -l", "ls STORE --json",
    "get STORE é", "get STORE é KEY", "get STORE KEY", "get STORE KEY --json", "errors STORE",
    "errors STORE --traceback", "errors STORE --json", "export STORE -", "set STORE KEY {}", "done STORE KEY --json",
    "verify STORE", "run STORE --dry-run -- echo", "--help", "ls --help",
    "watch STORE --until-done --max-tries 1 --json"])
def test_nothing_on_a_terminal_controls_it(hostile, terminal, command, encoding):
    if command.startswith("watch"):
        with Tracker(hostile) as tracker:
            tracker.mark_done_many(list(tracker))
    words = [word.replace("STORE", str(hostile)).replace("KEY", RUBBISH) for word in command.split()]
    if "\0" in "".join(words):
        words = [word.replace("\0", "") for word in words]
    code, text = terminal(*words, encoding=encoding)
    assert code == (1 if "KEY" in command and not command.startswith("set") else 0)
    assert {char for char in text if not char.isprintable()} <= {"\n", "\t"}


def test_json_on_a_terminal_stays_json(hostile, terminal):
    for encoding in ("utf-8", "ascii"):
        for command in (["ls", hostile, "--json", "--limit", "1"], ["export", hostile, "-"]):
            _, text = terminal(*command, encoding=encoding)
            found = json.loads(text.splitlines()[0])
            assert found["key"] == RUBBISH
            assert found["value"]["data"] == RUBBISH


def test_messages_name_any_path_without_control_characters(tmp_path, capsys):
    name = RUBBISH.replace("\0", "")
    assert app.run(["status", str(tmp_path / name)]) == 3
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_text("")
    assert app.run(["status", str(tmp_path / name)]) == 3
    assert app.run(["ls", str(tmp_path), name]) == 2
    text = capsys.readouterr().err
    assert {char for char in text if not char.isprintable()} == {"\n"}
    assert text.count("\n") == 3


def test_terminals_without_cursor_control_get_lines(monkeypatch):
    for name, expected in (("dumb", False), ("", False), ("xterm", True)):
        monkeypatch.setenv("TERM", name)
        assert can_redraw(FakeTerminal("utf-8")) == expected
    assert not can_redraw(io.StringIO())


def test_status_fits_a_narrow_terminal(hostile, terminal):
    _, text = terminal("status", hostile, columns=40)
    assert max(map(len, text.splitlines())) <= 40


def test_terminal_text_escapes_what_the_encoding_lacks():
    assert terminal_text("é\U0001f600", "utf-8") == "é\U0001f600"
    assert json.loads('"' + terminal_text("é\U0001f600", "ascii") + '"') == "é\U0001f600"


# Pipes


def test_pipes_get_utf8_in_any_locale(hostile):
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}):
        done = subprocess.run([*COMMAND, "ls", hostile, "-0"], capture_output=True, check=True,
                              env={**ENVIRONMENT, **environment})
        assert done.stdout.endswith("\0é\0".encode())


def test_keys_round_trip_through_ls(path):
    keys = ["plain", "", "a\nb", "\x85\x9b\u202e\u2028", "\udcff", "é", "t\tb", '"q"', " "]
    Tracker(path, init=[(key, {}) for key in keys]).close()
    listed = run("ls", path, "-0")
    assert listed.split("\0")[:-1] == keys
    assert run("done", path, "-0", "-", stdin=listed) == "9 tasks marked done\n"
    out, error = run("reset", path, "-", stdin=run("ls", path), code=1)
    assert out == "7 tasks reset\n"  # an empty line is no key
    assert error.count("ls prints a key with a line break or a null character as JSON, so use --json-keys or -0") == 1
    assert run("abort", path, "--json-keys", "-", stdin=run("ls", path, "--json-keys")) == "9 tasks aborted\n"


def test_ls_ends_keys_that_have_null_characters_as_json(path, capsys):
    POD(path, init={"a\0b": 1, "\ud800": 1, 5: 1}).close()
    assert app.run(["ls", str(path), "-0"]) == 0
    assert capsys.readouterr().out.split("\0") == ['"a\\u0000b"', '"\\ud800"', "5", ""]
    assert app.run(["ls", str(path), "-0", "-l"]) == 2
    assert app.run(["get", str(path), '"a\\u0000b"']) == 1
    assert "use --json-keys with both commands" in capsys.readouterr().err


# Streams that cannot be written


@pytest.mark.parametrize("command", ["ls STORE", "export STORE -", "--help", "add STORE new"])
def test_output_that_cannot_be_written_is_an_error(tmp_path, command):
    POD(tmp_path / "store", init=[(f"{number:0200}", 1) for number in range(300)]).close()
    Tracker(tmp_path / "tracker").close()
    store = tmp_path / ("tracker" if "add" in command else "store")
    words = [*COMMAND, *command.replace("STORE", str(store)).split()]
    shell = " ".join(words)
    for redirection, message in ((">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")):
        done = subprocess.run(["sh", "-c", f"exec {shell} {redirection}"], stderr=subprocess.PIPE, text=True,
                              env=ENVIRONMENT, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stderr) == (4, f"tastypy-fast: stdout cannot be written: {message}\n")
    if "add" in command:
        assert run("ls", store) == "new\n"


def test_stderr_that_cannot_be_written_leaves_the_exit_code(tasks):
    """The exit code was 1 or 120, which means something else."""
    shell = " ".join(COMMAND)
    script = "; ".join(f"{shell} {command} 2>/dev/full; echo $?" for command in ("ls nothing", f"get {tasks} nothing"))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.stdout, done.stderr) == ("3\n1\n", "")


def test_closed_stderr_and_stdin_are_replaced(tasks):
    shell = " ".join(COMMAND)
    for command, code in ((f"ls {tasks}", 0), ("ls nothing", 3), (f"add {tasks} new", 0), ("ls", 2)):
        done = subprocess.run(["sh", "-c", f"exec {shell} {command} <&- 2>&-"], stdout=subprocess.PIPE, text=True,
                              env=ENVIRONMENT, cwd=os.path.dirname(tasks))
        assert done.returncode == code


def test_closed_stdin_is_no_empty_input(tasks):
    """import made an empty store of it, and add added nothing."""
    shell = " ".join(COMMAND)
    commands = (f"add {tasks} -", f"reset {tasks} -0 -", f"set {tasks} a -", f"import - {tasks}-new --dict")
    script = "; ".join(f"{shell} {command} <&-; echo $?" for command in commands)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert [line for line in done.stdout.split("\n") if line.isdecimal()] == ["4"] * 4
    assert done.stderr == "tastypy-fast: stdin cannot be read: Bad file descriptor\n" * 4
    assert not os.path.exists(f"{tasks}-new")
