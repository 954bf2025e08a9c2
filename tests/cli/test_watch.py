"""tastypy-fast watch: the live view, in a terminal and in a pipe."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tastypy_fast import SharedTracker, Tracker
from tests.support.children import start
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
        # The rate counts only the tasks that were done since the view began.
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


@needs_terminal
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
        # The worker that failed at these tasks has ended, and tries are left. So they count as left.
        terminal.wait_for("90.00 %", "10.00 %", "in the last minute")
        terminal.tmux("resize-window", "-x", "40", "-y", "12")
        terminal.wait_for("90.00 %")
        terminal.tmux("send-keys", "C-c")
        assert "code 130" in terminal.wait_for("code 130")
        assert "Traceback" not in terminal.screen()


@needs_terminal
def test_watch_respects_no_color(tasks):
    for variables, colored in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Terminal("env", *(f"{name}={value}" for name, value in variables.items()), *COMMAND, "watch", tasks
                      ) as terminal:
            terminal.wait_for("tasks")
            found = terminal.tmux("capture-pane", "-p", "-e", "-t", ":0")
            assert ("\x1b[33m" in found) is colored, found
