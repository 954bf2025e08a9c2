"""Flush points of shared stores: what a power cut leaves, who puts it back, and what a failed flush forbids."""

from __future__ import annotations

import os
import shutil
import threading
import time
import warnings

import lmdb
import pytest

from tastypy_fast import (
    POD,
    SharedPOD,
    SharedTracker,
    StorageError,
    StoreAccessError,
    StoreConflictError,
    StoreInUseError,
    Tracker,
    maintenance,
)
from tastypy_fast._lmdb import boot_id, flush_notes, memory_fs
from tastypy_fast._lmdb.memory_fs import is_in_memory
from tastypy_fast._lmdb.reader_slot import ReaderSlot
from tastypy_fast._shared import store as shared_store
from tests.support.children import Child, result_of_child
from tests.support.flush_points import cut_power, note_of, slot_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def on_disk(monkeypatch):
    """Flush points are kept although the files of a test are in memory, where they would not be."""
    monkeypatch.setattr(memory_fs, "is_in_memory", lambda path: False)
    # What is not flushed stays so, however slow the machine is.
    monkeypatch.setattr(shared_store, "FLUSH_AFTER", 3600)


@pytest.fixture
def other_boot(monkeypatch):
    """From its call on, this process runs after another boot."""

    def start(number=1):
        monkeypatch.setattr(boot_id, "boot_id", lambda: bytes([number]) * 16)

    return start


@pytest.fixture
def failing_flush(monkeypatch):
    """From its call on, each flush of a data file fails, or works again."""
    works = flush_notes.flush_to_disk

    def fail(descriptor):
        raise OSError(5, os.strerror(5))

    return lambda fails=True: monkeypatch.setattr(flush_notes, "flush_to_disk", fail if fails else works)


def items(path, cls=SharedPOD, **options):
    with cls(path, **options) as store:
        return store.items()


@pytest.fixture
def cut(path, tmp_path):
    """A store after a power cut: key "a" was synced, and key "b" was not."""
    with SharedPOD(path) as store:
        store["a"] = 1
        store.sync()
        store["b"] = 2
        return cut_power(path, tmp_path / "cut")


def data_of(path):
    return (path / "data.mdb").read_bytes()


# What a power cut takes


def test_a_power_cut_takes_what_came_after_the_last_flush(cut, other_boot):
    other_boot()
    assert items(cut) == [("a", 1)]
    other_boot(2)
    assert items(cut) == [("a", 1)]


def test_a_kill_takes_nothing(cut):
    assert items(cut) == [("a", 1), ("b", 2)]


def test_a_store_that_was_closed_keeps_all(path, other_boot):
    with SharedPOD(path) as store:
        store["a"] = 1
        store["b"] = 2
    before = data_of(path)
    other_boot()
    with POD(path, mode="r") as store:
        assert store.keys() == ["a", "b"]
    assert data_of(path) == before
    assert items(path) == [("a", 1), ("b", 2)]


def test_what_is_written_after_a_power_cut_survives_the_next_one(cut, tmp_path, other_boot):
    other_boot()
    with SharedPOD(cut) as store:
        store["c"] = 3
        store.sync()
        store["d"] = 4
        other_boot(2)
        assert items(cut_power(cut, tmp_path / "cut 2")) == [("a", 1), ("c", 3)]


@pytest.mark.parametrize("durability", ["full", "normal", "process", "unsafe"])
@pytest.mark.parametrize("cls", [POD, SharedPOD])
def test_a_writer_of_any_kind_puts_it_back(cut, other_boot, cls, durability):
    other_boot()
    with cls(cut, durability=durability) as store:
        assert store.items() == [("a", 1)]
        assert (cut / "flushed").exists() == (cls is SharedPOD and durability == "process")
        store["c"] = 3
    other_boot(2)
    assert items(cut) == [("a", 1), ("c", 3)]


