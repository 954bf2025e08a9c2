"""locked(), transaction(), lock() and unlock(): committed completely or undone completely."""

from __future__ import annotations

import contextlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from lmdb.verify import verify

from tastypy_fast import (
    CalledClosedTrackerError,
    NotLockedError,
    SharedPOD,
    SharedTracker,
    StorageError,
)
from tests.support.shared import ABC, KINDS, Boom, block_of, later, listed, place_of
from tests.support.stores import is_tracker
from tests.support.workers import in_forked_child

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# Blocks

NESTINGS = [kinds for depth in (1, 2, 3) for kinds in itertools.product(KINDS, repeat=depth)]


class Nested:
    """Nested blocks, an exception in the innermost, and the expected contents at each point."""

    def __init__(self, kit, store, in_other_thread, kinds, caught_at):
        self.kit = kit
        self.store = store
        self.in_other_thread = in_other_thread
        self.kinds = kinds
        # The number of blocks that are still open where the exception is caught; None if there is none.
        self.caught_at = caught_at
        self.model = kit.contents(store)
        self.outside = dict(self.model)

    def change(self, *name):
        """Add a key, and change the store by assignment, in place and by deletion."""
        self.store[name] = self.kit.value("new")
        self.store["last"] = self.kit.value(list(name))
        place_of(self.kit, self.store, "numbers").append(len(name))
        for key in ("first", *name[:1]):
            self.store.pop(key, None)
            self.model.pop(key, None)
        self.model |= {name: "new", "last": list(name), "numbers": [*self.model["numbers"], len(name)]}
        self.store[name[0]] = self.kit.value("again")
        self.model[name[0]] = "again"
        self.look()

    def look(self):
        assert listed(self.kit, self.store) == list(self.model.items())
        assert len(self.store) == len(self.model)
        self.in_other_thread(self.check_from_another_thread)

    def check_from_another_thread(self):
        assert listed(self.kit, self.store) == list(self.outside.items())
        assert len(self.store) == len(self.outside)

    def run(self, depth=0):
        if depth == len(self.kinds):
            if self.caught_at is not None:
                raise Boom
            return
        before = dict(self.model)
        try:
            with block_of(self.store, self.kinds[depth]):
                self.change("begin", depth)
                if self.caught_at == depth + 1:
                    with contextlib.suppress(Boom):
                        self.run(depth + 1)
                else:
                    self.run(depth + 1)
                self.change("end", depth)
        except Boom:
            if self.kinds[depth] == "transaction":
                self.model = before
            raise
        finally:
            if depth == 0:
                self.outside = dict(self.model)
            self.look()


@pytest.mark.parametrize("kinds", NESTINGS, ids=" ".join)
def test_nested_blocks_commit_and_undo_their_own_changes(kit, in_other_thread, kinds):
    store = kit.open(init=kit.pairs({"first": 0, "numbers": [], "last": None}))
    for caught_at in [None, *range(len(kinds) + 1)]:
        with contextlib.suppress(Boom):
            Nested(kit, store, in_other_thread, kinds, caught_at).run()
        with pytest.raises(NotLockedError):
            store.unlock()
        # The block does not delay any other thread.
        in_other_thread(store.__setitem__, "first", kit.value(0))
    store._check()


def everything(store):
    """The results of each way to read."""
    found = [
        len(store), bool(store), store.keys(), store.values(), store.items(), list(store), list(reversed(store)),
        list(store.iterkeys()), list(store.itervalues()), list(store.iteritems()), repr(store), store.dirty(),
        [(key in store, store.get(key, "nothing")) for key in ("a", "b", "new")], store == dict(store),
    ]
    if isinstance(store, SharedTracker):
        found += [
            (store.num_done(), store.num_tried(), store.num_aborted(), store.percent_done(), store.fraction_tried()),
            list(store.todo_keys()), list(store.todo_items(True)), list(store.aborted_values()), store.claims(),
            [(store.done(key), store.aborted(key), store.tries(key), store.should_do(key)) for key in store],
        ]
    return found


