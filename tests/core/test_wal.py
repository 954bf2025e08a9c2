"""The write-ahead log of a private store: every reader sees it, and a checkpoint empties it."""

from __future__ import annotations

import os
import random
import signal

import lmdb
import pytest
from lmdb.verify import verify

from tastypy_fast import (
    POD,
    DiskFullError,
    PersistentOrderedDictIntegrityError,
    SharedPOD,
    SharedTracker,
    Tracker,
)
from tastypy_fast._store.options import FORMAT
from tastypy_fast._store.store import Store
from tests.support.children import Child, result_of_child
from tests.support.stores import logging, value_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SHARED = {POD: SharedPOD, Tracker: SharedTracker}


# Contents of the log


@pytest.fixture(params=[POD, Tracker], ids=["pod", "tracker"])
def cls(request):
    return request.param


def log_of(store):
    return store._store.wal


def scattered(cls, seed, most=200):
    """Keys and values in random order."""
    numbers = list(range(most))
    random.Random(seed).shuffle(numbers)
    return {f"{number * 2654435761 % 2**32:08x}": value_for(cls, number) for number in numbers}


@pytest.fixture
def logged(cls, path):
    """The contents of a store of a killed process, all of them in the log."""
    def live(pipe):
        with logging(10**6):
            store = cls(path)
            for seed in range(4):
                store.update(scattered(cls, seed, 50 * (seed + 1)))
                store.sync()
            for key in list(store)[::7]:
                del store[key]
            store.sync()
            if cls is Tracker:
                for key in list(store)[::3]:
                    store.mark_done(key)
                store.sync()
            assert len(log_of(store)) > len(store)
            pipe.send(store.items())
            os.kill(os.getpid(), signal.SIGKILL)

    with Child(live) as child:
        (expected,) = child.receive_all()
        assert child.wait() == -signal.SIGKILL
    return expected


def test_log_of_a_killed_process_is_read(cls, path, logged):
    assert verify(path) == []
    with cls(path, mode="r") as reader:
        reader._check()
        assert reader.items() == logged
        assert len(reader) == len(logged)
        assert list(reversed(reader)) == [key for key, _ in logged][::-1]
        assert all(reader[key] == value for key, value in logged)
    with cls(path) as store:
        store._check()
        assert store.items() == logged
        store["one more"] = value_for(cls, "one more")
    with cls(path) as store:
        assert not log_of(store), "close() merges"
        store._check()
        assert [key for key, _ in store.items()] == [key for key, _ in logged] + ["one more"]
    assert verify(path) == []


def test_shared_store_starts_with_the_contents_of_the_log(cls, path, logged):
    with SHARED[cls](path) as store:
        store._check()
        assert store.items() == logged
        store["one more"] = value_for(cls, 1)
    with cls(path) as store:
        assert not log_of(store)
        assert len(store) == len(logged) + 1


def test_reader_sees_the_log_through_syncs_and_checkpoints(cls, path):
    with logging(120), cls(path, sync_at=10**6) as store:

        def read(pipe):
            with cls(path, mode="r") as reader:
                while (expected := pipe.recv()) is not None:
                    reader._check()
                    pipe.send((len(reader), reader.items()) == (len(expected), expected))

        rng = random.Random(0)
        lengths = set()
        with Child(read) as child:
            for number in range(30):
                for key in range(rng.choice((1, 5, 30))):
                    store[rng.randrange(100)] = value_for(cls, [number, key])
                if store and rng.random() < 0.5:
                    del store[rng.choice(list(store))]
                if rng.random() < 0.2:
                    store[f"large {number}"] = value_for(cls, "x" * 2_000_000)
                store.sync()
                lengths.add(len(log_of(store)))
                child.pipe.send(store.items())
                assert child.pipe.recv(), number
            child.pipe.send(None)
            assert child.wait() == 0
        assert len(lengths) > 10
        assert 0 in lengths


def test_readers_loop_continues_during_a_checkpoint(cls, path):
    with logging(10**6), cls(path) as store:
        store.update(scattered(cls, 0))
        store.sync()

        def read(pipe):
            with cls(path, mode="r") as reader:
                loop = reader.iteritems()
                found = [next(loop) for _ in range(30)]
                pipe.send("begun")
                pipe.recv()
                pipe.send(found + list(loop))

        with Child(read) as child:
            child.pipe.recv()
            store._store.checkpoint()
            assert not len(log_of(store))
            child.pipe.send("go on")
            assert child.pipe.recv() == store.items()
            assert child.wait() == 0


