"""What every class keeps, written against the documented interface only: the mapping itself.

``kit`` runs a test once for each class; ``kit.value(x)`` is what stores ``x`` there.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import io
import os
import pickle
import tempfile
import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
    ForkedStoreError,
    InvalidKeyError,
    NotLockedError,
    PersistentOrderedDictException,
    ProgressTracker,
    ReadOnlyStoreError,
    SharedProgressTracker,
    StoreConflictError,
    StoreNotFoundError,
    UnstorableValueError,
)
from tests.children import Child, outcome_of
from tests.conftest import changing, is_tracker

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]

# Enough to need several chunks of an iterator and several blocks of statuses.
MANY = 1300

# As a dict of one small store; the tests say which part of it is on disk.
ABC = {"a": 1, "b": 2, "c": 3}


@pytest.fixture(params=["in memory", "on disk", "half on disk"])
def abc(request, kit):
    """A store of ABC, in each place where its data can be."""
    store = kit.open()
    for number, (key, value) in enumerate(kit.pairs(ABC)):
        store[key] = value
        if request.param == "half on disk" and number == 1:
            store.sync()
    if request.param == "on disk":
        store.sync()
    return store


# A mapping


def test_class_is_a_mutable_mapping(store):
    assert isinstance(store, MutableMapping)


def test_empty_store_is_empty(store):
    assert len(store) == 0
    assert not store
    assert store.keys() == store.values() == store.items() == list(store) == list(reversed(store)) == []


def test_value_comes_back(kit, abc):
    assert [kit.plain(abc[key]) for key in ABC] == [1, 2, 3]
    assert abc
    assert len(abc) == 3


def test_missing_key_is_a_key_error_that_names_it(abc):
    for ask in (abc.__getitem__, abc.__delitem__, abc.pop, abc.mark_dirty, abc.sync_key):
        with pytest.raises(KeyError) as caught:
            ask("z")
        assert caught.value.args == ("z",)


def test_contains(abc):
    assert "a" in abc
    assert "z" not in abc
    assert 1 not in abc
    assert ("a",) not in abc


def test_get_gives_value_or_default(kit, abc):
    assert kit.plain(abc.get("a")) == 1
    assert kit.plain(abc.get("a", 7)) == 1
    assert abc.get("z") is None
    assert abc.get("z", 7) == 7


def test_overwriting_keeps_the_place(kit, abc):
    abc["a"] = kit.value(9)
    assert kit.contents(abc) == {"a": 9, "b": 2, "c": 3}
    assert abc.keys() == ["a", "b", "c"]
    assert len(abc) == 3


def test_deleting_takes_one_key_away(abc):
    del abc["b"]
    assert abc.keys() == ["a", "c"]
    assert "b" not in abc
    assert len(abc) == 2
    with pytest.raises(KeyError):
        del abc["b"]


@pytest.mark.parametrize("sync_between", [False, True])
def test_deleted_and_added_again_goes_to_the_end(kit, abc, sync_between):
    del abc["a"]
    if sync_between:
        abc.sync()
    abc["a"] = kit.value(7)
    assert kit.contents(abc) == {"b": 2, "c": 3, "a": 7}
    assert abc.keys() == ["b", "c", "a"]
    reopened = kit.reopened(abc)
    assert reopened.keys() == ["b", "c", "a"]
    assert kit.plain(reopened["a"]) == 7


def test_lists_are_lists_and_iterators_iterators(kit, abc):
    keys, values = list(ABC), [kit.value(value) for value in ABC.values()]
    assert abc.keys() == keys
    assert [kit.plain(value) for value in abc.values()] == list(ABC.values())
    assert [(key, kit.plain(value)) for key, value in abc.items()] == list(ABC.items())
    assert all(type(part) is list for part in (abc.keys(), abc.values(), abc.items()))
    for iterator in (iter(abc), abc.iterkeys(), abc.itervalues(), abc.iteritems(), reversed(abc)):
        assert isinstance(iterator, Iterator)
        assert iter(iterator) is iterator
    assert list(abc) == list(abc.iterkeys()) == keys
    assert [kit.plain(value) for value in abc.itervalues()] == [kit.plain(value) for value in values]
    assert kit.contents(abc) == ABC
    assert list(reversed(abc)) == keys[::-1]


def test_order_holds_over_many_chunks(kit):
    store = kit.open()
    numbers = list(range(0, 7 * MANY, 7))
    for number in numbers:
        store[number] = kit.value(-number)
        if number == 7 * (MANY // 2):
            store.sync()
    assert list(store) == numbers
    assert list(reversed(store)) == numbers[::-1]
    assert kit.contents(store) == {number: -number for number in numbers}
    assert list(kit.reopened(store)) == numbers


@pytest.mark.parametrize(("last", "order"), [(True, "cba"), (False, "abc")])
def test_popitem_takes_from_either_end(kit, abc, last, order):
    taken = [abc.popitem(last) for _ in ABC]
    assert [key for key, _ in taken] == list(order)
    assert {key: kit.plain(value) for key, value in taken} == ABC
    with pytest.raises(KeyError):
        abc.popitem(last=last)
    assert len(kit.reopened(abc)) == 0


def test_popitem_takes_the_last_one_by_default(abc):
    assert abc.popitem()[0] == "c"


def test_pop_gives_the_value_or_the_default(kit, abc):
    assert kit.plain(abc.pop("b")) == 2
    assert abc.pop("b", None) is None
    assert abc.keys() == ["a", "c"]


def test_setdefault_sets_only_what_is_missing(kit, abc):
    assert kit.plain(abc.setdefault("a", kit.value(9))) == 1
    assert kit.plain(abc.setdefault("d", kit.value(4))) == 4
    assert kit.contents(abc) == {**ABC, "d": 4}


def test_clear_empties(kit, abc):
    abc.clear()
    assert len(abc) == 0
    assert list(abc) == []
    abc["a"] = kit.value(5)
    assert kit.contents(kit.reopened(abc)) == {"a": 5}


def test_clear_empties_a_store_of_many_chunks(kit):
    store = kit.open(init=kit.pairs(dict.fromkeys(range(MANY))), sync_at=400)
    store.clear()
    assert len(store) == 0
    assert len(kit.reopened(store)) == 0


def test_equality_is_that_of_mappings_in_any_order(kit, abc):
    same = dict(kit.open("same", init=kit.pairs({"c": 3, "b": 2, "a": 1})))
    assert abc == same
    assert same == abc
    assert abc == collections.OrderedDict(same)
    assert abc == kit.open("same")
    assert abc == abc
    for other in ({"a": 1, "b": 2, "c": 4}, {"a": 1, "b": 2}, {"a": 1, "b": 2, "d": 3}, {**ABC, "d": 4}):
        assert abc != kit.open("other-" + "".join(other), init=kit.pairs(other))
        assert abc != dict(kit.pairs(other))
    assert abc != list(same.items())
    assert (abc == 3) is False


def test_store_is_not_hashable(store):
    with pytest.raises(TypeError):
        hash(store)


def test_dict_of_a_store_is_a_copy(kit, abc):
    plain = dict(abc)
    abc.clear()
    assert {key: kit.plain(value) for key, value in plain.items()} == ABC


# update, |= and init


class WithItems:
    def __init__(self, pairs):
        self.pairs = pairs

    def items(self):
        return iter(self.pairs)


class WithIteritems(WithItems):
    iteritems = WithItems.items

    # iteritems() is what the original asked for; it comes first.
    def items(self):
        raise AssertionError("items() was asked")


class WithKeys:
    def __init__(self, pairs):
        self.pairs = dict(pairs)

    def keys(self):
        return self.pairs.keys()

    def __getitem__(self, key):
        return self.pairs[key]


SOURCES = [dict, list, iter, WithItems, WithIteritems, WithKeys, lambda pairs: dict(pairs).items()]
source = pytest.mark.parametrize(
    "source", SOURCES, ids=["dict", "list", "iterator", "items", "iteritems", "keys", "view"]
)


@source
def test_update_takes(kit, abc, source):
    abc.update(source(kit.pairs({"b": 20, "d": 4})))
    assert list(kit.contents(abc).items()) == [("a", 1), ("b", 20), ("c", 3), ("d", 4)]


@source
def test_init_takes_and_overwrites(kit, abc, source):
    abc.close()
    again = kit.open(init=source(kit.pairs({"b": 20, "d": 4})))
    assert list(kit.contents(again).items()) == [("a", 1), ("b", 20), ("c", 3), ("d", 4)]


@source
def test_ior_takes_and_keeps_the_object(kit, abc, source):
    before = abc
    abc |= source(kit.pairs({"b": 20, "d": 4}))
    assert abc is before
    assert kit.contents(abc) == {"a": 1, "b": 20, "c": 3, "d": 4}


def test_update_takes_another_store(kit, abc):
    other = kit.open("other", init=kit.pairs({"b": 20, "d": 4}))
    abc.update(other)
    assert kit.contents(abc) == {"a": 1, "b": 20, "c": 3, "d": 4}
    assert kit.contents(other) == {"b": 20, "d": 4}


def test_update_with_itself_changes_nothing(kit, abc):
    abc.update(abc)
    assert list(kit.contents(abc).items()) == list(ABC.items())


def test_update_takes_several_and_keywords_and_the_rightmost_wins(kit, store):
    value = kit.value
    store.update({"x": value(1), "y": value(1)}, [("y", value(2)), ("z", value(2))], z=value(3), self=value(4))
    assert list(kit.contents(store).items()) == [("x", 1), ("y", 2), ("z", 3), ("self", 4)]


def test_update_without_arguments_does_nothing(abc):
    abc.update()
    abc.update({}, [], ())
    assert abc.keys() == list(ABC)


@pytest.mark.parametrize(("wrong", "error"), [
    (3, TypeError), (None, TypeError), ([3], TypeError), (["abc"], ValueError), ([("a",)], ValueError),
    ([(1, 2, 3)], ValueError),
])
def test_update_refuses_what_has_no_pairs(abc, wrong, error):
    with pytest.raises(error):
        abc.update(wrong)
    assert abc.keys() == list(ABC)


def test_update_keeps_the_pairs_before_a_bad_one(kit, abc):
    def pairs():
        yield "d", kit.value(4)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        abc.update(pairs())
    with pytest.raises(InvalidKeyError):
        abc.update([("e", kit.value(5)), (2.5, kit.value(0)), ("f", kit.value(6))])
    # One operation of a shared store is seen as a whole, or not at all.
    assert kit.contents(abc) == (ABC if kit.is_shared else {**ABC, "d": 4, "e": 5})


def test_refused_init_leaves_the_store_closed(kit):
    with pytest.raises(InvalidKeyError):
        kit.open(init=[("a", kit.value(1)), (None, kit.value(2))])
    # An instance that was left open would insist on its own file_size.
    assert kit.contents(kit.open(file_size=7)) == ({} if kit.is_shared else {"a": 1})


def test_init_and_default_mapping_is_not_shared_between_instances(kit):
    kit.open("one", init=kit.pairs({"a": 1}))
    assert len(kit.open("two")) == 0


# Keys

LONG = "x" * 600
KEYS = [
    "", "a", "A", "key with spaces", "\x00", "a\x00b", "\x00\xff", "ü", "ä\U0001f600", "\ud800", "a\udcff.txt",
    "\ud83d\ude00", LONG, LONG + "a", LONG + "b", "\udc80" * 300, "1", "()", "None",
    0, 1, -1, 2, 255, 256, -255, -256, -257, 2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**400,
    -(10**400), 2**8192,
    (), ("",), ("a",), ("a", "b"), ("a", ("b",)), (("a",), "b"), ((),), ((), ()), (1,), ("1",), (1, 2), (1, (2,)),
    ("a\x00", "b"), ("a", "\x00b"), ("a\x00\xff",), (LONG, 1), (LONG, 2), (2**70, -(2**70)), ((((("deep",),),),),),
]


def test_keys_come_back_equal_and_of_the_same_type(kit):
    store = kit.open(init=[(key, kit.value(number)) for number, key in enumerate(KEYS)])
    for state in kit.states(store):
        assert state.keys() == KEYS
        assert [type(key) for key in state] == [type(key) for key in KEYS]
        assert [kit.plain(state[key]) for key in KEYS] == list(range(len(KEYS)))
        assert all(key in state for key in KEYS)
        assert list(reversed(state)) == KEYS[::-1]


def test_each_of_the_keys_can_be_deleted_alone(kit):
    store = kit.open(init=[(key, kit.value(number)) for number, key in enumerate(KEYS)])
    store.sync()
    for number, key in enumerate(KEYS):
        del store[key]
        assert key not in store
        assert len(store) == len(KEYS) - number - 1
    assert len(kit.reopened(store)) == 0


def test_bools_are_ints_as_in_a_dict(kit, store):
    store[True] = kit.value("yes")
    store[(False,)] = kit.value("no")
    assert kit.plain(store[1]) == "yes"
    assert kit.plain(store[(0,)]) == "no"
    assert [repr(key) for key in store] == ["1", "(0,)"]


def test_subclasses_of_key_types_are_their_base(kit, store):
    class Name(str):
        __slots__ = ()

    class Number(int):
        pass

    Point = collections.namedtuple("Point", "x y")
    store.update([(Name("a"), kit.value(1)), (Number(5), kit.value(2)), (Point(1, 2), kit.value(3))])
    assert [kit.plain(store[key]) for key in ("a", 5, (1, 2))] == [1, 2, 3]
    assert [type(key) for key in store] == [str, int, tuple]


def test_keys_with_a_common_prefix_of_an_index_key_stay_apart(kit):
    # LMDB's keys end at 511 bytes, so these differ only where its key has ended.
    keys = ["y" * 511 + end for end in ("", "a", "b", "ab", "ba")] + ["y" * size for size in (508, 509, 510, 512)]
    store = kit.open(init=[(key, kit.value(key[-3:])) for key in keys])
    for state in kit.states(store):
        assert {key: kit.plain(state[key]) for key in keys} == {key: key[-3:] for key in keys}
        assert state.keys() == keys


BAD_KEYS = [
    (1.0, "float"), (float("nan"), "float"), (None, "NoneType"), (b"a", "bytes"), (["a"], "list"), ({}, "dict"),
    (frozenset(), "frozenset"), (object(), "object"), (("a", 1.0), "float"), (("a", (None,)), "NoneType"),
    ((b"",), "bytes"), (((("a", []),),), "list"), (str, "type"), (1j, "complex"),
]


@pytest.mark.parametrize(("key", "name"), BAD_KEYS, ids=[f"{name}-{index}" for index, (_, name) in enumerate(BAD_KEYS)])
def test_bad_key_is_one_error_that_names_the_type(kit, abc, key, name):
    uses = [
        abc.__getitem__, abc.__delitem__, abc.__contains__, abc.get, abc.pop, abc.mark_dirty, abc.sync_key,
        lambda key: abc.pop(key, None), lambda key: abc.__setitem__(key, kit.value(1)),
        lambda key: abc.setdefault(key, kit.value(1)), lambda key: abc.update([(key, kit.value(1))]),
    ]
    for use in uses:
        with pytest.raises(InvalidKeyError, match=rf"\b{name}\b") as caught:
            use(key)
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, PersistentOrderedDictException)
    assert kit.contents(abc) == ABC


def test_key_that_nests_too_deep_is_refused(kit, store):
    key = ()
    for _ in range(100_000):
        key = (key,)
    with pytest.raises(InvalidKeyError, match="deep"):
        store[key] = kit.value(1)
    assert len(store) == 0


def test_bad_key_with_a_bad_repr_is_still_named(store):
    class Nasty:
        def __repr__(self):
            raise RuntimeError

    with pytest.raises(InvalidKeyError, match="Nasty"):
        store[Nasty()]


def test_key_too_long_for_its_repr_is_a_key_as_any_other(kit, store):
    # Python writes no int of more than 4,300 digits, and messages name keys.
    key = 10**5000
    store[key] = kit.value(1)
    assert key in store
    for ask in (store.__getitem__, store.__delitem__, store.mark_dirty, store.sync_key):
        with pytest.raises(KeyError):
            ask(-key)
    (found,) = kit.reopened(store)
    assert found == key


# Values


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Many(list):
    pass


INFINITY = float("inf")
VALUES = [
    None, True, False, 0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, 10**30, -(10**4000),
    0.0, -0.0, 0.1, 1.0, 1e300, 5e-324, -1.5, INFINITY, -INFINITY,
    "", "a", "ü\U0001f600", "\x00\x1f\x7f", "\ud800", "a\udcff", "\ud83d\ude00", "\u2028", "x" * 10_000,
    [], {}, [[]], [{}], {"": None}, {"a": {"b": [1, 2.5, "x", None, True]}}, {"\udcff": "\ud800"},
    {"_done": 1, "_tries": "x"}, list(range(1000)), [1, [2**70, [INFINITY, ["\ud800"]]]],
]


@pytest.mark.parametrize("gzipped", [False, True])
def test_values_come_back_equal_and_of_the_same_type(kit, gzipped):
    store = kit.open(init=[(number, kit.value(value)) for number, value in enumerate(VALUES)], gzipped=gzipped)
    store.sync()
    for number, value in enumerate(VALUES):
        assert repr(kit.plain(store[number])) == repr(value)
    store.close()
    reopened = kit.open(gzipped=not gzipped)
    assert [repr(kit.plain(value)) for value in reopened.values()] == [repr(value) for value in VALUES]


def test_nan_comes_back(kit, store):
    store["a"] = kit.value([float("nan")])
    for state in kit.states(store):
        (value,) = kit.plain(state["a"])
        assert value != value


@pytest.mark.parametrize(("given", "stored"), [
    ((1, (2, "x")), [1, [2, "x"]]),
    ({1: 1, 2.5: 2, None: 3}, {"1": 1, "2.5": 2, "null": 3}),
    ({False: 1, -3: [()]}, {"false": 1, "-3": [[]]}),
    ({2**70: 1, INFINITY: 2}, {str(2**70): 1, "Infinity": 2}),
    (Text("x"), "x"), (Whole(3), 3), (Real(2.0), 2.0), (Many([1]), [1]),
    ({Text("k"): Whole(2**80)}, {"k": 2**80}),
    (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}), (collections.Counter("aab"), {"a": 2, "b": 1}),
    (collections.namedtuple("Point", "x y")(1, 2), [1, 2]),
], ids=repr)
def test_value_is_stored_as_its_json(kit, store, given, stored):
    store["a"] = kit.value(given)
    for state in kit.states(store):
        assert repr(kit.plain(state["a"])) == repr(stored)


def test_numpy_numbers_and_arrays_are_taken(kit, store):
    numpy = pytest.importorskip("numpy")
    value = {
        "int": numpy.int32(-5), "unsigned": numpy.uint64(2**64 - 1), "float": numpy.float64(0.5),
        "single": numpy.float32(0.1), "bool": numpy.bool_(True), "nan": numpy.float64("inf"),
        "array": numpy.arange(3), "floats": numpy.array([[0.5, -0.0], [numpy.inf, 1]]), "empty": numpy.array([]),
        "zero": numpy.array(7), "text": numpy.array(["a", "ü"]), "str": numpy.str_("s"),
        "slice": numpy.arange(10)[::3], "fortran": numpy.asfortranarray([[1, 2], [3, 4]]),
        "bools": numpy.array([True, False]), numpy.str_("key"): 1,
    }
    expected = {
        "int": -5, "unsigned": 2**64 - 1, "float": 0.5, "single": float(numpy.float32(0.1)), "bool": True,
        "nan": INFINITY, "array": [0, 1, 2], "floats": [[0.5, -0.0], [INFINITY, 1.0]], "empty": [], "zero": 7,
        "text": ["a", "ü"], "str": "s", "slice": [0, 3, 6, 9], "fortran": [[1, 2], [3, 4]], "bools": [True, False],
        "key": 1,
    }
    store["a"] = kit.value(value)
    for state in kit.states(store):
        assert repr(kit.plain(state["a"])) == repr(expected)


@pytest.mark.parametrize("make", [
    lambda numpy: numpy.datetime64("2020-01-01"), lambda numpy: numpy.array([numpy.datetime64("2020-01-01")]),
    lambda numpy: numpy.array([1 + 2j]), lambda numpy: numpy.complex128(1j), lambda numpy: numpy.bytes_(b"x"),
    lambda numpy: numpy.array([object()]), lambda numpy: numpy.array([b"x"]),
])
def test_other_numpy_values_are_refused(kit, abc, make):
    with pytest.raises(UnstorableValueError):
        abc["a"] = kit.value([make(pytest.importorskip("numpy"))])
    assert kit.contents(abc) == ABC


def bad_values():
    import dataclasses
    import datetime
    import decimal
    import enum
    import pathlib
    import uuid

    @dataclasses.dataclass
    class Record:
        x: int = 1

    class Colour(enum.Enum):
        RED = 1

    yield from [
        datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.time(1), datetime.timedelta(1), Record(),
        Colour.RED, {1}, frozenset(), b"x", bytearray(b"x"), memoryview(b"x"), uuid.UUID(int=1), decimal.Decimal(1),
        1j, object(), print, (number for number in [1]), range(3), pathlib.Path("x"), {"a": 1}.keys(),
        collections.deque(), collections.UserDict(), Ellipsis, int, {(1, 2): 3}, {b"x": 1}, {1: 1, "1": 2},
        {None: 1, "null": 2}, {1.5: 1, "1.5": 2},
    ]


BAD_VALUES = list(bad_values())


@pytest.mark.parametrize("bad", BAD_VALUES, ids=lambda bad: type(bad).__name__)
def test_bad_value_is_refused_and_nothing_changes(kit, abc, bad):
    dirty = abc.dirty()
    uses = [
        lambda: abc.__setitem__("a", kit.value(bad)), lambda: abc.__setitem__("new", kit.value(bad)),
        lambda: abc.setdefault("new", kit.value([bad])), lambda: abc.update({"new": kit.value({"x": bad})}),
    ]
    for use in uses:
        with pytest.raises(UnstorableValueError) as caught:
            use()
        assert isinstance(caught.value, TypeError)
    assert kit.contents(abc) == ABC
    assert abc.dirty() == dirty
    assert kit.contents(kit.reopened(abc)) == ABC


@pytest.mark.parametrize(("wrap", "place"), [
    (lambda bad: [0, bad], "[1]"), (lambda bad: {"x": {"y": bad}}, ".x.y"),
    (lambda bad: {"x": [{"y": (1, 2, bad)}]}, ".x[0].y[2]"),
])
def test_error_says_where_in_the_value_the_bad_one_is(kit, store, wrap, place):
    with pytest.raises(UnstorableValueError) as caught:
        store["a"] = kit.value(wrap({1}))
    assert place in str(caught.value)
    assert "set" in str(caught.value)


def test_value_that_contains_itself_is_refused(kit, abc):
    circle = []
    circle.append({"again": circle})
    with pytest.raises(UnstorableValueError, match="deep"):
        abc["a"] = kit.value(circle)
    assert kit.contents(abc) == ABC


@pytest.mark.parametrize("depth", [240, 249, 250, 251, 252, 253, 254, 255, 256, 300])
def test_deep_value_comes_back(kit, store, depth):
    value = deepest = []
    for _ in range(depth - 1):
        deepest.append([])
        deepest = deepest[0]
    deepest.append("bottom")
    store["a"] = kit.value(value)
    store["b"] = kit.value({"in": value})
    reopened = kit.reopened(store)
    assert kit.plain(reopened["a"]) == value
    assert kit.plain(reopened["b"]) == {"in": value}


def test_value_far_too_deep_is_refused(kit, abc):
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UnstorableValueError):
        abc["a"] = kit.value(value)
    assert kit.contents(abc) == ABC
    # (taken apart here, because freeing it at once would need as deep a stack)
    while value:
        value = value.pop()


def test_value_is_stored_as_it_was_when_assigned(kit, store):
    mine = [1]
    store["a"] = kit.value(mine)
    mine.append(2)
    assert kit.plain(store["a"]) == [1]


def test_large_values_and_many_keys_between_them_come_back(kit):
    large = {str(number): "ü" * 50_000 + str(number) for number in range(5)}
    store = kit.open()
    for key, value in large.items():
        store[key] = kit.value(value)
        store["small" + key] = kit.value(key)
    for state in kit.states(store):
        assert state.keys() == [key for name in large for key in (name, "small" + name)]
        assert list(reversed(state)) == state.keys()[::-1]
        assert all(kit.plain(state[key]) == value for key, value in large.items())


# Live iteration

STEPS = pytest.mark.parametrize("synced", [False, True], ids=["in memory", "on disk"])


def numbered(kit, count, synced, **options):
    store = kit.open(init=kit.pairs({number: number for number in range(count)}), **options)
    if synced:
        store.sync()
    return store


@STEPS
@pytest.mark.parametrize("count", [1, 20, 600])
def test_loop_comes_to_keys_that_are_added_in_it(kit, synced, count):
    store = numbered(kit, count, synced)
    seen = []
    for key in store:
        seen.append(key)
        if key < count:
            store[key + count] = kit.value(None)
    assert seen == list(range(2 * count))


@STEPS
def test_loop_passes_over_keys_that_are_deleted_before_it_comes_there(kit, synced):
    store = numbered(kit, 100, synced)
    seen = []
    for key in store:
        seen.append(key)
        store.pop(key + 1, None)
        store.pop(key + 5, None)
        store.pop(key - 3, None)
        del store[key]
    expected, gone = [], set()
    for key in range(100):
        if key not in gone:
            expected.append(key)
            gone |= {key + 1, key + 5}
    assert seen == expected


@STEPS
def test_backward_loop_is_live_too(kit, synced):
    store = numbered(kit, 100, synced)
    seen = []
    for key in reversed(store):
        seen.append(key)
        store[key + 1000] = kit.value(None)
        store.pop(key - 1, None)
        if key % 10 == 0:
            store.sync()
    assert seen == list(range(99, 0, -2))


@STEPS
@pytest.mark.parametrize("disturb", ["sync", "revert", "clear", "dirty", "clear and sync"])
@pytest.mark.parametrize("walk", [iter, reversed], ids=["forwards", "backwards"])
def test_loop_survives(kit, synced, disturb, walk):
    store = numbered(kit, 60, synced)
    seen = []
    for key in walk(store):
        seen.append(key)
        if len(seen) in (3, 20, 50):
            for name in disturb.split(" and "):
                getattr(store, name)()
    everything = list(walk(range(60)))
    ends_early = "clear" in disturb or (disturb == "revert" and not synced)
    assert seen == (everything[:3] if ends_early else everything)


@STEPS
def test_loop_comes_to_a_key_that_was_deleted_and_added_again(kit, synced):
    store = numbered(kit, 4, synced)
    seen = []
    for key in store:
        seen.append(key)
        if len(seen) == 2:
            del store[0]
            store[0] = kit.value("again")
            del store[3]
            store[3] = kit.value("again")
    assert seen == [0, 1, 2, 0, 3]


def _assigned_in_part(kit, store, key):
    kit.plain(store[key])
    store[key] = kit.value("now")


def _added_again(kit, store, key):
    del store[key]
    store[key] = kit.value("now")


# What may come between the moment when a loop hands a key out and that when its value is read.
BETWEEN = {
    "nothing": (lambda kit, store, key: None, None),
    "assigned": (lambda kit, store, key: store.__setitem__(key, kit.value("now")), "now"),
    "read and assigned": (_assigned_in_part, "now"),
    "deleted": (lambda kit, store, key: store.__delitem__(key), KeyError),
    "deleted and added again": (_added_again, "now"),
    "another key assigned": (lambda kit, store, key: store.__setitem__(29 - key, kit.value(29 - key)), None),
}


@STEPS
@pytest.mark.parametrize("then", ["", "sync", "revert"])
@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("walk", [iter, reversed], ids=["forwards", "backwards"])
def test_loop_over_keys_finds_the_newest_value(kit, synced, between, then, walk):
    store = numbered(kit, 30, synced)
    change, value = BETWEEN[between]
    model, seen = {key: key for key in range(30)}, set()
    for key in walk(store):
        if key % 3 == 0 and key not in seen:
            change(kit, store, key)
            if value is KeyError:
                del model[key]
            elif value:
                model[key] = value
            if then == "sync":
                store.sync()
            elif then == "revert" and synced:
                store.revert()
                model = {key: key for key in range(30)}
        seen.add(key)
        assert (key in store) == (key in model)
        if key in model:
            assert kit.plain(store[key]) == model[key]
        else:
            with pytest.raises(KeyError):
                store[key]
    assert seen >= set(range(30))


def test_loop_over_keys_finds_what_another_instance_has_synced(private_kit):
    kit = private_kit
    one = numbered(kit, 300, True, clone=False)
    other = kit.open(clone=False)
    for key in one:
        if key % 3 == 0:
            other[key] = kit.value("now")
        elif key % 3 == 1:
            del other[key]
        other.sync()
        assert (key in one) == (key % 3 != 1)
        if key in one:
            assert kit.plain(one[key]) == ("now" if key % 3 == 0 else key)


@STEPS
def test_loop_over_items_hands_out_the_newest_values(kit, synced):
    store = numbered(kit, 50, synced)
    seen = []
    for key, value in store.iteritems():
        seen.append(kit.plain(value))
        if key + 1 < 50:
            store[key + 1] = kit.value(seen[-1] + 10)
    assert seen == list(range(0, 500, 10))


@STEPS
@pytest.mark.parametrize("every", [4, 100])
def test_loop_survives_automatic_syncs(kit, synced, every):
    store = numbered(kit, 700, synced, sync_at=every)
    seen = []
    for key in store:
        seen.append(key)
        if key % 2:
            del store[key]
        elif key < 700:
            store[key + 1000] = kit.value(key)
    assert seen == [*range(700), *range(1000, 1700, 2)]
    assert kit.contents(kit.reopened(store)).keys() == {*range(0, 700, 2), *range(1000, 1700, 2)}


def test_iterator_that_has_ended_stays_at_its_end(kit, abc):
    for iterator in (iter(abc), reversed(abc), abc.iteritems()):
        list(iterator)
        abc["d"] = kit.value(4)
        assert next(iterator, None) is None
        del abc["d"]


def test_iterator_over_an_empty_store_ends_only_when_it_is_asked(kit, store):
    iterator = iter(store)
    store["a"] = kit.value(1)
    assert list(iterator) == ["a"]


def test_iterators_do_not_disturb_each_other(kit):
    store = numbered(kit, 40, True)
    pairs = [(one, other) for one in store for other in reversed(store)]
    assert pairs == [(one, other) for one in range(40) for other in range(39, -1, -1)]


def test_iterator_keeps_its_place_while_all_before_it_is_replaced(kit):
    store = numbered(kit, 300, True)
    iterator = iter(store)
    assert [next(iterator) for _ in range(250)] == list(range(250))
    for key in range(250):
        del store[key]
    store.sync()
    for key in range(250):
        store[key] = kit.value("again")
    assert list(iterator) == [*range(250, 300), *range(250)]


@pytest.mark.parametrize(("walk", "gone"), [("iter", range(100_000)), ("reversed", range(100_000, 200_000))])
def test_loop_passes_over_any_number_of_deleted_keys(private_class, tmp_path, run_python, walk, gone):
    """With a small stack and in a process of its own, which running over the end of the stack would kill."""
    code = f"""