def test_a_reader_puts_it_back(cut, other_boot):
    other_boot()
    for _ in range(2):
        with POD(cut, mode="r") as store:
            assert store.items() == [("a", 1)]
    assert items(cut) == [("a", 1)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_reader_that_may_not_says_why(cut, other_boot):
    other_boot()
    (cut / "data.mdb").chmod(0o444)
    with pytest.raises(StoreAccessError, match="last flush point"):
        POD(cut, mode="r")


def test_a_reader_that_may_not_says_why_on_a_read_only_disk(cut, other_boot, monkeypatch):
    def refuse(path, note):
        raise OSError(30, os.strerror(30), path)

    other_boot()
    monkeypatch.setattr("tastypy_fast._lmdb.flush_points.put_back", refuse)
    before = data_of(cut)
    with pytest.raises(StoreAccessError, match="Open the store once where it may be written"):
        POD(cut, mode="r")
    assert data_of(cut) == before


def test_nobody_puts_it_back_under_a_reader(cut, other_boot):
    def read(pipe):
        with POD(cut, mode="r") as store:
            pipe.send(len(store))
            pipe.recv()

    with Child(read) as child:
        assert child.pipe.recv() == 2
        other_boot()
        before = data_of(cut)
        for options in ({}, {"mode": "r"}):
            with pytest.raises(StoreInUseError, match="has to be put back"):
                POD(cut, **options)
        assert data_of(cut) == before
        child.pipe.send("end")
        assert child.wait() == 0
    assert items(cut) == [("a", 1)]


@pytest.mark.parametrize("torn", [0, 1])
def test_a_meta_page_may_be_lost(cut, other_boot, torn):
    raw = data_of(cut)
    (cut / "data.mdb").write_bytes(raw[: 4096 * torn + 16] + bytes(136) + raw[4096 * torn + 152 :])
    other_boot()
    assert items(cut) == [("a", 1)]


def test_pages_of_the_flush_point_are_not_reused(path, tmp_path, other_boot):
    """However much is written after it, and by whichever process."""
    def write(pipe):
        with SharedPOD(path) as store:
            store._store.transaction.sync_at = 10**9
            pipe.send("open")
            pipe.recv()
            store._store.flush = lambda: None
            for number in range(150):
                store[number % 7] = "x" * (number % 5 * 1000)
            cut_power(path, tmp_path / "cut")
            os._exit(0)

    with SharedPOD(path, sync_at=10**9) as store, Child(write) as child:
        assert child.pipe.recv() == "open"
        for number in range(300):
            store[number % 11] = "y" * (number % 5 * 1000)
        expected = store.items()
        store.sync()
        child.pipe.send("go")
        assert child.wait() == 0
        other_boot()
        assert maintenance.verify(tmp_path / "cut") == []
        assert items(tmp_path / "cut") == expected


def test_without_the_slot_the_next_writer_sets_it_before_it_takes_a_page(path, tmp_path, other_boot):
    with SharedPOD(path) as store:
        for number in range(50):
            store[number % 7] = number
        expected = store.items()
        store.sync()
        for number in range(50):
            slot_of(store).clear()
            store[number % 7] = -number
            assert slot_of(store).get() is not None
        cut_power(path, tmp_path / "cut")
        other_boot()
        assert items(tmp_path / "cut") == expected


def test_a_killed_writer_leaves_the_slot(path):
    def die(pipe):
        store = SharedPOD(path)
        store.lock()
        store["lost"] = 1
        pipe.send("locked")
        pipe.recv()

    with SharedPOD(path) as store:
        store["a"] = 1
        for _ in range(3):
            with Child(die) as child:
                assert child.pipe.recv() == "locked"
                child.kill()
                child.wait()
            store["b"] = 2
            assert slot_of(store).get() is not None
        assert store.keys() == ["a", "b"]


def test_the_slot_is_set_at_the_older_note(path):
    """The newest note may just be on its way to the disk."""
    with SharedPOD(path) as store:
        txnids = []
        for number in range(4):
            store[number] = number
            store.sync()
            txnids.append(note_of(store).txnid)
        slot_of(store).clear()
        store["more"] = 1
        assert slot_of(store).get() == txnids[-2]


def test_a_file_of_another_store_is_not_touched(tmp_path, cut, other_boot):
    """A stale ``flushed`` beside a data file that was replaced."""
    path = tmp_path / "another"
    with SharedPOD(path) as store:
        for number in range(50):
            store[number] = number
    shutil.copy(path / "data.mdb", cut / "data.mdb")
    other_boot()
    assert len(items(cut)) == 50


def test_a_later_file_of_the_same_store_is_not_touched(path, tmp_path, other_boot):
    with SharedPOD(path) as store:
        store["a"] = 1
    shutil.copy(path / "flushed", tmp_path / "flushed")
    with SharedPOD(path) as store:
        store["b"] = 2
    shutil.copy(tmp_path / "flushed", path / "flushed")
    other_boot()
    assert items(path) == [("a", 1), ("b", 2)]


# Copies and other maintenance


def test_verify_sees_what_opening_leaves_and_writes_nothing(cut, monkeypatch):
    # (each boot of the test is the same for the process that verifies)
    flushed = (cut / "flushed").read_bytes()
    boot = boot_id.boot_id()
    before = data_of(cut)
    with SharedPOD(cut) as store:
        assert note_of(store).boot == boot
    (cut / "data.mdb").write_bytes(before)
    (cut / "flushed").write_bytes(flushed)
    for torn in (before, before[: 4096 * 4] + b"torn" * 1024 * (len(before) // 4096 - 4)):
        (cut / "data.mdb").write_bytes(torn)
        monkeypatch.setattr(boot_id, "boot_id", lambda: b"2" * 16)
        from tastypy_fast.maintenance._verify import verify_store

        found = list(verify_store(str(cut)))
        assert (found == []) == (torn is before)
        assert data_of(cut) == torn
        assert (cut / "flushed").read_bytes() == flushed


def test_repair_keeps_what_opening_leaves(cut, tmp_path, other_boot):
    from tastypy_fast.maintenance._repair import repair_store

    other_boot()
    (tmp_path / "new").mkdir()
    before = data_of(cut)
    kept = next(repair_store(str(cut), str(tmp_path / "new")))
    assert (kept.kept, kept.lost) == (1, [])
    assert data_of(cut) == before
    assert items(tmp_path / "new") == [("a", 1)]


def test_copies_have_no_flush_point(path, tmp_path, other_boot):
    with SharedPOD(path) as store:
        store["a"] = 1
        store.sync()
        store["b"] = 2
        maintenance.copy(path, tmp_path / "copy")
    assert sorted(os.listdir(tmp_path / "copy")) == ["data.mdb"]
    other_boot()
    assert items(tmp_path / "copy") == [("a", 1), ("b", 2)]


def test_compaction_removes_it(path, other_boot):
    with SharedPOD(path) as store:
        store["a"] = 1
        store.sync()
        store["b"] = 2
    assert (path / "flushed").exists()
    maintenance.compact(path)
    assert not (path / "flushed").exists()
    other_boot()
    assert items(path) == [("a", 1), ("b", 2)]


def test_a_link_in_its_place_is_refused(path, tmp_path):
    SharedPOD(path).close()
    (path / "flushed").unlink()
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    for make in (os.symlink, os.link):
        make(other, path / "flushed")
        for cls in (SharedPOD, POD):
            with pytest.raises(StorageError, match="link"):
                cls(path)
        (path / "flushed").unlink()
        assert other.read_bytes() == b"precious"


# Levels


LEVELS = ["full", "normal", "process", "unsafe"]


def test_all_processes_use_one_level(path):
    def join(pipe):
        for level in LEVELS:
            try:
                SharedPOD(path, durability=level).close()
                pipe.send((level, ""))
            except StoreConflictError as error:
                pipe.send((level, str(error)))

    for mine in LEVELS:
        with SharedPOD(path, durability=mine) as store:
            store["a"] = mine
            store.sync()
            with Child(join) as child:
                answers = dict(child.pipe.recv() for _ in LEVELS)
                assert child.wait() == 0
        for level, error in answers.items():
            if level == mine:
                assert not error
            else:
                assert f"durability={mine!r}, not {level!r}" in error


def test_in_memory_it_is_unsafe(path, monkeypatch):
    monkeypatch.setattr(memory_fs, "is_in_memory", lambda path: True)
    for cls in (POD, SharedPOD):
        with cls(path, durability="process") as store:
            assert store._store._level == "unsafe"
            assert store.durability == "process"
            store["a"] = 1
            if cls is SharedPOD:
                assert store._store.background_due() is None
    assert not (path / "flushed").exists()


def test_the_file_system_in_memory_is_recognised(tmp_path):
    if os.path.isdir("/dev/shm") and os.path.ismount("/dev/shm"):
        assert is_in_memory("/dev/shm")
    assert not is_in_memory("/proc")


@pytest.mark.parametrize("missing", ["boot", "layout"])
def test_where_it_is_not_possible_each_commit_is_flushed(path, monkeypatch, missing):
    if missing == "boot":
        monkeypatch.setattr(boot_id, "boot_id", lambda: None)
    else:
        monkeypatch.setattr(shared_store.FlushPoints, "has_layout", lambda self, db: False)
    monkeypatch.setattr(shared_store, "_warned", set())
    for number in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with SharedPOD(path) as store:
                assert store._store._level == "normal"
                assert not (path / "flushed").exists()
                store[number] = 1
                assert store._store.background_due() is None
                assert not lmdb_flag(store, "sync")
        texts = [str(warning.message) for warning in caught if issubclass(warning.category, RuntimeWarning)]
        assert len(texts) == (number == 0)
        if texts:
            assert "each commit" in texts[0]
            assert caught[-1].filename == __file__

    def join(pipe):
        monkeypatch.undo()
        with SharedPOD(path) as other:
            other["joined"] = 1
            pipe.send(other._store._level)

    with SharedPOD(path) as store:
        with Child(join) as child:
            assert child.pipe.recv() == "normal"
            assert child.wait() == 0
        assert store["joined"] == 1


def lmdb_flag(store, name):
    """Whether LMDB leaves commits unflushed."""
    return not store._store.db.flags()[name]


@pytest.mark.parametrize(("cls", "flushes"), [(POD, True), (Tracker, True), (SharedPOD, False), (SharedTracker, False)])
def test_a_private_store_flushes_each_commit(path, cls, flushes):
    with cls(path, durability="process") as store:
        store["a"] = {}
        store.sync()
        assert lmdb_flag(store, "sync") is not flushes
        assert (path / "flushed").exists() is not flushes


# Flushing


def test_what_is_waiting_is_flushed_in_the_background(path, monkeypatch):
    monkeypatch.setattr(shared_store, "FLUSH_AFTER", 60)
    with SharedPOD(path, sync_at=10**6) as store:
        inner = store._store
        woken = []
        inner.wake_background = lambda: woken.append(inner.background_due())
        assert inner.background_due() is None
        before = time.monotonic()
        store["a"] = 1
        store["b"] = 2
        assert len(woken) == 1
        assert before + 60 <= woken[0] <= time.monotonic() + 60
        inner.run_background()  # not yet
        assert inner.background_due() == woken[0]
        monkeypatch.setattr(inner, "_flush_due", time.monotonic())
        with store.locked():
            store["c"] = 3
            # Another thread's block does not delay it.
            thread = threading.Thread(target=inner.run_background)
            thread.start()
            thread.join()
            assert inner.background_due() is None
        assert note_of(store).txnid == slot_of(store).get()
        assert len(woken) == 2
        store["d"] = 4
        inner.run_background(at_once=True)
        assert inner.background_due() is None


def test_reading_and_empty_transactions_wait_for_nothing(path):
    with SharedPOD(path) as store:
        store.get("a")
        with store.locked():
            len(store)
        assert store._store.background_due() is None


def test_much_is_flushed_soon(path):
    with SharedPOD(path, sync_at=10**6) as store:
        inner = store._store
        woken = []
        inner.wake_background = lambda: woken.append(inner.background_due())
        before = note_of(store).txnid
        store["a"] = 1
        store["b"] = "x" * (5 << 20)
        assert inner.background_due() == woken[1] <= time.monotonic() < woken[0]
        inner.run_background()
        assert note_of(store).txnid > before
        assert inner.background_due() is None
        del woken[:]
        for number in range(200):
            store["c"] = number
        assert len(woken) == 2
        assert inner.background_due() == woken[1] <= time.monotonic() < woken[0]


def test_very_much_is_flushed_at_once(path):
    """Writers do not outrun the disk, whatever the background thread does."""
    with SharedPOD(path, sync_at=10**6) as store:
        store._store.wake_background = lambda: None
        before = note_of(store).txnid
        store["a"] = "x" * (20 << 20)
        after = note_of(store).txnid
        assert after > before
        for number in range(800):
            store["b"] = number
        assert note_of(store).txnid > after + 500


def test_sync_flushes_what_any_process_has_written(path, tmp_path, other_boot):
    def write(pipe):
        store = SharedPOD(path)
        store["b"] = 2
        os._exit(0)

    with SharedPOD(path) as store:
        with Child(write) as child:
            assert child.wait() == 0
        store.sync()
        store["c"] = 3
        cut_power(path, tmp_path / "cut")
        other_boot()
        assert items(tmp_path / "cut") == [("b", 2)]


def test_a_forked_child_uses_files_of_its_own(path, no_leaks):
    def write(pipe):
        store["child"] = 1
        store.sync()
        pipe.send((slot_of(store).get(), note_of(store).txnid))
        store.close()

    with SharedPOD(path) as store:
        store["a"] = 1
        with Child(write) as child:
            slot, note = child.pipe.recv()
            assert slot == note
            assert child.wait() == 0
        assert slot_of(store).get() == slot
        store["b"] = 2
        store.sync()
        assert slot_of(store).get() == note_of(store).txnid > slot


def test_a_forked_child_flushes_nothing_that_its_parent_has_written(path, monkeypatch):
    """A thread of the parent commits right before the fork. The child must not find that flush due for ever."""
    def commit_in_between(store):
        store._flush_due = 0.0
        before(store)

    before = shared_store.SharedStore.before_fork
    monkeypatch.setattr(shared_store.SharedStore, "before_fork", commit_in_between)
    with SharedPOD(path) as store:
        child = os.fork()
        if not child:
            os._exit(store._store.background_due() is not None)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_map_may_grow(path, monkeypatch):
    from tastypy_fast._lmdb import engine

    monkeypatch.setattr(engine, "MAP_SIZE", 1 << 20)
    with SharedPOD(path) as store:
        for number in range(30):
            store[number] = "x" * 100_000
        store.sync()
        assert slot_of(store).get() == note_of(store).txnid
    assert len(items(path)) == 30


def test_lmdb_may_be_opened_again_below_it(path):
    with SharedPOD(path) as store:
        store["a"] = 1
        store._store.reopen_engine()
        store["b"] = 2
        assert slot_of(store).get() is not None
        store.sync()
        assert slot_of(store).get() == note_of(store).txnid


def test_the_lock_of_lmdb_stays_while_it_is_open(path):
    """Closing a descriptor of lock.mdb would release it."""
    from tastypy_fast._lmdb.record_locks import is_locked_elsewhere

    def look(pipe):
        file = os.open(path / "lock.mdb", os.O_RDONLY)
        pipe.send(is_locked_elsewhere(file))

    with SharedPOD(path) as store:
        for _ in range(2):
            store["a"] = 1
            with Child(look) as child:
                assert child.pipe.recv() is True
            store._store.reopen_engine()


def test_flushed_that_was_removed_keeps_others_out(path):
    def join(pipe):
        with pytest.raises(StorageError, match="flushed was removed"):
            len(SharedPOD(path))
        pipe.send("refused")

    with SharedPOD(path) as store:
        (path / "flushed").unlink()
        store["a"] = 1
        store.sync()
        with Child(join) as child:
            assert child.pipe.recv() == "refused"
            assert child.wait() == 0


# A failed flush


def test_after_a_failed_flush_nothing_is_called_saved(path, failing_flush):
    store = SharedPOD(path)
    store["a"] = 1
    store.sync()
    store["b"] = 2
    failing_flush()
    with pytest.raises(StorageError, match="a flush of this store has failed"):
        store.sync()
    failing_flush(False)  # the kernel takes the lost pages for clean
    for work in (store.sync, lambda: store.__setitem__("c", 3), store.lock, store.sync):
        with pytest.raises(StorageError, match="an earlier flush has failed"):
            work()
    assert store.keys() == ["a", "b"]
    assert store._store.background_due() is None
    with pytest.raises(StorageError, match="an earlier flush has failed"):
        store.close()
    assert store.closed
    assert items(path) == [("a", 1)]
    with SharedPOD(path) as store:
        store["c"] = 3
        store.sync()
        assert store.keys() == ["a", "c"]


def test_a_failed_flush_is_known_in_every_process(path, failing_flush):
    def use(pipe):
        with pytest.raises(StorageError, match="an earlier flush has failed"):
            store["c"] = 3
        with pytest.raises(StorageError, match="an earlier flush has failed"):
            store.sync()
        with pytest.raises(StorageError, match="an earlier flush has failed"):
            store.close()
        newcomer = SharedPOD(path)
        assert newcomer.keys() == ["a", "b"]
        with pytest.raises(StorageError, match="an earlier flush has failed"):
            newcomer["c"] = 3
        with pytest.raises(StorageError, match="an earlier flush has failed"):
            newcomer.close()
        with POD(path, mode="r") as reader:
            assert reader.keys() == ["a", "b"]
        pipe.send("done")

    store = SharedPOD(path)
    store["a"] = 1
    store.sync()
    store["b"] = 2
    failing_flush()
    with pytest.raises(StorageError):
        store.sync()
    failing_flush(False)
    with Child(use) as child:
        assert child.pipe.recv() == "done"
        assert child.wait() == 0
    with pytest.raises(StorageError):
        store.close()
    with POD(path, mode="r") as reader:
        assert reader.keys() == ["a"]


def test_a_failed_flush_in_the_background_is_raised_by_the_next_write(path, failing_flush):
    store = SharedPOD(path)
    store["a"] = 1
    failing_flush()
    store._store.run_background(at_once=True)
    failing_flush(False)
    with pytest.raises(StorageError, match="an earlier flush has failed"):
        store["b"] = 2
    with pytest.raises(StorageError, match="an earlier flush has failed"):
        store.close()


@pytest.mark.parametrize("cls", [POD, SharedPOD])
def test_a_repeated_sync_at_normal_writes_the_meta_pages_again(path, cls):
    """What the failed flush should have written counts as clean."""
    with cls(path, durability="normal") as store:
        store["a"] = 1
        store.sync()
        store["b"] = 2
        fails = True

        class Failing:
            def __init__(self, db):
                self._db = db

            def __getattr__(self, name):
                return getattr(self._db, name)

            def sync(self, force):
                if fails:
                    raise lmdb.Error("mdb_env_sync: Input/output error")
                self._db.sync(force)

        inner = store._store
        real = inner.db
        inner.db = Failing(real)
        with pytest.raises(StorageError):
            store.sync()
        assert inner._flush_failed
        fails = False
        store.sync()
        assert not inner._flush_failed
        inner.db = real
        store["c"] = 3
        store.sync()
    assert items(path, cls) == [("a", 1), ("b", 2), ("c", 3)]


# The format on disk


def test_the_format_is_taken_over_by_a_writer(path):
    POD(path, init={"a": 1}).close()
    with lmdb.open(str(path), max_dbs=8) as db:
        meta = db.open_db(b"meta", create=False)
        with db.begin(write=True) as txn:
            assert txn.get(b"format", db=meta) == b"5"
            txn.put(b"format", b"2", db=meta)
    before = data_of(path)
    with POD(path, mode="r") as store:
        assert store["a"] == 1
    assert data_of(path) == before
    with SharedPOD(path) as store:
        assert store["a"] == 1
    with lmdb.open(str(path), max_dbs=8) as db, db.begin() as txn:
        assert txn.get(b"format", db=db.open_db(b"meta", create=False, txn=txn)) == b"5"


def test_the_slot_is_compiled_into_each_transaction(path):
    """The check costs no call in Python, so a Python double of the slot is not accepted."""
    with SharedPOD(path) as store, pytest.raises(TypeError):
        store._store.transaction.attach_flush_points(object(), None)
    assert ReaderSlot is not None


def test_flush_of_files_that_were_opened_to_be_read_does_nothing(tmp_path):
    """A process that shares a store and has not written opens the files to read, and may be ended before it writes."""
    with SharedPOD(tmp_path / "store", {"a": 1}, durability="unsafe"):

        def flush(pipe):
            with SharedPOD(tmp_path / "store", durability="unsafe") as store:
                store._store.flush()
                pipe.send(store["a"])

        assert result_of_child(flush) == [1]
