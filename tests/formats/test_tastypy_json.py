"""tastypy's files: identical to those of the original when written, and readable."""

from __future__ import annotations

import gzip
import io
import json
import os
import re

import pytest

from tastypy_fast import (
    POD,
    DamagedInputError,
    ReadOnlyStoreError,
    SharedTracker,
    Tracker,
)
from tests.support.formats import LINES, contents, fresh_task, pairs_of, write_folder
from tests.support.stores import is_tracker, value_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def as_the_original_reads(lines):
    """Parse a line by the rules of the original, in the order in which it applies them."""
    for line in lines:
        assert line.endswith("\n")
        key, value = line[:-1].split("\t", 1)
        key = re.sub(r"(^|[^\\])\\t", "\\g<1>\t", key)
        yield tuples(json.loads(key.replace("\\\\", "\\"))), json.loads(value)


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def test_files_are_identical_to_those_of_the_original(tmp_path):
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
def test_tasks_are_written_with_their_status_keys(tmp_path, cls):
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
def test_files_have_the_given_number_of_lines(tmp_path, cls, count, sizes, gzipped):
    with cls(tmp_path / "store", file_size=3, gzipped=gzipped) as store:
        store.update((number, value_for(cls, number)) for number in range(count))
        assert store.export_json(tmp_path / "files") == count
        found = contents(tmp_path / "files")
        unpack = gzip.decompress if gzipped else bytes
        assert {name: unpack(data).count(b"\n") for name, data in found.items()} == {
            f"{number}.json{'.gz' if gzipped else ''}": size for number, size in enumerate(sizes)
        }
        # The second export has the same bytes.
        store.export_json(tmp_path / "again")
        assert contents(tmp_path / "again") == found
        for name, size in (("one", {"file_size": 3}), ("two", {})):
            with cls.import_json(tmp_path / "files", tmp_path / name, **size) as copy:
                copy._check()
                assert copy.items() == store.items()
                assert copy.file_size == size.get("file_size", 1000)
                assert copy.path == str(tmp_path / name)


def test_large_store_is_exported_and_imported_in_order(tmp_path, cls):
    with cls(tmp_path / "store", file_size=700) as store:
        store.update((f"key {number}", value_for(cls, {"n": number})) for number in range(3456))
        assert store.export_json(tmp_path / "files") == 3456
        assert len(contents(tmp_path / "files")) == 5
        assert store.export_jsonl(tmp_path / "lines") == 3456
        with cls.import_json(tmp_path / "files", tmp_path / "one") as one, cls(tmp_path / "two") as two:
            assert two.import_jsonl(tmp_path / "lines") == 3456
            assert one.items() == two.items() == store.items()


def test_handwritten_files_are_read(tmp_path, cls):
    # The file is as a Mac leaves it. Its JSON has other spaces, unescaped letters, a lone backslash and CRLF line ends.
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


def test_handwritten_gzipped_files_are_read(tmp_path, cls):
    line = b'"%d"\t{"n": 1}\n'
    folder = write_folder(tmp_path / "files", {
        # The file has two compressed parts, as after appending.
        "0.json.gz": gzip.compress(line % 1) + gzip.compress(line % 2),
        "1.json.gz": gzip.compress(line % 3),
    })
    with cls.import_json(folder, tmp_path / "store") as store:
        assert store.keys() == ["1", "2", "3"]
        assert store["3"]["n"] == 1
        assert not store.gzipped


def test_import_accepts_the_arguments_of_the_class(tmp_path):
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
def test_invalid_arguments_create_no_store(tmp_path, cls, wrong):
    folder = write_folder(tmp_path / "files", {"0.json": '"a"\t{}\n'})
    with pytest.raises((TypeError, ValueError, ReadOnlyStoreError)):
        cls.import_json(folder, tmp_path / "new" / "store", **wrong)
    assert os.listdir(tmp_path) == ["files"]


def test_init_is_applied_once(tmp_path, cls):
    folder = write_folder(tmp_path / "files", {"0.json": '"a"\t{}\n'})
    with cls.import_json(folder, tmp_path / "store", init=((key, {}) for key in ("b", "c"))) as store:
        assert store.keys() == ["a", "b", "c"]


def test_failed_imports_and_exports_leave_no_new_folders(tmp_path, cls):
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


def test_import_returns_an_instance_of_the_users_subclass(tmp_path):
    class Mine(POD):
        pass

    folder = write_folder(tmp_path / "files", {"0.json": '"a"\t1\n'})
    with Mine.import_json(folder, tmp_path / "store") as store:
        assert type(store) is Mine