@pytest.mark.parametrize("ends", ["kept", "undone"])
def test_other_threads_see_a_block_completely_or_not_at_all(kit, abc, in_other_thread, ends):
    """The thread of the block sees its changes at once, and others after its end."""
    before = everything(abc)
    inside = None
    with contextlib.suppress(Boom), abc.transaction():
        del abc["a"]
        abc["b"] = kit.value("changed")
        abc["new"] = abc["newer"] = kit.value([])
        if is_tracker(kit.cls):
            abc.mark_done("b")
            abc.abort("new")
            assert abc.should_try("c")
        inside = everything(abc)
        assert all(one != other for one, other in zip(before, inside, strict=True) if one is not True)
        assert in_other_thread(everything, abc) == before
        if ends == "undone":
            raise Boom
    assert everything(abc) == in_other_thread(everything, abc) == (inside if ends == "kept" else before)


def test_another_instance_of_the_process_joins_the_block(kit, abc, in_other_thread):
    other = kit.open()
    with abc.locked():
        abc["a"] = kit.value(10)
        assert kit.plain(other["a"]) == 10
        with other.transaction():
            other["b"] = kit.value(20)
        assert in_other_thread(kit.contents, other) == ABC
    assert kit.contents(abc) == {"a": 10, "b": 20, "c": 3}


def test_blocks_of_two_stores_are_independent(kit, abc):
    other = kit.open("other")
    with abc.locked(), contextlib.suppress(Boom), other.transaction():
        abc["a"] = other["a"] = kit.value(10)
        raise Boom
    assert (kit.plain(abc["a"]), len(other)) == (10, 0)
    with other.locked(), pytest.raises(NotLockedError):
        abc.unlock()


@pytest.mark.parametrize("kind", ["locked", "transaction"])
def test_block_returns_the_store_and_may_be_entered_again(kit, abc, kind):
    block = getattr(abc, kind)()
    for number in range(3):
        with block as entered:
            assert entered is abc
            with block:
                abc["a"] = kit.value(number)
    assert kit.plain(abc["a"]) == 2
    with pytest.raises(NotLockedError):
        abc.unlock()


@pytest.mark.parametrize("kind", ["locked", "transaction"])
def test_block_left_by_return_is_committed(kit, abc, kind):
    def leave():
        for _ in range(3):
            with getattr(abc, kind)():
                abc.pop("a", None)
                return

    leave()
    assert kit.contents(abc) == {"b": 2, "c": 3}


def test_block_in_a_generator_ends_with_it(kit, abc, in_other_thread):
    def work():
        with abc.transaction():
            abc["a"] = kit.value(10)
            yield

    ends = [next, lambda generator: generator.close(), lambda generator: generator.throw(Boom)]
    for end, expected in zip(ends, (10, 1, 1), strict=True):
        generator = work()
        next(generator)
        with contextlib.suppress(StopIteration, Boom):
            end(generator)
        assert in_other_thread(lambda: kit.plain(abc["a"])) == expected
        abc["a"] = kit.value(1)


def test_lock_belongs_to_the_thread(kit, abc, in_other_thread):
    abc.lock()
    abc.lock()
    with pytest.raises(NotLockedError, match="lock"):
        in_other_thread(abc.unlock)
    abc.unlock()
    abc["a"] = kit.value(10)
    assert in_other_thread(kit.contents, abc) == ABC
    abc.unlock()
    assert in_other_thread(lambda: kit.plain(abc["a"])) == 10
    with pytest.raises(NotLockedError):
        abc.unlock()


@pytest.mark.parametrize("kind", ["locked", "transaction"])
def test_unlock_does_not_end_a_with_block(kit, abc, in_other_thread, kind):
    abc.lock()
    with contextlib.suppress(Boom), getattr(abc, kind)():
        with pytest.raises(NotLockedError):
            abc.unlock()
        abc["a"] = kit.value(10)
        raise Boom
    assert kit.plain(abc["a"]) == (1 if kind == "transaction" else 10)
    abc.unlock()
    with getattr(abc, kind)():
        with pytest.raises(NotLockedError):
            abc.unlock()
        abc["b"] = kit.value(20)
    assert in_other_thread(lambda: kit.plain(abc["b"])) == 20


