"""Measure shared stores for some seconds, flushes included: ``python -m benchmarks.flush_cost --help``.

Several processes change one store until the time is over. The last flush counts: ``sync()``, or the checkpoint of
SQLite. The stores take turns. The limits are loops of py-lmdb alone (``commit_cost``). The bytes are those that the
processes have sent to the disk (``write_bytes`` of ``/proc/PID/io``, Linux).

With ``--latency`` each single operation is measured, too: the 99.9th percentile shows what a process waits when many
write at once, or while the store is flushed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import costs
from benchmarks.inputs import changed_value, url_of
from benchmarks.parallel_run import Workers
from benchmarks.report import aligned
from benchmarks.shared_stores import SHARED_STORES
from benchmarks.shared_stores.bare_environment import FlushedEnvironment, LockedEnvironment
from benchmarks.shared_stores.bare_layout import BareLayoutDict
from benchmarks.shared_stores.claim_layouts import ClaimsInMainImagesInFile
from benchmarks.shared_stores.tastypy import TastypyDict, TastypyTasks
from benchmarks.shared_workloads import Scale, Share, filled, with_counter, with_tasks
from benchmarks.system import load, machine, refusal, usage

__all__ = ["OPERATIONS", "PUBLISHED", "STORES", "FlushCosts", "Rate", "Rates", "main", "measure"]

KEYS = 20_000
# The file that the documentation is made of.
PUBLISHED = Path(__file__).with_name("flush_cost.json")
# Operations between two looks at the clock.
STEP = 1000
# Tasks that a process adds when none is left.
MORE_TASKS = 5000


class Operation(NamedTuple):
    """What the processes do. ``step(store, worker, number)`` returns how many items it changed."""

    prepare: Callable[[Any, int], None]
    step: Callable[[Any, int, int], int]
    methods: tuple[str, ...]
    tasks: bool = False


def _numbers(worker: int, step: int) -> list[int]:
    return [(worker + 7919 * (step * STEP + index)) % KEYS for index in range(STEP)]


def assign(store: Any, worker: int, step: int, batch: int = 1) -> int:
    """Assign to existing keys, ``batch`` in each commit. No value is like the one before, which SQLite would skip."""
    pairs = [(url_of(number), {**changed_value(number), "step": step}) for number in _numbers(worker, step)]
    if batch == 1:
        store.set_each(pairs)
    else:
        store.set_many([pairs[begin : begin + batch] for begin in range(0, STEP, batch)])
    return STEP


def increment(store: Any, _worker: int, _step: int) -> int:
    """Increment a counter in blocks."""
    store.increment_locked([range(1)] * STEP)
    return STEP


def claim_and_done(store: Any, worker: int, step: int, batch: int = 1) -> int:
    """Claim all tasks and mark them done, or add more of them."""
    done: int = store.claim_done(1) if batch == 1 else store.claim_done_many(batch)
    if not done:
        store.add([[f"more {worker} {step} {number}" for number in range(MORE_TASKS)]])
    return done


def mark_done(store: Any, worker: int, step: int) -> int:
    """Add tasks in one commit, and mark them done."""
    keys = [f"more {worker} {step} {number}" for number in range(STEP)]
    store.add([keys])
    store.mark_done_each(keys)
    return STEP


OPERATIONS = {
    "assign": Operation(filled, assign, ("set_each",)),
    "assign, batches of 100": Operation(filled, partial(assign, batch=100), ("set_many",)),
    "`+=` in a block": Operation(with_counter, increment, ("increment_locked",)),
    "claim and done": Operation(with_tasks, claim_and_done, ("claim_done", "add"), True),
    "claim and done, batches of 100": Operation(
        with_tasks, partial(claim_and_done, batch=100), ("claim_done_many", "add"), True
    ),
    "mark done": Operation(with_tasks, mark_done, ("mark_done_each", "add"), True),
}


class Store(NamedTuple):
    """What opens a store at a path, for dicts and for tasks. None: it has no such class."""

    dict_class: Any
    tasks_class: Any


STORES = {
    "tastypy_fast": Store(TastypyDict, TastypyTasks),
    "unsafe": Store(partial(TastypyDict, durability="unsafe"), partial(TastypyTasks, durability="unsafe")),
    "layout": Store(BareLayoutDict, ClaimsInMainImagesInFile),
    "layout, writer lock": Store(
        partial(BareLayoutDict, environment=LockedEnvironment),
        partial(ClaimsInMainImagesInFile, environment=LockedEnvironment),
    ),
    "layout, flush points": Store(
        partial(BareLayoutDict, environment=FlushedEnvironment),
        partial(ClaimsInMainImagesInFile, environment=FlushedEnvironment),
    ),
    **{name: Store(info.dict_class, info.tasks_class)
       for name, info in SHARED_STORES.items() if name in ("sqlite3", "diskcache", "bare lmdb")},
}  # fmt: skip


class Rate(NamedTuple):
    """Operations a second with the last flush, the bytes that each has written, and seconds at ``PERCENTILES``."""

    speed: float
    size: float
    percentiles: tuple[float, ...] = ()


class Rates(NamedTuple):
    """What an operation of a store reached in each round."""

    operation: str
    store: str
    processes: int
    rounds: list[Rate]

    def cells(self, base: float) -> list[str]:
        """Return the row of a table: see ``COLUMNS``. ``base`` is the speed of the first store of the operation."""
        speeds = sorted(rate.speed for rate in self.rounds)
        percentiles = [median(seconds) for seconds in zip(*(rate.percentiles for rate in self.rounds), strict=True)]
        return [
            self.operation,
            self.store,
            f"{median(speeds):,.0f}",
            f"{speeds[0]:,.0f} .. {speeds[-1]:,.0f}",
            f"{median(speeds) / base:.2f}",
            f"{median(rate.size for rate in self.rounds) / 1000:.1f}",
            *([f"{seconds * 1e6:,.0f}" for seconds in percentiles] or [""] * len(PERCENTILES)),
        ]


PERCENTILES = (0.5, 0.99, 0.999)
COLUMNS = [
    "operation", "store", "operations/s", "lowest .. highest", "of the first", "kB each", "median µs", "99 % µs",
    "99.9 % µs",
]  # fmt: skip


class FlushCosts(NamedTuple):
    """The rates that were measured, for ``seconds`` each, with ``keys`` keys in each store, and where."""

    machine: dict[str, str]
    keys: int
    seconds: float
    rates: list[Rates]

    @classmethod
    def load(cls, file: Path) -> FlushCosts:
        """Read a file that ``save()`` wrote."""
        facts, lines = costs.load(file)
        return cls(**facts, rates=[Rates(*fields, [Rate(*rate) for rate in rounds]) for *fields, rounds in lines])

    def save(self, file: Path) -> None:
        """Write a file. The rates of each store are one line."""
        costs.save(file, self._asdict(), self.rates)

    def tables(self) -> dict[str, list[list[str]]]:
        """Return a table for each number of processes. Its first row is the header."""
        bases: dict[tuple[str, int], float] = {}
        for rates in self.rates:
            bases.setdefault((rates.operation, rates.processes), median(rate.speed for rate in rates.rounds))
        return costs.tables(
            COLUMNS, ((rates.processes, rates.cells(bases[rates.operation, rates.processes])) for rates in self.rates)
        )


class Latencies:
    """A store whose single operations are measured."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.seconds: list[float] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in ("set_each", "mark_done_each", "increment_locked"):
            return method

        def one_by_one(items: list[Any]) -> None:
            clock, note = time.perf_counter, self.seconds.append
            for item in items:
                begin = clock()
                method([item])
                note(clock() - begin)

        return one_by_one


