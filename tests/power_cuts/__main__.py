"""Print what becomes of disks after simulated power cuts: python -m tests.power_cuts --help"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tastypy_fast._lmdb.engine import DURABILITY
from tests.power_cuts.checker import Checker
from tests.power_cuts.recorder import compile_shim, unsupported
from tests.power_cuts.simulation import Result, simulate_workload
from tests.power_cuts.workloads import WORKLOADS

# How many disks are made of one recording. More recordings show more than more disks.
DISKS_PER_RECORDING = 250
CREATE = tuple(f"create/{kind}" for kind in ("pod", "tracker", "shared"))
COMPACT = tuple(f"compact/{workload}" for workload in WORKLOADS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.power_cuts", description=__doc__.partition(":")[0])
    parser.add_argument("--disks", type=int, default=1000, help="how many disks for each row (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the workloads and of the disks (default: 1)")
    parser.add_argument("--workload", nargs="+", default=WORKLOADS, choices=(*WORKLOADS, *CREATE, *COMPACT))
    parser.add_argument("--level", nargs="+", default=list(DURABILITY), choices=list(DURABILITY))
    options = parser.parse_args()
    reason = unsupported()
    if reason:
        sys.exit(reason)
    print("| workload | durability | disks | of a second power cut | damaged | lost what was promised | seconds |")
    print("|---|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shim = compile_shim(folder)
        checker = Checker(shim, folder / "checker")
        try:
            for workload in options.workload:
                for level in options.level:
                    print_row(workload, level, measure(shim, checker, folder, workload, level, options))
        finally:
            checker.close()


def measure(shim: Path, checker: Checker, folder: Path, workload: str, level: str,
            options: argparse.Namespace) -> Result:
    total = Result()
    first = None if workload in CREATE else "compact" if workload in COMPACT else "start"
    while total.disks < options.disks:
        disks = min(DISKS_PER_RECORDING, options.disks - total.disks + 10)
        before = total.disks
        total.add(simulate_workload(shim, checker, folder / "recording", workload, level, disks, options.seed + before,
                                    first=first))
    return total


def print_row(workload: str, level: str, result: Result) -> None:
    print(f"| {workload} | {level} | {result.disks} | {result.again} | {result.counts['damaged']} | "
          f"{result.counts['lost']} | {result.seconds:.0f} |", flush=True)
    for example in result.describe_examples():
        print(f"  {example}", file=sys.stderr)


if __name__ == "__main__":
    main()
