from typing import final

__all__ = ["SyncSchedule", "monotonic"]

@final
class SyncSchedule:
    def join(self, handle: object) -> None: ...
    def update(self) -> None: ...

def monotonic() -> float: ...
