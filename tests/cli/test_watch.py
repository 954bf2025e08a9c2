"""tastypy-fast watch: the live view, in a terminal and in a pipe."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import time

import pytest
from rich.console import Console

from tastypy_fast import POD, SharedTracker, Tracker, maintenance
from tastypy_fast.cli import app
from tastypy_fast.cli.watch_screen import render
from tastypy_fast.cli.watch_state import SETTLED_SECONDS, WatchState
from tests.support.children import Child, start
from tests.support.command import COMMAND, ENVIRONMENT, run
from tests.support.terminal import Terminal, needs_terminal

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


def test_watch_until_done_measures_the_rate_from_its_own_start(path):
    # Most tasks were done before this view began, so the view must not count them in its rate.
    Tracker(path, init=[(number, {"_done": number < 900}) for number in range(1000)]).close()
    with contextlib.ExitStack() as stack:
        pipeline = stack.enter_context(start(PIPELINE, "private", path))
        # Before the view, because nobody has the store open until then, and the rate is 0.
        pipeline.stdout.readline()
        view = stack.enter_context(subprocess.Popen(
            [*COMMAND, "watch", str(path), "--interval", "0.1", "--json"], stdout=subprocess.PIPE, text=True,
            env=ENVIRONMENT))
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
        # The rate counts only the tasks that were done since the view began.
        assert 0 < seen["per_second"] < 900
        left = seen["new"] + seen["running"] + seen["to_retry"]
        assert seen["seconds_left"] == pytest.approx(left / seen["per_second"])
        assert seen["open"]["how"] == "private"
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


@needs_terminal
def test_watch_in_a_terminal(path):
    SharedTracker(path, init=[(number, {}) for number in range(100)]).close()
    with start(PIPELINE, "shared", path) as pipeline, Terminal(
            *COMMAND, "watch", path, "--interval", "0.1", "--max-tries", "2") as terminal:
        pipeline.stdout.readline()
        screen = terminal.wait_for("done", "failed", "aborted", "to retry", "in the last minute", "now")
        assert str(path) in screen
        for _ in range(54):
            pipeline.stdin.write("\n")
            pipeline.stdin.flush()
            pipeline.stdout.readline()
        screen = terminal.wait_for("49.00 %", " left\n")
        assert "┤" in screen
        pipeline.stdin.close()
        pipeline.stdout.read()
        # The worker that failed at these tasks has ended, and tries are left.
        terminal.wait_for("90.00 %", "10.00 %", "no process has it open", "page 93 is gone")
        terminal.tmux("resize-window", "-x", "40", "-y", "8")
        terminal.wait_for("10 to retry", "90 done", "no process has it open")
        terminal.tmux("send-keys", "C-c")
        assert "code 130" in terminal.wait_for("code 130")
        assert "Traceback" not in terminal.screen()


@needs_terminal
def test_watch_in_a_small_terminal_keeps_its_rate_and_its_bar(path):
    SharedTracker(path, init=[(number, {"_done": number < 30}) for number in range(40)]).close()
    with SharedTracker(path), Terminal(*COMMAND, "watch", path, "--interval", "0.1", columns=40, rows=8) as terminal:
        screen = terminal.wait_for("a second", "30 done", "10 new")
        # 30 of 40 tasks are done.
        assert "█" * 29 + "░" * 10 + "\n" in screen
        terminal.tmux("resize-window", "-x", "40", "-y", "4")
        terminal.wait_for("a second", "█" * 29 + "░" * 10 + "\n")


@needs_terminal
def test_watch_respects_no_color(tasks):
    for variables, colored in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Terminal("env", *(f"{name}={value}" for name, value in variables.items()), *COMMAND, "watch", tasks
                      ) as terminal:
            terminal.wait_for("tasks")
            found = terminal.tmux("capture-pane", "-p", "-e", "-t", ":0")
            assert ("\x1b[33m" in found) is colored, found


def screen_of(state, width, height, encoding="utf-8"):
    """The lines that a window of this size shows."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, force_terminal=True)
    console.print(render(state, width, height, True, encoding))
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return lines[:height]


def test_watch_says_that_no_process_has_the_store_open(path):
    Tracker(path, init={"a": {"_done": True}, "b": {}, "c": {}}).close()
    state = WatchState(path, None)
    for now in range(3):
        state.update(now)
        seen = state.as_dict()
        assert (seen["open"]["how"], seen["per_second"], seen["seconds_left"]) == ("nobody", 0.0, None)
    assert state.line() == ("2 new  0 running  0 to retry  0 failed  0 aborted  1 done (33.33 %)  "
                            "no process has it open")
    assert "no process has it open" in screen_of(state, 80, 24)
    with SharedTracker(path) as tracker:
        state.update(3)
        assert (state.how, state.rate()) == ("shared", 0.0)
        tracker.mark_done("b")
        state.update(4)
        assert (state.rate(), state.seconds_left()) == (0.25, 4.0)
        assert "15.0 a minute in the last minute, 4 s left" in screen_of(state, 80, 24)
        assert "15.0 a minute, 4 s left" in screen_of(state, 40, 24)
    state.update(5)
    assert (state.rate(), state.seconds_left()) == (0.0, None)


