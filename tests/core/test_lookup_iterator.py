"""``get_many()`` yields pairs in the order of the keys, as copies, and looks up each thousand in one snapshot."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import weakref
from pathlib import PurePosixPath

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastypy_fast import (
    POD,
    CalledClosedTrackerError,
    InvalidKeyError,
    SharedPOD,
    SharedTracker,
    Tracker,
    UnstorableValueError,
)
from tests.support.children import Child, result_of_child
from tests.support.contract import assert_freed_at_the_end, numbered
from tests.support.keys import as_stored, keys
from tests.support.stores import changing, is_tracker, value_for

pytestmark = [
    pytest.mark.all_classes,
    pytest.mark.with_log("pod"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

CHUNK = 1000


def looked_up(kit, store, wanted):
    return [(key, kit.plain(value)) for key, value in store.get_many(wanted)]


@pytest.fixture
def many(kit):
    """A store with the keys 0 to 2,499, a part of which is only in memory. Each value is its key."""
    store = kit.open(init=kit.pairs({number: number for number in range(0, 2500, 2)}))
    store.sync()
    store.hold()
    store.update(kit.pairs({number: number for number in range(1, 2500, 2)}))
    yield store
    store.unhold()


def test_pairs_come_in_the_order_of_the_keys_without_those_that_do_not_exist(kit, abc):
    assert looked_up(kit, abc, ["c", "x", "a", "b", 1]) == [("c", 3), ("a", 1), ("b", 2)]
    assert looked_up(kit, abc, []) == []
    assert looked_up(kit, abc, ["x", 1]) == []


def test_key_that_is_given_twice_is_yielded_twice_with_its_own_copy(kit, store):
    store.update(kit.pairs({"a": [], "b": []}))
    for _ in range(2):
        pairs = list(store.get_many(["a", "b", "a", "a"]))
        assert [key for key, _ in pairs] == ["a", "b", "a", "a"]
        for number, (_, value) in enumerate(pairs):
            kit.plain(value).append(number)
        assert looked_up(kit, store, "ab") == [("a", []), ("b", [])]
        store.sync()


def test_keys_are_yielded_as_the_store_has_them(kit, store):
    class Text(str):
        __slots__ = ()

    store.update(kit.pairs({1: "int", "t": "str", ("t", 1, 0): "tuple", 2**70: "large", "\udcff": "surrogate"}))
    wanted = [True, numpy.int64(1), numpy.True_, Text("t"), (Text("t"), True, numpy.int8(0)), 2**70, "\udcff"]
    for _ in range(2):
        found = looked_up(kit, store, wanted)
        assert [value for _, value in found] == ["int", "int", "int", "str", "tuple", "large", "surrogate"]
        assert [key for key, _ in found] == [1, 1, 1, "t", ("t", 1, 0), 2**70, "\udcff"]
        assert {type(key) for key, _ in found} == {int, str, tuple}
        assert [type(part) for part in found[4][0]] == [str, int, int]
        store.sync()


@pytest.mark.parametrize("synced", [False, True], ids=["in memory", "on disk"])
def test_long_keys_are_found_by_their_digests(kit, store, synced):
    names = [letter * length for letter in "ab" for length in (510, 511, 512, 5000)]
    store.update(kit.pairs({key: len(key) for key in names}))
    if synced:
        store.sync()
    wanted = [*names[::-1], "a" * 5001, ("a" * 5000,)]
    assert looked_up(kit, store, wanted) == [(key, len(key)) for key in names[::-1]]


def test_other_hashable_keys_are_not_there(kit, abc):
    assert looked_up(kit, abc, [None, "a", 1.0, b"a", ("a", 2.0), frozenset("a"), "b"]) == [("a", 1), ("b", 2)]
    assert looked_up(kit, abc, [None] * 3000) == []


@pytest.mark.parametrize("wrong", [[], ("a", []), PurePosixPath("a")], ids=["list", "tuple", "path"])
def test_key_that_single_reads_refuse_is_refused_after_the_pairs_before_it(kit, abc, wrong):
    with pytest.raises(InvalidKeyError) as expected:
        abc[wrong]
    loop = abc.get_many(["a", "x", "b", wrong, "c"])
    assert [next(loop)[0], next(loop)[0]] == ["a", "b"]
    with pytest.raises(InvalidKeyError) as error:
        next(loop)
    assert str(error.value) == str(expected.value)
    assert [key for key, _ in loop] == ["c"]


@pytest.mark.parametrize("wrong", [None, 5, 1.5])
def test_what_is_not_iterable_is_refused_at_once(abc, wrong):
    with pytest.raises(TypeError, match="iterable"):
        abc.get_many(wrong)
    with pytest.raises(TypeError):
        abc.get_many()


def test_keys_may_be_any_iterable(kit, abc):
    for wanted in (("b", "a"), {"b": 0, "a": 1}, iter(["b", "a"]), (key for key in "ba"), {"b": 0, "a": 1}.keys()):
        assert looked_up(kit, abc, wanted) == [("b", 2), ("a", 1)]
    assert sorted(looked_up(kit, abc, {"b", "a"})) == [("a", 1), ("b", 2)]
    assert sorted(looked_up(kit, abc, abc)) == [("a", 1), ("b", 2), ("c", 3)]
    other = kit.open("other", init=kit.pairs({"c": 0, "x": 0, "a": 0}))
    assert looked_up(kit, abc, other) == [("c", 3), ("a", 1)]
    assert looked_up(kit, other, (key for key, _ in abc.get_many(other))) == [("c", 0), ("a", 0)]


def test_keys_are_read_a_thousand_at_a_time(kit, abc):
    numbers = itertools.count()
    loop = abc.get_many("a" for _ in numbers)
    assert next(numbers) == 0
    next(loop)
    assert next(numbers) == CHUNK + 1
    for _ in range(CHUNK - 1):
        next(loop)
    assert next(numbers) == CHUNK + 2
    next(loop)
    assert next(numbers) == 2 * CHUNK + 3


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500, 6000])
def test_any_number_of_keys(kit, many, count, seed):
    rng = random.Random(seed)
    wanted = [rng.randrange(5000) for _ in range(count)]
    assert looked_up(kit, many, wanted) == [(key, key) for key in wanted if key < 2500]


def test_changes_that_are_not_synced_are_seen(kit, store):
    store.update(kit.pairs({number: [number] for number in range(20)}))
    store.sync()
    store[1] = kit.value("assigned")
    changing(store)[2]["value"].append(0) if is_tracker(kit.cls) else changing(store)[2].append(0)
    del store[3]
    del store[4]
    store[4] = kit.value("again")
    store.move_to_end(5)
    store["new"] = kit.value("new")
    store["gone"] = kit.value("gone")
    del store["gone"]
    expected = {**{number: [number] for number in range(20)}, 1: "assigned", 2: [2, 0], 4: "again", "new": "new"}
    del expected[3]
    wanted = ["gone", "new", *range(25)]
    for _ in range(2):
        assert looked_up(kit, store, wanted) == [(key, expected[key]) for key in wanted if key in expected]
        store.sync()


def test_changes_in_the_loop_are_seen_from_the_next_thousand_on(kit, many):
    seen = []
    for key, value in many.get_many(itertools.chain(range(2500), [2600])):
        seen.append((key, kit.plain(value)))
        if key == 10:
            for changed in (9, 20, 999, 1500):
                many[changed] = kit.value("changed")
            del many[30], many[1600]
            many[2600] = kit.value("added")
            many.sync()
    expected = {number: number for number in range(2500)} | {1500: "changed", 2600: "added"}
    del expected[1600]
    assert seen == list(expected.items())


def test_values_of_a_thousand_are_those_of_the_lookup_also_if_watched_ones_change(private_kit):
    store = private_kit.open(init=private_kit.pairs({"a": [1], "b": [2]}))
    store.sync()
    watched = store["b"]
    loop = store.get_many("ab")
    next(loop)
    private_kit.plain(watched).append(3)
    assert private_kit.plain(next(loop)[1]) == [2]
    assert looked_up(private_kit, store, "b") == [("b", [2, 3])]


def test_loop_may_change_the_store_in_any_way(kit, many):
    seen = 0
    for key, value in many.get_many(itertools.chain(range(2500), range(2500))):
        assert kit.plain(value) == key
        seen += 1
        if seen % 2:
            many.pop(key, None)
        if seen % 100 == 0:
            many.sync()
        if seen == 2200:
            many.clear()
    # The third thousand was looked up before the end of the store's content.
    assert seen == 2500 + 250


@pytest.mark.parametrize("ends", ["sync", "revert"])
def test_loop_continues_after_a_sync_and_a_revert(kit, ends):
    store = numbered(kit, 2500, True)
    store.hold()
    store.update(kit.pairs(dict.fromkeys(range(2500), "new")))
    loop = store.get_many(range(2500))
    assert [kit.plain(next(loop)[1]) for _ in range(500)] == ["new"] * 500
    getattr(store, ends)()
    rest = [kit.plain(value) for _, value in loop]
    assert rest == ["new"] * 500 + (["new"] * 1500 if ends == "sync" else list(range(1000, 2500)))


def test_iterator_over_the_keys_may_use_the_store(kit, store):
    def wanted():
        for number in range(1500):
            store[number] = kit.value([number])
            if number:
                assert dict(store.get_many([number - 1])).keys() == {number - 1}
                del store[number - 1]
            yield number
            if number % 500 == 0:
                store.sync()

    # Of each thousand only the last key is left when it is looked up.
    assert looked_up(kit, store, wanted()) == [(999, [999]), (1499, [1499])]


def test_iterator_over_the_keys_may_begin_and_end_a_block(kit, store):
    def wanted():
        with store.locked():
            for number in range(1200):
                store[number] = kit.value(number)
                yield number

    loop = store.get_many(wanted())
    assert [(key, kit.plain(value)) for key, value in loop] == [(number, number) for number in range(1200)]


def test_exception_of_the_keys_is_raised_after_the_pairs_before(kit, many):
    def wanted():
        yield from range(1500)
        raise ZeroDivisionError

    loop = many.get_many(wanted())
    assert [next(loop)[0] for _ in range(1500)] == list(range(1500))
    with pytest.raises(ZeroDivisionError):
        next(loop)
    assert list(loop) == []
    with pytest.raises(ZeroDivisionError):
        next(many.get_many(1 // 0 for _ in range(3)))


def test_interrupt_in_the_keys_is_raised_at_once_and_loses_no_key(kit, abc):
    class Interrupted:
        def __init__(self):
            self.steps = iter(["a", "b", KeyboardInterrupt(), "c"])

        def __iter__(self):
            return self

        def __next__(self):
            step = next(self.steps)
            if isinstance(step, BaseException):
                raise step
            return step

    loop = abc.get_many(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        next(loop)
    assert [(key, kit.plain(value)) for key, value in loop] == [("a", 1), ("b", 2), ("c", 3)]


def test_pairs_are_copies_and_make_nothing_dirty(kit, store):
    store.update(kit.pairs({"a": [1], "b": {"x": [2]}}))
    store.sync()
    for _, value in store.get_many("ab"):
        kit.plain(value).clear()
        if is_tracker(kit.cls):
            value["_done"] = True
    assert store.dirty() == set()
    store.mark_dirty("a")
    for again in kit.states(store):
        assert kit.contents(again) == {"a": [1], "b": {"x": [2]}}


def test_task_is_the_dict_that_items_returns(tracker_class, path):
    with tracker_class(path, init={key: {"n": [key]} for key in "abcdef"}) as tracker:
        tracker.sync()
        for _ in range(2):
            tracker.mark_done("a")
            tracker.abort("b")
            tracker.increment_tries("c")
            tracker.record_error("d", "wrong")
            tracker.add_if_absent("g")
            assert list(tracker.get_many(tracker)) == tracker.items()
            assert dict(tracker.get_many("a"))["a"] == {"_done": True, "_aborted": False, "_tries": 0, "n": ["a"]}
            tracker.sync()
        if tracker_class is Tracker:
            tracker["e"]["_done"] = True
            kept = tracker["f"]
            kept["_tries"] = 5
            assert [task["_done"] for _, task in tracker.get_many("fe")] == [False, True]
            assert dict(tracker.get_many("f"))["f"]["_tries"] == 5
        loop = tracker.get_many("ab")
        next(loop)
        tracker.unabort("b")
        assert next(loop)[1]["_aborted"]


def test_value_that_cannot_be_stored_is_copied(private_kit):
    store = private_kit.open(init=private_kit.pairs({"a": [], "b": [], "c": []}))
    store.sync()
    private_kit.plain(store["a"]).append({1})
    private_kit.plain(store["b"]).append(threading.Lock())
    loop = store.get_many("abc")
    assert private_kit.plain(next(loop)[1]) == [{1}]
    with pytest.raises(UnstorableValueError, match="'b'"):
        next(loop)
    assert private_kit.plain(next(loop)[1]) == []
    store.revert()


def test_large_values_are_looked_up_in_smaller_groups(path):
    """64 MB at a time, so that memory does not hold a thousand of them."""
    size = 1 << 22
    with POD(path, init=dict.fromkeys(range(18), "x" * size), durability="unsafe") as pod:
        pod.sync()
        loop = pod.get_many(range(18))
        next(loop)
        pod.update(dict.fromkeys(range(18), "changed"))
        lengths = [len(value) for _, value in loop]
    assert lengths[:10] == [size] * 10
    assert lengths[-1] == len("changed")
    assert len(lengths) == 17


def test_closed_store_raises(kit, abc):
    begun, fresh = abc.get_many("abc"), abc.get_many("abc")
    next(begun)
    abc.close()
    for loop in (begun, fresh):
        for _ in range(2):
            with pytest.raises(CalledClosedTrackerError):
                next(loop)
    with pytest.raises(CalledClosedTrackerError):
        abc.get_many("abc")


def test_store_may_be_closed_by_the_iterator_over_the_keys(kit, abc):
    def wanted():
        yield "a"
        abc.close()
        yield "b"

    with pytest.raises(CalledClosedTrackerError):
        next(abc.get_many(wanted()))


def test_exhausted_iterator_stays_exhausted(kit, abc):
    loop = abc.get_many(["a", "x"])
    assert len(list(loop)) == 1
    abc["x"] = kit.value(0)
    assert next(loop, None) is None


@pytest.mark.parametrize("count", [0, 1, 40, 1000])
def test_iterator_lets_go_of_its_store_at_its_end(any_class, path, count):
    assert_freed_at_the_end(any_class, path, count, lambda store: store.get_many(range(count + 5)))


def test_iterator_in_a_cycle_is_freed(any_class, path):
    class Keys(list):
        pass

    with any_class(path, init={"a": {}}) as store:
        wanted = Keys("a")
        loop = wanted.loop = store.get_many(iter(wanted.__iter__, None))
        reference = weakref.ref(wanted)
        del wanted, loop
        gc.collect()
        assert reference() is None


def test_forked_child_continues_the_loop(kit, many):
    many.sync()
    loop = many.get_many(range(2500))
    next(loop)

    def child(pipe):
        pipe.send([kit.plain(value) for _, value in loop])

    assert result_of_child(child) == [list(range(1, 2500))]
    assert len(list(loop)) == 2499


@pytest.mark.parametrize("cls", [POD, Tracker])
def test_reader_sees_the_syncs_of_the_writer_between_thousands(cls, path):
    def write(pipe):
        with cls(path, init={number: value_for(cls, "old") for number in range(2500)}) as writer:
            writer.sync()
            pipe.send("written")
            pipe.recv()
            writer.update({number: value_for(cls, "new") for number in range(0, 3000, 5)})
            del writer[2001]
            writer.sync()
            pipe.send("written")
            pipe.recv()

    with Child(write) as child:
        child.pipe.recv()
        with cls(path, mode="r") as reader:
            before, seen = reader.copy(), {}
            for key, value in reader.get_many(range(3000)):
                seen[key] = value
                if key == 500:
                    child.pipe.send("go on")
                    child.pipe.recv()
            assert list(reader.get_many(reversed(reader))) == reader.items()[::-1]
            now = reader.copy()
        child.pipe.send("end")
        assert child.wait() == 0
    assert seen == {key: before[key] for key in range(1000)} | {key: now[key] for key in now if key >= 1000}
    assert now[1000] != before[1000]
    assert 2001 not in seen


def test_threads_may_share_an_iterator(kit, many):
    """Each pair is yielded once."""
    loop = many.get_many(list(range(2500)) * 4)
    seen = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda part: part.extend(loop), args=(part,)) for part in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for part in seen for key, _ in part) == sorted(list(range(2500)) * 4)
    assert all(kit.plain(value) == key for part in seen for key, value in part)


@settings(max_examples=settings().max_examples // 5)
@given(
    st.dictionaries(keys, st.integers(), max_size=20), st.lists(keys, max_size=20),
    st.lists(st.integers(0, 19), max_size=20), st.randoms(use_true_random=False),
)
def test_pairs_are_those_of_single_reads(random_stores, content, others, deleted, rng):
    content = {as_stored(key): number for key, number in content.items()}
    for store in random_stores:
        store.clear()
        given = list(content)
        for number, key in enumerate(given):
            store[key] = value_for(type(store), content[key])
            if number % 7 == 3:
                store.sync()
        for number in deleted:
            store.pop(given[number] if number < len(given) else None, None)
        wanted = [*given, *others, *given[:3]]
        rng.shuffle(wanted)
        missing = object()
        singly = [(as_stored(key), store.get(key, missing)) for key in wanted]
        assert list(store.get_many(wanted)) == [pair for pair in singly if pair[1] is not missing]


@pytest.fixture(scope="module")
def random_stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    stores = [cls(folder / cls.__name__, sync_at=5) for cls in (POD, Tracker, SharedPOD, SharedTracker)]
    yield stores
    for store in stores:
        store._check()
        store.close()