@pytest.mark.parametrize("at", range(1, 9))
def test_interrupted_checkpoint_is_repeated(cls, path, logged, monkeypatch, at):
    """A process is killed between two transactions of the checkpoint, while a reader has the store open."""
    monkeypatch.setattr("tastypy_fast._store.store.CHECKPOINT_RUN", 40)

    def live(pipe):
        write = Store.write
        count = 0

        def write_some(self, work):
            nonlocal count
            count += 1
            if count == at:
                pipe.send("in the middle")
                pipe.recv()
            return write(self, work)

        store = cls(path)
        monkeypatch.setattr(Store, "write", write_some)
        store._store.checkpoint()

    with Child(live) as child:
        assert child.pipe.recv() == "in the middle"
        with cls(path, mode="r") as reader:
            reader._check()
            assert reader.items() == logged
            child.kill()
            assert child.wait() == -signal.SIGKILL
            assert reader.items() == logged
            assert len(reader) == len(logged)
    assert verify(path) == []
    with cls(path) as store:
        store._check()
        assert store.items() == logged
        store._store.checkpoint()
        store._check()
        assert store.items() == logged
        assert len(store) == len(logged)
    assert verify(path) == []


def test_full_disk_during_a_checkpoint_loses_nothing(cls, path, monkeypatch):
    monkeypatch.setattr("tastypy_fast._store.store.CHECKPOINT_RUN", 20)
    write = Store.write
    left = 3

    def write_some(self, work):
        nonlocal left
        left -= 1
        if left == 0:
            raise DiskFullError(28, "no room (made up)", str(path))
        return write(self, work)

    with logging(300), cls(path, sync_at=10**6) as store:
        expected = scattered(cls, 1)
        store.update(dict(list(expected.items())[:100]))
        store.sync()
        monkeypatch.setattr(Store, "write", write_some)
        store.update(expected)
        with pytest.raises(DiskFullError):
            store.sync()
        assert [key for key, _ in store.items()] == list(expected)
        store.sync()
        assert store.dirty() == set()
        store._check()
    with cls(path) as store:
        store._check()
        assert list(store) == list(expected)


@pytest.mark.parametrize("failing", ["the sync", "the merge after it"])
def test_failed_sync_of_added_tasks_adds_each_task_once(path, monkeypatch, failing):
    """The first sync fails on a full disk, and the next one succeeds."""
    write = Store.write
    keys = list(scattered(Tracker, 0))

    def write_some(self, work):
        if failing == "the sync" or self.wal:
            raise DiskFullError(28, "no room (made up)", str(path))
        return write(self, work)

    with logging(100), Tracker(path, sync_at=100) as tracker:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", write_some)
            with pytest.raises(DiskFullError):
                tracker.add_many(keys[:100])
        assert list(tracker) == keys[:100]
        tracker.add_many_if_absent(keys)
        assert list(tracker) == keys
        tracker._check()
    with Tracker(path) as tracker:
        tracker._check()
        assert list(tracker) == keys


def test_damaged_log_batch_raises_an_error(cls, path, logged):
    with lmdb.open(str(path), max_dbs=8) as db:
        log = db.open_db(b"log", integerkey=True)
        with db.begin(write=True) as txn:
            pieces = list(txn.cursor(log))
            key, piece = random.Random(0).choice(pieces)
            txn.put(key, piece[:-1] + bytes([piece[-1] ^ 1]), db=log)
    for mode in ("r", "w"):
        with pytest.raises(PersistentOrderedDictIntegrityError, match="log"):
            cls(path, mode=mode)


def test_store_without_a_log_gets_one(cls, path):
    """The store has format 1."""
    with cls(path) as store:
        store.update(scattered(cls, 0))
    with lmdb.open(str(path), max_dbs=8) as db, db.begin(write=True) as txn:
        txn.drop(db.open_db(b"log", txn=txn))
        txn.put(b"format", b"1", db=db.open_db(b"meta", txn=txn))
    with cls(path, mode="r") as reader:
        assert list(reader) == list(scattered(cls, 0))
    with cls(path) as store:
        assert log_of(store) is not None
        store._check()
    with lmdb.open(str(path), max_dbs=8) as db, db.begin() as txn:
        assert txn.get(b"format", db=db.open_db(b"meta", txn=txn)) == str(FORMAT).encode()


def test_forked_child_reads_the_log(cls, path):
    with logging(10**6), cls(path) as store:
        store.update(scattered(cls, 0))
        store.sync()

        def read(pipe):
            pipe.send((list(store), len(store), store.get(next(iter(store)))))

        assert result_of_child(read) == [(list(store), len(store), store.get(next(iter(store))))]


# When the log is used


def test_only_scattered_changes_go_into_the_log(cls, path):
    with cls(path) as store:
        store.update((number, value_for(cls, number)) for number in range(5000))
        store.sync()
        assert not log_of(store), "new keys in order"
        for key in store:
            store[key] = value_for(cls, "in order")
        store.sync()
        assert not log_of(store)
        numbers = random.Random(0).sample(range(5000), 1000)
        store.update((number, value_for(cls, "in no order")) for number in numbers)
        store.sync()
        assert len(log_of(store)) >= 1000
        store._check()
        store["large"] = value_for(cls, "x" * 2_000_000)
        store.sync()
        assert not log_of(store), "large values do not go through it"
        store._check()


