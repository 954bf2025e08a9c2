"""The demo as a user runs it: a subprocess on real files, stopped in every possible way."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import tastypy_fast
from tastypy_fast import POD, Tracker

COMMAND = [sys.executable, "-m", "tastypy_fast.demo"]
# The demo imports the same package as the tests, from any location.
SEARCH = [str(Path(tastypy_fast.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(SEARCH)}

# Python imports this module at its start, in worker processes, too. It makes the demo wait in the parser: in its call
# number WAIT_AT, whichever process makes it, and in all later ones, until the file "go" exists. Each call appends a
# byte to a file, and the place of the byte is the number of the call. Each waiting process has a file with the path
# that it parses. (Formatting a traceback parses, too, but without a path.)
WAITING = """
import ast, os, time

parse, folder = ast.parse, os.path.dirname(__file__)

def waiting(source, *path):
    if not path:
        return parse(source)
    file = os.open(folder + "/calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b".")
    number = os.lseek(file, 0, os.SEEK_CUR)
    os.close(file)
    if number >= int(os.environ["WAIT_AT"]):
        own = f"{folder}/waiting/{os.getpid()}"
        with open(own + ".new", "wb") as file:
            file.write(os.fsencode(path[0]))
        os.rename(own + ".new", own)
        while not os.path.exists(folder + "/go"):
            time.sleep(0.01)
    return parse(source, *path)

ast.parse = waiting
"""
NEVER = 1_000_000
# By this call, all folders of the crowd are read, so that no worker lacks a file to wait in.
EARLY = 100

# The exit statuses of a program that a signal stopped. Python may end by SIGINT even if the program caught
# KeyboardInterrupt. This happened in 5 of 100 runs of Python 3.11 on a busy machine. A shell shows 130 for both.
STOPS = {signal.SIGINT: (130, -signal.SIGINT), signal.SIGTERM: (-signal.SIGTERM,), signal.SIGKILL: (-signal.SIGKILL,)}

BROKEN = {
    "syntax.py": (b"def f(:\n", "SyntaxError: .*line 1"),
    "indent.py": (b"if True:\nx = 1\n", "IndentationError: .*line 2"),
    "encoding.py": (b"name = '\xff'\n", "SyntaxError: "),
    "cookie.py": (b"# coding: no-such-encoding\n", "SyntaxError: .*no-such-encoding"),
    "null.py": (b"x = 1\0\n", "(SyntaxError|ValueError): .*null"),
    "deep.py": (b"-" * 100_000 + b"1\n", "(MemoryError|RecursionError): "),
}


def demo(*arguments, cwd, **environment):
    """Run the demo to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


class OnTerminal:
    """The demo with a terminal as its stderr, where progress is shown. With ``wait_at`` it waits in that call."""

    def __init__(self, *arguments, cwd, stdout=subprocess.DEVNULL, wait_at=NEVER):
        self.hook = Path(tempfile.mkdtemp(prefix="hook-", dir=cwd))
        write_files(self.hook, {"sitecustomize.py": WAITING.encode(), "calls": b""})
        (self.hook / "waiting").mkdir()
        environment = {
            **ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(self.hook), *SEARCH]), "WAIT_AT": str(wait_at),
        }  # fmt: skip
        self.screen, terminal = pty.openpty()
        try:
            self.process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                cwd=cwd,
                env=environment,
                stdout=stdout,
                stderr=terminal,
            )
        finally:
            os.close(terminal)
        self.shown = ""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()
        self.go_on()  # for workers that live a little longer
        os.close(self.screen)

    def read(self):
        """Read the next output; False at its end."""
        try:
            text = os.read(self.screen, 1 << 16).decode("utf-8", "replace")
        except OSError:  # Linux then reports that the terminal has no writer left.
            text = ""
        self.shown += text
        return bool(text)

    def wait_for(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            if select.select([self.screen], [], [], 0.01)[0]:
                assert self.read(), f"it ended before that: {self.shown}"
            assert time.monotonic() < deadline, self.shown

    @property
    def calls(self):
        """How often the parser was called."""
        return (self.hook / "calls").stat().st_size

    @property
    def waiting(self):
        """The processes that are, or were, waiting in the parser, each with the path that it parses."""
        files = [file for file in (self.hook / "waiting").iterdir() if not file.suffix]
        return {int(file.name): os.fsdecode(file.read_bytes()) for file in files}

    @property
    def done(self):
        """The number of done tasks that was last shown."""
        return max((done for done, _ in progress(self.shown)), default=0)

    def go_on(self):
        """End the waiting."""
        (self.hook / "go").touch()

    def stop(self, number):
        """Send a signal, let the running tasks end, wait for the end, and return the exit status."""
        self.process.send_signal(number)
        if number != signal.SIGKILL:
            time.sleep(0.1)  # not to win a race: the tasks run until they may end
            assert self.process.poll() is None, self.shown
            self.go_on()
        return self.end()

    def end(self):
        while self.read():
            pass
        return self.process.wait()


def numbers(text, what):
    """All numbers that are shown before a word (or before one of several: ``"files|lines"``)."""
    return [int(number.replace(",", "")) for number in re.findall(rf"([\d,]+) (?:{what})\b", text)]


def progress(text):
    """All pairs of done tasks and tasks that are shown."""
    found = re.findall(r"([\d,]+) of ([\d,]+) done", text)
    return [tuple(int(number.replace(",", "")) for number in pair) for pair in found]


def write_files(folder, files):
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)


