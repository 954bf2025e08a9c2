"""The stores that are measured: tastypy_fast, the same promises implemented by hand with LMDB and SQLite, and packages.

The promises: keys keep the order in which they were first added, and an overwritten key keeps its place. Values are
JSON. A kill loses at most 1,000 changes.

"By hand" is code that an expert of the engine would write for these promises only. It has no type checks, no cache, no
second process, and no key over 511 bytes. Every setting is chosen for speed, as long as the promises hold. Packages are
used as their documentation recommends for speed; most keep only some of the promises. The store "lmdb layout" is an
upper bound: it loses everything when it is killed. "lmdb layout promised" keeps the promises of
tastypy_fast, without any check.
``base`` describes the interface of a store.
"""

from __future__ import annotations

import sqlite3
from importlib.metadata import version
from importlib.util import find_spec

import lmdb
import orjson

import tastypy_fast
from benchmarks.stores.base import Package, StoreInfo
from benchmarks.stores.lmdb_by_hand import LmdbDict, LmdbTasks
from benchmarks.stores.lmdb_layout import LayoutDict, LayoutTasks, PromisedLayoutDict, PromisedLayoutTasks
from benchmarks.stores.packages import (
    DiskcacheDict,
    DiskcacheTasks,
    LmdbmDict,
    RocksdictDict,
    RocksdictFlushedDict,
    SqlitedictDict,
)
from benchmarks.stores.queues import HueyTasks, LitequeueTasks, PersistQueueTasks
from benchmarks.stores.sqlite_by_hand import SqliteDict, SqliteFlushedDict, SqliteFlushedTasks, SqliteTasks
from benchmarks.stores.tastypy import TastypyDict, TastypyTasks

OURS = "tastypy_fast"
# The stores that need no other package.
BY_HAND = ("lmdb", "lmdb layout", "lmdb layout promised", "sqlite3", "sqlite3 full")
LMDB_ENGINE = ".".join(map(str, lmdb.version()))
LMDB = f"py-lmdb {lmdb.__version__} (engine {LMDB_ENGINE}), orjson {orjson.__version__}"
SQLITE = f"SQLite {sqlite3.sqlite_version}"
# What a power loss can undo.
LOSES_LAST_BATCH = "each batch of 1,000 is flushed; power loss can undo the last one"
LOSES_NO_BATCH = "each batch of 1,000 is flushed; power loss undoes none"
LOSES_SINCE_CHECKPOINT = "flushed at checkpoints; power loss can undo everything since the last one"
NEVER_FLUSHED = "never flushed; power loss can damage the file"

