from typing import final

__all__ = ["StatusTable"]

@final
class StatusTable:
    def __init__(self, store: object) -> None: ...
    @property
    def touched(self) -> int: ...
