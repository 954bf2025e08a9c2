"""Run the command in a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tastypy_fast
from tastypy_fast import Tracker
from tests.support.privileges import RESTRICTED

SEARCH = [str(Path(tastypy_fast.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(SEARCH), "COLUMNS": "100"}

COMMAND = [sys.executable, "-W", "error", "-m", "tastypy_fast"]


def run(*arguments, stdin="", code=0, restricted=False, **environment):
    """Run the command, check its exit code, and return its output. On success, nothing is on stderr.

    With ``restricted``, it has to respect the permissions of files, also if the tests are run by root.
    """
    done = subprocess.run(
        [*(RESTRICTED if restricted else ()), *COMMAND, *map(str, arguments)], input=stdin, capture_output=True,
        text=True, timeout=60, env={**ENVIRONMENT, **environment}, errors="surrogateescape",
    )
    assert done.returncode == code, done.stderr
    assert code or not done.stderr
    return done.stdout if not code else (done.stdout, done.stderr)


def refused(*arguments, code, **options):
    """The one line on stderr of a command that refuses to run."""
    out, error = run(*arguments, code=code, **options)
    assert error.startswith("tastypy-fast: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert out == ""
    return error


def lines(*arguments, **options):
    return run(*arguments, **options).splitlines()


def hold_private(pipe, path):
    with Tracker(path, durability="full") as tracker:
        tracker.add("new")
        tracker.sync()
        pipe.send("ready")
        pipe.recv()


HOSTILE = ["", " ", "a\tb", "a\nb", "\udcff", "\ud800", "é", "5", 5, -(10**30), (), ("a", 1, ("b",)), "-", "--help",
           "[1]"]
