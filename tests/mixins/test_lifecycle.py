"""Open, name, copy and close a store; a closed store raises."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
    InvalidKeyError,
    NotLockedError,
    ProgressTracker,
    ReadOnlyStoreError,
    SharedProgressTracker,
    UnstorableValueError,
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
    "pop": ("a", None), "popitem": (), "setdefault": ("a", {}), "clear": (), "update": ({"a": {}},), "keys": (),
    "values": (), "items": (), "iterkeys": (), "itervalues": (), "iteritems": (), "sync": (), "sync_key": ("a",),
    "mark_dirty": ("a",), "dirty": (), "hold": (), "unhold": (), "revert": (), "_check": (),
    "lock": (), "unlock": (), "locked": (), "transaction": (), "mark_done_many": (("a",),), "release": ("a",),
    "claims": (), "claimed_keys": (), "export_json": (Path(tempfile.gettempdir(), "tastypy_fast", "is not made"),),
    "export_jsonl": (io.StringIO(),), "import_jsonl": (['{"key": "a", "value": {}}'],),
    "progress": (), "to_arrow": (), "to_pandas": (), "to_polars": (),
    "add": ("a",), "add_if_absent": ("a",), "add_many": ("a",), "add_many_if_absent": ("a",), "mark_done": ("a",),
    "mark_not_done": ("a",), "increment_tries": ("a",), "decrement_tries": ("a",), "reset_tries": ("a",),
    "abort": ("a",), "unabort": ("a",), "done": ("a",), "tries": ("a",), "aborted": ("a",), "should_do": ("a",),
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


# Code that works with private and shared stores


def test_locked_returns_the_store_and_keeps_changes_after_an_exception(kit, store):
    with store.locked() as locked:
        assert locked is store
        store["a"] = kit.value(1)
        with store.locked():
            store["b"] = kit.value(2)
    with contextlib.suppress(ZeroDivisionError), store.locked():
        store["c"] = kit.value(3)
        raise ZeroDivisionError
    for now in kit.states(store):
        assert kit.contents(now) == {"a": 1, "b": 2, "c": 3}


def test_other_threads_wait_for_the_end_of_a_locked_block(kit, store):
    store.update(kit.pairs({"a": 0, "b": 0}))
    entered, seen = threading.Event(), []

    def look():
        entered.wait()
        with store.locked():
            seen.append(kit.contents(store))

    thread = threading.Thread(target=look)
    thread.start()
    with store.locked():
        store["a"] = kit.value(1)
        entered.set()
        thread.join(0.1)
        store["b"] = kit.value(1)
    thread.join()
    assert seen == [{"a": 1, "b": 1}]


def test_locked_object_may_be_entered_again(kit, store):
    block = store.locked()
    for number in range(2):
        with block, block:
            store[number] = kit.value(number)
    assert kit.contents(store) == {0: 0, 1: 1}


def test_locked_block_belongs_to_its_thread(kit, store):
    block = store.locked()
    with pytest.raises(NotLockedError):
        block.__exit__(None, None, None)
    block.__enter__()
    raised = []

    def end():
        try:
            block.__exit__(None, None, None)
        except NotLockedError as error:
            raised.append(error)

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert len(raised) == 1
    store["a"] = kit.value(1)
    block.__exit__(None, None, None)
    assert kit.contents(store) == {"a": 1}


def test_close_inside_a_locked_block_saves(kit):
    store = kit.open()
    with store.locked():
        store["a"] = kit.value(1)
        store.close()
    store = kit.open()
    assert kit.contents(store) == {"a": 1}
    # The lock is released.
    thread = threading.Thread(target=lambda: store.update(kit.pairs({"b": 2})))
    thread.start()
    thread.join(10)
    assert kit.contents(store) == {"a": 1, "b": 2}


def test_automatic_sync_waits_for_the_end_of_the_locked_block(private_kit):
    kit = private_kit
    store = kit.open(sync_at=2)
    with store.locked():
        store.update(kit.pairs({"a": 1, "b": 2, "c": 3}))
        with store.locked():
            store["d"] = kit.value(4)
        store.unhold()
        assert store.dirty() == {"a", "b", "c", "d"}
    assert store.dirty() == set()
    with store.locked():
        store["e"] = kit.value(5)
        store.sync()
        assert store.dirty() == set()
        store["f"] = kit.value(6)
    assert store.dirty() == {"f"}
    store.hold()
    with store.locked():
        store.update(kit.pairs({"g": 1, "h": 2, "i": 3}))
    assert len(store.dirty()) == 4


def test_reader_sees_one_snapshot_in_a_locked_block(private_kit, run_python):
    kit = private_kit
    with kit.open() as store:
        store.update(kit.pairs({"a": 1}))
    reader = kit.open(mode="r")
    with reader.locked():
        assert reader.keys() == ["a"]
        run_python(f"""
