from struct import Struct
from typing import Final, final

__all__ = [
    "ABORTED",
    "CLAIMED",
    "DONE",
    "ERROR",
    "FLAGS",
    "HEAD",
    "MAX_TRIES",
    "PRESENT",
    "STATUSES",
    "TASKS_PER_BLOCK",
    "TRIES_SHIFT",
    "Block",
    "block_facts",
    "count_failed",
    "failed_in",
    "has_failed",
    "make_status",
    "patched",
    "tries_in",
]

PRESENT: Final[int]
DONE: Final[int]
ABORTED: Final[int]
CLAIMED: Final[int]
ERROR: Final[int]
FLAGS: Final[int]
TRIES_SHIFT: Final[int]
TASKS_PER_BLOCK: Final[int]
MAX_TRIES: Final[int]
HEAD: Final[Struct]
STATUSES: Final[Struct]

@final
class Block: ...

def block_facts(raw: bytes) -> tuple[tuple[int, ...], tuple[int, ...], list[int], list[int]]: ...
def patched(raw: bytes | None, changes: bytearray) -> bytes: ...
def make_status(done: bool, aborted: bool, tries: int) -> int: ...
def tries_in(entry: int) -> int: ...
def has_failed(entry: int, min_tries: int, bits: int) -> bool: ...
def count_failed(block: bytes, min_tries: int, bits: int) -> int: ...
def failed_in(block: bytes, min_tries: int, bits: int) -> dict[int, int]: ...
