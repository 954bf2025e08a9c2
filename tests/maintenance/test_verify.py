"""Verify a store: all damage is found, and there are no false findings."""

from __future__ import annotations

import os
import random
import shutil
import signal

import lmdb
import pytest

from tastypy_fast import (
    POD,
    NewerFormatError,
    NotAStoreError,
    PersistentOrderedDictIntegrityError,
    SharedTracker,
    StorageError,
    StoreNotFoundError,
    Tracker,
    maintenance,
)
from tastypy_fast._core.claim_record import claim_key
from tastypy_fast.maintenance import _verify
from tastypy_fast.maintenance._verify import verify_store
from tests.support.damage import (
    INSIDE,
    INSIDE_TRACKER,
    PAGE,
    WHOLE_FILE,
    Inside,
    change_block,
    change_meta,
    noise,
)
from tests.support.maintenance import PRIVATE, files, nothing_left, overwrite, pages_of, state, state_of
from tests.support.stores import CLASSES

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_verify_reports_nothing_for_undamaged_stores(stores, cls, victim):
    assert maintenance.verify(victim) == []
    with cls(victim) as store:
        assert maintenance.verify(victim) == []
        store["later"] = {"x": 1}
        store.sync()
        assert maintenance.verify(victim) == []


def test_verify_reports_nothing_for_an_empty_store(cls, path, target):
    cls(path).close()
    assert maintenance.verify(path) == []
    assert maintenance.repair(path, target) == (0, [], 0)
    assert maintenance.compact(path)[1] > 0
    assert state_of(cls, target) == state_of(cls, path) == []


@pytest.mark.parametrize("damage", WHOLE_FILE)
def test_damaged_file_is_found(stores, path, damage):
    shutil.copytree(stores[Tracker][0], path)
    data = path / "data.mdb"
    data.write_bytes(WHOLE_FILE[damage](data.read_bytes()))
    before = files(path)
    faults = maintenance.verify(path)
    assert faults
    assert not any(fault.removeprefix("data.mdb: ") in faults[0] for fault in faults[1:])
    assert files(path) == before


@pytest.mark.parametrize("damage", {**INSIDE, **INSIDE_TRACKER})
def test_damaged_records_are_found(stores, path, damage):
    one = Tracker if damage in INSIDE_TRACKER else random.Random(damage).choice(list(CLASSES.values()))
    shutil.copytree(stores[one][0], path)
    with Inside(path) as inside:
        {**INSIDE, **INSIDE_TRACKER}[damage][0](inside)
    before = files(path)
    found = maintenance.verify(path)
    assert found
    assert all(type(fault) is str and fault for fault in found)
    assert files(path)["data.mdb"] == before["data.mdb"]


def test_wrong_status_summary_is_found(stores, path):
    shutil.copytree(stores[Tracker][0], path)
    with Inside(path) as inside:
        change_block(lambda raw: bytes([raw[0], raw[1], raw[2] ^ 1]) + raw[3:])(inside)
    (fault,) = maintenance.verify(path)
    assert "status block 0" in fault


def test_claim_without_an_owner_is_found(path):
    with SharedTracker(path) as tracker:
        tracker.add_many(range(1000))
        tracker.sync()
    with lmdb.open(str(path), max_dbs=8) as db, db.begin(write=True) as txn:
        txn.put(claim_key(700), bytes(40))
    assert maintenance.verify(path) == ["task 700 has a claim, but is not marked as claimed"]


def test_unknown_entry_of_the_main_database_is_found(path):
    with SharedTracker(path) as tracker:
        tracker.add("a")
    with lmdb.open(str(path), max_dbs=8) as db, db.begin(write=True) as txn:
        txn.put(b"entry", b"of another program")
    (fault,) = maintenance.verify(path)
    assert "the list of databases has an entry that does not belong there" in fault


@pytest.mark.parametrize("is_damaged", [False, True])
def test_findings_during_writes_are_confirmed_in_a_read_transaction(victim, monkeypatch, is_damaged):
    """Without a read transaction, a writer may overwrite pages that are being checked."""
    seen = iter([(7, ["page 738 is overwritten"]), (8, ["damage"] if is_damaged else [])])
    monkeypatch.setattr(_verify, "find_page_faults", lambda name: next(seen))
    monkeypatch.setattr(_verify, "last_transaction", lambda name: 9)
    assert list(verify_store(str(victim))) == (["data.mdb: damage"] if is_damaged else [])
    assert next(seen, None) is None


def damage_log(path, change):
    with lmdb.open(str(path), max_dbs=8) as db:
        log = db.open_db(b"log", integerkey=True)
        with db.begin(write=True) as txn:
            pieces = list(txn.cursor(log))
            key, piece = change(pieces)
            if piece is None:
                txn.delete(key, db=log)
            else:
                txn.put(key, piece, db=log)


