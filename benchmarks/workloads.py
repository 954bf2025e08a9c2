"""The workloads of one process.

Input is generated in batches while the clock is paused. So only the store is timed, and no list of a million values
adds to the measured memory.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from benchmarks import verify
from benchmarks.clock import Clock
from benchmarks.inputs import KEY_KINDS, MAX_RANDOM, Content, changed_value, value_of
from benchmarks.stores import STORES
from benchmarks.stores.base import Batches
from benchmarks.verify import OpenStore, expect

# Each of these runs a workload on the clock and returns the number of items that it processed.


def fill(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _write(open_store, clock, lambda store: store.fill(clock.batches(content.pairs())), content.n)


def overwrite(open_store: OpenStore, content: Content, clock: Clock) -> int:
    numbers = content.random_numbers()
    return _write(open_store, clock, lambda store: store.overwrite(_changes(content, clock)), len(numbers))


def update(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _write(open_store, clock, lambda store: store.update(), content.n)


def delete(open_store: OpenStore, content: Content, clock: Clock) -> int:
    deleted = range(1, content.n, 2)
    return _write(open_store, clock, lambda store: store.delete(clock.batches(content.keys(deleted))), len(deleted))


def tasks_fill(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _write(open_store, clock, lambda store: store.add(clock.batches(content.keys())), content.n)


def tasks_loop(open_store: OpenStore, content: Content, clock: Clock) -> int:
    def loop(store: Any) -> None:
        expect(store.loop(), content.n, "the number of tasks tried")

    return _write(open_store, clock, loop, content.n)


def tasks_done(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _mark_done(open_store, content, clock, content.random_numbers())


def tasks_finish(open_store: OpenStore, content: Content, clock: Clock) -> int:
    remaining = set(content.remaining())
    return _mark_done(open_store, content, clock, [number for number in range(content.n) if number not in remaining])


def tasks_crawl(open_store: OpenStore, content: Content, clock: Clock) -> int:
    def crawl(store: Any) -> None:
        expect(store.crawl(content.key(0), content.visit), content.n, "the number of tasks tried")

    return _write(open_store, clock, crawl, content.n)


def _write(open_store: OpenStore, clock: Clock, work: Callable[[Any], None], items: int) -> int:
    store = open_store()
    clock.start()
    work(store)
    store.sync()
    clock.stop()
    store.close()
    return items


def _mark_done(open_store: OpenStore, content: Content, clock: Clock, numbers: Sequence[int]) -> int:
    batches = clock.batches(content.keys(numbers))
    return _write(open_store, clock, lambda store: store.mark_done(batches), len(numbers))


def _changes(content: Content, clock: Clock) -> Batches:
    return clock.batches((content.key(number), changed_value(number)) for number in content.random_numbers())


def read(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _read(open_store, content, clock, "read")


def read_many(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _read(open_store, content, clock, "read_many")


def _read(open_store: OpenStore, content: Content, clock: Clock, method: str) -> int:
    reads = min(content.n, MAX_RANDOM)
    choose = random.Random(content.n).randrange
    store = open_store()
    clock.start()
    total = getattr(store, method)(clock.batches(content.keys(choose(content.n) for _ in range(reads))))
    clock.stop()
    store.close()
    expect(total, 200 * reads, "the sum of the values")
    return reads


def iterate(open_store: OpenStore, content: Content, clock: Clock) -> int:
    store = open_store()
    total = 0
    clock.start()
    for _key, value in store.items():
        total += value["size"]
    clock.stop()
    expect([key for key, _ in islice(store.items(), 50)], list(content.keys(range(min(content.n, 50)))), "first keys")
    store.close()
    expect(total, sum(value_of(i)["size"] for i in range(content.n)), "the sum of the values")
    return content.n


def keys(open_store: OpenStore, content: Content, clock: Clock) -> int:
    store = open_store()
    total = 0
    clock.start()
    for _key in store.keys():  # noqa: SIM118  (the method is missing where keys have no order)
        total += 1
    clock.stop()
    expect(list(islice(store, 50)), list(content.keys(range(min(content.n, 50)))), "first keys")
    store.close()
    expect(total, content.n, "the number of keys")
    return content.n


def open_one(open_store: OpenStore, content: Content, clock: Clock) -> int:
    clock.start()
    store = open_store()
    value = store.get(content.key(content.n // 2))
    clock.stop()
    store.close()
    expect(value, value_of(content.n // 2), "the value")
    return 1


def open_count(open_store: OpenStore, content: Content, clock: Clock) -> int:
    clock.start()
    store = open_store()
    count = len(store)
    value = store.get(content.key(content.n // 2))
    clock.stop()
    store.close()
    expect((count, value), (content.n, value_of(content.n // 2)), "the length, and the value")
    return 1


def export_lines(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _export(open_store, content, clock, "lines")


def import_lines(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _export(open_store, content, Clock(), "lines", clock)


def export_files(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _export(open_store, content, clock, "files")


def import_files(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _export(open_store, content, Clock(), "files", clock)


def _export(
    open_store: OpenStore, content: Content, export_clock: Clock, form: str, import_clock: Clock | None = None
) -> int:
    """Export the store. If there is a clock for it, import the result into a new store."""
    store = open_store()
    with tempfile.TemporaryDirectory(dir=store.folder) as folder:
        export_clock.start()
        expect(getattr(store, f"export_{form}")(folder), content.n, "exported keys")
        export_clock.stop()
        if import_clock:
            import_clock.start()
            expect(getattr(store, f"import_{form}")(folder), content.n, "imported keys")
            import_clock.stop()
    store.close()
    return content.n


def reopen(open_store: OpenStore, content: Content, clock: Clock) -> int:
    """Open a store whose last process was killed before it synced its last changes."""
    child = os.fork()
    if not child:
        try:
            store = open_store()
            store.overwrite(_changes(content, Clock()))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    expect(os.waitstatus_to_exitcode(status), -signal.SIGKILL, "the exit status of the killed process")
    number = content.random_numbers()[0]
    clock.start()
    store = open_store()
    value = store.get(content.key(number))
    clock.stop()
    store.close()
    # Both are right, because fewer than 1,000 changes may all be lost.
    expect(value in (changed_value(number), value_of(number)), True, "the value is the old or the new one")
    return 1


def tasks_todo(open_store: OpenStore, content: Content, clock: Clock) -> int:
    store = open_store()
    clock.start()
    found = list(store.todo())
    clock.stop()
    store.close()
    expect(found, list(content.keys(content.remaining())), "the remaining tasks")
    return content.n


def tasks_counts(open_store: OpenStore, content: Content, clock: Clock) -> int:
    clock.start()
    store = open_store()
    total, done, tried = store.counts()
    clock.stop()
    store.close()
    expect((total, done, tried or 0), (content.n, content.n - len(content.remaining()), 0), "tasks, done, tried")
    return 1


class Workload(NamedTuple):
    """A workload, and which stores can run it.

    ``method`` is the store's method without which the workload is skipped. ``starts_from`` is the workload that
    prepares the store; ``writes`` tells whether this one changes it. ``read_only`` opens the store for reading only.
    """

    about: str
    run: Callable[[OpenStore, Content, Clock], int]
    verify: Callable[[OpenStore, Content], None]
    method: str
    tasks: bool = False
    starts_from: str | None = None
    writes: bool = True
    read_only: bool = False
    unit: str = "items/s"
    key_kinds: tuple[str, ...] = KEY_KINDS

    def stores(self) -> dict[str, Any]:
        """Return the classes of the stores that can run it, by name."""
        classes = {name: info.tasks_class if self.tasks else info.dict_class for name, info in STORES.items()}
        return {
            name: found for name, found in classes.items()
            if hasattr(found, self.method) and self.method in getattr(found, "measured", (self.method,))
        }


def _dict_writes(about: str, run: Any, check: Any, method: str) -> Workload:
    return Workload(about, run, check, method, starts_from="fill")


def _dict_reads(about: str, run: Any, method: str, read_only: bool = False, unit: str = "items/s") -> Workload:
    return Workload(
        about, run, verify.is_unchanged, method, starts_from="fill", writes=False, read_only=read_only, unit=unit
    )


def _formats(about: str, run: Any, method: str) -> Workload:
    return _dict_reads(about, run, method)._replace(key_kinds=("url",))


WORKLOADS = {
    "fill": Workload("assign new keys", fill, verify.is_filled, "fill"),
    "overwrite": _dict_writes(
        "assign to existing keys in random order", overwrite, verify.is_overwritten, "overwrite"
    ),
    "update": _dict_writes("update a field of each value, in key order", update, verify.is_updated, "update"),
    "read": _dict_reads("read values of random keys", read, "read"),
    "read_many": _dict_reads("read values of random keys, 1,000 at a time", read_many, "read_many"),
    "read_only": _dict_reads("read values of random keys, read-only mode", read, "for_reading", read_only=True),
    "iterate": _dict_reads("iterate over all items", iterate, "items"),
    "keys": _dict_reads("iterate over all keys", keys, "keys"),
    "open": _dict_reads("open the store, read one value", open_one, "get", unit="ms"),
    "open_count": _dict_reads("open the store, read length and one value", open_count, "__len__", unit="ms"),
    "export_lines": _formats("export to JSON Lines", export_lines, "export_lines"),
    "import_lines": _formats("import JSON Lines into a new store", import_lines, "import_lines"),
    "export_files": _formats("export to tastypy's JSON files", export_files, "export_files"),
    "import_files": _formats("import tastypy's JSON files into a new store", import_files, "import_files"),
    "delete": _dict_writes("delete every second key", delete, verify.has_every_second_key, "delete"),
    "reopen": _dict_writes(
        "reopen after SIGKILL, read one value", reopen, verify.is_overwritten_until_kill, "overwrite"
    )._replace(unit="ms"),
    "tracker_fill": Workload("add tasks", tasks_fill, verify.has_new_tasks, "add", True),
    "tracker_loop": Workload(
        "try each task, mark it done", tasks_loop, verify.has_done_tasks, "loop", True, "tracker_fill"
    ),
    "tracker_done": Workload(
        "mark tasks done in random order", tasks_done, verify.has_marked_tasks, "mark_done", True, "tracker_fill"
    ),
    "tracker_todo": Workload(
        "list the 100 remaining tasks", tasks_todo, verify.has_few_remaining_tasks, "todo", True, "tracker_finish",
        False, unit="ms",
    ),
    "tracker_counts": Workload(
        "open the store, count tasks by status", tasks_counts, verify.has_few_remaining_tasks, "mark_done", True,
        "tracker_finish", False, unit="ms",
    ),
    "tracker_crawl": Workload(
        "crawl: try each task, store facts, add its links, mark it done",
        tasks_crawl, verify.has_crawled, "crawl", True, key_kinds=("url",),
    ),
}
# Not measured, but others start from their result.
PREPARATIONS = {
    "tracker_finish": Workload(
        "mark all but 100 tasks done", tasks_finish, verify.has_few_remaining_tasks, "mark_done", True, "tracker_fill"
    ),
}
