"""Changes merged over a database read as if the database contained them."""

from __future__ import annotations

import functools
import random
import struct

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastypy_fast._core.key_order import sorted_items
from tastypy_fast._core.memtable import Memtable, MergedTransaction
from tastypy_fast._core.status_block import block_facts, patched

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def packed(number):
    return struct.pack("=q", number)


changes = st.dictionaries(st.integers(0, 12), st.none() | st.binary(max_size=3), max_size=10)


class Databases:
    """An environment with one integer-key database and one bytes-key database, empty before each example."""

    def __init__(self, path):
        self.db = lmdb.open(str(path), max_dbs=2, map_size=1 << 20)
        self.handles = self.db.open_db(b"numbers", integerkey=True), self.db.open_db(b"bytes")

    def fill(self, content, number):
        with self.db.begin(write=True) as txn:
            for handle in self.handles:
                txn.drop(handle, delete=False)
            for key, value in content.items():
                txn.put(self.encode(key, number), value, db=self.handles[number])

    @staticmethod
    def encode(key, number):
        # As bytes, 10 sorts before 9.
        return str(key).encode() if number else packed(key)


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    found = Databases(tmp_path_factory.mktemp("databases"))
    yield found
    found.db.close()


@given(
    content=st.dictionaries(st.integers(0, 12), st.binary(max_size=3), max_size=10),
    layers=st.lists(changes, max_size=2), number=st.integers(0, 1), probe=st.integers(-1, 13),
)
def test_changes_merged_over_a_database_read_as_if_stored(databases, content, layers, number, probe):
    encode = functools.partial(databases.encode, number=number)
    databases.fill(content, number)
    model = {encode(key): value for key, value in content.items()}
    with databases.db.begin() as txn:
        for layer in layers:
            found = Memtable(True), Memtable(False)
            for key, value in layer.items():
                found[number].put(encode(key), value)
                model[encode(key)] = value
            model = {key: value for key, value in model.items() if value is not None}
            txn = MergedTransaction(txn, databases.handles, found, len(model))
        expected = sorted(model.items(), key=lambda pair: pair[0] if number else struct.unpack("=q", pair[0]))
        db = databases.handles[number]
        wanted = encode(max(probe, 0))
        assert txn.get(wanted, b"none", db=db) == model.get(wanted, b"none")
        assert txn.stat(db)["entries"] == len(model) or not layers
        cursor = txn.cursor(db)
        assert list(cursor) == expected
        assert dict(cursor.getmulti([encode(key) for key in range(13)])) == model
        assert cursor.first() == bool(expected)
        assert cursor.key() == (expected[0][0] if expected else b"")
        assert cursor.last() == bool(expected)
        assert cursor.key() == (expected[-1][0] if expected else b"")
        assert list(cursor.iterprev()) == expected[::-1]
        assert cursor.set_key(wanted) == (wanted in model)
        keys = [key for key, _ in expected]
        behind = [at for at, key in enumerate(keys) if key == wanted or sorted_before(wanted, key, number)]
        assert cursor.set_range(wanted) == bool(behind)
        if behind:
            assert cursor.key() == keys[behind[0]]
            assert list(cursor.iternext()) == expected[behind[0]:]
            assert cursor.set_range(wanted)
            assert list(cursor.iterprev()) == expected[behind[0]::-1]
            assert cursor.set_range(wanted)
            assert cursor.prev() == (behind[0] > 0)
            assert cursor.key() == (keys[behind[0] - 1] if behind[0] else b"")


def sorted_before(one, other, number):
    return one < other if number else struct.unpack("=q", one) < struct.unpack("=q", other)


@pytest.mark.parametrize("size", [99, 100, 101, 5000])
@pytest.mark.parametrize("make", [lambda number: number % 7, lambda number: number, lambda number: number << 40])
def test_any_number_of_changes_is_sorted(size, make):
    """Many are sorted byte by byte. Keys that agree in eight bytes are compared."""
    numbers = random.Random(size).sample(range(2**20), size)
    by_key = {b"same" * 3 + packed(make(number)) + packed(number)[:3]: number for number in numbers}
    assert list(sorted_items(by_key, False)) == sorted(by_key.items())
    by_number = {packed(make(number)): number for number in numbers}
    expected = sorted(by_number.items(), key=lambda pair: struct.unpack("=q", pair[0]))
    assert list(sorted_items(by_number, True)) == expected


@given(st.lists(st.tuples(st.binary(max_size=12), st.integers()), max_size=200), st.binary(max_size=12))
def test_memtable_sorts_changes_by_key(pairs, beginning):
    found = {beginning + key: value for key, value in pairs}
    assert list(sorted_items(found, False)) == sorted(found.items())


@given(st.dictionaries(st.integers(0, 2**63 - 1) | st.integers(0, 300), st.integers(), max_size=200))
def test_memtable_sorts_changes_by_sequence_number(found):
    changes = {packed(number): value for number, value in found.items()}
    assert list(sorted_items(changes, True)) == [(packed(number), value) for number, value in sorted(found.items())]


# A slot of a status block, and the change of it.
patches = st.lists(st.tuples(st.integers(0, 499), st.integers(0, 2**32 - 1)), max_size=20)


def changed(patches):
    return bytearray().join(struct.pack("=II", *patch) for patch in patches)


@given(st.dictionaries(st.integers(0, 5), patches), st.dictionaries(st.integers(0, 5), patches))
def test_status_changes_are_merged_over_stored_blocks(databases, below, above):
    blocks = {key: dict(found) for key, found in below.items()}
    databases.fill({key: patched(None, changed(found)) for key, found in below.items()}, 0)
    layer = Memtable(True)
    for key, found in above.items():
        layer.put(packed(key), changed(found))
        blocks.setdefault(key, {}).update(found)
    with databases.db.begin() as txn:
        overlay = MergedTransaction(txn, databases.handles, (layer, Memtable(False)), 0)
        db = databases.handles[0]
        expected = []
        for key, found in sorted(blocks.items()):
            raw = overlay.get(packed(key), db=db)
            assert list(struct.unpack("=500I", raw[16:])) == [found.get(slot, 0) for slot in range(500)]
            head, as_it_should_be, *_ = block_facts(raw)
            assert head == as_it_should_be
            expected.append((packed(key), raw))
        assert list(overlay.cursor(db)) == expected
        assert list(overlay.cursor(db).iterprev()) == expected[::-1]
        assert sorted(overlay.cursor(db).getmulti([packed(key) for key in range(6)])) == sorted(expected)