def tasks_in(store):
    with Tracker(store, mode="r") as tracker:
        return tracker.items()


def names_in(store, folder):
    """The paths of the tasks, relative to their folder."""
    return {os.path.relpath(path, os.path.realpath(folder)) for path, _ in tasks_in(store)}


def tries_of_done(store):
    return {path: task["_tries"] for path, task in tasks_in(store) if task["_done"]}


def error_of(task):
    return f"{task['_error']['type']}: {task['_error']['message']}"


def results_in(store):
    """All results that do not depend on how often the demo was stopped, and their order."""
    results = {}
    for path, task in tasks_in(store):
        results[path] = {name: value for name, value in task.items() if name != "_tries"} if task["_done"] else (
            task["_tries"], error_of(task))
    return results


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "sources"
    write_files(
        folder,
        {
            "one.py": b"import os.path, os\nfrom json import dumps\n\nclass A:\n    def f(self): pass",
            "sub/two.py": b"from . import a\nfrom .b import c\nfrom os import path\nasync def g(): import os",
            "sub/deeper/empty.py": b"",
            "sub/notes.txt": b"no source",
        },
    )
    return folder


# What the crowd contains: folders, files, and files that are broken. And how often the parser is called for it.
FOLDERS, FILES, FAILED = 81, 500, 10
CALLS = FILES + 2 * FAILED


class Crowd(NamedTuple):
    """A folder with work for some seconds, and the result of an undisturbed run."""

    folder: Path
    took: float
    shown: str
    table: str
    results: dict


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crowd") / "sources"
    function = b"def f(a, b=[1, 2], *c):\n    return {a: [x + b[0] for x in c], 'k': a.b(c, d=1)}\n"
    for number in range(FILES):
        source = b"import m%d\n" % (number % 7) + function * (2 + number % 10)
        name = f"{number % 20}/{number % 3}/{number}.py"
        write_files(folder, {name: source if number % 50 else b"def broken("})
    table = folder.with_name("table")
    start = time.monotonic()
    # (it waits once, so that there is progress to see)
    with open(table, "w") as stdout, OnTerminal(folder, cwd=folder.parent, stdout=stdout, wait_at=250) as run:
        run.wait_for(lambda: run.done)
        run.go_on()
        assert run.end() == 0, run.shown
        assert run.calls == CALLS
    took = time.monotonic() - start
    results = results_in(folder.with_name("tastypy-demo.tracker"))
    return Crowd(folder, took, run.shown, table.read_text(), results)


# Results


