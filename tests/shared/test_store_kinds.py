"""Private, read-only and shared instances of one store, together and in turn."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest

from tastypy_fast import (
    POD,
    ReadOnlyStoreError,
    SharedPOD,
    SharedTracker,
    StorageError,
    StoreConflictError,
    StoreKindError,
    Tracker,
)
from tests.support.children import Child
from tests.support.shared import ABC
from tests.support.stores import is_tracker

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

PRIVATE = {SharedPOD: POD, SharedTracker: Tracker}


def test_reader_of_a_shared_store_sees_committed_data(kit, abc, in_other_thread):
    private = PRIVATE[kit.cls]
    with private(abc.path, mode="r") as reader:
        assert kit.contents(reader) == ABC
        abc["a"] = kit.value(10)
        assert kit.plain(reader["a"]) == 10
        loop = iter(reader)
        assert next(loop) == "a"
        with abc.locked():
            del abc["b"]
            abc["d"] = kit.value(4)
            assert kit.contents(reader) == {"a": 10, "b": 2, "c": 3}
            assert in_other_thread(kit.contents, reader) == {"a": 10, "b": 2, "c": 3}
        assert list(loop) == ["c", "d"]
        for write in (lambda: reader.pop("a"), lambda: reader.update({"a": {}}), reader.clear):
            with pytest.raises(ReadOnlyStoreError):
                write()
        with pytest.raises(ReadOnlyStoreError):
            reader.set["a"] = {}
        reader.revert()
        reader.sync()
        assert reader.dirty() == set()
        assert abc.dirty() == {"a", "b", "d"}
        found = reader["a"]
        if is_tracker(kit.cls):
            found["lost"] = 1
            abc.mark_done("a")
            assert reader.done("a")
            assert reader.num_done() == 1
            with pytest.raises(ReadOnlyStoreError):
                list(reader.try_keys())
            assert list(reader.todo_keys()) == ["c", "d"]
        reader._check()
    abc["e"] = kit.value(5)
    assert kit.contents(abc) == {"a": 10, "c": 3, "d": 4, "e": 5}


def test_reader_and_shared_store_are_closed_in_any_order(kit, abc):
    private = PRIVATE[kit.cls]
    for first in (0, 1):
        stores = [kit.open(), private(abc.path, mode="r")]
        abc.close()
        stores[first].close()
        assert kit.contents(stores[1 - first]) == ABC
        if first == 0:
            # The files are open in shared mode.
            stores.append(kit.open())
            assert kit.contents(stores[2]) == ABC
        for store in stores:
            store.close()
        # No process has the store open any more.
        with private(abc.path, file_size=9) as alone:
            assert kit.contents(alone) == ABC


def test_shared_store_is_refused_if_a_reader_of_the_process_opened_the_files_first(kit, abc):
    abc.close()
    with PRIVATE[kit.cls](abc.path, mode="r") as reader:
        with pytest.raises(StoreConflictError, match="shared one first"):
            kit.open()
        assert kit.contents(reader) == ABC
    assert kit.contents(kit.open()) == ABC


def test_private_writer_is_refused_while_the_store_is_shared(kit, abc):
    private = PRIVATE[kit.cls]
    for options in ({}, {"clone": False}, {"init": {}}):
        with pytest.raises(StoreConflictError, match="shared") as caught:
            private(abc.path, **options)
        assert isinstance(caught.value, ValueError)
    abc["d"] = kit.value(4)
    abc.close()
    with private(abc.path) as alone:
        assert kit.contents(alone) == {**ABC, "d": 4}
        with pytest.raises(StoreConflictError, match="private"):
            kit.open()
        alone["e"] = kit.value(5)
        assert kit.contents(alone) == {**ABC, "d": 4, "e": 5}
    assert kit.contents(kit.open()) == {**ABC, "d": 4, "e": 5}


def test_dict_and_tracker_exclude_each_other(kit, abc):
    wrong = {SharedPOD: SharedTracker, SharedTracker: SharedPOD}[kit.cls]
    for cls in (wrong, PRIVATE[wrong]):
        with pytest.raises(StoreKindError):
            cls(abc.path)
        with pytest.raises(StoreKindError):
            PRIVATE[wrong](abc.path, mode="r")
    abc.close()
    with pytest.raises(StoreKindError):
        wrong(abc.path)
    assert kit.contents(kit.open()) == ABC


@pytest.mark.parametrize("options", [{"gzipped": True}, {"file_size": 10}, {"durability": "full"}])
def test_instances_with_conflicting_options_are_refused(kit, abc, options):
    (name,) = options
    with pytest.raises(StoreConflictError, match=name):
        kit.open(**options)
    assert kit.contents(kit.open(sync_at=5)) == ABC


def test_store_can_change_from_private_to_shared_and_back(kit):
    private = PRIVATE[kit.cls]
    path = kit.folder / "store"
    expected = {}
    for turn in range(3):
        with private(path, sync_at=2) as store:
            assert kit.contents(store) == expected
            store["private", turn] = kit.value(turn)
            store.pop(("shared", turn - 2), None)
            expected.pop(("shared", turn - 2), None)
            expected["private", turn] = turn
            if is_tracker(kit.cls):
                assert list(store.try_keys())
            store._check()
        with kit.cls(path, sync_at=2) as store:
            assert kit.contents(store) == expected
            assert store.dirty() == set()
            store["shared", turn] = kit.value(turn)
            expected["shared", turn] = turn
            if is_tracker(kit.cls):
                assert list(store.try_keys()) == [*expected]
                assert store.tries(("private", 0)) == 2 * turn + 2
            store._check()


LEFT = {
    "changes": lambda store: store.update(left=({})),
    "a hold": lambda store: (store.hold(), store.update(left={})),
    "deletions": lambda store: (store.pop("a"), store.update(left={})),
    "a block": lambda store: (store.update(left={}), store.lock(), store.update(nothing={}), store.pop("left")),
    "an open transaction": lambda store: (store.update(left={}), store.transaction().__enter__(), store.clear()),
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("opened", ["private", "shared"])
def test_changes_of_a_killed_process_are_synced_for_the_next_sole_user(kit, abc, left, opened):
    path = abc.path
    abc.close()

    def live(pipe):
        LEFT[left](kit.cls(path))
        pipe.send("done")
        pipe.recv()

    with Child(live) as child:
        assert child.pipe.recv() == "done"
        child.kill(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    expected = [key for key in [*ABC, "left"] if left != "deletions" or key != "a"]
    with (kit.cls if opened == "shared" else PRIVATE[kit.cls])(path, sync_at=2) as store:
        assert store.keys() == expected
        assert store.dirty() == set()
        store.revert()
        assert store.keys() == expected
        for number in range(3):
            store[number] = kit.value(number)
        assert len(store.dirty()) == 1
        store._check()


@pytest.mark.parametrize("opened", ["private", "shared"])
@pytest.mark.parametrize("batch", [1, 4])
def test_claims_of_a_killed_process_are_released_for_the_next_sole_user(tmp_path, opened, batch):
    path = tmp_path / "tracker"

    def live(pipe):
        tracker = SharedTracker(path, init={number: {} for number in range(8)})
        loop = tracker.try_keys(batch=batch)
        for _ in range(3):
            key = next(loop)
        tracker.mark_done(key)
        assert tracker.should_try(7)
        pipe.send(tracker.claimed_keys())
        pipe.recv()

    with Child(live) as child:
        assert child.pipe.recv() == ([0, 1, 7] if batch == 1 else [0, 1, 3, 7])
        child.kill(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    with (SharedTracker if opened == "shared" else Tracker)(path) as tracker:
        # The try of the task that was not yielded was taken back.
        assert [tracker.tries(number) for number in range(8)] == [1, 1, 1, 0, 0, 0, 0, 1]
        if opened == "shared":
            assert tracker.claimed_keys() == []
        assert list(tracker.try_keys()) == [0, 1, 3, 4, 5, 6, 7]
        tracker._check()


@pytest.mark.parametrize("replaced", [False, True])
def test_store_whose_files_were_deleted_can_be_closed_and_recreated(shared_class, tmp_path, replaced):
    path = tmp_path / "store"
    store = shared_class(path, init={"a": {}})
    loop = store.try_keys() if is_tracker(shared_class) else iter(store)
    assert next(loop) == "a"
    shutil.rmtree(path)
    if replaced:
        run_program(shared_class, path, "store['other'] = {}")
    with pytest.raises(StorageError, match="close"):
        write_for_ever(store)  # The files are checked once a second.
    with pytest.raises(StorageError, match="removed or replaced"):
        store.close()
    assert store.closed
    with shared_class(path) as again:
        assert again.keys() == (["other"] if replaced else [])


def write_for_ever(store):
    while True:
        store["b"] = {}


def run_program(cls, path, line):
    """The output of a program that runs this code on the store."""
    program = f"""
import sys, tastypy_fast
try:
    with tastypy_fast.{cls.__name__}(sys.argv[1]) as store:
        {line}
except tastypy_fast.PersistentOrderedDictException as error:
    print(error)
"""
    return subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True).stdout


def test_process_cannot_join_after_the_lock_file_was_removed(shared_class, tmp_path):
    path = tmp_path / "store"
    with shared_class(path, init={"a": {}}) as store:
        (path / "lock.mdb").unlink()
        assert "lock.mdb was removed" in run_program(shared_class, path, "store['c'] = {}")
        store["b"] = {}
    with shared_class(path) as store:
        assert store.keys() == ["a", "b"]
