"""Damaged files are refused, and are not changed."""

from __future__ import annotations

import os

import lmdb
import pytest
from lmdb.verify import verify

from tastypy_fast import (
    PersistentOrderedDictIntegrityError,
    StoreNotFoundError,
)
from tests.support.children import Child
from tests.support.damage import NUMBER, PAGE, WHOLE_FILE, content, files

pytestmark = [pytest.mark.with_log("pod"), pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]


def open_and_read(pipe, cls, path, mode):
    """Send the error of opening, or the results of reading."""
    try:
        with cls(path, mode=mode) as store:
            pipe.send((len(store), store.keys(), [store[key] for key in store]))
    except Exception as error:
        pipe.send(error)


@pytest.mark.parametrize("mode", ["w", "r"])
@pytest.mark.parametrize("damage", WHOLE_FILE)
def test_damaged_file_is_refused_and_not_changed(any_class, victim, damage, mode):
    data = victim / "data.mdb"
    data.write_bytes(WHOLE_FILE[damage](data.read_bytes()))
    before = files(victim)
    with Child(open_and_read, any_class, victim, mode) as child:
        outcome = child.receive_all()
        assert child.wait() == 0
    assert len(outcome) == 1
    assert isinstance(outcome[0], PersistentOrderedDictIntegrityError), outcome[0]
    assert str(victim) in str(outcome[0])
    assert files(victim) == before


@pytest.mark.parametrize("mode", ["w", "r"])
def test_missing_data_file_is_not_a_new_store(any_class, victim, mode):
    (victim / "data.mdb").unlink()
    with pytest.raises((PersistentOrderedDictIntegrityError, StoreNotFoundError)):
        any_class(victim, mode=mode)
    assert not (victim / "data.mdb").exists()


@pytest.mark.parametrize("appended", [b"\0" * 3 * PAGE, b"something"])
def test_bytes_after_the_last_page_are_ignored(any_class, victim, appended):
    with open(victim / "data.mdb", "ab") as file:
        file.write(appended)
    with any_class(victim) as store:
        assert store.keys() == [key for key, _ in content()]
        store["new"] = {"number": -1}
    with any_class(victim) as store:
        store._check()
        assert store["new"]["number"] == -1


def test_missing_lock_file_is_recreated(any_class, victim):
    for name in os.listdir(victim):
        if name != "data.mdb":
            (victim / name).unlink()
    with any_class(victim) as store:
        store._check()
        assert len(store) == 401


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_undamaged_file_may_end_before_its_last_page_number(any_class, victim, size):
    """Pages that are allocated and freed in one transaction are never written."""
    number = NUMBER.pack(10**6)
    with lmdb.open(str(victim), max_dbs=8, map_size=1 << 28) as db:
        values = db.open_db(b"values", create=False, integerkey=True)
        # First create free pages in the middle, which the last writes will use.
        for step in ("put", "delete", "put", "delete"):
            with db.begin(write=True) as txn:
                txn.put(number, bytes(50_000), db=values) if step == "put" else txn.delete(number, db=values)
        with db.begin(write=True) as txn:
            txn.put(number, bytes(size), db=values)
            txn.delete(number, db=values)
        pages = db.info()["last_pgno"] + 1
    assert (victim / "data.mdb").stat().st_size < pages * PAGE
    for mode in ("r", "w"):
        with any_class(victim, mode=mode) as store:
            store._check()
            assert store.keys() == [key for key, _ in content()]
    with any_class(victim) as store:
        store["new"] = {"text": "x" * size}
        store.sync()
        store._check()
    assert not verify(victim)
