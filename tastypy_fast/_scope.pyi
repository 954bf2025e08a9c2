from types import TracebackType
from typing import Any, final

from tastypy_fast._transaction import Transaction

__all__ = ["Scope"]

@final
class Scope:
    def __init__(self, transaction: Transaction, kind: int, store: object) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