import sys, threading, tastypy_fast

def work():
    with getattr(tastypy_fast, sys.argv[2])(sys.argv[1]) as store:
        store.hold()
        store.update((key, {{}}) for key in range(200_000))
        len(store)
        for key in {gone}:
            del store[key]
        print(next({walk}(store)))
        store.revert()

threading.stack_size(1 << 19)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    expected = 100_000 if walk == "iter" else 99_999
    assert run_python(code, tmp_path / "store", private_class.__name__) == f"{expected}\n"


@pytest.mark.parametrize("walk", [iter, reversed], ids=["forwards", "backwards"])
def test_loop_over_keys_goes_on_while_their_values_get_large_and_small_again(kit, walk):
    """Large ones lie in pages of their own, where a loop over the keys does not look."""
    count = 100
    store = numbered(kit, count, True)
    seen = []
    for key in walk(store):
        seen.append(key)
        store.update((other, kit.value("x" * (10_000 if key % 20 < 10 else 10))) for other in range(count))
        store.sync()
    assert seen == list(walk(range(count)))


def test_iterating_over_a_closed_store_raises(kit, abc):
    iterators = [iter(abc), reversed(abc), abc.itervalues(), abc.iteritems()]
    for iterator in iterators[1:]:
        next(iterator)
    abc.close()
    for iterator in iterators:
        with pytest.raises(CalledClosedTrackerError):
            next(iterator)