LOG_DAMAGE = {
    "a bit": lambda pieces: (pieces[-1][0], pieces[-1][1][:-1] + bytes([pieces[-1][1][-1] ^ 1])),
    "the head": lambda pieces: (pieces[0][0], b"\xff" * 8 + pieces[0][1][8:]),
    "a piece": lambda pieces: (pieces[1][0], None),
    "cut short": lambda pieces: (pieces[-1][0], pieces[-1][1][:5]),
}


@pytest.mark.parametrize("change", LOG_DAMAGE.values(), ids=LOG_DAMAGE)
def test_damaged_log_is_found_and_repair_keeps_the_rest(path, target, logged, change):
    assert maintenance.verify(path) == []
    damage_log(path, change)
    assert any("log" in fault for fault in maintenance.verify(path))
    kept, lost, _ = maintenance.repair(path, target)
    assert any("sync" in text for text in lost)
    assert maintenance.verify(target) == []
    found = state_of(POD, target)
    assert kept == len(found)
    expected = dict(logged)
    assert all(value == expected[key] for key, value in found)
    order = [key for key, _ in logged]
    assert [key for key, _ in found] == [key for key in order if key in dict(found)]


def test_verify_reports_a_folder_that_is_not_a_store(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(noise(10_000))
    for name, file in (("other", "note.txt"), ("original", "0.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("x")
    (tmp_path / "random").mkdir()
    (tmp_path / "random" / "data.mdb").write_bytes(noise(100_000))
    with lmdb.open(str(tmp_path / "lmdb"), max_dbs=2) as db:
        db.open_db(b"somebody's")
    for name in ("empty", "file", "other", "original", "random", "lmdb"):
        found = maintenance.verify(tmp_path / name)
        assert found, name
        assert str(tmp_path / name) in found[0]
    with pytest.raises(StoreNotFoundError):
        maintenance.verify(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_verify_and_repair_refuse_a_newer_format(stores, path, target):
    victim = shutil.copytree(stores[Tracker][0], path)
    with Inside(victim) as inside:
        change_meta(b"format", b"99")(inside)
    with pytest.raises(NewerFormatError):
        maintenance.verify(victim)
    with pytest.raises(NewerFormatError):
        maintenance.repair(victim, target)
    assert nothing_left(target)


def crash(*arguments):
    os.abort()


def be_killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def test_verify_reports_a_crash_of_the_engine(stores, path, target, monkeypatch):
    victim = shutil.copytree(stores[POD][0], path)
    monkeypatch.setattr(maintenance, "verify_store", crash)
    (fault,) = maintenance.verify(victim)
    assert "SIGABRT" in fault
    monkeypatch.setattr(maintenance, "copy_store", crash)
    with pytest.raises(PersistentOrderedDictIntegrityError, match="SIGABRT"):
        maintenance.copy(victim, target)
    monkeypatch.setattr(maintenance, "verify_store", be_killed)
    with pytest.raises(StorageError, match="SIGKILL"):
        maintenance.verify(victim)
    assert nothing_left(target)


def flips(rng):
    """Flip some bits of a page."""

    def make(page):
        for _ in range(rng.choice((1, 3, 20))):
            page[rng.randrange(rng.choice((16, 60, PAGE)))] ^= 1 << rng.randrange(8)
        return page

    return make


def has_no_wrong_data(before, found, lost, undone, after):
    """Check that every kept value is right and at its position, and that every missing one is reported."""
    index = {row[0]: position for position, row in enumerate(before)}
    known = [row for row in found if row[0] in index]
    changed = [row for row in known if row != before[index[row[0]]]]
    assert [index[row[0]] for row in known] == sorted(index[row[0]] for row in known) or lost
    missing = len(before) - len(known)
    assert not missing or lost
    assert not changed or lost or undone or after == []


@pytest.mark.storm
def test_flipped_bit_never_crashes_and_is_always_reported(stores, path, tmp_path, seed):
    """A changed digit inside a value cannot be found."""
    rng = random.Random(seed)
    for number in range(25):
        one = rng.choice(list(CLASSES.values()))
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(stores[one][0], path)
        overwrite(path, rng.randrange(pages_of(path)), flips(rng))
        before = files(path)
        faults = maintenance.verify(path)
        try:
            kept, lost, undone = maintenance.repair(path, tmp_path / str(number))
        except (NewerFormatError, PersistentOrderedDictIntegrityError, NotAStoreError):
            assert faults
            continue
        assert files(path) == before
        after = maintenance.verify(tmp_path / str(number))
        assert after == []
        kind = PRIVATE.get(one, one)
        with kind(tmp_path / str(number)) as store:
            found = state(store)
        assert len(found) == kept
        has_no_wrong_data(stores[one][1], found, lost, undone, faults)
        if not faults:
            assert (kept, lost, undone) == (len(stores[one][1]), [], 0)
