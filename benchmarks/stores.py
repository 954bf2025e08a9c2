"""The stores that are measured: tastypy_fast, and the same promises kept by hand with LMDB and with SQLite.

The promises are: keys stay in the order in which they were first added, overwriting keeps a key's place,
values are JSON, and at most 1,000 changes are lost when the process is killed. "By hand" means as somebody would
write it who knows the library well and needs nothing else: no checks of types, no cache, no second process,
no key over 511 bytes, every setting chosen for speed as long as these promises hold.

An ordered dict has ``fill``, ``read``, ``items``, ``update``, ``get``, its length and an iterator over its keys; a
list of tasks has ``add``, ``loop``, ``counts``; both have ``sync`` and ``close``. Batches are lists of at most
1,000 (``BATCH``).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import count, islice
from struct import Struct
from typing import Any, NamedTuple

import lmdb
import orjson

import tastypy_fast

Batches = Iterable[list[Any]]

BATCH = 1000
_NUMBER = Struct("=Q")


class TastypyDict:
    """A PersistentOrderedDict, as it comes."""

    def __init__(self, path: str) -> None:
        self._pod = tastypy_fast.PersistentOrderedDict(path)
        self.items = self._pod.iteritems
        self.get = self._pod.__getitem__
        self.sync = self._pod.sync
        self.close = self._pod.close

    def __len__(self) -> int:
        return len(self._pod)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pod)

    def fill(self, batches: Batches) -> None:
        pod = self._pod
        for batch in batches:
            for key, value in batch:
                pod[key] = value

    def read(self, batches: Batches) -> int:
        pod = self._pod
        return sum(pod[key]["status"] for batch in batches for key in batch)

    def update(self) -> None:
        pod = self._pod
        for key in pod:
            pod[key]["status"] += 1


class TastypyTasks:
    """A ProgressTracker, as it comes."""

    def __init__(self, path: str) -> None:
        self._tracker = tastypy_fast.ProgressTracker(path)
        self.sync = self._tracker.sync
        self.close = self._tracker.close

    def add(self, batches: Batches) -> None:
        for batch in batches:
            self._tracker.add_many(batch)

    def loop(self) -> int:
        tracker = self._tracker
        done = 0
        for key in tracker.try_keys():
            tracker.mark_done(key)
            done += 1
        return done

    def counts(self) -> tuple[int, int, int]:
        return len(self._tracker), self._tracker.num_done(), self._tracker.num_tried()


class LmdbEnvironment:
    """Two databases: key to value, and order number to key, which says in which order the keys were added."""

    def __init__(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)
        # metasync=False is what tastypy_fast's durability="normal" is.
        self._env = lmdb.open(path, map_size=1 << 36, max_dbs=2, metasync=False)
        self._values = self._env.open_db(b"values")
        self._order = self._env.open_db(b"order", integerkey=True)

    def __len__(self) -> int:
        with self._env.begin() as txn:
            return int(txn.stat(self._values)["entries"])

    def _next_number(self, txn: Any) -> int:
        cursor = txn.cursor(self._order)
        return _NUMBER.unpack(cursor.key())[0] + 1 if cursor.last() else 0

    def _put(self, items: list[tuple[bytes, bytes]]) -> None:
        """Assign in one transaction; keys that are new go to the end of the order, others keep their place."""
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
        """The next batch of encoded keys in order, and the order number of the last of them."""
        cursor = txn.cursor(self._order)
        if not (cursor.set_range(last) and cursor.next() if last else cursor.first()):
            return [], last
        found = list(islice(cursor.iternext(), BATCH))
        return [key for _, key in found], found[-1][0]

    def sync(self) -> None:
        self._env.sync(True)

    def close(self) -> None:
        self._env.close()


class LmdbDict(LmdbEnvironment):
    """An ordered dict by hand with py-lmdb and orjson."""

    def fill(self, batches: Batches) -> None:
        dumps = orjson.dumps
        for batch in batches:
            self._put([(key.encode(), dumps(value)) for key, value in batch])

    def read(self, batches: Batches) -> int:
        loads: Any = orjson.loads
        with self._env.begin(db=self._values) as txn:
            get = txn.get
            return sum(loads(get(key.encode()))["status"] for batch in batches for key in batch)

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

    def get(self, key: str) -> Any:
        with self._env.begin(db=self._values) as txn:
            return orjson.loads(txn.get(key.encode(), b""))


class LmdbTasks(LmdbEnvironment):
    """A list of tasks by hand with py-lmdb and orjson: the status is in each task's dict."""

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
                    key.decode()  # what the work would get
                    task["_done"] = True
                    put(key, dumps(task))
                    done += 1

    def counts(self) -> tuple[int, int, int]:
        with self._env.begin(db=self._values) as txn:
            tasks = [orjson.loads(raw) for raw in txn.cursor().iternext(keys=False)]
        return len(tasks), sum(task["_done"] for task in tasks), sum(task["_tries"] > 0 for task in tasks)


