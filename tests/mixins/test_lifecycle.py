"""Open, name, copy and close a store; a closed store raises."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
    PersistentOrderedDict,
    ProgressTracker,
    StoreNotFoundError,
)
from tests.support.contract import ABC
from tests.support.stores import is_tracker

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


# Attributes of a store


def test_attributes_of_a_private_store_have_the_documented_defaults(private_kit):
    store = private_kit.open()
    assert store.path == str((private_kit.folder / "store").resolve())
    assert (store.mode, store.durability, store.gzipped, store.file_size, store.closed) == (
        "w", "normal", False, 1000, False
    )


def test_path_may_be_text_bytes_or_a_path(kit):
    text = str(kit.folder / "ü")
    for path in (text, text.encode(), kit.folder / "ü"):
        with kit.cls(path) as store:
            store["a"] = kit.value(1)
            assert store.path == str((kit.folder / "ü").resolve())


def test_parent_folders_of_the_path_are_created(kit):
    assert kit.open("some/folders/below").path.endswith("some/folders/below")


def test_repr_shows_class_path_and_count(kit, abc):
    text = repr(abc)
    assert kit.cls.__name__ in text
    assert abc.path in text
    assert "3" in text
    abc.close()
    assert "closed" in repr(abc)


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_private_store_cannot_be_pickled_or_copied(private_kit, duplicate):
    with pytest.raises(TypeError, match="path"):
        duplicate(private_kit.open())


class ReaderOfTasks(ProgressTracker):
    """A subclass with another constructor, which a pickle can name."""

    def __init__(self, path, note):
        super().__init__(path, 3, mode="r")
        self.note = note


def test_reader_is_pickled_by_its_path(private_kit):
    private_kit.open(init=private_kit.pairs(ABC), gzipped=True).close()
    reader = private_kit.open(mode="r", gzipped=True, file_size=7)
    data = pickle.dumps(reader)
    assert len(data) < 500
    again = [pickle.loads(data), copy.copy(reader), copy.deepcopy(reader)]
    for other in again:
        assert type(other) is type(reader)
        assert (other.path, other.mode, other.gzipped, other.file_size) == (reader.path, "r", True, 7)
        assert private_kit.contents(other) == ABC
        other.close()
    reader.close()
    with pickle.loads(data) as other:
        assert private_kit.contents(other) == ABC


def test_pickled_reader_opens_in_another_process_while_the_store_is_written(private_kit, run_python):
    private_kit.open(init=private_kit.pairs(ABC)).close()
    with private_kit.open(mode="r") as reader:
        data = pickle.dumps(reader)
    writer = private_kit.open()
    del writer["b"]
    writer.sync()
    code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).keys())"
    assert run_python(code, data.hex()) == "['a', 'c']\n"


def test_pickled_reader_keeps_its_class_its_attributes_and_its_limit(path):
    ProgressTracker(path, init={"a": {}}).close()
    with ReaderOfTasks(path, "x") as reader, pickle.loads(pickle.dumps(reader)) as other:
        assert (type(other), other.note, other.max_tries) == (ReaderOfTasks, "x", 3)
        assert other.keys() == ["a"]


def test_pickled_reader_of_a_store_that_is_gone_raises(path):
    PersistentOrderedDict(path).close()
    with PersistentOrderedDict(path, mode="r") as reader:
        data = pickle.dumps(reader)
    shutil.rmtree(path)
    with pytest.raises(StoreNotFoundError):
        pickle.loads(data)


def test_class_can_be_subclassed(kit):
    class Mine(kit.cls):
        def __init__(self, *arguments, **keywords):
            self.log = []
            super().__init__(*arguments, **keywords)

        def __setitem__(self, key, value):
            self.log.append(key)
            super().__setitem__(key.lower(), value)

        def first(self):
            return next(iter(self))

    kit.cls = Mine
    store = kit.open()
    store["A"] = kit.value(1)
    store.extra = 1
    assert store.first() == "a"
    assert store.log == ["A"]
    assert "Mine" in repr(store)


@pytest.mark.parametrize("name", ["file_size", "sync_at"])
@pytest.mark.parametrize(("wrong", "error"), [
    (0, ValueError), (-1, ValueError), (1.5, TypeError), ("10", TypeError), (None, TypeError), (True, TypeError),
])
def test_invalid_sizes_are_refused_before_a_store_is_created(kit, name, wrong, error):
    with pytest.raises(error, match=name):
        kit.open(**{name: wrong})
    assert list(kit.folder.iterdir()) == []


@pytest.mark.parametrize("options", [{"mode": "x"}, {"mode": None}, {"durability": "safe"}, {"durability": 1}])
def test_invalid_mode_or_durability_is_refused_before_a_store_is_created(private_kit, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        private_kit.open(**options)
    assert list(private_kit.folder.iterdir()) == []


@pytest.mark.parametrize("durability", ["full", "normal", "process"])
def test_every_durability_saves(kit, durability):
    store = kit.open(durability=durability, sync_at=2)
    store.update(kit.pairs(ABC))
    assert store.durability == durability
    assert kit.contents(kit.reopened(store)) == ABC


def test_file_size_is_stored_and_may_change_at_the_next_opening(kit):
    kit.open(file_size=7).close()
    assert kit.open(file_size=9).file_size == 9


def test_gzipped_store_is_smaller_and_readable_with_either_setting(kit):
    sizes = {}
    for gzipped in (False, True):
        name = f"gzipped-{gzipped}"
        store = kit.open(name, gzipped=gzipped)
        assert store.gzipped is gzipped
        store.update(kit.pairs(dict.fromkeys(range(500), "text " * 100)))
        store.close()
        sizes[gzipped] = (kit.folder / name / "data.mdb").stat().st_size
        other = kit.open(name, gzipped=not gzipped)
        assert kit.contents(other) == dict.fromkeys(range(500), "text " * 100)
        other[0] = kit.value("changed")
        other.close()
        assert kit.plain(kit.open(name, gzipped=gzipped)[0]) == "changed"
    assert sizes[True] < sizes[False] / 2


# Closed stores

AFTER_CLOSE = {
    "__getitem__": ("a",), "__setitem__": ("a", {}), "__delitem__": ("a",), "__contains__": ("a",), "__len__": (),
    "__iter__": (), "__reversed__": (), "__enter__": (), "__ior__": ({"a": {}},), "__eq__": ({},), "get": ("a",),
    "get_many": (["a"],),
    "__or__": ({},), "__ror__": ({},), "copy": (), "move_to_end": ("a",),
    "pop": ("a", None), "popitem": (), "setdefault": ("a", {}), "clear": (), "update": ({"a": {}},), "keys": (),
    "values": (), "items": (), "iterkeys": (), "itervalues": (), "iteritems": (), "sync": (), "sync_key": ("a",),
    "mark_dirty": ("a",), "dirty": (), "hold": (), "unhold": (), "revert": (), "_check": (),
    "lock": (), "unlock": (), "locked": (), "transaction": (), "mark_done_many": (("a",),), "release": ("a",),
    "claims": (), "claimed_keys": (), "export_json": (Path(tempfile.gettempdir(), "tastypy_fast", "is not made"),),
    "export_jsonl": (io.StringIO(),), "import_jsonl": (['{"key": "a", "value": {}}'],),
    "progress": (), "to_arrow": (), "to_pandas": (), "to_polars": (),
    "add": ("a",), "add_if_absent": ("a",), "add_many": ("a",), "add_many_if_absent": ("a",), "mark_done": ("a",),
    "record_error": ("a", "text"), "run": (print,),
    "mark_not_done": ("a",), "increment_tries": ("a",), "decrement_tries": ("a",), "reset_tries": ("a",),
    "abort": ("a",), "unabort": ("a",), "done": ("a",), "tries": ("a",), "aborted": ("a",), "status": ("a",),
    "count_by_status": (), "should_do": ("a",),
    "should_do_add": ("a",), "should_try": ("a",), "should_try_add": ("a",),
    **{f"{family}_{part}": () for family in ("todo", "try", "aborted") for part in ("keys", "values", "items")},
    **{f"{kind}_{state}": () for kind in ("num", "fraction", "percent") for state in ("done", "tried", "aborted")},
    **{f"percent_not_{state}": () for state in ("done", "tried", "aborted")},
}


def test_every_public_method_is_in_the_list_of_those_that_raise_when_closed(any_class):
    methods = {name for name in dir(any_class) if not name.startswith("_") and callable(getattr(any_class, name))}
    assert methods - AFTER_CLOSE.keys() == {"close", "import_json"}


def test_every_method_of_a_closed_store_raises(kit, abc):
    methods = {name: arguments for name, arguments in AFTER_CLOSE.items() if hasattr(abc, name)}
    abc.close()
    for name, arguments in methods.items():
        with pytest.raises(CalledClosedTrackerError):
            pytest.fail(f"{name}() gave {getattr(abc, name)(*arguments)!r}")
    assert kit.contents(kit.open()) == ABC


def test_set_and_truth_of_a_closed_store_raise(abc):
    abc.close()
    with pytest.raises(CalledClosedTrackerError):
        abc.set["a"] = {}
    with pytest.raises(CalledClosedTrackerError):
        bool(abc)


def test_closing_again_does_nothing(kit, abc):
    abc.close()
    abc.close()
    assert abc.closed
    assert kit.contents(kit.open()) == ABC


@pytest.mark.parametrize("name", ["sync_at", "file_size", "max_tries"])
def test_limits_may_be_integers_of_any_size(any_class, path, name):
    if name == "max_tries" and not is_tracker(any_class):
        return
    with any_class(path, **{name: 10**30}) as store:
        store["a"] = {}
        if is_tracker(any_class):
            assert list(store.try_keys()) == ["a"]
