from typing import Any

from tastypy_fast._core.task_cache import TaskCache

__all__ = ["find_tasks", "finish_many", "mark_done_many"]

def find_tasks(tasks: TaskCache, keys: list[Any]) -> tuple[list[Any], list[bytes], list[int]]: ...
def finish_many(
    tasks: TaskCache, changes: list[tuple[Any, int, dict[str, Any] | None]]
) -> list[tuple[int, Exception]]: ...
def mark_done_many(tasks: TaskCache, keys: list[Any], encoded: list[bytes], seqs: list[int]) -> None: ...
