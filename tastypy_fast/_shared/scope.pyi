from types import TracebackType
from typing import Any, final

from tastypy_fast._shared.write_transaction import WriteTransaction

__all__ = ["TransactionContext"]

@final
class TransactionContext:
    def __init__(self, transaction: WriteTransaction, kind: int, store: object) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
