"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import measure, plan, report, system
from benchmarks.inputs import KINDS
from benchmarks.measure import ALL_WORKLOADS
from benchmarks.results import Result, Saved
from benchmarks.runner import Runner, Step
from benchmarks.shared_stores import SHARED_PEERS
from benchmarks.stores import PEERS

ALL_STORES = list(dict.fromkeys([*PEERS, *SHARED_PEERS]))


def main() -> str | None:
    """Measure as the arguments say and print the tables."""
    options = _parser().parse_args()
    if options.list:
        for name, workload in ALL_WORKLOADS.items():
            print(f"{name:25}{workload.about} ({workload.unit})")
        return None
    # So that the stores do not stay behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    steps = _steps(options)
    workloads = sorted({name for step in steps for name in step.workloads})
    file: Path | None = options.json
    before = Saved.load(file) if file else Saved([], [])
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.folder) as folder:
        facts: dict[str, dict[str, Any]] = {
            "machine": system.machine(Path(folder)),
            "stores": {name: peer.facts() for name, peer in measure.about_peers(workloads).items()},
            "left out": measure.left_out(workloads),
        }
        for name, why in facts["left out"].items():
            _tell(f"{name}: {why}")

        def keep(results: list[Result]) -> None:
            if file:
                before.with_run(facts, results).save(file)

        ticks, stolen = system.stolen_ticks()
        runner = Runner(Path(folder), _tell)
        results = runner.run(steps, keep)
    ticks_now, stolen_now = system.stolen_ticks()
    share = (stolen_now - stolen) / max(1, ticks_now - ticks)
    facts["machine"]["stolen by host"] = f"{share:.1%} of the time of this run"
    keep(results)
    print(report.as_text(facts, results))
    return "\n".join(["", "These failed and are left out:", *runner.failures]) if runner.failures else None


def _steps(options: argparse.Namespace) -> list[Step]:
    """What to measure: what the arguments say, or the published plan within them."""
    if not options.published:
        return [
            Step(
                options.only or list(ALL_WORKLOADS),
                options.n or [100_000],
                options.keys or ["url"],
                options.processes or [2],
                options.batches or [1],
                options.rounds or 3,
                options.stores,
                options.limit or 20,
            )
        ]

    def among(wanted: Any, planned: Any) -> Any:
        return [item for item in planned if not wanted or item in wanted]

    return [
        Step(
            among(options.only, step.workloads),
            among(options.n, step.sizes),
            among(options.keys, step.keys),
            among(options.processes, step.processes),
            among(options.batches, step.batches),
            options.rounds or step.rounds,
            among(options.stores, step.peers or ALL_STORES),
            options.limit or step.limit,
        )
        for step in plan.PUBLISHED
    ]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="tastypy_fast beside the same work written by hand and beside other packages.",
        epilog="What the README shows: python -m benchmarks --published --json benchmarks/results.json, and then "
        "python -m benchmarks.readme. Any part of it can be measured again with the arguments above; the file keeps "
        "the rest.",
    )
    add = parser.add_argument
    add("-n", type=_positive, nargs="+", metavar="N", help="numbers of keys (100,000)")
    add("--rounds", type=_positive, metavar="R", help="measurements of each (3)")
    add("--only", nargs="+", choices=list(ALL_WORKLOADS), metavar="WORKLOAD", help="only these workloads")
    add("--stores", nargs="+", choices=ALL_STORES, metavar="STORE", help=f"only these of {', '.join(ALL_STORES)}")
    add("--keys", nargs="+", choices=KINDS, help="kinds of keys where one process works (url)")
    add("--processes", type=_positive, nargs="+", metavar="P", help="at once on a shared store (2)")
    add("--batches", type=_positive, nargs="+", metavar="B", help="changes with each operation on a shared store (1)")
    add("--limit", type=float, metavar="SECONDS",
        help="how long a measurement of another store may take; it is done to fewer keys instead (20)")
    add("--published", action="store_true", help="what the README shows; other arguments leave out parts of it")
    add("--folder", type=Path, help="where to put the stores; on a real disk (the system's own)")
    add("--json", type=Path, metavar="FILE", help="keep every measurement there, beside what it holds of others")
    add("--list", action="store_true", help="say which workloads there are and end")
    return parser


def _positive(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
