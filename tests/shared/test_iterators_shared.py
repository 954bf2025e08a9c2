"""Loops over a shared store across the begin, the end and the undoing of blocks."""

from __future__ import annotations

import contextlib
import threading

import pytest

from tests.support.children import Child
from tests.support.shared import ABC, BLOCKS, Boom, block_of, run_concurrently
from tests.support.stores import is_tracker

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def walk(kit, store, kind):
    """A running loop over pairs. For keys or values, the other part is None."""
    for found in getattr(store, f"iter{kind}")():
        if kind == "keys":
            yield found, None
        elif kind == "values":
            yield None, kit.plain(found)
        else:
            yield found[0], kit.plain(found[1])


def expected_walk(kind, model):
    return [(None if kind == "values" else key, None if kind == "keys" else value) for key, value in model.items()]


walks = pytest.mark.parametrize("kind", ["keys", "values", "items"])


@walks
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("count", [5, 700])
def test_loop_continues_across_the_begin_and_the_end_of_a_block(kit, kind, block, count):
    """The loop sees additions and deletions of the block, during it and afterwards."""
    store = kit.open(init=kit.pairs({number: number for number in range(count)}))
    loop = walk(kit, store, kind)
    seen = [next(loop)]
    with block_of(store, block):
        seen.append(next(loop))
        del store[2]
        store["new"] = kit.value("new")
        store[4] = kit.value("changed")
        seen.append(next(loop))
    store["last"] = kit.value("last")
    seen += loop
    model = {number: number for number in range(count)} | {4: "changed", "new": "new", "last": "last"}
    del model[2]
    assert seen == expected_walk(kind, model)


@walks
def test_loop_begun_in_a_block_continues_after_it(kit, kind):
    store = kit.open(init=kit.pairs(ABC))
    with store.locked():
        store["d"] = kit.value(4)
        loop = walk(kit, store, kind)
        seen = [next(loop), next(loop)]
        store["e"] = kit.value(5)
    del store["c"]
    assert seen + list(loop) == expected_walk(kind, {"a": 1, "b": 2, "d": 4, "e": 5})


@walks
@pytest.mark.parametrize("ends", ["undone", "reverted"])
def test_loop_yields_keys_added_after_an_aborted_block(kit, kind, ends):
    """This holds for any position that the loop reached in the undone part."""
    store = kit.open(init=kit.pairs(ABC))
    store.sync()
    loop = walk(kit, store, kind)
    seen = [next(loop)]
    with contextlib.suppress(Boom), store.transaction() if ends == "undone" else contextlib.nullcontext():
        store.update(kit.pairs({"x": 7, "y": 8, "z": 9}))
        seen += [next(loop) for _ in range(4)]
        raise Boom
    if ends == "reverted":
        store.revert()
        store.sync()
    store["d"] = kit.value(4)
    assert seen + list(loop) == expected_walk(kind, {**ABC, "x": 7, "y": 8, "d": 4})


@pytest.mark.parametrize("loop", ["iter", "reversed", "items", "todo", "todo items"])
@pytest.mark.parametrize("by", ["this process", "another one"])
@pytest.mark.parametrize("what", ["deleted", "moved"])
def test_loop_yields_keys_that_a_revert_restores_ahead_of_it(kit, loop, by, what):
    """The loop had read ahead before the revert."""
    if loop.startswith("todo") and not is_tracker(kit.cls):
        return
    store = kit.open(init=kit.pairs({"a": 1, "b": 2, "c": 3}))
    store.sync()
    running = {
        "iter": iter, "reversed": reversed, "items": lambda store: (key for key, _ in store.iteritems()),
        "todo": lambda store: store.todo_keys(), "todo items": lambda store: (key for key, _ in store.todo_items()),
    }[loop]
    del store["b"]
    if what == "moved":
        store["b"] = kit.value(4)
    running = running(store)
    seen = [next(running)]
    if by == "this process":
        store.revert()
    else:
        other = type(store)
        path = store.path
        with Child(lambda pipe: other(path).revert()) as child:
            assert child.wait() == 0
    # Backwards, a moved key was yielded at its position at the end.
    expected = {"reversed": ["c", "b", "a"]}.get(loop, ["a", "b", "c"])
    assert seen + list(running) == (["b", *expected] if loop == "reversed" and what == "moved" else expected)
    store._check()


def test_exhausted_loop_stays_exhausted_in_a_block(kit):
    store = kit.open(init=kit.pairs(ABC))
    loops = [iter(store), store.iteritems(), reversed(store)]
    if is_tracker(kit.cls):
        loops += [store.todo_keys(), store.aborted_items(), store.try_keys(batch=2)]
    for loop in loops:
        list(loop)
    with store.locked():
        store.clear()
        store.update(kit.pairs({"d": 4}))
        assert [next(loop, "the end") for loop in loops] == ["the end"] * len(loops)
    assert [next(loop, "the end") for loop in loops] == ["the end"] * len(loops)


def test_backward_loop_continues_across_blocks(kit):
    store = kit.open(init=kit.pairs({number: number for number in range(600)}))
    loop = reversed(store)
    seen = [next(loop), next(loop)]
    with store.locked():
        seen.append(next(loop))
        del store[596]
        store["new"] = kit.value("new")
    with contextlib.suppress(Boom), store.transaction():
        del store[595]
        seen.append(next(loop))
        raise Boom
    assert seen == [599, 598, 597, 594]
    store.clear()
    assert list(loop) == []


