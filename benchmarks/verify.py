"""Verify what a workload left in a store. Each check opens the store again and reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Any

from benchmarks.inputs import Content, changed_value, value_of
from benchmarks.stores.base import BATCH

OpenStore = Callable[[], Any]
# How many changes a store may lose when its process is killed.
MAX_LOST = BATCH
# How many values a check reads at most, because reading all of them would take a slow store longer than the workload.
MAX_VERIFIED = 5000


def expect(found: object, expected: object, what: str) -> None:
    """Raise AssertionError if ``found`` differs from ``expected``."""
    if found != expected:
        raise AssertionError(f"{what}: {found!r:.200}, not {expected!r:.200}")


def expect_keys(store: Any, expected: Iterable[str], overwritten: bool = False) -> None:
    """Compare all keys in the order that the store promises. ``overwritten``: keys were assigned in another order."""
    found: Iterable[str] = store
    if store.order == "sorted" or (store.order == "moves overwritten" and overwritten):
        found, expected = sorted(found), sorted(expected)
    for number, (key, right) in enumerate(zip_longest(found, expected)):
        if key != right:
            expect(key, right, f"key {number}")


def sample(numbers: Sequence[int]) -> Sequence[int]:
    """Return some thousands of the numbers, evenly spread."""
    return numbers[:: max(1, len(numbers) // MAX_VERIFIED)]


def _expect_values(store: Any, content: Content, numbers: Iterable[int], value: Callable[[int], Any]) -> None:
    for number in numbers:
        expect(store.get(content.key(number)), value(number), f"value {number}")


def is_filled(open_store: OpenStore, content: Content) -> None:
    """Verify all keys, and a few values."""
    store = open_store()
    _expect_values(store, content, content.sample_numbers(), value_of)
    expect_keys(store, content.keys())
    store.close()


def is_unchanged(open_store: OpenStore, content: Content) -> None:
    """Verify a few values after a workload that only reads. Its store was verified when it was filled."""
    store = open_store()
    _expect_values(store, content, content.sample_numbers(), value_of)
    store.close()


def is_updated(open_store: OpenStore, content: Content) -> None:
    """Verify that values were changed and that keys kept their order."""
    store = open_store()
    _expect_values(store, content, content.sample_numbers(), changed_value)
    expect_keys(store, content.keys())
    store.close()


def is_overwritten(open_store: OpenStore, content: Content) -> None:
    """Verify that the keys in random order, and only those, have new values."""
    store = open_store()
    changed = content.random_numbers()
    _expect_values(store, content, sample(changed), changed_value)
    _expect_values(store, content, set(content.sample_numbers()) - set(changed), value_of)
    expect_keys(store, content.keys(), overwritten=True)
    store.close()


def is_overwritten_until_kill(open_store: OpenStore, content: Content) -> None:
    """Verify that a kill lost none but the last changes, and that those have their old or their new value."""
    store = open_store()
    changed = content.random_numbers()
    _expect_values(store, content, sample(changed[:-MAX_LOST]), changed_value)
    for number in changed[-MAX_LOST:]:
        value = store.get(content.key(number))
        if value != changed_value(number):
            expect(value, value_of(number), f"value {number}")
    expect_keys(store, content.keys(), overwritten=True)
    store.close()


def has_every_second_key(open_store: OpenStore, content: Content) -> None:
    """Verify the keys that were not deleted."""
    store = open_store()
    expect(store.get(content.key(0)), value_of(0), "the first value")
    expect_keys(store, content.keys(range(0, content.n, 2)))
    store.close()


# Tasks


def expect_counts(store: Any, total: int, done: int, tried: int) -> None:
    """Compare the counts of tasks. A count that the store does not know (None) is skipped."""
    expect(store.remaining(), total - done, "tasks not done")
    names = ("tasks", "tasks done", "tasks tried")
    for found, expected, what in zip(store.verified_counts(), (total, done, tried), names, strict=True):
        if found is not None:
            expect(found, expected, what)


def _expect_tasks(open_store: OpenStore, total: int, done: int, tried: int) -> None:
    store = open_store()
    expect_counts(store, total, done, tried)
    store.close()


def has_new_tasks(open_store: OpenStore, content: Content) -> None:
    """Verify that no task was tried or done."""
    _expect_tasks(open_store, content.n, 0, 0)


def has_done_tasks(open_store: OpenStore, content: Content) -> None:
    """Verify that every task was tried and done."""
    _expect_tasks(open_store, content.n, content.n, content.n)


def has_marked_tasks(open_store: OpenStore, content: Content) -> None:
    """Verify that the tasks in random order were marked done, without a try."""
    _expect_tasks(open_store, content.n, len(content.random_numbers()), 0)


def has_few_remaining_tasks(open_store: OpenStore, content: Content) -> None:
    """Verify that all but the remaining tasks were marked done."""
    _expect_tasks(open_store, content.n, content.n - len(content.remaining()), 0)


def has_crawled(open_store: OpenStore, content: Content) -> None:
    """Verify that every page was visited and that its facts were stored."""
    has_done_tasks(open_store, content)
    store = open_store()
    for number in content.sample_numbers():
        facts, _ = content.visit(content.key(number))
        found = store.facts(content.key(number))
        expect({name: found[name] for name in facts}, facts, f"the facts of page {number}")
    store.close()
