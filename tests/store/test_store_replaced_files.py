"""Files that are emptied, replaced or removed while readers have them open; limits of memory."""

from __future__ import annotations

import os
import shutil
import subprocess

import lmdb
import pytest

from tastypy_fast import (
    PersistentOrderedDictIntegrityError,
    SharedPOD,
    SharedTracker,
    StorageError,
    StoreNotFoundError,
    maintenance,
)
from tastypy_fast._lmdb import engine
from tests.support.children import Child, run
from tests.support.files import contents, made, reader_class, use

pytestmark = [pytest.mark.all_classes, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]


def use_in_subprocess(cls, path):
    """Use the store in a subprocess, which does not know the open stores of this process."""
    program = """
        import sys, tastypy_fast
        with getattr(tastypy_fast, sys.argv[2])(sys.argv[1]) as store:
            store["x"] = {"n": 1}
    """
    status, _, errors = run(program, path, cls.__name__)
    assert (status, errors) == (0, "")
    return True


# An existing store


@pytest.mark.parametrize("witness", ["owner.lock", "turn.lock", "workers"])
def test_empty_data_file_of_an_existing_store_is_damage(any_class, path, witness):
    made(any_class, path)
    for name in ("owner.lock", "turn.lock", "workers"):
        if name != witness:
            entry = path / name
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
    if not (path / witness).exists():
        (path / witness).mkdir() if witness == "workers" else (path / witness).touch()
    os.truncate(path / "data.mdb", 0)
    for work in (lambda: any_class(path), lambda: contents(path, any_class)):
        with pytest.raises(PersistentOrderedDictIntegrityError):
            work()
    assert (path / "data.mdb").stat().st_size == 0


def test_empty_data_file_without_a_store_is_initialized(any_class, path):
    path.mkdir()
    (path / "data.mdb").touch()
    (path / "owner.lock").touch()
    with pytest.raises(StoreNotFoundError):
        contents(path, any_class)
    made(any_class, path)
    assert contents(path, any_class) == {"a": 0, "b": 1, "c": 2}


# Files that are replaced while readers have them open


def contents_a_second_later(store):
    """The contents that a reader sees a second later."""
    store._store.files_checked = 0


def test_reader_continues_with_the_files_that_replaced_its_own(any_class, tmp_path):
    path = tmp_path / "store"
    made(any_class, path)
    made(any_class, tmp_path / "other", 5)
    with reader_class(any_class)(path, mode="r") as reader:
        iterator = iter(reader)
        assert next(iterator) == "a"
        shutil.rmtree(path)
        (tmp_path / "other").rename(path)
        contents_a_second_later(reader)
        assert reader.keys() == list("abcde")
        assert len(reader) == 5
        assert reader["e"]["n"] == 4
        assert list(iterator) == list("bcde")
        # The reader works next to a writer of the new files.
        assert use_in_subprocess(any_class, path)
        assert "x" in reader


def test_reader_whose_files_are_gone_raises_storage_error(any_class, path):
    made(any_class, path)
    reader = reader_class(any_class)(path, mode="r")
    assert len(reader) == 3
    shutil.rmtree(path)
    contents_a_second_later(reader)
    for _ in range(2):
        with pytest.raises(StorageError, match="removed"):
            reader.keys()
    reader.close()
    made(any_class, path)
    assert contents(path, any_class) == {"a": 0, "b": 1, "c": 2}


def test_replaced_shared_store_raises_storage_error(path):
    made(SharedPOD, path.parent / "other")
    store = SharedPOD(path, init={"a": {"n": 1}})
    shutil.rmtree(path)
    (path.parent / "other").rename(path)
    contents_a_second_later(store)
    with pytest.raises(StorageError, match="replaced"):
        store.keys()
    with pytest.raises(StorageError, match="replaced"):
        store.close()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root mounts file systems")
def test_reader_follows_a_data_file_that_the_system_copies_up(any_class, tmp_path):
    """On overlayfs, the open of a writer gives the path another file, which the map of a reader does not show."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for folder in (lower, upper, work, merged):
        folder.mkdir()
    made(any_class, lower / "store")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("there is no overlayfs here")
    path = merged / "store"
    try:
        reading = reader_class(any_class)(path, mode="r")
        assert len(reading) == 3

        assert use_in_subprocess(any_class, path)
        contents_a_second_later(reading)
        assert "x" in reading
        reading.close()
    finally:
        subprocess.run(["umount", "-l", str(merged)], check=True)


@pytest.mark.parametrize("end", ["sync", "close"])
def test_shared_store_whose_folder_is_gone_raises_at_each_sync_and_close(tmp_path, end):
    for cls in (SharedPOD, SharedTracker):
        path = tmp_path / cls.__name__
        store = cls(path, init={"a": {"n": 1}})
        store.sync()
        shutil.rmtree(path)
        for _ in range(3):
            with pytest.raises(StorageError, match="removed"):
                getattr(store, end)()
            if store.closed:
                break
        if not store.closed:
            with pytest.raises(StorageError, match="removed"):
                store.close()
        assert store.closed
        store.close()
        with cls(path) as again:
            assert again.keys() == []


# Limits


MEMORY = """
    import resource, sys
    import tastypy_fast
    limit = int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    store = getattr(tastypy_fast, sys.argv[2])(sys.argv[1])
    store["small"] = {"n": 1}
    store.sync()
    size = 8_000_000
    while size < limit:
        try:
            store["a"] = {"n": "y" * size}
            store.sync()
            assert len(store["a"]["n"]) == size
        except (MemoryError, OSError) as error:
            print(type(error).__name__)
            break
        size *= 2
    print(size)
    store.revert()
    assert store["small"]["n"] == 1
"""


@pytest.mark.parametrize("limit", [300_000 * 1024, pytest.param(1 << 30, marks=pytest.mark.storm)])
def test_small_address_space_raises_an_error_and_does_not_crash(any_class, path, limit):
    status, output, errors = run(MEMORY, path, any_class.__name__, limit)
    assert status == 0, (status, errors[-2000:])
    assert int(output.split()[-1]) > 8_000_000


@pytest.mark.parametrize("opening", ["write", "read", "copy", "verify"])
def test_slots_of_killed_readers_are_reused(any_class, path, opening):
    """LMDB's reader table finds their slots to be free, also while others have the store open."""
    made(any_class, path)

    def read(pipe):
        db = lmdb.open(str(path), readonly=True, max_readers=engine.MAX_READERS, max_dbs=8)
        transactions = [db.begin() for _ in range(engine.MAX_READERS)]
        pipe.send(len(transactions))
        pipe.recv()

    def stay(pipe):
        with reader_class(any_class)(path, mode="r"):
            pipe.send("open")
            pipe.recv()

    with Child(stay) as stays:
        stays.pipe.recv()
        with Child(read) as child:
            assert child.pipe.recv() == engine.MAX_READERS
        if opening == "write":
            use(any_class, path)
        elif opening == "read":
            assert contents(path, any_class) == {"a": 0, "b": 1, "c": 2}
        elif opening == "copy":
            maintenance.copy(path, path.parent / "copy")
        else:
            assert maintenance.verify(path) == []