def test_large_log_is_checkpointed(cls, path, monkeypatch):
    monkeypatch.setattr(Store, "checkpoint_at", 5000)
    with cls(path) as store:
        largest = 0
        for seed in range(12):
            store.update(scattered(cls, seed, 1000))
            store.sync()
            largest = max(largest, len(log_of(store)))
        assert 2000 <= largest < 5000 + 3000
        store._check()
        assert store.items() == [(key, store[key]) for key in scattered(cls, 0, 1000)]


@pytest.mark.parametrize(("records", "limit"), [(100, 50), (1800, 100), (5000, 150)])
def test_checkpoint_waits_for_more_changes_of_the_index_in_a_larger_store(path, monkeypatch, records, limit):
    """It waits for 50 new keys for each 1,000 records, for 50 to 150 of them, but always for 50 changed values."""
    monkeypatch.setattr("tastypy_fast._store.store.CHECKPOINT_GROWS_FROM", 1000)
    monkeypatch.setattr(Store, "checkpoint_at_most", 150)
    with logging(50), POD(path, sync_at=10**6) as store:

        def lengths(first):
            found = []
            for start in range(first, first + 2 * limit, 10):
                store.update((number, number) for number in range(start, start + 10))
                store.sync()
                found.append(len(log_of(store)))
            return found

        store.update((number, "") for number in range(records))
        store.sync()
        store._store.checkpoint()
        assert lengths(records) == [*range(10, limit, 10), 0] * 2
        assert lengths(0)[:5] == [10, 20, 30, 40, 0]
        store._check()


def entries_on_disk(path):
    with lmdb.open(str(path), max_dbs=8, readonly=True) as db, db.begin() as txn:
        return [txn.stat(db.open_db(name, txn=txn, create=False))["entries"] for name in (b"values", b"order")]


def test_new_records_are_written_once_and_only_their_index_goes_into_the_log(cls, path):
    def live(pipe):
        with logging(10**6):
            store = cls(path)
            store.update(scattered(cls, 0))
            store.sync()
            pipe.send(len(log_of(store)))
            # A key that is moved to the end is new there, and its old record is deleted.
            first = next(iter(store))
            del store[first]
            store.sync()
            store[first] = value_for(cls, "again")
            store["new"] = value_for(cls, "new")
            store.sync()
            pipe.send(store.items())
            os.kill(os.getpid(), signal.SIGKILL)

    with Child(live) as child:
        logged, expected = child.receive_all()
        assert child.wait() == -signal.SIGKILL
    assert logged == 200 + (cls is Tracker)
    # These are all keys that were ever added, because the log contains deletions.
    assert entries_on_disk(path) == [202, 0]
    assert [key for key, _ in expected] == [*list(scattered(cls, 0))[1:], next(iter(scattered(cls, 0))), "new"]
    with cls(path, mode="r") as reader:
        reader._check()
        assert reader.items() == expected
    with cls(path) as store:
        store._check()
        assert store.items() == expected
    assert entries_on_disk(path) == [201, 201]
    assert verify(path) == []


def test_key_added_by_another_instance_is_not_added_twice(cls, path):
    """The cached fact that a key does not exist is checked again."""
    with logging(10**6), cls(path, clone=False) as one, cls(path, clone=False) as other:
        keys = list(scattered(cls, 0))
        one.update((key, value_for(cls, 1)) for key in keys)
        expected = one.items()
        other.update((key, value_for(cls, 2)) for key in keys[::2])
        other.sync()
        one.sync()
        one._check()
        assert sorted(one) == sorted(keys)
        assert len(one) == len(keys)
        assert {key: one[key] for key in keys} == dict(expected)
    with cls(path) as store:
        store._check()
        assert len(store) == 200


def test_status_block_may_change_more_often_than_it_has_tasks(path):
    def live(pipe):
        with logging(10**6):
            tracker = Tracker(path)
            tracker.add_many(range(600))
            tracker.sync()
            rng = random.Random(0)
            for _ in range(30):
                for key in rng.sample(range(600), 200):
                    tracker.mark_done(key) if rng.random() < 0.5 else tracker.mark_not_done(key)
                    tracker.increment_tries(key)
                tracker.sync()
                tracker._check()
            # A block is deleted and created again.
            for key in range(100, 600):
                del tracker[key]
            tracker.sync()
            tracker.add_many(range(700, 705))
            tracker.sync()
            pipe.send((log_of(tracker).log_size, [(key, tracker.done(key), tracker.tries(key)) for key in tracker]))
            os.kill(os.getpid(), signal.SIGKILL)

    with Child(live) as child:
        ((size, expected),) = child.receive_all()
        assert child.wait() == -signal.SIGKILL
    assert size > 30 * 200 * 8
    for mode in "rww":
        with Tracker(path, mode=mode) as tracker:
            tracker._check()
            assert [(key, tracker.done(key), tracker.tries(key)) for key in tracker] == expected
    assert verify(path) == []
