"""Stores written out and read back: the original's JSON files, and JSON Lines."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tastypy_fast import (
    POD,
    DamagedInputError,
    DiskFullError,
    InvalidKeyError,
    NotAStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    ReadOnlyStoreError,
    SharedPOD,
    SharedTracker,
    StoreNotFoundError,
    StorePathError,
    Tracker,
    UnstorableValueError,
)
from tests.children import Child, outcome_of, start
from tests.conftest import CLASSES, is_tracker, value_for
from tests.test_json import values
from tests.test_keys import as_stored, keys

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

LEFT = "*.tastypy_fast-*"


@pytest.fixture(params=CLASSES)
def cls(request):
    return CLASSES[request.param]


@pytest.fixture(params=["pod", "shared_tracker"])
def either(request):
    """For what does not depend on the class, where there are many cases."""
    return CLASSES[request.param]


def pairs_of(store):
    """What is in a store, in order; repr() tells apart what == does not."""
    return repr(store.items())


def fresh_task(**data):
    return {"_done": False, "_aborted": False, "_tries": 0, **data}


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def write_folder(folder, files):
    """Files by name: bytes, or text."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def refused(cls, folder, path, match, error=DamagedInputError, **arguments):
    """The import raises, names the folder, and leaves nothing at the path or beside it."""
    before = sorted(path.parent.iterdir()), contents(folder)
    with pytest.raises(error, match=match) as caught:
        cls.import_json(folder, path, **arguments)
    assert (sorted(path.parent.iterdir()), contents(folder)) == before
    return str(caught.value)


# The original's files


# Key, value, and the line that the original writes.
LINES = [
    ("plain", 1, rb'"plain"' + b"\t1\n"),
    ("tab\tin it", "a\tb", rb'"tab\\tin it"' + b"\t" + rb'"a\tb"' + b"\n"),
    ("back\\slash", "\\", rb'"back\\\\slash"' + b"\t" + rb'"\\"' + b"\n"),
    ('"quoted"', {"a": [1, 2]}, rb'"\\"quoted\\""' + b'\t{"a": [1, 2]}\n'),
    ("line\nend\r", "\n", rb'"line\\nend\\r"' + b"\t" + rb'"\n"' + b"\n"),
    ("", None, b'""\tnull\n'),
    ("é", "é", rb'"\\u00e9"' + b"\t" + rb'"\u00e9"' + b"\n"),
    ("😀", "😀", rb'"\\ud83d\\ude00"' + b"\t" + rb'"\ud83d\ude00"' + b"\n"),
    ("\udc80", "\udc80", rb'"\\udc80"' + b"\t" + rb'"\udc80"' + b"\n"),
    ("\\t", "\\t", rb'"\\\\t"' + b"\t" + rb'"\\t"' + b"\n"),
    (7, True, b"7\ttrue\n"),
    (-(2**70), 2**70, b"-1180591620717411303424\t1180591620717411303424\n"),
    (("a\t", 1, ("b",)), [], rb'["a\\t", 1, ["b"]]' + b"\t[]\n"),
    ((), float("inf"), b"[]\tInfinity\n"),
]


def as_the_original_reads(lines):
    """The original's rules, in the order in which it applied them."""
    for line in lines:
        assert line.endswith("\n")
        key, value = line[:-1].split("\t", 1)
        key = re.sub(r"(^|[^\\])\\t", "\\g<1>\t", key)
        yield tuples(json.loads(key.replace("\\\\", "\\"))), json.loads(value)


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def test_files_are_the_originals_to_the_byte(tmp_path):
    store = POD(tmp_path / "store", init=[(key, value) for key, value, _ in LINES], file_size=4)
    assert store.export_json(tmp_path / "files") == len(LINES)
    assert contents(tmp_path / "files") == {
        f"{number}.json": b"".join(line for _, _, line in LINES[4 * number:4 * number + 4]) for number in range(4)
    }
    text = b"".join(line for _, _, line in LINES).decode("ascii")
    assert list(as_the_original_reads(io.StringIO(text, newline="\n"))) == [(key, value) for key, value, _ in LINES]
    with POD.import_json(tmp_path / "files", tmp_path / "copy", file_size=4) as copy:
        assert pairs_of(copy) == pairs_of(store)


