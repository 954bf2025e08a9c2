"""Verify a store: damage to the page trees is found."""

from __future__ import annotations

import itertools
import shutil
import struct

import lmdb
import pytest

from tastypy_fast import (
    POD,
    SharedPOD,
    Tracker,
    maintenance,
)
from tests.support.damage import NUMBER, PAGE, Inside
from tests.support.maintenance import overwrite, page_that, state_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

META = {"transaction": (144, 8), "last page": (136, 8), "size of the map": (32, 8)}


@pytest.mark.parametrize("value", [0, 1, 2**60, 2**62, 2**62 + 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1])
@pytest.mark.parametrize("field", META)
@pytest.mark.parametrize("page", [0, 1])
def test_impossible_number_in_a_meta_page_is_found(stores, path, target, field, value, page):
    """It loses nothing, unless it may be the number of an older commit."""
    shutil.copytree(stores[POD][0], path)
    for number in range(4):
        with POD(path) as pod:
            pod["more"] = number
    at, size = META[field]
    before = struct.unpack_from("=Q", (path / "data.mdb").read_bytes(), page * PAGE + at)[0]
    assert before > 1
    overwrite(path, page, lambda raw: raw[:at] + value.to_bytes(size, "little") + raw[at + size :])
    faults = maintenance.verify(path)
    # A store does not need the file size before the last commit.
    assert faults or (field, value) == ("last page", 1)
    kept, lost, _ = maintenance.repair(path, target)
    assert (kept, bool(lost)) == (len(stores[POD][1]) + 1, bool(faults))
    with POD(target) as pod:
        assert pod["more"] in ((2, 3) if value <= 1 and field == "transaction" else (3,))


@pytest.mark.parametrize("size", [0, 7, 9])
def test_sequence_number_of_other_than_8_bytes_is_found(stores, path, size):
    shutil.copytree(stores[POD][0], path)
    # The page is a leaf that opening does not check.
    number = NUMBER.pack(200)
    (page,) = (page for page in page_that(path, lambda flags, page: flags == 2 and number + b"\x01" in page))

    def change(raw):
        at = raw.index(number + b"\x01") - 2
        assert raw[at : at + 2] == b"\x08\0"
        return raw[:at] + struct.pack("=H", size) + raw[at + 2 :]

    overwrite(path, page, change)
    assert any(f"page {page} of" in fault or "key of" in fault for fault in maintenance.verify(path))


@pytest.mark.parametrize("node", [b"values", b"status"])
@pytest.mark.parametrize("flag", [4, 8, 0x4000])
def test_node_with_an_unknown_flag_is_found_and_kept(stores, path, target, node, flag):
    """One record, and the statuses of 500 tasks."""
    shutil.copytree(stores[Tracker][0], path)
    with Inside(path) as inside:
        value = inside.record(5) if node == b"values" else inside.txn.get(NUMBER.pack(0), db=inside.status)
    wanted = b"\x08\0" + NUMBER.pack(5 if node == b"values" else 0) + value
    (page,) = page_that(path, lambda flags, page: flags == 2 and wanted in page)

    def change(raw):
        at = raw.index(wanted) - 2
        return raw[:at] + struct.pack("=H", flag) + raw[at + 2 :]

    overwrite(path, page, change)
    assert any(f"page {page} of" in fault for fault in maintenance.verify(path))
    assert maintenance.repair(path, target) == (len(stores[Tracker][1]), [], 0)
    assert state_of(Tracker, target) == stores[Tracker][1]


def versions(path):
    """The data file after each of several commits, each of which changes one key."""
    found = []
    with POD(path) as pod:
        pod.update((number, {"x": "y" * 50}) for number in range(2000))
        pod.sync()
        for number in range(9):
            pod.update((key, {"x": number}) for key in range(number * 100, number * 100 + 582))
            pod.sync()
            found.append((path / "data.mdb").read_bytes())
    return found


def meta_of(data, newest=True):
    """The offset of the newer or the older meta page."""
    numbers = [struct.unpack_from("=Q", data, page * PAGE + 144)[0] for page in (0, 1)]
    return numbers.index(max(numbers) if newest else min(numbers)) * PAGE


def with_number(data, newest, change):
    """Change the transaction id in the newer or the older meta page."""
    at = meta_of(data, newest) + 144
    return data[:at] + struct.pack("=Q", change(struct.unpack_from("=Q", data, at)[0])) + data[at + 8 :]


def from_older(data, old, part):
    at, source = meta_of(data), meta_of(old)
    return data[: at + part.start] + old[source + part.start : source + part.stop] + data[at + part.stop :]


OLDER_TREES = {
    "the older page says to be the newest": lambda data, old: with_number(data, False, lambda number: number + 2),
    "the older page says to be much newer": lambda data, old: with_number(data, False, lambda number: number + 64),
    "the newest page says to be older": lambda data, old: with_number(data, True, lambda number: number - 4),
    "the newest page says to be the first": lambda data, old: with_number(data, True, lambda number: number & 1),
    "the list of databases is an older one": lambda data, old: from_older(data, old, slice(88, 136)),
    "the free list is an older one": lambda data, old: from_older(data, old, slice(40, 88)),
    "both are, with the last page": lambda data, old: from_older(data, old, slice(40, 144)),
    "one meta page is from an older file": lambda data, old: (
        data[: meta_of(data)] + old[meta_of(data) : meta_of(data) + PAGE] + data[meta_of(data) + PAGE :]),
}


@pytest.mark.parametrize("damage", OLDER_TREES)
@pytest.mark.parametrize("back", [2, 4])
def test_store_that_went_back_to_an_older_tree_is_found(path, damage, back):
    *olds, data = versions(path)
    assert maintenance.verify(path) == []
    old = olds[-back]
    if damage == "one meta page is from an older file" and with_number(old, True, lambda number: number + 2)[
        meta_of(old) + 144 : meta_of(old) + 152] == data[meta_of(data) + 144 : meta_of(data) + 152]:
        return  # The store is then as before the last transaction.
    (path / "data.mdb").write_bytes(OLDER_TREES[damage](data, old))
    assert maintenance.verify(path)


@pytest.mark.parametrize("sizes", list(itertools.permutations((100, 3_000, 9_000, 100_000))))
def test_large_value_rewritten_in_one_transaction_is_not_damage(path, target, sizes):
    """LMDB keeps the overflow pages of a value that shrinks in the transaction that created it."""
    with SharedPOD(path) as pod:
        pod["a"] = "x" * 20_000
        with pod.transaction():
            for size in sizes:
                pod["a"] = "x" * size
        assert maintenance.verify(path) == []
    with lmdb.open(str(path), max_dbs=8, map_size=1 << 28) as db, db.begin(write=True) as txn:
        values = db.open_db(b"values", txn=txn, create=False, integerkey=True)
        (key, record), = txn.cursor(values)
        for size in (*sizes, sizes[0]):
            txn.put(key, record + b" " * size, db=values)
        txn.put(key, record, db=values)
    assert maintenance.verify(path) == []
    assert maintenance.repair(path, target) == (1, [], 0)
