from typing import Any, final

from tastypy_fast._tracking import TrackerCache

__all__ = ["give_back", "mark_done_many", "restore_status"]

def mark_done_many(tasks: TrackerCache, keys: list[Any]) -> None: ...
def give_back(
    txn: Any, status: Any, claims: Any, lost: dict[int, int | None], images: Any = None,
    kept: dict[int, bytes] | None = None,
) -> None: ...
def restore_status(txn: Any, status: Any, claims: Any, images: list[tuple[bytes, bytes]]) -> None: ...
@final
class Blocks: ...
