"""The command ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import measure, published, report, system
from benchmarks.inputs import KEY_KINDS
from benchmarks.measure import ALL_WORKLOADS
from benchmarks.pipeline_workloads import PIPELINE_WORKLOADS
from benchmarks.results import Result, SavedResults
from benchmarks.runner import Runner, Step
from benchmarks.shared_stores import SHARED_STORES
from benchmarks.stores import STORES

WAYS = [name for workload in PIPELINE_WORKLOADS.values() for name in workload.stores()]
ALL_STORES = list(dict.fromkeys([*STORES, *SHARED_STORES, *WAYS]))


def main() -> str | None:
    """Measure as the arguments say, and print tables."""
    options = _parser().parse_args()
    if options.list:
        for name, workload in ALL_WORKLOADS.items():
            print(f"{name:25}{workload.about} ({workload.unit})")
        return None
    load = system.load()
    _log(f"load before: {load[0]:.2f} in the last minute")
    if options.published and (refusal := system.refusal(load)):
        return refusal
    # An exception, so that the temporary folder with the stores is removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    steps = _steps(options)
    workloads = sorted({name for step in steps for name in step.workloads})
    file: Path | None = options.json
    earlier = SavedResults.load(file) if file else SavedResults([], [])
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.folder) as folder:
        facts: dict[str, dict[str, Any]] = {
            "machine": system.machine(Path(folder), load),
            "stores": measure.store_facts(workloads),
            "left out": measure.not_installed(workloads),
        }
        for name, why in facts["left out"].items():
            _log(f"{name}: {why}")

        def save(results: list[Result]) -> None:
            if file:
                earlier.with_run(facts, results).save(file)

        ticks_before, stolen_before = system.stolen_ticks()
        runner = Runner(Path(folder), _log)
        results = runner.run(steps, save)
    ticks, stolen = system.stolen_ticks()
    share = (stolen - stolen_before) / max(1, ticks - ticks_before)
    facts["machine"]["stolen by host"] = f"{share:.1%} of the time of this run"
    save(results)
    print(report.as_text(facts, results))
    return "\n".join(["", "These failed and are not in the tables:", *runner.failures]) if runner.failures else None


def _steps(options: argparse.Namespace) -> list[Step]:
    """Return the steps that the arguments describe, or the part of the published run that they select."""
    if not options.published:
        return [
            Step(
                options.only or [name for name in ALL_WORKLOADS if name not in PIPELINE_WORKLOADS],
                options.n or [100_000],
                options.keys or ["url"],
                options.processes or [2],
                options.batches or [1],
                options.rounds or 3,
                options.stores,
                options.limit or 20,
            )
        ]

    def selected(wanted: Any, planned: Any) -> Any:
        return [item for item in planned if not wanted or item in wanted]

    return [
        Step(
            selected(options.only, step.workloads),
            selected(options.n, step.sizes),
            selected(options.keys, step.keys),
            selected(options.processes, step.processes),
            selected(options.batches, step.batches),
            options.rounds or step.rounds,
            selected(options.stores, step.stores or ALL_STORES),
            options.limit or step.limit,
            step.repeat_slow,
        )
        for step in published.PUBLISHED
    ]


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare tastypy_fast with the same work written by hand and with other packages.",
        epilog="To create the published results: python -m benchmarks --published --json benchmarks/results.json. "
        "The other arguments then select a part to measure again; the file keeps the results of all other parts. "
        "To create the documentation's pages and charts from the file: python -m benchmarks.pages. "
        "To compare two installations of tastypy_fast: python -m benchmarks.compare --help.",
    )
    add = parser.add_argument
    add("-n", type=positive, nargs="+", metavar="N", help="numbers of keys in the store, or of tasks (100,000)")
    add("--rounds", type=positive, metavar="R", help="measurements of each workload and store (3)")
    add("--only", nargs="+", choices=list(ALL_WORKLOADS), metavar="WORKLOAD", help="run only these (all but pipelines)")
    add("--stores", nargs="+", choices=ALL_STORES, metavar="STORE",
        help=f"measure only these stores, or ways to run tasks, of {', '.join(ALL_STORES)}")
    add("--keys", nargs="+", choices=KEY_KINDS, help="kinds of keys, for workloads of one process (url)")
    add("--processes", type=positive, nargs="+", metavar="P",
        help="numbers of processes on a shared store, or of workers of a pipeline (2)")
    add("--batches", type=positive, nargs="+", metavar="B", help="changes per operation on a shared store (1)")
    add("--limit", type=float, metavar="SECONDS",
        help="longest time of one measurement of another store; a slower store is measured with fewer keys (20)")
    add("--published", action="store_true", help="run what the documentation shows, or the selected part of it")
    add("--folder", type=Path, help="where to create the stores, on a real disk (the system's temporary folder)")
    add("--json", type=Path, metavar="FILE", help="save all samples to a file; it keeps its other results")
    add("--list", action="store_true", help="list the workloads and exit")
    return parser


def positive(text: str) -> int:
    """Parse a positive integer, which may have ``_`` or ``,`` between its digits."""
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
