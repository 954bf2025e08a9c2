from collections.abc import Iterator
from typing import Any

__all__ = ["sorted_items"]

def sorted_items(changes: dict[bytes, Any], integer_keys: bool) -> Iterator[tuple[bytes, Any]]: ...
