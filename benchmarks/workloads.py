"""What is done to each store, and how it is told that the store did it.

Input is made in batches while the clock stands still, so that what is timed is the store alone and no list
of a million values lies in memory beside it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import perf_counter, process_time
from typing import Any, NamedTuple

from benchmarks.stores import BATCH, PEERS

# A page links to some 20 others of its own host.
HOSTS, LINKS = 1000, 20
MOST_READS = 200_000
OpenStore = Callable[[], Any]


class Clock:
    """Seconds between start() and stop(), but for those in which a batch of input was made; and of these the
    seconds for which the process ran, user and system, so without waiting for the disk or other processes."""

    def __init__(self) -> None:
        self.seconds = self.running = 0.0

    def start(self) -> None:
        self.running -= process_time()
        self.seconds -= perf_counter()

    def stop(self) -> None:
        self.seconds += perf_counter()
        self.running += process_time()

    def batches(self, items: Iterable[Any]) -> Iterator[list[Any]]:
        """Lists of up to 1,000 items, made off the clock, which runs."""
        iterator = iter(items)
        while True:
            self.stop()
            batch = list(islice(iterator, BATCH))
            self.start()
            if not batch:
                return
            yield batch


def key_of(number: int) -> str:
    """A URL as a crawler finds them: some of one host, then some of another, each host's pages in order."""
    host = (number // LINKS) * 2654435761 % 2**32 * HOSTS >> 32
    return f"https://www.site{host:03d}.example/articles/{number:09d}.html"


def value_of(number: int) -> dict[str, Any]:
    """A value of 78 bytes of JSON."""
    title = f"The article number {number:07d}"
    return {"status": 200, "size": number % 90_000 + 10_000, "title": title, "links": [1, 2]}


def pairs(n: int) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((key_of(number), value_of(number)) for number in range(n))


def some_numbers(n: int) -> list[int]:
    return sorted({0, n // 3, n // 2, n - 1})


# Each runs on the clock and returns how many items it handled.


def fill(open_store: OpenStore, n: int, clock: Clock) -> int:
    store = open_store()
    clock.start()
    store.fill(clock.batches(pairs(n)))
    store.sync()
    clock.stop()
    store.close()
    return n


def read(open_store: OpenStore, n: int, clock: Clock) -> int:
    reads = min(n, MOST_READS)
    choose = random.Random(n).randrange
    store = open_store()
    clock.start()
    total = store.read(clock.batches(key_of(choose(n)) for _ in range(reads)))
    clock.stop()
    store.close()
    expect(total, 200 * reads, "the sum of what was read")
    return reads


def iterate(open_store: OpenStore, n: int, clock: Clock) -> int:
    store = open_store()
    total = 0
    clock.start()
    for _key, value in store.items():
        total += value["size"]
    clock.stop()
    expect([key for key, _ in islice(store.items(), 50)], [key_of(i) for i in range(min(n, 50))], "the first keys")
    store.close()
    expect(total, sum(value_of(i)["size"] for i in range(n)), "the sum of what was read")
    return n


def keys(open_store: OpenStore, n: int, clock: Clock) -> int:
    store = open_store()
    total = 0
    clock.start()
    for _key in store:
        total += 1
    clock.stop()
    expect(list(islice(store, 50)), [key_of(i) for i in range(min(n, 50))], "the first keys")
    store.close()
    expect(total, n, "the number of keys")
    return n


def update(open_store: OpenStore, n: int, clock: Clock) -> int:
    store = open_store()
    clock.start()
    store.update()
    store.sync()
    clock.stop()
    store.close()
    return n


def open_one(open_store: OpenStore, n: int, clock: Clock) -> int:
    clock.start()
    store = open_store()
    value = store.get(key_of(n // 2))
    clock.stop()
    store.close()
    expect(value, value_of(n // 2), "the value that was read")
    return 1


def tracker_fill(open_store: OpenStore, n: int, clock: Clock) -> int:
    store = open_store()
    clock.start()
    store.add(clock.batches(map(key_of, range(n))))
    store.sync()
    clock.stop()
    store.close()
    return n


def tracker_loop(open_store: OpenStore, n: int, clock: Clock) -> int:
    store = open_store()
    clock.start()
    done = store.loop()
    store.sync()
    clock.stop()
    store.close()
    expect(done, n, "the number of tasks handed out")
    return n


# Each opens the store anew and looks whether it holds what it should.


def expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {found!r:.200}, not {wanted!r:.200}")


def is_filled(open_store: OpenStore, n: int, more: int = 0) -> None:
    store = open_store()
    expect(len(store), n, "the length")
    for number in some_numbers(n):
        value = value_of(number)
        value["status"] += more
        expect(store.get(key_of(number)), value, f"value {number}")
    expect(list(store), [key_of(number) for number in range(n)], "the order of the keys")
    store.close()


def is_updated(open_store: OpenStore, n: int) -> None:
    is_filled(open_store, n, 1)


def has_tasks(open_store: OpenStore, n: int) -> None:
    store = open_store()
    expect(tuple(store.counts()), (n, 0, 0), "tasks, done, tried")
    store.close()


def has_done_tasks(open_store: OpenStore, n: int) -> None:
    store = open_store()
    expect(tuple(store.counts()), (n, n, n), "tasks, done, tried")
    store.close()


class Workload(NamedTuple):
    """``before`` is the workload whose result it begins with; ``writes`` tells that it changes that."""

    about: str
    run: Callable[[OpenStore, int, Clock], int]
    check: Callable[[OpenStore, int], None]
    tasks: bool = False
    before: str | None = None
    writes: bool = True
    unit: str = "items/s"

    def stores(self) -> dict[str, Any]:
        """What it can be done to: the classes by the names of the peers."""
        return {name: peer.tasks_class if self.tasks else peer.dict_class for name, peer in PEERS.items()}


WORKLOADS = {
    "fill": Workload("assign new keys", fill, is_filled),
    "read": Workload("read values by random keys", read, is_filled, before="fill", writes=False),
    "iterate": Workload("all pairs in order", iterate, is_filled, before="fill", writes=False),
    "keys": Workload("all keys in order", keys, is_filled, before="fill", writes=False),
    "update": Workload("in order, read a value, change a field, save", update, is_updated, before="fill"),
    "open": Workload("open the store and read one value", open_one, is_filled, before="fill", writes=False, unit="ms"),
    "tracker_fill": Workload("add tasks", tracker_fill, has_tasks, tasks=True),
    "tracker_loop": Workload("try each task and mark it done", tracker_loop, has_done_tasks, True, "tracker_fill"),
}
