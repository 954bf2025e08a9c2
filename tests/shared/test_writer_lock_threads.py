"""Threads on one shared store: nothing is lost, blocks are isolated."""

from __future__ import annotations

import contextlib
import random
import threading
from functools import partial

import pytest

from tests.support.shared import ABC, KINDS, THREADS, Boom, block_of, place_of, run_concurrently
from tests.support.stores import is_tracker

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def instances_for_threads(kit, one=False):
    """One instance for each thread, or for all of them."""
    first = kit.open()
    return [first if one else kit.open() for _ in range(THREADS)]


@pytest.mark.parametrize("one", [True, False], ids=["one instance", "an instance each"])
@pytest.mark.usefixtures("switching_often")
def test_increments_of_several_threads_are_not_lost(kit, one):
    stores = instances_for_threads(kit, one)
    stores[0].update(kit.pairs({"n": 0, "deep": {"l": [0]}, "text": ""}))

    def work(thread):
        store = stores[thread]
        for _ in range(100):
            number, text = place_of(kit, store, "n"), place_of(kit, store, "text")
            number += 1
            text += str(thread)
            place_of(kit, store, "deep")["l"][0] += 1
            if is_tracker(kit.cls):
                store.increment_tries("n")

    run_concurrently(*(partial(work, thread) for thread in range(THREADS)))
    found = kit.contents(stores[0])
    assert (found["n"], found["deep"]) == (100 * THREADS, {"l": [100 * THREADS]})
    assert sorted(found["text"]) == sorted("0123" * 100)
    if is_tracker(kit.cls):
        assert stores[0].tries("n") == 100 * THREADS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("switching_often")
def test_blocks_of_threads_are_isolated(kit, kind):
    stores = instances_for_threads(kit)
    stores[0].update(kit.pairs({"n": 0, "log": []}))

    def work(thread):
        store = stores[thread]
        place = place_of(kit, store, "log")
        for _ in range(25):
            with block_of(store, kind):
                place.append(thread)
                number = kit.plain(store["n"])
                for part in range(3):
                    assert kit.plain(store["n"]) == number + part
                    store["n"] = kit.value(number + part + 1)
                place.append(thread)

    run_concurrently(*(partial(work, thread) for thread in range(THREADS)))
    found = kit.contents(stores[0])
    assert found["n"] == 3 * 25 * THREADS
    assert found["log"][::2] == found["log"][1::2]
    assert sorted(found["log"]) == sorted(list(range(THREADS)) * 50)


def test_writer_waits_for_a_block_of_another_thread_and_reader_does_not(kit, abc):
    begun, written = threading.Event(), []

    def write():
        begun.set()
        abc.set["a"] = kit.value("last")
        written.append(kit.contents(abc))

    thread = threading.Thread(target=write)
    with abc.locked():
        abc["b"] = kit.value("first")
        thread.start()
        assert begun.wait(30)
        for _ in range(200):
            assert run_concurrently(partial(kit.contents, abc)) == [ABC]
        assert not written
        abc["a"] = kit.value("in the block")
    thread.join(30)
    assert written == [{"a": "last", "b": "first", "c": 3}]


@pytest.mark.usefixtures("switching_often")
def test_readers_see_transfers_completely_and_no_failed_ones(kit, seed):
    stores = instances_for_threads(kit)
    stores[0].update(kit.pairs(dict.fromkeys(range(5), 100)))
    ended = threading.Event()

    def transfer(thread):
        rng, store = random.Random(seed + thread), stores[thread]
        for _ in range(60):
            with contextlib.suppress(Boom), store.transaction():
                source, target = rng.sample(range(5), 2)
                store[source] = kit.value(kit.plain(store[source]) - 30)
                store[target] = kit.value(kit.plain(store[target]) + 30)
                if kit.plain(store[source]) < 0:
                    raise Boom

    def watch():
        times = 0
        while not ended.is_set() or not times:
            amounts = [kit.plain(value) for value in stores[0].values()]
            assert sum(amounts) == 500
            assert min(amounts) >= 0
            times += 1

    def work():
        try:
            run_concurrently(*(partial(transfer, thread) for thread in range(3)))
        finally:
            ended.set()

    run_concurrently(work, watch)
    assert sum(kit.contents(stores[0]).values()) == 500
