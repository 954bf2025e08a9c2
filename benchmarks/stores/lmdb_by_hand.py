"""A store written by hand with py-lmdb and orjson."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count, islice
from struct import Struct
from typing import Any

import lmdb
import orjson

from benchmarks.stores.base import BATCH, Batches, OrderedDict, Tasks, Visit

_NUMBER = Struct("=Q")


class LmdbStore:
    """Two databases: one maps keys to values, the other maps row ids to keys, in the order in which keys were added."""

    def __init__(self, path: str, **options: Any) -> None:
        os.makedirs(path, exist_ok=True)
        # The same durability as that of tastypy_fast's durability="normal".
        self._env = lmdb.open(path, map_size=1 << 36, max_dbs=2, metasync=False, **options)
        self._values = self._env.open_db(b"values")
        self._order = self._env.open_db(b"order", integerkey=True)

    def __len__(self) -> int:
        with self._env.begin() as txn:
            return int(txn.stat(self._values)["entries"])

    def _next_number(self, txn: Any) -> int:
        cursor = txn.cursor(self._order)
        return _NUMBER.unpack(cursor.key())[0] + 1 if cursor.last() else 0

    def _put(self, items: list[tuple[bytes, bytes]]) -> None:
        """Assign in one transaction. New keys are appended to the order, existing keys keep their place."""
        with self._env.begin(write=True) as txn:
            first = self._next_number(txn)
            if txn.cursor(self._values).putmulti(items, overwrite=False)[1] == len(items):
                numbers = map(_NUMBER.pack, count(first))
                txn.cursor(self._order).putmulti(
                    [(number, key) for number, (key, _) in zip(numbers, items, strict=False)], append=True
                )
                return
            txn.abort()
        with self._env.begin(write=True) as txn:
            for key, value in items:
                if txn.put(key, value, overwrite=False, db=self._values):
                    txn.put(_NUMBER.pack(first), key, append=True, db=self._order)
                    first += 1
                else:
                    txn.put(key, value, db=self._values)

    def _keys_after(self, txn: Any, last: bytes) -> tuple[list[bytes], bytes]:
        """Return the next batch of encoded keys in order, and the row id of the last one."""
        cursor = txn.cursor(self._order)
        if not (cursor.set_range(last) and cursor.next() if last else cursor.first()):
            return [], last
        found = list(islice(cursor.iternext(), BATCH))
        return [key for _, key in found], found[-1][0]

    def sync(self) -> None:
        self._env.sync(True)

    def close(self) -> None:
        self._env.close()


class LmdbDict(LmdbStore, OrderedDict):
    """An ordered dict."""

    @classmethod
    def for_reading(cls, path: str) -> LmdbDict:
        return cls(path, readonly=True)

    def fill(self, batches: Batches) -> None:
        dumps = orjson.dumps
        for batch in batches:
            self._put([(key.encode(), dumps(value)) for key, value in batch])

    def overwrite(self, batches: Batches) -> None:
        """Assign to existing keys, without a check whether they exist."""
        dumps = orjson.dumps
        for batch in batches:
            with self._env.begin(write=True) as txn:
                txn.cursor(self._values).putmulti([(key.encode(), dumps(value)) for key, value in batch])

    def read(self, batches: Batches) -> int:
        loads: Any = orjson.loads
        with self._env.begin(db=self._values) as txn:
            get = txn.get
            return sum(loads(get(key.encode()))["status"] for batch in batches for key in batch)

    def read_many(self, batches: Batches) -> int:
        """Read the values in the order of the index, because LMDB finds neighbours faster."""
        loads = orjson.loads
        total = 0
        with self._env.begin(db=self._values) as txn:
            getmulti = txn.cursor().getmulti
            for batch in batches:
                keys = [key.encode() for key in batch]
                found = dict(getmulti(sorted(keys)))
                for key in keys:
                    total += loads(found[key])["status"]
        return total

    def items(self) -> Iterator[tuple[str, Any]]:
        loads = orjson.loads
        with self._env.begin() as txn:
            cursor = txn.cursor(self._values)
            keys, last = self._keys_after(txn, b"")
            while keys:
                for key, value in cursor.getmulti(keys):
                    yield key.decode(), loads(value)
                keys, last = self._keys_after(txn, last)

    def __iter__(self) -> Iterator[str]:
        with self._env.begin(db=self._order) as txn:
            for key in txn.cursor().iternext(keys=False):
                yield key.decode()

    def update(self) -> None:
        loads, dumps = orjson.loads, orjson.dumps
        last = b""
        while True:
            with self._env.begin(write=True) as txn:
                keys, last = self._keys_after(txn, last)
                if not keys:
                    return
                cursor = txn.cursor(self._values)
                changed = []
                for key, raw in cursor.getmulti(keys):
                    value = loads(raw)
                    value["status"] += 1
                    changed.append((key, dumps(value)))
                cursor.putmulti(changed)

    def delete(self, batches: Batches) -> None:
        """Delete keys in one pass over the order, because a key does not lead to its row id."""
        doomed = {key.encode() for batch in batches for key in batch}
        last = b""
        while True:
            with self._env.begin(write=True) as txn:
                keys, last = self._keys_after(txn, last)
                if not keys:
                    return
                cursor = txn.cursor(self._order)
                cursor.set_key(last)
                for key in reversed(keys):
                    if key in doomed:
                        txn.delete(key, db=self._values)
                        cursor.delete()
                    cursor.prev()

    def get(self, key: str) -> Any:
        with self._env.begin(db=self._values) as txn:
            return orjson.loads(txn.get(key.encode(), b""))


class LmdbTasks(LmdbStore, Tasks):
    """A list of tasks. The status is part of the JSON of each task."""

    def add(self, batches: Batches) -> None:
        fresh = orjson.dumps({"_done": False, "_aborted": False, "_tries": 0})
        for batch in batches:
            self._put([(key.encode(), fresh) for key in batch])

    def loop(self) -> int:
        loads, dumps = orjson.loads, orjson.dumps
        done = 0
        last = b""
        while True:
            with self._env.begin(write=True) as txn:
                keys, last = self._keys_after(txn, last)
                if not keys:
                    return done
                cursor = txn.cursor(self._values)
                put = cursor.put
                for key, raw in cursor.getmulti(keys):
                    task = loads(raw)
                    if task["_done"] or task["_aborted"]:
                        continue
                    task["_tries"] += 1
                    put(key, dumps(task))
                    key.decode()  # The caller would get it.
                    task["_done"] = True
                    put(key, dumps(task))
                    done += 1

    def mark_done(self, batches: Batches) -> None:
        loads, dumps = orjson.loads, orjson.dumps
        for batch in batches:
            with self._env.begin(write=True) as txn:
                cursor = txn.cursor(self._values)
                changed = []
                for key, raw in cursor.getmulti([key.encode() for key in batch]):
                    task = loads(raw)
                    task["_done"] = True
                    changed.append((key, dumps(task)))
                cursor.putmulti(changed)

    def todo(self) -> Iterator[str]:
        loads = orjson.loads
        with self._env.begin() as txn:
            cursor = txn.cursor(self._values)
            keys, last = self._keys_after(txn, b"")
            while keys:
                for key, raw in cursor.getmulti(keys):
                    task = loads(raw)
                    if not (task["_done"] or task["_aborted"]):
                        yield key.decode()
                keys, last = self._keys_after(txn, last)

    def crawl(self, first: str, visit: Visit) -> int:
        loads, dumps = orjson.loads, orjson.dumps
        fresh = orjson.dumps({"_done": False, "_aborted": False, "_tries": 0})
        self._put([(first.encode(), fresh)])
        values, order = self._values, self._order
        done = 0
        last = b""
        while True:
            with self._env.begin(write=True) as txn:
                keys, last = self._keys_after(txn, last)
                if not keys:
                    return done
                number = self._next_number(txn)
                for key in keys:
                    task = loads(txn.get(key, b"", db=values))
                    if task["_done"] or task["_aborted"]:
                        continue
                    task["_tries"] += 1
                    txn.put(key, dumps(task), db=values)
                    facts, found = visit(key.decode())
                    for link in found:
                        if txn.put(link.encode(), fresh, overwrite=False, db=values):
                            txn.put(_NUMBER.pack(number), link.encode(), append=True, db=order)
                            number += 1
                    txn.put(key, dumps({**task, **facts, "_done": True}), db=values)
                    done += 1

    def facts(self, key: str) -> Any:
        with self._env.begin(db=self._values) as txn:
            return orjson.loads(txn.get(key.encode(), b""))

    def counts(self) -> tuple[int, int, int]:
        with self._env.begin(db=self._values) as txn:
            tasks = [orjson.loads(raw) for raw in txn.cursor().iternext(keys=False)]
        return len(tasks), sum(task["_done"] for task in tasks), sum(task["_tries"] > 0 for task in tasks)
