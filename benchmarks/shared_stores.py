"""The stores that several processes use at once: tastypy_fast's shared ones, and what else one would take.

Every operation is visible to the other processes when it returns, and atomic. A dict has ``set_each``,
``get_each``, ``increment``, ``increment_locked``; a list of tasks has ``mark_done_each``, ``claim_done``,
``claim_done_in_batches``. A store that has no such thing lacks the method, and is left out there. To make ready and
to check there are ``fill`` or ``add``, which take batches, ``items``, ``get``, ``counter``, ``counts``. An instance
that is passed to another process is the same store there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.managers import SyncManager
from time import process_time
from typing import Any

import lmdb
import orjson

import tastypy_fast
from benchmarks.stores import Batches, Peer, SqliteConnection, SqliteDict
from benchmarks.system import anonymous_memory

BLOCK = 100
COUNTER = "n"


class Shared:
    """What holds for all but the Manager."""

    def used_elsewhere(self) -> tuple[float, int]:
        """Seconds of processor time and bytes of anonymous memory that a server of this store has used."""
        return 0.0, 0


class TastypyDict(Shared):
    """A SharedPersistentOrderedDict, as it comes."""

    def __init__(self, path: str) -> None:
        self._pod = tastypy_fast.SharedPersistentOrderedDict(path)

    def __len__(self) -> int:
        return len(self._pod)

    def fill(self, batches: Batches) -> None:
        self._pod.update(*batches)

    def set_each(self, pairs: list[Any]) -> None:
        pod = self._pod
        for key, value in pairs:
            pod[key] = value

    def get_each(self, keys: list[str]) -> int:
        pod = self._pod
        return sum(pod[key]["status"] for key in keys)

    def increment(self, times: int) -> None:
        pod = self._pod
        for _ in range(times):
            pod.set[COUNTER] += 1

    def increment_locked(self, times: int) -> None:
        pod = self._pod
        for block in blocks(times):
            with pod.locked():
                for _ in block:
                    pod.set[COUNTER] += 1

    def items(self) -> Iterable[tuple[str, Any]]:
        return self._pod.iteritems()

    def get(self, key: str) -> Any:
        return self._pod[key]

    def counter(self) -> Any:
        return self._pod[COUNTER]

    def close(self) -> None:
        self._pod.close()


class TastypyTasks(Shared):
    """A SharedProgressTracker, as it comes."""

    def __init__(self, path: str) -> None:
        self._tracker = tastypy_fast.SharedProgressTracker(path)

    def __len__(self) -> int:
        return len(self._tracker)

    def add(self, batches: Batches) -> None:
        for batch in batches:
            self._tracker.add_many(batch)

    def mark_done_each(self, keys: list[str]) -> None:
        tracker = self._tracker
        for key in keys:
            tracker.mark_done(key)

    def claim_done(self) -> int:
        tracker = self._tracker
        done = 0
        for key in tracker.try_keys():
            tracker.mark_done(key)
            done += 1
        return done

    def claim_done_in_batches(self) -> int:
        tracker = self._tracker
        done = 0
        finished = []
        for key in tracker.try_keys(batch=BLOCK):
            finished.append(key)
            if len(finished) == BLOCK:
                tracker.mark_done_many(finished)
                done += len(finished)
                finished.clear()
        tracker.mark_done_many(finished)
        return done + len(finished)

    def counts(self) -> tuple[int, int, int]:
        return len(self._tracker), self._tracker.num_done(), self._tracker.num_tried()

    def close(self) -> None:
        self._tracker.close()


class DiskcacheConnection(Shared):
    """A diskcache.Index. Its settings are the quick ones already, but for looking with each change for entries that
    have expired: ``cull_limit=0``."""

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

    def close(self) -> None:
        self._index.cache.close()


class DiskcacheDict(DiskcacheConnection):
    """A dict with diskcache."""

    def fill(self, batches: Batches) -> None:
        for batch in batches:
            self._assign(batch)

    def set_each(self, pairs: list[Any]) -> None:
        index = self._index
        for key, value in pairs:
            index[key] = value

    def get_each(self, keys: list[str]) -> int:
        index = self._index
        return sum(index[key]["status"] for key in keys)

    def increment(self, times: int) -> None:
        # Twice as quick as "+=" in index.transact().
        increment = self._index.cache.incr
        for _ in range(times):
            increment(COUNTER)

    def increment_locked(self, times: int) -> None:
        index = self._index
        for block in blocks(times):
            with index.transact():
                for _ in block:
                    index[COUNTER] += 1

    def items(self) -> Iterable[tuple[str, Any]]:
        items: Iterable[tuple[str, Any]] = self._index.items()
        return items

    def get(self, key: str) -> Any:
        return self._index[key]

    def counter(self) -> Any:
        return self._index[COUNTER]


class DiskcacheTasks(DiskcacheConnection):
    """Which tasks are done, with diskcache. It stores whole numbers as such, and bools pickled."""

    def add(self, batches: Batches) -> None:
        for batch in batches:
            self._assign((key, 0) for key in batch)

    def mark_done_each(self, keys: list[str]) -> None:
        index = self._index
        for key in keys:
            index[key] = 1

    def counts(self) -> tuple[int, int, int]:
        return len(self._index), sum(self._index.values()), 0


class Meter:
    """Lives in the Manager's server, and tells what that one uses."""

    def read(self) -> tuple[float, int]:
        return process_time(), anonymous_memory() or 0


