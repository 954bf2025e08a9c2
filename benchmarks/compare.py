"""Compare installations of tastypy_fast with each other: ``python -m benchmarks.compare --help``.

Each measurement runs in a process of its own, with the interpreter of its installation. The installations take turns
within one run, because a machine is noisier from run to run than within one.

``python -m`` puts the working directory first on ``sys.path``, so from a checkout every interpreter would import the
sources of the checkout. Therefore the benchmark runs from a copy of its own folder, and the command checks which files
each interpreter imports.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any, NamedTuple

# This module starts in an interpreter that may have no tastypy_fast. Only main() after the copy imports what needs it.
if TYPE_CHECKING:
    from benchmarks.results import Case, Result, Sample

FOLDER = Path(__file__).resolve().parent
IN_COPY = "TASTYPY_FAST_BENCHMARKS_COPY"
# These could put a checkout on sys.path, or keep the copy off it.
PATH_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")
NAMES = "ABCDEFGH"
# Without the working directory, which "-c" puts first, and which may be a checkout.
_START = f"""
import os, sys
sys.path[:] = [os.environ["{IN_COPY}"], *filter(None, sys.path)]
from benchmarks.compare import main
sys.exit(main())
"""
_ASK = """
import json, platform, tastypy_fast
print(json.dumps({"version": tastypy_fast.__version__, "path": list(tastypy_fast.__path__),
                  "python": platform.python_implementation() + " " + platform.python_version()}))
"""


class Installation(NamedTuple):
    """An interpreter whose tastypy_fast is measured, and the name that the tables give it."""

    name: str
    python: str

    def facts(self) -> dict[str, Any]:
        """Return the version and the folders that the interpreter imports, and the version of Python."""
        command = [self.python, "-c", _ASK]
        # In the same folder as the measurements, so that sys.path is the same.
        asked = subprocess.run(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True, check=False)
        if asked.returncode:
            raise SystemExit(f"{self.python} cannot import tastypy_fast, see above")
        found: dict[str, Any] = json.loads(asked.stdout)
        return found


def main() -> str | None:
    """Compare as the arguments say, and print a table."""
    options = _parser().parse_args()
    installations = _installations(options.python)
    if IN_COPY not in os.environ:
        _restart_in_copy(installations[0].python)
    # The interrupt and termination signals end the run by an exception, so that the copy and the stores are removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return _compare(options, installations)
    finally:
        shutil.rmtree(os.environ[IN_COPY], ignore_errors=True)


def _restart_in_copy(python: str) -> None:
    """Replace this process by the first installation's interpreter, which runs a copy of the benchmark."""
    copy = tempfile.mkdtemp(prefix="benchmarks-copy-")
    shutil.copytree(FOLDER, Path(copy) / FOLDER.name, ignore=shutil.ignore_patterns("__pycache__", "*.json", "test_*"))
    environment = {name: value for name, value in os.environ.items() if name not in PATH_VARIABLES}
    sys.stdout.flush()
    os.execve(python, [python, "-c", _START, *sys.argv[1:]], {**environment, IN_COPY: copy})


def _compare(options: argparse.Namespace, installations: list[Installation]) -> str | None:
    from benchmarks import system
    from benchmarks.measure import ALL_WORKLOADS, measure
    from benchmarks.results import SavedResults
    from benchmarks.runner import Runner
    from benchmarks.stores import OURS

    unknown = [name for name in options.only or () if name not in ALL_WORKLOADS]
    if unknown:
        return f"Unknown workloads: {', '.join(unknown)}. Known: {', '.join(ALL_WORKLOADS)}"
    about = {installation.name: installation.facts() for installation in installations}
    for installation in installations:
        facts = about[installation.name]
        _log(f"{installation.name}: tastypy_fast {facts['version']} of {', '.join(facts['path'])}, {facts['python']}")
    imported: dict[str, str] = {}
    for installation in installations:
        path = str(about[installation.name]["path"])
        if imported.setdefault(path, installation.python) != installation.python:
            return f"{imported[path]} and {installation.python} import the same files: {path}"
    pythons = {installation.name: installation.python for installation in installations}

    def measure_installation(name: str, case: Case, path: Path) -> Sample:
        return measure(OURS, case, path, pythons[name])

    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.folder) as folder:
        facts = {"machine": system.machine(Path(folder), system.load()), "stores": about}

        def save(results: list[Result]) -> None:
            if options.json:
                SavedResults([], []).with_run(facts, results).save(options.json)

        runner = Runner(Path(folder), _log, measure_installation, required=())
        results = runner.run(_steps(options, list(pythons)), save)
    text, slow = table(results, list(pythons), options.at_least)
    print("\n".join(f"{name}  {value}" for name, value in facts["machine"].items()))
    for name, found in about.items():
        print(f"{name}  tastypy_fast {found['version']} of {', '.join(found['path'])}, {found['python']}")
    print(f"\n{text}")
    errors = [f"Failed: {failure}" for failure in runner.failures]
    errors += [f"Slower than {options.at_least} times {next(iter(pythons))}: {name}" for name in slow]
    return "\n".join(["", *errors]) if errors else None


def _steps(options: argparse.Namespace, names: list[str]) -> list[Any]:
    from benchmarks.measure import stores_of
    from benchmarks.pipeline_workloads import PIPELINE_WORKLOADS
    from benchmarks.runner import Step
    from benchmarks.shared_workloads import SHARED_WORKLOADS
    from benchmarks.stores import OURS
    from benchmarks.workloads import WORKLOADS

    class InstallationStep(Step):
        """A step that measures our store with each of the installations."""

        def names(self, case: Case) -> list[str]:
            return names if OURS in stores_of(case.workload, case.batch) else []

    chosen = options.only or [*WORKLOADS, *SHARED_WORKLOADS]
    private = [name for name in chosen if name in WORKLOADS]
    shared = [name for name in chosen if name in SHARED_WORKLOADS or name in PIPELINE_WORKLOADS]
    # A slow installation is measured in full, because both must do the same work.
    common = {"rounds": options.rounds, "limit": inf}
    steps = [
        InstallationStep(private, options.n, keys=options.keys, **common),
        InstallationStep(shared, options.shared_n, processes=options.processes, batches=options.batches, **common),
    ]
    return [step for step in steps if step.workloads]


