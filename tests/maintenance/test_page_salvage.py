"""Repair a store whose pages are lost or damaged: every readable page is used."""

from __future__ import annotations

import os
import random
import shutil

import pytest

from tastypy_fast import (
    POD,
    PersistentOrderedDictIntegrityError,
    Tracker,
    maintenance,
)
from tests.support.damage import LONG_KEY, NUMBER, Inside, noise
from tests.support.maintenance import overwrite, page_that, pages_of, state_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.mark.parametrize("one", [POD, pytest.param(Tracker, marks=pytest.mark.storm)])
def test_repair_keeps_the_readable_records_if_any_page_is_lost(stores, path, tmp_path, one, seed):
    rng = random.Random(seed)
    before = stores[one][1]
    pages = rng.sample(range(2, pages_of(stores[one][0])), 12)
    for number in pages:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(stores[one][0], path)
        overwrite(path, number, lambda page: noise(len(page)))
        new = tmp_path / str(number)
        kept, lost, undone = maintenance.repair(path, new)
        assert maintenance.verify(new) == []
        found = state_of(one, new)
        assert kept == len(found)
        there = {row[0] for row in found}
        told = "\n".join(lost)
        expected = [row for row in before if row[0] in there]
        assert [row[0] for row in found] == [row[0] for row in expected]
        for row, right in zip(found, expected, strict=True):
            assert row[1] == right[1] or (one is Tracker and row[1] == {} and f"the data of task {row[0]!r}" in told)
        for row in before:
            if row[0] not in there:
                assert repr(row[0])[:40] in told or "too long" in told
        if one is Tracker:
            wrong = [row for row, right in zip(found, expected, strict=True) if row != right]
            assert len(wrong) <= undone
            assert not any(row[2] for row in wrong)


def test_repair_finds_pages_whose_parent_page_is_lost(stores, cls, victim, target):
    """The root of every tree, and the list of databases, are lost."""
    branches = list(page_that(victim, lambda flags, page: flags == 1))
    assert len(branches) >= 2
    for number in branches:
        overwrite(victim, number, lambda page: bytes(len(page)))
    kept, lost, undone = maintenance.repair(victim, target)
    assert (kept, undone) == (len(stores[cls][1]), 0)
    assert all("overwritten" in text for text in lost)
    assert state_of(cls, target) == stores[cls][1]
    for number in page_that(victim, lambda flags, page: flags == 2 and b"values" in page and b"meta" in page):
        overwrite(victim, number, lambda page: bytes(len(page)))
    kept, lost, undone = maintenance.repair(victim, target.parent / "again")
    found = state_of(cls, target.parent / "again")
    assert [row[:2] for row in found] == [row[:2] for row in stores[cls][1]]
    assert undone == 0
    assert found == stores[cls][1]


def test_repair_uses_the_remaining_meta_page_if_one_is_lost(stores, path, target):
    for number in (0, 1):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(stores[POD][0], path)
        for value in range(3):
            with POD(path) as store:
                store["more"] = value
        overwrite(path, number, lambda page: noise(len(page)))
        kept, lost, _ = maintenance.repair(path, target.parent / str(number))
        assert lost
        assert kept == len(stores[POD][1]) + 1
        assert maintenance.verify(target.parent / str(number)) == []
    overwrite(path, 0, lambda page: noise(len(page)))
    with pytest.raises(PersistentOrderedDictIntegrityError, match="first two pages"):
        maintenance.repair(path, target)
    assert not target.exists()


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_repair_keeps_the_readable_records_of_a_truncated_file(stores, cls, victim, target, part):
    os.truncate(victim / "data.mdb", int(os.stat(victim / "data.mdb").st_size * part))
    try:
        kept, lost, _ = maintenance.repair(victim, target)
    except PersistentOrderedDictIntegrityError:
        return
    assert lost
    assert maintenance.verify(target) == []
    if any("the kind of the store cannot be read" in text for text in lost):
        cls = Tracker if any("a ProgressTracker" in text for text in lost) else POD
    found = state_of(cls, target)
    assert kept == len(found)
    values = {row[0]: row[1] for row in stores[cls][1]}
    assert all(values[row[0]] == row[1] or not row[1] for row in found)


def test_repair_keeps_one_of_two_records_with_the_same_key(stores, path, target):
    shutil.copytree(stores[POD][0], path)
    with Inside(path) as inside:
        inside.put(7000, inside.record(5))
    kept, lost, _ = maintenance.repair(path, target)
    assert kept == len(stores[POD][1])
    assert any("twice" in text for text in lost)
    assert maintenance.verify(target) == []
    with POD(target) as store:
        assert list(store)[-1] == "key 5"
        assert store[LONG_KEY] == {"number": 400}


def number_record(path, before, after):
    """Give a record another sequence number, which no other data has."""
    with Inside(path) as inside:
        record = inside.record(before)
    file = path / "data.mdb"
    data = file.read_bytes()
    assert data.count(NUMBER.pack(before) + record) == 1
    file.write_bytes(data.replace(NUMBER.pack(before) + record, NUMBER.pack(after) + record))


@pytest.mark.parametrize("after", [4, 6, 9000])
@pytest.mark.parametrize("one", [POD, Tracker])
def test_record_at_a_wrong_position_is_reported(stores, path, target, one, after):
    shutil.copytree(stores[one][0], path)
    number_record(path, 5, after)
    assert maintenance.verify(path)
    kept, lost, undone = maintenance.repair(path, target)
    assert maintenance.verify(target) == []
    found, before = state_of(one, target), stores[one][1]
    assert kept == len(before)
    assert sorted(map(repr, (row[:2] for row in found))) == sorted(map(repr, (row[:2] for row in before)))
    displaced = {row[0] for row, right in zip(found, before, strict=True) if row[0] != right[0]}
    assert any("'key 5'" in text and "position" in text for text in lost)
    if one is Tracker:
        # No task gets the status of another task.
        assert undone >= 1
        rows = {row[0]: row for row in before}
        wrong = [row for row in found if row != rows[row[0]]]
        assert len(wrong) <= undone
        assert not any(row[2] for row in wrong)
    assert displaced
