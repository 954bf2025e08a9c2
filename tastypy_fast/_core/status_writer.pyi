from typing import Any, final

__all__ = ["release_claims", "restore_status"]

def release_claims(
    txn: Any, status: Any, claims: Any, lost: dict[int, int | None], images: Any = None,
    kept: dict[int, bytes] | None = None,
) -> None: ...
def restore_status(txn: Any, status: Any, claims: Any, images: list[tuple[bytes, bytes]]) -> None: ...
@final
class StatusWriter: ...
