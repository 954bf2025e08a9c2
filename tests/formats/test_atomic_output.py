"""Kills and full disks during import and export leave nothing behind."""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import contextmanager, suppress

import pytest

from tastypy_fast import (
    POD,
    DiskFullError,
    NotAStoreError,
    PersistentOrderedDictException,
)
from tests.support.children import Child, result_of_child
from tests.support.formats import LEFT

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def big_folder(folder):
    """Files of 20,000 lines."""
    with POD(folder / "big", init=((number, {"n": number}) for number in range(20_000))) as store:
        store.export_json(folder / "files")
    return folder / "files"


def size_of(path):
    return sum(file.lstat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def kill_in_the_middle(work, target, size):
    """Run ``work`` in a child, and kill it when its output reaches a size. Returns whether the output was complete."""
    with Child(work) as child:
        while not target.exists():
            with suppress(FileNotFoundError):  # The output was renamed or removed.
                if any(size_of(left) >= size for left in target.parent.glob(LEFT)):
                    break
        child.kill()
        child.wait()
    return target.exists()


PARTS = [0, 0.3, 0.9]


def test_kill_during_an_import_leaves_no_store(tmp_path, cls):
    files = big_folder(tmp_path)
    cls.import_json(files, tmp_path / "whole").close()
    target = tmp_path / "place" / "store"
    target.parent.mkdir()
    killed = 0
    for part in PARTS:
        if kill_in_the_middle(lambda pipe: cls.import_json(files, target), target, part * size_of(tmp_path / "whole")):
            with cls(target) as store:
                store._check()
                assert len(store) == 20_000
            shutil.rmtree(target)
        else:
            killed += 1
        assert len(list(target.parent.iterdir())) <= 1  # The leftovers of the previous kill are gone.
    assert killed
    with cls.import_json(files, target) as store:
        store._check()
        assert len(store) == 20_000
        assert store[19_999]["n"] == 19_999
        assert os.listdir(target.parent) == ["store"]


@pytest.mark.parametrize("export", ["export_json", "export_jsonl"])
def test_kill_during_an_export_leaves_nothing_at_the_path(tmp_path, export):
    size = size_of(big_folder(tmp_path))
    target = tmp_path / "place" / "target"
    target.parent.mkdir()
    killed = 0

    def work(pipe):
        getattr(POD(tmp_path / "big", mode="r"), export)(target)

    for part in PARTS:
        if kill_in_the_middle(work, target, part * size):
            assert lines_in(target) == 20_000
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        else:
            killed += 1
        assert len(list(target.parent.iterdir())) <= 1
    assert killed
    with POD(tmp_path / "big", mode="r") as store:
        getattr(store, export)(target)
    assert os.listdir(target.parent) == ["target"]
    assert target.is_dir() == (export == "export_json")
    assert lines_in(target) == 20_000


def lines_in(path):
    return sum(len(file.read_bytes().splitlines()) for file in (path.iterdir() if path.is_dir() else [path]))


def test_only_leftovers_of_killed_processes_are_removed(tmp_path):
    target = tmp_path / "target"
    mine = ["target.tastypy_fast-abc", "target.tastypy_fast-abcdefgh", "target.tastypy_fast-", "target.partial"]
    for name in mine:
        (tmp_path / name).mkdir()
        (tmp_path / name / "something").touch()
    (tmp_path / "target.tastypy_fast-12345678").mkdir()  # The process was killed before it created anything.
    (tmp_path / "target.tastypy_fast-file_678").touch()

    class Slow(POD):
        def iteritems(self):
            yield from super().iteritems()
            # Another process works on the same target at the same time.
            with Child(lambda pipe: other.export_jsonl(target)) as child:
                assert child.wait() == 0

    with POD(tmp_path / "other", init={"b": 1}) as other, Slow(tmp_path / "store", init={"a": 1}) as store:
        other.sync()
        with pytest.raises(NotAStoreError, match="meanwhile"):
            store.export_jsonl(target)
    assert "b" in target.read_text()
    assert sorted(os.listdir(tmp_path)) == sorted([*mine, "target.tastypy_fast-file_678", "target", "store", "other"])


@contextmanager
def small_files(limit):
    """Limit the size of every file that this child process writes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_failed_import_or_export_on_a_full_disk_leaves_nothing(tmp_path, cls):
    def work(pipe):
        with cls(tmp_path / "store", file_size=10_000) as store:
            store.update((number, {"text": f"{number:05}" * 20}) for number in range(5000))
            store.export_json(tmp_path / "files")
            (tmp_path / "place").mkdir()
            tries = [
                lambda: store.export_json(tmp_path / "place/one"),
                lambda: store.export_jsonl(tmp_path / "place/two"),
                lambda: cls.import_json(tmp_path / "files", tmp_path / "place/three"),
            ]
            for attempt in tries:
                with small_files(200_000), pytest.raises(DiskFullError, match="place"):
                    attempt()
                assert os.listdir(tmp_path / "place") == []
            for attempt in tries:
                attempt()
            assert sorted(os.listdir(tmp_path / "place")) == ["one", "three", "two"]
            store._check()

    result_of_child(work)


def test_unwritable_folder_raises_an_error_of_the_package(tmp_path):
    def work(pipe):
        with POD(tmp_path / "store", init={"a": 1}) as store:
            for attempt in (store.export_json, store.export_jsonl):
                with pytest.raises(PersistentOrderedDictException, match="nothing was written"):
                    attempt("/proc/nothing/here")

    result_of_child(work)
