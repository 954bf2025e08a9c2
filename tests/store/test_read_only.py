"""Read-only stores: they write nothing, and see each sync of a writer."""

from __future__ import annotations

import copy

import pytest

from tastypy_fast import (
    ForkedStoreError,
    ReadOnlyStoreError,
    StoreConflictError,
    StoreNotFoundError,
)
from tests.support.children import Child, result_of_child
from tests.support.contract import ABC, numbered
from tests.support.stores import is_tracker

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]

WRITES = {
    "__setitem__": ("a", {}), "__delitem__": ("a",), "pop": ("a",), "popitem": (), "setdefault": ("new", {}),
    "clear": (), "update": ({"a": {}},), "__ior__": ({"a": {}},), "mark_dirty": ("a",), "sync_key": ("a",),
    "add": ("new",), "add_if_absent": ("new",), "add_many": (["new"],), "add_many_if_absent": (["new"],),
    **dict.fromkeys(("mark_done", "mark_not_done", "increment_tries", "decrement_tries", "reset_tries", "abort",
                     "unabort", "should_do_add", "should_try", "should_try_add"), ("a",)),
    "try_keys": (), "try_values": (), "try_items": (),
}


def test_reader_refuses_to_write(private_kit):
    kit = private_kit
    kit.open(init=kit.pairs(ABC)).close()
    reader = kit.open(mode="r")
    methods = {name: arguments for name, arguments in WRITES.items() if hasattr(reader, name)}
    for name, arguments in methods.items():
        with pytest.raises(ReadOnlyStoreError, match="mode"):
            pytest.fail(f"{name}() gave {getattr(reader, name)(*arguments)!r}")
        assert kit.contents(reader) == ABC
    with pytest.raises(ReadOnlyStoreError):
        reader.set["a"] = {}


THROUGH_SET = {
    "assign a key": "p['k'] = {}", "assign a new key": "p['new'] = {}", "delete a key": "del p['k']",
    "assign": "p['k']['d']['x'] = 3", "delete": "del p['k']['d']['x']", "append": "p['k']['l'].append(3)",
    "update": "p['k']['d'].update(x=1)", "pop": "p['k']['l'].pop()", "setdefault": "p['k'].setdefault('new', 1)",
    "add to a number": "p['k']['n'] += 1", "extend": "p['k']['l'] += [1]", "mix in": "p['k']['d'] |= {'x': 1}",
    "a slice": "p['k']['l'][:] = []", "delete a slice": "del p['k']['l'][1:]",
    "extend a slice": "p['k']['l'][1:] += [1]",
    "a dict as a key": "p['k'] |= {'x': 1}", "update the store": "p.update(k={})",
    "mix into the store": "s.set |= {'k': {}}",
    "update with nothing": "p.update({})", "pop a key": "p.pop('k')", "pop what is missing": "p.pop('none', 5)",
    "setdefault of what is there": "p.setdefault('k', {})", "clear": "p.clear()", "missing": "p['none']['x'] = 1",
    "no such method": "p['k'].nope()", "read": "p['k']['l'].count(1)",
    "iterator": "p['k']['l'].extend(unread())", "with a reference": "append = p['k']['l'].append; append(1)",
}
TO_CHANGE = {"n": 1, "l": [1, 2], "d": {"x": 0}}


def refuses_every_change_through_set(pipe, store, places, error):
    before = store.items()

    def unread():
        raise AssertionError("something was done before it was refused")
        yield

    for statement in THROUGH_SET.values():
        for place in places:
            with pytest.raises(error) as refused:
                exec(statement, {"p": place, "s": store, "unread": unread})
            assert str(refused.value) == str(store._store.refuse_write())
    assert store.items() == before


def test_reader_refuses_every_change_through_set(private_kit):
    kit = private_kit
    # The changes apply to the dict of a task, too.
    kit.open(init={"k": dict(TO_CHANGE)}).close()
    with kit.open(mode="r") as reader:
        refuses_every_change_through_set(None, reader, [reader.set], ReadOnlyStoreError)
        assert '"w"' in str(reader._store.refuse_write())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("mode", ["w", "r"])
def test_forked_child_refuses_every_change_through_set(private_kit, mode):
    kit = private_kit
    store = kit.open(init={"k": dict(TO_CHANGE)})
    if mode == "r":
        store.close()
        store = kit.open(mode="r")
    else:
        store.sync()
    before = store.items()

    def child(pipe):
        error = ForkedStoreError if mode == "w" else ReadOnlyStoreError
        refuses_every_change_through_set(pipe, store, [store.set, from_the_parent], error)

    from_the_parent = store.set
    result_of_child(child)
    assert store.items() == before


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_changes_a_shared_store_through_set(kit):
    if not kit.is_shared:
        pytest.skip("a private store is not written by a child")
    store = kit.open(init={"k": dict(TO_CHANGE)})

    def child(pipe):
        store.set["k"]["l"].append(3)
        from_the_parent["d"]["x"] += 5

    from_the_parent = store.set["k"]
    result_of_child(child)
    assert (store["k"]["l"], store["k"]["d"]) == ([1, 2, 3], {"x": 5})


