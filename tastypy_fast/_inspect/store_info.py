"""Read the format and the sizes of a store, and the facts of its last run."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any, NamedTuple

from tastypy_fast._core.key_codec import encode_key, index_key
from tastypy_fast._lmdb.engine import NotFound
from tastypy_fast._lmdb.store_dir import DATA, DATABASES
from tastypy_fast._store.store import Store

__all__ = ["LIMIT", "RUN", "StoreInfo", "find_seq", "limit_in", "limit_to_show", "pack_limit", "pack_run", "read_limit",
           "read_run", "read_store_info"]

# The names in the database meta of the facts of the last run, and of the limit of tries.
RUN = b"run"
LIMIT = b"max_tries"


class StoreInfo(NamedTuple):
    """The format and sizes of a store.

    ``file_size`` is the number of lines per file of an export. ``bytes`` is the size of all its files, and ``free`` the
    unused part of the data file, both in bytes.
    """

    format: int
    file_size: int
    bytes: int
    free: int


def read_store_info(store: Store) -> StoreInfo:
    """Read the format and sizes of an open store. Cost: O(1), and one system call for each file of the folder."""
    with store.lock, store.begin_reading() as txn:
        version, lines = (int(txn.get(name, db=store.meta)) for name in (b"format", b"file_size"))
    return StoreInfo(version, lines, _bytes_in(store.path), _free_bytes(store))


def _bytes_in(path: str) -> int:
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.lstat(os.path.join(folder, name)).st_size
    return size


def _free_bytes(store: Store) -> int:
    """Return how many bytes of the data file no database uses. The pages of LMDB's own free list count as free."""
    db: Any = store.db
    with store.lock:
        page = db.stat()["psize"]
        # Count the two meta pages at the beginning of the file, and the page of the main database.
        used = 3
        with db.begin() as txn:
            for name, flags in DATABASES.items():
                with suppress(NotFound):
                    stat = txn.stat(db.open_db(name, txn=txn, create=False, integerkey=bool(flags)))
                    used += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return int(max(os.stat(os.path.join(store.path, DATA)).st_size - used * page, 0))


def find_seq(store: Store, key: Any) -> int | None:
    """Return the sequence number of a key, by which keys are ordered, or None if the key does not exist.

    Cost: one lookup in the index.
    """
    with store.lock, store.begin_reading() as txn:
        raw = txn.get(index_key(encode_key(key)), db=store.order)
    return None if raw is None else int.from_bytes(raw, sys.byteorder)


def pack_run(info: dict[str, Any]) -> bytes:
    """Return the facts of a run as the JSON that ``meta`` holds."""
    return json.dumps(info).encode()


def read_run(store: Store) -> dict[str, Any] | None:
    """Return the facts of the last ``run()`` of an open store, or None. Cost: O(1).

    Facts that cannot be read count as none, because they are for display only.
    """
    with store.lock, store.begin_reading() as txn:
        raw = txn.get(RUN, db=store.meta)
    try:
        info = json.loads(raw) if raw else None
    except ValueError:
        return None
    return info if isinstance(info, dict) else None


def pack_limit(max_tries: int) -> bytes:
    """Return a limit of tries as ``meta`` holds it."""
    return str(max_tries).encode()


def read_limit(store: Store) -> int:
    """Return the limit of tries that is kept with an open tracker, or 0. Cost: O(1)."""
    with store.lock, store.begin_reading() as txn:
        return limit_in(txn, store)


def limit_in(txn: Any, store: Any) -> int:
    """Return the limit of tries that a snapshot of a tracker has, or 0.

    One that cannot be read counts as none, because it is for display only.
    """
    raw = txn.get(LIMIT, db=store.meta) or b""
    return int(raw) if raw.isdigit() and len(raw) < 20 else 0


def limit_to_show(tracker: Any, txn: Any, store: Any) -> int:
    """Return the limit of tries by which a tracker shows statuses: its own, or the kept one if it only reads."""
    limit: int = tracker.max_tries
    return limit if limit or tracker.mode != "r" else limit_in(txn, store)
