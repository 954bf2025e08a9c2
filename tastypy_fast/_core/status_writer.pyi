from typing import Any, final

__all__ = ["give_back", "restore_status"]

def give_back(
    txn: Any, status: Any, claims: Any, lost: dict[int, int | None], images: Any = None,
    kept: dict[int, bytes] | None = None,
) -> None: ...
def restore_status(txn: Any, status: Any, claims: Any, images: list[tuple[bytes, bytes]]) -> None: ...
@final
class StatusWriter: ...