class Manager(SyncManager):
    """As ``multiprocessing.Manager()``."""

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

    def used_elsewhere(self) -> tuple[float, int]:
        used: tuple[float, int] = self._meter.read()
        return used

    def fill(self, batches: Batches) -> None:
        for batch in batches:
            self._dict.update(batch)

    def set_each(self, pairs: list[Any]) -> None:
        shared = self._dict
        for key, value in pairs:
            shared[key] = value

    def get_each(self, keys: list[str]) -> int:
        shared = self._dict
        return sum(shared[key]["status"] for key in keys)

    def increment(self, times: int) -> None:
        shared, lock = self._dict, self._lock
        for _ in range(times):
            with lock:
                shared[COUNTER] += 1

    def increment_locked(self, times: int) -> None:
        shared, lock = self._dict, self._lock
        for block in blocks(times):
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
        # (a process that it was passed to has no manager, and nothing to close)
        if hasattr(self, "_manager"):
            self._manager.shutdown()


class SharedSqliteDict(SqliteDict, Shared):
    """An ordered dict by hand with sqlite3 and orjson: a commit for each change."""

    def set_each(self, pairs: list[Any]) -> None:
        dumps, execute = orjson.dumps, self._db.cursor().execute
        for key, value in pairs:
            execute(self._assignment, (key, dumps(value)))

    def get_each(self, keys: list[str]) -> int:
        loads, execute = orjson.loads, self._db.cursor().execute
        return sum(
            loads(execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()[0])["status"] for key in keys
        )

    def increment(self, times: int) -> None:
        execute = self._db.cursor().execute
        for _ in range(times):
            execute("UPDATE items SET value = value + 1 WHERE key = ?", (COUNTER,))

    def increment_locked(self, times: int) -> None:
        execute = self._db.cursor().execute
        for block in blocks(times):
            execute("BEGIN IMMEDIATE")
            for _ in block:
                execute("UPDATE items SET value = value + 1 WHERE key = ?", (COUNTER,))
            execute("COMMIT")

    def counter(self) -> Any:
        return int(self._db.execute("SELECT value FROM items WHERE key = ?", (COUNTER,)).fetchone()[0])


class SharedSqliteTasks(SqliteConnection, Shared):
    """A queue by hand with sqlite3: 0 is waiting, 1 is claimed, 2 is done. What a worker that died had claimed stays
    claimed."""

    _schema = """CREATE TABLE IF NOT EXISTS tasks
                 (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, status INTEGER NOT NULL DEFAULT 0,
                  tries INTEGER NOT NULL DEFAULT 0, value BLOB);
                 CREATE INDEX IF NOT EXISTS waiting ON tasks (number) WHERE status = 0"""

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM tasks").fetchone()[0])

    def add(self, batches: Batches) -> None:
        for batch in batches:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO tasks (key) VALUES (?)", zip(batch))
            self._db.execute("COMMIT")

    def mark_done_each(self, keys: list[str]) -> None:
        execute = self._db.cursor().execute
        for key in keys:
            execute("UPDATE tasks SET status = 2 WHERE key = ?", (key,))

    def _claim(self, limit: int) -> list[tuple[int, str]]:
        return self._db.execute(
            """UPDATE tasks SET status = 1, tries = tries + 1 WHERE number IN
               (SELECT number FROM tasks WHERE status = 0 ORDER BY number LIMIT ?) RETURNING number, key""",
            (limit,),
        ).fetchall()

    def claim_done(self) -> int:
        execute = self._db.cursor().execute
        done = 0
        while claimed := self._claim(1):
            for number, _key in claimed:
                execute("UPDATE tasks SET status = 2 WHERE number = ?", (number,))
                done += 1
        return done

    def claim_done_in_batches(self) -> int:
        done = 0
        while claimed := self._claim(BLOCK):
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE tasks SET status = 2 WHERE number = ?", [(number,) for number, _key in claimed]
            )
            self._db.execute("COMMIT")
            done += len(claimed)
        return done

    def counts(self) -> tuple[int, int, int]:
        total, done, tried = self._db.execute(
            "SELECT count(*), sum(status = 2), sum(tries > 0) FROM tasks"
        ).fetchone()
        return total, done, tried


