"""The Markdown pages of the documentation, with their tables."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from math import ceil
from typing import NamedTuple

from benchmarks.commit_cost import CommitCosts
from benchmarks.flush_cost import FlushCosts
from benchmarks.pipeline_ways import LONG_SECONDS
from benchmarks.pipeline_workloads import PIPELINE_WORKLOADS, long_tasks
from benchmarks.published import DICT, MILLION, TRACKER
from benchmarks.results import Case, Result, SavedResults
from benchmarks.shared_stores import ALL_SHARED_STORES
from benchmarks.shared_workloads import SHARED_WORKLOADS
from benchmarks.stores import ALL_STORES, OURS
from benchmarks.stores.base import StoreInfo
from benchmarks.workloads import WORKLOADS

# The order of the columns.
COLUMNS = (OURS, "lmdb", "lmdb layout", "lmdb layout promised", "sqlite3", "sqlite3 full", "rocksdict",
           "rocksdict flushed", "lmdbm", "sqlitedict", "diskcache", "persist-queue", "litequeue", "huey", "Manager",
           "bare lmdb",
           *dict.fromkeys(name for workload in PIPELINE_WORKLOADS.values() for name in workload.ways
                          if name != OURS))  # fmt: skip
# Variants of other stores. They are only in the details.
VARIANTS = ("lmdb layout", "lmdb layout promised", "sqlite3 full", "rocksdict flushed")
# Limits that no store, or driver of workers, with these promises can reach. They are never the best value of a row.
REFERENCES = ("lmdb layout", "lmdb layout promised", "bare lmdb", "loop")
NAMES = {"lmdb": "LMDB by hand", "lmdb layout": "LMDB upper bound", "lmdb layout promised": "LMDB bound, promises kept",
         "sqlite3": "sqlite3 by hand", "sqlite3 full": "sqlite3 by hand, flushed", "Manager": "`Manager` dict",
         "bare lmdb": "bare LMDB put", "run shared": "shared tracker", "run marks": "without results",
         "run workers": "`run()` workers", "loop": "plain loop", "futures": "concurrent.futures",
         "futures 100": "futures, by 100", "joblib auto": "joblib, auto",
         "parallel": "GNU parallel", "client.map": "Dask"}  # fmt: skip
# A title in a table is broken into lines of this length.
TITLE_WIDTH = 24
# Batches that the main page shows. The details have all of them.
MAIN_BATCHES = (1, 100)
# What users ask about first.
README_ROWS = ("fill", "update", "read", "tracker_loop", "shared_claim_done")


class Row(NamedTuple):
    """A row of a table, or a panel of a chart: its title, and a result for each store."""

    title: str
    results: dict[str, Result]

    @property
    def case(self) -> Case:
        """Return the case of all results."""
        return next(iter(self.results.values())).case


class Measured:
    """Results by case and store."""

    def __init__(self, saved: SavedResults) -> None:
        self.saved = saved
        self._cases: dict[Case, dict[str, Result]] = {}
        for result in saved.results:
            self._cases.setdefault(result.case, {})[result.store] = result

    def row(self, title: str, case: Case) -> Row | None:
        """Return a row, or None if tastypy_fast was not measured: there would be nothing to compare with."""
        found = self._cases.get(case, {})
        return Row(title, {store: found[store] for store in COLUMNS if store in found}) if OURS in found else None

    def sizes(self, workload: str, kind: str = "url") -> list[int]:
        """Return the numbers of keys at which a workload of one process was measured."""
        return sorted(case.n for case, found in self._cases.items()
                      if (case.workload, case.keys, case.processes, case.batch) == (workload, kind, 1, 1)
                      and OURS in found)  # fmt: skip

    def private(self, workloads: Iterable[str], kind: str = "url", max_n: int = MILLION) -> list[Row]:
        """Return the rows of one process, each at its largest size up to ``max_n``."""
        rows = []
        for workload in workloads:
            sizes = [n for n in self.sizes(workload, kind) if n <= max_n]
            row = self.row(WORKLOADS[workload].about, Case(workload, sizes[-1], kind)) if sizes else None
            rows += [row] if row else []
        return rows

    def shared(self, processes: int | None = None, batches: Sequence[int] | None = None) -> list[Row]:
        """Return the rows of several processes, of any or of this number, with any or with these batches."""
        order = list(SHARED_WORKLOADS)
        cases = sorted(
            (case for case in self._cases if case.workload in SHARED_WORKLOADS),
            key=lambda case: (order.index(case.workload), case.batch, case.processes, case.n),
        )
        rows = []
        for case in cases:
            if processes in (None, case.processes) and (batches is None or case.batch in batches):
                names = [SHARED_WORKLOADS[case.workload].about.partition(": ")[2]]
                names += [f"batches of {case.batch:,}"] if case.batch > 1 else []
                names += [f"{case.processes} process{'es' * (case.processes > 1)}"] if processes is None else []
                row = self.row(", ".join(names), case)
                rows += [row] if row else []
        return rows

    def summary(self, workloads: Collection[str]) -> list[Row]:
        """Return the rows of some workloads, of one process or of two."""
        rows = [row for row in self.private([*DICT, *TRACKER]) if row.case.workload in workloads]
        for row in self.shared(2, [1]):
            if row.case.workload in workloads:
                rows.append(row._replace(title=f"2 processes, {row.case.n:,} tasks: {row.title}"))
        return rows

    def pipelines(self) -> list[Row]:
        """Return a row for each pipeline: the case with the most ways, at its largest number of tasks."""
        rows: dict[str, Row] = {}
        for row in self.all_pipelines():
            earlier = rows.get(row.case.workload)
            if earlier is None or (len(row.results), row.case.n) >= (len(earlier.results), earlier.case.n):
                rows[row.case.workload] = row
        return list(rows.values())

    def all_pipelines(self) -> list[Row]:
        """Return the rows of all pipelines."""
        order = list(PIPELINE_WORKLOADS)
        cases = sorted(
            (case for case in self._cases if case.workload in PIPELINE_WORKLOADS),
            key=lambda case: (order.index(case.workload), case.n, case.processes),
        )
        titles = (f"{PIPELINE_WORKLOADS[case.workload].about}, {case.n:,} tasks" for case in cases)
        return [row for title, case in zip(titles, cases, strict=True) if (row := self.row(title, case))]

    def versions(self, shared: bool = False) -> dict[str, str]:
        """Return the version of each store in the last run that measured it."""
        found: dict[str, str] = {}
        for result in self.saved.results:
            if result.case.workload in (SHARED_WORKLOADS if shared else WORKLOADS):
                facts = self.saved.runs[result.run]["stores"]
                found[result.store] = facts[f"shared {result.store}" if shared else result.store]["version"]
        return {store: found[store] for store in COLUMNS if store in found}

    def machine(self, pipelines: bool = False) -> str:
        """Return where all stores, or all pipelines, were measured, with all versions."""
        numbers = {result.run for result in self.saved.results
                   if (result.case.workload in PIPELINE_WORKLOADS) == pipelines}  # fmt: skip
        runs = [self.saved.runs[number] for number in sorted(numbers)]
        machines = {f"{facts['processor']}, {facts['cores']} cores, {facts['memory']} of memory, {facts['system']}, "
                    f"{facts['file system']}, {facts['Python']}": None
                    for facts in (run["machine"] for run in runs)}  # fmt: skip
        stores = (about["version"].split(", ") for run in runs for name, about in run["stores"].items()
                  if (name.split(" ")[0] in PIPELINE_WORKLOADS) == pipelines)  # fmt: skip
        # What is a part of Python has no version of its own.
        versions = sorted({version for several in stores for version in several if re.search(r"\d", version)})
        # A version that is also listed with its engine is left out.
        versions = [name for name in versions if not any(other.startswith(f"{name} (") for other in versions)]
        return f"Measured on {'; and on '.join(machines)}. Versions: {', '.join(versions)}."


# The pages


def main_page(measured: Measured) -> str:
    """Return ``index.md``."""
    dict_n, task_n = _n(measured.private(DICT)), _n(measured.private(TRACKER))
    shared = measured.shared(2, MAIN_BATCHES)
    parts = [
        "# Benchmarks",
        _paragraph(
            "This page compares tastypy_fast with the same work written by hand with LMDB and with sqlite3, and with "
            "other packages. All stores get the same keys and the same JSON values of 78 bytes."
        ),
        _paragraph(
            "\"By hand\" code keeps the same promises. Keys stay in the order in which they were added. A kill loses "
            "at most the last 1,000 changes. It leaves out everything else: no type checks, no cache, no sharing "
            "between processes. Most packages keep only a part of these promises. "
            "[All results](details.md) has the settings and the promises of each store, more sizes, more processes "
            "and the spread of the measurements."
        ),
        _image("Speed of tastypy_fast, LMDB and sqlite3 by hand, and packages", "summary"),
        _paragraph(measured.machine()),
        "## How to read the tables",
        _LEGEND,
        "## The columns",
        _COLUMNS,
        "## Speed by number of keys",
        _paragraph(
            "Both axes are logarithmic. A store that was too slow at a size has no point there."
        ),
        _image("Items per second by number of keys in the store, one line per store", "sizes"),
        f"## A dict on disk, {dict_n:,} keys",
        _paragraph(
            "One process. Keys are URLs as a crawler finds them: consecutive keys are often of the same host. Random "
            "workloads read or change 200,000 keys."
        ),
        _table(_compared(measured.private(DICT)), ALL_STORES, resources=True, without=VARIANTS),
        _image("A dict on disk: one bar per store", "dict"),
    ]
    formats = [row for row in measured.private(DICT) if row not in _compared([row])]
    if formats:
        parts += [
            f"### Import and export, {_n(formats):,} keys",
            _paragraph("In items per second. No other store of this page has these formats."),
            markdown([["workload", OURS], *([row.title, rate(row.results[OURS].value())] for row in formats)]),
        ]
    digests = measured.private(DICT, "digest")
    if digests:
        parts += [
            f"### Random keys, {_n(digests):,} keys",
            _paragraph(
                "The same workloads with keys that have no locality, such as digests of files. Every page of an index "
                "is then changed again and again."
            ),
            _table(digests, ALL_STORES, resources=True, without=VARIANTS),
        ]
    parts += [
        f"## A task tracker, {task_n:,} tasks",
        _paragraph("One process. The queues have no random access to tasks, so most of their cells are empty."),
        _table(measured.private(TRACKER), ALL_STORES, resources=True, without=VARIANTS),
        _image("A task tracker: one bar per store", "tracker"),
    ]
    if shared:
        parts += [
            f"## Two processes on one store, {_n(shared):,} keys",
            _paragraph(
                "Each operation is one commit, visible to the other process when it returns. The rate is that of both "
                "processes together. With batches, one operation makes that many changes."
            ),
            _table(shared, ALL_SHARED_STORES),
            _image("Two processes on one store: one bar per store", "shared"),
        ]
    pipelines = measured.pipelines()
    if pipelines:
        parts += [
            f"## Pipelines, {pipelines[0].case.processes} workers",
            _PIPELINES,
            _image("Pipelines: one bar per way to run tasks", "pipelines"),
            _paragraph(measured.machine(pipelines=True)),
        ]
        for row in pipelines:
            parts += [f"### {_capital(row.title)}", _paragraph(_about_pipeline(row, measured)), _ways(row)]
    parts += ["## Run the benchmark", _RUN, _TOCTREE]
    return "\n\n".join(parts) + "\n"


def readme_table(measured: Measured) -> str:
    """Return the table of the README."""
    stores = (OURS, "lmdb", "sqlite3")
    table = [["operations per second", *(NAMES.get(store, store) for store in stores)]]
    for row in measured.summary(README_ROWS):
        title = row.title if ":" in row.title else f"{row.title}, {row.case.n:,} keys"
        table.append([title, *(rate(row.results[store].value()) if store in row.results else "" for store in stores)])
    return markdown(table)


def details_page(measured: Measured, commits: CommitCosts | None, flushes: FlushCosts | None = None) -> str:
    """Return ``details.md``."""
    sizes = sorted({n for name in WORKLOADS for n in measured.sizes(name)})
    parts = [
        "# All results",
        _paragraph(
            "All measurements of the [benchmarks](index.md), with their spread, and the settings and promises of each "
            "store."
        ),
        _paragraph(measured.machine()),
        "## How to read the tables",
        _DETAILS_LEGEND,
        "## The stores",
        _paragraph(
            "\"By hand\" is code of the benchmark that keeps the promises of tastypy_fast. LMDB upper bound is the "
            "layout of tastypy_fast without durability: it keeps all changes in memory and writes them once, sorted."
        ),
        "### Stores of one process",
        _stores(measured.versions(), ALL_STORES),
        "### Stores of several processes",
        _stores(measured.versions(shared=True), ALL_SHARED_STORES),
    ]
    for n in sizes:
        for kind in ("url", "digest"):
            rows = [measured.row(WORKLOADS[name].about, Case(name, n, kind)) for name in WORKLOADS]
            found = [row for row in rows if row]
            keys = "random keys (digests)" if kind == "digest" else "keys"
            dicts = [row for row in found if row.case.workload in DICT]
            tasks = [row for row in found if row.case.workload in TRACKER]
            if dicts:
                parts += [f"## A dict of {n:,} {keys}", _table(dicts, ALL_STORES, resources=True, spread=True)]
            if tasks:
                parts += [f"## A tracker of {n:,} tasks", _table(tasks, ALL_STORES, resources=True, spread=True)]
    shared = measured.shared()
    if shared:
        parts += [f"## Several processes on one store, {_n(shared):,} keys",
                  _table(shared, ALL_SHARED_STORES, spread=True)]  # fmt: skip
    for row in measured.all_pipelines():
        workers = f"{row.case.processes} worker{'s' * (row.case.processes > 1)}"
        parts += [f"## {_capital(row.title)}, {workers}", _ways(row, spread=True)]
    if commits:
        parts += ["## The cost of a commit of a shared store", _commits(commits)]
    if flushes:
        parts += ["## Shared stores, flushes included", _flushes(flushes)]
    return "\n\n".join(parts) + "\n"


def _paragraph(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False))


def _list(*items: str) -> str:
    return "\n".join(
        "\n".join(textwrap.wrap(item, 118, initial_indent="- ", subsequent_indent="  ", break_long_words=False,
                                break_on_hyphens=False))
        for item in items
    )  # fmt: skip


def _image(text: str, name: str) -> str:
    return f"![{text}]({name}.svg)"


def _compared(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that have more stores than tastypy_fast."""
    return [row for row in rows if len(row.results) > 1]