@pytest.mark.parametrize("cls", [Tracker, SharedTracker])
def test_tasks_have_their_special_keys(tmp_path, cls):
    with cls(tmp_path / "store") as tracker:
        tracker.add_many(["a", ("b", 1), "c"])
        tracker.mark_done("a")
        tracker.set["a"]["result"] = [1.5]
        tracker.increment_tries("a")
        tracker.abort("c")
        tracker.export_json(tmp_path / "files")
        assert (tmp_path / "files/0.json").read_text().splitlines() == [
            '"a"\t{"_done": true, "_aborted": false, "_tries": 1, "result": [1.5]}',
            '["b", 1]\t{"_done": false, "_aborted": false, "_tries": 0}',
            '"c"\t{"_done": false, "_aborted": true, "_tries": 0}',
        ]
        tracker.export_jsonl(tmp_path / "lines")
        with cls.import_json(tmp_path / "files", tmp_path / "one") as one, cls(tmp_path / "two") as two:
            assert two.import_jsonl(tmp_path / "lines") == 3
            for copy in (one, two):
                copy._check()
                assert pairs_of(copy) == pairs_of(tracker)
                assert (copy.num_done(), copy.num_aborted(), copy.num_tried()) == (1, 1, 1)


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1])])
@pytest.mark.parametrize("gzipped", [False, True])
def test_files_have_so_many_lines(tmp_path, cls, count, sizes, gzipped):
    with cls(tmp_path / "store", file_size=3, gzipped=gzipped) as store:
        store.update((number, value_for(cls, number)) for number in range(count))
        assert store.export_json(tmp_path / "files") == count
        found = contents(tmp_path / "files")
        unpack = gzip.decompress if gzipped else bytes
        assert {name: unpack(data).count(b"\n") for name, data in found.items()} == {
            f"{number}.json{'.gz' if gzipped else ''}": size for number, size in enumerate(sizes)
        }
        # The same bytes each time.
        store.export_json(tmp_path / "again")
        assert contents(tmp_path / "again") == found
        for name, size in (("one", {"file_size": 3}), ("two", {})):
            with cls.import_json(tmp_path / "files", tmp_path / name, **size) as copy:
                copy._check()
                assert copy.items() == store.items()
                assert copy.file_size == size.get("file_size", 1000)
                assert copy.path == str(tmp_path / name)


def test_a_large_store_goes_through_in_order(tmp_path, cls):
    with cls(tmp_path / "store", file_size=700) as store:
        store.update((f"key {number}", value_for(cls, {"n": number})) for number in range(3456))
        assert store.export_json(tmp_path / "files") == 3456
        assert len(contents(tmp_path / "files")) == 5
        assert store.export_jsonl(tmp_path / "lines") == 3456
        with cls.import_json(tmp_path / "files", tmp_path / "one") as one, cls(tmp_path / "two") as two:
            assert two.import_jsonl(tmp_path / "lines") == 3456
            assert one.items() == two.items() == store.items()


def test_files_written_by_hand_are_read(tmp_path, cls):
    # (as a Mac leaves it; JSON with other spaces, unescaped letters, a lone backslash and ends of lines of Windows)
    folder = write_folder(tmp_path / "files", {
        ".DS_Store": b"\x00",
        "0.json": '"é\\\\t"\t{"_done": true,"x":[1 , 2]}\n["a",["b"]]\t {}\r\n',
        "1.json": '[ "q\\"",\\t3 ]\t{"_tries":2}\n  5 \t{ "y" : null }\n',
        "2.json": '"\\u0041"\t{}\n',
    })
    with cls.import_json(folder, tmp_path / "store", file_size=2) as store:
        expected = [
            ("é\t", {"_done": True, "x": [1, 2]}), (("a", ("b",)), {}), (('q"', 3), {"_tries": 2}), (5, {"y": None}),
            ("A", {}),
        ]
        if is_tracker(cls):
            expected = [(key, {**fresh_task(), **value}) for key, value in expected]
        assert store.items() == expected
        store["new"] = {}
    with cls(tmp_path / "store", file_size=2) as store:
        assert len(store) == 6


def test_gzipped_files_written_by_hand_are_read(tmp_path, cls):
    line = b'"%d"\t{"n": 1}\n'
    folder = write_folder(tmp_path / "files", {
        # two pieces in one file, as after appending
        "0.json.gz": gzip.compress(line % 1) + gzip.compress(line % 2),
        "1.json.gz": gzip.compress(line % 3),
    })
    with cls.import_json(folder, tmp_path / "store") as store:
        assert store.keys() == ["1", "2", "3"]
        assert store["3"]["n"] == 1
        assert not store.gzipped


