"""tracker.progress(): loops that end early, and bars on a terminal and in a notebook."""

from __future__ import annotations

import errno
import fcntl
import gc
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
from pathlib import Path

import pytest

import tastypy_fast
from tastypy_fast import (
    CalledClosedTrackerError,
    ProgressTracker,
    SharedProgressTracker,
)
from tastypy_fast._mixins import progress_bar
from tests.support.progress import tasks

tqdm = pytest.importorskip("tqdm")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# The end


def leave_by_break(loop):
    for _ in loop:
        break


def raise_in(loop, error):
    for _ in loop:
        raise error


def leave_by_exception(loop):
    with pytest.raises(ZeroDivisionError):
        raise_in(loop, ZeroDivisionError)


def leave_by_return(loop):
    def first():
        for key in loop:
            return key
        return None

    assert first() == "task 0"


def leave_by_interrupt(loop):
    with pytest.raises(KeyboardInterrupt):
        raise_in(loop, KeyboardInterrupt)


LEAVES = [leave_by_break, leave_by_exception, leave_by_return, leave_by_interrupt]


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("held", [False, True], ids=["", "held"])
def test_loop_left_early_ends_the_bar_at_once(make, screen, leave, held):
    tracker = make(init=tasks(3))
    bar = tracker.progress(file=screen) if held else None
    tracker.mark_done("task 2")
    leave(bar or tracker.progress(file=screen))
    assert screen.has_ended
    assert screen.states[-1] == (1, 3, 0)
    assert not bar or bar.disable


@pytest.mark.parametrize("leave", LEAVES)
def test_tasks_that_were_not_yielded_are_released(path, screen, leave):
    with SharedProgressTracker(path, init=tasks(5)) as tracker:
        bar = tracker.progress(tracker.try_keys(batch=5), file=screen)
        leave(bar)
        assert tracker.claimed_keys() == ["task 0"]
        assert tracker.num_tried() == 1


def test_iterator_kept_by_the_caller_continues(make, screen):
    tracker = make(init=tasks(3))
    keys = tracker.try_keys()
    leave_by_break(tracker.progress(keys, file=screen))
    assert list(keys) == ["task 1", "task 2"]


def test_error_of_the_wrapped_loop_is_raised_and_ends_the_bar(make, screen):
    tracker = make(init=tasks(3))

    def broken():
        yield next(tracker.todo_keys())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(tracker.progress(broken(), file=screen))
    assert screen.has_ended


def test_closing_the_tracker_in_the_loop_ends_the_bar(make, screen):
    tracker = make(init=tasks(3))
    for _ in tracker.progress(file=screen, mininterval=0):
        tracker.close()
        break
    assert screen.has_ended
    assert screen.states[-1] == (0, 3, 0)


def test_loop_that_continues_on_a_closed_tracker_raises(make, screen):
    tracker = make(init=tasks(3))
    loop = (tracker.close() for _ in tracker.progress(file=screen, mininterval=0))
    with pytest.raises(CalledClosedTrackerError):
        list(loop)
    assert screen.has_ended


def test_invalid_status_does_not_end_the_loop(path, screen):
    with ProgressTracker(path, init=tasks(3)) as tracker:
        for key in tracker.progress(file=screen, mininterval=0):
            tracker[key]["_done"] = "x"
            tracker.set[key]["_done"] = True
        assert screen.states[-1] == (3, 3, 0)
        with tracker.progress(file=screen, mininterval=0) as bar:
            tracker["task 0"]["_done"] = "x"
            assert not bar.update()
            tracker["task 0"]["_done"] = True


def test_collected_loop_ends_its_bar_without_reading_the_store(make, screen, monkeypatch):
    tracker = make(init=tasks(3))
    looked = []
    monkeypatch.setattr(progress_bar.Bar, "_count", lambda self: looked.append(self))
    for inside in (False, True):
        bar = tracker.progress(file=screen)
        loop = iter(bar)
        next(loop)
        cycle = [loop]
        cycle.append(cycle)
        gc.disable()
        try:
            del loop, cycle
            if inside:
                with tracker._store.lock:
                    gc.collect()
            else:
                gc.collect()
        finally:
            gc.enable()
        assert bar.disable
        assert len(looked) == 1


def test_garbage_collected_bar_ends(make, screen):
    tracker = make(init=tasks(3))
    tracker.progress(file=screen)
    gc.collect()
    assert screen.has_ended


def test_no_thread_is_left_behind_or_started(make, screen):
    tracker = make(init=tasks(3))
    before = threading.enumerate()
    for _ in tracker.progress(file=screen):
        assert threading.enumerate() == before
    assert threading.enumerate() == before


def test_several_bars_at_once(make, screen):
    tracker = make(init=tasks(3))
    with tracker.progress(file=screen, desc="outer", position=0) as outer:
        for key in tracker.progress(file=screen, desc="inner", position=1):
            tracker.mark_done(key)
            outer.update()
    assert outer.n == 3


# On a real terminal

