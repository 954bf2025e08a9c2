"""Numbers with very many digits, deep nesting and very long lines are read, or refused with their line."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os

import pytest
import zstandard

from tastypy_fast import (
    POD,
    DamagedInputError,
    InvalidKeyError,
    StorageError,
    Tracker,
    UnstorableValueError,
    maintenance,
)
from tastypy_fast._core import decimal_digits
from tastypy_fast._formats import compression, json_text, jsonl
from tests.support.command import refused, run
from tests.support.formats import contents, same, write_folder
from tests.support.large_input import digits_allowed
from tests.support.stores import CLASSES, is_tracker, value_for

MOST = 100_000
DIGITS = "7" * MOST


@pytest.fixture(params=CLASSES)
def cls(request):
    return CLASSES[request.param]


# Import and export


def test_key_with_100_000_digits_round_trips(tmp_path):
    digits = "7" * 90_000
    number = decimal_digits.int_of(digits)
    with POD(tmp_path / "one") as one, POD(tmp_path / "two") as two:
        assert one.import_jsonl([f'{{"key": [{digits}], "value": 1}}', f'{{"key": -{digits}, "value": 2}}']) == 2
        assert one.keys() == [(number,), -number]
        one.export_jsonl(tmp_path / "lines")
        one.export_json(tmp_path / "files")
        assert two.import_jsonl(tmp_path / "lines") == 2
        with POD.import_json(tmp_path / "files", tmp_path / "three") as three:
            assert one.items() == two.items() == three.items()


@pytest.mark.parametrize(("line", "error", "match"), [
    (f'{{"key": "x", "value": {{"n": {DIGITS}}}}}', UnstorableValueError, "line 2 of .* too many digits"),
    (f'{{"key": "x", "value": {{"n": {DIGITS}7}}}}', DamagedInputError, "line 2 of .* 100,001 digits, and at most"),
    (f'{{"key": {DIGITS}7, "value": {{}}}}', DamagedInputError, "line 2 of .* 100,001 digits, and at most 100,000"),
    (f'{{"key": "x", "value": {"9" * 10 * MOST}}}', DamagedInputError, "line 2 of .* 1,000,000 digits"),
    (f'{{"key": "x", "value": {{"{DIGITS}": {"7" * 5000}}}}}', UnstorableValueError, "line 2 of .* too many digits"),
])
def test_number_with_too_many_digits_is_refused_with_its_line(tmp_path, line, error, match):
    for name in ("pod", "shared_tracker"):
        with CLASSES[name](tmp_path / name) as store:
            with pytest.raises(error, match=match) as caught:
                store.import_jsonl(['{"key": 1, "value": {}}', line, '{"key": 3, "value": {}}'])
            assert str(caught.value).endswith("the one before it is in the store")
            assert len(str(caught.value)) < 1000
            assert store.keys() == [1]
            store._check()


def test_float_with_a_million_digits_is_read(tmp_path, cls):
    with cls(tmp_path / "store") as store:
        store.import_jsonl([f'{{"key": 1, "value": {{"n": 1.{DIGITS}, "m": {DIGITS}.5, "o": 1e-{DIGITS}}}}}'])
        assert (store[1]["n"], store[1]["m"], store[1]["o"]) == (float(f"1.{DIGITS}"), float("inf"), 0.0)


@pytest.mark.parametrize(("line", "error", "match"), [
    (f'"x"\t{{"n": {"7" * 5000}}}\n', UnstorableValueError, r"0\.json, line 2: .* too many digits"),
    (f'"x"\t{{"n": {DIGITS}7}}\n', DamagedInputError, r"0\.json, line 2: .* 100,001 digits"),
    (f'{DIGITS}7\t{{}}\n', DamagedInputError, r"0\.json, line 2: .* 100,001 digits"),
])
def test_tastypy_files_with_too_many_digits_are_refused_with_the_line(tmp_path, cls, line, error, match):
    folder = write_folder(tmp_path / "files", {"0.json": '"a"\t{}\n' + line})
    with pytest.raises(error, match=match):
        cls.import_json(folder, tmp_path / "store")
    assert os.listdir(tmp_path) == ["files"]


def test_numbers_stored_under_another_digit_limit_are_read_and_exported(tmp_path, cls):
    value = {"n": [10**5000, -(10**700)], "m": {"x": 2**64, "y": ["\ud800", None]}}
    path = tmp_path / "store"
    with digits_allowed(0):
        with cls(path, init={"a": value_for(cls, value), "b": value_for(cls, 10**5000)}) as store:
            store.export_jsonl(tmp_path / "lines-0")
            store.export_json(tmp_path / "files-0")
            before = store.items()
        (tmp_path / "lines").mkdir()
    for limit in (640, 4300):
        with digits_allowed(limit):
            with cls(path) as store:
                assert store.items() == before
                assert store.get("a") == before[0][1]
                store._check()
                store.export_jsonl(tmp_path / "lines" / str(limit))
                store.export_json(tmp_path / f"files-{limit}")
                if is_tracker(cls):
                    table = store.to_arrow(as_json=["value"])
                    assert json_text.parse_json(table["value"][1].as_py().encode()) == 10**5000
                store.revert()
            assert maintenance.verify(path) == []
    assert set(contents(tmp_path / "lines").values()) == {(tmp_path / "lines-0").read_bytes()}
    assert contents(tmp_path / "files-0") == contents(tmp_path / "files-640") == contents(tmp_path / "files-4300")


def test_dict_key_with_too_many_digits_is_refused(tmp_path, cls):
    with cls(tmp_path / "store") as store:
        with pytest.raises(UnstorableValueError, match=r"a key of the dict at .* has too many digits"):
            store["a"] = value_for(cls, {10**5000: 1})
        assert len(store) == 0


def test_table_accepts_keys_of_any_size(tmp_path):
    with Tracker(tmp_path / "store", init=[(10**5000, {}), ("a", {})]) as tracker:
        keys = tracker.to_arrow()["key"].to_pylist()
    assert [json_text.parse_json(key.encode()) for key in keys] == [10**5000, "a"]


# Nesting


REFUSALS = (DamagedInputError, InvalidKeyError, UnstorableValueError)


@contextlib.contextmanager
def may_be_refused(where="line 2 of"):
    """Allow an error that names the line, because the recursion limit differs between versions of Python."""
    try:
        yield
    except REFUSALS as error:
        if where.replace("\\", "") not in str(error):
            raise


OPEN = '{"a": '


def nested(depth, inside="", left="[", right="]"):
    return left * depth + inside + right * depth


@pytest.mark.parametrize("depth", [499, 501, 900, 960, 980, 990, 1000, 5000, 100_000])
def test_deeply_nested_keys_and_values_are_read_or_refused_with_their_line(tmp_path, cls, depth):
    lines = {
        "key": f'{{"key": {nested(depth)}, "value": {{}}}}',
        "value": f'{{"key": "x", "value": {{"n": {nested(depth)}}}}}',
        "dicts": f'{{"key": "x", "value": {nested(depth, "1", OPEN, "}")}}}',
        "open": f'{{"key": "x", "value": {"[" * depth}',
    }
    for name, line in lines.items():
        with cls(tmp_path / name) as store:
            with pytest.raises(REFUSALS, match="line 2 of") if depth >= 1000 or name == "open" else may_be_refused():
                assert store.import_jsonl(['{"key": 1, "value": {}}', line]) == 2
            if len(store) == 2:
                assert store.export_jsonl(tmp_path / f"{name}.jsonl") == 2
                assert store.export_json(tmp_path / f"{name}.files") == 2
            else:
                assert store.keys() == [1]
        key, _, value = line[8:].partition(', "value": ')
        folder = write_folder(tmp_path / f"{name} files", {"0.json": f"1\t{{}}\n{key}\t{value[:-1]}\n"})
        with may_be_refused(r"0\.json, line 2"):
            cls.import_json(folder, tmp_path / f"{name} new").close()


def test_value_at_the_nesting_limit_is_exported_from_a_deep_call_stack(tmp_path):
    def deeper(levels, work):
        return work() if levels == 0 else deeper(levels - 1, work)

    with POD(tmp_path / "store") as store:
        depth, too_deep = 1, 900
        while too_deep - depth > 1:
            middle = (depth + too_deep) // 2
            try:
                store["a"] = json.loads(nested(middle))
                depth = middle
            except UnstorableValueError:
                too_deep = middle
        assert deeper(40, lambda: store.export_jsonl(tmp_path / "lines")) == 1
        assert deeper(40, lambda: store.export_json(tmp_path / "files")) == 1
        text = (tmp_path / "lines").read_text()
        assert text == f'{{"key":"a","value":{nested(depth)}}}\n'


# Long lines


@pytest.fixture
def short_lines(monkeypatch):
    monkeypatch.setattr(compression, "LONGEST_LINE", 100)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_endless_line_is_refused_with_its_number(tmp_path, cls, short_lines, suffix):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    good = b'{"key": 1, "value": {}}\n'
    full = b'{"key": 2, "value": {"x": "%s"}}\n'
    full = full % (b"x" * (100 - len(full) + 2))
    assert len(full) == 100
    for end in (b"\0" * 100_000, b"\n" + b"x" * 101, b'{"key": 3, "value": {"x": "' + b"x" * 100 + b'"}}\n'):
        path = tmp_path / f"lines{suffix}"
        path.write_bytes(pack(good + full + end))
        number = 3 + end.startswith(b"\n")
        with cls(tmp_path / "store") as store:
            with pytest.raises(DamagedInputError, match=f"line {number} of .*: this line is longer than .*; the 2 "):
                store.import_jsonl(path)
            assert store.keys() == [1, 2]
        if suffix != ".zst":
            pairs = b'"a"\t{}\n' + b'"b"\t{"x": "' + b"x" * 60 + b'"}\n' + end
            name = f"0.json{suffix}"
            folder = tmp_path / f"files {end[:1]!r}"
            folder.mkdir()
            (folder / name).write_bytes(pack(pairs.replace(b"\n\n", b"\n")))
            with pytest.raises(DamagedInputError, match=rf"0\.json{suffix}, line 3: this line is longer than 100"):
                cls.import_json(folder, tmp_path / "new")
            assert not (tmp_path / "new").exists()


def test_line_of_exactly_the_maximum_length_is_accepted(tmp_path, short_lines):
    line = b'{"key": "a", "value": "%s"}'
    line = line % (b"x" * (101 - len(line)))
    assert len(line) == 99
    (tmp_path / "lines").write_bytes(line + b"\n" + line)
    with POD(tmp_path / "store") as store:
        assert store.import_jsonl(tmp_path / "lines") == 2


def test_memory_error_names_the_line(tmp_path, cls, monkeypatch):
    def lines():
        yield '{"key": 1, "value": {}}'
        yield '{"key": 2, "value": {}}'
        raise MemoryError

    def parse(line):
        if b"2" in line:
            raise MemoryError
        return json.loads(line)

    with cls(tmp_path / "store") as store:
        with pytest.raises(StorageError, match="line 3 of the input: there is not enough memory"):
            store.import_jsonl(lines())
        assert store.keys() == [1, 2]
        monkeypatch.setattr(jsonl, "parse_json", parse)
        with pytest.raises(StorageError, match="line 2 of the input: there is not enough memory"):
            store.import_jsonl(io.StringIO('{"key": 3, "value": {}}\n{"key": 2, "value": {}}\n'))
        assert store.keys() == [1, 2, 3]


# The command


def test_command_reads_long_numbers_or_refuses_them_with_the_line(path, tmp_path):
    run("set", path, "n", "-", "--create", stdin="1." + DIGITS)
    long = "7" * 5000
    for value, match in ((long, "too many digits"), (DIGITS + "7", "100,001 digits"), (nested(100_000), "deep")):
        before = run("export", path, "-")
        assert match in refused("set", path, "n", "-", stdin=value, code=4)
        assert run("export", path, "-") == before
        lines = f'{{"key": "a", "value": 1}}\n{{"key": "b", "value": {value}}}\n'
        error = refused("import", "-", path, stdin=lines, code=4)
        assert "line 2 of" in error
        assert match in error
    assert run("set", path, long, "1", "--json-keys", "--json") == f'{{"key":{long},"added":true}}\n'
    assert run("get", path, long, "--json-keys") == "1\n"
    assert "100,001 digits" in refused("get", path, "--json-keys", "-", stdin=DIGITS + "7", code=4)
    assert "deep" in refused("get", path, "--json-keys", "-", stdin=nested(990), code=4)
    with digits_allowed(0):
        POD(tmp_path / "other", init={"a": [10**5000]}).close()
    assert run("get", tmp_path / "other", "a") == f"[1{'0' * 5000}]\n"
    assert run("ls", tmp_path / "other", "-l") == f"a\t[1{'0' * 5000}]\n"


def test_keys_of_any_size_round_trip_in_both_formats(tmp_path, cls):
    pairs = [((10**5000, ("x", -(10**4400))), value_for(cls, 1)), (-(10**6000), value_for(cls, 2))]
    with cls(tmp_path / "one", init=pairs) as one:
        for limit in (640, 0):
            with digits_allowed(limit):
                one.export_json(tmp_path / f"files {limit}")
                one.export_jsonl(tmp_path / f"lines {limit}")
        assert contents(tmp_path / "files 0") == contents(tmp_path / "files 640")
        assert (tmp_path / "lines 0").read_bytes() == (tmp_path / "lines 640").read_bytes()
        with cls.import_json(tmp_path / "files 0", tmp_path / "two") as two:
            assert same(one, two)
