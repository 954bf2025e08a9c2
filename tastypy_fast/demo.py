"""Analyze all Python files below a folder, on all processors, with a pipeline that can be stopped at any time.

    python -m tastypy_fast.demo [FOLDER] [--store PATH] [--workers N]

Every folder and every Python file is a task of a tracker. Processing a folder adds tasks for its contents, as a crawler
adds the links of a page. Processing a file stores its facts with its task. Stop the program with Ctrl-C, kill or
kill -9, and start it again: it continues where it was. No finished task is repeated. The exceptions are kill -9 and
power cuts, after which the results of the last half second are computed again.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import sysconfig
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from tastypy_fast import PersistentOrderedDictException, Tracker
from tastypy_fast.pipeline import TaskResult

STANDARD_LIBRARY = os.path.realpath(sysconfig.get_path("stdlib"))
# Installed packages are in a folder inside the standard library, but are not part of it.
INSTALLED = os.path.join(STANDARD_LIBRARY, "site-packages")


def visit(path: str) -> TaskResult | dict[str, Any]:
    """Process one task, in a worker process: a folder leads to new tasks, a file has facts to keep."""
    return TaskResult(add=contents(path)) if os.path.isdir(path) else parse(path)


def contents(folder: str) -> list[str]:
    """Return the subfolders and Python files of a folder. Skips links to folders, because they may form a loop."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.path
            for entry in entries
            if (entry.is_dir(follow_symlinks=False) and entry.path != INSTALLED)
            or (entry.name.endswith(".py") and os.path.isfile(entry.path))
        )


def parse(path: str) -> dict[str, Any]:
    """Count the contents of a Python file, and list the top-level modules that it imports."""
    source = Path(path).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nodes = list(ast.walk(ast.parse(source, path)))
    kinds = Counter(map(type, nodes))
    imports: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.add(node.module)
    return {
        "lines": len(source.splitlines()),
        "functions": kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef],
        "classes": kinds[ast.ClassDef],
        "imports": sorted({name.partition(".")[0] for name in imports}),
    }


class Progress:
    """Print the progress on stderr: one line that is rewritten, or new lines if that is not a terminal.

    ``run(progress=True)`` shows a better one, but needs a package, and the demo needs none.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.began = self.shown = time.monotonic()
        self.before = tracker.num_done()
        self.live = sys.stderr.isatty()

    def show(self, *result: object, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self.shown >= (0.1 if self.live else 2):
            self.shown = now
            tasks, done = len(self.tracker), self.tracker.num_done()
            rate = (done - self.before) / max(now - self.began, 0.001)
            line = f"{done:10,} of {tasks:,} done {rate:9,.0f} a second"
            print(line, end="\r" if self.live and not last else "\n", file=sys.stderr, flush=True)


def report(tracker: Tracker, folder: str) -> None:
    """Print the results. This iterates over the tasks once, without holding them all in memory."""
    found: Counter[str] = Counter(folders=0, files=0, lines=0, functions=0, classes=0, failed=0)
    importers: Counter[str] = Counter()
    for path, task in tracker.iteritems():
        if not task["_done"]:
            found["failed"] += 1
            error = task.get("_error", {"type": "the program was stopped in each of them", "message": ""})
            print(printable(f"{os.path.relpath(path, folder)} failed in {task['_tries']} tries:"))
            print(printable(f"    {error['type']}: {error['message']}"))
        elif "lines" in task:
            found["files"] += 1
            found.update({name: task[name] for name in ("lines", "functions", "classes")})
            importers.update(task["imports"])
        else:
            found["folders"] += 1
    found.update({f"files import {name}": count for name, count in importers.most_common(10)})
    print(f"\nFound below {printable(folder)}:\n")
    for name, count in found.items():
        print(f"{count:10,} {printable(name)}")


def printable(text: str) -> str:
    """Escape characters that a terminal cannot show, because file names may contain any character."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return shown.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)


def main() -> str | int:
    parser = argparse.ArgumentParser(
        "python -m tastypy_fast.demo",
        description="Analyze all Python files below a folder. Stop it at any time, and start it again.",
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default=STANDARD_LIBRARY,
                        help="the folder to analyze (default: the standard library, %(default)s)")
    parser.add_argument("--store", metavar="PATH", default="tastypy-demo.tracker",
                        help="the store for the progress, one for each FOLDER (default: %(default)s)")
    parser.add_argument("--workers", metavar="N", type=int,
                        help="the number of worker processes (default: one for each processor)")
    options = parser.parse_args()
    if options.workers is not None and options.workers < 1:
        parser.error("--workers must be 1 or more")
    if not os.path.isdir(options.folder):
        parser.exit(2, f"{parser.prog}: there is no folder {options.folder!r}\n")
    folder = os.path.realpath(options.folder)
    try:
        with Tracker[str](options.store, max_tries=3) as tracker:
            first = next(iter(tracker), folder)  # the first task of a store is its folder
            if first != folder:
                return f"The store at {tracker.path!r} was made for {first!r}. Give another one with --store."
            print(f"Progress is kept in {tracker.path!r}.", file=sys.stderr)
            tracker.add_if_absent(folder)
            progress = Progress(tracker)
            try:
                tracker.run(visit, workers=options.workers, backoff=0.1, on_result=progress.show)
            finally:
                progress.show(last=True)
            report(tracker, folder)
    except KeyboardInterrupt:
        print("Stopped. The same command continues from here.", file=sys.stderr)
        return 130
    except (PersistentOrderedDictException, OSError) as error:
        return printable(f"{type(error).__name__}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