def test_arguments_are_those_of_the_class(tmp_path):
    folder = write_folder(tmp_path / "files", {"0.json": '"a"\t{"_tries": 2}\n"b"\t{}\n'})
    with Tracker.import_json(folder, tmp_path / "store", max_tries=2, init={"c": {}}, gzipped=True, sync_at=1,
                             durability="full") as tracker:
        assert list(tracker.todo_keys()) == ["b", "c"]
        assert (tracker.max_tries, tracker.gzipped, tracker.durability) == (2, True, "full")
    with POD.import_json(folder, tmp_path / "pod", mode="r") as pod, pytest.raises(ReadOnlyStoreError):
        pod["c"] = 1
    with pytest.raises(ValueError, match="file_size"):
        POD.import_json(folder, tmp_path / "other", file_size=0)
    with pytest.raises(TypeError):
        POD.import_json(folder, tmp_path / "other", colour=1)
    assert sorted(os.listdir(tmp_path)) == ["files", "pod", "store"]


@pytest.mark.parametrize("wrong", [
    {"init": {"a": object()}}, {"init": [("b", {}), (1.5, {})]}, {"mode": "x"}, {"mode": "r", "init": {"c": {}}},
    {"gzipped": True, "durability": "none"}, {"init": 5},
], ids=range(6))
def test_arguments_that_make_no_sense_leave_no_store(tmp_path, cls, wrong):
    folder = write_folder(tmp_path / "files", {"0.json": '"a"\t{}\n'})
    with pytest.raises((TypeError, ValueError, ReadOnlyStoreError)):
        cls.import_json(folder, tmp_path / "new" / "store", **wrong)
    assert os.listdir(tmp_path) == ["files"]


def test_init_is_applied_once(tmp_path, cls):
    folder = write_folder(tmp_path / "files", {"0.json": '"a"\t{}\n'})
    with cls.import_json(folder, tmp_path / "store", init=((key, {}) for key in ("b", "c"))) as store:
        assert store.keys() == ["a", "b", "c"]


def test_what_fails_leaves_no_new_folders(tmp_path, cls):
    folder = write_folder(tmp_path / "files", {"0.json": '"a"\t{}\n"b"'})
    (tmp_path / "here").mkdir()
    with pytest.raises(DamagedInputError, match=r"line 2: .*; nothing was imported"):
        cls.import_json(folder, tmp_path / "here" / "far" / "below")
    assert os.listdir(tmp_path / "here") == []

    class Broken(cls):
        def iteritems(self):
            yield "a", value_for(cls, 1)
            (tmp_path / "here" / "two").mkdir(exist_ok=True)
            raise KeyboardInterrupt

    with Broken(tmp_path / "store") as store:
        for work in (store.export_json, store.export_jsonl):
            for target in ("one/target", "two/three/target"):
                with pytest.raises(KeyboardInterrupt):
                    work(tmp_path / "here" / target)
    assert sorted(tmp_path.joinpath("here").rglob("*")) == [tmp_path / "here" / "two"]


def test_a_class_of_the_users_is_what_comes_back(tmp_path):
    class Mine(POD):
        pass

    folder = write_folder(tmp_path / "files", {"0.json": '"a"\t1\n'})
    with Mine.import_json(folder, tmp_path / "store") as store:
        assert type(store) is Mine


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
    ({"0.json.gz": A}, r"0\.json\.gz, line 1: what follows cannot be decompressed"),
    ({"0.json.gz": PACKED + b"x"}, r"0\.json\.gz, line 3: what follows cannot be decompressed"),
    ({"0.json.gz": PACKED[:-8] + b"\0" * 8}, r"0\.json\.gz, line 3: what follows cannot be decompressed"),
], ids=lambda case: None if isinstance(case, dict) else re.sub("[^a-z0-9]+", "-", case)[:40])
def test_damaged_files_are_refused_whole(tmp_path, either, files, match):
    message = refused(either, write_folder(tmp_path / "files", files), tmp_path / "store", match)
    assert str(tmp_path / "files") in message


def test_damage_is_the_error_of_the_original_and_a_value_error(tmp_path):
    folder = write_folder(tmp_path / "files", {"0.json": "x"})
    for error in (PersistentOrderedDictIntegrityError, ValueError):
        refused(POD, folder, tmp_path / "store", "line 1", error)


