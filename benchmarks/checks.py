"""How it is told that a store did what was asked: each check opens it anew and looks at what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any

from benchmarks.inputs import Content, changed_value, value_of
from benchmarks.stores.common import BATCH

OpenStore = Callable[[], Any]
# How many changes a store may lose when its process is killed.
MOST_LOST = BATCH


def expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {found!r:.200}, not {wanted!r:.200}")


def expect_keys(store: Any, wanted: Iterable[str], moved: bool = False) -> None:
    """In the store's order; ``moved`` tells that keys were overwritten in another one."""
    found: Iterable[str] = store
    if store.order == "sorted" or (store.order == "moved" and moved):
        found, wanted = sorted(found), sorted(wanted)
    for number, (key, right) in enumerate(zip_longest(found, wanted)):
        if key != right:
            expect(key, right, f"key {number}")


def some_of(numbers: list[int]) -> list[int]:
    """Some thousands, where looking at all would take a slow store longer than what was measured."""
    return numbers[:: max(1, len(numbers) // 5000)]


def is_filled(open_store: OpenStore, content: Content) -> None:
    store = open_store()
    for number in content.some_numbers():
        expect(store.get(content.key(number)), value_of(number), f"value {number}")
    expect_keys(store, content.keys())
    store.close()


def is_unchanged(open_store: OpenStore, content: Content) -> None:
    """What only reads, and begins with what was checked when it was filled."""
    store = open_store()
    for number in content.some_numbers():
        expect(store.get(content.key(number)), value_of(number), f"value {number}")
    store.close()


def is_updated(open_store: OpenStore, content: Content) -> None:
    store = open_store()
    for number in content.some_numbers():
        expect(store.get(content.key(number)), changed_value(number), f"value {number}")
    expect_keys(store, content.keys())
    store.close()


def is_overwritten(open_store: OpenStore, content: Content) -> None:
    store = open_store()
    changed = content.scattered()
    for number in some_of(changed):
        expect(store.get(content.key(number)), changed_value(number), f"value {number}")
    for number in set(content.some_numbers()) - set(changed):
        expect(store.get(content.key(number)), value_of(number), f"value {number}")
    expect_keys(store, content.keys(), moved=True)
    store.close()


def was_killed(open_store: OpenStore, content: Content) -> None:
    store = open_store()
    changed = content.scattered()
    for number in some_of(changed[:-MOST_LOST]):
        expect(store.get(content.key(number)), changed_value(number), f"value {number}")
    for number in changed[-MOST_LOST:]:
        value = store.get(content.key(number))
        if value != changed_value(number):
            expect(value, value_of(number), f"value {number}")
    expect_keys(store, content.keys(), moved=True)
    store.close()


def is_halved(open_store: OpenStore, content: Content) -> None:
    store = open_store()
    expect(store.get(content.key(0)), value_of(0), "the first value")
    expect_keys(store, content.keys(range(0, content.n, 2)))
    store.close()


# Tasks


def expect_tally(store: Any, total: int, done: int, tried: int) -> None:
    expect(store.left(), total - done, "how many are left")
    for found, wanted, what in zip(store.tally(), (total, done, tried), ("tasks", "done", "tried"), strict=True):
        if found is not None:
            expect(found, wanted, what)


def expect_tasks(open_store: OpenStore, total: int, done: int, tried: int) -> None:
    store = open_store()
    expect_tally(store, total, done, tried)
    store.close()


def has_tasks(open_store: OpenStore, content: Content) -> None:
    expect_tasks(open_store, content.n, 0, 0)


def has_done_tasks(open_store: OpenStore, content: Content) -> None:
    expect_tasks(open_store, content.n, content.n, content.n)


def has_marked_tasks(open_store: OpenStore, content: Content) -> None:
    expect_tasks(open_store, content.n, len(content.scattered()), 0)


def has_few_left(open_store: OpenStore, content: Content) -> None:
    expect_tasks(open_store, content.n, content.n - len(content.left()), 0)


def has_crawled(open_store: OpenStore, content: Content) -> None:
    has_done_tasks(open_store, content)
    store = open_store()
    for number in content.some_numbers():
        facts, _ = content.visit(content.key(number))
        found = store.facts(content.key(number))
        expect({name: found[name] for name in facts}, facts, f"what was found at {number}")
    store.close()
