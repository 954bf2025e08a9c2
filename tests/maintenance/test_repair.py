"""Repair a store: readable records are kept, and losses are reported."""

from __future__ import annotations

import random
import shutil
import tracemalloc

import pytest

from tastypy_fast import (
    POD,
    NotAStoreError,
    SharedTracker,
    StoreInUseError,
    Tracker,
    maintenance,
)
from tastypy_fast._inspect.lock_holders import find_lock_holders
from tastypy_fast._inspect.store_info import read_run
from tastypy_fast._lmdb.data_file import find_databases
from tastypy_fast.maintenance._repair import repair_store
from tastypy_fast.maintenance._verify import verify_store
from tests.support.children import Child, result_of_child
from tests.support.damage import INSIDE, INSIDE_TRACKER, Inside
from tests.support.maintenance import files, nothing_left, state_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_repair_of_an_undamaged_store_loses_nothing(stores, cls, victim, target):
    before = files(victim)
    assert maintenance.repair(victim, target) == (len(stores[cls][1]), [], 0)
    assert files(victim) == before
    assert maintenance.verify(target) == []
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]
    assert state_of(cls, target) == stores[cls][1]


def test_repair_includes_the_changes_in_the_log(path, target, logged):
    assert maintenance.repair(path, target) == (len(logged), [], 0)
    assert state_of(POD, target) == logged


@pytest.mark.parametrize("kind", [Tracker, SharedTracker])
def test_repair_keeps_the_limit_of_tries_and_the_facts_of_the_last_run(kind, path, target):
    with kind(path, max_tries=7, init={"a": {}}) as tracker:
        tracker.run(len, executor="inline")
    assert maintenance.repair(path, target) == (1, [], 0)
    with kind(target) as tracker:
        assert tracker.kept_max_tries == 7
        assert read_run(tracker._store)["reason"] == "finished"


def test_repair_finds_the_errors_of_tasks_whose_status_is_lost(path, target):
    with Tracker(path, init={"a": {"x": 1}, "b": {}, "c": {}}) as tracker:
        tracker.record_error("a", "broken")
        tracker.record_error("c", "broken")
        tracker.sync()
        tracker._store.write(lambda txn: txn.delete(bytes(8), db=tracker._store.status))
    assert maintenance.repair(path, target).undone == 3
    with Tracker(target) as tracker:
        assert {key for key in tracker if "_error" in tracker[key]} == {"a", "c"}
        tracker.mark_done_many("ac")
        assert [task for task in tracker.values() if "_error" in task] == []


def test_repair_refuses_while_a_writer_has_the_store_open(cls, victim, target):
    with cls(victim), pytest.raises(StoreInUseError):
        maintenance.repair(victim, target)
    assert nothing_left(target)


# Damage to the index, the counts and other data that can be rebuilt. None of it is a loss.
REBUILT = {
    "a record without index entry", "an index entry cut short", "an index entry out of range",
    "an index entry of a number never given", "an index entry of another key's record",
    "a digest of another key's record", "no index", "no format", "a format that does not parse", "no kind",
    "an unknown kind", "a next number cut short",
}
# Damage to the record of one task whose key is still known.
WITHOUT_DATA = {"JSON that does not parse", "JSON that is not UTF-8", "no payload", "said to be compressed",
                "data that is no dict", "unknown format of a record"}
STATUSES = {"a status block cut short", "an empty status block", "a status block too long", "no status block",
            "no statuses"}


