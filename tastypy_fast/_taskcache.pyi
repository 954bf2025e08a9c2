from typing_extensions import disjoint_base

from tastypy_fast._cache import Cache

__all__ = ["TaskCache"]

@disjoint_base
class TaskCache(Cache): ...
