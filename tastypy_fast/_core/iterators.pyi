from typing import Any, Final, final

from typing_extensions import disjoint_base

from tastypy_fast._core.cache_entry import ValueLoop

__all__ = ["ITEMS", "KEYS", "REVERTS", "VALUES", "StoreHandle", "StoreIterator", "TaskIterator"]

KEYS: Final[int]
VALUES: Final[int]
ITEMS: Final[int]

GONE: Final[object]
REVERTS: Final[bytes]

@disjoint_base
class StoreHandle: ...

@disjoint_base
class StoreIterator(ValueLoop):
    def __init__(self, handle: StoreHandle, kind: int, backwards: bool = False) -> None: ...
    @property
    def position(self) -> int: ...
    def seek(self, position: int) -> None: ...
    def __iter__(self) -> StoreIterator: ...
    def __next__(self) -> Any: ...

@final
class TaskIterator(StoreIterator):
    def __init__(
        self, handle: StoreHandle, kind: int, wanted: int, unwanted: int, limited: bool, attempt: bool
    ) -> None: ...
    @property
    def counts_tries(self) -> bool: ...
    def close(self) -> None: ...
