from typing import final

__all__ = ["Block", "block_facts"]

@final
class Block: ...

def block_facts(raw: bytes) -> tuple[tuple[int, ...], tuple[int, ...], list[int], list[int]]: ...
