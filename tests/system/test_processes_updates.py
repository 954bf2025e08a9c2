"""Many processes update one shared store: no update is lost, blocks are isolated."""

from __future__ import annotations

import itertools
import random

import pytest

from tastypy_fast import (
    DuplicateKeyError,
    SharedPOD,
    SharedTracker,
)
from tests.support.processes import BLOCKS
from tests.support.workers import PROCESSES, THREADS, in_workers

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

TIMES = 60


@pytest.fixture(params=["inherited", "opened by each"])
def opened(request, path):
    """Open the shared store in a worker: the instance that it was forked with, or a separate one."""
    store = SharedPOD(path, sync_at=50)
    if request.param == "inherited":
        yield lambda: store
    else:
        yield lambda: SharedPOD(path, sync_at=50)
    store._check()
    store.close()


def test_no_increment_is_lost(opened):
    opened()["n"] = 0
    opened()["dict"] = {"list": [0]}

    def work(process, thread):
        pod = opened()
        for _ in range(TIMES):
            pod.set["n"] += 1
            pod.set["dict"]["list"][0] -= 2

    in_workers(work)
    assert opened()["n"] == PROCESSES * THREADS * TIMES
    assert opened()["dict"] == {"list": [-2 * PROCESSES * THREADS * TIMES]}


def test_no_append_to_one_list_is_lost(opened):
    opened()["list"] = []

    def work(process, thread):
        pod = opened()
        for number in range(TIMES):
            pod.set["list"].append([process, thread, number])

    in_workers(work)
    found = opened()["list"]
    assert len(found) == PROCESSES * THREADS * TIMES
    for process, thread in itertools.product(range(PROCESSES), range(THREADS)):
        assert [n for p, t, n in found if (p, t) == (process, thread)] == list(range(TIMES))


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_processes_are_isolated(opened, name):
    """Reads that precede writes; and several keys that are equal before and after each block."""
    opened().update(a=0, b=0)
    opened()["list"] = []

    def work(process, thread):
        pod = opened()
        for _ in range(TIMES):
            with BLOCKS[name](pod):
                number = pod["a"]
                assert pod["b"] == number
                pod["a"] = number + 1
                pod.set["list"].append(number)
                assert pod.items()[0] == ("a", number + 1)
                pod["b"] = number + 1
            seen = dict(pod.items())
            # A snapshot is never from the middle of a block.
            assert seen["a"] == seen["b"] == len(seen["list"])

    in_workers(work)
    total = PROCESSES * THREADS * TIMES
    assert dict(opened().items()) == {"a": total, "b": total, "list": list(range(total))}


def test_failed_transfers_change_nothing(opened):
    accounts = range(5)
    opened().update((account, 100) for account in accounts)

    def work(process, thread):
        pod = opened()
        rng = random.Random(process * THREADS + thread)
        refused = 0
        for _ in range(TIMES):
            source, target = rng.sample(accounts, 2)
            try:
                with pod.transaction():
                    pod.set[source] -= rng.randrange(80)
                    pod.set[target] += 100 - pod[source]
                    if pod[source] < 0:
                        raise ValueError("not enough")
                    # An excess amount is moved back.
                    pod.set[target] -= sum(pod.values()) - 500
            except ValueError:
                refused += 1
            assert sum(pod.values()) == 500
        return refused

    assert sum(in_workers(work)) > 0
    assert min(opened().values()) >= 0


def test_setdefault_of_many_processes_sets_one_value(opened):
    def work(process, thread):
        return [opened().setdefault(number, [process, thread]) for number in range(TIMES)]

    results = in_workers(work)
    assert results == [opened().values()] * len(results)


@pytest.mark.parametrize("last", [True, False])
def test_popitem_returns_each_item_to_one_process(opened, last):
    total = 4 * TIMES
    opened().update((number, number) for number in range(total))

    def work(process, thread):
        pod, mine = opened(), []
        while True:
            try:
                mine.append(pod.popitem(last))
            except KeyError:
                return mine

    results = in_workers(work)
    # Each process removes them in order, because a later one is popped later.
    assert all(mine == sorted(mine, reverse=last) for mine in results)
    assert sorted(itertools.chain(*results)) == [(number, number) for number in range(total)]
    assert len(opened()) == 0


def test_pop_returns_each_value_to_one_process(opened):
    opened().update((number, f"value {number}") for number in range(TIMES))

    def work(process, thread):
        return [value for number in range(TIMES) if (value := opened().pop(number, None))]

    assert sorted(itertools.chain(*in_workers(work))) == sorted(f"value {number}" for number in range(TIMES))


def test_key_added_by_many_processes_exists_once(opened):
    def work(process, thread):
        pod = opened()
        for number in random.Random(process).sample(range(TIMES), TIMES):
            pod[number] = process
            pod.update({number: thread, ("more", number): None})

    in_workers(work)
    pod = opened()
    assert len(pod) == len(pod.keys()) == len(set(pod.keys())) == 2 * TIMES


def test_other_processes_see_an_update_completely_or_not_at_all(opened):
    keys = range(20)
    opened().update((key, [-1]) for key in keys)

    def work(process, thread):
        pod = opened()
        for number in range(TIMES):
            pod.update((key, [process, thread, number]) for key in keys)
            values = pod.values()
            assert values == [values[0]] * len(keys)

    in_workers(work)


def test_add_of_one_key_succeeds_in_one_process(path):
    tracker = SharedTracker(path)

    def work(process, thread):
        added = []
        for number in range(TIMES):
            try:
                tracker.add(number)
                added.append(number)
            except DuplicateKeyError:
                pass
            tracker.add_if_absent(("both", number))
            tracker.add_many_if_absent(("many", other) for other in range(number))
            if tracker.should_do_add(("gate", number)):
                tracker.increment_tries(("gate", number))
        return added

    results = in_workers(work)
    assert sorted(itertools.chain(*results)) == list(range(TIMES))
    assert len(tracker.keys()) == len(set(tracker.keys())) == len(tracker) == 4 * TIMES - 1
    assert [tracker.tries(("gate", number)) for number in range(TIMES)] == [len(results)] * TIMES
    tracker._check()
    tracker.close()


def test_no_status_is_lost(path):
    """Neighbouring tasks share one status block on disk."""
    tracker = SharedTracker(path, init=[(number, {}) for number in range(TIMES * 6)])

    def work(process, thread):
        for number in range(process * THREADS + thread, len(tracker), PROCESSES * THREADS):
            tracker.increment_tries(number)
            tracker.set[number]["by"] = [process, thread]
            tracker.abort(number)
            tracker.mark_done(number)
            tracker.unabort(number)
            tracker.increment_tries(0)

    in_workers(work)
    assert (tracker.num_done(), tracker.num_aborted(), tracker.num_tried()) == (TIMES * 6, 0, TIMES * 6)
    assert tracker.tries(0) == TIMES * 6 + 1
    assert all("by" in task for task in tracker.values())
    tracker._check()
    tracker.close()
