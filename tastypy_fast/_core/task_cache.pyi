from typing import final

from tastypy_fast._core.store_base import StoreBase
from tastypy_fast._core.write_cache import WriteCache

__all__ = ["TaskCache"]

@final
class TaskCache(WriteCache):
    def __init__(self, store: StoreBase) -> None: ...
