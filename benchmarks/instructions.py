"""Compare the instructions of single operations with those of another commit: ``python -m benchmarks.instructions``.

Time is noisy, and the number of instructions is not. So callgrind counts those of each operation in
``single_operations.py``, the interpreter's included, for another commit and for the working tree. Both are built with
the same flags below ``build/instructions``, where builds of commits are kept. The command fails if an operation takes
10 % more than before. It does not see what the kernel does, nor waiting.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import aligned
from benchmarks.single_operations import COUNT, OPERATIONS

__all__ = ["Counts", "compare", "count", "main", "missing"]

ROOT = Path(__file__).resolve().parent.parent
try:
    CYTHON = version("cython")
except PackageNotFoundError:
    CYTHON = None
# Another Python or Cython makes other builds.
FOLDER = ROOT / "build" / "instructions" / f"{sys.implementation.cache_tag}-cython-{CYTHON}"
FLAGS = "-O2 -g"
# How many builds are kept, that of the working tree included.
KEPT = 4
LIMIT = 1.10
PROGRAM = Path(__file__).with_name("single_operations.py")
REQUESTS = Path(__file__).with_name("callgrind_requests.c")
# These could make a program import another tastypy_fast, or count other instructions.
VARIABLES = ("PYTHONHOME", "PYTHONSAFEPATH", "PYTHONMALLOC", "PYTHONDEVMODE", "PYTHONTRACEMALLOC")


class Counts(NamedTuple):
    """The instructions of each operation by name, and the operations that the tastypy_fast lacks.

    ``files`` are the profiles, for callgrind_annotate.
    """

    instructions: dict[str, float]
    lacking: list[str]
    files: dict[str, Path]


def missing() -> str | None:
    """Return what has to be installed, or None."""
    if not shutil.which("valgrind"):
        return "valgrind is not installed. Install it: apt-get install valgrind, or dnf install valgrind-devel"
    if not (shutil.which("cc") or shutil.which("gcc")):
        return "there is no C compiler. Install it: apt-get install gcc, or dnf install gcc"
    if CYTHON is None:
        return f"Cython is not installed. Install it: {sys.executable} -m pip install 'cython>=3.1' 'setuptools>=77'"
    return None


# Builds


def build_commit(commit: str) -> Path:
    """Return the folder with the compiled files of a commit, built now unless that was done before."""
    folder = FOLDER / commit
    if folder.exists():
        folder.touch()
        return folder
    print(f"building {commit} with {FLAGS}", file=sys.stderr, flush=True)
    new = FOLDER / "new"
    shutil.rmtree(new, ignore_errors=True)
    # Files that are the same in the last build are not compiled again.
    for earlier in _builds()[:1]:
        shutil.copytree(earlier, new)
    with tempfile.TemporaryDirectory() as sources:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "-x", "-C", sources], input=archive, check=True)
        names = [str(path.relative_to(sources)) for path in Path(sources).rglob("*") if path.is_file()]
        _build(Path(sources), names, new)
    new.rename(folder)
    folder.touch()
    return folder


def build_tree() -> Path:
    """Return the folder with the compiled files of the working tree, or of its commit if nothing has changed."""
    if not _git("status", "--porcelain"):
        return build_commit(_git("rev-parse", "HEAD"))
    print(f"building the working tree with {FLAGS}", file=sys.stderr, flush=True)
    folder = FOLDER / "tree"
    if not folder.exists():
        for earlier in _builds()[:1]:
            shutil.copytree(earlier, folder)
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    _build(ROOT, [name for name in names if (ROOT / name).is_file()], folder)
    folder.touch()
    return folder


def _builds() -> list[Path]:
    """Return the folders of all builds, the latest first."""
    found = [path for path in FOLDER.glob("*") if (path / "setup.py").exists() and path.name != "new"]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _build(sources: Path, names: Sequence[str], folder: Path) -> None:
    """Make the sources in a folder the same as in another one, and compile what differs."""
    wanted = {name for name in names if name.partition("/")[0] in ("tastypy_fast", "src_cython")} | {
        "setup.py", "pyproject.toml", "README.md", "LICENSE"}  # fmt: skip
    for path in [*folder.glob("src_cython/**/*"), *folder.glob("tastypy_fast/**/*")]:
        if path.is_file() and path.suffix != ".so" and str(path.relative_to(folder)) not in wanted:
            path.unlink()
    for name in wanted:
        source, target = sources / name, folder / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    environment = {**os.environ, "CFLAGS": FLAGS}
    for name in ("PYTHONPATH", "TASTYPY_FAST_TRACE", "TASTYPY_FAST_SANITIZE", "TASTYPY_FAST_PURE"):
        environment.pop(name, None)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}\n{folder} cannot be built, see above")


def remove_old_builds() -> None:
    """Remove all but the latest builds."""
    for folder in _builds()[KEPT:]:
        shutil.rmtree(folder)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)} failed, see above")
    return done.stdout.strip("\0\n")


# Counts


def compile_requests(folder: Path) -> Path:
    """Compile the client requests to callgrind, and return the library."""
    library = folder / "callgrind_requests.so"
    compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, REQUESTS], check=True)
    return library


def count(package: Path, library: Path, folder: Path, names: Sequence[str] = ()) -> Counts:
    """Count the instructions of the operations with the tastypy_fast in a folder. Write the profiles to ``folder``."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"PYTHONPATH": str(package), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["--quiet", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/profile"]
    command = ["valgrind", *options, sys.executable, str(PROGRAM), str(library), *names]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}\nthe operations of {package} failed, see above")
    counts = Counts({}, done.stdout.splitlines(), {})
    for file in folder.glob("profile.*"):
        text = file.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.M)
        total = re.search(r"^totals: (\d+)$", text, re.M)
        if name and total:
            counts.instructions[name[1]] = int(total[1]) / COUNT
            counts.files[name[1]] = file
    return counts


