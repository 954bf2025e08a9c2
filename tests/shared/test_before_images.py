"""The before-images in the file ``undo``: processes that die between its writes and LMDB's, rollbacks, and its size."""

from __future__ import annotations

import itertools
import operator
import os
import signal
from contextlib import suppress

import lmdb
import pytest

from tastypy_fast import SharedPOD, SharedTracker
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError, StorageError, StoreConflictError
from tests.support.children import Child
from tests.support.claims import Worker, call

SAVED = {"a": 0, "b": 0, "c": 0}


class Deadly:
    """LMDB's transaction, except that ``commit()`` kills the process before or after it."""

    def __init__(self, txn, commits):
        self._txn, self._commits = txn, commits

    def __getattr__(self, name):
        return getattr(self._txn, name)

    def commit(self):
        if self._commits:
            self._txn.commit()
        os.kill(os.getpid(), signal.SIGKILL)


def change_and_die(state, commits, syncs):
    """Change keys, or sync as well, in a transaction that is written to the undo log and maybe not committed."""
    store = state.tracker
    transaction = store._store.transaction
    with store.locked():
        store["b"] = {"x": 2}
        store["new"] = {"x": 2}
        if syncs:
            store.sync()
            store["c"] = {"x": 2}
        transaction.snapshot = Deadly(transaction.snapshot, commits)


def kill(worker, *arguments):
    worker.pipe.send((change_and_die, arguments))
    assert worker.wait() == -signal.SIGKILL


@pytest.fixture
def tracker(tmp_path):
    with SharedTracker(tmp_path / "tracker", init={key: {"x": value} for key, value in SAVED.items()}) as tracker:
        tracker.sync()
        tracker["a"] = {"x": 1}
        yield tracker


def data_of(tracker):
    return {key: task["x"] for key, task in tracker.items()}


@pytest.mark.parametrize("syncs", [False, True])
@pytest.mark.parametrize("reads", [False, True])
def test_what_a_killed_process_recorded_counts_if_it_was_committed(tracker, tmp_path, syncs, reads):
    for commits in (False, True):
        with Worker(tmp_path / "tracker") as worker:
            kill(worker, commits, syncs)
        # The next transaction has the number of the one that was not committed, if it was not.
        if reads:
            with tracker.locked():
                pass
        expected = {"a"}
        if commits:
            expected = {"c"} if syncs else {"a", "b", "new"}
        assert tracker.dirty() == expected
    tracker["d"] = {"x": 3}
    tracker["c"] = {"x": 3}
    assert tracker.dirty() == expected | {"c", "d"}
    tracker.revert()
    assert data_of(tracker) == ({"a": 1, "b": 2, "c": 0, "new": 2} if syncs else SAVED)
    assert tracker.dirty() == set()
    tracker._check()


def test_images_of_a_process_that_died_without_a_commit_are_not_those_of_the_next_transaction(tracker, tmp_path):
    with Worker(tmp_path / "tracker") as worker, Worker(tmp_path / "tracker") as other:
        other.ask(call, "update", {"d": {"x": 1}})
        kill(worker, False, False)
        # The same number, and other keys.
        other.ask(call, "update", {"c": {"x": 5}})
        assert tracker.dirty() == {"a", "c", "d"}
        tracker["e"] = {"x": 1}
        assert tracker.dirty() == {"a", "c", "d", "e"}
        assert other.ask(call, "dirty") == {"a", "c", "d", "e"}
        other.ask(call, "revert")
        assert data_of(tracker) == SAVED


def test_commit_that_fails_leaves_the_undo_log_as_it_was(tracker):
    transaction = tracker._store.transaction

    class Full:
        def __init__(self, txn):
            self._txn = txn

        def __getattr__(self, name):
            return getattr(self._txn, name)

        def commit(self):
            self._txn.abort()
            raise OSError(28, "No space left on device")

    def fill():
        with tracker.locked():
            tracker["b"] = {"x": 2}
            tracker.sync()
            transaction.snapshot = Full(transaction.snapshot)

    with pytest.raises(OSError, match="No space"):
        fill()
    assert tracker.dirty() == {"a"}
    tracker["c"] = {"x": 2}
    tracker.revert()
    assert data_of(tracker) == SAVED


