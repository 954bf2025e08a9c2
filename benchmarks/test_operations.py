"""Measure single operations with pytest-benchmark, to find a regression between two commits.

The usual options of pytest switch the measurement off, so override them:

    python -m pytest benchmarks -o addopts="" --benchmark-only

Save the results with ``--benchmark-autosave``, and compare with the last saved ones with ``--benchmark-compare``. With
``--benchmark-compare-fail=median:20%`` the command fails if a median is slower.

Each round repeats an operation for 1,000 keys, so divide its time by 1,000. Exceptions are ``test_counts`` and
``test_open``, which do one operation. A round contains no sync, unless it measures the sync. A shared store commits
each operation, or each block of 1,000.
"""

from __future__ import annotations

from collections import deque
from contextlib import closing
from itertools import islice

import pytest

from benchmarks.inputs import url_of, value_of
from tastypy_fast import (
    PersistentOrderedDict,
    ProgressTracker,
    SharedPersistentOrderedDict,
    SharedProgressTracker,
)
from tastypy_fast._core.finishing import FINISH_DONE

KEYS = 20_000
MANY = 1000
ROUNDS = 30


@pytest.fixture
def pod(tmp_path):
    """A store without automatic sync. All values are on disk, none is in memory."""
    with PersistentOrderedDict(tmp_path / "pod", init=((url_of(i), value_of(i)) for i in range(KEYS))) as pod:
        pod.sync()
        pod.hold()
        yield pod
        pod.revert()


@pytest.fixture
def tracker(tmp_path):
    """A tracker without automatic sync. All tasks are on disk."""
    with ProgressTracker(tmp_path / "tracker") as tracker:
        tracker.add_many(map(url_of, range(KEYS)))
        tracker.sync()
        tracker.hold()
        yield tracker
        tracker.revert()


@pytest.fixture
def shared_pod(tmp_path):
    """A shared store without automatic sync."""
    with SharedPersistentOrderedDict(tmp_path / "pod", init=((url_of(i), value_of(i)) for i in range(KEYS))) as pod:
        pod.sync()
        pod.hold()
        yield pod


@pytest.fixture
def shared_tracker(tmp_path):
    """A shared tracker without automatic sync."""
    with SharedProgressTracker(tmp_path / "tracker") as tracker:
        tracker.add_many(map(url_of, range(KEYS)))
        tracker.sync()
        tracker.hold()
        yield tracker


@pytest.fixture
def some():
    """1,000 existing keys in mixed order."""
    return [url_of(i * 7919 % KEYS) for i in range(MANY)]


@pytest.fixture
def new():
    """1,000 new keys."""
    return [url_of(KEYS + i) for i in range(MANY)]


def run(benchmark, operation, setup=None):
    """Measure ``operation``. ``setup`` runs before each round and is not measured."""
    return benchmark.pedantic(operation, setup=setup, rounds=ROUNDS, warmup_rounds=2)


def set_all(pod, keys, value):
    for key in keys:
        pod[key] = value


def get_all(pod, keys):
    return [pod[key] for key in keys]


def test_set_new(benchmark, pod, new):
    run(benchmark, lambda: set_all(pod, new, value_of(0)), pod.revert)
    assert len(pod) == KEYS + MANY


def test_set_existing(benchmark, pod, some):
    run(benchmark, lambda: set_all(pod, some, value_of(0)), pod.revert)
    assert len(pod) == KEYS


def test_get_cached(benchmark, pod, some):
    get_all(pod, some)
    values = run(benchmark, lambda: get_all(pod, some))
    assert values[1] == value_of(7919)


def test_get_from_disk(benchmark, pod, some):
    values = run(benchmark, lambda: get_all(pod, some), pod.revert)
    assert values[1] == value_of(7919)


def test_get_many_from_disk(benchmark, pod, some):
    pairs = run(benchmark, lambda: list(pod.get_many(some)))
    assert pairs[1] == (url_of(7919), value_of(7919))


def test_contains(benchmark, pod, some):
    assert run(benchmark, lambda: all(key in pod for key in some))


def test_contains_not(benchmark, pod, new):
    assert not run(benchmark, lambda: any(key in pod for key in new))


def test_iterate_items(benchmark, pod):
    last = run(benchmark, lambda: deque(islice(pod.iteritems(), MANY), maxlen=1))
    assert last[0] == (url_of(MANY - 1), value_of(MANY - 1))


def test_sync_new(benchmark, pod):
    numbers = iter(range(KEYS, KEYS + (ROUNDS + 2) * MANY))
    run(benchmark, pod.sync, lambda: set_all(pod, map(url_of, islice(numbers, MANY)), value_of(0)))
    assert not pod.dirty()


def test_sync_existing(benchmark, pod, some):
    numbers = iter(range(ROUNDS + 2))
    run(benchmark, pod.sync, lambda: set_all(pod, some, next(numbers)))
    assert not pod.dirty()


def test_add_many(benchmark, tracker, new):
    run(benchmark, lambda: tracker.add_many(new), tracker.revert)
    assert len(tracker) == KEYS + MANY


def test_mark_done(benchmark, tracker, some):
    def mark_all():
        for key in some:
            tracker.mark_done(key)

    run(benchmark, mark_all, tracker.revert)
    assert tracker.num_done() == MANY


