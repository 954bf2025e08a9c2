from collections.abc import Callable
from typing import Any

from tastypy_fast._core.claim_record import ClaimRecord
from tastypy_fast._core.task_cache import TaskCache

__all__ = ["claim_one", "key_at", "order_of"]

def claim_one(
    tasks: TaskCache,
    key: bytes,
    allow_aborted: bool,
    max_tries: int,
    is_free: Callable[[ClaimRecord], bool],
    stop_slot: Callable[[ClaimRecord], bool],
    record: ClaimRecord,
) -> bool | None: ...
def order_of(tasks: TaskCache, key: bytes) -> int: ...
def key_at(tasks: TaskCache, seq: int) -> Any: ...