@pytest.mark.parametrize("size", [1, 3])
def test_a_first_file_of_another_size_than_given_is_refused(tmp_path, size):
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
def test_what_a_store_cannot_hold_is_refused_with_its_place(tmp_path, cls, line, error):
    folder = write_folder(tmp_path / "files", {"0.json": A + B, "1.json": C + line})
    refused(cls, folder, tmp_path / "store", r"1\.json, line 2: ", error)


@pytest.mark.parametrize("value", ["1", "[]", '{"_done": 1, "_tries": "x"}', '{"_tries": 1.5}'])
def test_a_value_that_is_no_task_is_refused_by_trackers(tmp_path, value):
    folder = write_folder(tmp_path / "files", {"0.json": f'"a"\t{{}}\n"b"\t{value}\n'})
    with POD.import_json(folder, tmp_path / "pod") as pod:
        assert pod["b"] == json.loads(value)
    for name, cls in CLASSES.items():
        if is_tracker(cls):
            refused(cls, folder, tmp_path / name, r"0\.json, line 2: ", UnstorableValueError)


def test_folders_that_are_none_are_refused(tmp_path, cls):
    with pytest.raises(StoreNotFoundError, match="no folder at this path to import"):
        cls.import_json(tmp_path / "nothing", tmp_path / "store")
    (tmp_path / "file").write_text(A)
    with pytest.raises(StorePathError, match="import the folder that holds"):
        cls.import_json(tmp_path / "file", tmp_path / "store")
    cls(tmp_path / "other").close()
    with pytest.raises(DamagedInputError, match=r"it holds data\.mdb"):
        cls.import_json(tmp_path / "other", tmp_path / "store")
    assert not (tmp_path / "store").exists()


# Opening such a folder, and where things are put


@pytest.mark.parametrize(("folder", "quoted"), [("my.pod", "{}/my.pod"), ("it's a pod", "'{}/it'\"'\"'s a pod'")])
def test_opening_a_folder_of_the_originals_names_the_command_that_imports_it(tmp_path, cls, folder, quoted):
    write_folder(tmp_path / folder, {"0.json": A, "1.json": B})
    with pytest.raises(NotAStoreError) as caught:
        cls(tmp_path / folder)
    assert f"tastypy-fast import {quoted.format(tmp_path)} STORE" in str(caught.value)
    assert "import_json()" in str(caught.value)
    assert sorted(os.listdir(tmp_path / folder)) == ["0.json", "1.json"]


def test_nothing_is_overwritten(tmp_path, cls):
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


def test_empty_and_missing_folders_are_taken(tmp_path, cls):
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


