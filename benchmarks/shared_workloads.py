"""The workloads of several processes on one store, and the checks that every operation was done exactly once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.inputs import Content, changed_value, url_of, value_of
from benchmarks.shared_stores import SHARED_STORES
from benchmarks.shared_stores.base import COUNTER
from benchmarks.verify import expect, expect_counts

MAX_CHANGES, MAX_READS = 20_000, 100_000
CHANGED = changed_value(0)["status"]


class Scale(NamedTuple):
    """The size of a workload: a store of ``n`` keys, ``batch`` changes per operation."""

    n: int
    batch: int = 1

    @property
    def changes(self) -> int:
        """Return the number of changes of all processes together."""
        return min(self.n, MAX_CHANGES if self.batch == 1 else MAX_READS)

    @property
    def reads(self) -> int:
        """Return the number of fast operations: reads, and increments in blocks."""
        return min(5 * self.n, MAX_READS)


class Share(NamedTuple):
    """The part of the operations that one process does: every ``processes``-th, starting at ``number``."""

    scale: Scale
    number: int
    processes: int

    def of(self, total: int) -> range:
        return range(self.number, total, self.processes)


# Prepare the store.


def filled(store: Any, n: int) -> None:
    store.fill([list(Content(n).pairs())])


def with_counter(store: Any, _n: int) -> None:
    store.fill([[(COUNTER, 0)]])


def with_tasks(store: Any, n: int) -> None:
    store.add([list(Content(n).keys())])


# Make the argument of the operation for one process.


def random_existing(share: Share) -> Iterator[int]:
    """Yield random numbers of existing keys. No two processes get the same one."""
    n = share.scale.n
    chosen = random.Random(n).sample(range(n), share.scale.changes)
    return (chosen[index] for index in share.of(len(chosen)))


def existing_pairs(share: Share) -> list[Any]:
    return in_batches([(url_of(number), changed_value(number)) for number in random_existing(share)], share.scale.batch)


def new_pairs(share: Share) -> list[Any]:
    numbers = (share.scale.n + index for index in share.of(share.scale.changes))
    return in_batches([(url_of(number), changed_value(number)) for number in numbers], share.scale.batch)


def existing_keys(share: Share) -> list[Any]:
    return in_batches([url_of(number) for number in random_existing(share)], share.scale.batch)


def half_of_existing_keys(share: Share) -> list[Any]:
    keys = existing_keys(share)
    return keys[: len(keys) // 2]


def random_keys(share: Share) -> list[str]:
    choose = random.Random(share.number).randrange
    return [url_of(choose(share.scale.n)) for _ in share.of(share.scale.reads)]


def increments(share: Share) -> int:
    return len(share.of(share.scale.changes))


def blocks(share: Share) -> list[range]:
    times, batch = len(share.of(share.scale.reads)), share.scale.batch
    return [range(begin, min(begin + batch, times)) for begin in range(0, times, batch)]


def batch_size(share: Share) -> int:
    return share.scale.batch


def in_batches(items: Sequence[Any], batch: int) -> list[Any]:
    """Return lists of ``batch`` items, or the items themselves if ``batch`` is 1."""
    return list(items) if batch == 1 else [items[begin : begin + batch] for begin in range(0, len(items), batch)]


# Verify the store. ``returned`` is what the operation returned in each process.


def is_set(store: Any, scale: Scale, _returned: list[Any]) -> None:
    _expect_statuses(store, scale.n, scale.changes)


def is_set_new(store: Any, scale: Scale, _returned: list[Any]) -> None:
    _expect_statuses(store, scale.n + scale.changes, scale.changes)
    expect(store.get(url_of(scale.n)), changed_value(scale.n), "the first new value")


def _expect_statuses(store: Any, total: int, changed: int) -> None:
    found = dict(store.items())
    expect(len(found), total, "the number of keys")
    expect(sum(value["status"] == CHANGED for value in found.values()), changed, "the number of assigned keys")
    for number in range(total):
        value = found[url_of(number)]
        expect(value, {**value_of(number), "status": value["status"]}, f"value {number}")


def is_half_deleted(store: Any, scale: Scale, returned: list[Any]) -> None:
    deleted = sum(len(half_of_existing_keys(Share(scale, number, len(returned)))) for number in range(len(returned)))
    found = dict(store.items())
    expect(len(found), scale.n - deleted, "the number of keys")
    for key in half_of_existing_keys(Share(scale, 0, len(returned))):
        expect(key in found, False, f"the deleted key {key}")


def is_read(_store: Any, scale: Scale, returned: list[Any]) -> None:
    expect(sum(returned), 200 * scale.reads, "the sum of the values")


def is_counted(store: Any, scale: Scale, _returned: list[Any]) -> None:
    expect(store.counter(), scale.changes, "the counter")


def is_counted_in_blocks(store: Any, scale: Scale, _returned: list[Any]) -> None:
    expect(store.counter(), scale.reads, "the counter")


def is_marked_done(store: Any, scale: Scale, _returned: list[Any]) -> None:
    expect_counts(store, scale.n, scale.changes, 0)


def is_aborted(store: Any, scale: Scale, _returned: list[Any]) -> None:
    expect(store.num_aborted(), scale.changes, "the number of aborted tasks")


def has_no_done(_store: Any, _scale: Scale, returned: list[Any]) -> None:
    expect(sum(returned), 0, "the number of done tasks")


def is_claimed_and_done(store: Any, scale: Scale, returned: list[Any]) -> None:
    expect(sum(returned), scale.n, "the number of claimed tasks")
    expect_counts(store, scale.n, scale.n, scale.n)


class SharedWorkload(NamedTuple):
    """A workload of several processes.

    Each process calls the method ``operation`` of its store with ``argument(share)``. With more than one change per
    operation it calls the method ``many`` (None: not supported). ``items`` is the number of changes or reads of all
    processes together.
    """

    about: str
    prepare: Callable[[Any, int], None]
    operation: str
    many: str | None
    argument: Callable[[Share], Any]
    items: Callable[[Scale], int]
    verify: Callable[[Any, Scale, list[Any]], None]
    tasks: bool = False
    unit: str = "items/s"

    def method(self, batch: int) -> str | None:
        """Return the name of the method for ``batch`` changes per operation."""
        return self.operation if batch == 1 else self.many

    def stores(self, batch: int = 1) -> dict[str, Any]:
        """Return the classes of the stores that can run it, by name."""
        classes = {name: info.tasks_class if self.tasks else info.dict_class for name, info in SHARED_STORES.items()}
        method = self.method(batch)
        return {name: found for name, found in classes.items() if method and hasattr(found, method)}


def _changes(scale: Scale) -> int:
    return scale.changes


def _reads(scale: Scale) -> int:
    return scale.reads


def _half(scale: Scale) -> int:
    return scale.changes // 2


def _all(scale: Scale) -> int:
    return scale.n


SHARED_WORKLOADS = {
    "shared_get": SharedWorkload(
        "several processes: read values of random keys", filled, "get_each", None, random_keys, _reads, is_read
    ),
    "shared_set": SharedWorkload(
        "several processes: assign to existing keys",
        filled, "set_each", "set_many", existing_pairs, _changes, is_set,
    ),
    "shared_set_new": SharedWorkload(
        "several processes: assign new keys", filled, "set_each", "set_many", new_pairs, _changes, is_set_new
    ),
    "shared_delete": SharedWorkload(
        "several processes: delete keys", filled, "delete_each", None, half_of_existing_keys, _half, is_half_deleted
    ),
    "shared_increment": SharedWorkload(
        "several processes: increment one counter", with_counter, "increment", None, increments, _changes, is_counted
    ),
    "shared_locked_increment": SharedWorkload(
        "several processes: increment one counter, in locked blocks",
        with_counter, "increment_locked", "increment_locked", blocks, _reads, is_counted_in_blocks,
    ),
    "shared_done": SharedWorkload(
        "several processes: mark tasks done",
        with_tasks, "mark_done_each", "mark_done_many", existing_keys, _changes, is_marked_done, True,
    ),
    "shared_abort": SharedWorkload(
        "several processes: abort tasks", with_tasks, "abort_each", None, existing_keys, _changes, is_aborted, True
    ),
    "shared_status": SharedWorkload(
        "several processes: read the status of random tasks",
        with_tasks, "count_done_each", None, random_keys, _reads, has_no_done, True,
    ),
    "shared_claim_done": SharedWorkload(
        "several processes: claim each task, mark it done",
        with_tasks, "claim_done", "claim_done_many", batch_size, _all, is_claimed_and_done, True,
    ),
}  # fmt: skip
