__all__ = ["read_nodes"]

def read_nodes(
    page: bytes, number: int, is_leaf: bool, any_flags: bool = False
) -> list[tuple[int, bytes, bytes, int]]: ...
