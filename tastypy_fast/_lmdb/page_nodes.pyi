__all__ = ["check_edge", "read_nodes"]

def check_edge(
    page: bytes, number: int, is_leaf: bool, has_integer_keys: bool
) -> tuple[int, int, int, bytes, bool]: ...
def read_nodes(
    page: bytes, number: int, is_leaf: bool, any_flags: bool = False
) -> list[tuple[int, bytes, bytes, int]]: ...
