"""Make one store of each kind as this version writes it, for the tests of every later version.

    python -m tests.support.old_formats FOLDER

``tests/store/format_N`` holds what a version of format N has made: for each store the compressed ``data.mdb``, and in
``contents.json`` what a reader must find. They are never made again, because a later version writes another format.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker
from tastypy_fast._store.store import Store

# Keys of every type: short, long enough to be stored by their digest, in every plane of Unicode, and numbers.
KEYS = ["", "plain", "tab\t and \0", "é", "😀", "k" * 511, "k" * 512 + "a", "k" * 512 + "b", 0, -1, 2**63, -(2**70),
        (), ("a", 1), ("a", (2, "😀")), ("long", "x" * 600)]
VALUES = [None, True, 1.5, 2**80, "text", ["list", [1]], {"a": {"b": []}}, "x" * 9000]


def pairs():
    return [(key, VALUES[number % len(VALUES)]) for number, key in enumerate(KEYS)]


def fill_dict(store):
    """Assign, delete and assign again, so that sequence numbers have gaps and one key has moved to the end."""
    for key, value in pairs():
        store[key] = value
    store["gone"] = 1
    store.sync()
    del store["gone"]
    del store["plain"]
    store["plain"] = "moved to the end"
    store.sync()


def fill_tasks(store):
    for key, value in pairs():
        store[key] = {"data": value}
    store.add_many_if_absent(f"task {number}" for number in range(1200))
    store.mark_done_many([f"task {number}" for number in range(0, 1000, 3)])
    for number in range(1, 1000, 5):
        store.increment_tries(f"task {number}")
    store.increment_tries("task 1")
    for number in range(2, 1000, 7):
        store.abort(f"task {number}")
    for number in range(3):
        store.decrement_tries(f"task {1003 + number}")
    store["task 1007"] = {"_error": "a key of the user's own, up to format 3"}
    store.sync()


def make_dict(path):
    with POD(path) as store:
        fill_dict(store)


def make_compressed_dict(path):
    with POD(path, gzipped=True) as store:
        fill_dict(store)


def make_tracker(path):
    with Tracker(path, max_tries=3) as store:
        fill_tasks(store)


def make_shared_dict(path):
    with SharedPOD(path) as store:
        fill_dict(store)


def make_shared_tracker(path):
    with SharedTracker(path, max_tries=3) as store:
        fill_tasks(store)


def leave_log(path):
    """Be killed with changes in the write-ahead log."""
    Store.wal_min_places = 0
    with Tracker(path, max_tries=3) as store:
        fill_tasks(store)
        store.mark_done("task 1100")
        del store["task 1101"]
        store["task 1102"] = {"data": ["changed"]}
        store.sync()
        os.kill(os.getpid(), signal.SIGKILL)


def leave_claims(path):
    """Be killed with three claimed tasks in hand, of which one is done."""
    with SharedTracker(path, max_tries=3) as store:
        fill_tasks(store)
        claimed = store.try_keys(batch=3)
        for _ in range(2):
            key = next(claimed)
        store.mark_done(key)
        next(claimed)
        os.kill(os.getpid(), signal.SIGKILL)


MAKERS = {
    "dict": make_dict,
    "compressed_dict": make_compressed_dict,
    "tracker": make_tracker,
    "shared_dict": make_shared_dict,
    "shared_tracker": make_shared_tracker,
    "tracker_killed_with_log": leave_log,
    "shared_tracker_killed_with_claims": leave_claims,
}


def make_all(folder):
    folder.mkdir()
    contents = {}
    for name, maker in MAKERS.items():
        path = folder / name
        ended = subprocess.run([sys.executable, "-m", __spec__.name, str(path), name]).returncode
        assert ended == (-signal.SIGKILL if maker in (leave_log, leave_claims) else 0), (name, ended)
        raw = (path / "data.mdb").read_bytes()
        (folder / f"{name}.mdb.gz").write_bytes(gzip.compress(raw, 9, mtime=0))
        with (POD if "dict" in name else Tracker)(path, mode="r") as store:
            contents[name] = [[repr(key), value] for key, value in store.iteritems()]
        for file in sorted(path.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        path.rmdir()
    (folder / "contents.json.gz").write_bytes(gzip.compress(json.dumps(contents).encode(), 9, mtime=0))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        MAKERS[sys.argv[2]](sys.argv[1])
    else:
        make_all(Path(sys.argv[1]))
