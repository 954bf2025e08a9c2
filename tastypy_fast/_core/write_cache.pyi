from typing import Any

from tastypy_fast._core.cache_sync import Syncing

__all__ = ["WriteCache"]

class WriteCache(Syncing):
    def dirty_keys(self) -> list[Any]: ...
    def mark(self, key: bytes, original: object, sync_at: int) -> None: ...
    def check(self) -> None: ...
