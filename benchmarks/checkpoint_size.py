"""Measure what a larger checkpoint gains: ``python -m benchmarks.checkpoint_size --help``.

These are limits, not stores: loops of py-lmdb alone that do the accesses of random writes to a private store. They look
keys up in the index, append new records, append each thousand changes to a log, and keep the same changes in a dict.
After a number of changes they write the dict to its places, sorted, a thousand changes in each transaction.

For syncs and checkpoints apart, it shows the processor time of each change and the pages that it writes. Pages hardly
depend on the machine. The sizes take turns in each round, on one store.

With ``--store`` tastypy_fast makes the same changes in a store of its own. Its checkpoints are parts of its syncs, and
it also encodes the keys and the values.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from resource import getpagesize
from statistics import median
from struct import Struct
from typing import NamedTuple

import lmdb
import orjson

from benchmarks.inputs import changed_value, digest_of, value_of
from benchmarks.report import aligned
from benchmarks.system import Usage, load, machine, total, usage
from tastypy_fast import PersistentOrderedDict

__all__ = ["OPERATIONS", "OWN", "BareStore", "Cost", "OwnStore", "main", "measure"]

NUMBER = Struct("=q")
# The changes of a sync, and of a transaction of a checkpoint.
SYNC = 1_000
# A batch in the log is cut into pieces that fit into pages.
PIECE = 2_000
CHANGE_HEAD = Struct("<BII")
# A store is built in batches of this size, so that the pages of its index are as full as random keys leave them.
BUILD = 500_000

Changes = list[tuple[bytes, bytes]]
# Stands for a store of tastypy_fast among the sizes of checkpoints.
OWN = 0


def index_key(number: int) -> bytes:
    """Return the entry of a random key in the index."""
    return b"\2" + digest_of(number).encode()


def record(number: int, value: Callable[[int], object] = value_of) -> bytes:
    """Return the record of a key and its value, as tastypy_fast encodes it."""
    key = index_key(number)
    return b"\1%c%b%b" % (len(key), key, orjson.dumps(value(number)))


class BareStore:
    """The index, the records and the log of a store of random keys, where key ``n`` has the sequence number ``n``."""

    def __init__(self, path: str, durable: bool = True) -> None:
        self._env = lmdb.open(path, map_size=1 << 37, max_dbs=3, metasync=False, sync=durable, writemap=not durable)
        self._values, self._log = (self._env.open_db(name, integerkey=True) for name in (b"values", b"log"))
        self._order = self._env.open_db(b"order")
        self._waiting: dict[bytes, bytes] = {}
        self.used: dict[str, list[Usage]] = {"sync": [], "checkpoint": []}

    def __len__(self) -> int:
        with self._env.begin() as txn:
            return int(txn.stat(self._values)["entries"])

    @classmethod
    def build(cls, path: str, keys: int) -> None:
        """Write a store of this size, without a log."""
        store = cls(path, durable=False)
        for start in range(0, keys, BUILD):
            numbers = range(start, min(start + BUILD, keys))
            with store._env.begin(write=True) as txn:
                txn.cursor(store._values).putmulti(((NUMBER.pack(n), record(n)) for n in numbers), append=True)
                txn.cursor(store._order).putmulti(sorted((index_key(n), NUMBER.pack(n)) for n in numbers))
        store.close()

    def add(self, count: int, checkpoint_at: int) -> None:
        """Add new keys. Their records are appended, and their index entries go through the log."""
        first = len(self)
        for start in range(first, first + count, SYNC):
            numbers = range(start, start + SYNC)
            records = [(NUMBER.pack(n), record(n)) for n in numbers]
            self._sync(records, [(index_key(n), NUMBER.pack(n)) for n in numbers])
            if len(self._waiting) >= checkpoint_at:
                self._checkpoint(self._order, None)

    def update(self, count: int, checkpoint_at: int) -> None:
        """Overwrite the values of random keys. Their records go through the log."""
        numbers = random.Random(count).sample(range(len(self)), count)
        for start in range(0, count, SYNC):
            changes = [(index_key(n), record(n, changed_value)) for n in numbers[start:start + SYNC]]
            before = usage()
            with self._env.begin() as txn:
                found = dict(txn.cursor(self._order).getmulti(sorted([key for key, _ in changes])))
            self.used["sync"].append(usage().since(before))
            self._sync([], [(found[key], value) for key, value in changes])
            if len(self._waiting) >= checkpoint_at:
                self._checkpoint(self._values, lambda change: NUMBER.unpack(change[0]))

    def _sync(self, appended: Changes, logged: Changes) -> None:
        before = usage()
        batch = b"".join([CHANGE_HEAD.pack(0, len(key), len(value)) + key + value for key, value in logged])
        with self._env.begin(write=True) as txn:
            if appended:
                txn.cursor(self._values).putmulti(appended, append=True)
            number = txn.id() << 20
            txn.cursor(self._log).putmulti(
                [(NUMBER.pack(number + at), batch[at:at + PIECE]) for at in range(0, len(batch), PIECE)], append=True
            )
        self._waiting.update(logged)
        self.used["sync"].append(usage().since(before))

    def _checkpoint(self, db: object, order: Callable[[tuple[bytes, bytes]], object] | None) -> None:
        before = usage()
        changes = iter(sorted(self._waiting.items(), key=order))
        while run := list(islice(changes, SYNC)):
            with self._env.begin(write=True) as txn:
                txn.cursor(db).putmulti(run)
        with self._env.begin(write=True) as txn:
            txn.drop(self._log, delete=False)
        self._waiting = {}
        self.used["checkpoint"].append(usage().since(before))

    def close(self) -> None:
        self._env.sync(True)
        self._env.close()


class OwnStore:
    """tastypy_fast with the same keys and values."""

    def __init__(self, path: str) -> None:
        self._pod = PersistentOrderedDict(path)
        self.used: dict[str, list[Usage]] = {"sync": [], "checkpoint": []}

    def __len__(self) -> int:
        return len(self._pod)

    @classmethod
    def build(cls, path: str, keys: int) -> None:
        """Write a store of this size."""
        with PersistentOrderedDict(path) as pod:
            pod.update((digest_of(n), value_of(n)) for n in range(keys))

    def add(self, count: int, _checkpoint_at: int) -> None:
        """Add new keys."""
        first = len(self)
        self._assign(range(first, first + count), value_of)

    def update(self, count: int, _checkpoint_at: int) -> None:
        """Overwrite the values of random keys."""
        self._assign(random.Random(count).sample(range(len(self)), count), changed_value)

    def _assign(self, numbers: Sequence[int], value: Callable[[int], object]) -> None:
        pod = self._pod
        for start in range(0, len(numbers), SYNC):
            pairs = [(digest_of(n), value(n)) for n in numbers[start:start + SYNC]]
            before = usage()
            for key, one in pairs:
                pod[key] = one
            self.used["sync"].append(usage().since(before))

    def close(self) -> None:
        """Sync the last changes, and write what waits for a checkpoint."""
        before = usage()
        self._pod.close()
        self.used["checkpoint"].append(usage().since(before))


Store = BareStore | OwnStore
OPERATIONS: dict[str, Callable[[Store, int, int], None]] = {
    "add": lambda store, count, checkpoint_at: store.add(count, checkpoint_at),
    "update": lambda store, count, checkpoint_at: store.update(count, checkpoint_at),
}


class Cost(NamedTuple):
    """What ``changes`` changes of an operation cost, with a checkpoint after each ``checkpoint_at`` of them, or OWN."""

    operation: str
    keys: int
    checkpoint_at: int
    changes: int
    samples: list[dict[str, Usage]]

    def cells(self) -> list[str]:
        """Return the row of a table: see ``COLUMNS``."""
        def each(part: str, value: Callable[[Usage], float]) -> float:
            return median(value(sample[part]) for sample in self.samples) / self.changes

        def processor(used: Usage) -> float:
            return used.user + used.system

        return [
            self.operation,
            f"{self.keys:,}",
            "tastypy_fast" if self.checkpoint_at == OWN else f"{self.checkpoint_at:,}",
            *(f"{each(part, lambda used: used.written) / getpagesize():.2f}" for part in ("sync", "checkpoint")),
            *(f"{each(part, processor) * 1e6:.2f}" for part in ("sync", "checkpoint")),
            f"{1 / sum(each(part, processor) for part in ('sync', 'checkpoint')):,.0f}",
            f"{1 / sum(each(part, lambda used: used.seconds) for part in ('sync', 'checkpoint')):,.0f}",
        ]  # fmt: skip


COLUMNS = ["operation", "keys", "checkpoint at", "pages, sync", "checkpoint", "processor µs, sync", "checkpoint",
           "changes per processor second", "per second"]  # fmt: skip


def opened(path: str, size: int) -> Store:
    """Open the store for a size of a checkpoint, or for OWN."""
    return OwnStore(f"{path}/own") if size == OWN else BareStore(f"{path}/bare")


def build(path: str, sizes: Iterable[int], keys: int) -> None:
    """Write the stores that the sizes need."""
    for store in {OwnStore if size == OWN else BareStore for size in sizes}:
        store.build(f"{path}/{'own' if store is OwnStore else 'bare'}", keys)


def measure(path: str, names: Iterable[str], sizes: Sequence[int], changes: int, rounds: int) -> Iterator[Cost]:
    """Yield the costs of operations on stores, for each size of a checkpoint. ``changes`` is for one round."""
    for name in names:
        samples: dict[int, list[dict[str, Usage]]] = {size: [] for size in sizes}
        store = opened(path, sizes[0])
        keys = len(store)
        store.close()
        for _ in range(rounds):
            for size in sizes:
                store = opened(path, size)
                OPERATIONS[name](store, changes, size)
                store.close()
                samples[size].append({part: total(used) for part, used in store.used.items()})
        yield from (Cost(name, keys, size, changes, found) for size, found in samples.items())


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint_size", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", default=list(OPERATIONS), choices=list(OPERATIONS), metavar="OPERATION",
        help="measure only these of: add, update")
    add("--keys", type=int, nargs="+", default=(100_000, 1_000_000), metavar="N", help="sizes of stores")
    add("--sizes", type=int, nargs="+", default=(50_000, 100_000, 200_000, 400_000), metavar="M",
        help="the numbers of changes after which a checkpoint writes them, divisors of --changes")
    add("--store", action="store_true", help="measure tastypy_fast, too")
    add("--changes", type=int, default=400_000, metavar="C", help="changes of each size in a round (400,000)")
    add("--rounds", type=int, default=2, metavar="R", help="measurements of each, for the median (2)")
    add("--folder", help="where to create the stores, on a real disk")
    return parser


def main() -> None:
    """Print a table."""
    options = parser().parse_args()
    facts = machine(Path(options.folder or tempfile.gettempdir()), load())
    print("\n".join(f"{name}  {value}" for name, value in facts.items()), end="\n\n", flush=True)
    for keys in options.keys:
        with tempfile.TemporaryDirectory(prefix="checkpoint_size-", dir=options.folder) as path:
            changes = min(options.changes, keys)
            sizes = [size for size in options.sizes if size <= changes] + [OWN] * options.store
            build(path, sizes, keys)
            for name in options.only:
                costs = measure(path, [name], sizes, changes, options.rounds)
                print(aligned([tuple(COLUMNS), *(tuple(cost.cells()) for cost in costs)]), end="\n\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