@pytest.mark.parametrize("inner", [0, 1, 1000])
@pytest.mark.parametrize("syncs", [False, True])
def test_savepoint_that_is_undone_takes_its_images_with_it(tmp_path, inner, syncs):
    with SharedPOD(tmp_path / "pod", sync_at=10**6, init=dict.fromkeys(range(1500), "saved")) as pod:
        pod.sync()
        with pod.transaction():
            pod[0] = "first"
            with suppress(ZeroDivisionError), pod.transaction():
                if syncs:
                    pod.sync()
                    assert pod.dirty() == set()
                pod.update(dict.fromkeys(range(1, 1 + inner), "x" * 500))
                assert pod.dirty() == set(range(syncs, 1 + inner))
                raise ZeroDivisionError
            assert pod.dirty() == {0}
            pod[1200] = "last"
        assert pod.dirty() == {0, 1200}
        pod.revert()
        assert set(pod.values()) == {"saved"}


def test_file_is_used_again_from_its_beginning_after_each_sync(tmp_path):
    sizes = []
    with SharedPOD(tmp_path / "pod", init=dict.fromkeys(range(100), "x" * 100)) as pod:
        for number in range(50):
            pod.update(dict.fromkeys(range(100), f"{number:02}" * 50))
            pod.sync()
            sizes.append((tmp_path / "pod" / "undo").stat().st_size)
        assert max(sizes) == max(sizes[:2])
        # A large one is given back to the file system.
        pod.update(dict.fromkeys(range(100), "x" * 20_000))
        pod.sync()
        pod.update(dict.fromkeys(range(100), "y"))
        pod.sync()
        pod["a"] = 1
        assert (tmp_path / "pod" / "undo").stat().st_size < 10_000
    with SharedPOD(tmp_path / "pod") as pod:
        assert pod.dirty() == set()


def test_key_that_is_changed_often_is_recorded_once(tmp_path):
    with SharedPOD(tmp_path / "pod", init={"n": 0}) as pod:
        pod.sync()
        pod.set["n"] += 1
        size = (tmp_path / "pod" / "undo").stat().st_size
        for _ in range(100):
            pod.set["n"] += 1
        assert (tmp_path / "pod" / "undo").stat().st_size == size


def test_sync_alone_counts_for_the_other_processes(tracker, tmp_path):
    with Worker(tmp_path / "tracker") as worker:
        assert worker.ask(call, "dirty") == {"a"}
        tracker.sync()
        assert worker.ask(call, "dirty") == set()
        worker.ask(call, "revert")
        assert data_of(tracker) == {**SAVED, "a": 1}
        tracker["b"] = {"x": 1}
        worker.ask(call, "sync_key", "b")
        assert tracker.dirty() == set()
        tracker.revert()
        assert data_of(tracker) == {**SAVED, "a": 1, "b": 1}


# What reads the record of "b", which an assignment may take for its before-image.
READS = {
    "an item": lambda pod: pod["b"],
    "a loop": lambda pod: next(key for key in pod if key == "b"),
    "an increment": lambda pod: operator.iadd(pod.set["b"]["x"], 0),
}


def increment_in_a_block(pod):
    with pod.locked():
        pod.set["b"]["x"] += 1


CHANGES = {
    "assigns": lambda pod: operator.setitem(pod, "b", {"x": 6}),
    "updates": lambda pod: pod.update({"b": {"x": 6}}),
    "increments": lambda pod: operator.iadd(pod.set["b"]["x"], 1),
    "increments in a block": increment_in_a_block,
}


