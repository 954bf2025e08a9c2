"""Measure the first opening of a store in a process: ``python -m benchmarks.open_cost --help``.

Each measurement is a process of its own: it imports everything, and then opens the store, asks for the number of keys,
and reads one value. The ways take turns. "accesses" makes the system calls of tastypy_fast in the same order, one after
the other, and what they are for: LMDB with its databases, the handlers of signals, and the background thread. It checks
nothing, so it is the limit of these accesses in Python.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median, quantiles
from threading import Event, Thread
from typing import Any

import lmdb
import orjson

from benchmarks.inputs import Content
from benchmarks.report import aligned
from benchmarks.stores.base import BATCH
from benchmarks.stores.lmdb_by_hand import LmdbDict
from benchmarks.system import load, machine
from tastypy_fast import PersistentOrderedDict

__all__ = ["WAYS", "fill", "main", "measure"]

READ = os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
WRITE = READ | os.O_RDWR
# How many pages are on the edges of the trees of a store with 300,000 keys, and the size of a page in bytes.
EDGES, PAGE = 15, 4096


def open_own(path: str, key: str) -> Any:
    """Open a store of tastypy_fast."""
    store = PersistentOrderedDict(path)
    return store, len(store), store[key]


def open_by_hand(path: str, key: str) -> Any:
    """Open a store of py-lmdb, written by hand."""
    store = LmdbDict(path)
    return store, len(store), store.get(key)


def open_accesses(path: str, key: str) -> Any:
    """Make the accesses of ``open_own()`` with the same files."""
    data, locks, owner, note = (f"{path}/{name}" for name in ("data.mdb", "lock.mdb", "owner.lock", "flushed"))
    lstat, stat, fstat, pread, close = os.lstat, os.stat, os.fstat, os.pread, os.close

    def opened(name: str, flags: int) -> int:
        for number in range(3):
            os.get_inheritable(number)
        descriptor = os.open(name, flags)
        fstat(descriptor)
        return descriptor

    # The folder, and what is in it.
    lstat(path)
    stat(path)
    os.listdir(path)
    stat(data)
    file = opened(data, READ)
    for at in (0, PAGE, 4 * PAGE, 0, PAGE):
        pread(file, 168, at)
    close(file)
    # The locks.
    lstat(data)
    data_lock = opened(data, WRITE)
    fcntl.lockf(data_lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1)
    fcntl.flock(data_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    close(opened(locks, WRITE))
    close(opened(owner, WRITE | os.O_CREAT))
    file = opened(locks, WRITE)
    size = fstat(file).st_size
    os.pwrite(file, bytes(size), 0)
    close(file)
    os.statvfs(path)
    owner_lock = opened(owner, WRITE)
    fcntl.flock(owner_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    folder = opened(path, READ | os.O_DIRECTORY)
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    close(folder)
    # Flush points, and damage.
    for flags in (READ, WRITE):
        with suppress(FileNotFoundError):
            opened(note, flags)
    lstat(data)
    lstat(owner)
    file = opened(data, READ)
    for at in (0, 0, PAGE):
        pread(file, 168, at)
    for number in range(2, 2 + EDGES):
        pread(file, PAGE, number * PAGE)
    fstat(file)
    close(file)
    # LMDB.
    for name in (owner, data, locks, owner, data, locks):
        lstat(name)
    fstat(data_lock)
    fstat(owner_lock)
    resource.getrlimit(resource.RLIMIT_AS)
    for number in range(3):
        os.get_inheritable(number)
    env = lmdb.open(path, map_size=1 << 36, max_dbs=8, metasync=False, max_readers=1024, max_spare_txns=0)
    values, log = (env.open_db(name, integerkey=True, create=False) for name in (b"values", b"log"))
    order, meta = (env.open_db(name, create=False) for name in (b"order", b"meta"))
    own = {(found.st_dev, found.st_ino) for found in map(lstat, (data, locks))}
    for number in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):
            if os.get_inheritable(number):
                found = fstat(number)
                if (found.st_dev, found.st_ino) in own:
                    os.set_inheritable(number, False)
    for name in (data, locks, data, locks, owner):
        lstat(name)
    fcntl.flock(data_lock, fcntl.LOCK_SH)
    fcntl.lockf(data_lock, fcntl.LOCK_UN, 1, 1)
    # The owner, and what earlier ones have left.
    text = b"process %d on %b" % (os.getpid(), os.uname().nodename.encode())
    pread(owner_lock, 8, 0)
    fstat(owner_lock)
    os.pwrite(owner_lock, text, 0)
    os.ftruncate(owner_lock, len(text))
    with env.begin() as txn:
        txn.get(b"held", db=meta)
        txn.stat(log)
    with suppress(FileNotFoundError):
        os.unlink(f"{path}/undo")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, frame: None)
    # The number of keys, one value, and the thread that would save its changes.
    with env.begin() as txn:
        count = txn.stat(values)["entries"]
        raw = txn.get(txn.get(b"\2" + key.encode(), db=order), db=values)
    value = orjson.loads(raw[raw.index(b"{"):])
    ended = Event()
    Thread(target=ended.wait, args=(1,), daemon=True).start()
    return (env, ended), count, value


WAYS = {"tastypy_fast": open_own, "accesses": open_accesses, "lmdb": open_by_hand}


def fill(folder: str, keys: int) -> None:
    """Write the stores that the ways open."""
    content = Content(keys)
    with PersistentOrderedDict(f"{folder}/own") as pod:
        pod.update(content.pairs())
    pairs = list(content.pairs())
    store = LmdbDict(f"{folder}/by hand")
    store.fill(pairs[begin:begin + BATCH] for begin in range(0, keys, BATCH))
    store.close()


def once(way: str, folder: str, keys: int) -> float:
    """Return the seconds of an opening in this process. Raises ValueError if it does not find what was written."""
    key = Content(keys).key(keys // 2)
    path = f"{folder}/{'by hand' if way == 'lmdb' else 'own'}"
    begin = time.perf_counter()
    _store, count, value = WAYS[way](path, key)
    took = time.perf_counter() - begin
    if count != keys or value["title"] != f"The article number {keys // 2:07d}":
        raise ValueError(f"{way} found {count} keys and {value}")
    return took


def measure(folder: str, keys: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way, each in a process of its own."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, seconds in found.items():
            command = [sys.executable, "-m", "benchmarks.open_cost", "--once", way, "--folder", folder, "-n", str(keys)]
            seconds.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.open_cost", description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=300_000, help="number of keys (300,000)")
    parser.add_argument("--rounds", type=int, default=20, help="processes for each way (20)")
    parser.add_argument("--folder", help="where to create the stores, on a real disk")
    parser.add_argument("--once", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(once(options.once, options.folder, options.n))
        return
    facts = machine(Path(options.folder or tempfile.gettempdir()), load())
    print("\n".join(f"{name}  {value}" for name, value in facts.items()), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="open_cost-", dir=options.folder) as folder:
        fill(folder, options.n)
        found = measure(folder, options.n, options.rounds)
    rows = [("way", "median ms", "middle half")]
    for way, seconds in found.items():
        low, _, high = quantiles(seconds, n=4)
        rows.append((way, f"{median(seconds) * 1e3:.2f}", f"{low * 1e3:.2f} .. {high * 1e3:.2f}"))
    print(aligned(rows))


if __name__ == "__main__":
    main()
