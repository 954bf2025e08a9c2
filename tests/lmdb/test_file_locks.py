"""Several processes on one store: which may open it, and what readers see."""

from __future__ import annotations

import os
import shutil

import pytest

from tastypy_fast import (
    ReadOnlyStoreError,
    StoreInUseError,
    StoreNotFoundError,
)
from tests.support.children import Child
from tests.support.opening import tree

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def hold_open(pipe, cls, path, options):
    with cls(path, **options) as store:
        pipe.send(store.keys())
        pipe.recv()


def test_store_in_use_is_refused_at_once_and_names_the_process(any_class, path):
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


def test_store_can_be_opened_as_soon_as_its_process_is_killed(any_class, path):
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


def test_reader_sees_only_synced_changes(any_class, path):
    def write(pipe):
        with any_class(path, sync_at=1000) as store:
            for number in range(50):
                store[number] = {"n": number}
                if number % 2:
                    store[number - 1]["n"] = "changed"
                    del store[number // 2]
                store["never"] = {"unsynced": number}
                # A reader does not see changes that follow the last sync.
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


def test_loop_of_a_reader_continues_while_a_writer_changes_the_store(any_class, path):
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
        # The loop yields the keys that existed all the time, and the keys that were added.
        assert {*range(5, 3000, 2), *range(3000, 3100)} <= set(keys)
        # Keys that were deleted ahead of the loop are not yielded.
        assert 2998 not in keys


@pytest.mark.parametrize("exists", [None, "folder"])
def test_opening_a_missing_store_to_read_creates_nothing(any_class, path, exists):
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
def test_reader_writes_nothing(any_class, path, write):
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


def test_one_of_many_processes_creates_a_store(any_class, path):
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


def test_reader_of_a_store_that_is_being_created_finds_none_or_a_complete_one(any_class, path):
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
