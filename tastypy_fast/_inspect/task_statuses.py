"""Name the status of single tasks, and select tasks by these names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, get_args

from tastypy_fast._core.status_block import ABORTED, DONE
from tastypy_fast.types import TaskStatus

__all__ = ["STATUS_NAMES", "flags_of", "is_selected", "status_names"]

STATUS_NAMES: tuple[str, ...] = get_args(TaskStatus)


def status_names(status: str | Collection[str]) -> frozenset[str]:
    """Return the names in the argument ``status``. Raises TypeError or ValueError for anything else."""
    names = [status] if isinstance(status, str) else list(status)
    for name in names:
        if name not in STATUS_NAMES:
            error = ValueError if isinstance(name, str) else TypeError
            raise error(f"status must be one or more of {', '.join(STATUS_NAMES)}; {name!r:.80} is none")
    return frozenset(names)


def flags_of(names: Collection[str]) -> tuple[int, int]:
    """Return the flags that all tasks with one of these statuses have, and the flags that none of them has."""
    left = set(names)
    if left == {"done"}:
        return DONE, 0
    if left == {"aborted"}:
        return ABORTED, DONE
    return 0, (0 if "done" in left else DONE) | (0 if left & {"done", "aborted"} else ABORTED)


def is_selected(
    names: Collection[str], running: Collection[Any], max_tries: int
) -> Callable[[Any, dict[str, Any]], bool]:
    """Return a function that says of a key and a task's dict whether the task has one of these statuses.

    ``running`` has the keys of the tasks that are running. ``max_tries`` is the limit of tries; 0 means no limit.
    """

    def selects(key: Any, task: dict[str, Any]) -> bool:
        if task["_done"]:
            name = "done"
        elif task["_aborted"]:
            name = "aborted"
        elif key in running:
            name = "running"
        elif task["_tries"] <= 0:
            name = "new"
        else:
            name = "failed" if 0 < max_tries <= task["_tries"] else "to retry"
        return name in names

    return selects
