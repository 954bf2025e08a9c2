"""The stores that are measured: tastypy_fast, the same promises kept by hand with LMDB and with SQLite, and packages
that keep some of them.

The promises are: keys stay in the order in which they were first added, overwriting keeps a key's place,
values are JSON, and at most 1,000 changes are lost when the process is killed. "By hand" means as somebody would
write it who knows the library well and needs nothing else: no checks of types, no cache, no second process,
no key over 511 bytes, every setting chosen for speed as long as these promises hold. A package is driven as its
documentation says that it is quick. One, "lmdb layout", loses everything when it is killed: it tells what LMDB would
allow. What each has to do is said in ``common``.
"""

from __future__ import annotations

import sqlite3
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import lmdb
import orjson

import tastypy_fast
from benchmarks.stores.common import Peer
from benchmarks.stores.lmdb_by_hand import LmdbDict, LmdbTasks
from benchmarks.stores.lmdb_layout import LayoutDict, LayoutTasks
from benchmarks.stores.own import TastypyDict, TastypyTasks
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

OURS = "tastypy_fast"
# Names in the tables of what is written by hand, and always there.
BY_HAND = ("lmdb", "lmdb layout", "sqlite3", "sqlite3 full")
ENGINE = ".".join(map(str, lmdb.version()))
SQLITE = f"SQLite {sqlite3.sqlite_version}"
# What keeps a killed process's last commits, and what a power cut leaves, in one phrase each.
FLUSHED_BUT_META = "each batch of 1,000 flushed, the last one may be undone by a power cut"
FLUSHED = "each batch of 1,000 flushed, none undone by a power cut"
SOMETIMES_FLUSHED = "flushed at checkpoints only, a power cut may undo the batches since"
NEVER_FLUSHED = "never flushed, a power cut may break it"

# module, package, and the peer without its version
_PACKAGES: dict[str, tuple[str, str, tuple[str, Any, Any, str, str]]] = {
    "rocksdict": (
        "rocksdict", "rocksdict",
        ("WAL, sync=False: flushed when a buffer is full, a power cut may undo the batches since",
         RocksdictDict, None, "MIT, released in 2025; sorted keys", "in time"),
    ),
    "rocksdict flushed": (
        "rocksdict", "rocksdict",
        (f"WAL, sync=True: {FLUSHED}", RocksdictFlushedDict, None, "MIT, released in 2025; sorted keys",
         "each batch"),
    ),
    "lmdbm": (
        "lmdbm", "lmdbm",
        (f"metasync=False: {FLUSHED_BUT_META}", LmdbmDict, None, "ISC, last release in 2024; sorted keys",
         "each batch"),
    ),
    "sqlitedict": (
        "sqlitedict", "sqlitedict",
        (f"WAL, synchronous=OFF: {NEVER_FLUSHED}", SqlitedictDict, None,
         "Apache-2.0, last release in 2022; an overwritten key moves to the end", "never"),
    ),
    "diskcache": (
        "diskcache", "diskcache",
        (f"Index, WAL, synchronous=NORMAL: {SOMETIMES_FLUSHED}", DiskcacheDict, DiskcacheTasks,
         "Apache-2.0, last release in 2023", "in time"),
    ),
    "persist-queue": (
        "persistqueue", "persist-queue",
        ("SQLiteAckQueue, WAL, synchronous=FULL: each operation flushed, none undone by a power cut", None,
         PersistQueueTasks, "BSD-3-Clause, released in 2025; a queue: no tries, no lookup by key", "each task"),
    ),
    "litequeue": (
        "litequeue", "litequeue",
        ("WAL, synchronous=NORMAL: each operation committed, a power cut may undo those since the last checkpoint",
         None, LitequeueTasks, "MIT, last release in 2024; a queue: no tries, no lookup by key", "in time"),
    ),
    "huey": (
        "huey", "huey",
        (f"SqliteHuey, WAL, fsync=False, results=False: each operation committed, {NEVER_FLUSHED}", None,
         HueyTasks, "MIT, released in 2026; a queue that forgets what is done", "never"),
    ),
}


def installed(packages: dict[str, tuple[str, str, tuple[str, Any, Any, str, str]]]) -> dict[str, Peer]:
    """Those whose package is there."""
    return {
        name: Peer(f"{package} {version(package)}", *rest)
        for name, (module, package, rest) in packages.items()
        if find_spec(module)
    }


def left_out(packages: dict[str, tuple[str, str, tuple[str, Any, Any, str, str]]]) -> dict[str, str]:
    """What to say of the others."""
    absent = packages.keys() - installed(packages).keys()
    return {name: "not installed, left out; it comes with [bench]" for name in packages if name in absent}


PEERS = {
    OURS: Peer(
        f"tastypy_fast {tastypy_fast.__version__}",
        f'durability="normal": {FLUSHED_BUT_META}',
        TastypyDict,
        TastypyTasks,
        "MIT",
        "each batch",
    ),
    "lmdb": Peer(
        f"py-lmdb {lmdb.__version__} (engine {ENGINE}), orjson {orjson.__version__}",
        f"metasync=False: {FLUSHED_BUT_META}",
        LmdbDict,
        LmdbTasks,
        "written by hand",
        "each batch",
    ),
    "lmdb layout": Peer(
        f"py-lmdb {lmdb.__version__} (engine {ENGINE}), orjson {orjson.__version__}",
        "the limit: all in memory, then one transaction, flushed once; a kill loses everything",
        LayoutDict,
        LayoutTasks,
        "tastypy_fast's databases by hand",
        "once",
    ),
    "sqlite3": Peer(
        f"{SQLITE}, orjson {orjson.__version__}",
        f"WAL, synchronous=NORMAL: {SOMETIMES_FLUSHED}",
        SqliteDict,
        SqliteTasks,
        "written by hand",
        "in time",
    ),
    "sqlite3 full": Peer(
        f"{SQLITE}, orjson {orjson.__version__}",
        f"WAL, synchronous=FULL: {FLUSHED}",
        SqliteFlushedDict,
        SqliteFlushedTasks,
        "written by hand",
        "each batch",
    ),
    **installed(_PACKAGES),
}
LEFT_OUT = left_out(_PACKAGES)
