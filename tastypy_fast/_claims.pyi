from collections.abc import Callable
from typing import Any, NamedTuple

from tastypy_fast._tracking import TrackerCache

__all__ = [
    "ClaimRecord",
    "claim_next",
    "claim_one",
    "give_back",
    "order_of",
    "read_claim",
    "read_task",
    "restore_status",
]

class ClaimRecord(NamedTuple):
    worker: int
    lane: int
    place: int
    since: float

def read_claim(raw: bytes) -> ClaimRecord: ...
def claim_next(
    tasks: TrackerCache,
    after: int,
    limit: int,
    allow_aborted: bool,
    max_tries: int,
    own: list[int],
    may_take: Callable[[ClaimRecord], bool],
    record: ClaimRecord,
) -> list[int]: ...
def claim_one(
    tasks: TrackerCache,
    key: bytes,
    allow_aborted: bool,
    max_tries: int,
    may_take: Callable[[ClaimRecord], bool],
    record: ClaimRecord,
) -> bool | None: ...
def order_of(tasks: TrackerCache, key: bytes) -> int: ...
def give_back(txn: Any, status: Any, claims: Any, lost: dict[int, bool], images: Any = None) -> None: ...
def restore_status(txn: Any, status: Any, claims: Any, images: list[tuple[bytes, bytes]]) -> None: ...
def read_task(tasks: TrackerCache, order: int, kind: int, record: ClaimRecord | None = None) -> Any: ...