def _n(rows: Sequence[Row]) -> int:
    return max(row.case.n for row in rows)


_RATES = (
    "A number without a unit is a rate in items per second: higher is better. *ms* is the time of the whole workload, "
    "*MB* is a size: lower is better."
)
_BOLD = (
    "**Bold** is the best value of a row; equal values are all bold. The only value of a row is never bold. Neither is "
    "a reference ({}), nor a time or size that was measured with fewer keys."
)
_FEWER_KEYS = (
    "*(at 200,000 keys)*: measured with fewer keys, because larger runs were too slow. The rate with "
    "all keys is usually lower."
)
_MEMORY = (
    "*Peak memory* is the largest growth of anonymous memory in any workload, beyond the interpreter with all modules "
    "loaded. *Disk after filling* is the size of the files. rocksdict compresses its files, and the "
    "generated values compress unusually well."
)
_DURABLE = (
    "*Safe from power loss* is the time when a change is flushed to the disk. *After each batch* is after 1,000 "
    "changes. *At checkpoints* is at a checkpoint, or when a log or buffer is full. *After `sync()`* is when `sync()` "
    "is called."
)
_EMPTY = "An empty cell: the store does not support the workload, or was not measured."
_LEGEND = _list(
    f"{_RATES} Each cell is the median of the rounds.",
    _BOLD.format("bare LMDB put"),
    _FEWER_KEYS,
    _MEMORY,
    _DURABLE,
    _EMPTY,
)
_COLUMNS = _list(
    "*tastypy_fast*: this library with its default settings.",
    "*LMDB by hand*, *sqlite3 by hand*: an ordered dict and a list of tasks, written with py-lmdb or sqlite3, and "
    "orjson.",
    "*rocksdict*, *lmdbm*, *sqlitedict*, *diskcache*: dicts on disk. rocksdict and lmdbm sort their keys instead of "
    "keeping the order. sqlitedict moves an overwritten key to the end.",
    "*persist-queue*, *litequeue*, *huey*: task queues on SQLite. They do not count tries, and have no lookup by key.",
    "*`Manager` dict*: a dict in a server process of `multiprocessing`. It is not stored on disk.",
    "*Bare LMDB put*: keys and values in one LMDB database, without order and status. It is a reference for the cost "
    "of the engine, not a store.",
)
_DETAILS_LEGEND = _list(
    f"{_RATES} Each cell is the median, followed by the lowest and the highest value of all rounds, if there were "
    "several.",
    _BOLD.format("LMDB upper bound, bare LMDB put"),
    _FEWER_KEYS,
    _MEMORY,
    _DURABLE,
    "With several processes, the rate is that of all processes together.",
    _EMPTY,
)
_PIPELINES = "\n\n".join((
    _paragraph(
        "[`run()`](../guide/running.md) calls a function, or runs a command, for each task of a tracker. It keeps "
        "marks, results, tries and errors. The pools keep nothing, so a program that is killed starts again from the "
        "first task. The tasks here do nothing: the tables show what a way to run tasks adds to each of them."
    ),
    _list(
        "*Relative time* is the time of this way, divided by that of tastypy_fast.",
        "*Processor time* is that of the driver and its workers together: for each task, or for the whole workload in "
        "*ms*.",
        "*Driver's memory* is the largest growth of the anonymous memory of the process that hands out tasks. It is "
        "not measured where that process is a program of its own.",
        "*Keeps* is what is on disk after a kill.",
    ),
))
_RUN = """\
Machines differ, so measure on yours. From a checkout:

```bash
python3 -m venv .venv && .venv/bin/pip install -e '.[bench]'
.venv/bin/python -m benchmarks -n 100000                        # all workloads of stores, with 100,000 keys
.venv/bin/python -m benchmarks --list                           # the names of the workloads
.venv/bin/python -m benchmarks -n 100000 --only fill read       # some of them
.venv/bin/python -m benchmarks --only shared_set --processes 4  # four processes on one store
.venv/bin/python -m benchmarks --only pipeline_nothing          # run(), pools of processes, joblib, with 100,000 tasks
```

Each measurement runs in a process of its own. The stores are measured in turn, in several rounds, so that a noisy
minute affects all of them. The result of each workload is verified after the measurement. Packages and programs that
are not installed are skipped. GNU parallel is not part of `bench`. Create the stores on a real disk (`--folder`),
because a file system in memory never flushes.

To compare two installations of tastypy_fast, for example before and after a change:

```bash
.venv/bin/python -m benchmarks.compare --python before=/path/to/before/bin/python --python after=.venv/bin/python
```

To measure what a kill takes from a private tracker, what the durability levels of a shared store cost, and what each
operation of it writes, next to loops of py-lmdb:

```bash
.venv/bin/python -m benchmarks.kill_loss    # the lost seconds, for tasks of three durations
.venv/bin/python -m benchmarks.flush_cost   # the same, for 30 seconds each, with the last flush
.venv/bin/python -m benchmarks.commit_cost  # pages, write calls and processor time of each operation
```

This page and its charts are generated. To measure again and to update them, which takes about 70 minutes (a run
with `--published` refuses to start when the load of the machine is above 1, so wait some minutes between them):

```bash
.venv/bin/python -m benchmarks --published --json benchmarks/results.json
.venv/bin/python -m benchmarks.commit_cost --published
.venv/bin/python -m benchmarks.flush_cost --published --seconds 10 --latency
.venv/bin/python -m benchmarks.pages
```"""
# Sphinx takes the details into its navigation. On GitHub the link in the first paragraph leads to them.
_TOCTREE = """\
```{toctree}
:hidden:

details
```"""