def test_reader_reads_everything(private_kit):
    kit = private_kit
    kit.open(init=kit.pairs(ABC)).close()
    with kit.open(mode="r") as reader:
        assert reader.mode == "r"
        assert kit.contents(reader) == ABC
        assert (len(reader), "a" in reader, "z" in reader) == (3, True, False)
        assert list(reversed(reader)) == ["c", "b", "a"]
        assert kit.plain(reader["a"]) == 1
        assert reader.get("z", 5) == 5
        assert reader == kit_copy(kit, reader)
        reader.sync()
        reader.revert()
        reader.hold()
        reader.unhold()
        assert reader.dirty() == set()


def kit_copy(kit, store):
    return {key: copy.deepcopy(value) for key, value in store.items()}


def test_changes_to_values_in_a_reader_are_not_saved(private_kit):
    kit = private_kit
    kit.open(init=kit.pairs({"a": [1]})).close()
    with kit.open(mode="r") as reader:
        kit.plain(reader["a"]).append(2)
        assert reader.dirty() == set()
        assert kit.plain(reader["a"]) == [1]
    assert kit.contents(kit.open()) == {"a": [1]}


def test_reader_of_a_missing_store_raises_and_creates_nothing(private_kit):
    with pytest.raises(StoreNotFoundError, match=r"mode=.w"):
        private_kit.open(mode="r")
    assert list(private_kit.folder.iterdir()) == []


READ_IN_ANOTHER_PROCESS = """
import json, sys
import tastypy_fast
with getattr(tastypy_fast, sys.argv[1])(sys.argv[2], mode="r") as reader:
    print(json.dumps([len(reader), reader.items()]))
"""


def test_reader_in_another_process_sees_the_last_sync(private_kit, run_python):
    import json

    kit = private_kit
    store = kit.open(init=kit.pairs(ABC))
    store.sync()
    store["d"] = kit.value(4)
    del store["a"]
    count, items = json.loads(run_python(READ_IN_ANOTHER_PROCESS, kit.cls.__name__, store.path))
    assert count == 3
    assert {key: kit.plain(value) for key, value in items} == ABC
    store.sync()
    count, items = json.loads(run_python(READ_IN_ANOTHER_PROCESS, kit.cls.__name__, store.path))
    assert {key: kit.plain(value) for key, value in items} == {"b": 2, "c": 3, "d": 4}


def _write_what_is_asked_for(pipe, kit):
    store = kit.open()
    pipe.send("open")
    while True:
        key = pipe.recv()
        if key % 3 == 0:
            store[key] = kit.value("now")
        elif key % 3 == 1:
            del store[key]
        store.sync()
        pipe.send("written")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_loop_over_keys_sees_writes_of_another_process(kit):
    numbered(kit, 100, True).close()
    with Child(_write_what_is_asked_for, kit) as child:
        assert child.pipe.recv() == "open"
        with kit.open() if kit.is_shared else kit.open(mode="r") as reader:
            loops = [iter(reader), reader.todo_keys()] if is_tracker(kit.cls) else [iter(reader)]
            for number, loop in enumerate(loops):
                for key in loop:
                    if number == 0:
                        child.pipe.send(key)
                        assert child.pipe.recv() == "written"
                    assert (key in reader) == (key % 3 != 1)
                    if key in reader:
                        assert kit.plain(reader[key]) == ("now" if key % 3 == 0 else key)


WRITE_IN_ANOTHER_PROCESS = """
import json, sys
import tastypy_fast
with getattr(tastypy_fast, sys.argv[1])(sys.argv[2]) as store:
    for key in json.loads(sys.argv[3]):
        del store[key]
    store.update(json.loads(sys.argv[4]))
"""


def test_reader_follows_a_writer_in_another_process(private_kit, run_python):
    import json

    kit = private_kit
    kit.open(init=kit.pairs({number: [number] for number in range(40)})).close()
    reader = kit.open(mode="r")
    iterator = reader.iteritems()
    assert [kit.plain(next(iterator)[1]) for _ in range(10)] == [[number] for number in range(10)]
    assert kit.plain(reader[5]) == [5]
    run_python(WRITE_IN_ANOTHER_PROCESS, kit.cls.__name__, reader.path, json.dumps([5, *range(20, 30)]),
               json.dumps(kit.pairs({"new": "x", "6": "y"})))
    assert 5 not in reader
    assert reader.get(5) is None
    assert len(reader) == 31
    assert kit.plain(reader["new"]) == "x"
    assert reader.keys()[-2:] == ["new", "6"]
    rest = [key for key, _ in iterator]
    # The prefetched keys may still be yielded. The added ones are yielded in any case, in order.
    assert [key for key in rest if key not in range(20, 30)] == [*range(10, 20), *range(30, 40), "new", "6"]


def test_reader_and_writer_of_one_process_exclude_each_other(private_kit):
    kit = private_kit
    store = kit.open(init=kit.pairs(ABC))
    with pytest.raises(StoreConflictError, match="mode"):
        kit.open(mode="r")
    store.close()
    kit.open(mode="r")
    with pytest.raises(ValueError, match="mode"):
        kit.open()
