"""File descriptors, threads, reader table slots, memory: repeated operations leave none behind."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import weakref
from contextlib import suppress

import lmdb
import pytest

from tastypy_fast import (
    POD,
    InvalidKeyError,
    PersistentOrderedDictException,
    SharedPOD,
    SharedTracker,
    Tracker,
    UnstorableValueError,
)
from tests.support.children import Child, result_of_child
from tests.support.stores import changing, is_tracker

pytestmark = [
    pytest.mark.all_classes,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here"),
]

TIMES = 20
PRIVATE = {SharedPOD: POD, SharedTracker: Tracker}


def reader_of(cls, path):
    """Only the private classes can be read without writing. The files of a shared store also belong to its readers."""
    return PRIVATE.get(cls, cls)(path, mode="r")


def end_background():
    """Wait for the background thread, which ends soon after the last store is closed."""
    for thread in threading.enumerate():
        if thread.name == "tastypy_fast background":
            thread.join(60)


def in_use():
    gc.collect()
    end_background()
    return {
        "descriptors": sorted(os.readlink(f"/proc/self/fd/{number}") for number in open_descriptors()),
        "threads": threading.active_count(),
    }


def open_descriptors():
    descriptors = os.listdir("/proc/self/fd")
    # One of the descriptors was that of the listing.
    return [number for number in descriptors if os.path.lexists(f"/proc/self/fd/{number}")]


def anonymous_memory():
    """The anonymous memory in bytes, without mapped files."""
    gc.collect()
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


def slots_of_readers(path):
    """The number of slots of LMDB's reader table that were ever used, and the processes that use them now."""

    def look(pipe):
        with lmdb.open(str(path), readonly=True, max_dbs=8) as db:
            lines = db.readers().splitlines()[1:]
            pipe.send((db.info()["num_readers"], [int(line.split()[0]) for line in lines if line.split()[0].isdigit()]))

    return result_of_child(look)[0]


def open_and_close(cls, path):
    with cls(path) as store:
        store["a"] = {"n": 1}
        assert store["a"]["n"] == 1


def read_only(cls, path):
    with reader_of(cls, path) as reader:
        assert reader["k", 5]["n"] == 5
        assert len(reader) >= 600


def instances_of_one_path(cls, path):
    stores = [cls(path, **{} if cls in PRIVATE else {"clone": number % 2 == 0}) for number in range(4)]
    for store in stores:
        store.close()


def lost(cls, path):
    cls(path)["a"] = {"n": 1}


def lost_in_a_cycle(cls, path):
    store = cls(path)
    store.me = store
    store["a"] = {"n": 1}


def loops_left_half_way(cls, path):
    with cls(path) as store:
        loops = [iter(store), store.iteritems(), store.itervalues(), reversed(store)]
        if is_tracker(cls):
            loops += [store.todo_items(), store.try_keys(), store.aborted_keys()]
        for loop in loops:
            for _ in range(20):
                next(loop, None)
        store.revert()


def lookups_left_half_way(cls, path):
    with cls(path) as store:
        for steps in (0, 1, 300, 1200):
            loop = store.get_many(("k", number % 700) for number in range(2000))
            for _ in range(steps):
                next(loop)
        assert len(list(store.get_many([("k", 1), None, "absent"]))) == 1
        with pytest.raises(InvalidKeyError):
            list(store.get_many([("k", 1), []]))


def loops_that_outlive_their_store(cls, path):
    with reader_of(cls, path) as store:
        loop = store.iteritems()
        next(loop)
    with pytest.raises(PersistentOrderedDictException):
        list(loop)


def errors_in_use(cls, path):
    with cls(path) as store:
        for wrong in (1.5, None):
            with pytest.raises(InvalidKeyError):
                store[wrong] = {}
            with pytest.raises(KeyError):
                store[wrong]
        with pytest.raises(UnstorableValueError):
            store["a"] = {"x": {1}}
        with pytest.raises(KeyError):
            store["never"]
        with pytest.raises(KeyError):
            del store["never"]


