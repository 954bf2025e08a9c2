from types import FrameType
from typing import final

__all__ = ["HeldSignals"]

@final
class HeldSignals:
    def __call__(self, number: int, frame: FrameType | None) -> None: ...
