from typing import Any

from tastypy_fast._syncing import Syncing

__all__ = ["Cache"]

class Cache(Syncing):
    def dirty_keys(self) -> list[Any]: ...
    def mark(self, key: bytes, original: object, sync_at: int) -> None: ...
    def check(self) -> None: ...
