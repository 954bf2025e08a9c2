from typing_extensions import disjoint_base

from tastypy_fast._core.write_cache import WriteCache

__all__ = ["TaskCache"]

@disjoint_base
class TaskCache(WriteCache): ...
