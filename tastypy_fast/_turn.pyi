from typing import final

__all__ = ["Turn"]

@final
class Turn:
    def __init__(self, file: int) -> None: ...