PACKAGES = {
    "rocksdict": Package(
        "rocksdict",
        "rocksdict",
        StoreInfo(
            "",
            "WAL, sync=False",
            "flushed when a buffer is full; power loss can undo everything since then",
            RocksdictDict,
            None,
            "MIT, released in 2025; sorts its keys",
            "at checkpoints",
        ),
    ),
    "rocksdict flushed": Package(
        "rocksdict",
        "rocksdict",
        StoreInfo(
            "",
            "WAL, sync=True",
            LOSES_NO_BATCH,
            RocksdictFlushedDict,
            None,
            "MIT, released in 2025; sorts its keys",
            "after each batch",
        ),
    ),
    "lmdbm": Package(
        "lmdbm",
        "lmdbm",
        StoreInfo(
            "",
            "metasync=False",
            LOSES_LAST_BATCH,
            LmdbmDict,
            None,
            "ISC, last release in 2024; sorts its keys",
            "after each batch",
        ),
    ),
    "sqlitedict": Package(
        "sqlitedict",
        "sqlitedict",
        StoreInfo(
            "",
            "WAL, synchronous=OFF",
            NEVER_FLUSHED,
            SqlitedictDict,
            None,
            "Apache-2.0, last release in 2022; moves an overwritten key to the end",
            "never",
        ),
    ),
    "diskcache": Package(
        "diskcache",
        "diskcache",
        StoreInfo(
            "",
            "Index, WAL, synchronous=NORMAL",
            LOSES_SINCE_CHECKPOINT,
            DiskcacheDict,
            DiskcacheTasks,
            "Apache-2.0, last release in 2023",
            "at checkpoints",
        ),
    ),
    "persist-queue": Package(
        "persistqueue",
        "persist-queue",
        StoreInfo(
            "",
            "SQLiteAckQueue, WAL, synchronous=FULL",
            "each operation is flushed; power loss undoes none",
            None,
            PersistQueueTasks,
            "BSD-3-Clause, released in 2025; a queue without tries and without lookup by key",
            "after each task",
        ),
    ),
    "litequeue": Package(
        "litequeue",
        "litequeue",
        StoreInfo(
            "",
            "WAL, synchronous=NORMAL",
            f"each operation is committed, {LOSES_SINCE_CHECKPOINT}",
            None,
            LitequeueTasks,
            "MIT, last release in 2024; a queue without tries and without lookup by key",
            "at checkpoints",
        ),
    ),
    "huey": Package(
        "huey",
        "huey",
        StoreInfo(
            "",
            "SqliteHuey, WAL, fsync=False, results=False",
            f"each operation is committed, {NEVER_FLUSHED}",
            None,
            HueyTasks,
            "MIT, released in 2026; a queue that deletes done tasks",
            "never",
        ),
    ),
}


def installed(packages: dict[str, Package]) -> dict[str, StoreInfo]:
    """Return the stores whose package is installed, with its version."""
    return {
        name: package.info._replace(version=f"{package.distribution} {version(package.distribution)}")
        for name, package in packages.items()
        if find_spec(package.module)
    }


def not_installed(packages: dict[str, Package]) -> dict[str, str]:
    """Return the stores whose package is not installed, with a message."""
    return {
        name: "skipped, because it is not installed; install tastypy_fast[bench]"
        for name, package in packages.items()
        if not find_spec(package.module)
    }


OWN_STORES = {
    OURS: StoreInfo(
        f"tastypy_fast {tastypy_fast.__version__}",
        'durability="normal"',
        LOSES_LAST_BATCH,
        TastypyDict,
        TastypyTasks,
        "MIT",
        "after each batch",
    ),
    "lmdb": StoreInfo(
        LMDB, "metasync=False", LOSES_LAST_BATCH, LmdbDict, LmdbTasks, "written by hand", "after each batch"
    ),
    "lmdb layout": StoreInfo(
        LMDB,
        "one transaction for everything",
        "flushed once at the end; a kill loses everything",
        LayoutDict,
        LayoutTasks,
        "tastypy_fast's layout, written by hand",
        "at the end",
    ),
    "lmdb layout promised": StoreInfo(
        LMDB,
        "metasync=False",
        LOSES_LAST_BATCH,
        PromisedLayoutDict,
        PromisedLayoutTasks,
        "tastypy_fast's layout, written by hand, for keys in order",
        "after each batch",
    ),
    "sqlite3": StoreInfo(
        f"{SQLITE}, orjson {orjson.__version__}",
        "WAL, synchronous=NORMAL",
        LOSES_SINCE_CHECKPOINT,
        SqliteDict,
        SqliteTasks,
        "written by hand",
        "at checkpoints",
    ),
    "sqlite3 full": StoreInfo(
        f"{SQLITE}, orjson {orjson.__version__}",
        "WAL, synchronous=FULL",
        LOSES_NO_BATCH,
        SqliteFlushedDict,
        SqliteFlushedTasks,
        "written by hand",
        "after each batch",
    ),
}
STORES = {**OWN_STORES, **installed(PACKAGES)}
NOT_INSTALLED = not_installed(PACKAGES)
# With the packages that are not installed, to describe results of another machine.
ALL_STORES = {**OWN_STORES, **{name: package.info for name, package in PACKAGES.items()}}