@pytest.mark.parametrize("deletes", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_record_that_another_process_has_replaced_since_is_no_before_image(tmp_path, read, change, deletes):
    with SharedPOD(tmp_path / "pod", init={key: {"x": value} for key, value in SAVED.items()}) as pod:
        pod.sync()
        with Child(serve_pod, tmp_path / "pod", deletes) as child:
            child.pipe.recv()
            pod["c"] = {"x": 1}  # so that this process knows the number of its next transaction
            read(pod)
            child.pipe.send("replace")
            child.pipe.recv()
            change(pod)
            assert pod["b"] == {"x": 6}
            pod.revert()
            assert pod["b"] == {"x": 5}
            assert list(pod) == (["a", "c", "b"] if deletes else ["a", "b", "c"])
            child.pipe.send("close")
            assert child.wait() == 0


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_record_of_an_aborted_block_is_no_before_image(tmp_path, change):
    with SharedPOD(tmp_path / "pod", init={key: {"x": value} for key, value in SAVED.items()}) as pod:
        pod["b"] = {"x": 5}
        pod.sync()
        with suppress(ZeroDivisionError), pod.transaction():
            pod.update({"b": {"x": 7}, "c": {"x": 7}})
            with pod.transaction():
                pod["a"] = {"x": 7}
            assert next(key for key in pod if key == "b")
            raise ZeroDivisionError
        change(pod)
        assert pod["b"] == {"x": 6}
        pod.revert()
        assert pod["b"] == {"x": 5}


def serve_pod(pipe, path, deletes):
    with SharedPOD(path) as pod:
        pipe.send("open")
        pipe.recv()
        with pod.locked():
            if deletes:
                del pod["b"]
            pod["b"] = {"x": 5}
        pod.sync()
        pipe.send("replaced")
        pipe.recv()  # because closing the store syncs it


def keep_changing(state, rounds):
    """Change keys in pairs, and sync, so that a snapshot has both keys of a pair or none."""
    for number in range(rounds):
        with state.tracker.locked():
            state.tracker[f"left {number % 50}"] = {"x": number}
            state.tracker[f"right {number % 50}"] = {"x": number}
        if number % 7 == 6:
            state.tracker.sync()


def test_dirty_is_that_of_one_snapshot_while_others_write(tmp_path):
    with SharedTracker(tmp_path / "tracker") as tracker, Worker(tmp_path / "tracker") as worker:
        worker.pipe.send((keep_changing, (3_000,)))
        reads = 0
        while not worker.pipe.poll():
            found = tracker.dirty()
            sides = [{key.partition(" ")[2] for key in found if key.startswith(side)} for side in ("left", "right")]
            assert sides[0] == sides[1]
            assert len(found) <= 14
            reads += 1
        assert worker.pipe.recv() is None
        assert reads


def test_missing_or_foreign_file_is_refused_by_who_joins(tmp_path):
    name = tmp_path / "tracker" / "undo"
    with Worker(tmp_path / "tracker") as worker:
        assert worker.ask(call, "dirty") == set()
        saved = name.read_bytes()
        name.write_bytes(b"something else, at least as long as the header of such a file" * 3)
        with pytest.raises(PersistentOrderedDictIntegrityError, match=r"undo .* was changed while it is open"):
            SharedTracker(tmp_path / "tracker")
        name.unlink()
        with pytest.raises(StorageError, match="undo was removed while other processes"):
            SharedTracker(tmp_path / "tracker")
        name.write_bytes(saved)
    # Who is alone begins a new one.
    name.write_bytes(b"")
    with SharedTracker(tmp_path / "tracker", init={"a": {}}) as tracker:
        assert tracker.dirty() == {"a"}


@pytest.mark.parametrize(
    ("change", "offset"),
    [(b"\xff", 7), (b"\x01", 8), (b"\0", 12), (b"\x04", 12), (b"\x05", 12), (b"\x06", 12)],
    ids=["negative number", "size", "no kind", "record without status", "forgotten with data", "unknown kind"],
)
def test_foreign_entry_is_refused_and_changes_nothing(tracker, tmp_path, change, offset):
    at = 128 + offset  # the head of the first entry: sequence number, size, kind
    with open(tmp_path / "tracker" / "undo", "r+b") as file:
        file.seek(at)
        before = file.read(1)
        file.seek(at)
        file.write(change)
        file.flush()
        for operation in (tracker.revert, tracker.dirty):
            with pytest.raises(PersistentOrderedDictIntegrityError, match="undo"):
                operation()
        assert tracker["a"]["x"] == 1
        file.seek(at)
        file.write(before)
    tracker.revert()
    assert tracker["a"]["x"] == SAVED["a"]


def test_processes_of_an_older_version_are_not_joined(tmp_path):
    with Worker(tmp_path / "tracker") as worker:
        assert worker.ask(call, "dirty") == set()
        with lmdb.open(str(tmp_path / "tracker"), max_dbs=8) as db, db.begin(write=True) as txn:
            txn.put(b"format", b"4", db=db.open_db(b"meta", txn=txn))
        with pytest.raises(StoreConflictError, match="open with an older version of tastypy_fast"):
            SharedTracker(tmp_path / "tracker")
    with SharedTracker(tmp_path / "tracker", init={"a": {}}) as tracker:
        assert list(tracker) == ["a"]


def test_thousands_of_claims_are_kept_in_order_and_cost_no_name(tmp_path):
    """With more than about 60 claims, the main database has several pages."""
    path = tmp_path / "tracker"
    with Worker(path) as worker:
        worker.ask(call, "add_many", list(range(20_000)))
        with SharedTracker(path) as tracker:
            loop = tracker.try_keys(batch=5000)
            assert list(itertools.islice(loop, 2500)) == list(range(2500))
            assert tracker.claimed_keys() == list(range(5000))
            tracker._check()
            for key in range(4999, 2499, -1):
                tracker.release(key)
            assert tracker.claimed_keys() == list(range(2500))
            assert worker.ask(call, "claimed_keys") == list(range(2500))
            tracker.mark_done_many(list(range(0, 2500, 2)))
            assert tracker.claimed_keys() == list(range(1, 2500, 2))
            tracker._check()
        assert worker.ask(call, "claimed_keys") == []