# Saving


def test_sync_saves_everything(kit, store):
    store.update(kit.pairs(ABC))
    assert store.dirty() == {"a", "b", "c"}
    assert type(store.dirty()) is set
    store.sync()
    assert store.dirty() == set()
    store.revert()
    assert kit.contents(store) == ABC


def test_nothing_is_saved_before_a_sync(kit, store):
    store.update(kit.pairs(ABC))
    store.revert()
    assert len(store) == 0
    assert store.dirty() == set()


def test_syncing_twice_changes_nothing(kit, abc):
    abc.sync()
    abc.sync()
    assert kit.contents(kit.reopened(abc)) == ABC


@pytest.mark.parametrize("sync_at", [1, 2, 3, 10])
def test_store_syncs_by_itself_at_sync_at_dirty_values(kit, sync_at):
    store = kit.open(sync_at=sync_at)
    for number in range(25):
        if store.dirty():
            # The same key again is no further dirty value.
            store[number - 1] = kit.value("again")
        store[number] = kit.value("new")
        assert len(store.dirty()) == (number + 1) % sync_at
    store.revert()
    assert len(store) == 25 - 25 % sync_at


def test_deletions_count_towards_sync_at(kit):
    store = kit.open(init=kit.pairs(ABC), sync_at=2)
    store.sync()
    del store["a"]
    assert store.dirty() == {"a"}
    del store["b"]
    assert store.dirty() == set()
    store.revert()
    assert store.keys() == ["c"]


