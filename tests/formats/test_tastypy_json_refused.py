"""tastypy's files: a damaged folder is refused completely, and nothing is overwritten."""

from __future__ import annotations

import gzip
import json
import os
import re

import pytest

from tastypy_fast import (
    POD,
    DamagedInputError,
    InvalidKeyError,
    NotAStoreError,
    PersistentOrderedDictIntegrityError,
    StoreNotFoundError,
    StorePathError,
    UnstorableValueError,
)
from tests.support.formats import LEFT, contents, write_folder
from tests.support.stores import CLASSES, is_tracker, value_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def refused(cls, folder, path, match, error=DamagedInputError, **arguments):
    """Check that the import raises, names the folder, and leaves nothing at the path or next to it."""
    before = sorted(path.parent.iterdir()), contents(folder)
    with pytest.raises(error, match=match) as caught:
        cls.import_json(folder, path, **arguments)
    assert (sorted(path.parent.iterdir()), contents(folder)) == before
    return str(caught.value)


# Damaged files

A, B, C, D, E = (f'"{name}"\t{{"n": 1}}\n' for name in "abcde")
PACKED = gzip.compress((A + B).encode())


@pytest.mark.parametrize(("files", "match"), [
    ({"0.json": A + B[:-1]}, r"0\.json, line 2: the file was cut short"),
    ({"0.json": A + B[:-2]}, r"0\.json, line 2: the file was cut short"),
    ({"0.json": A + '"b"\t{"n": \n' + C}, r"0\.json, line 2: the value is not valid JSON"),
    ({"0.json": A + B, "1.json": C + '"d\t1\n'}, r"1\.json, line 2: the key is not valid JSON"),
    ({"0.json": A + "\n" + C}, r"0\.json, line 2: there is no tab"),
    ({"0.json": A + "hello\n" + C}, r"0\.json, line 2: there is no tab"),
    ({"0.json": A + '"b"\t1 2\n'}, r"0\.json, line 2: the value is not valid JSON"),
    ({"0.json": A.encode() + b'"\xff"\t1\n'}, r"0\.json, line 2: the key is not valid JSON"),
    ({"0.json": A + '"b"\t' + "[" * 100_000 + "\n"}, r"0\.json, line 2: the value is not valid JSON.*deep"),
    ({"0.json": A + B + A}, r"0\.json, line 3: the key 'a' is there already, in line 1 "),
    ({"0.json": A + B, "1.json": C + A}, r"1\.json, line 2: the key 'a' is there already, in line 1 "),
    ({"0.json": '1\t{"n": 1}\ntrue\t{"n": 2}\n'}, r"0\.json, line 2: the key True is there already, in line 1 "),
    ({"0.json": A, "2.json": B}, r"1\.json is missing; restore it"),
    ({"1.json": A, "2.json": B}, r"0\.json is missing"),
    ({"0.json.gz": PACKED, "2.json.gz": PACKED}, r"1\.json\.gz is missing"),
    ({"0.json": A, "0.json.bak": A}, r"0\.json\.bak is not a file of the original tastypy"),
    ({"0.json": A, "00.json": B}, r"00\.json is not a file"),
    ({"0.json": A, "notes.txt": b""}, r"notes\.txt is not a file"),
    ({"0.json": A, "1.json.gz": PACKED}, r"some of its files end with \.json and others"),
    ({"notes.txt": b""}, r"no 0\.json or 0\.json\.gz in it \(it holds notes\.txt\)"),
    ({}, r"no 0\.json or 0\.json\.gz in it;"),
    ({"0.json": A + B, "1.json": C, "2.json": D + E}, r"1\.json has 1 lines and not 2"),
    ({"0.json": A, "1.json": B + C, "2.json": D}, r"1\.json has 2 lines and not 1"),
    ({"0.json": A, "1.json": B + C}, r"1\.json has 2 lines and not 1"),
    ({"0.json": A, "1.json": b""}, r"1\.json is empty"),
    ({"0.json": b"", "1.json": A + B}, r"0\.json is empty"),
    ({"0.json.gz": PACKED[:-1]}, r"0\.json\.gz, line 3: the file ends here"),
    ({"0.json.gz": PACKED[:20]}, r"0\.json\.gz, line 1: the file ends here"),
    ({"0.json.gz": b""}, r"0\.json\.gz, line 1: the file ends here"),
    ({"0.json.gz": A}, r"0\.json\.gz, line 1: the rest of the file cannot be decompressed"),
    ({"0.json.gz": PACKED + b"x"}, r"0\.json\.gz, line 3: the rest of the file cannot be decompressed"),
    ({"0.json.gz": PACKED[:-8] + b"\0" * 8}, r"0\.json\.gz, line 3: the rest of the file cannot be decompressed"),
], ids=lambda case: None if isinstance(case, dict) else re.sub("[^a-z0-9]+", "-", case)[:40])
def test_damaged_files_are_refused_and_create_no_store(tmp_path, either, files, match):
    message = refused(either, write_folder(tmp_path / "files", files), tmp_path / "store", match)
    assert str(tmp_path / "files") in message


