from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["ClaimRecord", "claim_key", "has_claims", "pack_claim", "read_claim", "read_claims"]

class ClaimRecord(NamedTuple):
    worker: int
    slot: int
    position: int
    since: float
    tries: int = 0

def claim_key(seq: int) -> bytes: ...
def read_claims(txn: Any, claims: Any) -> Iterator[tuple[int, ClaimRecord]]: ...
def has_claims(txn: Any, claims: Any) -> bool: ...
def read_claim(raw: bytes) -> ClaimRecord: ...
def pack_claim(record: ClaimRecord) -> bytes: ...