# The tables


def rate(value: float, in_milliseconds: bool = False) -> str:
    """Format a value with three digits, because a machine does not reproduce more."""
    if in_milliseconds:
        return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} ms"
    return f"{float(f'{value:.3g}'):,.0f}"


def megabytes(size: float) -> str:
    """Format a number of bytes."""
    number = size / 1e6
    return f"{number:,.1f} MB" if number < 9.95 else f"{number:,.0f} MB"


class Cell(NamedTuple):
    """A cell of a table: its text, what is added to it, and whether it may be the best of its row."""

    text: str
    value: float
    note: str = ""
    comparable: bool = True

    def markdown(self, best: bool) -> str:
        """Return the cell as Markdown."""
        return f"**{self.text}**{self.note}" if best else f"{self.text}{self.note}"


def best_texts(cells: Iterable[Cell | None], higher_is_better: bool) -> set[str]:
    """Return the texts of the best cells: those that show the best value, if at least two cells have values."""
    found = [cell for cell in cells if cell]
    comparable = [cell for cell in found if cell.comparable]
    if len(found) < 2 or not comparable:
        return set()
    choose: Callable[..., Cell] = max if higher_is_better else min
    return {choose(comparable, key=lambda cell: cell.value).text}


def _row(title: str, cells: Sequence[Cell | None], higher_is_better: bool = False) -> list[str]:
    best = best_texts(cells, higher_is_better)
    # With no-break spaces, because a browser would otherwise break the title after each word.
    title = " ".join(line.replace(" ", "\u00a0") for line in textwrap.wrap(title, TITLE_WIDTH))
    return [title, *(cell.markdown(cell.comparable and cell.text in best) if cell else "" for cell in cells)]