def test_loop_of_another_thread_sees_only_committed_changes(kit, in_other_thread):
    store = kit.open(init=kit.pairs({number: number for number in range(5)}))
    loop = store.iteritems()
    seen = [in_other_thread(next, loop)]
    with store.locked():
        del store[2]
        store[1] = kit.value("changed")
        store["new"] = kit.value("new")
        seen += [in_other_thread(next, loop), in_other_thread(next, loop)]
    seen += in_other_thread(list, loop)
    assert [(key, kit.plain(value)) for key, value in seen] == [*((n, n) for n in range(5)), ("new", "new")]


def test_loop_may_be_passed_from_a_block_to_another_thread(kit, in_other_thread):
    """Each step sees the state of the thread that makes it."""
    store = kit.open(init=kit.pairs({number: number for number in range(4)}))
    loop = iter(store)
    with store.locked():
        assert next(loop) == 0
        del store[1], store[2]
        store["new"] = kit.value("new")
        assert in_other_thread(next, loop) == 1
        assert next(loop) == 3
        assert in_other_thread(next, loop, "the end") == "the end"


@pytest.mark.parametrize("within", BLOCKS)
def test_loops_see_additions_and_deletions_of_the_loop_itself(kit, within):
    store = kit.open(init=kit.pairs({number: number for number in range(40)}))
    with block_of(store, within):
        seen = []
        for key in store:
            seen.append(key)
            if key < 100:
                store.pop(key + 1, None)
                store[key + 100] = kit.value(None)
            del store[key]
    assert seen == [*range(0, 40, 2), *range(100, 140, 2)]
    assert len(store) == 0


def test_loop_may_have_a_block_in_each_iteration(kit):
    store = kit.open(init=kit.pairs({number: number for number in range(30)}))
    for number, (key, value) in enumerate(store.iteritems()):
        with contextlib.suppress(Boom), store.transaction():
            store[key] = kit.value(kit.plain(value) + 100)
            store["added", key] = kit.value(1)
            if number % 3 or number >= 30:
                raise Boom
    kept = range(0, 30, 3)
    assert kit.contents(store) == {
        **{number: number + 100 * (number in kept) for number in range(30)}, **{("added", number): 1 for number in kept}
    }


def test_keys_values_and_items_are_snapshots(kit, switching_often):
    store = kit.open(init=kit.pairs(dict.fromkeys(range(600), 0)))
    ended = threading.Event()

    def write():
        try:
            for number in range(1, 40):
                store.update(kit.pairs(dict.fromkeys([*range(600), ("new", number)], number)))
                store.pop(("new", number - 1), None)
        finally:
            ended.set()

    def read():
        while not ended.is_set():
            found = store.items()
            assert len({kit.plain(value) for _, value in found[:600]}) == 1
            assert 600 <= len(found) <= 602
            assert len(store.keys()) in (600, 601, 602)

    run_concurrently(write, read, read)


# get_many()


def looked_up(kit, store, wanted):
    return {key: kit.plain(value) for key, value in store.get_many(wanted)}


@pytest.mark.parametrize("block", BLOCKS)
def test_lookups_in_a_block_see_its_changes_and_others_do_not(kit, block, in_other_thread):
    store = kit.open(init=kit.pairs(ABC))
    loop = store.get_many(["a"] * 1000 + ["d", "a", "b"])
    next(loop)
    with block_of(store, block):
        store["d"] = kit.value(4)
        store.set.pop("a")
        seen = looked_up(kit, store, "dcba")
        assert seen == {"d": 4, "c": 3, "b": 2}
        committed = seen if block == "alone" else {"c": 3, "b": 2, "a": 1}
        assert in_other_thread(looked_up, kit, store, "dcba") == committed
        # The first thousand was looked up before the block, the next one is looked up in it.
        assert [key for key, _ in loop] == ["a"] * 999 + ["d", "b"]
    assert looked_up(kit, store, "dcba") == seen


def test_lookups_begun_in_a_block_continue_after_it(kit):
    store = kit.open(init=kit.pairs(ABC))
    with contextlib.suppress(Boom), store.transaction():
        store["a"] = kit.value("undone")
        loop = store.get_many(["a"] * 1001)
        assert kit.plain(next(loop)[1]) == "undone"
        raise Boom
    assert [kit.plain(value) for _, value in loop] == ["undone"] * 999 + [1]


def test_each_thousand_is_one_snapshot_while_another_process_writes(kit):
    """The other process changes all values at once, while keys are read and while pairs are yielded."""
    count = 2500
    store = kit.open(init=kit.pairs(dict.fromkeys(range(count), 0)))

    def write(pipe):
        with kit.cls(store.path) as other:
            while (number := pipe.recv()) is not None:
                with other.locked():
                    for key in range(count):
                        other[key] = kit.value(number)
                pipe.send("written")

    with Child(write) as child:
        def change(number):
            child.pipe.send(number)
            assert child.pipe.recv() == "written"

        def wanted():
            for key in range(count):
                if key == 500:
                    change(1)
                yield key

        seen = []
        for key, value in store.get_many(wanted()):
            seen.append(kit.plain(value))
            if key in (300, 1700):
                change(2 if key == 300 else 3)
        child.pipe.send(None)
        assert child.wait() == 0
    assert seen == [1] * 1000 + [2] * 1000 + [3] * 500
