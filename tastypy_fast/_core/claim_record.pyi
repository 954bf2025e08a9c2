from typing import NamedTuple

__all__ = ["ClaimRecord", "pack_claim", "read_claim"]

class ClaimRecord(NamedTuple):
    worker: int
    slot: int
    position: int
    since: float
    tries: int = 0

def read_claim(raw: bytes) -> ClaimRecord: ...
def pack_claim(record: ClaimRecord) -> bytes: ...
