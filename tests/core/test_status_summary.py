"""The summary of all block headers, which a tracker saves for the process that opens it next."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import lmdb
import pytest

from tastypy_fast import PersistentOrderedDictIntegrityError, SharedTracker, Tracker, maintenance
from tastypy_fast._lmdb import engine
from tests.support.children import Child, run

SIZE = 3_000
LEFT = [7, 1_999, 2_600]


def left_in(path):
    """The summary that a store has on disk. An instance that has the store open may be given."""
    if not isinstance(path, Path):
        with path._store.begin_reading() as txn:
            return txn.get(b"heads", db=path._store.meta)
    with lmdb.open(str(path), max_dbs=8, readonly=True, lock=False) as db:
        meta = db.open_db(b"meta", create=False)
        with db.begin() as txn:
            return txn.get(b"heads", db=meta)


def put_into(path, name, key, value):
    with lmdb.open(str(path), max_dbs=8) as db, db.begin(write=True) as txn:
        database = db.open_db(name, txn=txn, create=False, integerkey=name != b"meta")
        if value is None:
            assert txn.delete(key, db=database)
        else:
            txn.put(key, value, db=database)


@pytest.fixture
def nearly_done(path):
    """A closed tracker of which three tasks are left."""
    with Tracker(path) as tracker:
        tracker.add_many(range(SIZE))
        for key in range(SIZE):
            if key not in LEFT:
                tracker.mark_done(key)
        tracker._check()
    assert left_in(path)
    return path


def check_reads(tracker, left=LEFT, size=SIZE):
    assert list(tracker.todo_keys()) == left
    assert (len(tracker), tracker.num_done()) == (size, size - len(left))
    tracker._check()


@pytest.mark.parametrize("mode", ["w", "r"])
def test_scan_reads_only_blocks_with_open_tasks(nearly_done, mode):
    """Block 1, tasks 500 to 999, is full of tasks that a scan must not read."""
    number = (1).to_bytes(8, sys.byteorder)
    with lmdb.open(str(nearly_done), max_dbs=8) as db, db.begin() as txn:
        block = txn.get(number, db=db.open_db(b"status", txn=txn, create=False, integerkey=True))
    put_into(nearly_done, b"status", number, block[:16] + b"\xff" * (len(block) - 16))
    with Tracker(nearly_done, mode=mode) as tracker:
        assert list(tracker.todo_keys()) == LEFT
        assert tracker.num_done() == SIZE - len(LEFT)
        with pytest.raises(PersistentOrderedDictIntegrityError, match="block 1"):
            tracker._check()


DAMAGES = {
    "cut short": lambda left: left[:-1],
    "a block short": lambda left: left[:-16],
    "empty": lambda left: b"",
    "another bit": lambda left: left[:30] + bytes([left[30] ^ 1]) + left[31:],
    "zeros": lambda left: bytes(len(left)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_status_summary_is_ignored(nearly_done, damage):
    put_into(nearly_done, b"meta", b"heads", DAMAGES[damage](left_in(nearly_done)))
    assert maintenance.verify(nearly_done) == ["the status summary on disk differs from the status blocks"]
    for mode in ("r", "w"):
        with Tracker(nearly_done, mode=mode) as tracker:
            assert list(tracker.todo_keys()) == LEFT
            assert tracker.num_done() == SIZE - len(LEFT)
    with Tracker(nearly_done) as tracker:
        tracker.mark_done(LEFT[0])
    with Tracker(nearly_done) as tracker:
        check_reads(tracker, LEFT[1:])
    assert maintenance.verify(nearly_done) == []


READER = """
import sys
from tastypy_fast import Tracker
with Tracker(sys.argv[1], mode="r") as tracker:
    print(list(tracker.todo_keys()), tracker.num_done())
    tracker._check()
