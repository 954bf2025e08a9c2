"""An upper bound for tastypy_fast: its layout on disk, written by hand with py-lmdb, without durability.

As in tastypy_fast, an index maps keys to row ids, records are in the order of their row ids, and statuses are in
blocks. But each workload except the crawl keeps all changes in memory, sorts them, and writes them in one transaction
that is flushed once. So a kill loses everything, and no cache or write-ahead log on this layout can be faster.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain, count, islice
from struct import Struct
from typing import Any

import lmdb
import orjson

from benchmarks.stores.base import BATCH, Batches, OrderedDict, Tasks, Visit

_NUMBER = Struct("=Q")
_BLOCK = 500
_DONE, _TRIED = 2, 16


class Layout:
    """Three databases in one environment."""

    def __init__(self, path: str, **options: Any) -> None:
        os.makedirs(path, exist_ok=True)
        self._env = lmdb.open(path, map_size=1 << 37, max_dbs=3, metasync=False, **options)
        self._index = self._env.open_db(b"index")
        self._records = self._env.open_db(b"records", integerkey=True)
        self._status = self._env.open_db(b"status", integerkey=True)

    def __len__(self) -> int:
        with self._env.begin() as txn:
            return int(txn.stat(self._records)["entries"])

    def _add(self, pairs: Iterable[tuple[bytes, bytes]], blocks_of: int = 0) -> None:
        """Append new keys with their values, and status blocks of so many tasks for them."""
        index = []
        first = len(self)

        def records() -> Iterator[tuple[bytes, bytes]]:
            for number, (key, value) in zip(map(_NUMBER.pack, count(first)), pairs, strict=False):
                index.append((key, number))
                yield number, b"%c%b%b" % (len(key), key, value)

        with self._env.begin(write=True) as txn:
            txn.cursor(self._records).putmulti(records(), append=True)
            index.sort()
            txn.cursor(self._index).putmulti(index)
            if blocks_of:
                blocks = range(first // blocks_of, -(-(first + len(index)) // blocks_of))
                txn.cursor(self._status).putmulti([(_NUMBER.pack(block), bytes(4 * blocks_of)) for block in blocks])

    def _value(self, key: str) -> Any:
        with self._env.begin() as txn:
            raw = txn.get(txn.get(key.encode(), b"", self._index), b"\0null", self._records)
        return orjson.loads(raw[1 + raw[0]:])

    def sync(self) -> None:
        self._env.sync(True)

    def close(self) -> None:
        self._env.close()


class LayoutDict(Layout, OrderedDict):
    """An ordered dict."""

    @classmethod
    def for_reading(cls, path: str) -> LayoutDict:
        return cls(path, readonly=True)

    def fill(self, batches: Batches) -> None:
        dumps = orjson.dumps
        self._add((key.encode(), dumps(value)) for batch in batches for key, value in batch)

    def overwrite(self, batches: Batches) -> None:
        dumps = orjson.dumps
        changes = sorted([(key.encode(), dumps(value)) for batch in batches for key, value in batch])
        with self._env.begin(write=True) as txn:
            numbers = txn.cursor(self._index).getmulti([key for key, _ in changes])
            txn.cursor(self._records).putmulti(sorted([
                (number, b"%c%b%b" % (len(key), key, value))
                for (key, number), (_, value) in zip(numbers, changes, strict=True)
            ]))

    def update(self) -> None:
        loads, dumps = orjson.loads, orjson.dumps
        with self._env.begin(write=True) as txn:
            cursor, writing = txn.cursor(self._records), txn.cursor(self._records)
            cursor.first()
            items = cursor.iternext()
            while batch := list(islice(items, BATCH)):
                changed = []
                for number, raw in batch:
                    start = 1 + raw[0]
                    value = loads(raw[start:])
                    value["status"] += 1
                    changed.append((number, raw[:start] + dumps(value)))
                writing.putmulti(changed)

    def delete(self, batches: Batches) -> None:
        keys = sorted([key.encode() for batch in batches for key in batch])
        with self._env.begin(write=True) as txn:
            numbers = [number for _, number in txn.cursor(self._index).getmulti(keys)]
            delete = txn.delete
            for key in keys:
                delete(key, db=self._index)
            for number in sorted(numbers, key=_NUMBER.unpack):
                delete(number, db=self._records)

    def read(self, batches: Batches) -> int:
        loads, index, records = orjson.loads, self._index, self._records
        total = 0
        with self._env.begin() as txn:
            get = txn.get
            for key in chain.from_iterable(batches):
                raw = get(get(key.encode(), b"", index), b"", records)
                total += loads(raw[1 + raw[0]:])["status"]
        return total

    def read_many(self, batches: Batches) -> int:
        """Read the index and the records in their order, each with one call."""
        loads, unpack = orjson.loads, _NUMBER.unpack
        total = 0
        with self._env.begin() as txn:
            find, read = txn.cursor(self._index).getmulti, txn.cursor(self._records).getmulti
            for batch in batches:
                keys = [key.encode() for key in batch]
                numbers = dict(find(sorted(keys)))
                records = dict(read(sorted(numbers.values(), key=unpack)))
                for key in keys:
                    raw = records[numbers[key]]
                    total += loads(raw[1 + raw[0]:])["status"]
        return total

    def items(self) -> Iterator[tuple[str, Any]]:
        loads = orjson.loads
        with self._env.begin(db=self._records) as txn:
            for raw in txn.cursor().iternext(keys=False):
                start = 1 + raw[0]
                yield raw[1:start].decode(), loads(raw[start:])

    def __iter__(self) -> Iterator[str]:
        with self._env.begin(db=self._records) as txn:
            for raw in txn.cursor().iternext(keys=False):
                yield raw[1:1 + raw[0]].decode()

    get = Layout._value


class PromisedLayoutDict(LayoutDict):
    """An ordered dict that keeps the promises of tastypy_fast and does nothing else: what they cost at least.

    - Each batch of 1,000 changes is a transaction that is flushed. This is the least for keys in order. A write-ahead
      log is faster for keys in random order, whose places are not neighbours.
    - The caller may change a value that it got. So the value is kept until the end of the batch, and is written then if
      its JSON differs. A loop yields keys, by which the caller gets the values.
    - A read-only store shows what other processes commit, so each read is a transaction. No transaction is kept for
      the next one, because a forked child would use its slot in the reader table, too.
    """

    measured = ("fill", "update", "delete", "read", "for_reading")

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(path, max_spare_txns=0, **options)
        self._is_read_only = options.get("readonly", False)
        # By key: the row id, the record, where its value begins, and the value.
        self._watched: dict[str, tuple[bytes, bytes, int, Any]] = {}

    def fill(self, batches: Batches) -> None:
        for batch in batches:
            super().fill([batch])

    def read(self, batches: Batches) -> int:
        if self._is_read_only:
            return sum(self._value(key)["status"] for key in chain.from_iterable(batches))
        loads, index, records, watched = orjson.loads, self._index, self._records, self._watched
        total = 0
        for batch in batches:
            with self._env.begin() as txn:
                get = txn.get
                for key in batch:
                    found = watched.get(key)
                    if found is None:
                        number = get(key.encode(), b"", index)
                        raw = get(number, b"", records)
                        start = 1 + raw[0]
                        watched[key] = found = number, raw, start, loads(raw[start:])
                    total += found[3]["status"]
            self._write_changed()
        return total

    def update(self) -> None:
        watched = self._watched
        for key in self._keys_of_watched():
            watched[key][3]["status"] += 1

    def _keys_of_watched(self) -> Iterator[str]:
        loads, watched = orjson.loads, self._watched
        number = 0
        while True:
            with self._env.begin() as txn:
                cursor = txn.cursor(self._records)
                if not cursor.set_range(_NUMBER.pack(number)):
                    return
                batch = list(islice(cursor.iternext(), BATCH))
            for place, raw in batch:
                start = 1 + raw[0]
                watched[raw[1:start].decode()] = place, raw, start, loads(raw[start:])
            yield from list(watched)
            self._write_changed()
            number = _NUMBER.unpack(batch[-1][0])[0] + 1

    def _write_changed(self) -> None:
        dumps = orjson.dumps
        changed = []
        for number, raw, start, value in self._watched.values():
            text = dumps(value)
            if start + len(text) != len(raw) or not raw.endswith(text):
                changed.append((number, raw[:start] + text))
        self._watched.clear()
        if changed:
            with self._env.begin(write=True) as txn:
                txn.cursor(self._records).putmulti(changed)

    def delete(self, batches: Batches) -> None:
        for batch in batches:
            super().delete([batch])


class LayoutTasks(Layout, Tasks):
    """A list of tasks. They can be added, and marked done by key."""

    def add(self, batches: Batches) -> None:
        self._add(((key.encode(), b"") for batch in batches for key in batch), _BLOCK)

    def mark_done(self, batches: Batches) -> None:
        keys = sorted([key.encode() for batch in batches for key in batch])
        with self._env.begin(write=True) as txn:
            cursor = txn.cursor(self._status)
            blocks = [bytearray(raw) for raw in cursor.iternext(keys=False)]
            for _, number in txn.cursor(self._index).getmulti(keys):
                block, slot = divmod(_NUMBER.unpack(number)[0], _BLOCK)
                blocks[block][4 * slot] |= _DONE
            cursor.putmulti([(_NUMBER.pack(block), bytes(raw)) for block, raw in enumerate(blocks)])

    def loop(self) -> int:
        done = 0
        with self._env.begin(write=True) as txn:
            cursor = txn.cursor(self._status)
            blocks = [bytearray(raw) for raw in cursor.iternext(keys=False)]
            for number, raw in txn.cursor(self._records):
                # The caller would get the key. The try is recorded before the work, the result after it.
                raw[1:1 + raw[0]].decode()
                block, slot = divmod(_NUMBER.unpack(number)[0], _BLOCK)
                blocks[block][4 * slot] |= _TRIED
                blocks[block][4 * slot] |= _DONE
                done += 1
            cursor.putmulti([(_NUMBER.pack(block), bytes(raw)) for block, raw in enumerate(blocks)])
        return done

    def crawl(self, first: str, visit: Visit) -> int:
        """Visit each page, in transactions of 1,000, because the next pages come from the links of these."""
        dumps, pack = orjson.dumps, _NUMBER.pack
        self._add([(first.encode(), b"")])
        total, done = 1, 0
        while done < total:
            with self._env.begin(write=True) as txn:
                records, get, index = txn.cursor(self._records), txn.get, self._index
                records.set_key(pack(done))
                batch = list(islice(records.iternext(), BATCH))
                visited: list[tuple[bytes, bytes]] = []
                new: dict[bytes, bytes] = {}
                for number, raw in batch:
                    start = 1 + raw[0]
                    facts, found = visit(raw[1:start].decode())
                    visited.append((number, raw[:start] + dumps(facts)))
                    for link in found:
                        key = link.encode()
                        if key not in new and get(key, db=index) is None:
                            new[key] = pack(total)
                            total += 1
                records.putmulti(visited)
                records.putmulti([(number, b"%c%b" % (len(key), key)) for key, number in new.items()], append=True)
                txn.cursor(index).putmulti(sorted(new.items()))
                for block in range(done // _BLOCK, -(-total // _BLOCK)):
                    raw = bytearray(txn.get(pack(block), bytes(4 * _BLOCK), db=self._status))
                    tried = range(max(done - block * _BLOCK, 0), min(done + len(batch) - block * _BLOCK, _BLOCK))
                    if tried:
                        raw[4 * tried.start:4 * tried.stop:4] = bytes([_DONE | _TRIED]) * len(tried)
                    txn.put(pack(block), bytes(raw), db=self._status)
                done += len(batch)
        return done

    facts = Layout._value

    def counts(self) -> tuple[int, int, int]:
        done = tried = 0
        with self._env.begin(db=self._status) as txn:
            for raw in txn.cursor().iternext(keys=False):
                entries = raw[::4]
                tried += entries.count(_DONE | _TRIED)
                done += entries.count(_DONE)
        return len(self), done + tried, tried


class PromisedLayoutTasks(LayoutTasks):
    """A list of tasks that are added in flushed transactions."""

    measured = ("add",)

    def add(self, batches: Batches) -> None:
        for batch in batches:
            super().add([batch])
