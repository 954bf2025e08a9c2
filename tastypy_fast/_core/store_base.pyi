from collections.abc import Callable
from typing import Any, final

from typing_extensions import disjoint_base

from tastypy_fast._core.worker_slots import WorkerSlots

__all__ = ["Lock", "StoreBase", "lives", "this_thread"]

def this_thread() -> int: ...
def lives(number: int) -> bool: ...

@final
class Lock:
    afterwards: list[Callable[[], object]] | None
    def acquire(self) -> int: ...
    def release(self) -> int: ...
    def is_mine(self) -> bool: ...
    def try_acquire(self) -> bool: ...
    def acquire_anyway(self) -> int: ...
    def acquire_within(self, microseconds: int) -> bool: ...
    def suspend(self) -> int: ...
    def resume(self, depth: int) -> int: ...
    def __enter__(self) -> Lock: ...
    def __exit__(self, *exception: object) -> None: ...

@disjoint_base
class StoreBase:
    lock: Lock
    path: str
    writable: bool
    transient: bool
    gzipped: bool
    flushes_each_sync: bool
    disk_version: int
    next_order: int
    db: Any
    snapshot: Any
    buffer_snapshot: Any
    values: Any
    order: Any
    status: Any
    meta: Any
    images: Any
    claims: Any
    wal: Any
    worker_number: int
    lanes: WorkerSlots | None
    summary: Any
    wrote: bool
    before_image_count: int
    files_checked: int
