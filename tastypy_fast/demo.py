"""Analyze all Python files below a folder, with a pipeline that can be stopped at any time.

    python -m tastypy_fast.demo [FOLDER] [--store PATH] [--workers N]

Every folder and every Python file is a task of a ProgressTracker. Processing a folder adds tasks for its contents, as a
crawler adds the links of a page. Processing a file stores its facts with its task. Stop the program with Ctrl-C, kill
or kill -9, and start it again: it continues where it was. No finished task is repeated. The exceptions are kill -9 and
power cuts, which lose the tasks since the last sync: less than 100.

With --workers N, N processes work on one SharedProgressTracker. If you kill one of them, another one gets its task, and
a new worker replaces it. If you kill the first process, the others continue to the end.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import multiprocessing
import os
import signal
import sys
import sysconfig
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from tastypy_fast import PersistentOrderedDictException, ProgressTracker, SharedProgressTracker

AnyTracker = ProgressTracker | SharedProgressTracker

STANDARD_LIBRARY = os.path.realpath(sysconfig.get_path("stdlib"))
# Installed packages are in a folder inside the standard library, but are not part of it.
INSTALLED = os.path.join(STANDARD_LIBRARY, "site-packages")


def work(tracker: AnyTracker, progress: Progress) -> None:
    """Process tasks until none is left. A task that failed in one pass is tried again in the next."""
    while any(True for _ in tracker.todo_keys()):
        for path in tracker.try_keys():
            try:
                facts, found = visit(path)
            except Exception as error:  # any error ends this try only
                tracker.set[path]["error"] = f"{type(error).__name__}: {error}"
                if not tracker.should_do(path):
                    progress.add_failed()
            except (KeyboardInterrupt, SystemExit):
                tracker.decrement_tries(path)  # a stop is not a failure, so it does not count as a try
                raise
            else:
                tracker.add_many_if_absent(found)
                tracker.mark_done(path, facts)
            progress.show()
        if isinstance(tracker, SharedProgressTracker):
            time.sleep(0.02)  # other workers have claimed the remaining tasks


def run_worker(tracker: SharedProgressTracker, progress: Progress) -> None:
    """Process tasks in a worker process. Ctrl-C reaches all of them."""
    progress.is_shown = False
    with contextlib.suppress(KeyboardInterrupt), tracker:
        work(tracker, progress)


def run_workers(count: int, tracker: SharedProgressTracker, progress: Progress) -> None:
    """Keep ``count`` workers running until no task is left. A worker that was killed is replaced."""
    workers: list[multiprocessing.Process] = []
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        while any(True for _ in tracker.todo_keys()):
            workers = [worker for worker in workers if worker.is_alive()]
            while len(workers) < count:
                workers.append(multiprocessing.Process(target=run_worker, args=(tracker, progress)))
                workers[-1].start()
            workers[0].join(0.1)
            progress.show()
        for worker in workers:
            worker.join()
    except BaseException:
        for worker in workers:
            worker.terminate()
            worker.join()
        raise


def visit(path: str) -> tuple[dict[str, Any], list[str]]:
    """Return the data to store with a task, and the new tasks that it leads to."""
    return ({}, contents(path)) if os.path.isdir(path) else (parse(path), [])


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
    """Print the progress of a tracker on stderr: one line that is rewritten, or new lines if that is not a terminal."""

    def __init__(self, tracker: AnyTracker) -> None:
        self.tracker = tracker
        # A task that is neither done nor to do has no tries left. All workers count in this shared number.
        failed = len(tracker) - tracker.num_done() - sum(1 for _ in tracker.todo_keys())
        self.failed = multiprocessing.Value("q", failed)
        self.before = tracker.num_done() + failed
        self.began = self.shown = time.monotonic()
        self.live = sys.stderr.isatty()
        self.is_shown = True

    def add_failed(self) -> None:
        with self.failed:
            self.failed.value += 1

    def show(self, last: bool = False) -> None:
        now = time.monotonic()
        if self.is_shown and (last or now - self.shown >= (0.1 if self.live else 2)):
            self.shown = now
            done, failed = self.tracker.num_done(), self.failed.value
            left = max(len(self.tracker) - done - failed, 0)
            rate = (done + failed - self.before) / max(now - self.began, 0.001)
            line = f"{done:10,} done {failed:7,} failed {left:10,} left {rate:9,.0f} a second"
            print(line, end="\r" if self.live and not last else "\n", file=sys.stderr, flush=True)


def report(tracker: AnyTracker, folder: str) -> None:
    """Print the results. This iterates over the tasks once, without holding them all in memory."""
    found: Counter[str] = Counter(folders=0, files=0, lines=0, functions=0, classes=0, failed=0)
    importers: Counter[str] = Counter()
    for path, task in tracker.iteritems():
        if not task["_done"]:
            found["failed"] += 1
            print(printable(f"{os.path.relpath(path, folder)} failed in {task['_tries']} tries:"))
            print(printable(f"    {task.get('error', 'the program was stopped in each of them')}"))
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


def open_tracker(path: str, workers: int) -> AnyTracker:
    return SharedProgressTracker(path, max_tries=3) if workers else ProgressTracker(path, max_tries=3, sync_at=100)


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
    parser.add_argument("--workers", metavar="N", type=int, default=0,
                        help="the number of worker processes on a SharedProgressTracker (default: this process only)")
    options = parser.parse_args()
    if options.workers < 0:
        parser.error("--workers cannot be negative")
    if not os.path.isdir(options.folder):
        parser.exit(2, f"{parser.prog}: there is no folder {options.folder!r}\n")
    folder = os.path.realpath(options.folder)
    try:
        with open_tracker(options.store, options.workers) as tracker:
            first = next(iter(tracker), folder)  # the first task of a store is its folder
            if first != folder:
                return f"The store at {tracker.path!r} was made for {first!r}. Give another one with --store."
            print(f"Progress is kept in {tracker.path!r}.", file=sys.stderr)
            tracker.add_if_absent(folder)
            progress = Progress(tracker)
            try:
                if isinstance(tracker, SharedProgressTracker):
                    run_workers(options.workers, tracker, progress)
                else:
                    work(tracker, progress)
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
