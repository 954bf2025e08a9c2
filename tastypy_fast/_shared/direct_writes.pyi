from typing import Any

from tastypy_fast._core.tracker_cache import TrackerCache

__all__ = ["find_tasks", "mark_done_many"]

def find_tasks(tasks: TrackerCache, keys: list[Any]) -> tuple[list[Any], list[bytes], list[int]]: ...
def mark_done_many(tasks: TrackerCache, keys: list[Any], encoded: list[bytes], seqs: list[int]) -> None: ...
