"""Run programs in a real terminal, whose screen can be read."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
import uuid

import pytest

from tests.support.command import ENVIRONMENT

needs_terminal = pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux")

# The terminal has a width.
TERMINAL = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "TMUX")}


class Terminal:
    """A real terminal in which a program runs."""

    def __init__(self, *command, columns=90, rows=36):
        self.name = f"tastypy-fast-{uuid.uuid4().hex}"
        quoted = shlex.join(map(str, command))
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
