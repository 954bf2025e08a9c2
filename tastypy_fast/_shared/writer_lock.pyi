from typing import final

__all__ = ["WriterLock"]

@final
class WriterLock:
    def __init__(self, file: int) -> None: ...