def test_watch_shows_failures_from_the_first_try_on(path):
    with SharedTracker(path, max_tries=3, init={"a": {}, "b": {}}) as tracker:
        state = WatchState(path, None)
        tasks = tracker.try_keys()
        assert next(tasks) == "a"
        state.update(0)
        assert not state.failures
        tracker.record_error("a", "gone")
        assert next(tasks) == "b"
        state.update(1)
        assert [(one["key"], one["status"], one["tries"], one["error"]) for one in state.as_dict()["failures"]] == [
            ("a", "to retry", 1, "Error: gone")]
        state.update(2)
        assert len(state.failures) == 1
        tasks.close()
        for _ in range(2):
            tracker.increment_tries("a")
        state.update(3)
        assert [(one.key, one.state.status) for one in state.failures][1:] == [("b", "to retry"), ("a", "failed")]


def fail_once(pipe, path):
    with Tracker(path, max_tries=2, sync_every=None) as tracker:
        tasks = tracker.try_keys()
        pipe.send(next(tasks))
        pipe.recv()
        tracker.sync()
        pipe.send("synced")
        pipe.recv()
        next(tasks)
        tracker.sync()
        pipe.send("synced")
        pipe.recv()


def test_watch_shows_what_a_private_process_tries(path):
    Tracker(path, init={"a": {}, "b": {}}).close()
    state = WatchState(path, None)
    with Child(fail_once, path) as child:
        assert child.pipe.recv() == "a"
        for now in range(2):
            # The try is not synced at first. The process notes the task when it yields it.
            state.update(now)
            assert (state.how, state.counts.running, state.counts.new) == ("private", 1, 1)
            child.pipe.send("go on")
            assert child.pipe.recv() == "synced"
        state.update(2)
        assert (state.counts.running, state.counts.to_retry, len(state.failures)) == (1, 1, 0)
        # What the process has done is synced within seconds, so this task is really unfinished.
        state.update(2 + SETTLED_SECONDS)
        assert [one.key for one in state.failures] == ["a"]
        child.kill()
        child.wait()
    state.update(10)
    # The file of the killed process says nothing about a living one.
    assert (state.how, state.counts.running, state.counts.to_retry) == ("nobody", 0, 2)


@pytest.mark.parametrize(("tasks", "is_open", "is_finished"), [
    ({}, False, True), ({"a": {"_done": True}}, True, True), ({"a": {}}, False, False),
    ({"a": {"_tries": 1}}, True, False), ({"a": {"_tries": 1}, "b": {}}, False, False),
    ({"a": {"_tries": 1}}, False, True),
    ({"a": {"_tries": 2}, "b": {"_aborted": True}}, True, True),
])
def test_watch_until_done_ends_when_nobody_will_try_anything(path, tasks, is_open, is_finished):
    Tracker(path, max_tries=2, init=tasks).close()
    state = WatchState(path, None)
    if is_open:
        with SharedTracker(path):
            state.update(0)
    else:
        state.update(0)
    assert state.is_finished() is is_finished


def test_watch_and_compact_do_not_keep_each_other_out(path):
    with Tracker(path, max_tries=2, init=[(number, {"text": "x" * 1000}) for number in range(500)]) as tracker:
        tracker.sync()
        for number in range(10, 500):
            del tracker[number]
    state = WatchState(path, None)
    state.update(0)
    before, after = maintenance.compact(path)
    assert after < before
    state.update(1)
    assert (state.counts.new, state.max_tries) == (10, 2)


def test_watch_counts_the_keys_of_a_dict(path):
    POD(path, init={"a": 1}).close()
    state = WatchState(path, None)
    state.update(0)
    assert state.line() == "1 key  no process has it open"
    assert screen_of(state, 40, 8)[1:] == ["no process has it open", "1 key"]
    assert not state.is_finished()


def test_watch_until_done_refuses_a_dict(path, capsys):
    """It never ended."""
    POD(path, init={"a": 1}).close()
    assert app.run(["watch", str(path), "--until-done"]) == 3
    assert "is a plain dict, which has no tasks" in capsys.readouterr().err


@pytest.mark.parametrize(("width", "height"), [(40, 8), (20, 5), (80, 16), (80, 40), (20, 40), (10, 3)])
def test_every_window_shows_the_rate_and_the_whole_bar(path, width, height):
    with SharedTracker(path, max_tries=1, init=[(number, {"_done": number < 5}) for number in range(10)]) as tracker:
        state = WatchState(path, None)
        for now in range(3):
            state.update(now)
            for number in range(now * 2, now * 2 + 2):
                tracker.increment_tries(5 + number % 5)
        lines = screen_of(state, width, height)
        for encoding, full, empty in (("utf-8", "█", "░"), ("ascii", "#", "-")):
            screen = screen_of(state, width, height, encoding)
            (bar,) = [line for line in screen if line and not line.strip(full + empty)]
            assert len(bar) == width - 1
            assert bar.count(full) == 9 * (width - 1) // 10
            # The escape of a character that the terminal lacks would make lines too long.
            assert encoding == "utf-8" or all(map(str.isascii, screen))
        assert any(line.startswith("2.0 a second"[:width - 1]) for line in lines)
        assert len(lines) <= height
