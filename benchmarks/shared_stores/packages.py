"""Shared stores of other packages, and the server process of the standard library."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.managers import SyncManager
from time import process_time
from typing import Any, ClassVar

from benchmarks.shared_stores.base import COUNTER, Blocks, Shared
from benchmarks.stores.base import Batches
from benchmarks.stores.packages import DiskcacheConnection, DiskcacheDict, DiskcacheTasks, LmdbmDict
from benchmarks.stores.queues import HueyTasks, LitequeueTasks
from benchmarks.system import anonymous_memory


class SharedDiskcache(DiskcacheConnection, Shared):
    """An Index that several processes have open."""

    def flush(self) -> None:
        with closing(sqlite3.connect(os.path.join(self._index.directory, "cache.db"), timeout=60)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class SharedDiskcacheDict(SharedDiskcache, DiskcacheDict):
    """A diskcache.Index. Each change, or each batch, is a transaction."""

    def set_each(self, pairs: list[Any]) -> None:
        index = self._index
        for key, value in pairs:
            index[key] = value

    set_many = DiskcacheDict.fill

    def get_each(self, keys: list[str]) -> int:
        index = self._index
        return sum(index[key]["status"] for key in keys)

    def increment(self, times: int) -> None:
        # Twice as fast as "+=" in index.transact().
        increment = self._index.cache.incr
        for _ in range(times):
            increment(COUNTER)

    def increment_locked(self, blocks: Blocks) -> None:
        index = self._index
        for block in blocks:
            with index.transact():
                for _ in block:
                    index[COUNTER] += 1

    def counter(self) -> Any:
        return self._index[COUNTER]


class SharedDiskcacheTasks(SharedDiskcache, DiskcacheTasks):
    """The tasks that are done, in diskcache."""

    def mark_done_each(self, keys: list[str]) -> None:
        index = self._index
        for key in keys:
            index[key] = 1

    mark_done_many = DiskcacheTasks.mark_done


class SharedLmdbmDict(LmdbmDict, Shared):
    """An lmdbm.Lmdb. It has no operation that reads and writes in one transaction.

    Its map has a fixed size, as its documentation demands if several processes write.
    """

    _durability: ClassVar = {"sync": False}

    def set_each(self, pairs: list[Any]) -> None:
        store = self._dict
        for key, value in pairs:
            store[key] = value

    set_many = LmdbmDict.fill

    def get_each(self, keys: list[str]) -> int:
        store = self._dict
        return sum(store[key]["status"] for key in keys)

    def items(self) -> Iterable[tuple[str, Any]]:
        items: Iterable[tuple[str, Any]] = self._dict.items()
        return items


class SharedLitequeueTasks(LitequeueTasks, Shared):
    """A LiteQueue. A task whose worker died stays claimed."""

    claim_done = LitequeueTasks.loop


class SharedHueyTasks(HueyTasks, Shared):
    """A SqliteHuey. Tasks are executed as its own consumers execute them."""

    claim_done = HueyTasks.loop


class Meter:
    """An object in the server process that returns the resources which the server has used."""

    def read(self) -> tuple[float, int]:
        return process_time(), anonymous_memory() or 0


class Manager(SyncManager):
    """The same as ``multiprocessing.Manager()``, with the meter."""

    meter: Any


Manager.register("meter", Meter)


class ManagerDict:
    """A dict in a server process."""

    def __init__(self, _path: str) -> None:
        self._manager = Manager(ctx=get_context("spawn"))
        self._manager.start()
        self._meter = self._manager.meter()
        self._dict = self._manager.dict()
        self._lock = self._manager.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_dict": self._dict, "_lock": self._lock}

    def __len__(self) -> int:
        return len(self._dict)

    def server_usage(self) -> tuple[float, int]:
        used: tuple[float, int] = self._meter.read()
        return used

    def fill(self, batches: Batches) -> None:
        for batch in batches:
            self._dict.update(batch)

    def set_each(self, pairs: list[Any]) -> None:
        shared = self._dict
        for key, value in pairs:
            shared[key] = value

    set_many = fill

    def get_each(self, keys: list[str]) -> int:
        shared = self._dict
        return sum(shared[key]["status"] for key in keys)

    def increment(self, times: int) -> None:
        shared, lock = self._dict, self._lock
        for _ in range(times):
            with lock:
                shared[COUNTER] += 1

    def increment_locked(self, blocks: Blocks) -> None:
        shared, lock = self._dict, self._lock
        for block in blocks:
            with lock:
                for _ in block:
                    shared[COUNTER] += 1

    def items(self) -> Iterable[tuple[str, Any]]:
        return self._dict.items()

    def get(self, key: str) -> Any:
        return self._dict[key]

    def counter(self) -> Any:
        return self._dict[COUNTER]

    def close(self) -> None:
        # Only the process that started the server has the manager.
        if hasattr(self, "_manager"):
            self._manager.shutdown()
