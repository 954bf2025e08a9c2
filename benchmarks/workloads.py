"""What is done to each store by one process.

Input is made in batches while the clock stands still, so that what is timed is the store alone and no list
of a million values lies in memory beside it.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from benchmarks import checks
from benchmarks.checks import OpenStore, expect
from benchmarks.clock import Clock
from benchmarks.inputs import KINDS, MOST_SCATTERED, Content, changed_value, value_of
from benchmarks.stores import PEERS
from benchmarks.stores.common import Batches

# Each runs on the clock and returns how many items it handled.


def fill(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _write(open_store, clock, lambda store: store.fill(clock.batches(content.pairs())), content.n)


def overwrite(open_store: OpenStore, content: Content, clock: Clock) -> int:
    numbers = content.scattered()
    return _write(open_store, clock, lambda store: store.overwrite(_changes(content, clock)), len(numbers))


def update(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _write(open_store, clock, lambda store: store.update(), content.n)


def delete(open_store: OpenStore, content: Content, clock: Clock) -> int:
    doomed = range(1, content.n, 2)
    return _write(open_store, clock, lambda store: store.delete(clock.batches(content.keys(doomed))), len(doomed))


def tasks_fill(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _write(open_store, clock, lambda store: store.add(clock.batches(content.keys())), content.n)


def tasks_loop(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _write(open_store, clock, lambda store: expect(store.loop(), content.n, "tasks handed out"), content.n)


def tasks_done(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _mark_done(open_store, content, clock, content.scattered())


def tasks_finish(open_store: OpenStore, content: Content, clock: Clock) -> int:
    left = set(content.left())
    return _mark_done(open_store, content, clock, [number for number in range(content.n) if number not in left])


def tasks_crawl(open_store: OpenStore, content: Content, clock: Clock) -> int:
    def crawl(store: Any) -> None:
        expect(store.crawl(content.key(0), content.visit), content.n, "tasks handed out")

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
    return clock.batches((content.key(number), changed_value(number)) for number in content.scattered())


def read(open_store: OpenStore, content: Content, clock: Clock) -> int:
    reads = min(content.n, MOST_SCATTERED)
    choose = random.Random(content.n).randrange
    store = open_store()
    clock.start()
    total = store.read(clock.batches(content.keys(choose(content.n) for _ in range(reads))))
    clock.stop()
    store.close()
    expect(total, 200 * reads, "the sum of what was read")
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
    expect(total, sum(value_of(i)["size"] for i in range(content.n)), "the sum of what was read")
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
    expect(value, value_of(content.n // 2), "the value that was read")
    return 1


def open_count(open_store: OpenStore, content: Content, clock: Clock) -> int:
    clock.start()
    store = open_store()
    count = len(store)
    value = store.get(content.key(content.n // 2))
    clock.stop()
    store.close()
    expect((count, value), (content.n, value_of(content.n // 2)), "how many, and the value that was read")
    return 1


def export_lines(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _export(open_store, content, clock, "lines")


def import_lines(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _export(open_store, content, Clock(), "lines", clock)


def export_files(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _export(open_store, content, clock, "files")


def import_files(open_store: OpenStore, content: Content, clock: Clock) -> int:
    return _export(open_store, content, Clock(), "files", clock)


def _export(open_store: OpenStore, content: Content, out: Clock, what: str, back: Clock | None = None) -> int:
    """Write the store out, and, where there is a clock for it, read that into a new one."""
    store = open_store()
    with tempfile.TemporaryDirectory(dir=store.folder) as folder:
        out.start()
        expect(getattr(store, f"export_{what}")(folder), content.n, "keys written out")
        out.stop()
        if back:
            back.start()
            expect(getattr(store, f"import_{what}")(folder), content.n, "keys read")
            back.stop()
    store.close()
    return content.n


def reopen(open_store: OpenStore, content: Content, clock: Clock) -> int:
    """Another process changes values, and is killed before it has synced the last ones."""
    child = os.fork()
    if not child:
        try:
            store = open_store()
            store.overwrite(_changes(content, Clock()))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    expect(os.waitstatus_to_exitcode(status), -signal.SIGKILL, "the end of the process that was killed")
    number = content.scattered()[0]
    clock.start()
    store = open_store()
    value = store.get(content.key(number))
    clock.stop()
    store.close()
    # (the first of fewer than 1,000 changes may be lost with all the others)
    expect(value in (changed_value(number), value_of(number)), True, "the value that was read is one of both")
    return 1


def tasks_todo(open_store: OpenStore, content: Content, clock: Clock) -> int:
    store = open_store()
    clock.start()
    found = list(store.todo())
    clock.stop()
    store.close()
    expect(found, list(content.keys(content.left())), "the tasks that are left")
    return content.n


def tasks_counts(open_store: OpenStore, content: Content, clock: Clock) -> int:
    clock.start()
    store = open_store()
    total, done, tried = store.counts()
    clock.stop()
    store.close()
    expect((total, done, tried or 0), (content.n, content.n - len(content.left()), 0), "tasks, done, tried")
    return 1


class Workload(NamedTuple):
    """``needs`` is the store's method without which it is left out; ``before`` the workload whose result it begins
    with, and ``writes`` tells that it changes that; ``reading`` that it opens the store for reading only; ``kinds`` are
    those of keys."""

    about: str
    run: Callable[[OpenStore, Content, Clock], int]
    check: Callable[[OpenStore, Content], None]
    needs: str
    tasks: bool = False
    before: str | None = None
    writes: bool = True
    reading: bool = False
    unit: str = "items/s"
    kinds: tuple[str, ...] = KINDS

    def stores(self) -> dict[str, Any]:
        """What it can be done to: the classes by the names of the peers."""
        classes = {name: peer.tasks_class if self.tasks else peer.dict_class for name, peer in PEERS.items()}
        return {name: made for name, made in classes.items() if hasattr(made, self.needs)}


def _dict_writes(about: str, run: Any, check: Any, needs: str) -> Workload:
    return Workload(about, run, check, needs, before="fill")


def _dict_reads(about: str, run: Any, needs: str, reading: bool = False, unit: str = "items/s") -> Workload:
    return Workload(
        about, run, checks.is_unchanged, needs, before="fill", writes=False, reading=reading, unit=unit
    )


def _formats(about: str, run: Any, needs: str) -> Workload:
    return _dict_reads(about, run, needs)._replace(kinds=("url",))


WORKLOADS = {
    "fill": Workload("assign new keys", fill, checks.is_filled, "fill"),
    "overwrite": _dict_writes("assign to keys in random order", overwrite, checks.is_overwritten, "overwrite"),
    "update": _dict_writes("in order, read a value, change a field, save", update, checks.is_updated, "update"),
    "read": _dict_reads("read values by random keys", read, "read"),
    "read_only": _dict_reads("the same, opened for reading only", read, "for_reading", reading=True),
    "iterate": _dict_reads("all pairs in order", iterate, "items"),
    "keys": _dict_reads("all keys in order", keys, "keys"),
    "open": _dict_reads("open the store and read one value", open_one, "get", unit="ms"),
    "open_count": _dict_reads("open the store, count and read one value", open_count, "__len__", unit="ms"),
    "export_lines": _formats("write out as JSON Lines", export_lines, "export_lines"),
    "import_lines": _formats("read JSON Lines into a new store", import_lines, "import_lines"),
    "export_files": _formats("write out as files of the original", export_files, "export_files"),
    "import_files": _formats("read files of the original into a new store", import_files, "import_files"),
    "delete": _dict_writes("delete every second key", delete, checks.is_halved, "delete"),
    "reopen": _dict_writes(
        "open and read one value after SIGKILL in random assignments", reopen, checks.was_killed, "overwrite"
    )._replace(unit="ms"),
    "tracker_fill": Workload("add tasks", tasks_fill, checks.has_tasks, "add", True),
    "tracker_loop": Workload(
        "try each task and mark it done", tasks_loop, checks.has_done_tasks, "loop", True, "tracker_fill"
    ),
    "tracker_done": Workload(
        "mark tasks done in random order", tasks_done, checks.has_marked_tasks, "mark_done", True, "tracker_fill"
    ),
    "tracker_todo": Workload(
        "list the 100 tasks that are left", tasks_todo, checks.has_few_left, "todo", True, "tracker_finish", False,
        unit="ms",
    ),
    "tracker_counts": Workload(
        "open, and count tasks, done and tried", tasks_counts, checks.has_few_left, "mark_done", True,
        "tracker_finish", False, unit="ms",
    ),
    "tracker_crawl": Workload(
        "a crawl: try each task, keep facts, add its links, mark it done",
        tasks_crawl, checks.has_crawled, "crawl", True, kinds=("url",),
    ),
}
# What is not measured, but begun with.
PREPARATIONS = {
    "tracker_finish": Workload(
        "mark all but 100 tasks done", tasks_finish, checks.has_few_left, "mark_done", True, "tracker_fill"
    ),
}
