"""Removed or replaced lock files never admit a second writer."""

from __future__ import annotations

import os
import shutil

import pytest

from tastypy_fast import (
    SharedPOD,
    SharedTracker,
    StorageError,
    StoreInUseError,
    Tracker,
)
from tests.support.children import Child
from tests.support.files import contents, made, reader_class, use

pytestmark = [pytest.mark.all_classes, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]


@pytest.mark.parametrize("name", ["owner.lock", "lock.mdb"])
@pytest.mark.parametrize("second", ["same class", "other kind", "read"])
def test_removed_lock_file_admits_no_second_writer(any_class, path, name, second):
    made(any_class, path)

    def work(pipe):
        with any_class(path) as store:
            store["first"] = {"n": 10}
            store.sync()
            pipe.send("open")
            pipe.recv()
            # The first writer continues, because no other process could open the store.
            store["more"] = {"n": 11}
            store.sync()
            pipe.send("synced")

    shared = SharedTracker if issubclass(any_class, (Tracker, SharedTracker)) else SharedPOD
    private = reader_class(any_class)
    opened = {"same class": any_class, "other kind": shared if any_class is private else private}
    with Child(work) as child:
        child.pipe.recv()
        os.unlink(path / name)
        if second == "read" and name == "owner.lock":
            # A reader does not need the lock file, and creates none.
            assert contents(path, any_class)["first"] == 10
        else:
            with pytest.raises(StoreInUseError, match=f"{name} was removed.*never stale"):
                contents(path, any_class) if second == "read" else opened[second](path)
        assert not (path / name).exists()
        child.pipe.send("go on")
        assert child.pipe.recv() == "synced"
        assert child.wait() == 0
    with any_class(path) as store:
        assert store["more"]["n"] == 11
        store._check()
    assert (path / name).exists()


@pytest.mark.parametrize("name", ["owner.lock", "lock.mdb"])
def test_writer_refuses_to_write_after_its_lock_file_was_replaced(any_class, path, name):
    store = any_class(path, init={"a": {"n": 1}})
    store.sync()
    os.unlink(path / name)
    shutil.copyfile("/dev/null", path / name)
    if not isinstance(store, SharedPOD):
        store["b"] = {"n": 2}
    with pytest.raises(StorageError, match=f"{name}.*replaced"):
        store.sync()
    with pytest.raises(StorageError, match="replaced"):
        store.sync()
    if not isinstance(store, SharedPOD):
        store.revert()
        store.close()
    else:
        with pytest.raises(StorageError, match="replaced"):
            store.close()


def test_removed_lock_file_excludes_writers_while_a_reader_is_open(any_class, path):
    made(any_class, path)

    def work(pipe):
        with reader_class(any_class)(path, mode="r") as reader:
            assert len(reader) == 3
            pipe.send("open")
            pipe.recv()

    with Child(work) as child:
        child.pipe.recv()
        os.unlink(path / "lock.mdb")
        with pytest.raises(StoreInUseError, match=r"lock\.mdb was removed"):
            any_class(path)
        child.pipe.send("close")
        assert child.wait() == 0
    use(any_class, path)


def test_missing_lock_files_are_recreated_when_the_store_is_closed(any_class, path):
    made(any_class, path)
    for name in ("owner.lock", "lock.mdb", "turn.lock"):
        (path / name).unlink(missing_ok=True)
    shutil.rmtree(path / "workers", ignore_errors=True)
    assert contents(path, any_class) == {"a": 0, "b": 1, "c": 2}
    use(any_class, path)
    with any_class(path) as store:
        store._check()
