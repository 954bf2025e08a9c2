from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from typing_extensions import disjoint_base

from tastypy_fast._core.before_images import BeforeImages
from tastypy_fast._core.locks import Lock
from tastypy_fast._core.running_tasks import RunningTasks
from tastypy_fast._core.worker_slots import WorkerSlots

__all__ = ["StoreBase"]

_T = TypeVar("_T")

@disjoint_base
class StoreBase:
    lock: Lock
    path: str
    writable: bool
    snapshot_per_op: bool
    gzipped: bool
    flushes_each_sync: bool
    disk_version: int
    next_seq: int
    db: Any
    snapshot: Any
    buffer_snapshot: Any
    values: Any
    order: Any
    status: Any
    meta: Any
    images: BeforeImages | None
    claims: Any
    wal: Any
    worker_number: int
    worker_slots: WorkerSlots | None
    summary: Any
    wrote: bool
    files_checked: int
    running_tasks: RunningTasks | None
    waiting_tries: dict[bytes, int]
    wake_background: Callable[[], object]
    def begin_reading(self, buffers: bool = False) -> Any: ...
    def end_reading(self) -> None: ...
    def reader_of_buffers(self) -> Any: ...
    def count(self) -> int: ...
    def has_large_values(self) -> bool: ...
    def next_number(self, txn: Any) -> int: ...
    def write(self, work: Callable[[Any], _T]) -> _T: ...
    def write_sync(self, work: Callable[[Any], object], scattered: int, size: int) -> None: ...
    def flush(self) -> None: ...
    def follow_files(self) -> None: ...
    def stop_slot_of(self, worker: int, slot: int, position: int) -> bool: ...
    def open_running_tasks(self) -> None: ...
    def refuse_write(self) -> Exception: ...
    def reraise(self, error: Exception) -> NoReturn: ...
    def translated(self, error: Exception) -> Exception: ...
    def damaged(self, reason: object) -> Exception: ...
