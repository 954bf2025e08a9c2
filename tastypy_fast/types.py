"""Types for annotations: keys, pairs, claims, and what the methods of the four classes return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, Union

__all__ = ["Claim", "ClaimState", "Key", "Pairs"]

Key = Union[str, int, tuple["Key", ...]]  # noqa: UP007  (a string cannot be joined by |)
Pairs = Mapping[Any, Any] | Iterable[tuple[Any, Any]]
ClaimState = Literal["running", "failed", "waiting"]


class Claim(NamedTuple):
    """Who has a task: the number of the process, the name of its host, since when (in UTC), and the state of the task.

    ``state`` is ``"running"`` where the worker has the task in hand; ``"failed"`` where its loop has ended or gone on
    to another task and left this one unfinished, so that it stays the worker's for its next loop; ``"waiting"`` where
    it is one of a batch and was not handed out yet. What ``should_try()`` has claimed is running until it is finished
    or released.
    """

    process: int
    host: str
    since: datetime
    state: ClaimState
