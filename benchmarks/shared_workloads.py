"""What several processes do to one store at once, and how it is told that all of it was done, and once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.checks import expect, expect_tally
from benchmarks.inputs import Content, changed_value, key_of, value_of
from benchmarks.shared_stores import SHARED_PEERS
from benchmarks.shared_stores.common import COUNTER

MOST_CHANGES, MOST_READS = 20_000, 100_000
CHANGED = changed_value(0)["status"]


class Scale(NamedTuple):
    """How much is done: to a store of ``n`` keys, ``batch`` changes with each operation."""

    n: int
    batch: int = 1

    @property
    def changes(self) -> int:
        """How many changes are made, by all processes together."""
        return min(self.n, MOST_CHANGES if self.batch == 1 else MOST_READS)

    @property
    def reads(self) -> int:
        """The same of what is quick: reading, and changing one number in blocks."""
        return min(5 * self.n, MOST_READS)


class Share(NamedTuple):
    """Which part of the operations is one process's: every ``processes``-th, beginning with ``number``."""

    scale: Scale
    number: int
    processes: int

    def of(self, total: int) -> range:
        return range(self.number, total, self.processes)


# What is in the store at first.


def filled(store: Any, n: int) -> None:
    store.fill([list(Content(n).pairs())])


def with_counter(store: Any, _n: int) -> None:
    store.fill([[(COUNTER, 0)]])


def with_tasks(store: Any, n: int) -> None:
    store.add([list(Content(n).keys())])


# What each process is given.


def scattered(share: Share) -> Iterator[int]:
    """Numbers of keys that are there, each once over all processes."""
    n = share.scale.n
    chosen = random.Random(n).sample(range(n), share.scale.changes)
    return (chosen[index] for index in share.of(len(chosen)))


def existing_pairs(share: Share) -> list[Any]:
    return in_batches([(key_of(number), changed_value(number)) for number in scattered(share)], share.scale.batch)


def new_pairs(share: Share) -> list[Any]:
    numbers = (share.scale.n + index for index in share.of(share.scale.changes))
    return in_batches([(key_of(number), changed_value(number)) for number in numbers], share.scale.batch)


def existing_keys(share: Share) -> list[Any]:
    return in_batches([key_of(number) for number in scattered(share)], share.scale.batch)


def random_keys(share: Share) -> list[str]:
    choose = random.Random(share.number).randrange
    return [key_of(choose(share.scale.n)) for _ in share.of(share.scale.reads)]


def single_times(share: Share) -> int:
    return len(share.of(share.scale.changes))


def blocks(share: Share) -> list[range]:
    times, batch = len(share.of(share.scale.reads)), share.scale.batch
    return [range(begin, min(begin + batch, times)) for begin in range(0, times, batch)]


def size_of_batch(share: Share) -> int:
    return share.scale.batch


def in_batches(items: Sequence[Any], batch: int) -> list[Any]:
    """Lists of so many; with 1 the items themselves."""
    return list(items) if batch == 1 else [items[begin : begin + batch] for begin in range(0, len(items), batch)]


# What is right afterwards; ``found`` is what each process came back with.


def is_set(store: Any, scale: Scale, _found: list[Any]) -> None:
    has_statuses(store, scale.n, scale.changes)


def is_set_new(store: Any, scale: Scale, _found: list[Any]) -> None:
    has_statuses(store, scale.n + scale.changes, scale.changes)
    expect(store.get(key_of(scale.n)), changed_value(scale.n), "the first new value")


def has_statuses(store: Any, total: int, changed: int) -> None:
    found = dict(store.items())
    expect(len(found), total, "the number of keys")
    expect(sum(value["status"] == CHANGED for value in found.values()), changed, "how many were assigned")
    for number in range(total):
        value = found[key_of(number)]
        expect(value, {**value_of(number), "status": value["status"]}, f"value {number}")


def is_read(_store: Any, scale: Scale, found: list[Any]) -> None:
    expect(sum(found), 200 * scale.reads, "the sum of what was read")


def is_counted(store: Any, scale: Scale, _found: list[Any]) -> None:
    expect(store.counter(), scale.changes, "the counter")


def is_counted_in_blocks(store: Any, scale: Scale, _found: list[Any]) -> None:
    expect(store.counter(), scale.reads, "the counter")


def is_marked(store: Any, scale: Scale, _found: list[Any]) -> None:
    expect_tally(store, scale.n, scale.changes, 0)


def is_claimed_and_done(store: Any, scale: Scale, found: list[Any]) -> None:
    expect(sum(found), scale.n, "the number of tasks handed out")
    expect_tally(store, scale.n, scale.n, scale.n)


class SharedWorkload(NamedTuple):
    """Each process calls the method ``operation`` with what ``given`` makes for its share, all of them at once; where
    several changes go together, it is the method ``many`` (None: there is no such thing). ``items`` tells how many
    changes or reads that is, all processes together."""

    about: str
    prepare: Callable[[Any, int], None]
    operation: str
    many: str | None
    given: Callable[[Share], Any]
    items: Callable[[Scale], int]
    check: Callable[[Any, Scale, list[Any]], None]
    tasks: bool = False
    unit: str = "items/s"

    def method(self, batch: int) -> str | None:
        """What is called where ``batch`` changes go together."""
        return self.operation if batch == 1 else self.many

    def stores(self, batch: int = 1) -> dict[str, Any]:
        """What it can be done to: the classes by the names of the peers."""
        classes = {name: peer.tasks_class if self.tasks else peer.dict_class for name, peer in SHARED_PEERS.items()}
        method = self.method(batch)
        return {name: made for name, made in classes.items() if method and hasattr(made, method)}


def _changes(scale: Scale) -> int:
    return scale.changes


def _reads(scale: Scale) -> int:
    return scale.reads


def _every(scale: Scale) -> int:
    return scale.n


SHARED_WORKLOADS = {
    "shared_get": SharedWorkload(
        "several processes: read values by random keys", filled, "get_each", None, random_keys, _reads, is_read
    ),
    "shared_set": SharedWorkload(
        "several processes: assign to keys that are there",
        filled, "set_each", "set_many", existing_pairs, _changes, is_set,
    ),
    "shared_set_new": SharedWorkload(
        "several processes: assign new keys", filled, "set_each", "set_many", new_pairs, _changes, is_set_new
    ),
    "shared_increment": SharedWorkload(
        "several processes: add to one number", with_counter, "increment", None, single_times, _changes, is_counted
    ),
    "shared_locked_increment": SharedWorkload(
        "several processes: add to one number, in blocks that none comes between",
        with_counter, "increment_locked", "increment_locked", blocks, _reads, is_counted_in_blocks,
    ),
    "shared_done": SharedWorkload(
        "several processes: mark tasks done",
        with_tasks, "mark_done_each", "mark_done_many", existing_keys, _changes, is_marked, True,
    ),
    "shared_claim_done": SharedWorkload(
        "several processes: claim each task and mark it done",
        with_tasks, "claim_done", "claim_done_many", size_of_batch, _every, is_claimed_and_done, True,
    ),
}  # fmt: skip