@pytest.mark.parametrize(("sync_at", "left"), [(2, set()), (3, set()), (4, {"a", "b", "c"})])
def test_unhold_syncs_at_once_when_enough_is_dirty(kit, sync_at, left):
    store = kit.open(sync_at=sync_at)
    store.hold()
    store.update(kit.pairs(ABC))
    assert store.dirty() == {"a", "b", "c"}
    store.unhold()
    assert store.dirty() == left
    store["d"] = kit.value(4)
    assert store.dirty() == ({"d"} if sync_at < 4 else set())


def test_unhold_syncs_what_is_dirty_also_without_a_hold(kit):
    patient, hasty = kit.open(sync_at=100), kit.open(sync_at=3)
    patient.update(kit.pairs(ABC))
    assert patient.dirty() == {"a", "b", "c"}
    hasty.unhold()
    assert patient.dirty() == set()


def test_unhold_counts_deletions_and_changes_of_values(kit):
    store = kit.open(sync_at=3, init=kit.pairs({"a": [1], "b": [2], "c": [3]}))
    store.sync()
    store.hold()
    del store["a"]
    for key in "bc":
        value = changing(store)[key]
        (value["value"] if is_tracker(kit.cls) else value).append(4)
    assert store.dirty() == {"a", "b", "c"}
    store.unhold()
    assert store.dirty() == set()
    store.revert()
    assert kit.contents(store) == {"b": [2, 4], "c": [3, 4]}


def test_unhold_raises_what_its_sync_raises_and_ends_the_hold(private_kit):
    kit = private_kit
    store = kit.open(sync_at=2, init=kit.pairs({"bad": [], "good": []}))
    store.sync()
    store.hold()
    kit.plain(store["bad"]).append({1})
    kit.plain(store["good"]).append(1)
    with pytest.raises(UnstorableValueError, match="'bad'"):
        store.unhold()
    assert store.dirty() == {"bad"}
    kit.plain(store["bad"]).clear()
    store["new"] = kit.value(1)
    assert store.dirty() == set()


def test_sync_works_on_hold(kit):
    store = kit.open(sync_at=1)
    store.hold()
    store["a"] = kit.value(1)
    store.sync()
    assert store.dirty() == set()
    store["b"] = kit.value(2)
    assert store.dirty() == {"b"}
    store.sync_key("b")
    assert store.dirty() == set()


def test_closing_on_hold_saves(kit):
    store = kit.open(sync_at=1)
    store.hold()
    store.update(kit.pairs(ABC))
    assert kit.contents(kit.reopened(store)) == ABC


def test_sync_key_saves_one_key_and_nothing_else(kit, store):
    store.update(kit.pairs(ABC))
    store.sync_key("b")
    assert store.dirty() == {"a", "c"}
    store.revert()
    assert kit.contents(store) == {"b": 2}


def test_sync_key_does_not_change_the_order(kit, store):
    store.update(kit.pairs(ABC))
    store.sync_key("c")
    store.sync_key("a")
    assert store.keys() == ["a", "b", "c"]
    assert kit.reopened(store).keys() == ["a", "b", "c"]


def test_sync_key_saves_a_deletion(kit, abc):
    abc.sync()
    del abc["a"], abc["b"]
    abc.sync_key("a")
    assert abc.dirty() == {"b"}
    abc.revert()
    assert abc.keys() == ["b", "c"]
    with pytest.raises(KeyError):
        abc.sync_key("a")


def test_sync_key_saves_a_key_in_its_new_place(kit, abc):
    abc.sync()
    del abc["a"]
    abc["d"] = kit.value(4)
    abc["a"] = kit.value(5)
    abc.sync_key("a")
    assert abc.dirty() == {"d"}
    assert abc.keys() == ["b", "c", "d", "a"]
    abc.revert()
    assert abc.keys() == ["b", "c", "a"]


def test_sync_key_of_a_clean_key_does_nothing(abc):
    abc.sync()
    abc.sync_key("a")
    assert abc.dirty() == set()


def test_mark_dirty_makes_a_key_dirty(kit, abc):
    abc.sync()
    abc.mark_dirty("b")
    assert abc.dirty() == {"b"}
    abc.sync()
    assert kit.contents(kit.reopened(abc)) == ABC


def test_mark_dirty_counts_towards_sync_at(kit):
    store = kit.open(init=kit.pairs(ABC), sync_at=2)
    store.sync()
    store.mark_dirty("a")
    store.mark_dirty("a")
    assert store.dirty() == {"a"}
    store.mark_dirty("b")
    assert store.dirty() == set()


def test_deleted_key_cannot_be_marked_dirty(abc):
    del abc["a"]
    with pytest.raises(KeyError):
        abc.mark_dirty("a")


def test_dirty_holds_deleted_keys_but_none_that_was_never_saved(kit, abc):
    abc.sync()
    abc["new"] = kit.value(1)
    del abc["new"], abc["a"]
    assert abc.dirty() == {"a"}


def test_reading_does_not_make_dirty(kit, abc):
    abc.sync()
    abc["list"] = kit.value([1])
    abc.sync()
    assert kit.plain(abc["list"]) == [1]
    abc.items()
    abc.get("z")
    assert "a" in abc
    assert abc.dirty() == set()


def test_revert_brings_back_what_was_saved(kit, abc):
    abc.sync()
    abc["a"] = kit.value("changed")
    del abc["b"]
    del abc["c"]
    abc["c"] = kit.value("moved")
    abc["d"] = kit.value("new")
    abc.revert()
    assert list(kit.contents(abc).items()) == list(ABC.items())
    assert abc.dirty() == set()
    assert len(abc) == 3
    assert list(kit.contents(kit.reopened(abc)).items()) == list(ABC.items())


def test_keys_go_on_in_order_after_a_revert(kit, abc):
    abc.sync()
    abc["x"] = kit.value(0)
    abc.revert()
    abc["y"] = kit.value(1)
    abc.sync()
    assert abc.keys() == ["a", "b", "c", "y"]


@pytest.mark.parametrize("end", ["close", "with", "collected"])
def test_store_that_ends_is_saved(kit, end):
    store = kit.cls(kit.folder / "ended")
    if end == "with":
        with store as entered:
            assert entered is store
            store.update(kit.pairs(ABC))
    else:
        store.update(kit.pairs(ABC))
        if end == "close":
            store.close()
    del store
    if end == "with":
        del entered
    again = kit.open("ended", file_size=7)  # (an instance that is still open would refuse another file_size)
    assert kit.contents(again) == ABC


def test_with_saves_when_an_exception_leaves_it(kit):
    store = kit.open()

    def work():
        with store:
            store.update(kit.pairs(ABC))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert store.closed
    assert kit.contents(kit.open()) == ABC


# Changing what was read by keying: saved, with everything that happens in between


@pytest.fixture
def nested(private_kit):
    store = private_kit.open(init=private_kit.pairs({"k": {"l": [1], "d": {"x": [0]}}, "other": [5]}))
    store.sync()
    return store


@pytest.fixture
def data(private_kit, nested):
    """The nested value of a key, watched."""
    return lambda key="k": private_kit.plain(nested[key])