class BareLmdb(Shared):
    """One database of py-lmdb: no order, no status, nothing but the engine. What there is no getting below."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._env = lmdb.open(path, map_size=1 << 36, sync=False)

    def __reduce__(self) -> Any:
        return type(self), (self._path,)

    def __len__(self) -> int:
        return int(self._env.stat()["entries"])

    def _assign(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        with self._env.begin(write=True) as txn:
            txn.cursor().putmulti(items)

    def _value(self, key: str) -> Any:
        with self._env.begin() as txn:
            return orjson.loads(txn.get(key.encode(), b""))

    def close(self) -> None:
        self._env.close()


class BareLmdbDict(BareLmdb):
    """A dict: one transaction for each operation."""

    def fill(self, batches: Batches) -> None:
        for batch in batches:
            self._assign((key.encode(), orjson.dumps(value)) for key, value in batch)

    def set_each(self, pairs: list[Any]) -> None:
        dumps, begin = orjson.dumps, self._env.begin
        for key, value in pairs:
            with begin(write=True) as txn:
                txn.put(key.encode(), dumps(value))

    def get_each(self, keys: list[str]) -> int:
        value = self._value
        return sum(value(key)["status"] for key in keys)

    def increment(self, times: int) -> None:
        for _ in range(times):
            self._increment(range(1))

    def increment_locked(self, times: int) -> None:
        for block in blocks(times):
            self._increment(block)

    def _increment(self, block: range) -> None:
        loads, dumps, key = orjson.loads, orjson.dumps, COUNTER.encode()
        with self._env.begin(write=True) as txn:
            for _ in block:
                txn.put(key, dumps(loads(txn.get(key, b"")) + 1))

    def items(self) -> Iterator[tuple[str, Any]]:
        with self._env.begin() as txn:
            for key, value in txn.cursor():
                yield key.decode(), orjson.loads(value)

    def get(self, key: str) -> Any:
        return self._value(key)

    def counter(self) -> Any:
        return self._value(COUNTER)


class BareLmdbTasks(BareLmdb):
    """Which tasks are done."""

    def add(self, batches: Batches) -> None:
        for batch in batches:
            self._assign((key.encode(), b"0") for key in batch)

    def mark_done_each(self, keys: list[str]) -> None:
        begin = self._env.begin
        for key in keys:
            with begin(write=True) as txn:
                txn.put(key.encode(), b"1")

    def counts(self) -> tuple[int, int, int]:
        with self._env.begin() as txn, closing(txn.cursor()) as cursor:
            statuses = [int(status) for status in cursor.iternext(keys=False)]
        return len(statuses), sum(statuses), 0


def blocks(times: int) -> Iterator[range]:
    """``times`` in ranges of 100."""
    for begin in range(0, times, BLOCK):
        yield range(begin, min(begin + BLOCK, times))


def _peers() -> Iterator[tuple[str, Peer]]:
    yield "tastypy_fast", Peer(
        f"tastypy_fast {tastypy_fast.__version__}",
        'durability="process": a killed process loses nothing, a power cut what came after the last sync',
        TastypyDict,
        TastypyTasks,
    )
    if find_spec("diskcache"):
        yield "diskcache", Peer(
            f"diskcache {version('diskcache')}", "Index, WAL, synchronous=NORMAL", DiskcacheDict, DiskcacheTasks
        )
    yield "Manager", Peer("multiprocessing.Manager().dict()", "in memory, gone with its server", ManagerDict, None)
    # UPDATE ... RETURNING came with 3.35.
    queue = SharedSqliteTasks if sqlite3.sqlite_version_info >= (3, 35) else None
    yield "sqlite3", Peer(
        f"SQLite {sqlite3.sqlite_version}",
        "WAL, synchronous=NORMAL: a power cut may undo the commits since the last checkpoint",
        SharedSqliteDict,
        queue,
    )
    yield "bare lmdb", Peer(
        f"py-lmdb {lmdb.__version__}",
        "sync=False, the floor: keys and values alone, never flushed, a power cut may break it",
        BareLmdbDict,
        BareLmdbTasks,
    )


SHARED_PEERS = dict(_peers())
LEFT_OUT = {} if "diskcache" in SHARED_PEERS else {"diskcache": "not installed, left out; it comes with [bench]"}