def compare(
    base: Mapping[str, float], now: Mapping[str, float], limit: float
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return a table, the header first, and the operations whose instructions grew by more than ``limit`` allows."""
    rows: list[tuple[str, ...]] = [("operation", "instructions before", "now", "ratio")]
    slower = []
    for name in OPERATIONS:
        if name not in base or name not in now:
            continue
        ratio = now[name] / base[name]
        rows.append((name, f"{base[name]:,.0f}", f"{now[name]:,.0f}", f"{ratio:.3f}"))
        if ratio > limit:
            slower.append(name)
    return rows, slower


def main() -> str | None:
    """Count, print a table, and return an error if an operation takes more instructions than the limit allows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--base", default="HEAD^", metavar="REVISION", help="the commit to compare the working tree with (HEAD^)")
    add("--only", nargs="+", default=[], choices=list(OPERATIONS), metavar="OPERATION",
        help=f"count only these of: {', '.join(OPERATIONS)}")
    add("--limit", type=float, default=LIMIT, metavar="RATIO", help=f"fail above this ratio ({LIMIT})")
    options = parser.parse_args()
    needed = missing()
    if needed:
        return needed
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{options.base}^{{commit}}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    packages = {"before": build_commit(commit), "now": build_tree()}
    remove_old_builds()
    library = compile_requests(FOLDER)
    print("counting", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(len(packages)) as pool:
        running = [pool.submit(count, package, library, FOLDER / "profiles" / name, options.only)
                   for name, package in packages.items()]  # fmt: skip
        before, now = (each.result() for each in running)
    table, slower = compare(before.instructions, now.instructions, options.limit)
    print(f"instructions of one operation, {_git('rev-parse', '--short', commit)} and now\n\n{aligned(table, left=1)}")
    for name in dict.fromkeys([*before.lacking, *now.lacking]):
        lacks = [which for which, found in ((options.base, before), ("the working tree", now)) if name in found.lacking]
        print(f"\nNot compared, because it is missing in {' and in '.join(lacks)}: {name}")
    if not slower:
        return None
    lines = [f"\nAbove {options.limit} times the instructions of {options.base}. The profiles:"]
    for name in slower:
        lines += [f"  {name}", *(f"    callgrind_annotate {found.files[name]}" for found in (before, now))]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
