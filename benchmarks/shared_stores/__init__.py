"""The stores that several processes use at once: tastypy_fast's shared ones, and what else one would take. What each
has to do is said in ``common``.

rocksdict is left out (one process at a time may open it for writing), and so are sqlitedict, which makes no
transaction of reading and writing, and persist-queue, which may hand a task to two processes."""

from __future__ import annotations

import sqlite3
from typing import Any

import lmdb

import tastypy_fast
from benchmarks.shared_stores.by_hand import BareLmdbDict, BareLmdbTasks, SharedSqliteDict, SharedSqliteTasks
from benchmarks.shared_stores.own import TastypyDict, TastypyTasks
from benchmarks.shared_stores.packages import (
    ManagerDict,
    SharedDiskcacheDict,
    SharedDiskcacheTasks,
    SharedHueyTasks,
    SharedLitequeueTasks,
    SharedLmdbmDict,
)
from benchmarks.stores import NEVER_FLUSHED, OURS, SQLITE, installed, left_out
from benchmarks.stores.common import Peer

FLOOR = "bare lmdb"
SHARED_BY_HAND = ("sqlite3", FLOOR)

_SOMETIMES = "a power cut may undo the commits since the last checkpoint"
_PACKAGES: dict[str, tuple[str, str, tuple[str, Any, Any, str, str]]] = {
    "diskcache": (
        "diskcache", "diskcache",
        (f"Index, WAL, synchronous=NORMAL: {_SOMETIMES}", SharedDiskcacheDict, SharedDiskcacheTasks,
         "Apache-2.0, last release in 2023", "in time"),
    ),
    "lmdbm": (
        "lmdbm", "lmdbm",
        (f"sync=False: {NEVER_FLUSHED}", SharedLmdbmDict, None,
         "ISC, last release in 2024", "never"),
    ),
    "litequeue": (
        "litequeue", "litequeue",
        (f"WAL, synchronous=NORMAL: {_SOMETIMES}", None, SharedLitequeueTasks, "MIT, last release in 2024", "in time"),
    ),
    "huey": (
        "huey", "huey",
        (f"SqliteHuey, WAL, fsync=False, results=False: {NEVER_FLUSHED}", None, SharedHueyTasks,
         "MIT, released in 2026", "never"),
    ),
}  # fmt: skip

SHARED_PEERS = {
    OURS: Peer(
        f"tastypy_fast {tastypy_fast.__version__}",
        'durability="process": a killed process loses nothing, a power cut what came after the last sync',
        TastypyDict,
        TastypyTasks,
        "MIT",
        "at a sync",
    ),
    **installed(_PACKAGES),
    "Manager": Peer(
        "multiprocessing.Manager().dict()",
        "in memory, gone with its server",
        ManagerDict,
        None,
        "Python's own",
        "in memory",
    ),
    "sqlite3": Peer(
        SQLITE,
        f"WAL, synchronous=NORMAL: {_SOMETIMES}",
        SharedSqliteDict,
        # UPDATE ... RETURNING came with 3.35.
        SharedSqliteTasks if sqlite3.sqlite_version_info >= (3, 35) else None,
        "written by hand",
        "in time",
    ),
    FLOOR: Peer(
        f"py-lmdb {lmdb.__version__}",
        f"sync=False, the floor: keys and values alone, {NEVER_FLUSHED}",
        BareLmdbDict,
        BareLmdbTasks,
        "written by hand",
        "never",
    ),
}
LEFT_OUT = left_out(_PACKAGES)