@pytest.mark.parametrize("kinds", [kinds for kinds in NESTINGS if len(kinds) < 3], ids=" ".join)
@pytest.mark.parametrize("fails", [False, True])
def test_close_commits_the_open_blocks(kit, in_other_thread, kinds, fails):
    """Changes after the close raise. An exception is raised unchanged."""
    store, other = kit.open(), kit.open()

    def work():
        with contextlib.ExitStack() as stack:
            for kind in kinds:
                store.lock() if kind == "lock" else stack.enter_context(getattr(store, kind)())
            store["a"] = kit.value(1)
            store.close()
            assert in_other_thread(kit.contents, other) == {"a": 1}
            with pytest.raises(CalledClosedTrackerError):
                store["b"] = kit.value(2)
            # This is a separate block, which the end of the first ones does not affect.
            other.lock()
            other["c"] = kit.value(3)
            if fails:
                raise Boom

    with contextlib.suppress(Boom):
        work()
    assert in_other_thread(kit.contents, other) == {"a": 1}
    other.unlock()
    assert in_other_thread(kit.contents, other) == {"a": 1, "c": 3}


def test_block_on_a_closed_store_raises(kit, abc):
    block = abc.locked()
    abc.close()
    with pytest.raises(CalledClosedTrackerError), block:
        pytest.fail("this block has no store")
    again = kit.open()
    again["a"] = kit.value(10)
    assert kit.plain(again["a"]) == 10


REFUSED_OPERATIONS = {
    "bad key": lambda store: store.__setitem__(1.5, {}),
    "bad value": lambda store: store.__setitem__("a", {"x": {1}}),
    "missing key": lambda store: store.__delitem__("z"),
    "update": lambda store: store.update([("a", {}), ("x", {}), (1.5, {})]),
    "in place": lambda store: store.__ior__([("x", {}), ("y", {"x": {1}})]),
    "update from an iterator": lambda store: store.update(later([("x", {})])),
    "pop": lambda store: store.pop("z"),
    "setdefault": lambda store: store.setdefault("x", {"x": b""}),
    "sync_key": lambda store: store.sync_key("z"),
    "mark_dirty": lambda store: store.mark_dirty("z"),
    "unlock": lambda store: store.unlock(),
}
REFUSED_BY_A_TRACKER = {
    "add": lambda tracker: tracker.add("a"),
    "add_many": lambda tracker: tracker.add_many(["x", "a"]),
    "add_many from an iterator": lambda tracker: tracker.add_many(later(["x"])),
    "add_many_if_absent": lambda tracker: tracker.add_many_if_absent(["x", 1.5]),
    "mark_done_many": lambda tracker: tracker.mark_done_many(["a", "z"]),
    "mark_done_many from an iterator": lambda tracker: tracker.mark_done_many(later(["a"])),
    "status": lambda tracker: tracker.abort("z"),
    "gate": lambda tracker: tracker.should_try("z"),
    "update with no dict": lambda tracker: tracker.update({"x": {}, "a": 5}),
    "bad status": lambda tracker: tracker.update({"x": {}, "a": {"_tries": "many"}}),
    "release": lambda tracker: tracker.release("z"),
}


