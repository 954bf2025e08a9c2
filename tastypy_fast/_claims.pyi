from collections.abc import Callable
from typing import Any, NamedTuple

from tastypy_fast._tracking import TrackerCache

__all__ = [
    "ClaimRecord",
    "claim_one",
    "key_at",
    "order_of",
    "pack_claim",
    "read_claim",
]

class ClaimRecord(NamedTuple):
    worker: int
    lane: int
    place: int
    since: float
    tries: int = 0

def read_claim(raw: bytes) -> ClaimRecord: ...
def pack_claim(record: ClaimRecord) -> bytes: ...
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
def key_at(tasks: TrackerCache, order: int) -> Any: ...