def test_try_next(benchmark, tracker):
    last = run(benchmark, lambda: deque(islice(tracker.try_keys(), MANY), maxlen=1), tracker.revert)
    assert last[0] == url_of(MANY - 1)
    assert tracker.num_tried() == MANY


def test_mark_done_with_data(benchmark, tracker, some):
    run(benchmark, lambda: mark_each(tracker, some), tracker.revert)
    assert tracker[some[0]]["size"] == 1234


def test_finish_many(benchmark, tracker, some):
    changes = [(key, FINISH_DONE, {"size": 1234}) for key in some]
    run(benchmark, lambda: tracker._finish_many(changes), tracker.revert)
    assert tracker[some[0]]["size"] == 1234


def test_take(benchmark, tracker):
    run(benchmark, lambda: take_some(tracker), tracker.revert)
    assert tracker.num_tried() == MANY


def mark_each(tracker, keys):
    for key in keys:
        tracker.mark_done(key, {"size": 1234})


def take_some(tracker):
    queue = tracker._open_queue(False)
    for _ in range(0, MANY, 100):
        queue.take(100)
    queue.close()


def test_counts(benchmark, tracker):
    counts = run(benchmark, lambda: (len(tracker), tracker.num_done(), tracker.num_tried()), tracker.revert)
    assert counts == (KEYS, 0, 0)


def test_open(benchmark, tmp_path):
    """Open and close an existing store."""
    path = tmp_path / "store"
    PersistentOrderedDict(path, init={"a": 1}).close()
    run(benchmark, lambda: PersistentOrderedDict(path).close())
    with PersistentOrderedDict(path) as pod:
        assert pod.items() == [("a", 1)]


def test_shared_set_new(benchmark, shared_pod, new):
    run(benchmark, lambda: set_all(shared_pod, new, value_of(0)), shared_pod.revert)
    assert len(shared_pod) == KEYS + MANY


def test_shared_set_existing(benchmark, shared_pod, some):
    run(benchmark, lambda: set_all(shared_pod, some, value_of(0)), shared_pod.revert)
    assert shared_pod[some[1]] == value_of(0)


def test_shared_set_locked(benchmark, shared_pod, some):
    def set_in_block():
        with shared_pod.locked():
            set_all(shared_pod, some, value_of(0))

    run(benchmark, set_in_block, shared_pod.revert)
    assert shared_pod[some[1]] == value_of(0)


def test_shared_get(benchmark, shared_pod, some):
    values = run(benchmark, lambda: get_all(shared_pod, some))
    assert values[1] == value_of(7919)


def test_shared_get_locked(benchmark, shared_pod, some):
    def get_in_block():
        with shared_pod.locked():
            return get_all(shared_pod, some)

    assert run(benchmark, get_in_block)[1] == value_of(7919)


def increment(pod, key):
    for _ in range(MANY):
        pod.set[key] += 1


def test_shared_increment(benchmark, shared_pod):
    shared_pod["n"] = 0
    shared_pod.sync()
    run(benchmark, lambda: increment(shared_pod, "n"), shared_pod.revert)
    assert shared_pod["n"] == MANY


def test_shared_increment_locked(benchmark, shared_pod):
    def increment_in_block():
        with shared_pod.locked():
            increment(shared_pod, "n")

    shared_pod["n"] = 0
    shared_pod.sync()
    run(benchmark, increment_in_block, shared_pod.revert)
    assert shared_pod["n"] == MANY


def test_shared_mark_done(benchmark, shared_tracker, some):
    def mark_all():
        for key in some:
            shared_tracker.mark_done(key)

    run(benchmark, mark_all, shared_tracker.revert)
    assert shared_tracker.num_done() == MANY


def test_shared_mark_done_many(benchmark, shared_tracker, some):
    run(benchmark, lambda: shared_tracker.mark_done_many(some), shared_tracker.revert)
    assert shared_tracker.num_done() == MANY


def test_shared_mark_done_with_data(benchmark, shared_tracker, some):
    run(benchmark, lambda: mark_each(shared_tracker, some), shared_tracker.revert)
    assert shared_tracker[some[0]]["size"] == 1234


def test_shared_finish_many(benchmark, shared_tracker, some):
    changes = [(key, FINISH_DONE, {"size": 1234}) for key in some]
    run(benchmark, lambda: shared_tracker._finish_many(changes), shared_tracker.revert)
    assert shared_tracker[some[0]]["size"] == 1234


def test_shared_take(benchmark, shared_tracker):
    def drop_claims():
        shared_tracker.revert()
        for key in shared_tracker.claimed_keys():
            shared_tracker.release(key)

    run(benchmark, lambda: take_some(shared_tracker), drop_claims)
    assert shared_tracker.num_tried() == MANY


@pytest.mark.parametrize("batch", [1, 100])
def test_shared_try_next(benchmark, shared_tracker, batch):
    def try_some():
        with closing(shared_tracker.try_keys(batch=batch)) as loop:
            return deque(islice(loop, MANY), maxlen=1)

    last = run(benchmark, try_some, shared_tracker.revert)
    assert last[0] == url_of(MANY - 1)
    assert shared_tracker.num_tried() == MANY
