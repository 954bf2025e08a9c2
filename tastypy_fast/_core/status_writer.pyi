from typing import Any, final

from tastypy_fast._core.before_images import BeforeImages

__all__ = ["raise_tries", "release_claims", "restore_status"]

def release_claims(
    txn: Any, status: Any, claims: Any, lost: dict[int, int | None], images: BeforeImages | None = None,
    kept: dict[int, bytes] | None = None,
) -> None: ...
def restore_status(txn: Any, status: Any, claims: Any, images: list[tuple[bytes, bytes]]) -> None: ...
def raise_tries(txn: Any, status: Any, tries: dict[int, int]) -> None: ...
@final
class StatusWriter: ...
