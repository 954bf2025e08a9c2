"""Say what a run has done: ``RunReport``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tastypy_fast.exceptions import TasksFailedError

__all__ = ["MAX_ERRORS", "RunReport"]

# How many failed tasks a report names.
MAX_ERRORS = 10


@dataclass
class RunReport:
    """What ``tracker.run()`` has done. It counts this run only, except for ``left``.

    Attributes:
        done: The number of tasks that were done.
        failed: The number of tasks that failed and are not tried again in this run.
        aborted: The number of tasks that were aborted by ``Abort`` or ``abort_on``.
        retried: The number of tries that failed, of tasks that are tried again: by this run, or by the next one if this
            run ends before.
        timed_out: The number of tries that took longer than ``timeout``.
        workers_lost: The number of workers that died.
        left: The number of tasks that are still to be done, by whatever run.
        seconds: The time of the run, in seconds.
        reason: Why the run ended: ``"finished"``, ``"stopped"``, ``"deadline"`` or ``"max_failures"``.
        errors: The first ten failed tasks: pairs of key and ``_error``.
    """

    done: int = 0
    failed: int = 0
    aborted: int = 0
    retried: int = 0
    timed_out: int = 0
    workers_lost: int = 0
    left: int = 0
    seconds: float = 0.0
    reason: str = "finished"
    errors: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)

    def raise_for_failed(self) -> None:
        """Raise an error if a task has failed.

        Raises:
            TasksFailedError: Tasks have failed. The message names the first ten.

        Example:
            >>> from tastypy_fast.pipeline import RunReport
            >>> RunReport(done=3).raise_for_failed()
        """
        if self.failed:
            raise TasksFailedError(self._failure_text(), self)

    def _failure_text(self) -> str:
        lines = [f"{self.failed:,} of {self.done + self.failed + self.aborted:,} tasks failed"]
        lines += [f"  {key!r}: {error_line(error)}" for key, error in self.errors]
        if self.failed > len(self.errors):
            lines.append(f"  and {self.failed - len(self.errors):,} more")
        return "\n".join(lines)

    def __str__(self) -> str:
        parts = [f"{self.done:,} done"]
        for name in ("failed", "aborted", "retried", "timed_out", "workers_lost", "left"):
            number = getattr(self, name)
            if number:
                parts.append(f"{number:,} {name.replace('_', ' ')}")
        return f"{', '.join(parts)} in {self.seconds:.1f} s ({self.reason})"


def error_line(error: dict[str, Any]) -> str:
    """Return an ``_error`` as one line: its type and the first line of its message."""
    kind, message = str(error.get("type", "Error")), str(error.get("message", ""))
    first = message.strip().partition("\n")[0]
    return f"{kind}: {first}" if first else kind
