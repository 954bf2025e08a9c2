from collections.abc import Callable
from types import FrameType
from typing import final

__all__ = ["HeldSignals", "call_to_the_end", "call_undisturbed"]

@final
class HeldSignals:
    def __call__(self, number: int, frame: FrameType | None) -> None: ...

def call_to_the_end(work: Callable[[bool], object], own: object = None) -> None: ...
def call_undisturbed(work: Callable[[], object]) -> object: ...
