"""stub"""
from typing import NamedTuple
__all__ = ["Repair", "repair_here"]
class Repair(NamedTuple):
    kept: int
    lost: list[str]
    undone: int = 0
def repair_here(path, folder):
    yield Repair(0, [])
