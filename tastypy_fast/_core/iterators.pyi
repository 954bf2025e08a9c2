from typing import Any, Final

from typing_extensions import disjoint_base

__all__ = ["ITEMS", "KEYS", "REVERTS", "VALUES", "StoreHandle", "StoreIterator"]

KEYS: Final[int]
VALUES: Final[int]
ITEMS: Final[int]

GONE: Final[object]
REVERTS: Final[bytes]

@disjoint_base
class StoreHandle: ...

@disjoint_base
class StoreIterator:
    def __init__(self, owner: StoreHandle, kind: int, backwards: bool = False) -> None: ...
    @property
    def position(self) -> int: ...
    def at_copy(self) -> Any: ...
    def seek(self, position: int) -> None: ...
    def __iter__(self) -> StoreIterator: ...
    def __next__(self) -> Any: ...
