from typing import final

from tastypy_fast._iterate import Owner, StoreIterator

__all__ = ["TaskIterator"]

@final
class TaskIterator(StoreIterator):
    def __init__(
        self, owner: Owner, kind: int, wanted: int, unwanted: int, limited: bool, attempt: bool
    ) -> None: ...
