"""The folder of a store: which paths are accepted, and which folders are refused."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb
import pytest

from tastypy_fast import (
    NotAStoreError,
    StorePathError,
)
from tastypy_fast._lmdb import store_dir
from tests.support.opening import tree

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_path_may_be_str_bytes_or_pathlike(any_class, path, kind):
    with any_class(kind(str(path)), init={"a": {}}) as store:
        assert store.path == str(path)
    with any_class(str(path)) as store:
        assert "a" in store


def test_missing_parent_folders_are_created(any_class, tmp_path):
    with any_class(tmp_path / "a" / "b" / "c", init={"a": {}}) as store:
        assert os.path.isdir(store.path)


@pytest.mark.parametrize(
    "name",
    ["\u00fcml\u00e4ut", "with space", "percent%20", "\udcff not utf-8", "x" * 200, "'\"", "new\nline"],
)
def test_folder_may_have_any_name(any_class, tmp_path, name):
    try:
        (tmp_path / name).mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    (tmp_path / name).rmdir()
    with any_class(tmp_path / name, init={"a": {}}):
        pass
    with any_class(tmp_path / name) as store:
        assert "a" in store


def test_relative_absolute_and_linked_paths_are_one_store(any_class, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    absolute = tmp_path / "folder" / "store"
    paths = [absolute, "folder/store", "folder/../folder/./store", "link/store", Path("link/store")]
    stores = [any_class(path) for path in paths]
    stores[0]["a"] = {}
    assert [store.keys() for store in stores] == [["a"]] * len(stores)
    assert {store.path for store in stores} == {str(absolute)}
    # The current folder matters only at opening.
    monkeypatch.chdir("/")
    stores[0]["b"] = {}
    for store in stores:
        store.close()
    with any_class(tmp_path / "link" / "store") as store:
        assert store.keys() == ["a", "b"]


def test_link_to_a_store_is_followed(any_class, tmp_path):
    (tmp_path / "link").symlink_to("store")
    with any_class(tmp_path / "link") as made:
        made["a"] = {}
    assert (tmp_path / "link").is_symlink()
    with any_class(tmp_path / "store", mode="r") as store:
        assert "a" in store


@pytest.mark.parametrize("mode", ["w", "r"])
@pytest.mark.parametrize("below", ["", "below", "far/below"])
def test_file_in_the_way_is_refused_and_kept(any_class, path, mode, below):
    path.write_text("a file")
    with pytest.raises(StorePathError) as raised:
        any_class(path / below, mode=mode)
    assert isinstance(raised.value, NotADirectoryError)
    assert str(path) in str(raised.value)
    assert path.read_text() == "a file"


def test_path_of_another_type_raises_type_error(any_class):
    for wrong in (None, 5, ["x"]):
        with pytest.raises(TypeError):
            any_class(wrong)


@pytest.mark.parametrize("mode", ["w", "r"])
@pytest.mark.parametrize(
    ("names", "tells"),
    [
        (["letter.txt"], "letter.txt"),
        (["0.json"], "original"),
        (["0.json.gz", "1.json.gz"], "original"),
        (["a", "b", "c", "d"], "another path"),
        (["lock.mdb", "notes.txt"], "notes.txt"),
    ],
)
def test_folder_of_something_else_is_refused_and_kept(any_class, path, mode, names, tells):
    path.mkdir()
    for name in names:
        (path / name).write_text("mine")
    with pytest.raises(NotAStoreError, match=tells) as raised:
        any_class(path, mode=mode)
    assert isinstance(raised.value, FileExistsError)
    assert tree(path) == dict.fromkeys(names, b"mine")


@pytest.mark.parametrize("mode", ["w", "r"])
def test_folder_with_a_folder_in_it_is_refused(any_class, path, mode):
    (path / "data.mdb").mkdir(parents=True)
    with pytest.raises(NotAStoreError):
        any_class(path, mode=mode)
    assert tree(path) == {"data.mdb": None}


def test_empty_folder_becomes_a_store(any_class, path):
    path.mkdir()
    with any_class(path, init={"a": {}}) as store:
        assert "a" in store


@pytest.mark.parametrize("mode", ["w", "r"])
@pytest.mark.parametrize("databases", [0, 1, 3])
def test_lmdb_environment_of_another_program_is_refused_and_kept(any_class, path, mode, databases):
    with lmdb.open(str(path), max_dbs=3) as db, db.begin(write=True) as txn:
        for number in range(databases):
            txn.put(b"key", b"value", db=db.open_db(str(number).encode(), txn=txn))
        txn.put(b"theirs", b"value")
    before = tree(path)
    with pytest.raises(NotAStoreError):
        any_class(path, mode=mode)
    after = tree(path)
    assert after.keys() == before.keys()
    assert after["data.mdb"] == before["data.mdb"]


@pytest.mark.parametrize("opens", [store_dir.begin_data_file, store_dir.require_store])
def test_store_that_appears_while_it_is_opened_is_not_damaged(any_class, path, monkeypatch, opens):
    path.mkdir()
    was_complete = store_dir.was_complete

    def create_first(folder):
        monkeypatch.setattr(store_dir, "was_complete", was_complete)
        any_class(folder, init={"a": {}}).close()
        return was_complete(folder)

    monkeypatch.setattr(store_dir, "was_complete", create_first)
    opens(str(path))
    assert store_dir.was_complete is was_complete
    with any_class(path) as store:
        assert list(store) == ["a"]