def test_what_is_made_has_the_permissions_of_what_others_make(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with POD(tmp_path / "store", init={"a": 1}) as store:
        store.export_json(tmp_path / "files")
        store.export_jsonl(tmp_path / "lines")
        POD.import_json(tmp_path / "files", tmp_path / "copy").close()
    for made, other in (("files", "folder"), ("files/0.json", "file"), ("lines", "file"), ("copy", "store")):
        assert (tmp_path / made).stat().st_mode == (tmp_path / other).stat().st_mode


def test_a_target_that_somebody_makes_meanwhile_is_left_alone(tmp_path):
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


# Killed in the middle


def big_folder(folder):
    """Files of 20,000 lines."""
    with POD(folder / "big", init=((number, {"n": number}) for number in range(20_000))) as store:
        store.export_json(folder / "files")
    return folder / "files"


def size_of(path):
    return sum(file.lstat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def kill_in_the_middle(work, target, size):
    """Run ``work`` in a child, and kill it when what it makes has grown to a size. Whether it was made."""
    with Child(work) as child:
        while not target.exists():
            with suppress(FileNotFoundError):  # it was renamed or removed
                if any(size_of(left) >= size for left in target.parent.glob(LEFT)):
                    break
        child.kill()
        child.wait()
    return target.exists()


PARTS = [0, 0.3, 0.9]


def test_a_kill_in_the_middle_of_an_import_leaves_no_store(tmp_path, cls):
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
        assert len(list(target.parent.iterdir())) <= 1  # what the one before has left is gone
    assert killed
    with cls.import_json(files, target) as store:
        store._check()
        assert len(store) == 20_000
        assert store[19_999]["n"] == 19_999
        assert os.listdir(target.parent) == ["store"]


@pytest.mark.parametrize("export", ["export_json", "export_jsonl"])
def test_a_kill_in_the_middle_of_an_export_leaves_nothing_at_the_path(tmp_path, export):
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


def test_only_what_killed_processes_have_left_is_swept(tmp_path):
    target = tmp_path / "target"
    mine = ["target.tastypy_fast-abc", "target.tastypy_fast-abcdefgh", "target.tastypy_fast-", "target.partial"]
    for name in mine:
        (tmp_path / name).mkdir()
        (tmp_path / name / "something").touch()
    (tmp_path / "target.tastypy_fast-12345678").mkdir()  # killed before it had made anything
    (tmp_path / "target.tastypy_fast-file_678").touch()

    class Slow(POD):
        def iteritems(self):
            yield from super().iteritems()
            # Another process works on the same target meanwhile.
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
    """For a child process: no file that it writes may be larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_full_disk_leaves_nothing(tmp_path, cls):
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

    outcome_of(work)


def test_a_folder_that_may_not_be_written_is_an_error_of_ours(tmp_path):
    def work(pipe):
        with POD(tmp_path / "store", init={"a": 1}) as store:
            for attempt in (store.export_json, store.export_jsonl):
                with pytest.raises(PersistentOrderedDictException, match="nothing was written"):
                    attempt("/proc/nothing/here")

    outcome_of(work)


# JSON Lines


def read_lines(path):
    with open(path, "rb") as file:
        return file.read()


def test_lines_are_json_in_order(tmp_path, cls):
    with cls(tmp_path / "store") as store:
        for key in ("b", ("a", (1,)), 2**70, "é\t\n"):
            store[key] = value_for(cls, [1.5, None, "é"])
        assert store.export_jsonl(tmp_path / "lines") == 4
        lines = (tmp_path / "lines").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["key"] for line in lines] == ["b", ["a", [1]], 2**70, "é\t\n"]
        task = '{"_done":false,"_aborted":false,"_tries":0,"value":[1.5,null,"é"]}'
        assert lines[0] == '{"key":"b","value":%s}' % (task if is_tracker(cls) else '[1.5,null,"é"]')


WRITERS = {
    "path": lambda store, path: store.export_jsonl(path),
    "text path": lambda store, path: store.export_jsonl(str(path)),
    "binary": lambda store, path: opened(path, "wb", store.export_jsonl),
    "text": lambda store, path: opened(path, "w", store.export_jsonl, encoding="utf-8"),
    "temporary": lambda store, path: temporary(store, path),
}
READERS = {
    "path": lambda store, path: store.import_jsonl(path),
    "bytes path": lambda store, path: store.import_jsonl(os.fsencode(path)),
    "binary": lambda store, path: opened(path, "rb", store.import_jsonl),
    "text": lambda store, path: opened(path, "r", store.import_jsonl, encoding="utf-8"),
    "list": lambda store, path: store.import_jsonl(path.read_bytes().splitlines(True)),
    "strings": lambda store, path: store.import_jsonl(io.StringIO(path.read_text(encoding="utf-8"))),
}


def opened(path, mode, work, **options):
    with open(path, mode, **options) as file:
        return work(file)


def temporary(store, path):
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent) as file:
        count = store.export_jsonl(file)
        file.flush()
        path.write_bytes(Path(file.name).read_bytes())
    return count


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("writer", WRITERS)
def test_lines_go_through_files_of_any_kind(tmp_path, either, writer, reader):
    with either(tmp_path / "one") as one, either(tmp_path / "two") as two:
        one.update((key, value_for(either, value)) for key, value, _ in LINES)
        assert WRITERS[writer](one, tmp_path / "lines") == len(LINES)
        assert READERS[reader](two, tmp_path / "lines") == len(LINES)
        assert pairs_of(one) == pairs_of(two)


@pytest.mark.parametrize(("suffix", "unpack"), [
    (".gz", gzip.decompress), (".zst", lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
])
def test_lines_are_packed_as_the_name_says(tmp_path, cls, suffix, unpack):
    packed, plain = tmp_path / f"lines.jsonl{suffix}", tmp_path / "lines.jsonl"
    with cls(tmp_path / "one") as one, cls(tmp_path / "two") as two:
        one.update((number, value_for(cls, f"{number}" * 20)) for number in range(3000))
        assert one.export_jsonl(packed) == one.export_jsonl(plain) == 3000
        assert unpack(packed.read_bytes()) == plain.read_bytes()
        assert packed.stat().st_size < plain.stat().st_size / 2
        assert two.import_jsonl(packed) == 3000
        assert one.items() == two.items()
    # Two pieces in one file, as after appending; and an empty store.
    packed.write_bytes(packed.read_bytes() * 2)
    with cls(tmp_path / "three") as three, cls(tmp_path / "four") as four:
        assert three.import_jsonl(packed) == 6000
        assert len(three) == 3000
        assert four.export_jsonl(tmp_path / f"empty{suffix}") == 0
        assert four.import_jsonl(tmp_path / f"empty{suffix}") == 0


def test_lines_go_through_pipes(tmp_path):
    program = """
        import sys
        from tastypy_fast import POD
        with POD(sys.argv[1]) as store:
            if sys.argv[2] == "out":
                store.export_jsonl(sys.stdout)
            else:
                assert store.import_jsonl(sys.stdin) == 1000
    """
    with POD(tmp_path / "one", init=((number, "é" * 50) for number in range(1000))) as one:
        one.sync()
    with start(program, tmp_path / "one", "out") as process:
        lines, errors = process.communicate()
        assert process.returncode == 0, errors
    with start(program, tmp_path / "two", "in") as process:
        _, errors = process.communicate(lines)
        assert process.returncode == 0, errors
    with POD(tmp_path / "one") as one, POD(tmp_path / "two") as two:
        assert one.items() == two.items()
        # By name, too.
        os.mkfifo(tmp_path / "pipe")
        with subprocess.Popen([sys.executable, "-c", "import sys; print(len(open(sys.argv[1], 'rb').readlines()))",
                               tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
            assert one.export_jsonl(tmp_path / "pipe") == 1000
            assert reader.stdout.read() == b"1000\n"


def test_lines_of_others_are_read(tmp_path, cls):
    text = '\ufeff{"value": {"n": 1}, "key": "a"}\r\n\n  \n {"key": ["b", [2]], "value" : {}}\n{"key": 5, "value": {}}'
    (tmp_path / "lines").write_text(text, encoding="utf-8")
    with cls(tmp_path / "store") as store:
        assert store.import_jsonl(tmp_path / "lines") == 3
        assert store.keys() == ["a", ("b", (2,)), 5]
        assert store["a"]["n"] == 1


def test_import_is_an_update(tmp_path, cls):
    with cls(tmp_path / "store", init={"a": {"x": 1}, "b": {"x": 1, "y": 1}}) as store:
        if is_tracker(cls):
            store.mark_done("b")
        assert store.import_jsonl(io.StringIO(
            '{"key": "c", "value": {}}\n{"key": "b", "value": {"x": 2}}\n{"key": "b", "value": {"x": 3}}\n'
        )) == 3
        assert store.keys() == ["a", "b", "c"]
        assert store["b"] == ({**fresh_task(x=3, y=1), "_done": True} if is_tracker(cls) else {"x": 3})


GOOD = '{"key": %d, "value": {}}\n'


@pytest.mark.parametrize("before", [0, 1, 2, 999, 1000, 2500])
@pytest.mark.parametrize(("bad", "error", "match"), [
    ('{"key": "x", "val', DamagedInputError, "this is not valid JSON"),
    ("\x00\n", DamagedInputError, "this is not valid JSON"),
    ("5\n", DamagedInputError, "each line must be"),
    ('{"key": "x"}\n', DamagedInputError, "each line must be"),
    ('{"key": "x", "value": {}, "more": 1}\n', DamagedInputError, "each line must be"),
    ('{"key": 1.5, "value": {}}\n', InvalidKeyError, "a key must be"),
    ('{"key": "x", "value": {"n": %s}}\n' % ("9" * 5000), UnstorableValueError, "too many digits"),
])
def test_an_error_names_its_line_and_what_is_before_it_is_in(tmp_path, either, before, bad, error, match):
    lines = [GOOD % number for number in range(before)]
    lines[1:1] = ["\n"] * (before > 1)
    (tmp_path / "lines").write_text("".join(lines) + bad + GOOD % 9999)
    with either(tmp_path / "store") as store:
        with pytest.raises(error, match=match) as caught:
            store.import_jsonl(tmp_path / "lines")
        assert store.keys() == list(range(before))
        store._check()
    message = str(caught.value)
    assert f"line {len(lines) + 1} of {tmp_path / 'lines'}: " in message
    assert message.endswith(f"the {before} before it are in the store" if before != 1
                            else "the one before it is in the store")


def test_a_task_that_is_none_is_refused_with_its_line(tmp_path):
    for name, cls in CLASSES.items():
        if is_tracker(cls):
            with cls(tmp_path / name) as store:
                with pytest.raises(UnstorableValueError, match=r"line 2 of the input: .*; the one before it is in"):
                    store.import_jsonl([GOOD % 1, '{"key": 2, "value": 3}'])
                assert store.keys() == [1]


@pytest.mark.parametrize("cut", [1, 1000])
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_file_that_was_cut_short_is_an_error(tmp_path, suffix, cut):
    lines = tmp_path / f"lines{suffix}"
    noise = random.Random(1)
    with POD(tmp_path / "one", init=((number, noise.random()) for number in range(20_000))) as one:
        one.export_jsonl(lines)
    whole = lines.read_bytes()
    for data, reason in (
        (whole[:-cut], "cut short"), (whole + whole[:-cut], "cut short"), (b"", "cut short"),
        (b"no such thing", "cannot be decompressed"), (whole + b"xxxxxxxx", "cannot be decompressed"),
    ):
        lines.write_bytes(data)
        with POD(tmp_path / "two") as two:
            with pytest.raises(DamagedInputError, match=reason) as caught:
                two.import_jsonl(lines)
            line, count = map(int, re.search(r"line (\d+) of .* the (\d+) before it are", str(caught.value)).groups())
            assert line == count + 1
            assert len(two) == min(count, 20_000)
            two.clear()


def test_a_text_file_of_another_encoding_is_an_error_that_says_so(tmp_path):
    with POD(tmp_path / "store", init={"é": "😀"}) as store:
        with open(tmp_path / "lines", "w", encoding="ascii") as file, \
                pytest.raises(UnstorableValueError, match=r"lines 1 to 1 .*\(ascii\); open it with encoding='utf-8'"):
            store.export_jsonl(file)
        (tmp_path / "lines").write_bytes(b'{"key": 1, "value": 1}\n' * 2 + b"\xff")
        with open(tmp_path / "lines", encoding="utf-8") as file, \
                pytest.raises(DamagedInputError, match=r"of .*lines, or soon after it: .*; the 0 before"):
            store.import_jsonl(file)


def test_a_missing_file_is_the_systems_error(tmp_path):
    with POD(tmp_path / "store") as store, pytest.raises(FileNotFoundError, match="nothing"):
        store.import_jsonl(tmp_path / "nothing")


def test_without_zstandard_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with POD(tmp_path / "store") as store:
        for work in (store.export_jsonl, store.import_jsonl):
            (tmp_path / "there.zst").write_bytes(b"x")
            with pytest.raises(ImportError, match=r"pip install 'tastypy_fast\[zstd\]'"):
                work(tmp_path / ("new.zst" if work == store.export_jsonl else "there.zst"))
    assert sorted(os.listdir(tmp_path)) == ["store", "there.zst"]


def test_a_store_that_only_reads_is_written_out_and_not_read_into(tmp_path):
    with POD(tmp_path / "store", init={"a": 1}):
        pass
    with POD(tmp_path / "store", mode="r") as reader:
        assert reader.export_jsonl(tmp_path / "lines") == 1
        assert reader.export_json(tmp_path / "files") == 1
        with pytest.raises(ReadOnlyStoreError):
            reader.import_jsonl(tmp_path / "lines")


def test_a_shared_store_in_a_block_is_written_as_it_is_there(tmp_path):
    with SharedPOD(tmp_path / "store", init={"a": 1}) as store:
        with store.transaction():
            store["b"] = 2
            assert store.import_jsonl([GOOD % 3]) == 1
            assert store.export_jsonl(tmp_path / "lines") == 3
            assert store.export_json(tmp_path / "files") == 3
        with pytest.raises(DamagedInputError), store.transaction():
            store.import_jsonl([GOOD % 4, "x"])
        assert store.keys() == ["a", "b", 3]


def test_claimed_tasks_are_written_as_tasks(tmp_path):
    with SharedTracker(tmp_path / "store", init={"a": {}, "b": {}}) as tracker:
        assert tracker.should_try("a")
        tracker.export_json(tmp_path / "files")
    with Tracker.import_json(tmp_path / "files", tmp_path / "copy") as copy:
        assert copy.items() == [("a", {**fresh_task(), "_tries": 1}), ("b", fresh_task())]


# Round trips


huge = st.builds(lambda digits, sign: sign * (10**digits + 7), st.integers(4299, 4400), st.sampled_from([1, -1]))
hostile = keys | huge | st.tuples(huge, keys) | st.text("\ud83d\ude00\\t\t\"\n\r\u2028", max_size=8)
hostile_values = values | st.text("\ud83d\ude00\\t\t\"\n\r\u2028", max_size=8)
stores = st.lists(st.tuples(hostile, hostile_values), max_size=6)


@pytest.mark.parametrize("name", CLASSES)
@given(pairs=stores, size=st.integers(1, 4), gzipped=st.booleans())
@example(pairs=[("\ud83d\ude00", "😀"), ("😀", "\ud83d\ude00"), (("\ud83d\ude00", "\\t"), "\ud83d")], size=2,
         gzipped=True)
@example(pairs=[(("é", "\ud800"), ["é", "\ud800"]), ("\ud800", {"\udc00": "\ud800"})], size=2, gzipped=False)
@example(pairs=[("a\\tb", 1), ("a\tb", 1), ("a\\\tb", 1), ("\\\\t", 1), ("\\", 1)], size=2, gzipped=False)
@settings(max_examples=30)
def test_everything_comes_back(name, pairs, size, gzipped):
    cls = CLASSES[name]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with cls(folder / "one", file_size=size, gzipped=gzipped) as one, cls(folder / "two") as two:
            one.update((key, value_for(cls, value)) for key, value in pairs)
            assert one.export_json(folder / "files") == len(one)
            assert one.export_jsonl(folder / "lines") == len(one)
            assert two.import_jsonl(folder / "lines") == len(one)
            with cls.import_json(folder / "files", folder / "three", file_size=size) as three:
                assert same(one, two)
                assert same(one, three)
                for store in (two, three):
                    store._check()
                assert {repr(as_stored(key)) if key_is_short(key) else key for key, _ in pairs} == {
                    repr(key) if key_is_short(key) else key for key in three.keys()  # noqa: SIM118
                }


def key_is_short(key):
    """Whether Python writes its ints."""
    if isinstance(key, tuple):
        return all(map(key_is_short, key))
    return isinstance(key, str) or abs(key) < 10**4000


def same(one, other):
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return pairs_of(one) == pairs_of(other)
    finally:
        sys.set_int_max_str_digits(limit)


@given(data=st.binary(max_size=60) | st.text("\\t\t\"[]{}:,1e5keyvalu\n ", max_size=60).map(str.encode))
@settings(max_examples=100)
def test_arbitrary_input_is_read_or_an_error_of_ours(data):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_folder(folder / "files", {"0.json": data})
        with POD(folder / "one") as store:
            for work in (lambda: store.import_jsonl(io.BytesIO(data)),
                         lambda: POD.import_json(folder / "files", folder / "two").close()):
                with suppress(DamagedInputError, InvalidKeyError):
                    work()
            store._check()


def test_the_deepest_keys_and_values_come_back(tmp_path, cls):
    key = value = "x"
    for _ in range(490):
        key = (key, -1)
    for _ in range(300):
        value = [value]
    with cls(tmp_path / "one") as one, cls(tmp_path / "two") as two:
        one.update([(key, value_for(cls, value)), ((key, 10**5000), value_for(cls, 1))])
        one.export_json(tmp_path / "files")
        one.export_jsonl(tmp_path / "lines")
        two.import_jsonl(tmp_path / "lines")
        with cls.import_json(tmp_path / "files", tmp_path / "three") as three:
            assert one.items() == two.items() == three.items()
            assert len(three) == 2


# Memory


def anonymous_memory():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
@pytest.mark.parametrize(("cls", "count"), [
    pytest.param(POD, 200_000, marks=pytest.mark.storm), (Tracker, 60_000),
    pytest.param(SharedPOD, 60_000, marks=pytest.mark.storm),
    pytest.param(SharedTracker, 60_000, marks=pytest.mark.storm),
])
def test_memory_does_not_grow_with_the_store(tmp_path, cls, count):
    def go_through(number, folder):
        folder.mkdir()
        with cls(folder / "one") as store:
            store.import_jsonl(GOOD % key for key in range(number))
            store.export_json(folder / "files")
            store.export_jsonl(folder / "lines.zst")
        with cls(folder / "two") as store:
            assert store.import_jsonl(folder / "lines.zst") == number
        with cls.import_json(folder / "files", folder / "three") as store:
            assert len(store) == number

    def work(pipe):
        go_through(count // 20, tmp_path / "small")
        before = anonymous_memory()
        go_through(count, tmp_path / "large")
        pipe.send(anonymous_memory() - before)

    # (a key and its dict take some 300 bytes)
    assert outcome_of(work)[0] < 8 * 2**20
