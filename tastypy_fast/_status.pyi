from typing import final

__all__ = ["StatusTable"]

@final
class StatusTable:
    def __init__(self, environment: object) -> None: ...
    @property
    def touched(self) -> int: ...
