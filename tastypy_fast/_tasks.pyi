from tastypy_fast._iterate import Owner, StoreIterator

__all__ = ["TaskIterator"]

class TaskIterator(StoreIterator):
    def __init__(
        self, owner: Owner, kind: int, backwards: bool, wanted: int, unwanted: int, limited: bool, attempt: bool
    ) -> None: ...
