"""Export and import round-trip a store in little memory."""

from __future__ import annotations

import io
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tastypy_fast import (
    POD,
    DamagedInputError,
    InvalidKeyError,
    SharedPOD,
    SharedTracker,
    Tracker,
)
from tests.support.children import result_of_child
from tests.support.formats import GOOD, same, write_folder
from tests.support.json_values import values
from tests.support.keys import as_stored, keys
from tests.support.stores import CLASSES, value_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


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
def test_export_and_import_round_trip(name, pairs, size, gzipped):
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
    """Whether Python can convert the ints of a key to text."""
    if isinstance(key, tuple):
        return all(map(key_is_short, key))
    return isinstance(key, str) or abs(key) < 10**4000


@given(data=st.binary(max_size=60) | st.text("\\t\t\"[]{}:,1e5keyvalu\n ", max_size=60).map(str.encode))
@settings(max_examples=100)
def test_arbitrary_input_is_read_or_raises_an_error_of_the_package(data):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_folder(folder / "files", {"0.json": data})
        with POD(folder / "one") as store:
            for work in (lambda: store.import_jsonl(io.BytesIO(data)),
                         lambda: POD.import_json(folder / "files", folder / "two").close()):
                with suppress(DamagedInputError, InvalidKeyError):
                    work()
            store._check()


def test_keys_and_values_at_the_nesting_limit_round_trip(tmp_path, cls):
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

    # A key and its dict take about 300 bytes.
    assert result_of_child(work)[0] < 8 * 2**20
