"""The tables of the README and of RESULTS.md, from what was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.plan import MILLION
from benchmarks.results import Case, Result, Saved
from benchmarks.shared_workloads import SHARED_WORKLOADS
from benchmarks.stores import OURS
from benchmarks.workloads import WORKLOADS

# In this order; what is not in a file is left out.
STORES = (OURS, "lmdb", "lmdb layout", "sqlite3", "sqlite3 full", "rocksdict", "rocksdict flushed", "lmdbm",
          "sqlitedict", "diskcache", "persist-queue", "litequeue", "huey", "Manager", "bare lmdb")  # fmt: skip
# Others' twins, and what is no store: in RESULTS.md.
ASIDE = ("lmdb layout", "sqlite3 full", "rocksdict flushed")
NAMES = {"lmdb": "py-lmdb by hand", "lmdb layout": "this layout, at most", "sqlite3": "sqlite3 by hand",
         "sqlite3 full": "sqlite3 by hand, flushed", "Manager": "`Manager` dict",
         "bare lmdb": "one py-lmdb put"}  # fmt: skip
DICT = [name for name, workload in WORKLOADS.items() if not workload.tasks]
TRACKER = [name for name, workload in WORKLOADS.items() if workload.tasks]


class Row(NamedTuple):
    """A line of a table or a panel of a plot: what it is called, and its results by store."""

    title: str
    results: dict[str, Result]

    @property
    def case(self) -> Case:
        return next(iter(self.results.values())).case


class Measured:
    """What was measured, by case and store."""

    def __init__(self, saved: Saved) -> None:
        self.saved = saved
        self._cases: dict[Case, dict[str, Result]] = {}
        for result in saved.results:
            self._cases.setdefault(result.case, {})[result.peer] = result

    def row(self, name: str, case: Case) -> Row | None:
        """Where tastypy_fast was measured: anything else would compare with nothing."""
        found = self._cases.get(case, {})
        return Row(name, {store: found[store] for store in STORES if store in found}) if OURS in found else None

    def sizes(self, workload: str, kind: str = "url") -> list[int]:
        return sorted(case.n for case, found in self._cases.items()
                      if (case.workload, case.keys, case.processes, case.batch) == (workload, kind, 1, 1)
                      and OURS in found)  # fmt: skip

    def alone(self, workloads: Iterable[str], kind: str = "url", most: int = MILLION) -> list[Row]:
        """The rows of one process, each at the largest n that is not more than a million."""
        rows = []
        for workload in workloads:
            sizes = [n for n in self.sizes(workload, kind) if n <= most]
            row = self.row(WORKLOADS[workload].about, Case(workload, sizes[-1], kind)) if sizes else None
            rows += [row] if row else []
        return rows

    def together(self, processes: int | None = None, batches: bool = True) -> list[Row]:
        """The rows of several processes, or of this many."""
        order = list(SHARED_WORKLOADS)
        cases = sorted(
            (case for case in self._cases if case.workload in SHARED_WORKLOADS),
            key=lambda case: (order.index(case.workload), case.batch, case.processes, case.n),
        )
        rows = []
        for case in cases:
            if processes in (None, case.processes) and (batches or case.batch == 1):
                about = SHARED_WORKLOADS[case.workload].about.partition(": ")[2]
                names = [about, f"batches of {case.batch:,}"] if case.batch > 1 else [about]
                names += [f"{case.processes} at once"] if processes is None else []
                row = self.row(", ".join(names), case)
                rows += [row] if row else []
        return rows

    def stores(self, shared: bool = False) -> dict[str, dict[str, str]]:
        """What is said of each store by the last run that measured it."""
        said: dict[str, dict[str, str]] = {}
        for result in self.saved.results:
            if (result.case.workload in SHARED_WORKLOADS) == shared:
                facts = self.saved.runs[result.run]["stores"]
                said[result.peer] = facts[f"shared {result.peer}" if shared else result.peer]
        return {store: said[store] for store in STORES if store in said}


def readme(measured: Measured) -> str:
    """What stands in the README between its marks."""
    alone = {name: facts["flushed"] for name, facts in measured.stores().items()}
    shared = {name: facts["flushed"] for name, facts in measured.stores(shared=True).items()}
    several = [row for row in measured.together(processes=2) if row.case.batch in (1, 100)]
    picture = "![{}: a bar for each store](benchmarks/plots/{}.svg)".format
    parts = [
        machine(measured),
        _wrapped(
            "Rates are operations a second, medians; ms are for the whole. A number in brackets: with so many keys, as "
            "more would have taken that store too long. *Flushed* is when a change is safe from a power cut: with "
            "*each batch* of 1,000, *in time* (when a log or buffer is full), *at a sync*. An empty place: it has no "
            "such thing. What each store is and promises, other sizes, processes and batches, and the spread are in "
            "[benchmarks/RESULTS.md](benchmarks/RESULTS.md)."
        ),
        "![rates against the number of keys: a line for each store](benchmarks/plots/sizes.svg)",
        _section("A dict on disk", measured.alone(DICT), alone, resources=True, without=ASIDE),
        picture("a dict on disk", "dict"),
        _section("The same with random keys (digests)", measured.alone(DICT, "digest"), alone, True, ASIDE),
        _section("A list of tasks", measured.alone(TRACKER), alone, without=ASIDE),
        picture("a list of tasks", "tracker"),
        _section("Two processes on one store, all together", several, shared),
        picture("two processes", "shared"),
    ]
    return "\n\n".join(part for part in parts if part)


def full(measured: Measured) -> str:
    """RESULTS.md."""
    alone = {name: facts["flushed"] for name, facts in measured.stores().items()}
    shared = {name: facts["flushed"] for name, facts in measured.stores(shared=True).items()}
    sizes = sorted({n for name in WORKLOADS for n in measured.sizes(name)})
    parts = ["# What was measured", machine(measured), _wrapped(_SAID),
             "## The stores", _stores(measured.stores()),
             "### Those that several processes share", _stores(measured.stores(shared=True))]  # fmt: skip
    for n in sizes:
        for kind in ("url", "digest"):
            rows = [measured.row(WORKLOADS[name].about, Case(name, n, kind)) for name in WORKLOADS]
            found = [row for row in rows if row]
            title = f"{n:,} keys" + (", random (digests)" if kind == "digest" else "")
            dicts = [row for row in found if row.case.workload in DICT]
            tasks = [row for row in found if row.case.workload in TRACKER]
            parts += [_section(f"A dict of {title}", dicts, alone, True, level=2, spread=True),
                      _section(f"A tracker of {title}", tasks, alone, True, level=2, spread=True)]  # fmt: skip
    parts.append(_section("Several processes on one store", measured.together(), shared, level=2, spread=True))
    return "\n\n".join(part for part in parts if part) + "\n"


_SAID = (
    "Rates are operations a second, ms are for the whole: median (lowest to highest of all rounds). *at n*: with so "
    "many keys, as more would have taken that store too long. Memory is the most by which anonymous memory grew "
    "beyond the process with all modules loaded, disk what the files take afterwards. Where several processes work "
    "at once the rate is that of all together. *Flushed* is when a change is safe from a power cut: *each batch* of "
    "1,000, *in time* (at a checkpoint or when a buffer is full), *at a sync*, *never*."
)


def machine(measured: Measured) -> str:
    """Where it was measured, of all runs."""
    said = {f"{facts['processor']}, {facts['cores']} cores, {facts['memory']} of memory, {facts['system']}, "
            f"{facts['file system']}, {facts['Python']}": None
            for facts in (run["machine"] for run in measured.saved.runs)}  # fmt: skip
    stores = (about["version"].split(", ") for run in measured.saved.runs for about in run["stores"].values())
    versions = sorted({version for several in stores for version in several if "Manager" not in version})
    # (what is listed with its engine need not be listed without)
    versions = [name for name in versions if not any(other.startswith(f"{name} (") for other in versions)]
    return _wrapped(f"Measured on {'; and on '.join(said)}. {', '.join(versions)}.")


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False))


def rate(value: float, milliseconds: bool = False) -> str:
    """Three digits are more than a machine repeats."""
    if milliseconds:
        return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} ms"
    return f"{float(f'{value:.3g}'):,.0f}"


def _cell(result: Result, n: int, spread: bool) -> str:
    text = rate(result.value(), result.milliseconds)
    if spread and len(result.samples) > 1:
        low, high = (rate(result.value(choose), result.milliseconds) for choose in (min, max))
        text += f" ({low} to {high})"
    if result.reached < n:
        text += f" at {result.reached:,}" if spread else f" ({result.reached:,})"
    return f"**{text}**" if result.peer == OURS else text


def _section(
    title: str,
    rows: Sequence[Row],
    flushed: dict[str, str],
    resources: bool = False,
    without: Iterable[str] = (),
    level: int = 3,
    spread: bool = False,
) -> str:
    if not rows:
        return ""
    stores = [name for name in STORES if name not in without and any(name in row.results for row in rows)]
    sizes = sorted({row.case.n for row in rows})
    keys = "tasks" if rows[0].case.workload in TRACKER else "keys"
    table = [["", *(f"**{OURS}**" if store == OURS else NAMES.get(store, store) for store in stores)]]
    for row in rows:
        name = row.title if len(sizes) == 1 else f"{row.title}, {row.case.n:,} {keys}"
        cells = (row.results.get(store) for store in stores)
        table.append([name, *(_cell(found, row.case.n, spread) if found else "" for found in cells)])
    if resources:
        fill = next((row for row in rows if row.case.workload in ("fill", "tracker_fill")), rows[0])
        table.append(["memory, at most", *(_most_memory(rows, store) for store in stores)])
        table.append(["disk, after filling", *(_disk(fill.results.get(store), fill.case.n) for store in stores)])
    table.append(["flushed", *(flushed[store] for store in stores)])
    if len(sizes) == 1 and "keys" not in title:
        title += f", {sizes[0]:,} {keys}"
    return f"{'#' * level} {title}\n\n{markdown(table)}"


def _most_memory(rows: Sequence[Row], store: str) -> str:
    found = [row.results[store] for row in rows if store in row.results]
    known = [result.memory for result in found if result.memory is not None]
    return f"{max(known) / 1e6:.0f} MB" if known else ""


def _disk(result: Result | None, n: int) -> str:
    if result is None:
        return ""
    number = result.disk / 1e6
    text = f"{number:,.1f} MB" if number < 9.95 else f"{number:,.0f} MB"
    return text if result.reached == n else f"{text} ({result.reached:,})"


def _stores(said: dict[str, dict[str, Any]]) -> str:
    rows = [["store", "version", "how it is used, and what a power cut may take", "licence and upkeep"]]
    for name, facts in said.items():
        rows.append([NAMES.get(name, name), facts["version"], facts["promise"], facts["about"]])
    return markdown(rows, "---|")


def markdown(rows: Sequence[Sequence[str]], column: str = "--:|") -> str:
    """A table: the first row is its head, and ``column`` where all columns but the first are put."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|" + column * (len(rows[0]) - 1))
    return "\n".join(lines)
