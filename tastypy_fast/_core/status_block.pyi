from struct import Struct
from typing import Final, final

__all__ = [
    "ABORTED",
    "CLAIMED",
    "DONE",
    "FLAGS",
    "HEAD",
    "MAX_TRIES",
    "PRESENT",
    "STATUSES",
    "TASKS_PER_BLOCK",
    "TRIES_SHIFT",
    "Block",
    "block_facts",
    "patched",
]

PRESENT: Final[int]
DONE: Final[int]
ABORTED: Final[int]
CLAIMED: Final[int]
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
