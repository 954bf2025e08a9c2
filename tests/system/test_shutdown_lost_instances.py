"""Instances that the garbage collector frees are saved."""

from __future__ import annotations

import gc

import pytest

from tastypy_fast import UnstorableValueError
from tastypy_fast._store.store import Store
from tests.support.children import Child
from tests.support.stores import changing

pytestmark = [
    pytest.mark.all_classes,
    pytest.mark.with_log,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def test_collected_instance_is_saved_and_releases_its_lock(any_class, path):
    store = any_class(path)
    store["a"] = {"list": []}
    changing(store)["a"]["list"].append(1)
    del store
    # The options differ, so the instance opens only if the first one is closed.
    with any_class(path, gzipped=True) as again:
        assert again["a"]["list"] == [1]


def test_instance_in_a_reference_cycle_is_saved_by_the_garbage_collector(any_class, path):
    store = any_class(path)
    store["a"] = {}
    store.me = store
    del store
    gc.collect()
    with any_class(path, gzipped=True) as again:
        assert "a" in again


def test_instance_that_is_collected_while_another_one_opens_leaves_that_one_open(any_class, path, monkeypatch):
    check_options = Store.check_options

    def collect(store, options):
        gc.collect()
        check_options(store, options)

    lost = any_class(path)
    lost["a"] = {}
    lost.me = lost
    monkeypatch.setattr(Store, "check_options", collect)
    gc.disable()
    try:
        del lost
        with any_class(path) as store:
            store["b"] = {}
            assert store.keys() == ["a", "b"]
    finally:
        gc.enable()


def test_iterator_keeps_its_store_open(any_class, path):
    store = any_class(path, init={number: {} for number in range(1000)})
    iterator = iter(store)
    del store
    assert list(iterator) == list(range(1000))


def test_collected_instance_keeps_the_others_on_its_path_open(any_class, path):
    first, second = any_class(path), any_class(path)
    first["a"] = {}
    del first
    second["b"] = {}
    assert second.keys() == ["a", "b"]
    second.close()


def test_collected_instance_with_an_unstorable_value_saves_the_other_values(private_class, path, capsys):
    store = private_class(path)
    store["bad"] = {"set": None}
    store["bad"]["set"] = {1}
    store["good"] = {}
    del store
    assert "'bad'" in capsys.readouterr().err
    # The store stays open, so that the exit of the process tries again.
    with private_class(path) as again:
        assert "good" in again
        with pytest.raises(UnstorableValueError):
            again.sync()
        again.revert()

    def read(pipe):
        with private_class(path) as store:
            pipe.send(store.keys())

    # The last instance has closed the store.
    with Child(read) as child:
        assert child.pipe.recv() == ["good"]
        assert child.wait() == 0


def test_garbage_collector_may_run_at_any_time(any_class, path):
    """It may also run during a sync of another instance, on the same path or on another."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        with any_class(path, sync_at=5) as store:
            for number in range(60):
                for other in (path, path.with_name("other")):
                    lost = any_class(other)
                    lost.me = lost
                    lost["lost", number] = {"n": [number]}
                    del lost
                for key in range(10):
                    store[number, key] = {"n": [key]}
                    store[number, key]["n"].append(1)
                if number % 10 == 0:
                    store.sync()
                    store._check()
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
    with any_class(path, gzipped=True) as store, any_class(path.with_name("other"), gzipped=True) as other:
        assert len(store) == 660
        assert len(other) == 60
        store._check()
        other._check()
