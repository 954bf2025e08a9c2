from typing import final

from tastypy_fast._core.iterators import StoreHandle, StoreIterator

__all__ = ["TaskIterator"]

@final
class TaskIterator(StoreIterator):
    def __init__(
        self, owner: StoreHandle, kind: int, wanted: int, unwanted: int, limited: bool, attempt: bool
    ) -> None: ...