CHANGES = {
    "append": lambda value: value["l"].append(2),
    "set an item": lambda value: value.__setitem__("new", 1),
    "set deep": lambda value: value["d"]["x"].__setitem__(0, {"y": None}),
    "augment": lambda value: value["l"].__iadd__([3, 4]),
    "delete": lambda value: value.pop("l"),
    "slice": lambda value: value["l"].__setitem__(slice(None), []),
    "clear": lambda value: value.clear(),
    "same length": lambda value: value["l"].__setitem__(0, 2),
    "type only": lambda value: value["l"].__setitem__(0, True),
    "order only": lambda value: value.__setitem__("l", value.pop("l")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_value_is_dirty_and_saved(private_kit, nested, data, change):
    expected = {"l": [1], "d": {"x": [0]}}
    change(expected)
    change(data())
    assert nested.dirty() == {"k"}
    assert repr(data()) == repr(expected)
    nested.sync()
    assert nested.dirty() == set()
    assert repr(private_kit.plain(private_kit.reopened(nested)["k"])) == repr(expected)


def test_change_that_was_undone_is_not_dirty(nested, data):
    data()["l"].append(2)
    data()["l"].pop()
    assert nested.dirty() == set()


@pytest.mark.parametrize("read", ["__getitem__", "get", "setdefault"])
def test_every_way_of_reading_a_key_watches(private_kit, nested, read):
    private_kit.plain(getattr(nested, read)("k"))["l"].append(2)
    nested.sync()
    nested.revert()
    assert private_kit.plain(nested["k"])["l"] == [1, 2]


def test_what_setdefault_sets_is_watched(private_kit, nested):
    private_kit.plain(nested.setdefault("new", private_kit.value([])))
    private_kit.plain(nested.setdefault("new", private_kit.value([]))).append(1)
    assert private_kit.plain(private_kit.reopened(nested)["new"]) == [1]


def test_keying_gives_the_same_object_between_syncs(nested, data):
    assert data() is data()
    data()["l"].append(2)
    assert data()["l"] == [1, 2]


def test_iterators_see_what_was_changed_by_keying(private_kit, nested, data):
    data()["l"].append(2)
    assert private_kit.contents(nested)["k"]["l"] == [1, 2]
    assert private_kit.plain(nested.values()[0])["l"] == [1, 2]


def test_revert_drops_changes_of_nested_values(nested, data):
    data()["l"].append(2)
    nested.revert()
    assert data() == {"l": [1], "d": {"x": [0]}}
    assert nested.dirty() == set()


def test_sync_key_saves_a_changed_value_alone(nested, data):
    data()["l"].append(2)
    data("other").append(6)
    nested.sync_key("k")
    assert nested.dirty() == {"other"}
    nested.revert()
    assert data()["l"] == [1, 2]
    assert data("other") == [5]


@pytest.mark.parametrize("act", ["sync", "sync_key", "many reads", "many writes"])
@pytest.mark.parametrize("deep", [False, True])
def test_change_around_a_sync_is_saved(private_kit, act, deep):
    """``pod[k]['l'].append(f(pod))``, where ``f`` makes the store sync before the append is done."""
    kit = private_kit
    store = kit.open(init=kit.pairs({"k": {"l": [], "d": {}}}), sync_at=5)
    store.update(kit.pairs({number: [number] for number in range(30)}))
    store.sync()

    def work():
        if act == "sync":
            store.sync()
        elif act == "sync_key":
            store.sync_key("k")
        elif act == "many reads":
            assert [kit.plain(store[number]) for number in range(30)] == [[number] for number in range(30)]
        else:
            store.update(kit.pairs({100 + number: [] for number in range(30)}))
        return "done"

    if deep:
        kit.plain(store["k"])["l"].append(work())
        kit.plain(store["k"])["l"].append(work())
    else:
        kit.plain(store["k"])[work()] = 1
        kit.plain(store["k"])["l"] = ["done", work()]
    assert kit.plain(kit.reopened(store)["k"])["l"] == ["done", "done"]


def test_many_values_read_and_changed_are_all_saved(private_kit):
    kit = private_kit
    store = kit.open(init=kit.pairs({number: [] for number in range(200)}), sync_at=7)
    store.sync()
    for times in range(3):
        for number in range(200):
            kit.plain(store[number]).append(times)
    assert kit.contents(kit.reopened(store)) == {number: [0, 1, 2] for number in range(200)}


def test_value_that_is_held_past_a_sync_is_watched_on(private_kit, nested, data):
    value, inner = data(), data()["d"]["x"]
    nested.sync()
    value["l"].append(2)
    assert nested.dirty() == {"k"}
    nested.sync()
    inner.append(1)
    nested.sync()
    assert private_kit.plain(private_kit.reopened(nested)["k"]) == {"l": [1, 2], "d": {"x": [0, 1]}}


def test_value_that_another_thread_holds_is_saved(private_kit, nested, data):
    holds, synced = threading.Event(), threading.Event()

    def work():
        inner = data()["d"]["x"]
        holds.set()
        assert synced.wait(30)
        inner.append("from the thread")

    thread = threading.Thread(target=work)
    thread.start()
    assert holds.wait(30)
    nested.sync()
    synced.set()
    thread.join()
    assert private_kit.plain(private_kit.reopened(nested)["k"])["d"]["x"] == [0, "from the thread"]


def test_assigned_value_replaces_what_was_watched(private_kit, nested, data):
    old = data()
    nested["k"] = private_kit.value(["new"])
    old["l"].append("lost, as in any dict")
    assert data() == ["new"]
    assert private_kit.plain(private_kit.reopened(nested)["k"]) == ["new"]


def test_deleted_value_is_not_watched(private_kit, nested, data):
    old = data()
    del nested["k"]
    old["l"].append(2)
    assert nested.dirty() == {"k"}
    assert "k" not in private_kit.reopened(nested)


def test_popped_value_is_a_value_of_ones_own(private_kit, nested, data):
    data()["l"].append(2)
    value = private_kit.plain(nested.pop("k"))
    assert value["l"] == [1, 2]
    nested["k"] = private_kit.value([])
    value["l"].append(3)
    assert data() == []


WALKS = {
    "items": lambda store: store.items(), "values": lambda store: zip(store, store.values(), strict=True),
    "iteritems": lambda store: store.iteritems(),
    "itervalues": lambda store: zip(store, store.itervalues(), strict=True),
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
@pytest.mark.parametrize("touched", ["nothing", "read", "changed", "held past a sync", "assigned"])
def test_values_of_a_loop_are_copies(kit, walk, touched):
    """Whatever happened to the key before: ``for k, v in pod.items(): v.pop("secret")`` saves nothing at all."""
    store = kit.open(init=kit.pairs({key: {"l": [1], "secret": 1} for key in "abcd"}))
    store.sync()
    held = kit.plain(store["b"])
    expected = {"l": [1], "secret": 1}
    if touched == "changed":
        place = changing(store)["b"]
        (place["value"] if is_tracker(kit.cls) else place)["l"].append(2)
    elif touched == "held past a sync":
        store.sync()
    elif touched == "assigned":
        store["b"] = kit.value({"l": [1, 2], "secret": 1})
    if touched in ("changed", "assigned"):
        expected = {"l": [1, 2], "secret": 1}
    for key, value in walk(store):
        assert kit.plain(value) == (expected if key == "b" else {"l": [1], "secret": 1})
        assert kit.plain(value) is not held
        kit.plain(value).pop("secret")
        kit.plain(value)["l"].append("in the loop")
    everything = {key: expected if key == "b" else {"l": [1], "secret": 1} for key in "abcd"}
    assert store.dirty() == ({"b"} if touched in ("changed", "assigned") else set())
    for state in kit.states(store):
        assert kit.contents(state) == everything


def test_walks_and_comparisons_see_unsaved_changes_of_what_was_read_by_keying(private_kit, nested, data):
    kit = private_kit
    data()["l"].append(2)
    expected = [("k", {"l": [1, 2], "d": {"x": [0]}}), ("other", [5])]
    for walk in WALKS.values():
        assert [(key, kit.plain(value)) for key, value in walk(nested)] == expected
    other = {key: kit.value(plain) for key, plain in expected}
    if is_tracker(kit.cls):
        other = {key: {"_done": False, "_aborted": False, "_tries": 0, **task} for key, task in other.items()}
    assert nested == other
    assert other == nested
    other["other"] = kit.value([6])
    assert nested != other
    lines = io.StringIO()
    nested.export_jsonl(lines)
    assert '"l":[1,2]' in lines.getvalue().replace(" ", "")
    nested.export_json(kit.folder / "files")
    assert '"l":[1,2]' in (kit.folder / "files" / "0.json").read_text().replace(" ", "")
    assert nested.dirty() == {"k"}
    assert kit.plain(nested.popitem(last=False)[1]) == expected[0][1]


def test_walk_over_a_value_that_cannot_be_stored_reads_it(private_kit, spoilt, data):
    kit = private_kit
    found = kit.contents(spoilt)
    assert found == {"k": {"l": [1, {1}], "d": {"x": [0]}}, "other": [5, 6], "third": [5, 6]}
    found["k"]["l"].clear()
    for key, _ in spoilt.iteritems():
        spoilt.mark_dirty(key)
    assert data()["l"] == [1, {1}]
    data()["l"].remove({1})
    assert kit.contents(kit.reopened(spoilt))["k"]["l"] == [1]


def test_walk_over_what_can_be_neither_stored_nor_copied_names_the_key(private_kit, nested, data):
    data()["l"].append(threading.Lock())
    with pytest.raises(PersistentOrderedDictException, match="'k'"):
        nested.items()
    nested.revert()


@pytest.mark.parametrize("assigned", [False, True], ids=["on disk", "in memory"])
def test_mark_dirty_in_a_loop_saves_what_was_changed_in_it(private_kit, nested, assigned):
    if assigned:
        nested.update(nested.items())
    for key, value in nested.iteritems():
        private_kit.plain(value).clear()
        if key == "k":
            nested.mark_dirty(key)
    assert private_kit.contents(private_kit.reopened(nested)) == {"k": {}, "other": [5]}


@pytest.mark.parametrize("newer", [
    lambda kit, store: store.__setitem__("k", kit.value("newer")),
    lambda kit, store: (store.__setitem__("k", kit.value("newer")), store.sync()),
    lambda kit, store: (store.pop("k"), store.__setitem__("k", kit.value("newer"))),
    lambda kit, store: store.update({"k": kit.value("newer")}),
], ids=["assigned", "synced", "deleted and added", "updated"])
def test_mark_dirty_in_a_loop_does_not_bring_back_what_was_replaced(private_kit, nested, newer):
    iterator = nested.iteritems()
    assert next(iterator)[0] == "k"
    newer(private_kit, nested)
    nested.mark_dirty("k")
    assert private_kit.plain(private_kit.reopened(nested)["k"]) == "newer"


@pytest.mark.parametrize("synced", [False, True])
def test_mark_dirty_in_a_loop_does_not_bring_back_what_was_changed_by_keying(private_kit, nested, data, synced):
    for key, _ in nested.iteritems():
        if key == "k":
            data()["l"].append(2)
            if synced:
                nested.sync()
            nested.mark_dirty(key)
    assert private_kit.plain(private_kit.reopened(nested)["k"])["l"] == [1, 2]


@pytest.mark.parametrize("inside", [
    lambda store: store.values(), lambda store: store.items(), lambda store: store == {"k": 1, "other": 2},
    lambda store: store == dict(store.items()), lambda store: [dict(store.iteritems()), store.keys()],
    lambda store: next(store.iteritems()), lambda store: store.export_jsonl(io.StringIO()),
    lambda store: store.pop("none", None), lambda store: store.sync(), lambda store: store.__delitem__("last"),
    lambda store: store["other"], lambda store: store["k"],
], ids=["values", "items", "unequal", "equal", "dict", "next", "export", "pop", "sync", "delete", "read", "read it"])
def test_mark_dirty_in_a_loop_saves_whatever_was_read_meanwhile(private_kit, nested, inside):
    nested["last"] = private_kit.value([])
    nested.sync()
    for key, value in nested.iteritems():
        private_kit.plain(value).clear()
        if key == "k":
            inside(nested)
            nested.mark_dirty(key)
    assert private_kit.plain(private_kit.reopened(nested)["k"]) == {}


def test_mark_dirty_saves_the_changed_copy_of_a_loop_in_a_loop(private_kit, nested):
    kit = private_kit
    for key, value in nested.iteritems():
        for inner, copied in nested.iteritems():
            if inner == "other":
                kit.plain(copied).append(key)
                nested.mark_dirty(inner)
        if key == "k":
            kit.plain(value)["l"].append("outer")
            nested.mark_dirty(key)
    assert kit.contents(kit.reopened(nested)) == {"k": {"l": [1, "outer"], "d": {"x": [0]}}, "other": [5, "k", "other"]}


@pytest.mark.parametrize("synced", [False, True])
def test_mark_dirty_in_a_loop_brings_back_no_change_that_an_assignment_has_dropped(private_kit, nested, data, synced):
    before = private_kit.plain(copy.deepcopy(nested["k"]))
    data()["l"].append("dropped")
    for key, _ in nested.iteritems():
        if key == "k":
            nested[key] = private_kit.value(before)
            if synced:
                nested.sync()
            nested.mark_dirty(key)
    assert private_kit.plain(private_kit.reopened(nested)["k"]) == before


@pytest.mark.parametrize("synced", [False, True])
def test_changed_copy_takes_the_place_of_what_was_read_by_keying(private_kit, nested, data, synced):
    kit = private_kit
    watched = data()
    watched["l"].append(2)
    for key, value in nested.iteritems():
        if key == "k":
            copied = kit.plain(value)
            assert copied["l"] == [1, 2]
            watched["l"].append("in what was read")
            if synced:
                nested.sync()
            copied["l"].append("in the copy")
            nested.mark_dirty(key)
    assert data()["l"] == [1, 2, "in the copy"]
    # As after an assignment: it is the copy that is watched now.
    watched["l"].append("in vain")
    copied["l"].append("at last")
    assert kit.plain(kit.reopened(nested)["k"])["l"] == [1, 2, "in the copy", "at last"]


@pytest.mark.parametrize("walk", ["items", "values"])
def test_mark_dirty_after_a_list_of_copies_saves_none_of_them(private_kit, nested, walk):
    kit = private_kit
    keys = nested.keys()
    for key, found in zip(keys, getattr(nested, walk)(), strict=True):
        kit.plain(found[1] if walk == "items" else found).clear()
        nested.mark_dirty(key)
    assert kit.contents(kit.reopened(nested)) == {"k": {"l": [1], "d": {"x": [0]}}, "other": [5]}


@pytest.mark.parametrize("block", ["none", "locked", "transaction"])
def test_mark_dirty_saves_no_copy_of_a_shared_store(kit, block):
    if not kit.is_shared:
        pytest.skip("a private store saves the copy that its loop has just handed out")
    store = kit.open(init=kit.pairs({"k": [1], "other": [5]}))
    store.sync()
    with getattr(store, block)() if block != "none" else contextlib.nullcontext():
        for key, value in store.iteritems():
            kit.plain(value).append(2)
            store.mark_dirty(key)
    assert store.dirty() == {"k", "other"}
    assert kit.contents(store) == {"k": [1], "other": [5]}


# Values that somebody holds


def of_many(kit, count=3000, **options):
    store = kit.open(init=kit.pairs({number: {"l": []} for number in range(count)}), **options)
    store.sync()
    return store


@pytest.mark.parametrize("sync_at", [1000, 50])
@pytest.mark.parametrize("how", ["sync", "close", "revert", "automatic"])
def test_all_values_that_are_held_are_watched(private_kit, sync_at, how):
    kit = private_kit
    store = of_many(kit, sync_at=sync_at)
    held = [kit.plain(store[number]) for number in range(3000)]
    store.update(kit.pairs({-number: 0 for number in range(1, 2500)}))
    store._check()
    for number, value in enumerate(held):
        value["l"].append(number)
    assert store.dirty() >= set(range(3000))
    expected = {number: {"l": [number]} for number in range(3000)}
    if how == "revert":
        store.revert()
        expected = {number: {"l": []} for number in range(3000)}
        assert store.dirty() == set()
    elif how == "sync":
        store.sync()
        assert store.dirty() == set()
        store.revert()
    elif how == "automatic":
        # Whether or not somebody holds them still.
        del value
        held.clear()
        store.update(kit.pairs({-number: 1 for number in range(1, 2500)}))
    store._check()
    found = kit.contents(kit.reopened(store) if how == "close" else store)
    assert {key: value for key, value in found.items() if key >= 0} == expected


def test_values_that_are_held_are_the_ones_that_keying_gives(private_kit):
    kit = private_kit
    store = of_many(kit, sync_at=100)
    held = [kit.plain(store[number]) for number in range(3000)]
    held[5]["l"].append("changed")
    for number in range(3000):
        assert kit.plain(store[number]) is held[number]
    store._check()
    assert store.dirty() == {5}


@pytest.mark.parametrize("change", ["assign", "update", "delete", "add again", "pop", "sync_key", "mark_dirty"])
def test_value_that_is_held_beside_thousands_is_replaced_as_any_other(private_kit, change):
    kit = private_kit
    store = of_many(kit, sync_at=100)
    held = [kit.plain(store[number]) for number in range(3000)]
    held[0]["l"].append("changed")
    new = kit.value({"l": ["new"]})
    expected = {"l": ["changed"]}
    if change in ("assign", "update"):
        store[0] = new if change == "assign" else store.update({0: new}) or new
        expected = {"l": ["new"]}
    elif change == "sync_key":
        store.sync_key(0)
        assert 0 not in store.dirty()
    elif change == "mark_dirty":
        store.mark_dirty(0)
    else:
        found = store.pop(0) if change == "pop" else store[0]
        assert kit.plain(found) is held[0]
        if change != "pop":
            del store[0]
        assert 0 not in store
        if change == "add again":
            store[0] = new
            assert store.keys()[-1] == 0
        expected = {"l": ["new"]} if change == "add again" else None
    held[0]["l"].append("later")
    if change in ("sync_key", "mark_dirty"):
        expected = {"l": ["changed", "later"]}
    store._check()
    assert kit.contents(store).get(0) == expected
    held[1]["l"].append("beside")
    again = kit.reopened(store)
    assert kit.contents(again).get(0) == expected
    assert kit.plain(again[1]) == {"l": ["beside"]}


def test_values_are_let_go_of_when_nobody_holds_them(private_kit):
    """However many went by: what a program holds for a while only does not stay in memory."""
    import gc

    def in_memory():
        gc.collect()
        return sum(type(thing) is dict and thing.keys() == {"l"} for thing in gc.get_objects())

    kit = private_kit
    store = of_many(kit, 6000, sync_at=100)
    window = collections.deque(maxlen=1500)
    for number in range(6000):
        window.append(kit.plain(store[number]))
        window[0]["l"].append(number)
    # (those that nobody holds any more are found out bit by bit)
    assert 1500 <= in_memory() < 3000
    store._check()
    window.clear()
    store.sync()
    assert in_memory() == 0
    assert sum(len(value["l"]) for value in kit.contents(kit.reopened(store)).values()) == 6000


def test_value_that_is_held_is_watched_also_when_another_memory_has_written(private_kit):
    """``clone=False``: what the other one has not changed stays watched, what it has changed is let go."""
    kit = private_kit
    store = of_many(kit, 1500, sync_at=100)
    held = [kit.plain(store[number]) for number in range(1500)]
    held[4]["l"].append("unsaved")
    with kit.cls(store.path, clone=False) as other:
        other[3] = kit.value({"l": ["of the other"]})
        other["new"] = kit.value(1)
        del other[5]
        other.sync()
        assert kit.plain(store["new"]) == 1
        for value in held:
            value["l"].append("held")
        store.sync()
        found = kit.contents(other)
    assert found.pop(3) == {"l": ["of the other"]}
    assert found.pop(4) == {"l": ["unsaved", "held"]}
    assert 5 not in found
    assert found.pop("new") == 1
    assert found == {number: {"l": ["held"]} for number in range(1500) if number not in (3, 4, 5)}
    store._check()


# A mutation that cannot be stored


@pytest.fixture
def spoilt(nested, data):
    """One value of three cannot be stored any more."""
    data()["l"].append({1})
    data("other").append(6)
    nested["third"] = nested["other"]
    return nested


@pytest.mark.parametrize("again", [1, 2])
def test_unstorable_mutation_is_told_with_its_key_and_all_else_is_saved(private_kit, spoilt, data, again):
    for _ in range(again):
        with pytest.raises(UnstorableValueError, match=r"'k'.*l"):
            spoilt.sync()
    assert spoilt.dirty() == {"k"}
    data()["l"].remove({1})
    data()["l"].append("good")
    spoilt.sync()
    assert spoilt.dirty() == set()
    assert private_kit.contents(private_kit.reopened(spoilt)) == {
        "k": {"l": [1, "good"], "d": {"x": [0]}}, "other": [5, 6], "third": [5, 6]
    }


def test_reverting_an_unstorable_mutation_brings_back_what_was_saved(private_kit, spoilt, data):
    with pytest.raises(UnstorableValueError):
        spoilt.sync()
    spoilt.revert()
    assert data()["l"] == [1]
    assert data("third") == [5, 6]
    spoilt.sync()


def test_unstorable_mutation_does_not_lose_an_automatic_sync(private_kit, nested, data):
    kit = private_kit
    store = kit.open("auto", init=kit.pairs({"bad": [], "good": []}), sync_at=3)
    store.sync()
    kit.plain(store["bad"]).append(object())
    kit.plain(store["good"]).append(1)
    with pytest.raises(UnstorableValueError, match="'bad'"):
        store["new"] = kit.value(2)
    assert store.dirty() == {"bad"}
    kit.plain(store["bad"]).clear()
    assert kit.contents(kit.reopened(store)) == {"bad": [], "good": [1], "new": 2}


def test_close_with_an_unstorable_mutation_leaves_the_store_open(private_kit, spoilt, data):
    with pytest.raises(UnstorableValueError, match="'k'"):
        spoilt.close()
    assert not spoilt.closed
    data()["l"].remove({1})
    assert private_kit.plain(private_kit.reopened(spoilt)["other"]) == [5, 6]


def test_sync_key_of_an_unstorable_mutation_names_it_and_writes_nothing(private_kit, spoilt, data):
    with pytest.raises(UnstorableValueError, match="'k'"):
        spoilt.sync_key("k")
    assert "k" in spoilt.dirty()
    spoilt.sync_key("third")
    spoilt.revert()
    assert private_kit.contents(spoilt) == {"k": {"l": [1], "d": {"x": [0]}}, "other": [5], "third": [5, 6]}


def test_several_unstorable_mutations_are_one_error(private_kit):
    kit = private_kit
    store = kit.open(init=kit.pairs({number: [] for number in range(10)}))
    store.sync()
    for number in range(0, 10, 2):
        kit.plain(store[number]).append(b"x")
        kit.plain(store[number + 1]).append("x")
    with pytest.raises(UnstorableValueError) as caught:
        store.sync()
    assert all(f"{number}" in str(caught.value) for number in range(0, 10, 2))
    assert store.dirty() == {0, 2, 4, 6, 8}


def test_new_key_with_an_unstorable_mutation_keeps_its_place(private_kit):
    kit = private_kit
    store = kit.open()
    for key in "abc":
        store[key] = kit.value([key])
    kit.plain(store["b"]).append({1})
    with pytest.raises(UnstorableValueError, match="'b'"):
        store.sync()
    assert store.keys() == ["a", "b", "c"]
    assert len(store) == 3
    store._check()
    kit.plain(store["b"]).remove({1})
    assert kit.contents(kit.reopened(store)) == {"a": ["a"], "b": ["b"], "c": ["c"]}


def test_new_key_with_an_unstorable_mutation_can_be_deleted(private_kit):
    kit = private_kit
    store = kit.open(init=kit.pairs({"a": [], "b": []}))
    kit.plain(store["b"]).append({1})
    with pytest.raises(UnstorableValueError):
        store.sync()
    del store["b"]
    store.sync()
    assert kit.contents(kit.reopened(store)) == {"a": []}


# .set: code that moves between the private and the shared classes


@pytest.fixture
def way(kit):
    """Where the data lies below ``.set[key]``."""
    return lambda place: place if kit.plain({"value": 0}) else place["value"]


def test_set_assigns_and_deletes(kit, store):
    store.set["a"] = kit.value(1)
    store.set["b"] = kit.value(2)
    del store.set["a"]
    assert kit.contents(store) == {"b": 2}


def test_set_changes_deep_inside(kit, store, way):
    store.set["a"] = kit.value({"n": 1, "list": [1, 2, 3], "d": {"x": {"y": []}}})
    place = way(store.set["a"])
    place["n"] += 41
    place["n"] *= 2
    place["list"].append(4)
    place["list"][0] = "first"
    place["list"] += ["last"]
    place["list"][1:3] = []
    place["d"]["x"]["y"].extend([1, 2])
    del place["d"]["x"]["y"][0]
    place["d"]["x"].update(z=None)
    expected = {"n": 84, "list": ["first", 4, "last"], "d": {"x": {"y": [2], "z": None}}}
    assert kit.contents(store) == {"a": expected}
    assert kit.contents(kit.reopened(store)) == {"a": expected}


@pytest.mark.parametrize(("statement", "expected"), [
    ("+= 5", 12), ("-= 5", 2), ("*= 5", 35), ("/= 2", 3.5), ("//= 2", 3), ("%= 4", 3), ("**= 2", 49), ("<<= 1", 14),
    (">>= 1", 3), ("&= 3", 3), ("^= 1", 6), ("|= 8", 15),
])
def test_set_does_every_augmented_assignment(kit, store, statement, expected):
    store["a"] = kit.value({"n": 7})
    place = "['a']" if kit.plain({"value": 0}) else "['a']['value']"
    exec(f"store.set{place}['n'] {statement}", {"store": store})
    assert kit.contents(store) == {"a": {"n": expected}}


def test_set_gives_what_a_method_returns(kit, store, way):
    store["a"] = kit.value([1, 2])
    assert way(store.set["a"]).pop() == 2
    assert kit.plain(store.set.pop("a")) == [1]
    assert store.set.get("a", 5) == 5
    assert len(store) == 0


def test_set_takes_methods_of_the_store(kit, store):
    store.set.update(kit.pairs(ABC))
    store.set |= kit.pairs({"d": 4})
    store.set.clear()
    store.set.setdefault("e", kit.value(5))
    assert kit.contents(store) == {"e": 5}


def test_set_of_a_missing_key_is_a_key_error(kit, store):
    with pytest.raises(KeyError):
        store.set["a"]["n"] += 1
    with pytest.raises(KeyError):
        del store.set["a"]
    assert len(store) == 0


def test_set_refuses_a_bad_value(kit, store, way):
    store["a"] = kit.value([1])
    with pytest.raises(UnstorableValueError):
        store.set["b"] = kit.value({1})
    assert kit.contents(store) == {"a": [1]}


AS_A_VALUE = {
    "truth": "bool(p)", "not": "not p", "if": "1 if p else 0", "and": "p and 1", "while": "while p: pass",
    "length": "len(p)", "hash": "hash(p)", "in a set": "{p}", "as a key": "{p: 1}", "iter": "iter(p)",
    "unpacked": "[*p]", "list": "list(p)", "reversed": "reversed(p)", "in": "'x' in p", "is in": "p in [1]",
    **{sign: f"p {sign} 5" for sign in ("==", "!=", "<", "<=", ">", ">=")},
    **{f"{sign} reversed": f"5 {sign} p" for sign in ("==", "!=", "<", "<=", ">", ">=")},
    "None": "p == None", "text equal": "p == 'x'", "list equal": "[1] == p", "dict equal": "p == {}",
    "itself": "p == p",
    **{sign: f"p {sign} 2" for sign in ("+", "-", "*", "@", "/", "//", "%", "**", "<<", ">>", "&", "^", "|")},
    **{f"{sign} on the right": f"2 {sign} p"
       for sign in ("+", "-", "*", "@", "/", "//", "%", "**", "<<", ">>", "&", "^", "|")},
    "text + it": "'a' + p", "list + it": "[] + p", "dict | it": "{} | p", "divmod": "divmod(p, 2)",
    "reversed divmod": "divmod(2, p)", "pow": "pow(p, 2, 3)", "n += it": "n = 1; n += p",
    "list += it": "n = []; n += p",
    "-": "-p", "+": "+p", "~": "~p", "abs": "abs(p)", "round": "round(p)", "round to digits": "round(p, 2)",
    "int": "int(p)", "float": "float(p)", "complex": "complex(p)", "index": "[1, 2][p]", "range": "range(p)",
    "sum": "sum([p])", "max": "max(p, 2)", "sorted": "sorted([p, 2])", "str": "str(p)", "print": "print(p)",
    "f-string": "f'{p}'", "format": "f'{p:>5}'", "%s": "'%s' % p", "bytes": "bytes(p)",
    "copy": "copy.copy(p)", "deepcopy": "copy.deepcopy(p)", "pickle": "pickle.dumps(p)",
}


def test_set_is_not_for_reading(kit, abc):
    before = kit.contents(abc)
    for place in (abc.set, abc.set["a"], abc.set["a"]["x"][0], abc.set["missing"], abc.set["a"].x):
        for name, statement in AS_A_VALUE.items():
            with pytest.raises(TypeError, match=r"leave off \.set"):
                pytest.fail(f"{name}: {exec(statement, {'p': place, 'copy': copy, 'pickle': pickle})}")
    assert kit.contents(abc) == before


def test_place_behind_set_shows_itself_for_debugging(abc):
    place = abc.set["a"]["x"][0].y
    assert "['a']['x'][0].y" in repr(place)
    assert "leave off .set" in f"{place!r}"
    assert place is not None
    assert callable(place)


def test_place_behind_set_is_no_value_to_store(kit, abc):
    before = kit.contents(abc)
    for use in (
        lambda: abc.set.__setitem__("a", kit.value(abc.set["b"])), lambda: abc.update(a=kit.value([abc.set["b"]])),
        lambda: abc.__setitem__("new", kit.value(abc.set["b"])), lambda: abc.__setitem__(abc.set["b"], kit.value(1)),
    ):
        with pytest.raises(PersistentOrderedDictException, match="DeepProxy"):
            use()
    assert kit.contents(abc) == before


def test_set_itself_cannot_be_assigned(abc):
    with pytest.raises(AttributeError):
        abc.set = {}


# What a store is


def test_names_of_a_private_store(private_kit):
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


def test_parents_of_the_path_are_made(kit):
    assert kit.open("some/folders/below").path.endswith("some/folders/below")


def test_repr_tells_class_path_and_count(kit, abc):
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
def test_wrong_sizes_are_refused_before_anything_is_made(kit, name, wrong, error):
    with pytest.raises(error, match=name):
        kit.open(**{name: wrong})
    assert list(kit.folder.iterdir()) == []


@pytest.mark.parametrize("options", [{"mode": "x"}, {"mode": None}, {"durability": "safe"}, {"durability": 1}])
def test_wrong_mode_or_durability_is_refused_before_anything_is_made(private_kit, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        private_kit.open(**options)
    assert list(private_kit.folder.iterdir()) == []


@pytest.mark.parametrize("durability", ["full", "normal", "process"])
def test_every_durability_saves(kit, durability):
    store = kit.open(durability=durability, sync_at=2)
    store.update(kit.pairs(ABC))
    assert store.durability == durability
    assert kit.contents(kit.reopened(store)) == ABC


def test_file_size_is_kept_and_may_change_at_the_next_opening(kit):
    kit.open(file_size=7).close()
    assert kit.open(file_size=9).file_size == 9


def test_gzipped_store_is_smaller_and_each_reads_the_other(kit):
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


# Closed

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


def test_closed_store_raises_whatever_it_is_asked(kit, abc):
    methods = {name: arguments for name, arguments in AFTER_CLOSE.items() if hasattr(abc, name)}
    abc.close()
    for name, arguments in methods.items():
        with pytest.raises(CalledClosedTrackerError):
            pytest.fail(f"{name}() gave {getattr(abc, name)(*arguments)!r}")
    assert kit.contents(kit.open()) == ABC


def test_closed_store_raises_for_set_and_truth(abc):
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


# Reading only

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
    # (the changes are of the dict that a tracker has for a task, too)
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
    outcome_of(child)
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
    outcome_of(child)
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


def test_what_a_reader_changes_in_a_value_goes_nowhere(private_kit):
    kit = private_kit
    kit.open(init=kit.pairs({"a": [1]})).close()
    with kit.open(mode="r") as reader:
        kit.plain(reader["a"]).append(2)
        assert reader.dirty() == set()
        assert kit.plain(reader["a"]) == [1]
    assert kit.contents(kit.open()) == {"a": [1]}


def test_reader_of_nothing_raises_and_makes_nothing(private_kit):
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
def test_loop_over_keys_finds_what_another_process_writes(kit):
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
    # (what the iterator had read ahead may still come; what was added comes in any case, in order)
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


# Several instances on one path


def test_instances_on_one_path_share_their_memory(private_kit):
    kit = private_kit
    one, other = kit.open(), kit.open()
    one["a"] = kit.value([1])
    assert kit.plain(other["a"]) == [1]
    kit.plain(other["a"]).append(2)
    assert kit.plain(one["a"]) == [1, 2]
    assert one.dirty() == other.dirty() == {"a"}
    del other["a"]
    assert "a" not in one
    assert len(one) == 0
    one["b"] = kit.value(1)
    other.revert()
    assert len(one) == 0


def test_instances_find_each_other_by_the_resolved_path(private_kit, monkeypatch):
    kit = private_kit
    one = kit.open()
    (kit.folder / "link").symlink_to(kit.folder / "store")
    monkeypatch.chdir(kit.folder)
    one["a"] = kit.value(1)
    for path in (kit.folder / "link", "store", "./link/../store", kit.folder / "." / "store"):
        with kit.cls(path) as other:
            assert "a" in other
            assert other.path == one.path


def test_closing_one_instance_leaves_the_other_open(private_kit):
    kit = private_kit
    one, other = kit.open(), kit.open()
    one["a"] = kit.value(1)
    one.close()
    assert other.dirty() == set()
    other["b"] = kit.value(2)
    assert other.keys() == ["a", "b"]
    with pytest.raises(CalledClosedTrackerError):
        one["a"]


def test_instances_have_each_their_own_sync_at_and_hold(private_kit):
    kit = private_kit
    one, other = kit.open(sync_at=2), kit.open(sync_at=100)
    for number in range(5):
        other[number] = kit.value(number)
    assert len(one.dirty()) == 5
    one[5] = kit.value(5)
    assert one.dirty() == set()
    one.hold()
    one.update(kit.pairs(dict.fromkeys(range(5), 0)))
    assert len(one.dirty()) == 5
    with kit.open(sync_at=1) as third:
        third[0] = kit.value(1)
        assert one.dirty() == set()


@pytest.mark.parametrize("options", [{"gzipped": True}, {"file_size": 10}, {"mode": "r"}, {"durability": "full"}])
@pytest.mark.parametrize("clone", [False, True])
def test_instances_with_conflicting_options_are_refused(private_kit, options, clone):
    kit = private_kit
    store = kit.open()
    (name, _), = options.items()
    with pytest.raises(StoreConflictError, match=name) as caught:
        kit.open(**options, clone=clone)
    assert isinstance(caught.value, ValueError)
    store["a"] = kit.value(1)
    assert "a" in kit.reopened(store)


@pytest.fixture
def apart(private_kit):
    """Two instances on one path with a memory each, and three keys on disk."""
    one = private_kit.open(init=private_kit.pairs({"a": [1], "b": [2], "c": [3]}), clone=False)
    one.sync()
    return one, private_kit.open(clone=False)


def test_instances_with_clone_false_see_each_others_syncs_only(private_kit, apart):
    kit, (one, other) = private_kit, apart
    one["d"] = kit.value(4)
    kit.plain(one["a"]).append("x")
    del one["b"]
    assert kit.contents(other) == {"a": [1], "b": [2], "c": [3]}
    assert other.dirty() == set()
    one.sync()
    assert kit.contents(other) == {"a": [1, "x"], "c": [3], "d": 4}
    assert len(other) == 3
    assert "b" not in other
    assert kit.plain(other["d"]) == 4


def test_clone_false_is_apart_from_instances_that_share(private_kit):
    kit = private_kit
    shared, apart = kit.open(), kit.open(clone=False)
    shared["a"] = kit.value(1)
    apart["b"] = kit.value(2)
    assert kit.open().keys() == ["a"]
    assert apart.keys() == ["b"]
    apart.sync()
    assert shared.keys() == ["b", "a"] or shared.keys() == ["a", "b"]
    shared.sync()
    assert sorted(apart.keys()) == ["a", "b"]


def test_both_instances_write(private_kit, apart):
    kit, (one, other) = private_kit, apart
    for number in range(0, 40, 2):
        one[number] = kit.value("one")
        other[number + 1] = kit.value("other")
    one.sync()
    other.sync()
    assert len(one) == len(other) == 43
    assert one.keys() == other.keys()
    assert set(one) == {"a", "b", "c", *range(40)}
    one.close()
    assert all(kit.plain(other[number]) == ("other" if number % 2 else "one") for number in range(40))


def test_last_sync_of_one_key_wins(private_kit, apart):
    kit, (one, other) = private_kit, apart
    for key in ("a", "new"):
        one[key] = kit.value("one")
        other[key] = kit.value("other")
    one.sync()
    assert kit.plain(one["new"]) == "one"
    assert kit.plain(other["new"]) == "other"
    other.sync()
    for key in ("a", "new"):
        assert kit.plain(one[key]) == kit.plain(other[key]) == "other"
    assert one.keys() == other.keys() == ["a", "b", "c", "new"]


@pytest.mark.parametrize("held", [False, True], ids=["", "held past a sync"])
@pytest.mark.parametrize("way", ["assigned", "changed by keying"])
def test_key_that_one_deletes_and_the_other_changes_is_there_after_both_syncs(private_kit, apart, way, held):
    kit, (one, other) = private_kit, apart
    if held:
        _value = kit.plain(other["a"])
        other["b"] = kit.value("new")
        other.sync()
    del one["a"]
    if way == "assigned":
        other["a"] = kit.value([1, "kept"])
    else:
        kit.plain(other["a"]).append("kept")
    one.sync()
    assert "a" not in one
    assert other.dirty() == {"a"}
    assert kit.plain(other["a"]) == [1, "kept"]
    assert other.keys() == ["b", "c", "a"]
    other._check()
    other.sync()
    assert kit.plain(one["a"]) == [1, "kept"]
    assert len(one) == len(other) == 3


def test_key_that_both_delete_is_gone(private_kit, apart):
    one, other = apart
    del one["a"], other["a"]
    one.sync()
    assert len(other) == 2
    other.sync()
    assert one.keys() == other.keys() == ["b", "c"]
    assert other.dirty() == set()


def test_key_that_one_read_and_the_other_deleted_is_gone(private_kit, apart):
    kit, (one, other) = private_kit, apart
    assert kit.plain(other["a"]) == [1]
    del one["a"]
    one.sync()
    assert "a" not in other
    assert len(other) == 2
    with pytest.raises(KeyError):
        other["a"]
    other.sync()
    assert "a" not in one


@pytest.mark.parametrize("save", [lambda store: store.sync(), lambda store: store.sync_key("new")],
                         ids=["sync", "sync_key"])
def test_key_saved_by_sync_key_is_seen_as_the_other_instance_changes_it(private_kit, apart, save):
    kit, (one, other) = private_kit, apart
    other["new"] = kit.value("other")
    other.sync_key("new")
    one["new"] = kit.value("one")
    save(one)
    assert kit.plain(other["new"]) == "one"
    assert kit.contents(other)["new"] == "one"
    other.sync()
    assert kit.plain(one["new"]) == "one"


def test_loop_sees_what_the_other_instance_syncs(private_kit, apart):
    kit, (one, other) = private_kit, apart
    seen = []
    for key in one:
        seen.append(key)
        if key == "a":
            other["d"] = kit.value(4)
            del other["b"]
            other.sync()
    assert seen == ["a", "c", "d"]


def test_revert_of_one_does_not_touch_the_other(private_kit, apart):
    kit, (one, other) = private_kit, apart
    one["d"] = kit.value(1)
    other["e"] = kit.value(2)
    one.revert()
    other.sync()
    assert one.keys() == other.keys() == ["a", "b", "c", "e"]


@pytest.mark.parametrize("name", ["sync_at", "file_size", "max_tries"])
def test_a_limit_that_nothing_reaches_may_have_any_size(any_class, path, name):
    if name == "max_tries" and not is_tracker(any_class):
        return
    with any_class(path, **{name: 10**30}) as store:
        store["a"] = {}
        if is_tracker(any_class):
            assert list(store.try_keys()) == ["a"]


# Code that moves between private and shared stores


def test_locked_block_gives_the_store_and_keeps_what_was_done_also_after_an_exception(kit, store):
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


def test_other_threads_come_before_or_after_a_locked_block(kit, store):
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


def test_same_locked_block_may_be_entered_again(kit, store):
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


def test_closing_in_a_locked_block_keeps_what_was_done(kit):
    store = kit.open()
    with store.locked():
        store["a"] = kit.value(1)
        store.close()
    store = kit.open()
    assert kit.contents(store) == {"a": 1}
    # (and the lock is free)
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


def test_child_that_was_forked_in_a_locked_block_is_not_in_it(private_kit):
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


def test_many_tasks_are_marked_done_or_none(some_tracker):
    with pytest.raises(KeyError, match="'x'"):
        some_tracker.mark_done_many(["a", "x", "b"])
    assert some_tracker.num_done() == 0
    some_tracker.mark_done_many(key for key in ["a", "b", "a"])
    some_tracker.mark_done_many([])
    assert [key for key in some_tracker if some_tracker.done(key)] == ["a", "b"]
    with pytest.raises(InvalidKeyError):
        some_tracker.mark_done_many(["c", 1.5])
    assert not some_tracker.done("c")


def test_release_wants_a_task_that_is_there(some_tracker):
    with pytest.raises(KeyError, match="'x'"):
        some_tracker.release("x")
    assert next(some_tracker.try_keys()) == "a"
    some_tracker.release("a")
    assert some_tracker.tries("a") == 1
    assert not some_tracker.done("a")


@pytest.mark.parametrize("method", ["try_keys", "try_values", "try_items"])
def test_loops_take_a_batch(some_tracker, method):
    loop = getattr(some_tracker, method)
    assert len(list(loop(batch=2))) == 3
    for wrong, error in ((0, ValueError), (-1, ValueError), ("1", TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="batch"):
            loop(batch=wrong)
    with pytest.raises(TypeError):
        loop(False, 2)
    assert [some_tracker.tries(key) for key in "abc"] == [1, 1, 1]


def test_reader_marks_nothing(path):
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
