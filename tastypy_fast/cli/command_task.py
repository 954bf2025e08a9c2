"""Run a command as a task of ``tracker.run()``, in a worker process of the local pool.

A worker runs one task at a time, and its commands belong to its process group. So whatever kills that group, a timeout
or the end of the program, also kills the command and its children.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal

from tastypy_fast._formats.json_text import parse_json
from tastypy_fast.cli.command_output import Output
from tastypy_fast.cli.command_template import CommandTemplate, TaskValues, ValueMissing
from tastypy_fast.cli.formatting import pair_as_json, parse_key
from tastypy_fast.pipeline.worker import (
    MAX_MESSAGE,
    MAX_RESULT,
    Abort,
    Retry,
    TaskResult,
    current_task,
    exit_facts,
    exit_text,
)

__all__ = ["OUTPUT_LOGGER", "CommandFailed", "CommandTask"]

# The logger of errors for which no task is to blame. The program's handler for it ends the run.
OUTPUT_LOGGER = logging.getLogger("tastypy_fast.cli.output")
# When a task is tried again whose output could not be written, in seconds. By then the run hands out no more tasks.
RETRY_SECONDS = 1.0


class CommandFailed(Exception):
    """A command could not be run, or has failed. The facts become fields of the task's ``_error``."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self._task_error = {"type": "CommandFailed", **facts}


@dataclass(frozen=True)
class CommandTask:
    """A function for ``tracker.run()`` that runs a command for each task. It can be pickled.

    ``executable`` is the path of the program; None if it depends on the task. ``stdin`` says what the command reads:
    nothing, the key as a line, or the task as a line of JSON. ``output`` gets what the command prints, except stdout if
    that becomes the task's data (``result``) or new tasks (``add_lines``, with ``json_keys`` as JSON). Without
    ``output``, it is discarded. A command that exits with one of ``abort_codes`` has aborted its task.
    """

    template: CommandTemplate
    executable: str | None = None
    stdin: Literal["none", "key", "json"] = "none"
    output: Output | None = None
    result: Literal["none", "text", "json"] = "none"
    add_lines: bool = False
    json_keys: bool = False
    abort_codes: frozenset[int] = frozenset()

    @property
    def described_as(self) -> str:
        """Return the command with its placeholders, as ``status`` shows it."""
        return self.template.text

    @property
    def needs_data(self) -> bool:
        """Return whether it must be called with the data of the task."""
        return self.template.needs_data or self.stdin == "json"

    def __call__(self, key: Any, data: dict[str, Any] | None = None) -> Any:
        """Run the command for a task. Raises CommandFailed, Abort, or Retry if its output cannot be written."""
        try:
            return self._run(key, data)
        except OSError as error:
            # A full disk would use up all tries of all tasks.
            text = f"the output of commands cannot be written: {error.strerror or error}"
            OUTPUT_LOGGER.error("%s", text)
            raise Retry(RETRY_SECONDS, reason=text) from error

    def _run(self, key: Any, data: dict[str, Any] | None) -> Any:
        task = current_task()
        values = TaskValues(key, data, task.tries, task.slot)
        try:
            arguments = self.template.expand(values)
            text = self._input(values)
        except ValueMissing as error:
            raise CommandFailed(str(error)) from None
        uses_stdout = self.result != "none" or self.add_lines
        with _temporary(uses_stdout or self.output is not None) as out, _temporary() as errors, \
                _temporary(text is not None) as stdin:
            if text is not None:
                stdin.write(text)
                stdin.seek(0)
            code = self._execute(arguments, stdin, out, errors)
            if self.output is not None:
                self.output.write(None if uses_stdout else out, errors)
            if code:
                raise self._failure(code, errors)
            return self._result(out) if uses_stdout else None

    def _input(self, values: TaskValues) -> bytes | None:
        """Return what the command reads; None for nothing."""
        if self.stdin == "none":
            return None
        if self.stdin == "key":
            return values.encoded("key") + b"\n"
        return pair_as_json(values.key, values.data).encode("utf-8", "surrogateescape") + b"\n"

    def _execute(self, arguments: list[bytes], stdin: Any, out: Any, errors: Any) -> int:
        """Run the command to its end, and return its exit code; negative for a signal."""
        # A process group of its own would outlive a kill of the worker's group.
        try:
            process = subprocess.Popen(arguments, executable=self.executable, stdin=stdin, stdout=out, stderr=errors)
        except OSError as error:
            raise CommandFailed(f"{os.fsdecode(arguments[0])!r} cannot be run: {error.strerror}") from None
        return process.wait()

    def _failure(self, code: int, errors: IO[bytes]) -> Exception:
        facts = exit_facts(code)
        message = _end_of(errors) or (f"killed by {exit_text(code)}" if code < 0 else exit_text(code))
        if code in self.abort_codes:
            aborted = Abort(message)
            aborted._task_error = facts  # type: ignore[attr-defined]
            return aborted
        return CommandFailed(message, **facts)

    def _result(self, out: IO[bytes]) -> Any:
        size = os.fstat(out.fileno()).st_size
        if size > MAX_RESULT:
            raise CommandFailed(f"the command printed {size:,} bytes; the limit for a result is {MAX_RESULT:,}",
                                type="ResultTooLarge")
        raw = os.pread(out.fileno(), size, 0)
        if self.result == "json":
            try:
                return parse_json(raw)
            except ValueError as error:
                raise CommandFailed(f"the command printed no valid JSON: {error}") from None
        text = raw.decode("utf-8", "surrogateescape")
        if self.result == "text":
            return text.rstrip("\n")
        try:
            return TaskResult(add=[parse_key(line, self.json_keys) for line in _lines_of(text)])
        except ValueError as error:
            raise CommandFailed(f"the command printed no valid key: {error}") from None


def _temporary(needed: bool = True) -> Any:
    """Return an unnamed file, or if none is needed a context that gives /dev/null."""
    # A file of its own for each command, because a process that the command left behind may still write to it.
    return tempfile.TemporaryFile(buffering=0) if needed else contextlib.nullcontext(subprocess.DEVNULL)


def _end_of(file: IO[bytes]) -> str:
    """Return the end of what a command wrote, as it fits into an error."""
    # A character has at most four bytes.
    size = os.fstat(file.fileno()).st_size
    kept = min(size, 4 * MAX_MESSAGE)
    text = os.pread(file.fileno(), kept, size - kept).decode("utf-8", "replace").strip()
    return text[-MAX_MESSAGE:]


def _lines_of(text: str) -> Iterator[str]:
    return filter(None, (line.removesuffix("\r") for line in text.split("\n")))
