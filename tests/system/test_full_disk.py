"""A full disk: operations raise an error, nothing is lost, and changes are saved once there is space.

And a full map.
"""

from __future__ import annotations

import copy
import errno
import itertools
import os
import random
import resource
import shutil
import subprocess

import pytest
from lmdb.verify import verify

from tastypy_fast import POD, DiskFullError, StorageError, Tracker
from tastypy_fast._lmdb import engine
from tests.support.children import Child, result_of_child, run
from tests.support.operations import Player, change_model, operations_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

MEGABYTE = 1 << 20


class SizeLimit:
    """A limit on the size of every file that this process writes. Only for a child process."""

    def __init__(self, folder):
        self.folder = folder

    def fill(self, room):
        """Limit each file to the size of the largest one in the folder plus ``room`` bytes."""
        sizes = [file.stat().st_size for file in self.folder.rglob("*") if file.is_file()]
        limit = max(sizes, default=0) + room
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def free(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class SmallFileSystem:
    """A file system of a few megabytes, which a file fills."""

    def __init__(self, folder):
        self.folder = folder
        self.ballast = folder / "ballast"

    def fill(self, room):
        status = os.statvfs(self.folder)
        with open(self.ballast, "wb") as file:
            file.write(bytes(max(0, status.f_bavail * status.f_frsize - room)))

    def free(self):
        self.ballast.unlink()


@pytest.fixture(scope="session")
def small_file_system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system, and not everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(params=["limit", "file system"])
def disk(request, tmp_path):
    """A folder for a store on a disk that can be filled."""
    if request.param == "limit":
        yield SizeLimit(tmp_path)
        return
    folder = request.getfixturevalue("small_file_system")
    try:
        yield SmallFileSystem(folder)
    finally:
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def entry(number):
    # Most values share pages. Some need overflow pages.
    return {"number": number, "text": "x" * (10_000 if number % 50 == 0 else 100)}


def numbers(store):
    return [value["number"] for value in store.itervalues()]


def in_child(work):
    """Run in a child, because a limit applies to a whole process, and a crash ends one."""
    result_of_child(lambda pipe: work())


@pytest.mark.parametrize("room", [0, 4096, 50_000])
def test_sync_on_a_full_disk_raises_and_a_later_sync_saves_everything(any_class, disk, room):
    path = disk.folder / "store"

    def work():
        store = any_class(path)
        store.hold()
        store.update((number, entry(number)) for number in range(100))
        store.sync()
        disk.fill(room)
        for number in range(100, 1000):
            store[number] = entry(number)
        store[0]["number"] = "changed"
        del store[1]
        dirty = store.dirty()
        assert len(dirty) == 902
        for _ in range(3):
            with pytest.raises(DiskFullError, match="disk is full") as raised:
                store.sync()
            assert isinstance(raised.value, OSError)
            assert raised.value.errno == errno.ENOSPC
            # The state in memory and the state on disk can still be read.
            assert store.dirty() == dirty
            assert numbers(store) == ["changed", *range(2, 1000)]
            assert store[50]["number"] == 50
            assert len(store) == 999
            store._check()
        assert not verify(path)
        disk.free()
        store.sync()
        assert store.dirty() == set()
        store._check()
        store.close()

    in_child(work)
    with any_class(path) as store:
        assert numbers(store) == ["changed", *range(2, 1000)]
        store._check()
    assert not verify(path)


def test_automatic_sync_on_a_full_disk_raises_and_loses_nothing(any_class, disk):
    path = disk.folder / "store"

    def work():
        store = any_class(path, sync_at=10)
        disk.fill(60_000)
        refused = 0
        for number in range(700):
            try:
                store[number] = entry(number)
            except DiskFullError:
                refused += 1
        # After the first error, each operation raises again, and still keeps its change.
        assert 300 < refused < 700
        assert numbers(store) == list(range(700))
        disk.free()
        store["last"] = entry(700)
        assert store.dirty() == set()
        store.close()

    in_child(work)
    with any_class(path) as store:
        assert numbers(store) == list(range(701))


def test_unhold_on_a_full_disk_raises_and_ends_the_hold(any_class, disk):
    path = disk.folder / "store"

    def work():
        store = any_class(path, sync_at=50)
        store.hold()
        store.update((number, entry(number)) for number in range(100))
        store.sync()
        disk.fill(0)
        store.update((number, entry(number)) for number in range(100, 1000))
        dirty = store.dirty()
        with pytest.raises(DiskFullError):
            store.unhold()
        assert store.dirty() == dirty
        disk.free()
        store["last"] = entry(1000)
        assert store.dirty() == set()
        store.close()

    in_child(work)
    with any_class(path) as store:
        assert numbers(store) == list(range(1001))


def test_try_loop_on_a_full_disk_can_be_continued_later(disk):
    path = disk.folder / "store"

    def work():
        tracker = Tracker(path, sync_at=10)
        tracker.hold()
        tracker.add_many(range(3000))
        tracker.sync()
        tracker.unhold()
        disk.fill(0)
        refused = 0
        while True:
            try:
                for key in tracker.try_keys():
                    tracker.mark_done(key)
                break
            except DiskFullError:
                # The next loop tries the running task again.
                refused += 1
                if refused == 5:
                    disk.free()
        assert refused == 5
        assert tracker.num_done() == tracker.num_tried() == 3000
        tracker.close()

    in_child(work)
    with Tracker(path) as tracker:
        assert tracker.num_done() == tracker.num_tried() == 3000
        tracker._check()


def test_random_operations_on_a_temporarily_full_disk_agree_with_a_model(any_class, disk, seed):
    """An operation that raises is done completely or not at all, and changes nothing else."""
    path = disk.folder / "store"

    def work():
        rng = random.Random(seed)
        store, model = any_class(path, sync_at=rng.choice((1, 3, 20)), durability="process"), {}
        player = Player(store)
        full, refused = False, 0
        for number, step in itertools.islice(operations_of(any_class, seed, model), 10_000):
            if rng.random() < 0.1:
                disk.free() if full else disk.fill(rng.choice((0, 4096, 20_000)))
                full = not full
            before = copy.deepcopy(list(model.items()))
            change_model(model, *step)
            try:
                player.do(*step)
            except DiskFullError:
                refused += 1
                found = store.items()
                if found != list(model.items()):
                    assert found == before, (number, step[0])
                    disk.free()
                    full = False
                    player.do(*step)
            if rng.random() < 0.1:
                assert store.items() == list(model.items()), (number, step[0])
                store._check()
            if refused >= 20 and number >= 500:
                break
        assert refused >= 20
        if full:
            disk.free()
        store.close()
        with any_class(path) as again:
            again._check()
            assert again.items() == list(model.items())

    in_child(work)
    assert not verify(path)


def test_close_on_a_full_disk_raises_and_leaves_the_store_open(any_class, disk):
    path = disk.folder / "store"

    def work():
        store = any_class(path)
        store.hold()
        disk.fill(0)
        store.update((number, entry(number)) for number in range(1000))
        with pytest.raises(DiskFullError):
            store.close()
        assert not store.closed
        assert numbers(store) == list(range(1000))
        with pytest.raises(DiskFullError), store:
            store[1000] = entry(1000)
        disk.free()
        store.close()
        assert store.closed

    in_child(work)
    with any_class(path) as store:
        assert numbers(store) == list(range(1001))


def test_exit_on_a_full_disk_reports_it_and_saves_the_other_stores(tmp_path):
    status, output, errors = run(
        """
        import resource, sys
        from tastypy_fast import POD
        full, other = POD(sys.argv[1] + "/full"), POD(sys.argv[1] + "/other")
        full.hold()
        full.update((number, "x" * 1000) for number in range(1000))
        other["a"] = 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        """,
        tmp_path,
    )
    assert (status, output) == (0, "")
    assert "disk is full" in errors
    assert str(tmp_path / "full") in errors
    with POD(tmp_path / "full") as full, POD(tmp_path / "other") as other:
        assert (full.items(), other.items()) == ([], [("a", 1)])
    assert not verify(tmp_path / "full")


@pytest.mark.parametrize("room", [0, *range(4096, 140_000, 16384)])
def test_store_that_could_not_be_created_on_a_full_disk_is_created_later(any_class, disk, room):
    path = disk.folder / "store"

    def work():
        disk.fill(room)
        try:
            any_class(path, init={"a": {}}).close()
        except DiskFullError:
            pass
        else:
            assert room > 8192
        disk.free()
        with any_class(path) as store:
            store["b"] = {}
            store._check()
            assert store.keys()[-1] == "b"

    in_child(work)


def test_store_on_a_full_disk_can_be_opened_and_read(any_class, disk):
    path = disk.folder / "store"
    with any_class(path, init={"a": {"n": 1}}):
        pass

    def work():
        disk.fill(0)
        with any_class(path, mode="r") as store:
            assert store["a"]["n"] == 1
        with any_class(path) as store:
            assert store["a"]["n"] == 1
        disk.free()

    in_child(work)


def test_reading_a_copy_without_a_lock_file_on_a_full_disk(any_class, disk):
    """LMDB creates a missing lock file, and writes it through a map. This must not crash."""
    path = disk.folder / "store"
    with any_class(path, init={"a": {"n": 1}}):
        pass
    (path / "lock.mdb").unlink()

    def work():
        disk.fill(0)
        try:
            with any_class(path, mode="r") as store:
                assert store["a"]["n"] == 1
        except DiskFullError:
            pass
        finally:
            disk.free()
        with any_class(path) as store:
            assert store["a"]["n"] == 1

    in_child(work)


def test_full_map_grows_without_an_error(any_class, path, monkeypatch):
    monkeypatch.setattr(engine, "MAP_SIZE", 1 << 16)
    monkeypatch.setattr(engine, "SMALLEST_MAP_SIZE", 1 << 16)
    with any_class(path, sync_at=100) as store:
        iterator = store.iteritems()
        for number in range(3000):
            store[number] = entry(number)
            # A loop across the growth, and values that are read back.
            assert next(iterator)[1]["number"] == number
        store["one", "large", "value"] = {"text": "x" * 5 * MEGABYTE}
        store._check()
    assert (path / "data.mdb").stat().st_size > 6 * MEGABYTE
    with any_class(path) as store:
        assert len(store) == 3001
        assert numbers_of_first(store, 3000) == list(range(3000))
    assert not verify(path)


def numbers_of_first(store, count):
    return [value["number"] for _, value in zip(range(count), store.itervalues(), strict=False)]


def test_reader_adopts_a_map_grown_by_another_process(any_class, path, monkeypatch):
    monkeypatch.setattr(engine, "MAP_SIZE", 1 << 16)
    with any_class(path, init={"a": {"number": 0}}):
        pass

    def write(pipe):
        with any_class(path) as store:
            pipe.recv()
            store.update((number, entry(number)) for number in range(1, 3000))
            store.sync()
            pipe.send("grown")
            pipe.recv()

    with Child(write) as child, any_class(path, mode="r") as reader:
        assert len(reader) == 1
        child.pipe.send("go on")
        child.pipe.recv()
        assert numbers(reader) == list(range(3000))
        child.pipe.send("end")
        assert child.wait() == 0


def address_space():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
def test_new_store_needs_little_address_space(any_class, path):
    def work():
        limit = address_space() + 100 * MEGABYTE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with any_class(path, sync_at=100) as store:
            store.update((number, entry(number)) for number in range(5000))
        with any_class(path) as store:
            assert numbers(store) == list(range(5000))

    in_child(work)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
def test_map_that_cannot_grow_raises_and_loses_nothing(any_class, path):
    def work():
        limit = address_space() + 60 * MEGABYTE
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        store = any_class(path, sync_at=20)
        large = {"text": "x" * 100_000}
        with pytest.raises(StorageError, match="larger"):
            store.update((number, large) for number in range(2000))
        count = len(store)
        assert count < 1000
        assert store.keys() == list(range(count))
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        store.sync()
        store.close()
        with any_class(path) as store:
            assert len(store) == count

    in_child(work)


@pytest.fixture
def needs_disk():
    return True