def _cell(result: Result | None, spread: bool) -> Cell | None:
    if result is None:
        return None
    notes = []
    if spread and len(result.samples) > 1:
        low, high = (rate(result.value(choose), result.in_milliseconds) for choose in (min, max))
        notes.append(f"{low} to {high}")
    fewer = result.measured_n < result.case.n
    if fewer:
        notes.append(f"at\u00a0{result.measured_n:,} keys")
    return Cell(
        rate(result.value(), result.in_milliseconds),
        result.value(),
        f" ({', '.join(notes)})" if notes else "",
        result.store not in REFERENCES and not (fewer and result.in_milliseconds),
    )


def _table(
    rows: Sequence[Row],
    infos: dict[str, StoreInfo],
    resources: bool = False,
    without: Iterable[str] = (),
    spread: bool = False,
) -> str:
    stores = [name for name in COLUMNS if name not in without and any(name in row.results for row in rows)]
    sizes = sorted({row.case.n for row in rows})
    table = [["workload", *(NAMES.get(store, store) for store in stores)]]
    for row in rows:
        title = row.title if len(sizes) == 1 else f"{row.title}, {row.case.n:,} keys"
        cells = [_cell(row.results.get(store), spread) for store in stores]
        table.append(_row(title, cells, higher_is_better=not row.results[OURS].in_milliseconds))
    if resources:
        fill = next((row for row in rows if row.case.workload in ("fill", "tracker_fill")), rows[0])
        table.append(_row("peak memory", [_peak_memory(rows, store) for store in stores]))
        table.append(_row("disk after filling", [_disk(fill.results.get(store)) for store in stores]))
    table.append(["safe from power loss", *(infos[store].durable for store in stores)])
    return markdown(table)