def test_damage_error_is_also_a_value_error(tmp_path):
    folder = write_folder(tmp_path / "files", {"0.json": "x"})
    for error in (PersistentOrderedDictIntegrityError, ValueError):
        refused(POD, folder, tmp_path / "store", "line 1", error)


@pytest.mark.parametrize("size", [1, 3])
def test_first_file_with_another_number_of_lines_than_file_size_is_refused(tmp_path, size):
    folder = write_folder(tmp_path / "files", {"0.json": A + B, "1.json": C})
    refused(POD, folder, tmp_path / "store", rf"0\.json has 2 lines and not {size}, .*given", file_size=size)


def test_damage_far_from_the_beginning_is_found(tmp_path, cls):
    with cls(tmp_path / "other", file_size=1000) as store:
        store.update((number, value_for(cls, number)) for number in range(3210))
        store.export_json(tmp_path / "files")
    files = tmp_path / "files"
    last = (files / "3.json").read_bytes()
    (files / "3.json").write_bytes(last[:-5])
    refused(cls, files, tmp_path / "store", r"3\.json, line 210: the file was cut short")
    (files / "3.json").write_bytes(last + b'1234\t{}\n')
    refused(cls, files, tmp_path / "store", r"3\.json, line 211: the key 1234 is there already, in line 1235 ")


@pytest.mark.parametrize(("line", "error"), [
    ("1.5\t{}\n", InvalidKeyError), ("null\t{}\n", InvalidKeyError), ('{"a": 1}\t{}\n', InvalidKeyError),
    ('["a", 1.5]\t{}\n', InvalidKeyError), (f'"n"\t{{"x": {"9" * 5000}}}\n', UnstorableValueError),
])
def test_unstorable_input_is_refused_with_its_line(tmp_path, cls, line, error):
    folder = write_folder(tmp_path / "files", {"0.json": A + B, "1.json": C + line})
    refused(cls, folder, tmp_path / "store", r"1\.json, line 2: ", error)


@pytest.mark.parametrize("value", ["1", "[]", '{"_done": 1, "_tries": "x"}', '{"_tries": 1.5}'])
def test_tracker_refuses_a_value_that_is_not_a_task(tmp_path, value):
    folder = write_folder(tmp_path / "files", {"0.json": f'"a"\t{{}}\n"b"\t{value}\n'})
    with POD.import_json(folder, tmp_path / "pod") as pod:
        assert pod["b"] == json.loads(value)
    for name, cls in CLASSES.items():
        if is_tracker(cls):
            refused(cls, folder, tmp_path / name, r"0\.json, line 2: ", UnstorableValueError)


