from collections.abc import Iterable
from typing import Any

from typing_extensions import Self, disjoint_base

__all__ = ["LookupIterator"]

@disjoint_base
class LookupIterator:
    def __init__(self, store: Any, keys: Iterable[Any]) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> tuple[Any, Any]: ...