def _capital(title: str) -> str:
    return title[0].upper() + title[1:]


def _about_pipeline(row: Row, measured: Measured) -> str:
    """Return what a table of a pipeline shows."""
    case = row.case
    if case.workload == "pipeline_tail":
        ideal = ceil(long_tasks(case.n) / case.processes) * LONG_SECONDS * 1000
        return (f"{case.n:,} functions that do nothing, then {long_tasks(case.n)} that sleep for {LONG_SECONDS} s. "
                f"The ideal is {ideal:,.0f} ms, if all workers share the long ones. tastypy_fast takes "
                f"{row.results[OURS].value() / ideal:.2f} times as long.")  # fmt: skip
    text = _PIPELINE_TEXTS[case.workload]
    largest = max((other for other in measured.all_pipelines() if other.case.workload == case.workload),
                  key=lambda other: other.case.n)  # fmt: skip
    memory = largest.results[OURS].memory
    if largest.case.n > case.n and memory is not None:
        text += f" With {largest.case.n:,} tasks, the memory of tastypy_fast's driver grows by {megabytes(memory)}."
    return text


_PIPELINE_TEXTS = {
    "pipeline_nothing": "The time includes the start and the end of the workers. Those of joblib are started before, "
    "because joblib keeps them from call to call. tastypy_fast and joblib's \"auto\" choose the number of tasks in a "
    "message at run time. The plain loop is a reference: one process, without workers, and what its tracker takes.",
    "pipeline_commands": "The time includes the start of the program that runs the commands.",
    "pipeline_dask": "A local cluster, started before the measurement, whose workers are processes with one thread.",
    "pipeline_resume": "All tasks are done but one. The time ends when this one begins. It starts when the tracker is "
    "opened, or when the program starts.",
}


