from typing import final

__all__ = ["DeletedRuns", "DeletedStretch"]

def set_shortest(count: int) -> int: ...

@final
class DeletedRuns: ...

@final
class DeletedStretch:
    def __init__(self, runs: DeletedRuns, backwards: bool) -> None: ...