PROGRAM = """
    import sys
    from tastypy_fast import {cls}

    tracker = {cls}(sys.argv[1], max_tries=1)
    tracker.add_many_if_absent(range(400))
    for key in tracker.progress(desc="pages", mininterval=0):
        if key % 100:
            tracker.mark_done(key)
        if key == int(sys.argv[2]):
            tracker.sync()
            print("synced", flush=True)
            sys.stdin.read()  # The program works until it is killed.
    print("ended")
"""


class OnTerminal:
    """A program with a terminal of 80 columns for its stderr."""

    def __init__(self, program, *arguments):
        self.screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=terminal, env=environment,
            )
        finally:
            os.close(terminal)
        self.shown = ""

    def read(self):
        try:
            text = os.read(self.screen, 1 << 16).decode("utf-8", "replace")
        except OSError:  # All writers have closed the terminal.
            text = ""
        self.shown += text
        return bool(text)

    def end(self):
        while self.read():
            pass
        status = self.process.wait()
        self.process.communicate()
        os.close(self.screen)
        return status


@pytest.mark.parametrize("cls", ["ProgressTracker", "SharedProgressTracker"])
def test_bar_on_a_terminal_continues_after_a_kill(path, cls):
    program = PROGRAM.format(cls=cls)
    first = OnTerminal(program, path, 250)
    while "250/400" not in first.shown:
        assert first.read(), first.shown
    assert first.process.stdout.readline() == b"synced\n"
    first.process.send_signal(signal.SIGKILL)
    assert first.end() == -signal.SIGKILL

    second = OnTerminal(program, path, -1)
    assert second.end() == 0
    lines = [line for line in re.split(r"[\r\n]+", second.shown) if line.strip()]
    # 251 tasks are done or failed (0, 100 and 200). The tasks of a killed worker go to the next one.
    assert re.match(r"pages:  63%\|[^|]+\| 251/400 \[00:00<\?, \?task/s, failed=3\]", lines[0]), lines[0]
    assert re.match(r"pages: 100%\|█+\| 400/400 \[.*task/s, failed=4\]", lines[-1]), lines[-1]
    assert all(len(line) <= 80 for line in lines)
    assert second.shown.endswith("\r\n")


# A stream that cannot be written


class Broken(io.StringIO):
    """A stream that fails from one of its writes on."""

    def __init__(self, error, works):
        super().__init__()
        self.error = error
        self.works = works

    def write(self, text):
        if self.works <= 0:
            raise OSError(self.error, os.strerror(self.error))
        self.works -= 1
        return super().write(text)


@pytest.mark.parametrize("error", [errno.EPIPE, errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("works", [0, 3])
@pytest.mark.parametrize("given", [True, False])
def test_bar_that_cannot_be_written_ends_neither_a_loop_nor_a_run(make, monkeypatch, error, works, given):
    tracker = make(init=[(key, {}) for key in range(20)])
    stream = Broken(error, works)
    options = {"mininterval": 0}
    if given:
        options["file"] = stream
    else:
        monkeypatch.setattr(sys, "stderr", stream)
    for key in tracker.progress(**options):
        tracker.mark_done(key)
    tracker.add_many(range(20, 30))
    assert tracker.run(lambda key: None, executor="inline", progress=options).done == 10
    assert stream.works == 0


def test_program_without_a_standard_error_has_no_bar(make, monkeypatch):
    tracker = make(init={"a": {}})
    monkeypatch.setattr(sys, "stderr", None)
    assert tracker.run(lambda key: None, executor="inline", progress=True).done == 1


# In a notebook


def test_bar_in_a_notebook_is_a_widget(make, monkeypatch):
    pytest.importorskip("ipywidgets")
    notebook = pytest.importorskip("tqdm.notebook")
    monkeypatch.setattr(sys.modules.get("tqdm.auto") or pytest.importorskip("tqdm.auto"), "tqdm", notebook.tqdm)
    tracker = make(init=tasks(2, _done=True))
    bar = tracker.progress(mininterval=0, display=False)
    for key in bar:
        tracker.mark_done(key)
    tracker.add("x")
    bar = tracker.progress(mininterval=0, display=False)
    for key in bar:
        if key == "x":
            tracker.add("y")
        tracker.mark_done(key)
    widget = bar.container.children[-2]
    assert (widget.value, widget.max, widget.bar_style) == (4, 4, "success")

    bar = tracker.progress(mininterval=0, display=False)
    tracker.add("z")
    leave_by_break(bar)
    assert bar.container.children[-2].bar_style == "danger"

    tracker.clear()
    bar = tracker.progress(mininterval=0, display=False)
    tracker.add("a")
    bar.update()
    widget = bar.container.children[-2]
    assert (widget.value, widget.max, widget.layout.width) == (0, 1, None)
    bar.close()


def test_import_of_the_package_imports_no_optional_package():
    source = Path(tastypy_fast.__file__).parent
    code = f"import sys; sys.path.insert(0, {str(source.parent)!r}); import tastypy_fast; " \
           "print([name for name in ('tqdm', 'pyarrow', 'pandas', 'polars') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