import tastypy_fast
with tastypy_fast.{kit.cls.__name__}({reader.path!r}) as store:
    store["b"] = {{}}
""")
        assert reader.keys() == ["a"]
    assert reader.keys() == ["a", "b"]


@pytest.mark.parametrize("how", ["exit", "SIGTERM"])
def test_program_exits_although_a_thread_stays_in_a_locked_block(private_kit, how):
    kit = private_kit
    with kit.open() as store:
        path = store.path
    code = f"""
import os, signal, threading, time, tastypy_fast
from tastypy_fast._store import registry
registry.END_PATIENCE = 100_000
store = tastypy_fast.{kit.cls.__name__}({path!r})
store["a"] = {{}}
store.sync()
entered = threading.Event()
def stay():
    with store.locked():
        store["b"] = {{}}
        entered.set()
        time.sleep(1000)
threading.Thread(target=stay, daemon=True).start()
entered.wait()
if {how!r} == "SIGTERM":
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.returncode == (0 if how == "exit" else -signal.SIGTERM)
    assert "another thread is still in a block" in done.stderr
    assert kit.open().keys() == ["a"]


def test_child_forked_in_a_locked_block_is_outside_it(private_kit):
    kit = private_kit
    store = kit.open()
    store["a"] = kit.value(1)
    store.sync()
    block = store.locked()
    with block:
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                block.__exit__(None, None, None)
                code = 0 if store.keys() == ["a"] else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        store["b"] = kit.value(2)
    assert kit.contents(store) == {"a": 1, "b": 2}


@pytest.fixture(params=[ProgressTracker, SharedProgressTracker], ids=["private", "shared"])
def some_tracker(request, path):
    with request.param(path, init={key: {} for key in "abc"}) as tracker:
        yield tracker
        tracker._check()


def test_mark_done_many_marks_all_tasks_or_none(some_tracker):
    with pytest.raises(KeyError, match="'x'"):
        some_tracker.mark_done_many(["a", "x", "b"])
    assert some_tracker.num_done() == 0
    some_tracker.mark_done_many(key for key in ["a", "b", "a"])
    some_tracker.mark_done_many([])
    assert [key for key in some_tracker if some_tracker.done(key)] == ["a", "b"]
    with pytest.raises(InvalidKeyError):
        some_tracker.mark_done_many(["c", 1.5])
    assert not some_tracker.done("c")


def test_release_of_a_missing_task_raises_key_error(some_tracker):
    with pytest.raises(KeyError, match="'x'"):
        some_tracker.release("x")
    assert next(some_tracker.try_keys()) == "a"
    some_tracker.release("a")
    assert some_tracker.tries("a") == 1
    assert not some_tracker.done("a")


@pytest.mark.parametrize("method", ["try_keys", "try_values", "try_items"])
def test_try_loops_accept_a_batch_size(some_tracker, method):
    loop = getattr(some_tracker, method)
    assert len(list(loop(batch=2))) == 3
    for wrong, error in ((0, ValueError), (-1, ValueError), ("1", TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="batch"):
            loop(batch=wrong)
    with pytest.raises(TypeError):
        loop(False, 2)
    assert [some_tracker.tries(key) for key in "abc"] == [1, 1, 1]


def test_read_only_tracker_refuses_mark_done_many(path):
    with ProgressTracker(path, init={"a": {}}):
        pass
    with ProgressTracker(path, mode="r") as reader:
        for keys in ([], ["a"]):
            with pytest.raises(ReadOnlyStoreError):
                reader.mark_done_many(keys)
        reader.release("a")
        assert reader.mode == "r"


def test_mark_done_many_counts_towards_the_automatic_sync(path):
    with ProgressTracker(path, init={key: {} for key in "abc"}, sync_at=2) as tracker:
        tracker.sync()
        tracker.mark_done_many("ab")
        assert tracker.dirty() == set()
        tracker.hold()
        tracker.mark_done_many("abc")
        assert tracker.dirty() == {"c"}


def test_status_that_cannot_be_stored_marks_none(path):
    with ProgressTracker(path, init={"a": {}, "b": {}}) as tracker:
        task = tracker["b"]
        task["_tries"] = "many"
        with pytest.raises(UnstorableValueError):
            tracker.mark_done_many("ab")
        assert not tracker.done("a")
        tracker.revert()