def error_in_init(cls, path):
    with pytest.raises(UnstorableValueError):
        cls(path, init={"x": {"a": {}}, "y": {"b": b""}})


def error_in_with(cls, path):
    with suppress(ZeroDivisionError), cls(path) as store:
        store["a"] = {"n": 1}
        raise ZeroDivisionError


def conflicts(cls, path):
    with cls(path):
        for other, options in ((cls, {"gzipped": True}), (PRIVATE.get(cls, SharedPOD), {})):
            with pytest.raises(PersistentOrderedDictException):
                other(path, **options)
    if cls not in PRIVATE:
        with cls(path), pytest.raises(PersistentOrderedDictException):
            reader_of(cls, path)
    with pytest.raises(PersistentOrderedDictException):
        (POD if is_tracker(cls) else Tracker)(path)


def refused(cls, path):
    with pytest.raises(PersistentOrderedDictException):
        reader_of(cls, path.with_name("missing"))
    for other in ("damaged", "foreign", "file"):
        with pytest.raises(PersistentOrderedDictException):
            cls(path.with_name(other))


def in_a_thread(cls, path):
    thread = threading.Thread(target=open_and_close, args=(cls, path))
    thread.start()
    thread.join()
    # Each thread that lives at the same time may have memory of its own, which the allocator keeps.
    end_background()


USES = [
    open_and_close, read_only, instances_of_one_path, lost, lost_in_a_cycle, loops_left_half_way,
    lookups_left_half_way, loops_that_outlive_their_store, errors_in_use, error_in_init, error_in_with, conflicts,
    refused, in_a_thread,
]  # fmt: skip


@pytest.fixture
def filled(any_class, path):
    with any_class(path, init={("k", number): {"n": number} for number in range(600)}):
        pass
    path.with_name("damaged").mkdir()
    shutil.copy(path / "owner.lock", path.with_name("damaged"))
    (path.with_name("damaged") / "data.mdb").write_bytes(b"x" * 100_000)
    path.with_name("foreign").mkdir()
    (path.with_name("foreign") / "theirs").write_text("x")
    path.with_name("file").write_text("x")
    return path