class SqliteConnection:
    """A database in WAL mode; ``synchronous=NORMAL`` flushes at a checkpoint, ``FULL`` with each commit too."""

    _schema = ""
    _synchronous = "NORMAL"

    def __init__(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)
        self._path = path
        self._db = sqlite3.connect(os.path.join(path, "store.sqlite"), timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={self._synchronous}")
        self._db.execute("PRAGMA cache_size=-65536")
        self._db.executescript(self._schema)

    def __reduce__(self) -> Any:
        return type(self), (self._path,)

    def sync(self) -> None:
        """Every batch was committed."""

    def close(self) -> None:
        self._db.close()


class SqliteDict(SqliteConnection):
    """An ordered dict by hand with sqlite3 and orjson."""

    _schema = """CREATE TABLE IF NOT EXISTS items
                 (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL)"""
    _assignment = """INSERT INTO items (key, value) VALUES (?, ?)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value"""

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM items").fetchone()[0])

    def fill(self, batches: Batches) -> None:
        dumps = orjson.dumps
        for batch in batches:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(self._assignment, [(key, dumps(value)) for key, value in batch])
            self._db.execute("COMMIT")

    def read(self, batches: Batches) -> int:
        loads, execute = orjson.loads, self._db.cursor().execute
        self._db.execute("BEGIN")
        total = 0
        for batch in batches:
            for key in batch:
                total += loads(execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()[0])["status"]
        self._db.execute("COMMIT")
        return total

    def items(self) -> Iterator[tuple[str, Any]]:
        loads = orjson.loads
        for key, value in self._db.execute("SELECT key, value FROM items ORDER BY number"):
            yield key, loads(value)

    def __iter__(self) -> Iterator[str]:
        for (key,) in self._db.execute("SELECT key FROM items ORDER BY number"):
            yield key

    def update(self) -> None:
        loads, dumps = orjson.loads, orjson.dumps
        last = -1
        while rows := self._db.execute(
            "SELECT number, value FROM items WHERE number > ? ORDER BY number LIMIT ?", (last, BATCH)
        ).fetchall():
            changed = []
            for number, raw in rows:
                value = loads(raw)
                value["status"] += 1
                changed.append((dumps(value), number))
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("UPDATE items SET value = ? WHERE number = ?", changed)
            self._db.execute("COMMIT")
            last = rows[-1][0]

    def get(self, key: str) -> Any:
        return orjson.loads(self._db.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()[0])


class SqliteTasks(SqliteConnection):
    """A list of tasks by hand with sqlite3: the status is in columns of its own."""

    _schema = """CREATE TABLE IF NOT EXISTS tasks
                 (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, done INTEGER NOT NULL DEFAULT 0,
                  aborted INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0, value BLOB)"""

    def add(self, batches: Batches) -> None:
        for batch in batches:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO tasks (key) VALUES (?)", zip(batch))
            self._db.execute("COMMIT")

    def loop(self) -> int:
        execute = self._db.cursor().execute
        done = 0
        last = -1
        while rows := self._db.execute(
            "SELECT number, key FROM tasks WHERE number > ? AND NOT done AND NOT aborted ORDER BY number LIMIT ?",
            (last, BATCH),
        ).fetchall():
            execute("BEGIN IMMEDIATE")
            for _, key in rows:
                execute("UPDATE tasks SET tries = tries + 1 WHERE key = ?", (key,))
                execute("UPDATE tasks SET done = 1 WHERE key = ?", (key,))
                done += 1
            execute("COMMIT")
            last = rows[-1][0]
        return done

    def counts(self) -> tuple[int, int, int]:
        total, done, tried = self._db.execute("SELECT count(*), sum(done), sum(tries > 0) FROM tasks").fetchone()
        return total, done, tried


class SqliteFlushedDict(SqliteDict):
    """The same, each commit flushed: what is nearest to the promise of the other stores."""

    _synchronous = "FULL"


class SqliteFlushedTasks(SqliteTasks):
    """The same, each commit flushed."""

    _synchronous = "FULL"


class Peer(NamedTuple):
    """What is measured under one name. A class is None where there is no such thing."""

    version: str
    promise: str
    dict_class: Any
    tasks_class: Any


PEERS = {
    "tastypy_fast": Peer(
        f"tastypy_fast {tastypy_fast.__version__}",
        'durability="normal": each commit flushed, the last one may be undone by a power cut',
        TastypyDict,
        TastypyTasks,
    ),
    "lmdb": Peer(
        f"py-lmdb {lmdb.__version__} (engine {'.'.join(map(str, lmdb.version()))}), orjson {orjson.__version__}",
        "metasync=False: the same",
        LmdbDict,
        LmdbTasks,
    ),
    "sqlite3": Peer(
        f"SQLite {sqlite3.sqlite_version}, orjson {orjson.__version__}",
        "WAL, synchronous=NORMAL: flushed at checkpoints only, a power cut may undo the commits since",
        SqliteDict,
        SqliteTasks,
    ),
    "sqlite3 full": Peer(
        f"SQLite {sqlite3.sqlite_version}, orjson {orjson.__version__}",
        "WAL, synchronous=FULL: each commit flushed, none undone by a power cut",
        SqliteFlushedDict,
        SqliteFlushedTasks,
    ),
}
OURS = "tastypy_fast"
