"""A store written by hand with sqlite3 and orjson."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from benchmarks.stores.base import BATCH, Batches, OrderedDict, Tasks, Visit


class SqliteConnection:
    """A database in WAL mode. ``synchronous=NORMAL`` flushes at a checkpoint, ``FULL`` also at each commit."""

    _schema = ""
    _synchronous = "NORMAL"

    def __init__(self, path: str, mode: str = "rwc") -> None:
        os.makedirs(path, exist_ok=True)
        self._path = path
        file = f"file:{os.path.join(path, 'store.sqlite')}?mode={mode}"
        self._db = sqlite3.connect(file, timeout=60, isolation_level=None, uri=True)
        self._db.execute("PRAGMA cache_size=-65536")
        if mode != "ro":
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={self._synchronous}")
            self._db.executescript(self._schema)

    def __reduce__(self) -> Any:
        return type(self), (self._path,)

    def _in_batches(self, statement: str, batches: Iterable[Iterable[Any]]) -> None:
        """Execute a statement for each item. Each batch is a transaction."""
        for batch in batches:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, batch)
            self._db.execute("COMMIT")

    def sync(self) -> None:
        """Do nothing, because every batch was committed."""

    def close(self) -> None:
        self._db.close()


class SqliteDict(SqliteConnection, OrderedDict):
    """An ordered dict."""

    _schema = """CREATE TABLE IF NOT EXISTS items
                 (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL)"""
    _assignment = """INSERT INTO items (key, value) VALUES (?, ?)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value"""

    @classmethod
    def for_reading(cls, path: str) -> SqliteDict:
        return cls(path, "ro")

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM items").fetchone()[0])

    def fill(self, batches: Batches) -> None:
        dumps = orjson.dumps
        self._in_batches(self._assignment, ([(key, dumps(value)) for key, value in batch] for batch in batches))

    def overwrite(self, batches: Batches) -> None:
        dumps = orjson.dumps
        self._in_batches(
            "UPDATE items SET value = ? WHERE key = ?",
            ([(dumps(value), key) for key, value in batch] for batch in batches),
        )

    def read(self, batches: Batches) -> int:
        loads, execute = orjson.loads, self._db.cursor().execute
        self._db.execute("BEGIN")
        total = 0
        for batch in batches:
            for key in batch:
                total += loads(execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()[0])["status"]
        self._db.execute("COMMIT")
        return total

    def read_many(self, batches: Batches) -> int:
        loads = orjson.loads
        total = 0
        for batch in batches:
            marks = ", ".join("?" * len(batch))
            found = dict(self._db.execute(f"SELECT key, value FROM items WHERE key IN ({marks})", batch))
            for key in batch:
                total += loads(found[key])["status"]
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

    def delete(self, batches: Batches) -> None:
        self._in_batches("DELETE FROM items WHERE key = ?", map(zip, batches))

    def get(self, key: str) -> Any:
        return orjson.loads(self._db.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()[0])


class SqliteTasks(SqliteConnection, Tasks):
    """A list of tasks. The status has columns of its own."""

    _schema = """CREATE TABLE IF NOT EXISTS tasks
                 (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, done INTEGER NOT NULL DEFAULT 0,
                  aborted INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0, value BLOB)"""

    def add(self, batches: Batches) -> None:
        self._in_batches("INSERT INTO tasks (key) VALUES (?)", map(zip, batches))

    def mark_done(self, batches: Batches) -> None:
        self._in_batches("UPDATE tasks SET done = 1 WHERE key = ?", map(zip, batches))

    def todo(self) -> Iterator[str]:
        for (key,) in self._db.execute("SELECT key FROM tasks WHERE NOT done AND NOT aborted ORDER BY number"):
            yield key

    def crawl(self, first: str, visit: Visit) -> int:
        dumps, execute, executemany = orjson.dumps, self._db.cursor().execute, self._db.cursor().executemany
        add = "INSERT OR IGNORE INTO tasks (key) VALUES (?)"
        execute(add, (first,))
        done = 0
        last = -1
        while rows := self._next_rows(last):
            execute("BEGIN IMMEDIATE")
            for _, key in rows:
                execute("UPDATE tasks SET tries = tries + 1 WHERE key = ?", (key,))
                facts, found = visit(key)
                executemany(add, zip(found))
                execute("UPDATE tasks SET done = 1, value = ? WHERE key = ?", (dumps(facts), key))
                done += 1
            execute("COMMIT")
            last = rows[-1][0]
        return done

    def loop(self) -> int:
        execute = self._db.cursor().execute
        done = 0
        last = -1
        while rows := self._next_rows(last):
            execute("BEGIN IMMEDIATE")
            for _, key in rows:
                execute("UPDATE tasks SET tries = tries + 1 WHERE key = ?", (key,))
                execute("UPDATE tasks SET done = 1 WHERE key = ?", (key,))
                done += 1
            execute("COMMIT")
            last = rows[-1][0]
        return done

    def _next_rows(self, last: int) -> list[tuple[int, str]]:
        return self._db.execute(
            "SELECT number, key FROM tasks WHERE number > ? AND NOT done AND NOT aborted ORDER BY number LIMIT ?",
            (last, BATCH),
        ).fetchall()

    def facts(self, key: str) -> Any:
        return orjson.loads(self._db.execute("SELECT value FROM tasks WHERE key = ?", (key,)).fetchone()[0])

    def counts(self) -> tuple[int, int, int]:
        total, done, tried = self._db.execute("SELECT count(*), sum(done), sum(tries > 0) FROM tasks").fetchone()
        return total, done, tried


class SqliteFlushedDict(SqliteDict):
    """The same store, with each commit flushed. This is closest to the promise of the other stores."""

    _synchronous = "FULL"


class SqliteFlushedTasks(SqliteTasks):
    """The same store, with each commit flushed."""

    _synchronous = "FULL"
