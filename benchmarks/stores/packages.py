"""Dicts on disk of other packages, used as their documentation recommends for speed.

A package is imported when its store is opened, because it may not be installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, ClassVar

import orjson

from benchmarks.stores.base import BATCH, Batches, OrderedDict, SortedDict, Tasks


class DiskcacheConnection:
    """A diskcache.Index. Each batch is a transaction.

    Its settings are already the fast ones, except ``cull_limit=0``: it does not search for expired entries at each
    change.
    """

    def __init__(self, path: str) -> None:
        diskcache = import_module("diskcache")
        self._index: Any = diskcache.Index.fromcache(
            diskcache.Cache(path, eviction_policy="none", cull_limit=0, timeout=60)
        )

    def __len__(self) -> int:
        return len(self._index)

    def _assign(self, pairs: Iterable[tuple[str, Any]]) -> None:
        index = self._index
        with index.transact():
            for key, value in pairs:
                index[key] = value

    def sync(self) -> None:
        """Do nothing, because every batch was committed."""

    def close(self) -> None:
        self._index.cache.close()


class DiskcacheDict(DiskcacheConnection, OrderedDict):
    """An ordered dict."""

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def fill(self, batches: Batches) -> None:
        for batch in batches:
            self._assign(batch)

    overwrite = fill

    def read(self, batches: Batches) -> int:
        index = self._index
        return sum(index[key]["status"] for batch in batches for key in batch)

    def items(self) -> Iterable[tuple[str, Any]]:
        items: Iterable[tuple[str, Any]] = self._index.items()
        return items

    def update(self) -> None:
        index = self._index
        for keys in in_batches(index):
            with index.transact():
                for key in keys:
                    value = index[key]
                    value["status"] += 1
                    index[key] = value

    def delete(self, batches: Batches) -> None:
        index = self._index
        for batch in batches:
            with index.transact():
                for key in batch:
                    del index[key]

    def get(self, key: str) -> Any:
        return self._index[key]


class DiskcacheTasks(DiskcacheConnection, Tasks):
    """The tasks that are done. Values are ints, because diskcache would pickle bools."""

    def add(self, batches: Batches) -> None:
        for batch in batches:
            self._assign((key, 0) for key in batch)

    def mark_done(self, batches: Batches) -> None:
        for batch in batches:
            self._assign((key, 1) for key in batch)

    def todo(self) -> Iterator[str]:
        return (key for key, done in self._index.items() if not done)

    def counts(self) -> tuple[int, int, None]:
        return len(self._index), sum(self._index.values()), None


class SqlitedictDict(OrderedDict):
    """A SqliteDict with JSON values and a commit for each batch. It moves an overwritten key to the end."""

    order = "moves overwritten"

    def __init__(self, path: str, flag: str = "c") -> None:
        os.makedirs(path, exist_ok=True)
        self._dict: Any = import_module("sqlitedict").SqliteDict(
            os.path.join(path, "store.sqlite"),
            flag=flag,
            journal_mode="WAL",
            encode=orjson.dumps,
            decode=orjson.loads,
            outer_stack=False,
        )

    @classmethod
    def for_reading(cls, path: str) -> SqlitedictDict:
        return cls(path, "r")

    def __len__(self) -> int:
        return len(self._dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self._dict)

    def fill(self, batches: Batches) -> None:
        store = self._dict
        for batch in batches:
            store.update(batch)
            store.commit()

    overwrite = fill

    def read(self, batches: Batches) -> int:
        store = self._dict
        return sum(store[key]["status"] for batch in batches for key in batch)

    def items(self) -> Iterable[tuple[str, Any]]:
        items: Iterable[tuple[str, Any]] = self._dict.items()
        return items

    def update(self) -> None:
        store = self._dict
        # items() reads all values before it yields the first one, so they can be changed in the loop.
        for batch in in_batches(store.items()):
            for _key, value in batch:
                value["status"] += 1
            store.update(batch)
            store.commit()

    def delete(self, batches: Batches) -> None:
        store = self._dict
        for batch in batches:
            for key in batch:
                del store[key]
            store.commit()

    def get(self, key: str) -> Any:
        return self._dict[key]

    def sync(self) -> None:
        self._dict.commit()

    def close(self) -> None:
        self._dict.close()


class RocksdictDict(SortedDict):
    """An Rdict with JSON values. Each batch is a WriteBatch.

    The settings are those that the RocksDB documentation recommends as a start: background jobs on all cores, a bloom
    filter, blocks of 16 kB, and a block cache of 64 MB.
    """

    _flushed = False

    def __init__(self, path: str, reading: bool = False) -> None:
        self._module: Any = import_module("rocksdict")
        access = self._module.AccessType
        self._dict = self._module.Rdict(
            path,
            self._options(),
            access_type=access.read_only(False) if reading else access.read_write(),
        )
        self._dict.set_dumps(orjson.dumps)
        self._dict.set_loads(orjson.loads)
        self._how = self._module.WriteOptions()
        self._how.sync = self._flushed

    def _options(self) -> Any:
        blocks = self._module.BlockBasedOptions()
        blocks.set_bloom_filter(10, False)
        blocks.set_block_size(16 << 10)
        blocks.set_block_cache(self._module.Cache(64 << 20))
        blocks.set_cache_index_and_filter_blocks(True)
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
        blocks.set_format_version(5)
        options = self._module.Options()
        options.create_if_missing(True)
        options.increase_parallelism(os.cpu_count() or 1)
        options.set_bytes_per_sync(1 << 20)
        options.set_level_compaction_dynamic_level_bytes(True)
        options.set_block_based_table_factory(blocks)
        return options

    @classmethod
    def for_reading(cls, path: str) -> RocksdictDict:
        return cls(path, True)

    def __iter__(self) -> Iterator[str]:
        keys: Iterator[str] = self._dict.keys()
        return keys

    def _write(self, pairs: Iterable[tuple[str, Any]]) -> None:
        changes = self._module.WriteBatch()
        changes.set_dumps(orjson.dumps)
        for key, value in pairs:
            changes[key] = value
        self._dict.write(changes, self._how)

    def fill(self, batches: Batches) -> None:
        for batch in batches:
            self._write(batch)

    overwrite = fill

    def read(self, batches: Batches) -> int:
        store = self._dict
        return sum(store[key]["status"] for batch in batches for key in batch)

    def delete(self, batches: Batches) -> None:
        for batch in batches:
            changes = self._module.WriteBatch()
            for key in batch:
                del changes[key]
            self._dict.write(changes, self._how)

    def get(self, key: str) -> Any:
        return self._dict[key]

    def sync(self) -> None:
        self._dict.flush_wal(True)

    def close(self) -> None:
        self._dict.close()


class RocksdictFlushedDict(RocksdictDict):
    """The same store, with each batch flushed."""

    _flushed = True


class LmdbmDict(SortedDict):
    """An lmdbm.Lmdb with JSON values, as its documentation shows. Each batch is one ``update()``."""

    _durability: ClassVar = {"metasync": False}

    def __init__(self, path: str, flag: str = "c") -> None:
        self._path = path
        lmdbm: Any = import_module("lmdbm")

        class JsonLmdb(lmdbm.Lmdb):  # type: ignore[misc]
            def _pre_key(self, value: str) -> bytes:
                return value.encode()

            def _post_key(self, value: bytes) -> str:
                return value.decode()

            def _pre_value(self, value: Any) -> bytes:
                return orjson.dumps(value)

            def _post_value(self, value: bytes) -> Any:
                return orjson.loads(value)

        self._dict: Any = JsonLmdb.open(path, flag, map_size=1 << 36, autogrow=False, **self._durability)

    def __reduce__(self) -> Any:
        return type(self), (self._path,)

    @classmethod
    def for_reading(cls, path: str) -> LmdbmDict:
        return cls(path, "r")

    def __len__(self) -> int:
        return len(self._dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self._dict)

    def fill(self, batches: Batches) -> None:
        for batch in batches:
            self._dict.update(batch)

    overwrite = fill

    def read(self, batches: Batches) -> int:
        store = self._dict
        return sum(store[key]["status"] for batch in batches for key in batch)

    def get(self, key: str) -> Any:
        return self._dict[key]

    def sync(self) -> None:
        self._dict.sync()

    def close(self) -> None:
        self._dict.close()


def in_batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield lists of up to 1,000 items."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