def test_demo_counts_the_files_of_a_folder(folder, tmp_path):
    run = demo(folder, "--store", "store", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    done = {"_done": True, "_aborted": False, "_tries": 1}
    top = os.path.realpath(folder)
    assert tasks_in(tmp_path / "store") == [
        (top, done),
        (f"{top}/one.py", done | {"lines": 5, "functions": 1, "classes": 1, "imports": ["json", "os"]}),
        (f"{top}/sub", done),
        (f"{top}/sub/deeper", done),
        (f"{top}/sub/two.py", done | {"lines": 4, "functions": 1, "classes": 0, "imports": ["os"]}),
        (f"{top}/sub/deeper/empty.py", done | {"lines": 0, "functions": 0, "classes": 0, "imports": []}),
    ]
    assert re.findall(r"^ *(\d+ .+)$", run.stdout, re.MULTILINE) == [
        "3 folders",
        "3 files",
        "9 lines",
        "2 functions",
        "1 classes",
        "0 failed",
        "2 files import os",
        "1 files import json",
    ]


def test_broken_files_fail_three_times_and_are_listed_with_their_error(folder, tmp_path):
    write_files(folder, {name: source for name, (source, _) in BROKEN.items()})
    run = demo(folder, "--store", "store", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    tasks = tasks_in(tmp_path / "store")
    failed = {os.path.basename(path): task for path, task in tasks if not task["_done"]}
    assert failed.keys() == BROKEN.keys()
    for name, (_, error) in BROKEN.items():
        assert failed[name]["_tries"] == failed[name]["_error"]["try"] == 3
        assert re.match(error, error_of(failed[name]))
        assert f"{name} failed in 3 tries:\n    {error_of(failed[name])}\n" in run.stdout
    assert numbers(run.stdout, "failed") == [len(BROKEN)]
    assert progress(run.stderr)[-1] == (6, 6 + len(BROKEN))


def test_unreadable_files_fail(folder, tmp_path):
    write_files(folder, {"closed/secret.py": b""})
    (folder / "one.py").chmod(0)
    (folder / "closed").chmod(0)
    if os.access(folder / "one.py", os.R_OK):
        pytest.skip("this user reads everything")
    try:
        run = demo(folder, "--store", "store", cwd=tmp_path)
    finally:
        (folder / "closed").chmod(0o700)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("failed in 3 tries:\n    PermissionError: ") == 2


def test_repaired_file_is_done_once_its_tries_are_reset(folder, tmp_path):
    broken = folder / "broken.py"
    broken.write_bytes(b"(")
    demo(folder, "--store", "store", cwd=tmp_path)
    broken.write_bytes(b"()")
    assert numbers(demo(folder, "--store", "store", cwd=tmp_path).stdout, "failed") == [1]
    with Tracker(tmp_path / "store", max_tries=3) as tracker:
        tracker.reset_tries(os.path.realpath(broken))
    run = demo(folder, "--store", "store", cwd=tmp_path)
    assert " 4 files\n" in run.stdout
    assert " 0 failed\n" in run.stdout
    assert not any("_error" in task for _, task in tasks_in(tmp_path / "store"))


def test_circular_links_and_pipes_are_skipped(folder, tmp_path):
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "up.py").symlink_to(folder)
    (folder / "itself.py").symlink_to("itself.py")
    (folder / "nowhere.py").symlink_to("gone.py")
    (folder / "another.py").symlink_to("one.py")
    os.mkfifo(folder / "pipe.py")
    run = demo(folder, "--store", "store", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert names_in(tmp_path / "store", folder) == {
        ".", "one.py", "another.py", "sub", "sub/two.py", "sub/deeper", "sub/deeper/empty.py"
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_any_file_name_is_stored_exactly_and_printed_escaped(tmp_path, encoding):
    long = "/".join(["long" * 60] * 4)
    names = [b"\xff\xfe.py", b"new\nline.py", b"\x1b[31mred\r.py", b" '\"$(x).py", b"-v.py", b"{}%s\\.py"]
    names += ["größe 学.py".encode(), f"{long}/deep.py".encode(), b"sub\n\xff/\xed\xa0\x80.py"]
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in names:
        path = os.path.join(os.fsencode(folder), name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(b"(")
        except OSError:
            pytest.skip("this file system does not take any name")
    run = demo(folder, "--store", "store", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert run.returncode == 0, run.stderr
    assert {os.fsdecode(name) for name in names} <= names_in(tmp_path / "store", folder)
    assert run.stdout.count(" failed in 3 tries:\n    SyntaxError: ") == len(names)
    assert all(char.isprintable() or char == "\n" for char in run.stdout)
    assert r"\udcff\udcfe.py failed" in run.stdout
    assert r"\x1b[31mred\r.py failed" in run.stdout


def test_folder_of_any_name_works(folder, tmp_path):
    odd = tmp_path / "odd\n\x1bname"
    folder.rename(odd)
    run = demo(odd, "--store", "st\nore", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert len(run.stderr.splitlines()) == 2
    assert demo(tmp_path, "--store", "st\nore", cwd=tmp_path).stderr.count("\n") == 1


def test_warnings_about_the_parsed_code_are_silent(folder, tmp_path):
    write_files(folder, {"warns.py": b"'\\d' is 1or 2\n"})
    run = demo(folder, "--store", "store", cwd=tmp_path, PYTHONWARNINGS="error")
    assert run.returncode == 0, run.stderr
    assert "Warning" not in run.stderr + run.stdout
    assert numbers(run.stdout, "failed") == [0]


# Progress output


def test_progress_without_a_terminal_is_plain_lines(folder, tmp_path):
    run = demo(folder, cwd=tmp_path)
    where, *lines = run.stderr.splitlines()
    assert repr(os.path.realpath(tmp_path / "tastypy-demo.tracker")) in where
    assert "\r" not in run.stderr
    assert progress(lines[-1]) == [(6, 6)]
    for line in lines:
        assert re.fullmatch(r" *[\d,]+ of [\d,]+ done +[\d,]+ a second", line)


def test_progress_on_a_terminal_is_one_line_updated_at_most_ten_times_a_second(crowd):
    where, line, nothing = crowd.shown.split("\r\n")
    assert "tastypy-demo.tracker" in where
    assert nothing == ""
    states = line.split("\r")
    assert 1 < len(states) <= crowd.took / 0.1 + 1
    lengths = list(map(len, states))
    assert lengths == sorted(lengths), "a shorter line would leave the end of the one before"
    counts = progress(line)
    assert len(counts) == len(states)
    assert all(before[0] <= after[0] and before[1] <= after[1] for before, after in pairwise(counts))
    assert counts[-1] == (FOLDERS + FILES - FAILED, FOLDERS + FILES)


# Continuing after a stop


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_demo_continues_where_it_was_stopped(crowd, tmp_path, number):
    store = tmp_path / "store"
    before = {}
    calls = 0
    # (not three kills: each may count a try of the tasks in the workers, and they have three)
    for wait_at in (EARLY, 150) if number == signal.SIGKILL else (EARLY, 150, 120):
        with OnTerminal(crowd.folder, "--store", "store", "--workers", 3, cwd=tmp_path, wait_at=wait_at) as run:
            run.wait_for(lambda run=run: len(run.waiting) == 3)
            # Every result that has arrived is shown within half a second, and is on disk.
            run.wait_for(lambda run=run: run.done and len(tries_of_done(store)) >= run.done)
            saved = tries_of_done(store)
            assert run.stop(number) in STOPS[number], run.shown
        assert "Traceback" not in run.shown
        assert ("Stopped. The same command continues from here." in run.shown) == (number == signal.SIGINT)
        now = tries_of_done(store)
        assert now | saved == now, "what was on disk was lost"
        assert now | before == now, "what was done was tried again"
        assert len(now) > len(before)
        before = now
        calls += run.calls
    with OnTerminal(crowd.folder, "--store", "store", cwd=tmp_path, stdout=subprocess.PIPE) as run:
        assert run.end() == 0, run.shown
        table = run.process.stdout.read().decode()
        run.process.stdout.close()
        calls += run.calls
    now = tries_of_done(store)
    assert now | before == now, "what was done was tried again"
    if number != signal.SIGKILL:
        assert set(now.values()) == {1}
        assert calls == CALLS, "a file was parsed again"
    assert results_in(store) == crowd.results
    assert table == crowd.table


def test_killed_demo_leaves_no_worker_behind(crowd, tmp_path):
    with OnTerminal(crowd.folder, "--workers", 3, cwd=tmp_path, wait_at=EARLY) as run:
        run.wait_for(lambda: len(run.waiting) == 3)
        assert all(map(is_running, run.waiting))
        run.process.kill()
        run.process.wait()
        deadline = time.monotonic() + 30
        while any(map(is_running, run.waiting)):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_killed_workers_are_replaced_and_the_result_is_complete(crowd, tmp_path):
    store = tmp_path / "store"
    with OnTerminal(crowd.folder, "--store", "store", "--workers", 4, cwd=tmp_path, wait_at=EARLY) as run:
        run.wait_for(lambda: len(run.waiting) == 4)
        killed = run.waiting
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        run.wait_for(lambda: len(run.waiting) == 8)
        run.go_on()
        assert run.end() == 0, run.shown
    assert results_in(store) == crowd.results
    tries = tries_of_done(store)
    again = {path for path, number in tries.items() if number > 1}
    assert again == set(killed.values()) & tries.keys()
    assert {tries[path] for path in again} <= {2}


def test_finished_run_does_nothing_more(folder, tmp_path):
    write_files(folder, {"broken.py": b"("})
    first = demo(folder, "--store", "store", cwd=tmp_path)
    tasks = tasks_in(tmp_path / "store")
    shutil.rmtree(folder / "sub")
    second = demo(folder, "--store", "store", cwd=tmp_path)
    assert second.returncode == 0
    assert second.stdout == first.stdout
    assert tasks_in(tmp_path / "store") == tasks
    assert numbers(second.stderr, "a second") == [0]
    assert progress(second.stderr) == [(6, 7)]


def test_tasks_that_a_second_ctrl_c_ends_keep_their_tries(crowd, tmp_path):
    store = tmp_path / "store"
    for _ in range(3):
        with OnTerminal(crowd.folder, "--store", "store", "--workers", 2, cwd=tmp_path, wait_at=EARLY) as run:
            run.wait_for(lambda run=run: len(run.waiting) == 2)
            run.process.send_signal(signal.SIGINT)
            for seconds in (0.2, 5, 5, 5):
                # Python may take two signals for one if they are close together. Then it needs another one.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.process.wait(seconds)
                    break
                run.process.send_signal(signal.SIGINT)
            assert run.end() in STOPS[signal.SIGINT], run.shown
            assert not any(map(is_running, run.waiting))
        tasks = dict(tasks_in(store))
        assert not any(tasks[path]["_done"] for path in run.waiting.values())
        for task in tasks.values():
            failed = task["_error"]["try"] if "_error" in task else 0
            assert task["_tries"] == (1 if task["_done"] else failed)
    end = demo(crowd.folder, "--store", "store", cwd=tmp_path)
    assert end.returncode == 0, end.stderr
    assert set(tries_of_done(store).values()) == {1}
    assert end.stdout == crowd.table


def test_demo_reads_the_standard_library_by_default(tmp_path):
    with OnTerminal(cwd=tmp_path, wait_at=2) as run:
        run.wait_for(lambda: run.waiting)
        assert run.stop(signal.SIGTERM) == -signal.SIGTERM
    first, *_ = tasks_in(tmp_path / "tastypy-demo.tracker")
    assert first[0] == os.path.realpath(sysconfig.get_path("stdlib"))
    assert first[1]["_done"]


# Errors


@pytest.mark.parametrize("name", ["nowhere", "one.py", ""])
def test_path_that_is_not_a_folder_is_refused_before_a_store_is_created(folder, name):
    before = sorted(folder.rglob("*"))
    run = demo(name, cwd=folder)
    assert run.returncode == 2
    assert run.stdout == ""
    assert re.fullmatch(rf".*no folder {name!r}\n", run.stderr)
    assert sorted(folder.rglob("*")) == before


def test_number_of_workers_below_one_is_refused_before_a_store_is_created(folder, tmp_path):
    run = demo(folder, "--workers", 0, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.endswith("--workers must be 1 or more\n")
    assert os.listdir(tmp_path) == ["sources"]


def test_store_of_another_folder_is_refused_and_not_changed(folder, tmp_path):
    demo(folder, "--store", "store", cwd=tmp_path)
    tasks = tasks_in(tmp_path / "store")
    run = demo(folder / "sub", "--store", "store", cwd=tmp_path)
    assert run.returncode == 1
    assert run.stdout == ""
    assert re.fullmatch(rf".*{re.escape(repr(os.path.realpath(folder)))}.*--store.*\n", run.stderr)
    assert tasks_in(tmp_path / "store") == tasks


@pytest.mark.parametrize(
    ("store", "error"),
    [
        ("used", "StoreInUseError"),
        ("plain", "StoreKindError"),
        ("file", "StorePathError"),
        ("sources", "NotAStoreError"),
    ],
)
def test_store_error_is_printed_in_one_line(folder, tmp_path, store, error):
    (tmp_path / "file").touch()
    POD(tmp_path / "plain").close()
    with Tracker(tmp_path / "used"):
        run = demo(folder, "--store", store, cwd=tmp_path)
    assert run.returncode == 1
    assert run.stdout == ""
    assert re.fullmatch(rf"{error}: .+\n", run.stderr)