def table(results: Sequence[Result], names: Sequence[str], at_least: float = 0.0) -> tuple[str, list[str]]:
    """Return the comparison as text, and the cases in which an installation is too slow for ``at_least``."""
    from benchmarks.report import aligned
    from benchmarks.runner import title

    first, *others = names
    head = ["workload", *(f"{name} median (min .. max)" for name in names)]
    head += [f"{name}/{first} {what}" for name in others for what in ("speed", "by round", "CPU time")]
    rows = [tuple(head)]
    slow: list[str] = []
    ratios: dict[str, list[float]] = {name: [] for name in others}
    by_case: dict[Case, dict[str, Result]] = {}
    for result in results:
        by_case.setdefault(result.case, {})[result.store] = result
    for case, found in by_case.items():
        if found.keys() != set(names):
            continue
        row = [title(case), *(_spread(found[name]) for name in names)]
        base = found[first]
        for name in others:
            result = found[name]
            ratio = result.times_faster(base)
            ratios[name].append(ratio)
            rounds = [b / a for a, b in zip(base.values(), result.values(), strict=False)]
            if result.in_milliseconds:
                rounds = [1 / value for value in rounds]
            cpu = result.cpu_microseconds / base.cpu_microseconds if base.cpu_microseconds else 1.0
            row += [f"{ratio:.3f}", f"{min(rounds):.2f} .. {max(rounds):.2f}", f"{cpu:.2f}"]
            if ratio < at_least:
                slow.append(f"{title(case)}, {name}: {ratio:.3f}")
        rows.append(tuple(row))
    if others and len(rows) > 2:
        means = [cell for name in others for cell in (f"{geometric_mean(ratios[name]):.3f}", "", "")]
        rows.append(("geometric mean", *("" for _ in names), *means))
    legend = (
        "median (min .. max): items per second, or milliseconds (ms) for the whole workload, of all rounds.\n"
        f"speed: the ratio of the medians; above 1 is faster than {first}. by round: the lowest and the highest ratio\n"
        "of two measurements of the same round. CPU time: the ratio of the processor times; below 1 needs less."
    )
    return f"{aligned(rows, left=1)}\n\n{legend}", slow


def _spread(result: Result) -> str:
    form: Callable[[float], str] = ("{:,.2f}" if result.in_milliseconds else "{:,.0f}").format
    unit = " ms" if result.in_milliseconds else ""
    return f"{form(result.value())}{unit} ({form(result.value(min))} .. {form(result.value(max))})"


def _installations(arguments: Sequence[str]) -> list[Installation]:
    """Parse ``[NAME=]PATH`` arguments. Symbolic links stay, because a virtual environment's interpreter is one."""
    if len(arguments) < 2:
        raise SystemExit("--python is needed at least twice: the first is what the others are compared with")
    found = []
    for letter, argument in zip(NAMES, arguments, strict=False):
        name, equals, path = argument.partition("=")
        name, path = (name, path) if equals and "/" not in name else (letter, argument)
        # An interpreter given by name is searched for on PATH.
        python = shutil.which(path)
        if python is None:
            raise SystemExit(f"no such interpreter: {path}")
        found.append(Installation(name, os.path.abspath(python)))
    if len({installation.name for installation in found}) < len(found):
        raise SystemExit("each installation needs a name of its own")
    return found


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise ValueError(text)
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Compare the tastypy_fast of two or more interpreters. Each workload runs with each interpreter "
        "in turn, in a process of its own.",
        epilog="Example: python -m benchmarks.compare --python before=/tmp/before/bin/python "
        "--python after=.venv/bin/python --rounds 5 --at-least 0.95. Give the same interpreter twice, under two "
        "names, to see how noisy the machine is. Build both installations with the same compiler flags. "
        "Names of workloads: python -m benchmarks --list.",
    )
    add = parser.add_argument
    add("--python", action="append", default=[], metavar="[NAME=]PATH",
        help="an interpreter with tastypy_fast installed; repeat it, the first is the base of the ratios")
    add("--rounds", type=_positive, default=5, metavar="R", help="measurements of each workload (5)")
    add("--only", nargs="+", metavar="WORKLOAD", help="run only these workloads (all but pipelines)")
    add("-n", type=_positive, nargs="+", default=[300_000], metavar="N", help="keys in private stores (300,000)")
    add("--shared-n", type=_positive, nargs="+", default=[20_000], metavar="N",
        help="keys in shared stores, and tasks of a pipeline (20,000)")
    add("--keys", nargs="+", choices=("url", "digest"), default=["url"], help="kinds of keys in private stores (url)")
    add("--processes", type=_positive, nargs="+", default=[2], metavar="P",
        help="processes on a shared store, and workers of a pipeline (2)")
    add("--batches", type=_positive, nargs="+", default=[1], metavar="B",
        help="changes per operation on a shared store (1)")
    add("--at-least", type=float, default=0.0, metavar="RATIO",
        help="exit with status 1 if the median speed of any workload is below RATIO times that of the first")
    add("--folder", type=Path, help="where to create the stores, on a real disk (the system's temporary folder)")
    add("--json", type=Path, metavar="FILE", help="write all samples to a file, after each workload")
    return parser


if __name__ == "__main__":
    sys.exit(main())