class Worked(NamedTuple):
    """What one process did, from ``begin`` to ``end`` on the system's clock."""

    done: int
    begin: float
    end: float
    size: int
    latencies: list[float]


def _work(pipe: Connection, name: str, store: Any, seconds: float, with_latency: bool, share: Share) -> None:
    # The first access opens the files, which is not measured.
    len(store)
    pipe.send("ready")
    pipe.recv()
    measured = Latencies(store) if with_latency else store
    before = usage()
    begin = time.perf_counter()
    done = number = 0
    while not done or time.perf_counter() < begin + seconds:
        done += OPERATIONS[name].step(measured, share.number, number)
        number += 1
    store.flush()
    end = time.perf_counter()
    pipe.send(Worked(done, begin, end, usage().since(before).flushed, measured.seconds if with_latency else []))
    store.close()


def measure(
    name: str, make: Any, seconds: float, processes: int, folder: str | None, with_latency: bool = False
) -> Rate:
    """Measure an operation of a store.

    Raises:
        EOFError: A process failed.
    """
    with tempfile.TemporaryDirectory(prefix="flush_cost-", dir=folder) as place:
        store = make(str(Path(place) / "store"))
        OPERATIONS[name].prepare(store, KEYS)
        store.flush()
        workers = Workers(_work, (name, store, seconds, with_latency), Scale(KEYS), processes)
        found: list[Worked] = workers.results()
        workers.join()
        store.close()
    done = sum(each.done for each in found)
    took = max(each.end for each in found) - min(each.begin for each in found)
    latencies = sorted(second for each in found for second in each.latencies)
    percentiles = tuple(round(latencies[int(len(latencies) * share)], 7) for share in PERCENTILES if latencies)
    return Rate(round(done / took, 1), round(sum(each.size for each in found) / done, 1), percentiles)