@pytest.mark.parametrize(("cls", "name"), [
    *((SharedPOD, name) for name in REFUSED_OPERATIONS),
    *((SharedTracker, name) for name in REFUSED_OPERATIONS | REFUSED_BY_A_TRACKER),
], ids=str)
def test_failed_operation_changes_nothing_and_keeps_its_block(tmp_path, cls, name):
    with cls(tmp_path / "store", init={"a": {"n": 1}}) as store:
        store.sync()
        before = store.items()
        for block in ["alone", "locked", "transaction"]:
            with block_of(store, block):
                with pytest.raises((ValueError, TypeError, LookupError, RuntimeError, Boom)):
                    (REFUSED_OPERATIONS | REFUSED_BY_A_TRACKER)[name](store)
                assert store.items() == before
                assert store.dirty() == set()
                if block != "alone":
                    store["kept"] = {}
            assert ("kept" in store) == (block != "alone")
            store.pop("kept", None)
            store.sync()
        store._check()


def test_sync_inside_an_aborted_block_is_undone(kit, abc):
    abc["a"] = kit.value(10)
    with contextlib.suppress(Boom), abc.transaction():
        abc["b"] = kit.value(20)
        abc.sync()
        assert abc.dirty() == set()
        raise Boom
    assert abc.dirty() == {"a"}
    abc.revert()
    assert kit.contents(abc) == ABC


def test_sync_inside_a_block_takes_effect_at_its_commit(kit, abc):
    with abc.locked():
        abc["a"] = kit.value(10)
        abc.sync()
        abc["b"] = kit.value(20)
    abc.revert()
    assert kit.contents(abc)["a"] == 10


@pytest.mark.parametrize("change", ["hold", "revert", "sync_key", "clear"])
def test_aborted_block_undoes_hold_revert_sync_key_and_clear(kit, change):
    store = kit.open(init=kit.pairs(ABC), sync_at=2)
    store.sync()
    store["a"] = kit.value(10)
    with contextlib.suppress(Boom), store.transaction():
        getattr(store, change)(*["a"] * (change == "sync_key"))
        raise Boom
    assert kit.contents(store) == {**ABC, "a": 10}
    assert store.dirty() == {"a"}
    store["b"] = kit.value(20)
    assert store.dirty() == set()


def test_automatic_sync_waits_for_the_end_of_a_block(kit):
    store = kit.open(sync_at=3)
    with store.locked():
        for number in range(10):
            store[number] = kit.value(number)
        assert store.dirty() == set(range(10))
    assert store.dirty() == set()


# Blocks that end in unusual ways


def generator_with_a_block(store):
    with store.locked():
        store["in"] = 1
        yield


@in_forked_child
def test_block_is_not_ended_by_another_thread(tmp_path):
    with SharedPOD(tmp_path / "store") as store:
        generator = generator_with_a_block(store)
        next(generator)
        with ThreadPoolExecutor(1) as pool, pytest.raises(NotLockedError, match="another"):
            pool.submit(generator.close).result(30)
        assert store["in"] == 1
        store["more"] = 2
        store.close()
    with SharedPOD(tmp_path / "store") as store:
        assert store.items() == [("in", 1), ("more", 2)]


@pytest.mark.parametrize("first_fails", [False, True])
@pytest.mark.parametrize("second_fails", [False, True])
@pytest.mark.parametrize("kinds", list(itertools.product(["locked", "transaction"], repeat=2)))
@in_forked_child
def test_blocks_that_end_in_the_wrong_order_are_undone_and_raise(tmp_path, kinds, first_fails, second_fails):
    with SharedPOD(tmp_path / "store", init={"before": 0}) as store:
        first, second = (getattr(store, kind)() for kind in kinds)
        error = ZeroDivisionError()
        first.__enter__()
        store["first"] = 1
        second.__enter__()
        store["second"] = 2
        for block, fails in ((first, first_fails), (second, second_fails)):
            if fails:
                assert not block.__exit__(ZeroDivisionError, error, None)
            else:
                with pytest.raises(StorageError, match="await"):
                    block.__exit__(None, None, None)
        assert store.items() == [("before", 0)]
        store["after"] = 3
        with store.transaction(), store.locked():
            store["last"] = 4
    with SharedPOD(tmp_path / "store") as store:
        assert store.keys() == ["before", "after", "last"]