@pytest.mark.parametrize("times", [TIMES // 2, pytest.param(10 * TIMES, marks=pytest.mark.storm)])
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_repeated_use_leaks_no_resources(any_class, filled, use, times):
    for _ in range(5):
        use(any_class, filled)
    before, memory = in_use(), anonymous_memory()
    for _ in range(times):
        use(any_class, filled)
    assert in_use() == before
    # The allocator may give each of many threads its own memory, up to a number of them.
    assert anonymous_memory() - memory < (12 << 20 if use is in_a_thread else 4 << 20)
    slots, processes = slots_of_readers(filled)
    assert slots < 10
    assert os.getpid() not in processes


def test_refused_open_of_a_store_in_use_leaks_nothing(any_class, filled):
    def hold(pipe):
        with any_class(filled):
            pipe.send("open")
            pipe.recv()

    with Child(hold) as child:
        child.pipe.recv()
        before = in_use()
        for _ in range(TIMES):
            with pytest.raises(PersistentOrderedDictException):
                PRIVATE.get(any_class, any_class)(filled)
        assert in_use() == before
        child.pipe.send("end")
        child.wait()


def test_closed_instances_are_freed(any_class, path):
    store = any_class(path, init={"a": {"list": []}})
    store["a"]["list"].append(1)
    references = [weakref.ref(store), weakref.ref(store._store)]
    store.close()
    del store
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_open_store_holds_no_snapshot_between_operations(any_class, filled):
    """A snapshot that stays open prevents LMDB from reusing freed pages, so the file would grow."""
    with any_class(filled) as store:
        loop = store.iteritems()
        next(loop)
        size = (filled / "data.mdb").stat().st_size
        for _ in range(TIMES):
            store["large"] = {"text": "x" * 100_000}
            store.sync()
            next(loop, None)
        assert (filled / "data.mdb").stat().st_size < size + 1_000_000


def test_reader_holds_no_snapshot_between_operations(any_class, filled):
    def write(pipe):
        with any_class(filled) as store:
            for _ in range(TIMES):
                store["large"] = {"text": "x" * 100_000}
                store.sync()
                pipe.send("written")
                pipe.recv()

    size = (filled / "data.mdb").stat().st_size
    with Child(write) as child, reader_of(any_class, filled) as reader:
        loop = reader.iteritems()
        for _ in range(TIMES):
            child.pipe.recv()
            assert len(reader) == 601
            next(loop, None)
            child.pipe.send("go on")
        assert child.wait() == 0
    assert (filled / "data.mdb").stat().st_size < size + 1_000_000


def test_forks_leak_no_resources(any_class, filled):
    with any_class(filled) as store:
        loop = iter(store)

        def child(pipe):
            assert store["k", 7]["n"] == 7
            next(loop)

        for _ in range(5):
            result_of_child(child)
        before = in_use()
        for _ in range(TIMES):
            next(loop)
            result_of_child(child)
        assert in_use() == before
    slots, processes = slots_of_readers(filled)
    assert slots < 10
    assert not processes


def test_reader_table_slots_of_killed_readers_are_reused(any_class, filled):
    """This includes readers that were killed during a read, which leave their slots in use."""

    def read(pipe):
        with reader_of(any_class, filled) as reader:
            pipe.send("open")
            while True:
                len(reader.values())

    with any_class(filled) as store:
        for number in range(40):
            with Child(read) as first, Child(read) as second:
                for child in (first, second):
                    child.pipe.recv()
                for child in (first, second):
                    child.kill()
                    child.wait()
            store[number] = {}
            store.sync()
    with any_class(filled):
        slots, processes = slots_of_readers(filled)
    assert slots < 80
    assert set(processes) <= {os.getpid()}


def test_memory_does_not_grow_over_many_operations(any_class, path):
    with any_class(path, sync_at=100, durability="process") as store:
        text = "x" * 500

        def work(times):
            for number in range(times):
                key = (number % 50, "key")
                store[key] = {"text": text, "list": [number]}
                changing(store)[key]["list"].append(number)
                assert key in store
                with suppress(KeyError):
                    store["never", number]
                with suppress(InvalidKeyError):
                    store[None] = {}
                with suppress(KeyError):
                    store[None]
                with suppress(UnstorableValueError):
                    store[key] = {"x": {number}}
                if number % 10 == 0:
                    assert len(list(store.iteritems())) == len(store)
                    store.pop(key)
                    store.get(key)
                    store.dirty()
                    store.mark_dirty((number % 50 - 1, "key")) if number % 50 else None

        work(3000)
        memory = anonymous_memory()
        work(15_000)
        # One leaked object in each iteration would be more.
        assert anonymous_memory() - memory < 2 << 20


@pytest.mark.parametrize(("cls", "count"), [(Tracker, 2000), (SharedTracker, 300)])
def test_memory_does_not_grow_over_many_tasks(path, cls, count):
    with cls(path, sync_at=100, durability="process") as tracker:
        tracker.add_many(range(count))

        def work(times):
            for _ in range(times):
                for key, task in tracker.try_items():
                    (tracker.set[key] if cls is SharedTracker else task)["data"] = [key]
                    tracker.mark_done(key)
                    tracker.mark_not_done(key)
                    tracker.done(key)
                tracker.num_done()
                for key in tracker.todo_keys():
                    tracker.abort(key)
                    tracker.unabort(key)

        work(2)
        memory = anonymous_memory()
        work(10)
        assert anonymous_memory() - memory < 2 << 20
