from typing import Final, NamedTuple, final

from tastypy_fast._lmdb.reader_slot import ReaderSlot

__all__ = ["FILE_SIZE", "METAS_SIZE", "FlushNote", "FlushNotes", "flush_to_disk", "has_note", "rewrite_metas"]

FILE_SIZE: Final[int]
METAS_SIZE: Final[int]

class FlushNote(NamedTuple):
    sequence: int
    txnid: int
    boot: bytes
    identity: bytes
    failed: bool
    page_size: int
    metas: bytes

def flush_to_disk(file: int) -> None: ...
def has_note(file: int) -> bool: ...
def rewrite_metas(file: int) -> None: ...

@final
class FlushNotes:
    def __init__(self, file: int) -> None: ...
    def leave_to_parent(self) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def read(self) -> FlushNote | None: ...
    def save(
        self, txnid: int, page_size: int, metas: bytes, boot: bytes, identity: bytes, slot: ReaderSlot | None,
        force: bool,
    ) -> bool: ...
    def mark_failed(self) -> None: ...
