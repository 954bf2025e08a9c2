"""JSON Lines: files, streams and pipes, compressed or not, errors by line."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import zstandard

from tastypy_fast import (
    POD,
    DamagedInputError,
    InvalidKeyError,
    ReadOnlyStoreError,
    SharedPOD,
    SharedTracker,
    Tracker,
    UnstorableValueError,
)
from tests.support.children import start
from tests.support.formats import GOOD, LINES, fresh_task, pairs_of
from tests.support.stores import CLASSES, is_tracker, value_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


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
def test_lines_round_trip_through_files_of_any_kind(tmp_path, either, writer, reader):
    with either(tmp_path / "one") as one, either(tmp_path / "two") as two:
        one.update((key, value_for(either, value)) for key, value, _ in LINES)
        assert WRITERS[writer](one, tmp_path / "lines") == len(LINES)
        assert READERS[reader](two, tmp_path / "lines") == len(LINES)
        assert pairs_of(one) == pairs_of(two)


@pytest.mark.parametrize(("suffix", "unpack"), [
    (".gz", gzip.decompress), (".zst", lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
])
def test_file_name_selects_the_compression(tmp_path, cls, suffix, unpack):
    packed, plain = tmp_path / f"lines.jsonl{suffix}", tmp_path / "lines.jsonl"
    with cls(tmp_path / "one") as one, cls(tmp_path / "two") as two:
        one.update((number, value_for(cls, f"{number}" * 20)) for number in range(3000))
        assert one.export_jsonl(packed) == one.export_jsonl(plain) == 3000
        assert unpack(packed.read_bytes()) == plain.read_bytes()
        assert packed.stat().st_size < plain.stat().st_size / 2
        assert two.import_jsonl(packed) == 3000
        assert one.items() == two.items()
    # Two compressed parts in one file, as after appending; and an empty store.
    packed.write_bytes(packed.read_bytes() * 2)
    with cls(tmp_path / "three") as three, cls(tmp_path / "four") as four:
        assert three.import_jsonl(packed) == 6000
        assert len(three) == 3000
        assert four.export_jsonl(tmp_path / f"empty{suffix}") == 0
        assert four.import_jsonl(tmp_path / f"empty{suffix}") == 0


def test_lines_round_trip_through_pipes(tmp_path):
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
        # The same by file name.
        os.mkfifo(tmp_path / "pipe")
        with subprocess.Popen([sys.executable, "-c", "import sys; print(len(open(sys.argv[1], 'rb').readlines()))",
                               tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
            assert one.export_jsonl(tmp_path / "pipe") == 1000
            assert reader.stdout.read() == b"1000\n"


def test_lines_of_other_programs_are_read(tmp_path, cls):
    text = '\ufeff{"value": {"n": 1}, "key": "a"}\r\n\n  \n {"key": ["b", [2]], "value" : {}}\n{"key": 5, "value": {}}'
    (tmp_path / "lines").write_text(text, encoding="utf-8")
    with cls(tmp_path / "store") as store:
        assert store.import_jsonl(tmp_path / "lines") == 3
        assert store.keys() == ["a", ("b", (2,)), 5]
        assert store["a"]["n"] == 1


def test_import_works_like_update(tmp_path, cls):
    with cls(tmp_path / "store", init={"a": {"x": 1}, "b": {"x": 1, "y": 1}}) as store:
        if is_tracker(cls):
            store.mark_done("b")
        assert store.import_jsonl(io.StringIO(
            '{"key": "c", "value": {}}\n{"key": "b", "value": {"x": 2}}\n{"key": "b", "value": {"x": 3}}\n'
        )) == 3
        assert store.keys() == ["a", "b", "c"]
        assert store["b"] == ({**fresh_task(x=3, y=1), "_done": True} if is_tracker(cls) else {"x": 3})


@pytest.mark.parametrize("before", [0, 1, 2, 999, 1000, 2500])
@pytest.mark.parametrize(("bad", "error", "match"), [
    ('{"key": "x", "val', DamagedInputError, "this is not valid JSON"),
    ("\x00\n", DamagedInputError, "this is not valid JSON"),
    ("5\n", DamagedInputError, "each line must be .*, but this one is 5(;|$)"),
    ('{"key": "x"}\n', DamagedInputError, "each line must be"),
    ('{"key": "x", "value": {}, "more": 1}\n', DamagedInputError, "each line must be"),
    ('{"key": 1.5, "value": {}}\n', InvalidKeyError, "a key must be"),
    ('{"key": "x", "value": {"n": %s}}\n' % ("9" * 5000), UnstorableValueError, "too many digits"),
])
def test_error_names_its_line_and_earlier_lines_are_imported(tmp_path, either, before, bad, error, match):
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


def test_non_task_value_is_refused_with_its_line(tmp_path):
    for name, cls in CLASSES.items():
        if is_tracker(cls):
            with cls(tmp_path / name) as store:
                with pytest.raises(UnstorableValueError, match=r"line 2 of the input: .*; the one before it is in"):
                    store.import_jsonl([GOOD % 1, '{"key": 2, "value": 3}'])
                assert store.keys() == [1]


@pytest.mark.parametrize("cut", [1, 1000])
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_compressed_file_raises_an_error(tmp_path, suffix, cut):
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


def test_text_file_of_another_encoding_raises_an_error_that_names_it(tmp_path):
    with POD(tmp_path / "store", init={"é": "😀"}) as store:
        with open(tmp_path / "lines", "w", encoding="ascii") as file, \
                pytest.raises(UnstorableValueError, match=r"lines 1 to 1 .*\(ascii\); open it with encoding='utf-8'"):
            store.export_jsonl(file)
        (tmp_path / "lines").write_bytes(b'{"key": 1, "value": 1}\n' * 2 + b"\xff")
        with open(tmp_path / "lines", encoding="utf-8") as file, \
                pytest.raises(DamagedInputError, match=r"of .*lines, or soon after it: .*; the 0 before"):
            store.import_jsonl(file)


def test_missing_file_raises_file_not_found_error(tmp_path):
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


def test_read_only_store_can_be_exported_and_refuses_imports(tmp_path):
    with POD(tmp_path / "store", init={"a": 1}):
        pass
    with POD(tmp_path / "store", mode="r") as reader:
        assert reader.export_jsonl(tmp_path / "lines") == 1
        assert reader.export_json(tmp_path / "files") == 1
        with pytest.raises(ReadOnlyStoreError):
            reader.import_jsonl(tmp_path / "lines")


def test_export_inside_a_block_has_the_changes_of_the_block(tmp_path):
    with SharedPOD(tmp_path / "store", init={"a": 1}) as store:
        with store.transaction():
            store["b"] = 2
            assert store.import_jsonl([GOOD % 3]) == 1
            assert store.export_jsonl(tmp_path / "lines") == 3
            assert store.export_json(tmp_path / "files") == 3
        with pytest.raises(DamagedInputError), store.transaction():
            store.import_jsonl([GOOD % 4, "x"])
        assert store.keys() == ["a", "b", 3]


def test_claimed_tasks_are_exported_without_their_claims(tmp_path):
    with SharedTracker(tmp_path / "store", init={"a": {}, "b": {}}) as tracker:
        assert tracker.should_try("a")
        tracker.export_json(tmp_path / "files")
    with Tracker.import_json(tmp_path / "files", tmp_path / "copy") as copy:
        assert copy.items() == [("a", {**fresh_task(), "_tries": 1}), ("b", fresh_task())]
