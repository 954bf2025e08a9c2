"""A recorded process that does one job after another, and is started again when it has crashed."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.power_cuts.recorder import environment

__all__ = ["Server", "serve"]

# How long a job may take.
SECONDS = 60


class Server:
    """``python -m module``, which calls ``serve()``, under the shim."""

    def __init__(self, module: str, shim: Path, below: Path, log: Path) -> None:
        self._module = module
        self._environment = environment(shim, below, log)
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do a job, and return the answer; one with ``error`` if the process crashes or hangs."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, env=self._environment,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], SECONDS)[0]:
            self.close()
            return {"stage": "all", "error": "it hangs"}
        line = process.stdout.readline()
        if line:
            return json.loads(line)
        status = process.wait()
        self.close()
        return {"stage": "all", "error": f"the process ended with status {status}"}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def serve(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Do the jobs, in the process. What ``work`` prints is dropped."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(work(json.loads(line))) + "\n")
        answers.flush()
