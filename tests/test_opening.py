"""Opening: what is refused and why, who may have a store at the same time, and what two instances on one path share."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from tastypy_fast import (
    POD,
    CalledClosedTrackerError,
    NotAStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    ReadOnlyStoreError,
    SharedPOD,
    StoreConflictError,
    StoreInUseError,
    StoreKindError,
    StoreNotFoundError,
    StorePathError,
    Tracker,
)
from tastypy_fast._lmdb import data_file
from tests.children import Child, outcome_of, run

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def tree(path):
    """Everything below a folder, with content."""
    return {
        str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None for entry in path.rglob("*")
    }


# Paths


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_any_kind_of_path_is_taken(any_class, path, kind):
    with any_class(kind(str(path)), init={"a": {}}) as store:
        assert store.path == str(path)
    with any_class(str(path)) as store:
        assert "a" in store


def test_missing_folders_are_made(any_class, tmp_path):
    with any_class(tmp_path / "a" / "b" / "c", init={"a": {}}) as store:
        assert os.path.isdir(store.path)


@pytest.mark.parametrize(
    "name",
    ["\u00fcml\u00e4ut", "with space", "percent%20", "\udcff not utf-8", "x" * 200, "'\"", "new\nline"],
)
def test_any_name_of_a_folder_is_taken(any_class, tmp_path, name):
    try:
        (tmp_path / name).mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    (tmp_path / name).rmdir()
    with any_class(tmp_path / name, init={"a": {}}):
        pass
    with any_class(tmp_path / name) as store:
        assert "a" in store


def test_relative_absolute_and_linked_paths_are_one_store(any_class, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    absolute = tmp_path / "folder" / "store"
    paths = [absolute, "folder/store", "folder/../folder/./store", "link/store", Path("link/store")]
    stores = [any_class(path) for path in paths]
    stores[0]["a"] = {}
    assert [store.keys() for store in stores] == [["a"]] * len(stores)
    assert {store.path for store in stores} == {str(absolute)}
    # The current folder matters at opening only.
    monkeypatch.chdir("/")
    stores[0]["b"] = {}
    for store in stores:
        store.close()
    with any_class(tmp_path / "link" / "store") as store:
        assert store.keys() == ["a", "b"]


def test_a_link_to_a_store_is_followed(any_class, tmp_path):
    (tmp_path / "link").symlink_to("store")
    with any_class(tmp_path / "link") as made:
        made["a"] = {}
    assert (tmp_path / "link").is_symlink()
    with any_class(tmp_path / "store", mode="r") as store:
        assert "a" in store


@pytest.mark.parametrize("mode", ["w", "r"])
@pytest.mark.parametrize("below", ["", "below", "far/below"])
def test_a_file_in_the_way_is_refused_and_kept(any_class, path, mode, below):
    path.write_text("a file")
    with pytest.raises(StorePathError) as raised:
        any_class(path / below, mode=mode)
    assert isinstance(raised.value, NotADirectoryError)
    assert str(path) in str(raised.value)
    assert path.read_text() == "a file"


def test_a_path_that_is_no_path_is_a_type_error(any_class):
    for wrong in (None, 5, ["x"]):
        with pytest.raises(TypeError):
            any_class(wrong)


@pytest.mark.parametrize("mode", ["w", "r"])
@pytest.mark.parametrize(
    ("names", "tells"),
    [
        (["letter.txt"], "letter.txt"),
        (["0.json"], "original"),
        (["0.json.gz", "1.json.gz"], "original"),
        (["a", "b", "c", "d"], "another path"),
        (["lock.mdb", "notes.txt"], "notes.txt"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_kept(any_class, path, mode, names, tells):
    path.mkdir()
    for name in names:
        (path / name).write_text("mine")
    with pytest.raises(NotAStoreError, match=tells) as raised:
        any_class(path, mode=mode)
    assert isinstance(raised.value, FileExistsError)
    assert tree(path) == dict.fromkeys(names, b"mine")


@pytest.mark.parametrize("mode", ["w", "r"])
def test_a_folder_with_a_folder_in_it_is_refused(any_class, path, mode):
    (path / "data.mdb").mkdir(parents=True)
    with pytest.raises(NotAStoreError):
        any_class(path, mode=mode)
    assert tree(path) == {"data.mdb": None}


def test_an_empty_folder_is_taken(any_class, path):
    path.mkdir()
    with any_class(path, init={"a": {}}) as store:
        assert "a" in store


@pytest.mark.parametrize("mode", ["w", "r"])
@pytest.mark.parametrize("databases", [0, 1, 3])
def test_the_lmdb_environment_of_another_program_is_refused_and_kept(any_class, path, mode, databases):
    with lmdb.open(str(path), max_dbs=3) as db, db.begin(write=True) as txn:
        for number in range(databases):
            txn.put(b"key", b"value", db=db.open_db(str(number).encode(), txn=txn))
        txn.put(b"theirs", b"value")
    before = tree(path)
    with pytest.raises(NotAStoreError):
        any_class(path, mode=mode)
    after = tree(path)
    assert after.keys() == before.keys()
    assert after["data.mdb"] == before["data.mdb"]


# Kinds and options


@pytest.mark.parametrize("busy", [1, 4, 1000])
def test_a_store_is_known_for_one_while_it_is_written(path, monkeypatch, busy):
    """The page that names its databases is given up by a commit, and taken for another thing by one soon after."""
    newest_meta = data_file.newest_meta
    rng = random.Random(busy)
    left = 0

    def slowly(descriptor):
        nonlocal left
        meta = newest_meta(descriptor)
        if left > 0:
            left -= 1
            for _ in range(rng.randrange(1, 8)):
                store[rng.randrange(1000)] = "x" * rng.randrange(1000)
        return meta

    monkeypatch.setattr(data_file, "newest_meta", slowly)
    with SharedPOD(path) as store:
        store.update(dict.fromkeys(range(1000), "x" * 100))
        for _ in range(30):
            left = busy
            found = data_file.find_databases(os.fspath(path / "data.mdb"))
            assert set(found) == ({b"values", b"order", b"meta", b"images", b"claims", b"log"} if busy < 5 else set())


@pytest.mark.parametrize(("made", "opened"), [(POD, Tracker), (Tracker, POD)])
@pytest.mark.parametrize("mode", ["w", "r"])
def test_a_store_of_the_other_kind_is_refused_and_kept(path, made, opened, mode):
    with made(path, init={"a": {"x": 1}}):
        pass
    before = (path / "data.mdb").read_bytes()
    with pytest.raises(StoreKindError) as raised:
        opened(path, mode=mode)
    assert isinstance(raised.value, TypeError)
    assert (path / "data.mdb").read_bytes() == before
    with made(path) as store:
        assert store["a"]["x"] == 1
        # Also while it is open here.
        with pytest.raises(StoreKindError):
            opened(path, mode=mode)


CONFLICTS = [{"gzipped": True}, {"file_size": 5}, {"mode": "r"}, {"durability": "full"}]


@pytest.mark.parametrize("options", CONFLICTS, ids=lambda options: next(iter(options)))
def test_conflicting_options_are_refused(any_class, path, options):
    with any_class(path, init={"a": {}}) as store:
        for clone in (True, False):
            with pytest.raises(StoreConflictError, match=next(iter(options))) as raised:
                any_class(path, clone=clone, **options)
            assert isinstance(raised.value, ValueError)
        store["b"] = {}
        assert store.keys() == ["a", "b"]
    # Another time they may be others.
    with any_class(path, **options) as store:
        assert store.keys() == ["a", "b"]


def test_refused_instances_leave_the_open_ones_alone(any_class, path):
    with any_class(path) as store:
        for _ in range(3):
            with pytest.raises(StoreConflictError):
                any_class(path, gzipped=True)
        store["a"] = {}
        with pytest.raises(ZeroDivisionError):
            any_class(path, init=((number, {"x": 1 / (2 - number)}) for number in range(5)))
        assert store.keys() == ["a", 0, 1]
        assert not store.closed
    assert store.closed


# Several instances in one process


def test_instances_on_one_path_share_what_is_in_memory(any_class, path):
    first, second = any_class(path), any_class(path)
    first["a"] = {"x": []}
    second["a"]["x"].append(1)
    first["a"]["x"].append(2)
    assert second["a"]["x"] == [1, 2]
    assert first.dirty() == second.dirty() == {"a"}
    second.sync()
    assert first.dirty() == set()
    first.close()
    second.close()


def test_closing_one_instance_leaves_the_other(any_class, path):
    first, second = any_class(path), any_class(path)
    first["a"] = {"x": 1}
    first.close()
    with pytest.raises(CalledClosedTrackerError):
        first["a"]
    assert second["a"]["x"] == 1
    second["b"] = {"x": 2}
    third = any_class(path)
    second.close()
    assert third.keys() == ["a", "b"]
    third.close()
    with pytest.raises(CalledClosedTrackerError):
        third.keys()
    with any_class(path, mode="r") as reader:
        assert reader.keys() == ["a", "b"]


def test_each_instance_has_its_own_threshold_and_hold(any_class, path):
    with any_class(path, sync_at=3) as often, any_class(path, sync_at=1000) as seldom:
        seldom.update((number, {"x": 1}) for number in range(10))
        assert len(seldom.dirty()) == 10
        often.hold()
        often["a"] = {}
        assert len(seldom.dirty()) == 11
        seldom.unhold()
        assert len(seldom.dirty()) == 11
        often.unhold()
        assert seldom.dirty() == set()


def test_an_instance_of_its_own_sees_what_is_synced(any_class, path):
    with any_class(path) as first, any_class(path, clone=False) as second:
        first["a"] = {"x": 1}
        assert "a" not in second
        first.sync()
        assert second["a"]["x"] == 1
        second["a"]["x"] = 2
        second["b"] = {"x": 3}
        assert first["a"]["x"] == 1
        second.sync()
        assert first["a"]["x"] == 2
        assert first.keys() == second.keys() == ["a", "b"]


# Several processes


def hold_open(pipe, cls, path, options):
    with cls(path, **options) as store:
        pipe.send(store.keys())
        pipe.recv()


def test_a_store_in_use_is_refused_at_once_and_names_the_process(any_class, path):
    with Child(hold_open, any_class, path, {}) as child:
        assert child.pipe.recv() == []
        before = tree(path)
        with pytest.raises(StoreInUseError) as raised:
            any_class(path)
        assert isinstance(raised.value, BlockingIOError)
        for part in (str(child.pid), "SharedPersistentOrderedDict", 'mode="r"', str(path)):
            assert part in str(raised.value)
        assert tree(path) == before
        with any_class(path, mode="r") as reader:
            assert reader.keys() == []
        child.pipe.send("end")
        assert child.wait() == 0
    with any_class(path) as store:
        store["a"] = {}


def test_a_store_is_free_as_soon_as_its_process_is_killed(any_class, path):
    for _ in range(5):
        with Child(hold_open, any_class, path, {}) as child:
            child.pipe.recv()
            with pytest.raises(StoreInUseError):
                any_class(path)
            child.kill()
            child.wait()
        with any_class(path) as store:
            store._check()


def test_readers_do_not_exclude_a_writer(any_class, path):
    with any_class(path, init={"a": {}}):
        pass
    with Child(hold_open, any_class, path, {"mode": "r"}) as child:
        assert child.pipe.recv() == ["a"]
        with any_class(path) as store:
            store["b"] = {}
        child.pipe.send("end")
        assert child.wait() == 0


def test_a_reader_sees_each_last_sync_and_no_more(any_class, path):
    def write(pipe):
        with any_class(path, sync_at=1000) as store:
            for number in range(50):
                store[number] = {"n": number}
                if number % 2:
                    store[number - 1]["n"] = "changed"
                    del store[number // 2]
                store["never"] = {"unsynced": number}
                # What follows each sync but is not synced is not seen.
                del store["never"]
                store.sync()
                store["unsynced"] = {"n": number}
                store[number]["n"] = "unsynced"
                pipe.send([(key, store[key]["n"]) for key in store if key != "unsynced"])
                pipe.recv()
                store.revert()

    with Child(write) as child:
        reader = None
        for number in range(50):
            expected = child.pipe.recv()
            expected[-1] = (expected[-1][0], number)
            if reader is None:
                reader = any_class(path, mode="r")
            assert [(key, value["n"]) for key, value in reader.iteritems()] == expected
            assert [(key, reader[key]["n"]) for key in reader] == expected
            assert len(reader) == len(expected)
            assert "unsynced" not in reader
            child.pipe.send("next")
        assert child.wait() == 0
        reader.close()


def test_a_reader_in_the_middle_of_a_loop_survives_what_a_writer_does(any_class, path):
    with any_class(path, init={number: {"n": number} for number in range(3000)}):
        pass

    def write(pipe):
        pipe.recv()
        with any_class(path) as store:
            for number in range(0, 3000, 2):
                del store[number]
            for number in range(3000, 3100):
                store[number] = {"n": number}
            store.sync()
            pipe.send("written")
            pipe.recv()

    with Child(write) as child, any_class(path, mode="r") as reader:
        loop = reader.iteritems()
        begun = [next(loop) for _ in range(5)]
        child.pipe.send("write")
        child.pipe.recv()
        rest = [(key, value["n"]) for key, value in loop]
        child.pipe.send("end")
        assert child.wait() == 0
        assert [key for key, _ in begun] == [0, 1, 2, 3, 4]
        assert all(key == n for key, n in rest)
        keys = [key for key, _ in rest]
        assert keys == sorted(keys)
        # Those that were there all the time, and those that were added.
        assert {*range(5, 3000, 2), *range(3000, 3100)} <= set(keys)
        # What had not been read yet is gone.
        assert 2998 not in keys


@pytest.mark.parametrize("exists", [None, "folder"])
def test_reading_what_is_not_there_creates_nothing(any_class, path, exists):
    if exists:
        path.mkdir()
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(StoreNotFoundError) as raised:
        any_class(path, mode="r")
    assert isinstance(raised.value, FileNotFoundError)
    assert str(path) in str(raised.value)
    assert sorted(path.parent.rglob("*")) == before


WRITES = {
    "assign": lambda store: store.__setitem__("a", {}),
    "delete": lambda store: store.__delitem__("a"),
    "update": lambda store: store.update(b={}),
    "setdefault": lambda store: store.setdefault("b", {}),
    "pop": lambda store: store.pop("a"),
    "popitem": lambda store: store.popitem(),
    "clear": lambda store: store.clear(),
    "mark_dirty": lambda store: store.mark_dirty("a"),
    "sync_key": lambda store: store.sync_key("a"),
    "in place": lambda store: store.__ior__({"b": {}}),
    "set": lambda store: store.set["a"].update(x=1),
    "init": lambda store: type(store)(store.path, init={"b": {}}, mode="r"),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_reader_writes_nothing(any_class, path, write):
    with any_class(path, init={"a": {"x": 0}}):
        pass
    before = (path / "data.mdb").read_bytes()
    with any_class(path, mode="r") as reader:
        with pytest.raises(ReadOnlyStoreError, match='mode="w"'):
            WRITES[write](reader)
        reader["a"]["x"] = 5
        assert reader["a"]["x"] == 0
        assert reader.dirty() == set()
        reader.sync()
        reader.revert()
    assert (path / "data.mdb").read_bytes() == before


def test_many_processes_race_to_make_a_store_and_one_gets_it(any_class, path):
    def open_when_told(pipe):
        pipe.recv()
        try:
            store = any_class(path)
        except StoreInUseError:
            pipe.send("in use")
            return
        store["winner"] = {"pid": os.getpid()}
        pipe.send("open")
        pipe.recv()
        store.close()

    for _ in range(10):
        shutil.rmtree(path, ignore_errors=True)
        children = [Child(open_when_told) for _ in range(5)]
        try:
            for child in children:
                child.pipe.send("go")
            answers = [child.pipe.recv() for child in children]
            assert sorted(answers) == ["in use"] * 4 + ["open"]
            for child, answer in zip(children, answers, strict=True):
                if answer == "open":
                    child.pipe.send("close")
                assert child.wait() == 0
        finally:
            for child in children:
                child.__exit__()
        with any_class(path) as store:
            assert store.keys() == ["winner"]


def test_a_reader_of_a_store_that_is_being_made_finds_none_or_a_whole_one(any_class, path):
    def read_each(pipe):
        pipe.send("there is none" if not path.exists() else "too late")
        for number in range(50):
            while True:
                try:
                    with any_class(path / str(number), mode="r") as reader:
                        assert reader.keys() in ([], ["a"])
                    break
                except StoreNotFoundError:
                    pass

    with Child(read_each) as child:
        assert child.pipe.recv() == "there is none"
        for number in range(50):
            with any_class(path / str(number)) as store:
                store["a"] = {}
        assert child.wait() == 0


# Files that go away


def test_a_store_that_is_removed_while_it_is_open_raises_at_the_sync(any_class, path):
    store = any_class(path, init={"a": {"x": 1}})
    store.sync()
    shutil.rmtree(path)
    # What was read stays mapped.
    assert store["a"]["x"] == 1
    store["b"] = {}
    with pytest.raises(PersistentOrderedDictException, match="removed"):
        store.sync()
    with pytest.raises(StoreConflictError, match="removed"):
        any_class(path)
    assert store.dirty() == {"b"}
    store.revert()
    store.close()
    with any_class(path) as again:
        assert again.keys() == []


def test_a_store_that_is_replaced_while_it_is_open_is_not_written(any_class, tmp_path):
    with any_class(tmp_path / "other", init={"other": {}}):
        pass
    store = any_class(tmp_path / "store", init={"a": {}})
    store.sync()
    shutil.rmtree(tmp_path / "store")
    shutil.copytree(tmp_path / "other", tmp_path / "store")
    store["b"] = {}
    with pytest.raises(PersistentOrderedDictException, match="replaced"):
        store.sync()
    with pytest.raises(StoreConflictError):
        any_class(tmp_path / "store")
    store.revert()
    store.close()
    with any_class(tmp_path / "store") as again:
        assert again.keys() == ["other"]
        again._check()


def test_a_moved_store_is_opened_where_it_is(any_class, tmp_path):
    with any_class(tmp_path / "before", init={"a": {}}):
        pass
    os.rename(tmp_path / "before", tmp_path / "after")
    with any_class(tmp_path / "after") as store:
        assert store.keys() == ["a"]
    with pytest.raises(StoreNotFoundError):
        any_class(tmp_path / "before", mode="r")


# Rights


def as_somebody_else(work):
    """For root, whom no right stops: do it as a user without rights."""

    def child(pipe):
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        work()

    outcome_of(child)


@pytest.fixture
def change_rights(tmp_path):
    """Change those of a file or folder until the test ends. Any user gets to ``tmp_path`` itself."""
    before = {}

    def change(path, mode):
        before.setdefault(path, stat.S_IMODE(path.stat().st_mode))
        path.chmod(mode)

    folder = Path(os.path.realpath(tmp_path))
    for parent in (folder, *folder.parents):
        mode = stat.S_IMODE(parent.stat().st_mode)
        if mode & 0o005 != 0o005 and parent.stat().st_uid == os.geteuid():
            change(parent, mode | 0o055)
    yield change
    for path, mode in reversed(before.items()):
        path.chmod(mode)


@pytest.mark.parametrize(
    ("name", "closed", "left", "mode"),
    [
        ("store", ["store"], 0o000, "w"),
        ("store", ["store"], 0o000, "r"),
        ("store", ["store", "store/data.mdb", "store/lock.mdb"], 0o555, "w"),
        ("new", ["."], 0o555, "w"),
    ],
    ids=["no rights", "no rights to read", "no right to write", "no right to create"],
)
def test_what_the_rights_forbid_is_refused_by_name(any_class, tmp_path, change_rights, name, closed, left, mode):
    with any_class(tmp_path / "store", init={"a": {}}):
        pass
    for entry in reversed(closed):
        change_rights(tmp_path / entry, left)

    def work():
        with pytest.raises(OSError, match="denied") as raised:
            any_class(tmp_path / name, mode=mode)
        assert str(tmp_path) in str(raised.value)

    as_somebody_else(work)


def test_files_without_the_right_to_write_are_read(any_class, path, change_rights):
    with any_class(path, init={"a": {"x": 1}}):
        pass
    for entry in (*path.iterdir(), path):
        change_rights(entry, 0o555)

    def work():
        with any_class(path, mode="r") as reader:
            assert reader["a"]["x"] == 1
            assert reader.keys() == ["a"]

    as_somebody_else(work)


def test_a_read_only_file_system_is_read(any_class, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system, and not everywhere")
    path = tmp_path / "store"
    try:
        with any_class(path, init={"a": {"x": 1}}):
            pass
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with any_class(path, mode="r") as reader:
            assert reader["a"]["x"] == 1
            assert reader.keys() == ["a"]
            assert len(reader) == 1
        with pytest.raises(OSError, match=r"Read-only|read-only"):
            any_class(path)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_an_exception_while_opening_leaves_nothing_locked(any_class, path):
    """In this process and for others."""
    with any_class(path, init={"a": {}}):
        pass
    data = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(b"damaged")
    for _ in range(3):
        with pytest.raises(PersistentOrderedDictIntegrityError):
            any_class(path)
    (path / "data.mdb").write_bytes(data)
    program = "import sys, tastypy_fast; print(getattr(tastypy_fast, sys.argv[2])(sys.argv[1]).keys())"
    status, output, errors = run(program, path, any_class.__name__)
    assert (status, output, errors) == (0, "['a']\n", "")
    with any_class(path) as store:
        assert store.keys() == ["a"]


def test_importing_the_package_opens_nothing(tmp_path):
    program = "import os, sys; before = os.listdir('/proc/self/fd'); import tastypy_fast;"
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc here")
    program += "assert len(os.listdir('/proc/self/fd')) == len(before); assert not os.listdir(); print('ok')"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")
