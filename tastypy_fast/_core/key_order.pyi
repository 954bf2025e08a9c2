from typing import Any

__all__ = ["sorted_items"]

def sorted_items(changes: dict[bytes, Any], integer_keys: bool) -> list[tuple[bytes, Any]]: ...