"""


def test_first_status_change_deletes_the_summary(nearly_done):
    before = left_in(nearly_done)
    with Tracker(nearly_done) as tracker:
        check_reads(tracker)
        tracker[LEFT[0]]["data"] = 1
        tracker.sync()
        assert left_in(tracker) == before  # (no status has changed)
        tracker.mark_done(LEFT[0])
        tracker.sync()
        assert left_in(tracker) is None
        check_reads(tracker, LEFT[1:])
        assert run(READER, nearly_done) == (0, f"{LEFT[1:]} {SIZE - len(LEFT) + 1}\n", "")
    assert left_in(nearly_done) not in (None, before)
    with Tracker(nearly_done, mode="r") as reader:
        check_reads(reader, LEFT[1:])


def test_reader_does_not_write_the_summary(nearly_done):
    before = (nearly_done / "data.mdb").read_bytes()
    with Tracker(nearly_done) as tracker:
        check_reads(tracker)
    put_into(nearly_done, b"meta", b"heads", None)
    bare = (nearly_done / "data.mdb").read_bytes()
    assert bare != before
    with Tracker(nearly_done) as tracker:
        check_reads(tracker)
    assert (nearly_done / "data.mdb").read_bytes() == bare


def are_left_again(path):
    """The store has no summary. After the first count it is kept up to date in memory."""
    assert left_in(path) is None
    with Tracker(path) as tracker:
        check_reads(tracker, LEFT[1:])
        tracker.mark_done(LEFT[1])
    assert left_in(path)
    with Tracker(path) as tracker:
        check_reads(tracker, LEFT[2:])


ENDS = {
    "end": "",
    "sys.exit": "sys.exit(0)",
    "exception": "raise ValueError",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "lost": "del tracker",
}


@pytest.mark.parametrize("scattered", [False, True], ids=["no log", "log"])
@pytest.mark.parametrize("end", ENDS)
def test_program_that_ends_without_closing_saves_the_summary(nearly_done, end, scattered):
    program = f"""
        import os, signal, sys
        from tastypy_fast import Tracker
        tracker = Tracker(sys.argv[1])
        tracker._store.wal_min_places = {0 if scattered else 10**9}
        tracker.mark_done({LEFT[0]})
        {ENDS[end]}
        """
    run(program, nearly_done)
    assert left_in(nearly_done)
    with Tracker(nearly_done) as tracker:
        check_reads(tracker, LEFT[1:])


def test_killed_process_saves_no_summary(nearly_done):
    def live(pipe):
        tracker = Tracker(nearly_done)
        tracker.mark_done(LEFT[0])
        tracker.sync()
        os.kill(os.getpid(), signal.SIGKILL)

    with Child(live) as child:
        assert child.wait() == -signal.SIGKILL
    are_left_again(nearly_done)


def test_shared_classes_delete_the_summary(nearly_done):
    with SharedTracker(nearly_done) as tracker:
        assert left_in(tracker) is None
        with SharedTracker(nearly_done) as other:
            other.mark_done(LEFT[0])
        check_reads(tracker, LEFT[1:])
    are_left_again(nearly_done)


def test_private_open_removes_the_claim_of_a_dead_worker(path):
    """Its claim is removed when a private tracker opens the store."""
    with SharedTracker(path, init={key: {} for key in range(10)}):
        pass

    def live(pipe):
        next(SharedTracker(path).try_keys())
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(2):
        with Child(live) as child:
            assert child.wait() == -signal.SIGKILL
        with Tracker(path) as tracker:
            check_reads(tracker, list(range(10)), 10)
            assert tracker.tries(0) + tracker.tries(1) >= 1


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("wal_min_places", [0, 10**9], ids=["log", "no log"])
def test_summary_is_correct_after_an_interrupted_commit(nearly_done, monkeypatch, moment, wal_min_places):
    """The transaction id then tells whether the commit happened."""
    with Tracker(nearly_done) as tracker:
        check_reads(tracker)
        monkeypatch.setattr(tracker._store, "wal_min_places", wal_min_places)
        write = tracker._store.write

        def interrupted(work):
            if moment == "after":
                write(work)
                raise KeyboardInterrupt

            def failing(txn):
                work(txn)
                raise KeyboardInterrupt

            return write(failing)

        monkeypatch.setattr(tracker._store, "write", interrupted)
        tracker.mark_done(LEFT[0])
        with pytest.raises(KeyboardInterrupt):
            tracker.sync()
        monkeypatch.undo()
        check_reads(tracker, LEFT[1:])
        tracker.mark_done(LEFT[2])
        tracker.sync()
        check_reads(tracker, LEFT[1:2])
    assert left_in(nearly_done)
    with Tracker(nearly_done) as tracker:
        check_reads(tracker, LEFT[1:2])


def test_summary_is_correct_after_the_map_grew_during_a_sync(path, monkeypatch):
    """The sync is repeated, and the summary is still correct."""
    written = []
    monkeypatch.setattr(engine, "MAP_SIZE", 1 << 16)
    monkeypatch.setattr(engine, "SMALLEST_MAP_SIZE", 1 << 16)
    with Tracker(path, sync_at=2_000) as tracker:
        write = tracker._store.write

        def counted(work):
            def counting(txn):
                written.append(txn.id())
                return work(txn)

            return write(counting)

        monkeypatch.setattr(tracker._store, "write", counted)
        tracker.update({(key, "x" * 300): {"data": "y" * 500} for key in range(8_000)})
        tracker.sync()
        assert len(written) > len(set(written)), "nothing was done again"
        assert tracker._store.summary.is_current()
        check_reads(tracker, [(key, "x" * 300) for key in range(8_000)], 8_000)
    assert left_in(path)


def test_summary_is_correct_with_two_instances(nearly_done):
    with Tracker(nearly_done) as tracker, Tracker(nearly_done, clone=False) as other:
        tracker.mark_done(LEFT[0])
        other.mark_done(LEFT[1])
        tracker.sync()
        check_reads(other, LEFT[2:])
        other.sync()
        check_reads(tracker, LEFT[2:])
        other.add("more")
        other.sync()
        check_reads(tracker, [*LEFT[2:], "more"], SIZE + 1)
    with Tracker(nearly_done) as tracker:
        check_reads(tracker, [*LEFT[2:], "more"], SIZE + 1)


@pytest.mark.parametrize("gap", [63, 64, 65, 66, 1_000])
def test_tracker_with_long_runs_of_deleted_tasks_yields_its_open_tasks(path, gap):
    """The summary is one record from block 0 on.

    If most of it would be empty, there is none, and all results are right.
    """
    with Tracker(path) as tracker:
        tracker.add_many(range(500 * gap + 1_500))
        for key in range(500, 500 * gap + 500):
            del tracker[key]
        tracker.mark_done(1)
        tracker.sync()
        todo = [0, *range(2, 500), *range(500 * gap + 500, 500 * gap + 1_500)]
        check_reads(tracker, todo, 1_500)
        del tracker[0]
    for _ in range(2):
        with Tracker(path) as tracker:
            assert list(tracker.todo_keys()) == todo[1:]
            tracker._check()
            tracker.mark_done(2)
            tracker.mark_not_done(2)
            tracker.sync()
            tracker._check()


def test_summary_is_correct_after_random_sessions(path, seed):
    rng = random.Random(seed)
    done, there = set(), set()
    for session in range(12):
        cls = SharedTracker if session % 6 == 5 else Tracker
        with cls(path, sync_at=rng.choice((1, 30, 10_000))) as tracker:
            if rng.random() < 0.5:
                assert list(tracker.todo_keys()) == sorted(there - done)
            first = len(there)
            tracker.add_many(range(first, first + rng.randrange(1_500)))
            there = set(range(len(tracker)))
            for key in rng.sample(sorted(there), rng.randrange(min(len(there), 400) + 1)):
                if rng.random() < 0.8:
                    tracker.mark_done(key)
                    done.add(key)
                else:
                    tracker.mark_not_done(key)
                    done.discard(key)
            if rng.random() < 0.5:
                tracker.sync()
                tracker._check()
                assert list(tracker.todo_keys()) == sorted(there - done)
        with Tracker(path, mode="r") as tracker:
            check_reads(tracker, sorted(there - done), len(there))
