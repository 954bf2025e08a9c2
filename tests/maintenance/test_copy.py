"""Copy a store: the copy is a complete snapshot, or there is none."""

from __future__ import annotations

import itertools
import os
import resource

import pytest

from tastypy_fast import (
    POD,
    DiskFullError,
    NotAStoreError,
    SharedPOD,
    SharedTracker,
    StoreInUseError,
    StoreNotFoundError,
    Tracker,
    maintenance,
)
from tests.support.children import Child, result_of_child
from tests.support.maintenance import fill, nothing_left, plain, state, state_of
from tests.support.stores import is_tracker, logging, value_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

MOST = 4000


def test_copy_has_everything(stores, cls, victim, target):
    maintenance.copy(victim, target)
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]
    assert maintenance.verify(target) == []
    assert state_of(cls, target) == stores[cls][1]
    assert state_of(cls, victim) == stores[cls][1]


def test_copy_of_a_store_that_this_process_has_open(cls, path, target):
    with cls(path) as store:
        fill(store)
        store.sync()
        expected = state(store)
        maintenance.copy(path, target)
        assert maintenance.verify(path) == []
        store["later"] = {"x": 1}
        store.sync()
        store._check()
    assert state_of(cls, target) == expected


@pytest.mark.parametrize("one", [POD, Tracker])
def test_copy_includes_the_changes_in_the_log(one, path, target):
    with logging(10**6), one(path) as store:
        fill(store)
        store.sync()
        store["key 5"] = {"only": "in the log"}
        del store["key 6"]
        store.sync()
        assert store._store.wal
        expected = state(store)
        maintenance.copy(path, target)
        repaired = maintenance.repair  # This does not work while the store is open.
        with pytest.raises(StoreInUseError):
            repaired(path, target.parent / "repaired")
        assert maintenance.verify(path) == []
    assert state_of(one, target) == expected


def write_on(pipe, cls, path):
    with cls(path, sync_at=10**6) as store:
        for number in itertools.count():
            # The changes must end, because a reader of the store would otherwise never finish.
            key = number % MOST
            store[key] = value_for(cls, "x" * (key % 50) * 20)
            if number % 20 == 0:
                store.sync()
            if number == 100:
                pipe.send("begun")


def test_copy_while_another_process_writes_is_a_snapshot(cls, path, target):
    lengths = []
    with Child(write_on, cls, path) as child:
        assert child.pipe.recv() == "begun"
        for number in range(4):
            copied = target.parent / str(number)
            maintenance.copy(path, copied)
            assert maintenance.verify(path) == []
            with cls(copied) as store:
                store._check()
                assert list(store) == list(range(len(store)))
                for key in list(store)[-50:]:
                    value = plain(store[key]) if is_tracker(cls) else store[key]
                    assert value == value_for(cls, "x" * (key % 50) * 20)
                lengths.append(len(store))
                if not issubclass(cls, SharedPOD):
                    assert len(store) % 20 == 1 or len(store) == MOST, "it ends with a sync"
    assert lengths == sorted(lengths)
    assert lengths[0] > 80


def test_copy_has_claimed_tasks_as_open_tasks(path, target):
    with SharedTracker(path) as tracker:
        tracker.add_many(["a", "b", "c"])
        for _ in tracker.try_keys():
            maintenance.copy(path, target)
            assert maintenance.verify(path) == maintenance.verify(target) == []
            with pytest.raises(StoreInUseError):
                maintenance.compact(path)
            break
    with SharedTracker(target) as copied:
        copied._check()
        assert list(copied.todo_keys()) == ["a", "b", "c"]


@pytest.mark.parametrize("make", [maintenance.copy, maintenance.repair])
def test_existing_target_is_not_changed(victim, stores, cls, tmp_path, make):
    (tmp_path / "file").write_text("text")
    for name in ("file", "store"):
        with pytest.raises(NotAStoreError, match="new path"):
            make(victim, tmp_path / name)
    assert (tmp_path / "file").read_text() == "text"
    assert sorted(os.listdir(tmp_path)) == ["file", "store"]
    assert state_of(cls, victim) == stores[cls][1]


@pytest.mark.parametrize("make", [maintenance.copy, maintenance.repair])
def test_target_may_be_an_empty_folder(victim, stores, cls, target, make):
    target.mkdir(parents=True)
    make(victim, target)
    assert state_of(cls, target) == stores[cls][1]


@pytest.mark.parametrize("make", [maintenance.copy, maintenance.repair])
def test_folder_that_is_not_a_store_is_not_copied(tmp_path, target, make):
    with pytest.raises(StoreNotFoundError):
        make(tmp_path / "missing", target)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note").write_text("x")
    with pytest.raises(NotAStoreError):
        make(tmp_path / "other", target)
    assert nothing_left(target)


def limited(pipe, work, *arguments):
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, 80_000))
    try:
        pipe.send(work(*arguments))
    except Exception as error:
        pipe.send(error)


def test_copy_and_compact_on_a_full_disk_change_nothing(stores, cls, victim, target):
    for work in (maintenance.copy, maintenance.repair):
        (error,) = result_of_child(limited, work, victim, target)
        assert isinstance(error, DiskFullError), error
        assert nothing_left(target)
    (error,) = result_of_child(limited, maintenance.compact, victim)
    assert isinstance(error, DiskFullError), error
    assert "data.compacted" not in os.listdir(victim)
    assert maintenance.verify(victim) == []
    assert state_of(cls, victim) == stores[cls][1]