def measure_all(options: argparse.Namespace) -> Iterator[Rates]:
    """Yield the rates of each operation, when all rounds of it are measured."""
    for processes in options.processes:
        for name in options.only or OPERATIONS:
            found: dict[str, list[Rate]] = {store: [] for store in options.stores if can_run(name, store)}
            for _ in range(options.rounds):
                for store, rounds in found.items():
                    made = opener(name, store)
                    rounds.append(measure(name, made, options.seconds, processes, options.folder, options.latency))
            yield from (Rates(name, store, processes, rounds) for store, rounds in found.items())


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flush_cost", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=list(OPERATIONS), metavar="OPERATION",
        help=f"measure only these of: {', '.join(OPERATIONS)}")
    add("--stores", nargs="+", choices=list(STORES), default=list(STORES), metavar="STORE",
        help=f"measure only these of: {', '.join(STORES)}")
    add("--seconds", type=float, default=30, help="the length of each measurement (30)")
    add("--rounds", type=int, default=3, metavar="R", help="measurements of each, for the median (3)")
    add("--processes", type=int, nargs="+", default=[2], metavar="P", help="numbers of processes (2)")
    add("--latency", action="store_true", help="measure single operations, and print percentiles")
    add("--folder", help="where to create the stores, on a real disk")
    add("--json", type=Path, metavar="FILE", help="save the rates to a file; it keeps those of other operations")
    add("--published", dest="json", action="store_const", const=PUBLISHED,
        help="save them to benchmarks/flush_cost.json, which the documentation shows (python -m benchmarks.pages)")
    return parser


def main() -> str | None:
    """Print a table, or return an error."""
    options = parser().parse_args()
    load_before = load()
    if options.json == PUBLISHED and (refused := refusal(load_before)):
        return refused
    facts = machine(Path(options.folder or tempfile.gettempdir()), load_before)
    print("\n".join(f"{name}  {value}" for name, value in facts.items()), end="\n\n", flush=True)
    measured = FlushCosts(facts, KEYS, options.seconds, list(measure_all(options)))
    for title, table in measured.tables().items():
        print(f"{title}\n\n{aligned([tuple(row) for row in table])}\n")
    if options.json:
        with_earlier(options.json, measured).save(options.json)
    return None


def with_earlier(file: Path, measured: FlushCosts) -> FlushCosts:
    """Return what was measured, and from the file the other operations and numbers of processes."""
    if not file.exists():
        return measured
    new = {(rates.operation, rates.processes) for rates in measured.rates}
    earlier = [rates for rates in FlushCosts.load(file).rates if (rates.operation, rates.processes) not in new]
    return measured._replace(rates=sorted([*earlier, *measured.rates], key=lambda rates: rates.processes))


def opener(name: str, store: str) -> Any:
    """Return what opens a store for an operation."""
    return STORES[store].tasks_class if OPERATIONS[name].tasks else STORES[store].dict_class


def can_run(name: str, store: str) -> bool:
    """Return whether a store has what an operation calls."""
    made = opener(name, store)
    if isinstance(made, partial):
        made = made.func
    return made is not None and all(hasattr(made, method) for method in OPERATIONS[name].methods)


if __name__ == "__main__":
    sys.exit(main())
