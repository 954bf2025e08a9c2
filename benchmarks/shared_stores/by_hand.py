"""A shared store written by hand with sqlite3 and orjson, and a lower bound of the cost: one py-lmdb database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson

from benchmarks.shared_stores.bare_environment import PAGE, NeverFlushed, OpenEnvironment
from benchmarks.shared_stores.base import COUNTER, Blocks, Shared
from benchmarks.stores.base import Batches, Tasks
from benchmarks.stores.sqlite_by_hand import SqliteConnection, SqliteDict


class SharedSqlite(SqliteConnection, Shared):
    """A database that several processes have open."""

    def flush(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class SharedSqliteDict(SharedSqlite, SqliteDict):
    """An ordered dict. Each change is a commit."""

    def set_each(self, pairs: list[Any]) -> None:
        dumps, execute = orjson.dumps, self._db.cursor().execute
        for key, value in pairs:
            execute(self._assignment, (key, dumps(value)))

    # fill() makes each batch a transaction.
    set_many = SqliteDict.fill

    def get_each(self, keys: list[str]) -> int:
        loads, execute = orjson.loads, self._db.cursor().execute
        return sum(
            loads(execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()[0])["status"] for key in keys
        )

    def increment(self, times: int) -> None:
        execute = self._db.cursor().execute
        for _ in range(times):
            execute("UPDATE items SET value = value + 1 WHERE key = ?", (COUNTER,))

    def increment_locked(self, blocks: Blocks) -> None:
        execute = self._db.cursor().execute
        for block in blocks:
            execute("BEGIN IMMEDIATE")
            for _ in block:
                execute("UPDATE items SET value = value + 1 WHERE key = ?", (COUNTER,))
            execute("COMMIT")

    def counter(self) -> Any:
        return int(self._db.execute("SELECT value FROM items WHERE key = ?", (COUNTER,)).fetchone()[0])


class SharedSqliteTasks(SharedSqlite, Tasks):
    """A task queue. The status is 0 (waiting), 1 (claimed) or 2 (done). A task whose worker died stays claimed."""

    _schema = """CREATE TABLE IF NOT EXISTS tasks
                 (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, status INTEGER NOT NULL DEFAULT 0,
                  tries INTEGER NOT NULL DEFAULT 0, value BLOB);
                 CREATE INDEX IF NOT EXISTS waiting ON tasks (number) WHERE status = 0"""

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM tasks").fetchone()[0])

    def add(self, batches: Batches) -> None:
        self._in_batches("INSERT INTO tasks (key) VALUES (?)", map(zip, batches))

    def mark_done_each(self, keys: list[str]) -> None:
        execute = self._db.cursor().execute
        for key in keys:
            execute("UPDATE tasks SET status = 2 WHERE key = ?", (key,))

    def mark_done_many(self, batches: Batches) -> None:
        self._in_batches("UPDATE tasks SET status = 2 WHERE key = ?", map(zip, batches))

    def _claim(self, limit: int) -> list[tuple[int, str]]:
        return self._db.execute(
            """UPDATE tasks SET status = 1, tries = tries + 1 WHERE number IN
               (SELECT number FROM tasks WHERE status = 0 ORDER BY number LIMIT ?) RETURNING number, key""",
            (limit,),
        ).fetchall()

    def claim_done(self, _batch: int = 1) -> int:
        execute = self._db.cursor().execute
        done = 0
        while claimed := self._claim(1):
            for number, _key in claimed:
                execute("UPDATE tasks SET status = 2 WHERE number = ?", (number,))
                done += 1
        return done

    def claim_done_many(self, batch: int) -> int:
        done = 0
        while claimed := self._claim(batch):
            self._in_batches("UPDATE tasks SET status = 2 WHERE number = ?", [[(number,) for number, _key in claimed]])
            done += len(claimed)
        return done

    def counts(self) -> tuple[int, int, int]:
        total, done, tried = self._db.execute(
            "SELECT count(*), sum(status = 2), sum(tries > 0) FROM tasks"
        ).fetchone()
        return total, done, tried


class BareLmdb(Shared):
    """One py-lmdb database without order and status: the cost of the engine alone."""

    def __init__(self, path: str, environment: OpenEnvironment = NeverFlushed) -> None:
        self._arguments = path, environment
        self._environment = environment(path, 0)
        self._writing, self._begin = self._environment.writing, self._environment.begin

    def __reduce__(self) -> Any:
        return type(self), self._arguments

    def __len__(self) -> int:
        return int(self._environment.env.stat()["entries"])

    def _assign(self, items: list[tuple[bytes, bytes]]) -> None:
        with self._writing(len(items) * PAGE) as txn:
            txn.cursor().putmulti(items)

    def _value(self, key: str) -> Any:
        with self._begin() as txn:
            return orjson.loads(txn.get(key.encode(), b""))

    def sync(self) -> None:
        self._environment.sync()

    def close(self) -> None:
        self._environment.close()


class BareLmdbDict(BareLmdb):
    """A dict. Each operation is a transaction."""

    def fill(self, batches: Batches) -> None:
        for batch in batches:
            self._assign([(key.encode(), orjson.dumps(value)) for key, value in batch])

    def set_each(self, pairs: list[Any]) -> None:
        dumps, writing = orjson.dumps, self._writing
        for key, value in pairs:
            with writing() as txn:
                txn.put(key.encode(), dumps(value))

    set_many = fill

    def delete_each(self, keys: list[str]) -> None:
        writing = self._writing
        for key in keys:
            with writing() as txn:
                txn.delete(key.encode())

    def get_each(self, keys: list[str]) -> int:
        value = self._value
        return sum(value(key)["status"] for key in keys)

    def increment(self, times: int) -> None:
        for _ in range(times):
            self._increment(range(1))

    def increment_locked(self, blocks: Blocks) -> None:
        for block in blocks:
            self._increment(block)

    def _increment(self, block: range) -> None:
        loads, dumps, key = orjson.loads, orjson.dumps, COUNTER.encode()
        with self._writing() as txn:
            for _ in block:
                txn.put(key, dumps(loads(txn.get(key, b"")) + 1))

    def items(self) -> Iterator[tuple[str, Any]]:
        with self._begin() as txn:
            for key, value in txn.cursor():
                yield key.decode(), orjson.loads(value)

    def get(self, key: str) -> Any:
        return self._value(key)

    def counter(self) -> Any:
        return self._value(COUNTER)


class BareLmdbTasks(BareLmdb, Tasks):
    """The tasks that are done."""

    def add(self, batches: Batches) -> None:
        for batch in batches:
            self._assign([(key.encode(), b"0") for key in batch])

    def mark_done_many(self, batches: Batches) -> None:
        for batch in batches:
            self._assign([(key.encode(), b"1") for key in batch])

    def mark_done_each(self, keys: list[str]) -> None:
        writing = self._writing
        for key in keys:
            with writing() as txn:
                txn.put(key.encode(), b"1")

    def counts(self) -> tuple[int, int, int]:
        with self._begin() as txn, closing(txn.cursor()) as cursor:
            statuses = [int(status) for status in cursor.iternext(keys=False)]
        return len(statuses), sum(statuses), 0
