"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import measure, report, system
from benchmarks.measure import ALL_WORKLOADS


def main() -> None:
    """Measure as the arguments say and print the tables."""
    options = _parser().parse_args()
    if options.list:
        for name, workload in ALL_WORKLOADS.items():
            print(f"{name:25}{workload.about} ({workload.unit})")
        return
    workloads = [name for name in ALL_WORKLOADS if not options.only or name in options.only]
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.folder) as folder:
        machine = system.machine(Path(folder)) | measure.about_peers(workloads)
        ticks, stolen = system.stolen_ticks()
        runner = measure.Runner(Path(folder), lambda line: print(line, file=sys.stderr, flush=True))
        results = runner.run(options.n or [100_000], workloads, options.rounds, options.processes)
    ticks_now, stolen_now = system.stolen_ticks()
    machine["stolen by host"] = f"{(stolen_now - stolen) / max(1, ticks_now - ticks):.1%} of the time of this run"
    print(report.as_text(machine, results))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(machine, results), indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="tastypy_fast beside the same work written by hand."
    )
    add = parser.add_argument
    add("-n", type=_positive, action="append", metavar="N", help="number of keys (100,000); repeatable")
    add("--rounds", type=_positive, default=3, metavar="R", help="measurements of each (3)")
    add("--only", nargs="+", choices=list(ALL_WORKLOADS), metavar="WORKLOAD", help="only these workloads")
    add("--processes", type=_positive, nargs="+", default=[2], metavar="P", help="at once on a shared store (2)")
    add("--folder", type=Path, help="where to put the stores; on a real disk (the system's own)")
    add("--json", type=Path, metavar="FILE", help="write every measurement there too")
    add("--list", action="store_true", help="say which workloads there are and end")
    return parser


def _positive(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    main()