def test_import_refuses_paths_that_are_not_tastypy_folders(tmp_path, cls):
    with pytest.raises(StoreNotFoundError, match="no folder at this path to import"):
        cls.import_json(tmp_path / "nothing", tmp_path / "store")
    (tmp_path / "file").write_text(A)
    with pytest.raises(StorePathError, match="import the folder that holds"):
        cls.import_json(tmp_path / "file", tmp_path / "store")
    cls(tmp_path / "other").close()
    with pytest.raises(DamagedInputError, match=r"it holds data\.mdb"):
        cls.import_json(tmp_path / "other", tmp_path / "store")
    assert not (tmp_path / "store").exists()


# Opening such a folder, and the position of the output


@pytest.mark.parametrize(("folder", "quoted"), [("my.pod", "{}/my.pod"), ("it's a pod", "'{}/it'\"'\"'s a pod'")])
def test_opening_a_folder_of_tastypy_files_names_the_import_command(tmp_path, cls, folder, quoted):
    write_folder(tmp_path / folder, {"0.json": A, "1.json": B})
    with pytest.raises(NotAStoreError) as caught:
        cls(tmp_path / folder)
    assert f"tastypy-fast import {quoted.format(tmp_path)} STORE" in str(caught.value)
    assert "import_json()" in str(caught.value)
    assert sorted(os.listdir(tmp_path / folder)) == ["0.json", "1.json"]


def test_export_and_import_overwrite_nothing(tmp_path, cls):
    files = write_folder(tmp_path / "files", {"0.json": A})
    (tmp_path / "file").write_text("mine")
    with cls(tmp_path / "store", init={"a": {}}) as store:
        for taken in ("files", "file", "store"):
            with pytest.raises(NotAStoreError):
                store.export_json(tmp_path / taken)
            with pytest.raises(NotAStoreError):
                store.export_jsonl(tmp_path / taken)
            with pytest.raises(NotAStoreError):
                cls.import_json(files, tmp_path / taken)
        with pytest.raises(StorePathError):
            store.export_json(tmp_path / "file" / "below")
        assert store.keys() == ["a"]
    assert contents(files) == {"0.json": A.encode()}
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["file", "files", "store"]


def test_empty_and_missing_target_folders_are_accepted(tmp_path, cls):
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("three")
    with cls(tmp_path / "store", init={"a": {}}) as store:
        assert store.export_json(tmp_path / "one") == 1
        assert store.export_json(f"{tmp_path}/new/below/") == 1
        assert store.export_json(os.fsencode(tmp_path / "link")) == 1
        assert store.export_jsonl(tmp_path / "other" / "lines") == 1
        with cls.import_json(tmp_path / "three", tmp_path / "two") as copy:
            assert copy.items() == store.items()
    assert not list(tmp_path.rglob(LEFT))


def test_created_files_have_the_permissions_of_the_umask(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with POD(tmp_path / "store", init={"a": 1}) as store:
        store.export_json(tmp_path / "files")
        store.export_jsonl(tmp_path / "lines")
        POD.import_json(tmp_path / "files", tmp_path / "copy").close()
    for made, other in (("files", "folder"), ("files/0.json", "file"), ("lines", "file"), ("copy", "store")):
        assert (tmp_path / made).stat().st_mode == (tmp_path / other).stat().st_mode


def test_target_created_during_the_export_is_not_overwritten(tmp_path):
    class Disturbed(POD):
        def iteritems(self):
            yield from super().iteritems()
            (tmp_path / "lines").write_text("theirs")
            (tmp_path / "files").mkdir(exist_ok=True)
            (tmp_path / "files/0.json").write_text("theirs")

    with Disturbed(tmp_path / "store", init={"a": 1}) as store:
        with pytest.raises(NotAStoreError, match="meanwhile"):
            store.export_jsonl(tmp_path / "lines")
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files/0.json").unlink(missing_ok=True)
        with pytest.raises(NotAStoreError, match="meanwhile"):
            store.export_json(tmp_path / "files")
    assert (tmp_path / "lines").read_text() == (tmp_path / "files/0.json").read_text() == "theirs"
    assert not list(tmp_path.glob(LEFT))
