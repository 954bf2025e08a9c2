"""Several threads on one store: nothing is lost, nothing is done in part, and no order of events ends the process."""

from __future__ import annotations

import random
import sys
import threading
from functools import partial

import pytest

from tastypy_fast import POD, CalledClosedTrackerError, PersistentOrderedDictException, SharedTracker, Tracker
from tests.support.stores import changing

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]

THREADS = 4


@pytest.fixture(autouse=True)
def _switching_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(params=["one instance", "clones"])
def instances(request, any_class, path):
    """An instance for each thread: the same for all, or separate ones on the same path."""
    opened = [any_class(path, sync_at=50)]
    while len(opened) < THREADS and request.param == "clones":
        opened.append(any_class(path, sync_at=50))
    yield [opened[number % len(opened)] for number in range(THREADS)]
    for store in opened:
        store.close()


def run_together(*works):
    """Run each function in a thread. Raises the exception of any of them."""
    errors = []

    def guard(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guard, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def in_each_thread(work, *others):
    """Run ``work(0)``, ``work(1)``, ... at the same time. Repeat the others until all of these have ended."""
    left = [None] * THREADS

    def run(thread):
        try:
            work(thread)
        finally:
            left.pop()

    def repeat(other):
        while left:
            other()

    run_together(*(partial(run, thread) for thread in range(THREADS)), *(partial(repeat, other) for other in others))


def reopened(stores):
    """Close all instances, and return the contents on disk."""
    for store in stores:
        store.close()
    with type(stores[0])(stores[0].path) as store:
        store._check()
        return dict(store.items())


def test_no_assignment_is_lost(instances):
    def work(thread):
        store = instances[thread]
        for number in range(800):
            store[thread, number] = {"n": number}
            assert store[thread, number]["n"] == number

    in_each_thread(work, instances[0].sync, instances[-1]._check)
    found = reopened(instances)
    for thread in range(THREADS):
        assert [value["n"] for key, value in found.items() if key[0] == thread] == list(range(800))


def test_no_mutation_in_place_is_lost(instances):
    def work(thread):
        store = instances[thread]
        store[thread] = {"list": []}
        for number in range(800):
            changing(store)[thread]["list"].append(number)
            if number % 100 == 0:
                store["other", thread, number] = {}

    in_each_thread(work, instances[0].sync, instances[-1].dirty)
    found = reopened(instances)
    assert [found[thread]["list"] for thread in range(THREADS)] == [list(range(800))] * THREADS


def test_each_thread_reads_its_own_changes(instances, seed):
    """Random operations are compared with a model. Each thread has its own keys."""
    models = [{} for _ in range(THREADS)]

    def work(thread):
        store, model, rng = instances[thread], models[thread], random.Random(seed + thread)
        for number in range(800):
            key = (thread, rng.randrange(30))
            chance = rng.random()
            if chance < 0.3:
                model[key] = {"n": number, "list": []}
                store[key] = model[key]
            elif chance < 0.5 and key in model:
                model[key]["list"].append(number)
                changing(store)[key]["list"].append(number)
            elif chance < 0.6 and key in model:
                del model[key]
                del store[key]
            elif chance < 0.65 and key in model:
                store.sync_key(key)
            elif chance < 0.7 and key in model:
                store.mark_dirty(key)
            elif chance < 0.72:
                store.sync()
            elif chance < 0.75:
                assert [found for found in store if found[0] == thread] == list(model)
            elif key in model:
                assert store[key]["list"] == model[key]["list"]
                assert store[key]["n"] == model[key]["n"]
            else:
                assert key not in store
                assert store.get(key) is None

    in_each_thread(work)
    instances[0]._check()
    found = reopened(instances)
    for thread, model in enumerate(models):
        mine = [(key, value["n"], value["list"]) for key, value in found.items() if key[0] == thread]
        assert mine == [(key, value["n"], value["list"]) for key, value in model.items()], seed


def test_loops_continue_while_other_threads_write(instances):
    for number in range(500):
        instances[0]["always", number] = {"n": number}
    instances[0].sync()

    def loop(thread):
        for _ in range(5):
            pairs = list(instances[thread].iteritems())
            keys = [key for key, _ in pairs]
            assert len(keys) == len(set(keys))
            assert [key for key in keys if key[0] == "always"] == [("always", number) for number in range(500)]
            assert all(value["n"] == key[1] for key, value in pairs)
            backwards = list(reversed(instances[thread]))
            assert [key for key in backwards if key[0] == "always"] == keys[499::-1]

    def write(thread):
        store = instances[thread]
        for number in range(1000):
            store["now and then", number, thread] = {"n": number}
            if number % 3:
                del store["now and then", number, thread]

    in_each_thread(lambda thread: (loop if thread % 2 else write)(thread))
    instances[0]._check()


def test_threads_may_share_an_iterator(any_class, path):
    with any_class(path) as store:
        store.update((number, {}) for number in range(5000))
        iterator = iter(store)
        taken = [[] for _ in range(THREADS)]

        def take(thread):
            for key in iterator:
                taken[thread].append(key)

        in_each_thread(take)
        assert {key for keys in taken for key in keys} == set(range(5000))


def test_threads_work_on_one_tracker(path):
    with Tracker(path, sync_at=20) as tracker:
        tracker.add_many(range(1000))
        yielded = [0] * THREADS

        def work(thread):
            for key, task in tracker.try_items():
                yielded[thread] += 1
                if key % THREADS == thread:
                    task["by"] = thread
                    tracker.mark_done(key)
                    if key < 500:
                        tracker.add(key + 1000)

        in_each_thread(work)
        in_each_thread(work)
        assert sum(tracker.tries(key) for key in tracker) == sum(yielded)
        assert [tracker[key]["by"] for key in range(1500)] == [key % THREADS for key in range(1500)]
        assert tracker.num_done() == len(tracker) == 1500
        tracker._check()


@pytest.mark.parametrize("cls", [Tracker, SharedTracker])
def test_no_status_is_lost(path, cls):
    """Each thread counts on one task, by method and in the dict. The tasks share a status block."""
    with cls(path, sync_at=7) as tracker:
        tracker.add_many(range(THREADS))

        def work(thread):
            for number in range(1000):
                if number % 2:
                    tracker.increment_tries(thread)
                else:
                    changing(tracker)[thread]["_tries"] += 1

        in_each_thread(work, tracker.sync, tracker.num_tried)
        assert [tracker.tries(key) for key in tracker] == [1000] * THREADS
        tracker._check()
    with cls(path) as tracker:
        assert [tracker.tries(key) for key in tracker] == [1000] * THREADS


def test_value_that_changes_during_a_sync_raises_nothing(private_class, path):
    """The standard json module writes some of the values, which takes time and lets other threads run."""
    with private_class(path) as store:

        def work(thread):
            for _ in range(10):
                store[thread] = {"dict": {}, "list": []}
                held = store[thread]
                for number in range(500):
                    held["dict"][str(number)] = float("inf")
                    held["list"].append(2**70)

        in_each_thread(work, store.sync, store.dirty)
        store.sync()
        store._check()
        assert [len(store[thread]["dict"]) for thread in range(THREADS)] == [500] * THREADS


def test_pop_setdefault_and_popitem_are_atomic(instances):
    """As for a dict, only one of several threads gets an item, and all get the same default."""
    store = instances[0]
    popped, defaults = [[] for _ in range(THREADS)], [[] for _ in range(THREADS)]

    def pop(thread):
        for number in range(500):
            value = instances[thread].pop(number, None)
            if value is not None:
                popped[thread].append(value["n"])

    def pop_items(thread):
        try:
            while True:
                popped[thread].append(instances[thread].popitem()[1]["n"])
        except KeyError:
            pass

    def set_default(thread):
        for number in range(500):
            defaults[thread].append(instances[thread].setdefault(number, {"by": thread})["by"])

    for work in (pop, pop_items):
        store.update((number, {"n": number}) for number in range(500))
        in_each_thread(work)
        assert sorted(number for numbers in popped for number in numbers) == list(range(500))
        assert len(store) == 0
        popped = [[] for _ in range(THREADS)]
    in_each_thread(set_default)
    assert defaults == [defaults[0]] * THREADS


def test_revert_while_threads_write_leaves_the_store_consistent(instances):
    def work(thread):
        for number in range(1000):
            instances[thread][thread, number] = {"list": [number]}
            value = instances[thread].get((thread, number // 2))
            if value is not None:
                value["list"].append(number)
            instances[thread].pop((thread, number // 3), None)

    in_each_thread(work, instances[0].revert)
    instances[0]._check()
    reopened(instances)


def test_threads_open_and_close_the_same_stores(any_class, path):
    def work(thread):
        for number in range(60):
            with any_class(path / str(number % 3)) as store:
                store[thread, number] = {}
                assert (thread, number) in store

    in_each_thread(work)
    for part in range(3):
        with any_class(path / str(part), gzipped=True) as store:
            store._check()
            assert set(store) == {(thread, number) for thread in range(THREADS) for number in range(part, 60, 3)}


USES = {
    "assign": lambda store, key: store.__setitem__(key, {"n": 1}),
    "assign slowly": lambda store, key: store.__setitem__(key, {"n": float("inf")}),
    "mutate": lambda store, key: store.setdefault(key, {"list": []})["list"].append(1),
    "delete": lambda store, key: (store.__setitem__(key, {}), store.__delitem__(key), store.__setitem__(key, {})),
    "read": lambda store, key: (store.get(key), key in store, len(store)),
    "loop": lambda store, key: list(store.iteritems()),
    "sync": lambda store, key: (store.sync(), store.dirty(), store.hold(), store.unhold()),
    "update": lambda store, key: store.update([(key, {}), ((*key, 2), {})]),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("sync_at", [2, 1000])
def test_close_while_other_threads_work_loses_nothing(any_class, path, use, sync_at):
    """Each operation has returned and is saved, or raises that the store was closed."""
    for turn in range(4):
        store = any_class(path / str(turn), sync_at=sync_at, durability="process")
        store["first"] = {"n": 0}
        finished = [[] for _ in range(3)]

        def work(thread, store=store, finished=finished):
            number = 0
            while True:
                try:
                    USES[use](store, (thread, number))
                except CalledClosedTrackerError:
                    return
                finished[thread].append((thread, number))
                number += 1

        def close(store=store, finished=finished, turn=turn):
            while min(map(len, finished)) < turn + 2:
                pass
            store.close()

        run_together(*(partial(work, thread) for thread in range(3)), close)
        with any_class(path / str(turn)) as again:
            again._check()
            if use not in ("read", "loop", "sync"):
                lost = {key for keys in finished for key in keys} - set(again)
                assert not lost, f"{len(lost)} of {sum(map(len, finished))} are lost"


def test_close_of_a_clone_does_not_affect_other_instances(any_class, path):
    with any_class(path, sync_at=5) as store:

        def work(thread):
            for number in range(100):
                with any_class(path) as other:
                    other[thread, number] = {}
                store[thread, number, "x"] = {}

        in_each_thread(work)
        assert len(store) == 2 * 100 * THREADS
        store._check()


def test_errors_of_one_thread_do_not_affect_other_threads(path):
    """An unstorable value raises where it is synced, and the values of the other threads are saved."""
    with POD(path, sync_at=10) as pod:

        def bad():
            for number in range(200):
                try:
                    pod["bad", number] = []
                    pod["bad", number].append({1})
                    pod.sync()
                except PersistentOrderedDictException:
                    pass
                pod["bad", number] = "good"

        def good():
            for number in range(500):
                try:
                    pod["good", number] = [number]
                    pod["good", number].append(number)
                except PersistentOrderedDictException:
                    # An automatic sync found the unstorable value. The value of this thread is in memory, or already on
                    # disk.
                    assert pod["good", number][0] == number

        run_together(bad, good)
        pod.sync()
        assert pod["bad", 199] == "good"
        assert len(pod) == 700
        pod._check()
