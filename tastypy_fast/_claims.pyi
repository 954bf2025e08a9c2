from collections.abc import Callable
from typing import Any, NamedTuple

from tastypy_fast._tracking import TrackerCache

__all__ = [
    "ClaimRecord",
    "claim_next",
    "claim_one",
    "order_of",
    "pack_claim",
    "read_claim",
    "read_task",
]

class ClaimRecord(NamedTuple):
    worker: int
    lane: int
    place: int
    since: float

def read_claim(raw: bytes) -> ClaimRecord: ...
def pack_claim(record: ClaimRecord) -> bytes: ...
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
    waits: Callable[[ClaimRecord], bool],
    record: ClaimRecord,
) -> bool | None: ...
def order_of(tasks: TrackerCache, key: bytes) -> int: ...
def read_task(
    tasks: TrackerCache, order: int, kind: int, worker: int = 0, lane: int = 0, place: int = 0
) -> Any: ...
