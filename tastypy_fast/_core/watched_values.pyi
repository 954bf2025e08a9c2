from typing_extensions import disjoint_base

from tastypy_fast._core.cache_lookup import Lookup

__all__ = ["Watching"]

@disjoint_base
class Watching(Lookup):
    watched_by_each: int
    def forget(self) -> None: ...