@pytest.mark.parametrize("damage", [damage for damage in {**INSIDE, **INSIDE_TRACKER} if damage != "no values"])
@pytest.mark.parametrize("one", [pytest.param(POD, marks=pytest.mark.storm), Tracker])
def test_damaged_records_are_repaired(stores, path, target, one, damage):
    if damage in INSIDE_TRACKER and one is POD:
        pytest.skip("a plain dict has no statuses")
    shutil.copytree(stores[one][0], path)
    with Inside(path) as inside:
        {**INSIDE, **INSIDE_TRACKER}[damage][0](inside)
    if {b"order", b"meta"} - set(find_databases(str(path / "data.mdb"))):
        with pytest.raises(NotAStoreError):  # These are LMDB's pages, but nothing shows that they belong to a store.
            maintenance.repair(path, target)
        return
    kept, lost, undone = maintenance.repair(path, target)
    assert maintenance.verify(target) == []
    found, before = state_of(one, target), stores[one][1]
    assert kept == len(found)
    rows = {row[0]: row for row in found}
    if damage in REBUILT:
        assert (found, lost, undone) == (before, [], 0)
    elif damage == "a record out of range":
        assert rows["key 5"][1] == {"number": 5, "text": "y" * 50}
        assert lost
    elif damage in STATUSES:
        assert [row[:2] for row in found] == [row[:2] for row in before]
        assert undone == len(before)
        assert not any(row[2] for row in found)
        assert any("kept as not done" in text for text in lost)
    elif damage == "a status without record":
        assert found == before
        assert [text for text in lost if "450" in text]
    elif damage == "a record without status":
        assert found == [row if row[0] != "key 5" else ("key 5", row[1], False, False, 0) for row in before]
        assert undone == 1
        assert "'key 5'" in lost[0]
    elif damage in WITHOUT_DATA and one is Tracker:
        if damage != "unknown format of a record":
            assert [row for row in found if row[0] != "key 5"] == [row for row in before if row[0] != "key 5"]
        assert "key 5" in rows
        if damage not in ("no payload",):
            assert lost or rows["key 5"] == before[5]
    else:
        assert [row for row in before if row[0] != "key 5"] == [row for row in found if row[0] in dict_of(before)]
        assert any("'key 5'" in text for text in lost)


def dict_of(rows):
    return {row[0]: row for row in rows if row[0] != "key 5"}


def test_rescued_store_has_no_durability_until_it_is_opened(victim, target):
    """It was called unsafe, because the repair itself does not need to survive a power cut."""
    maintenance.repair(victim, target)
    holders = find_lock_holders(str(target))
    assert (holders.how, holders.durability) == ("nobody", "")


def repair_on(pipe, path, folder):
    pipe.send("begun")
    for number in range(10**6):
        maintenance.repair(path, folder / str(number))


def test_killed_repair_leaves_a_complete_store_or_none(stores, cls, victim, target):
    rng = random.Random(cls.__name__)
    for number in range(3):
        folder = target.parent / str(number)
        with Child(repair_on, victim, folder) as child:
            assert child.pipe.recv() == "begun"
            for _ in range(rng.randrange(20_000_000)):
                pass
            child.kill()
            child.wait()
        for made in folder.iterdir() if folder.exists() else ():
            # The leftover of a killed repair has a longer name.
            if made.name.isdecimal():
                assert state_of(cls, made) == stores[cls][1]
    assert state_of(cls, victim) == stores[cls][1]


def peak_of(pipe, work, *arguments):
    tracemalloc.start()
    result = list(work(*map(str, arguments)))
    pipe.send((result, tracemalloc.get_traced_memory()[1]))


@pytest.mark.storm
def test_memory_does_not_grow_with_the_store(tmp_path):
    peaks = []
    for count in (3_000, 18_000):
        path = tmp_path / str(count)
        with Tracker(path) as tracker:
            tracker.update((number, {"x": number}) for number in range(count))
        new = tmp_path / f"{count}.new"
        new.mkdir()
        ((result, repairing),) = result_of_child(peak_of, repair_store, path, new)
        assert result == [(count, [], 0)]
        ((result, verifying),) = result_of_child(peak_of, verify_store, path)
        assert result == []
        peaks.append((repairing, verifying))
    for small, large in zip(*peaks, strict=True):
        assert large < small + 300_000
