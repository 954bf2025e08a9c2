"""The stores that several processes use at once: tastypy_fast's shared classes, and the alternatives.

Three stores are missing. rocksdict can be opened for writing by one process only. sqlitedict has no transaction that
reads and writes. persist-queue may return one task to two processes. ``base`` describes the interface of a store.
"""

from __future__ import annotations

import sqlite3

import lmdb

import tastypy_fast
from benchmarks.shared_stores.by_hand import BareLmdbDict, BareLmdbTasks, SharedSqliteDict, SharedSqliteTasks
from benchmarks.shared_stores.packages import (
    ManagerDict,
    SharedDiskcacheDict,
    SharedDiskcacheTasks,
    SharedHueyTasks,
    SharedLitequeueTasks,
    SharedLmdbmDict,
)
from benchmarks.shared_stores.tastypy import TastypyDict, TastypyTasks
from benchmarks.stores import LOSES_SINCE_CHECKPOINT, NEVER_FLUSHED, OURS, SQLITE, installed, not_installed
from benchmarks.stores.base import Package, StoreInfo

BARE = "bare lmdb"
SHARED_BY_HAND = ("sqlite3", BARE)

PACKAGES = {
    "diskcache": Package(
        "diskcache",
        "diskcache",
        StoreInfo(
            "",
            "Index, WAL, synchronous=NORMAL",
            LOSES_SINCE_CHECKPOINT,
            SharedDiskcacheDict,
            SharedDiskcacheTasks,
            "Apache-2.0, last release in 2023",
            "at checkpoints",
        ),
    ),
    "lmdbm": Package(
        "lmdbm",
        "lmdbm",
        StoreInfo("", "sync=False", NEVER_FLUSHED, SharedLmdbmDict, None, "ISC, last release in 2024", "never"),
    ),
    "litequeue": Package(
        "litequeue",
        "litequeue",
        StoreInfo(
            "",
            "WAL, synchronous=NORMAL",
            LOSES_SINCE_CHECKPOINT,
            None,
            SharedLitequeueTasks,
            "MIT, last release in 2024",
            "at checkpoints",
        ),
    ),
    "huey": Package(
        "huey",
        "huey",
        StoreInfo(
            "",
            "SqliteHuey, WAL, fsync=False, results=False",
            NEVER_FLUSHED,
            None,
            SharedHueyTasks,
            "MIT, released in 2026",
            "never",
        ),
    ),
}
OWN_STORES = {
    OURS: StoreInfo(
        f"tastypy_fast {tastypy_fast.__version__}",
        'durability="process"',
        "a kill loses nothing; power loss can undo what came after the last flush, about a second ago",
        TastypyDict,
        TastypyTasks,
        "MIT",
        "after a second, or `sync()`",
    ),
    "Manager": StoreInfo(
        "multiprocessing.Manager().dict()",
        "a dict in a server process",
        "in memory; lost when the server ends",
        ManagerDict,
        None,
        "part of Python",
        "never (in memory)",
    ),
    "sqlite3": StoreInfo(
        SQLITE,
        "WAL, synchronous=NORMAL",
        LOSES_SINCE_CHECKPOINT,
        SharedSqliteDict,
        # UPDATE ... RETURNING needs SQLite 3.35.
        SharedSqliteTasks if sqlite3.sqlite_version_info >= (3, 35) else None,
        "written by hand",
        "at checkpoints",
    ),
    BARE: StoreInfo(
        f"py-lmdb {lmdb.__version__}",
        "sync=False, keys and values only",
        NEVER_FLUSHED,
        BareLmdbDict,
        BareLmdbTasks,
        "written by hand",
        "never",
    ),
}
SHARED_STORES = {**OWN_STORES, **installed(PACKAGES)}
NOT_INSTALLED = not_installed(PACKAGES)
# With the packages that are not installed, to describe results of another machine.
ALL_SHARED_STORES = {**OWN_STORES, **{name: package.info for name, package in PACKAGES.items()}}
