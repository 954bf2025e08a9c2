"""Measure what a commit of a shared store costs: ``python -m benchmarks.commit_cost --help``.

For each operation it counts the pages and the write calls, and the processor time in the program and in the kernel.
Pages and calls are those of all files of the store (``wchar`` and ``syscw`` of ``/proc/PID/io``, Linux). They hardly
depend on the machine. Each process ends with a ``sync()``, which counts. The kernel samples how the processor time is
divided into user and system; the sum is exact.

The limits are loops of py-lmdb alone: a put, the accesses of an assignment, and those of a claim for several layouts on
disk. They have no flush points, or those of tastypy_fast. The stores take turns in each round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from resource import getpagesize
from statistics import median
from typing import Any, NamedTuple

from benchmarks import costs
from benchmarks.parallel_run import Workers
from benchmarks.report import aligned
from benchmarks.shared_stores.bare_environment import FlushedEnvironment
from benchmarks.shared_stores.bare_layout import BareLayoutDict
from benchmarks.shared_stores.by_hand import BareLmdbDict
from benchmarks.shared_stores.claim_layouts import LAYOUTS, ClaimsInMainImagesInFile
from benchmarks.shared_stores.tastypy import TastypyDict, TastypyTasks
from benchmarks.shared_workloads import SHARED_WORKLOADS, Scale, Share
from benchmarks.system import Usage, load, machine, refusal, total, usage

__all__ = ["OPERATIONS", "PUBLISHED", "CommitCosts", "Cost", "main", "measure", "stores"]

KEYS = 20_000
# The file that the documentation is made of.
PUBLISHED = Path(__file__).with_name("commit_cost.json")
LEVELS = ("unsafe", "process")
# Claims and ends of claims are measured apart in groups of this many tasks, whose claims are in one page.
GROUP = 50


class Operation(NamedTuple):
    """A workload of ``SHARED_WORKLOADS`` with ``batch`` changes in a commit, or its parts, each measured apart."""

    workload: str
    batch: int = 1
    parts: tuple[str, ...] = ()


OPERATIONS = {
    "assign to an existing key": Operation("shared_set"),
    "assign a new key": Operation("shared_set_new"),
    "`+=` in a block": Operation("shared_locked_increment"),
    "delete": Operation("shared_delete"),
    "claim, done": Operation("shared_claim_done", parts=("claim", "done")),
    "claim and done": Operation("shared_claim_done"),
    "assign, batches of 100": Operation("shared_set", 100),
    "claim and done, batches of 100": Operation("shared_claim_done", 100),
}


class Cost(NamedTuple):
    """What an operation of a store costs. Each sample is the sum over the processes, for all ``items``."""

    operation: str
    store: str
    processes: int
    items: int
    samples: list[Usage]

    def each(self, value: Callable[[Usage], float]) -> float:
        """Return the median of a value of the samples, for each item."""
        return median(map(value, self.samples)) / self.items

    def cells(self, page_size: int) -> list[str]:
        """Return the row of a table: see ``COLUMNS``."""
        written = self.each(lambda sample: sample.written)
        calls = self.each(lambda sample: sample.calls)
        times = (lambda sample: sample.user, lambda sample: sample.system, lambda sample: sample.user + sample.system)
        return [
            self.operation,
            self.store,
            *([f"{written / page_size:.2f}", f"{calls:.2f}"] if calls else ["?", "?"]),
            *(f"{self.each(value) * 1e6:.1f}" for value in times),
            f"{self.processes / self.each(lambda sample: sample.seconds):,.0f}",
        ]


COLUMNS = ["operation", "store", "pages", "write calls", "user µs", "system µs", "processor µs", "operations/s"]


class CommitCosts(NamedTuple):
    """The costs that were measured, with ``keys`` keys in each store, and where."""

    machine: dict[str, str]
    keys: int
    page_size: int
    costs: list[Cost]

    @classmethod
    def load(cls, file: Path) -> CommitCosts:
        """Read a file that ``save()`` wrote."""
        facts, lines = costs.load(file)
        return cls(**facts, costs=[Cost(*fields, [Usage(*sample) for sample in samples]) for *fields, samples in lines])

    def save(self, file: Path) -> None:
        """Write a file. Each cost is one line."""
        costs.save(file, self._asdict(), map(_rounded, self.costs))

    def tables(self) -> dict[str, list[list[str]]]:
        """Return a table for each number of processes. Its first row is the header."""
        return costs.tables(COLUMNS, ((cost.processes, cost.cells(self.page_size)) for cost in self.costs))


def _rounded(cost: Cost) -> Cost:
    return cost._replace(samples=[Usage(*(round(value, 9) for value in sample)) for sample in cost.samples])


# The processes


def measure(name: str, make: Callable[[str], Any], keys: int, processes: int, folder: str | None) -> dict[str, Usage]:
    """Measure an operation of the store that ``make`` opens, and verify the result. Return its parts by name."""
    operation = OPERATIONS[name]
    workload, scale = SHARED_WORKLOADS[operation.workload], Scale(keys, operation.batch)
    with tempfile.TemporaryDirectory(prefix="commit_cost-", dir=folder) as place:
        store = make(str(Path(place) / "store"))
        workload.prepare(store, keys)
        store.sync()
        workers = Workers(_work, (name, store), scale, processes)
        found = workers.results()
        workers.join()
        workload.verify(store, scale, [returned for returned, _ in found])
        store.close()
    return {part: total(used[part] for _, used in found) for part in operation.parts or (name,)}


def _work(pipe: Connection, name: str, store: Any, share: Share) -> None:
    operation = OPERATIONS[name]
    workload = SHARED_WORKLOADS[operation.workload]
    argument = workload.argument(share)
    # The first access opens the files, which is not measured.
    len(store)
    pipe.send("ready")
    pipe.recv()
    before = usage()
    if operation.parts:
        returned, used = _claim_and_end(store)
    else:
        returned = getattr(store, workload.method(share.scale.batch) or "")(argument)
        store.sync()
        used = {name: usage().since(before)}
    pipe.send((returned, used))
    store.close()


def _claim_and_end(store: Any) -> tuple[int, dict[str, Usage]]:
    claims = store.claim_each()
    used: dict[str, list[Usage]] = {"claim": [], "done": []}
    finished = 0
    before = usage()
    while True:
        keys = list(islice(claims, GROUP))
        between = usage()
        store.mark_done_each(keys)
        if len(keys) < GROUP:
            store.sync()
        after = usage()
        used["claim"].append(between.since(before))
        used["done"].append(after.since(between))
        finished += len(keys)
        before = after
        if len(keys) < GROUP:
            return finished, {part: total(usages) for part, usages in used.items()}


# The stores


def stores(name: str, levels: Iterable[str]) -> dict[str, Callable[[str], Any]]:
    """Return what opens the stores of an operation: tastypy_fast with these durability levels, and the limits."""
    tasks = SHARED_WORKLOADS[OPERATIONS[name].workload].tasks
    ours = TastypyTasks if tasks else TastypyDict
    return {f'tastypy_fast, "{level}"': partial(ours, durability=level) for level in levels} | limits(name, levels)


def limits(name: str, levels: Iterable[str]) -> dict[str, Callable[[str], Any]]:
    """Return what opens the loops of py-lmdb that have the operation: with and without flush points, as the levels."""
    operation = OPERATIONS[name]
    workload = SHARED_WORKLOADS[operation.workload]
    found: dict[str, Any] = {f"py-lmdb, {layout.layout}": layout for layout in LAYOUTS}
    if not workload.tasks:
        found = {"py-lmdb, one database": BareLmdbDict, "py-lmdb, order and undo log": BareLayoutDict}
    ours = found[f"py-lmdb, {ClaimsInMainImagesInFile.layout}"] if workload.tasks else BareLayoutDict
    method = workload.method(operation.batch) or ""
    unflushed = {title: made for title, made in found.items() if hasattr(made, method)}
    flushed = {
        f"{title}, flush points": partial(made, environment=FlushedEnvironment)
        for title, made in unflushed.items() if made in (ours, BareLmdbDict)
    }
    return unflushed | (flushed if "process" in levels else {})


def measure_all(options: argparse.Namespace) -> Iterator[Cost]:
    """Yield the costs of each operation, when all rounds of it are measured."""
    for processes in options.processes:
        for name in options.only or OPERATIONS:
            operation = OPERATIONS[name]
            items = SHARED_WORKLOADS[operation.workload].items(Scale(options.keys, operation.batch))
            opened = stores(name, options.levels)
            parts = operation.parts or (name,)
            samples: dict[tuple[str, str], list[Usage]] = {(part, store): [] for part in parts for store in opened}
            for _ in range(options.rounds):
                for store, make in opened.items():
                    for part, used in measure(name, make, options.keys, processes, options.folder).items():
                        samples[part, store].append(used)
            yield from (Cost(part, store, processes, items, found) for (part, store), found in samples.items())


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commit_cost", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=list(OPERATIONS), metavar="OPERATION",
        help=f"measure only these of: {', '.join(OPERATIONS)}")
    add("--levels", nargs="+", default=LEVELS, help="durability levels (unsafe process: flush points off and on)")
    add("--processes", type=int, nargs="+", default=(1, 2), metavar="P", help="numbers of processes (1 2)")
    add("--keys", type=int, default=KEYS, metavar="N", help="keys in the store (20,000)")
    add("--rounds", type=int, default=3, metavar="R", help="measurements of each, for the median (3)")
    add("--folder", help="where to create the stores, on a real disk")
    add("--json", type=Path, metavar="FILE", help="save the samples to a file")
    add("--published", dest="json", action="store_const", const=PUBLISHED,
        help="save them to benchmarks/commit_cost.json, which the documentation shows (python -m benchmarks.pages)")
    return parser


def main() -> str | None:
    """Print a table, or return an error."""
    options = parser().parse_args()
    load_before = load()
    if options.json == PUBLISHED and (refused := refusal(load_before)):
        return refused
    facts = machine(Path(options.folder or tempfile.gettempdir()), load_before)
    print("\n".join(f"{name}  {value}" for name, value in facts.items()), end="\n\n", flush=True)
    measured = CommitCosts(facts, options.keys, getpagesize(), list(measure_all(options)))
    if options.json:
        measured.save(options.json)
    for processes, table in measured.tables().items():
        print(f"{processes}\n\n{aligned([tuple(row) for row in table])}\n")
    return None


if __name__ == "__main__":
    sys.exit(main())
