"""The slot of the flush point in LMDB's reader table."""

from __future__ import annotations

import os
import struct

import lmdb
import pytest

from tastypy_fast._lmdb.reader_slot import ReaderSlot
from tests.support.children import Child

READERS = 1024


def opened(folder):
    return lmdb.open(str(folder), max_readers=READERS, max_spare_txns=0)


@pytest.fixture
def folder(tmp_path):
    opened(tmp_path).close()
    return tmp_path


@pytest.fixture
def slot(folder):
    slot = ReaderSlot(os.open(folder / "lock.mdb", os.O_RDWR))
    yield slot
    slot.close()


@pytest.fixture
def db(folder, slot):
    db = opened(folder)
    assert slot.find_layout(db)
    yield db
    db.close()


def commit(db, value=b"x" * 3000):
    with db.begin(write=True) as txn:
        txn.put(b"key", value)
        return txn.id()


def oldest_pages(db):
    """The pages of the data file: they grow while nothing can be reused."""
    return db.info()["last_pgno"]


def test_it_keeps_pages_from_reuse_until_it_is_moved(db, slot):
    assert slot.get() is None
    for _ in range(20):
        last = commit(db)
    assert slot.set(last)
    assert slot.get() == last
    before = oldest_pages(db)
    for _ in range(50):
        last = commit(db)
    grown = oldest_pages(db)
    assert grown > before + 100
    slot.move(last)
    assert slot.get() == last
    for _ in range(20):
        commit(db)
    assert oldest_pages(db) == grown


def test_it_moves_forward_only(db, slot):
    slot.move(5)
    assert slot.get() is None
    slot.set(5)
    slot.move(3)
    assert slot.get() == 5
    slot.move(8)
    assert slot.get() == 8


def test_a_check_of_the_readers_keeps_it(db, slot):
    slot.set(1)
    assert db.reader_check() == 0
    assert slot.get() == 1
    slot.clear()
    assert slot.get() is None
    assert slot.set(2)


def test_a_killed_process_takes_it_along_only_if_it_was_the_last(folder):
    def hold(pipe):
        slot = ReaderSlot(os.open(folder / "lock.mdb", os.O_RDWR))
        db = opened(folder)
        assert slot.find_layout(db)
        slot.set(1)
        pipe.send("set")
        pipe.recv()

    with Child(hold) as child:
        assert child.pipe.recv() == "set"
        slot = ReaderSlot(os.open(folder / "lock.mdb", os.O_RDWR))
        db = opened(folder)
        assert slot.find_layout(db)
        assert slot.get() == 1
        child.kill()
        child.wait()
        db.reader_check()
        assert slot.get() == 1
    slot.close()
    assert slot.get() is None
    db.close()
    db = opened(folder)
    slot = ReaderSlot(os.open(folder / "lock.mdb", os.O_RDWR))
    assert slot.find_layout(db)
    assert slot.get() is None  # who opens LMDB alone empties the table
    db.close()
    slot.close()


@pytest.mark.parametrize("readers", [0, 59, 60, 61, 200])
def test_it_finds_its_place_among_many_readers(db, slot, readers):
    snapshots = [db.begin() for _ in range(readers)]
    assert slot.set(3)
    more = [db.begin() for _ in range(150)]
    assert slot.get() == 3
    process = str(os.getpid())
    listed = [line.split()[0] for line in db.readers().splitlines()[1:]]
    assert listed.count(process) == readers + 150
    for txn in snapshots + more:
        txn.abort()
    assert slot.get() == 3
    assert slot.set(4)
    assert slot.get() == 4


def test_others_find_it_wherever_it_is(folder, slot):
    db = opened(folder)
    assert slot.find_layout(db)
    snapshots = [db.begin() for _ in range(100)]
    slot.set(3)
    other = ReaderSlot(os.open(folder / "lock.mdb", os.O_RDWR))
    assert other.find_layout(db)
    assert other.get() == 3
    other.move(4)
    assert slot.get() == 4
    for txn in snapshots:
        txn.abort()
    db.close()
    other.close()


def test_after_a_failed_flush_it_protects_and_forbids(db, slot):
    slot.set(2)
    assert not slot.has_failed()
    slot.mark_failed()
    assert slot.has_failed()
    assert slot.get() is None
    before = oldest_pages(db)
    for _ in range(30):
        commit(db)
    assert oldest_pages(db) > before + 50
    slot.move(9)
    assert slot.has_failed()
    slot.set(4)
    assert slot.get() == 4
    assert not slot.has_failed()


@pytest.mark.parametrize("content", [bytes(1 << 17), b"\1" * (1 << 17), bytes(128)], ids=["zeros", "ones", "short"])
def test_another_layout_is_noticed(tmp_path, db, content):
    (tmp_path / "other").write_bytes(content)
    slot = ReaderSlot(os.open(tmp_path / "other", os.O_RDWR))
    assert not slot.find_layout(db)
    assert slot.get() is None
    assert not slot.set(1)
    slot.move(1)
    slot.mark_failed()
    assert not slot.has_failed()
    slot.close()
    assert (tmp_path / "other").read_bytes() == content


def test_entries_that_an_earlier_use_has_left_stay_dead(folder):
    """LMDB empties its table by its length alone, and the slot is far behind its end."""
    with open(folder / "lock.mdb", "r+b") as file:
        for number in range(5, 60):
            file.seek(128 + 64 * number)
            file.write(struct.pack("=Qi", 1, 2**22 + number))
    slot = ReaderSlot(os.open(folder / "lock.mdb", os.O_RDWR))
    db = opened(folder)
    assert slot.find_layout(db)
    slot.set(1)
    assert len(db.readers().splitlines()) == 1 + 1
    db.close()
    slot.close()
