"""Values of every kind in a store: equal and of the same type when read back, or refused."""

from __future__ import annotations

import collections

import pytest

from tastypy_fast import (
    UnstorableValueError,
)
from tests.support.contract import ABC

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


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
def test_values_round_trip_with_their_types(kit, gzipped):
    store = kit.open(init=[(number, kit.value(value)) for number, value in enumerate(VALUES)], gzipped=gzipped)
    store.sync()
    for number, value in enumerate(VALUES):
        assert repr(kit.plain(store[number])) == repr(value)
    store.close()
    reopened = kit.open(gzipped=not gzipped)
    assert [repr(kit.plain(value)) for value in reopened.values()] == [repr(value) for value in VALUES]


def test_nan_round_trips(kit, store):
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
def test_value_is_read_back_as_its_json(kit, store, given, stored):
    store["a"] = kit.value(given)
    for state in kit.states(store):
        assert repr(kit.plain(state["a"])) == repr(stored)


def test_numpy_numbers_and_arrays_are_accepted(kit, store):
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
def test_unstorable_value_is_refused_and_changes_nothing(kit, abc, bad):
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
def test_error_names_the_position_inside_the_value(kit, store, wrap, place):
    with pytest.raises(UnstorableValueError) as caught:
        store["a"] = kit.value(wrap({1}))
    assert place in str(caught.value)
    assert "set" in str(caught.value)


def test_recursive_value_is_refused(kit, abc):
    circle = []
    circle.append({"again": circle})
    with pytest.raises(UnstorableValueError, match="deep"):
        abc["a"] = kit.value(circle)
    assert kit.contents(abc) == ABC


@pytest.mark.parametrize("depth", [240, 249, 250, 251, 252, 253, 254, 255, 256, 300])
def test_deeply_nested_value_round_trips(kit, store, depth):
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


def test_value_nested_too_deeply_is_refused(kit, abc):
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UnstorableValueError):
        abc["a"] = kit.value(value)
    assert kit.contents(abc) == ABC
    # The value is dismantled here, because freeing it at once would need as deep a stack.
    while value:
        value = value.pop()


def test_value_is_stored_as_it_was_when_assigned(kit, store):
    mine = [1]
    store["a"] = kit.value(mine)
    mine.append(2)
    assert kit.plain(store["a"]) == [1]


def test_large_values_among_many_keys_round_trip(kit):
    large = {str(number): "ü" * 50_000 + str(number) for number in range(5)}
    store = kit.open()
    for key, value in large.items():
        store[key] = kit.value(value)
        store["small" + key] = kit.value(key)
    for state in kit.states(store):
        assert state.keys() == [key for name in large for key in (name, "small" + name)]
        assert list(reversed(state)) == state.keys()[::-1]
        assert all(kit.plain(state[key]) == value for key, value in large.items())
