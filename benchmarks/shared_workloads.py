"""What several processes do to one store at once, and how it is told that all of it was done, and once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.shared_stores import COUNTER, SHARED_PEERS
from benchmarks.workloads import expect, key_of, pairs, value_of

MOST_CHANGES, MOST_READS = 20_000, 100_000
CHANGED = 201


def changes(n: int) -> int:
    """How many single changes are made to a store of n keys."""
    return min(n, MOST_CHANGES)


def reads(n: int) -> int:
    """The same of what is quick: reading, and changing in blocks."""
    return min(5 * n, MOST_READS)


def every(n: int) -> int:
    """Each task of the store."""
    return n


class Share(NamedTuple):
    """Which part of the operations is one process's: every ``processes``-th, beginning with ``number``."""

    n: int
    number: int
    processes: int

    def of(self, total: int) -> range:
        return range(self.number, total, self.processes)


# What is in the store at first.


def filled(store: Any, n: int) -> None:
    store.fill([list(pairs(n))])


def with_counter(store: Any, _n: int) -> None:
    store.fill([[(COUNTER, 0)]])


def with_tasks(store: Any, n: int) -> None:
    store.add([[key_of(number) for number in range(n)]])


# What each process is given.


def changed_value(number: int) -> dict[str, Any]:
    return {**value_of(number), "status": CHANGED}


def scattered(share: Share) -> Iterator[int]:
    """Numbers of keys that are there, each once over all processes."""
    chosen = random.Random(share.n).sample(range(share.n), changes(share.n))
    return (chosen[index] for index in share.of(len(chosen)))


def existing_pairs(share: Share) -> list[Any]:
    return [(key_of(number), changed_value(number)) for number in scattered(share)]


def new_pairs(share: Share) -> list[Any]:
    numbers = (share.n + index for index in share.of(changes(share.n)))
    return [(key_of(number), changed_value(number)) for number in numbers]


def existing_keys(share: Share) -> list[str]:
    return [key_of(number) for number in scattered(share)]


def random_keys(share: Share) -> list[str]:
    choose = random.Random(share.number).randrange
    return [key_of(choose(share.n)) for _ in share.of(reads(share.n))]


def single_times(share: Share) -> int:
    return len(share.of(changes(share.n)))


def block_times(share: Share) -> int:
    return len(share.of(reads(share.n)))


# What is right afterwards; ``found`` is what each process came back with.


def is_set(store: Any, n: int, _found: list[Any]) -> None:
    has_statuses(store, n, changes(n))


def is_set_new(store: Any, n: int, _found: list[Any]) -> None:
    has_statuses(store, n + changes(n), changes(n))
    expect(store.get(key_of(n)), changed_value(n), "the first new value")


def has_statuses(store: Any, total: int, changed: int) -> None:
    found = dict(store.items())
    expect(len(found), total, "the number of keys")
    expect(sum(value["status"] == CHANGED for value in found.values()), changed, "how many were assigned")
    for number in range(total):
        value = found[key_of(number)]
        expect(value, {**value_of(number), "status": value["status"]}, f"value {number}")


def is_read(_store: Any, n: int, found: list[Any]) -> None:
    expect(sum(found), 200 * reads(n), "the sum of what was read")


def is_counted(store: Any, n: int, _found: list[Any]) -> None:
    expect(store.counter(), changes(n), "the counter")


def is_counted_in_blocks(store: Any, n: int, _found: list[Any]) -> None:
    expect(store.counter(), reads(n), "the counter")


def is_marked(store: Any, n: int, _found: list[Any]) -> None:
    expect(tuple(store.counts()), (n, changes(n), 0), "tasks, done, tried")


def is_claimed_and_done(store: Any, n: int, found: list[Any]) -> None:
    expect(sum(found), n, "the number of tasks handed out")
    expect(tuple(store.counts()), (n, n, n), "tasks, done, tried")


class SharedWorkload(NamedTuple):
    """Each process calls the method ``operation`` with what ``given`` makes for its share, all of them at once.
    ``items`` tells how many operations that is, all processes together."""

    about: str
    prepare: Callable[[Any, int], None]
    operation: str
    given: Callable[[Share], Any] | None
    items: Callable[[int], int]
    check: Callable[[Any, int, list[Any]], None]
    tasks: bool = False
    unit: str = "items/s"

    def stores(self) -> dict[str, Any]:
        """What it can be done to: the classes by the names of the peers."""
        classes = {name: peer.tasks_class if self.tasks else peer.dict_class for name, peer in SHARED_PEERS.items()}
        return {name: made for name, made in classes.items() if hasattr(made, self.operation)}


SHARED_WORKLOADS = {
    "shared_get": SharedWorkload(
        "several processes: read values by random keys", filled, "get_each", random_keys, reads, is_read
    ),
    "shared_set": SharedWorkload(
        "several processes: assign to keys that are there", filled, "set_each", existing_pairs, changes, is_set
    ),
    "shared_set_new": SharedWorkload(
        "several processes: assign new keys", filled, "set_each", new_pairs, changes, is_set_new
    ),
    "shared_increment": SharedWorkload(
        "several processes: add to one number", with_counter, "increment", single_times, changes, is_counted
    ),
    "shared_locked_increment": SharedWorkload(
        "several processes: add to one number, in blocks of 100 that none comes between",
        with_counter, "increment_locked", block_times, reads, is_counted_in_blocks,
    ),
    "shared_done": SharedWorkload(
        "several processes: mark tasks done", with_tasks, "mark_done_each", existing_keys, changes, is_marked, True
    ),
    "shared_claim_done": SharedWorkload(
        "several processes: claim each task and mark it done",
        with_tasks, "claim_done", None, every, is_claimed_and_done, True,
    ),
    "shared_claim_done_batch": SharedWorkload(
        "several processes: the same, 100 tasks at a time",
        with_tasks, "claim_done_in_batches", None, every, is_claimed_and_done, True,
    ),
}
