"""List the unfinished tasks of a tracker that have an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tastypy_fast._core.iterators import ITEMS

__all__ = ["iter_failures"]


def iter_failures(tracker: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Iterate over pairs of key and dict of the tasks that have ``_error`` and are not done.

    Aborted tasks are among them. Cost: O(n) over 4 bytes for each task, and reading the values of the failed ones.
    """
    for key, task in tracker._tasks_with_error(ITEMS):
        # The flag in the status is a hint.
        if "_error" in task:
            yield key, task
