"""Compact a store: free space is returned, and a kill at any step loses nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import ExitStack

import lmdb
import pytest

from tastypy_fast import (
    POD,
    SharedPOD,
    SharedTracker,
    StoreInUseError,
    Tracker,
    maintenance,
)
from tastypy_fast._lmdb import engine
from tastypy_fast._lmdb.file_locks import EngineLock
from tastypy_fast.maintenance import _compact
from tests.support.children import Child
from tests.support.damage import PAGE
from tests.support.maintenance import files, leave_a_log, state, state_of
from tests.support.stores import logging, value_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_compact_returns_free_space_to_the_file_system(cls, path):
    with cls(path, file_size=77) as store:
        store.update((number, value_for(cls, "x" * 500)) for number in range(3000))
        store.sync()
        for number in range(10, 3000):
            del store[number]
    size = os.stat(path / "data.mdb").st_size
    before, after = maintenance.compact(path)
    assert before >= size > 1_500_000
    assert after == os.stat(path / "data.mdb").st_size < 100_000
    assert maintenance.verify(path) == []
    with cls(path, file_size=77) as store:
        store._check()
        assert list(store) == list(range(10))
        store["new"] = value_for(cls, 1)
        assert list(store)[-1] == "new"
    assert maintenance.compact(path)[1] <= after + 2 * PAGE
    assert maintenance.verify(path) == []


def test_compact_keeps_all_data(stores, cls, victim):
    maintenance.compact(victim)
    assert state_of(cls, victim) == stores[cls][1]


def test_compact_includes_the_changes_in_the_log(path):
    with logging(10**6):
        with Child(leave_a_log, path) as child:
            expected = child.pipe.recv()
            child.kill()
        maintenance.compact(path)
        assert state_of(POD, path) == expected
    with lmdb.open(str(path), max_dbs=8) as db, db.begin() as txn:
        assert txn.stat(db.open_db(b"log", txn=txn, create=False))["entries"] == 0


def hold(pipe, cls, path, mode):
    options = {} if issubclass(cls, SharedPOD) else {"mode": mode}
    with cls(path, **options):
        pipe.send("open")
        pipe.recv()


@pytest.mark.parametrize("mode", ["w", "r"])
def test_compact_refuses_while_the_store_is_open(stores, cls, victim, mode):
    before = files(victim)["data.mdb"]
    with Child(hold, cls, victim, mode) as child:
        assert child.pipe.recv() == "open"
        with pytest.raises(StoreInUseError):
            maintenance.compact(victim)
    options = {} if issubclass(cls, SharedPOD) else {"mode": mode}
    with cls(victim, **options) as store:
        with pytest.raises(StoreInUseError):
            maintenance.compact(victim)
        assert state(store) == stores[cls][1]
    assert files(victim)["data.mdb"] == before or issubclass(cls, SharedPOD)
    maintenance.compact(victim)
    assert state_of(cls, victim) == stores[cls][1]


def in_time(work):
    """The result of ``work()``, which is repeated until the processes that block it have ended."""
    until = time.monotonic() + 60
    while True:
        try:
            return work()
        except StoreInUseError:
            assert time.monotonic() < until
            time.sleep(0.002)


STEPS = [(engine, "write_copy"), (EngineLock, "invalidate"), (os, "rename"), (os, "fsync"), (os, "chmod"),
         (engine, "open_engine")]


def die_at(pipe, path, owner, name, after, count):
    """Compact, and die by SIGKILL before or after the given call of a function."""
    function = getattr(owner, name)
    left = count

    def deadly(*arguments, **keywords):
        nonlocal left
        left -= 1
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **keywords)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)
    pipe.send(list(_compact.compact_store(str(path))))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_kill_at_any_step_of_compact_loses_nothing(stores, path, owner, name, after):
    for one in (Tracker, SharedTracker):
        for count in (1, 2, 3, 4):
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(stores[one][0], path)
            with Child(die_at, path, owner, name, after, count) as child:
                told = child.receive_all()
                assert child.wait() == (0 if told else -signal.SIGKILL)
            assert maintenance.verify(path) == []
            assert state_of(one, path) == stores[one][1]
            maintenance.compact(path)
            assert "data.compacted" not in os.listdir(path)
            assert state_of(one, path) == stores[one][1]
            if told:
                break


def compact_on(pipe, path):
    pipe.send("begun")
    while True:
        in_time(lambda: maintenance.compact(path))


@pytest.mark.storm
def test_kill_at_a_random_point_of_compact_loses_nothing(stores, cls, victim):
    """The caller is killed, and its subprocess ends with it."""
    rng = random.Random(cls.__name__)
    for _ in range(8):
        with Child(compact_on, victim) as child:
            assert child.pipe.recv() == "begun"
            for _ in range(rng.randrange(10_000_000)):
                pass
            child.kill()
            assert child.wait() == -signal.SIGKILL
        assert in_time(lambda: state_of(cls, victim)) == stores[cls][1]
        assert maintenance.verify(victim) == []


def read_on(pipe, cls, path):
    """Open, read and close repeatedly. Returns the number of the last change that was seen."""
    last = -1
    rounds = 0
    while not pipe.poll():
        with cls(path, mode="r") as store:
            found = store["generation"]["value"]
            assert found >= last
            assert len(store) == 501
            last = found
        rounds += 1
    pipe.recv()
    pipe.send((last, rounds))


@pytest.mark.storm
@pytest.mark.parametrize("one", [POD, Tracker])
def test_opening_during_compaction_sees_the_newest_data(path, one):
    with one(path) as store:
        store["generation"] = {"value": 0}
        store.update((number, {"value": "x" * 300}) for number in range(500))
    with ExitStack() as stack:
        readers = [stack.enter_context(Child(read_on, one, path)) for _ in range(2)]
        for disk_version in range(1, 13):
            with one(path) as store:
                store["generation"] = {"value": disk_version}
                for number in range(500):
                    store[number] = {"value": "y" * (300 + disk_version)}
            in_time(lambda: maintenance.compact(path))
            with one(path, mode="r") as store:
                assert store["generation"]["value"] == disk_version
        for reader in readers:
            reader.pipe.send("stop")
        for reader in readers:
            ((last, rounds),) = reader.receive_all()
            assert reader.wait() == 0
            assert 0 <= last <= 12
            assert rounds
    assert maintenance.verify(path) == []
    with one(path) as store:
        store._check()