def _ways(row: Row, spread: bool = False) -> str:
    """Return the table of a pipeline, with a line for each way. The best speed is bold."""
    ours, ways = row.results[OURS], PIPELINE_WORKLOADS[row.case.workload].ways
    cells = {name: _cell(result, spread) for name, result in row.results.items()}
    best = best_texts(cells.values(), not ours.in_milliseconds)
    table = [["way", "time" if ours.in_milliseconds else "tasks per second", "relative time", "processor time",
              "driver's memory", "keeps"]]  # fmt: skip
    for name, result in row.results.items():
        cell = cells[name]
        assert cell is not None
        cpu = result.cpu_microseconds
        table.append([
            f"{NAMES.get(name, name)}: {ways[name].call}",
            cell.markdown(cell.comparable and cell.text in best),
            f"{ours.times_faster(result):.3g}",
            rate(cpu / 1000, True) if ours.in_milliseconds else f"{float(f'{cpu:.3g}'):,g} µs",
            "" if result.memory is None else megabytes(result.memory),
            ways[name].keeps,
        ])  # fmt: skip
    return markdown(table)


def _peak_memory(rows: Sequence[Row], store: str) -> Cell | None:
    found = [row.results[store] for row in rows if store in row.results]
    known = [(result.memory, result) for result in found if result.memory is not None]
    if not known:
        return None
    size, result = max(known, key=lambda pair: pair[0])
    return _size(size, result)


