from typing import Any, Final

__all__ = ["ITEMS", "KEYS", "VALUES", "Owner", "StoreIterator"]

KEYS: Final[int]
VALUES: Final[int]
ITEMS: Final[int]

GONE: Final[object]

class Owner: ...

class StoreIterator:
    def __init__(self, owner: Owner, kind: int, backwards: bool = False, *unused: Any) -> None: ...
    def __iter__(self) -> StoreIterator: ...
    def __next__(self) -> Any: ...