def test_block_may_be_reentered_and_each_level_undoes_its_own_part(tmp_path):
    with SharedPOD(tmp_path / "store") as store:
        block = store.transaction()
        with block:
            store["a"] = 1
            with suppress(Boom), block:
                store["b"] = 2
                raise Boom
            assert store.keys() == ["a"]
        with pytest.raises(NotLockedError):
            block.__exit__(None, None, None)
        assert store.keys() == ["a"]


@in_forked_child
def test_thread_that_reuses_the_id_of_an_ended_thread_does_not_join_its_block(tmp_path):
    store = SharedPOD(tmp_path / "store")
    outcomes = []

    def lock():
        store.lock()
        store["never seen"] = 1

    def write():
        try:
            store["a"] = 1
        except NotLockedError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=lock)]
    threads[0].start()
    threads[0].join()
    threads += [threading.Thread(target=write) for _ in range(4)]
    for thread in threads[1:]:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    assert len(outcomes) == 4
    assert all("a thread has ended" in outcome for outcome in outcomes)
    assert store.items() == []
    # The exit of this process does not wait for the block.


@pytest.mark.parametrize("way", ["transaction", "sync", "revert"])
def test_large_value_that_shrinks_in_one_block_leaks_no_pages(shared_class, tmp_path, way):
    path = tmp_path / "store"
    with shared_class(path, init={"a": {"x": "small"}}) as store:
        store.sync()
        with store.locked():
            with store.transaction():
                store["a"] = {"x": "x" * 30_000}
                store.dirty()
            if way == "revert":
                store.revert()
            else:
                store["a"] = {"x": "small again"}
            if way == "sync":
                store.sync()
        assert not verify(path)
        assert store["a"]["x"] == ("small" if way == "revert" else "small again")


@pytest.mark.parametrize("key", ["a", "new", "k" * 1000])
@pytest.mark.parametrize("change", ["assign", "add", "add twice", "assign and delete", "update many"])
def test_block_with_one_changed_key_is_written_and_reverted(tmp_path, key, change):
    with SharedPOD(tmp_path / "store", init={"a": 1, "k" * 999: 2, **{str(n): n for n in range(20)}}) as pod:
        if key != "new":
            pod[key] = 1
        pod.sync()
        before = pod.items()
        for _ in range(2):
            expected = dict(before)
            with pod.locked():
                if change.startswith("assign"):
                    pod[key] = expected[key] = 7
                elif change == "update many":
                    pod.update({str(n): -1 - n for n in range(10)}, new2=8, **{key: 7, "19": -19})
                    expected.update({str(n): -1 - n for n in range(10)}, new2=8, **{key: 7, "19": -19})
                else:
                    if key == "new":
                        pod[key] = 1
                    for _ in range(2 if change == "add twice" else 1):
                        pod.set[key] += 10
                    expected[key] = 21 if change == "add twice" else 11
                if change == "assign and delete":
                    del pod[key]
                    del expected[key]
            assert pod.items() == list(expected.items())
            assert pod.dirty() == {name for name in {*expected, key} if expected.get(name) != dict(before).get(name)}
            pod._check()
            pod.revert()
            assert pod.items() == before
            pod._check()


def test_class_that_assigns_itself_is_recognized(tmp_path, monkeypatch):
    class Sets(SharedPOD):
        def __setitem__(self, key, value):
            super().__setitem__(key, [value])

    class Deletes(SharedPOD):
        def __delitem__(self, key):
            super().__delitem__(key[0])

    for cls, expected in [(SharedPOD, False), (type("Plain", (SharedPOD,), {}), False), (Sets, True), (Deletes, True)]:
        with cls(tmp_path / "store") as pod:
            assert pod._assigns_itself is expected
    with Sets(tmp_path / "store") as pod:
        pod["n"] = 1
        pod.set["n"] += [2]
        assert pod["n"] == [[1, 2]]
    monkeypatch.setattr(SharedTracker, "__setitem__", lambda self, key, value: None)
    with SharedTracker(tmp_path / "tracker") as tracker:
        assert tracker._assigns_itself