def _disk(result: Result | None) -> Cell | None:
    return None if result is None else _size(result.disk, result)


def _size(size: int, result: Result) -> Cell:
    fewer = result.measured_n < result.case.n
    note = f" (at\u00a0{result.measured_n:,} keys)" if fewer else ""
    return Cell(megabytes(size), size, note, result.store not in REFERENCES and not fewer)


def _stores(versions: dict[str, str], infos: dict[str, StoreInfo]) -> str:
    rows = [["store", "version", "settings", "durability", "license and maintenance"]]
    for name, version in versions.items():
        info = infos[name]
        rows.append([NAMES.get(name, name), version, _settings(info), info.power_loss, info.about])
    return markdown(rows, "---|")


def _settings(info: StoreInfo) -> str:
    return ", ".join(f"`{part}`" if "=" in part else part for part in info.settings.split(", "))


def _costs(title: str, about: str, costs: CommitCosts | FlushCosts) -> str:
    """Return what shared stores cost, with a table for each number of processes."""
    machine = "{processor}, {cores} cores, {system}, {file system}, {Python}".format(**costs.machine)
    parts = [about, _paragraph(f"Measured on {machine}. Load before: {costs.machine['load before']}.")]
    for processes, table in costs.tables().items():
        parts += [f"### {title}, {processes}", markdown(table, left=2)]
    return "\n\n".join(parts)


def _commits(commits: CommitCosts) -> str:
    about = f"{_paragraph(_COMMITS.format(keys=commits.keys))}\n\n{_list(*_COMMIT_COLUMNS)}"
    return _costs("Commits", about, commits)


def _flushes(flushes: FlushCosts) -> str:
    about = _FLUSHES.format(keys=flushes.keys, seconds=flushes.seconds)
    return _costs("Flushes included", _paragraph(about), flushes)


_COMMITS = (
    "Each operation, or batch, is one commit, on a store of {keys:,} keys. The numbers are those of one change. "
    "`\"process\"` has flush points, and `\"unsafe\"` has none. The rows of py-lmdb are limits: loops without checks "
    "and without recovery. They put keys and values into one database, or make the accesses of an assignment or of a "
    "claim, with several layouts on disk. Those with flush points flush as tastypy_fast does."
)
_COMMIT_COLUMNS = (
    "*Pages* are the written bytes, divided by the size of a page. *Write calls* are the system calls that wrote them.",
    "*User* and *system* are the processor time of all processes, in the program and in the kernel.",
    "*Claim* and *done* are the two halves of *claim and done*, measured apart in groups of 50 tasks.",
)


_FLUSHES = (
    "The processes change a store of {keys:,} keys for {seconds:g} seconds, and then wait for the last flush: "
    "`sync()`, or the checkpoint of SQLite. Each operation, or batch, is one commit. *tastypy_fast* has flush points, "
    "and *unsafe* is the same without them. *Layout* is a loop of py-lmdb with the accesses of tastypy_fast, without "
    "checks and recovery: the limit of the layout. With flush points each page of a commit goes to the disk, because "
    "LMDB reuses no page that was freed after the last flush point."
)


def markdown(rows: Sequence[Sequence[str]], column: str = "--:|", left: int = 1) -> str:
    """Return a table. The first row is its header; ``column`` aligns all columns but the first ``left``."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * left + column * (len(rows[0]) - left))
    return "\n".join(lines)
