"""Keys of every kind in a store: equal and of the same type when read back, or refused."""

from __future__ import annotations

import collections
from pathlib import PurePosixPath

import pytest

from tastypy_fast import (
    InvalidKeyError,
    PersistentOrderedDictException,
    ReadOnlyStoreError,
)
from tests.support.contract import ABC

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]

LONG = "x" * 600
KEYS = [
    "", "a", "A", "key with spaces", "\x00", "a\x00b", "\x00\xff", "ü", "ä\U0001f600", "\ud800", "a\udcff.txt",
    "\ud83d\ude00", LONG, LONG + "a", LONG + "b", "\udc80" * 300, "1", "()", "None",
    0, 1, -1, 2, 255, 256, -255, -256, -257, 2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**400,
    -(10**400), 2**8192,
    (), ("",), ("a",), ("a", "b"), ("a", ("b",)), (("a",), "b"), ((),), ((), ()), (1,), ("1",), (1, 2), (1, (2,)),
    ("a\x00", "b"), ("a", "\x00b"), ("a\x00\xff",), (LONG, 1), (LONG, 2), (2**70, -(2**70)), ((((("deep",),),),),),
]


def test_keys_round_trip_with_their_types(kit):
    store = kit.open(init=[(key, kit.value(number)) for number, key in enumerate(KEYS)])
    for state in kit.states(store):
        assert state.keys() == KEYS
        assert [type(key) for key in state] == [type(key) for key in KEYS]
        assert [kit.plain(state[key]) for key in KEYS] == list(range(len(KEYS)))
        assert all(key in state for key in KEYS)
        assert list(reversed(state)) == KEYS[::-1]


def test_each_key_can_be_deleted_separately(kit):
    store = kit.open(init=[(key, kit.value(number)) for number, key in enumerate(KEYS)])
    store.sync()
    for number, key in enumerate(KEYS):
        del store[key]
        assert key not in store
        assert len(store) == len(KEYS) - number - 1
    assert len(kit.reopened(store)) == 0


def test_bool_key_equals_the_int_key(kit, store):
    store[True] = kit.value("yes")
    store[(False,)] = kit.value("no")
    assert kit.plain(store[1]) == "yes"
    assert kit.plain(store[(0,)]) == "no"
    assert [repr(key) for key in store] == ["1", "(0,)"]


def test_subclasses_of_key_types_are_stored_as_their_base_type(kit, store):
    class Name(str):
        __slots__ = ()

    class Number(int):
        pass

    Point = collections.namedtuple("Point", "x y")
    store.update([(Name("a"), kit.value(1)), (Number(5), kit.value(2)), (Point(1, 2), kit.value(3))])
    assert [kit.plain(store[key]) for key in ("a", 5, (1, 2))] == [1, 2, 3]
    assert [type(key) for key in store] == [str, int, tuple]


def test_long_keys_with_a_common_prefix_are_distinct(kit):
    # A key of LMDB has at most 511 bytes, so these keys differ only after the end of LMDB's key.
    keys = ["y" * 511 + end for end in ("", "a", "b", "ab", "ba")] + ["y" * size for size in (508, 509, 510, 512)]
    store = kit.open(init=[(key, kit.value(key[-3:])) for key in keys])
    for state in kit.states(store):
        assert {key: kit.plain(state[key]) for key in keys} == {key: key[-3:] for key in keys}
        assert state.keys() == keys


# Hashable objects that are no keys, unhashable ones and paths, with the name of the type.
HASHABLE = [
    (1.0, "float"), (float("nan"), "float"), (None, "NoneType"), (b"a", "bytes"), (frozenset(), "frozenset"),
    (object(), "object"), (("a", 1.0), "float"), (("a", (None,)), "NoneType"), ((b"",), "bytes"), (str, "type"),
    (1j, "complex"),
]
REFUSED = [
    (["a"], "list"), ({}, "dict"), (((("a", []),),), "list"), (bytearray(), "bytearray"),
    (PurePosixPath("a"), "PurePosixPath"), (("a", PurePosixPath("a")), "PurePosixPath"),
]


def named(pairs):
    ids = [f"{name}-{index}" for index, (_, name) in enumerate(pairs)]
    return pytest.mark.parametrize(("key", "name"), pairs, ids=ids)


def assigning(kit, store):
    return [
        lambda key: store.__setitem__(key, kit.value(1)), lambda key: store.setdefault(key, kit.value(1)),
        lambda key: store.update([(key, kit.value(1))]), lambda key: store.set.__setitem__(key, kit.value(1)),
    ]


def finding(store):
    return [store.__getitem__, store.__delitem__, store.pop, store.mark_dirty, store.sync_key, store.move_to_end,
            lambda key: store.set[key].clear(), lambda key: store.set.__delitem__(key)]


@named(HASHABLE)
def test_other_hashable_object_is_absent_as_in_a_dict(abc, key, name):
    assert key not in abc
    assert abc.get(key) is None
    assert abc.get(key, 7) == 7
    assert abc.pop(key, 7) == 7
    for find in finding(abc):
        with pytest.raises(KeyError) as caught:
            find(key)
        assert caught.value.args == (key,)
        assert not isinstance(caught.value, PersistentOrderedDictException)


@named(REFUSED)
def test_unhashable_object_and_path_raise_an_error_that_names_their_type(kit, abc, key, name):
    for use in [*finding(abc), abc.__contains__, abc.get, lambda key: abc.pop(key, None)]:
        with pytest.raises(InvalidKeyError, match=rf"\b{name}\b") as caught:
            use(key)
        assert isinstance(caught.value, TypeError)
    assert kit.contents(abc) == ABC


@named(HASHABLE + REFUSED)
def test_assigning_another_object_raises_an_error_that_names_its_type(kit, abc, key, name):
    for assign in assigning(kit, abc):
        with pytest.raises(InvalidKeyError, match=rf"\b{name}\b") as caught:
            assign(key)
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, PersistentOrderedDictException)
    assert kit.contents(abc) == ABC


def test_error_for_a_path_says_what_to_use(kit, store):
    for use in (store.__contains__, lambda key: store.__setitem__(key, kit.value(1))):
        for key in (PurePosixPath("a"), ("x", PurePosixPath("a"))):
            with pytest.raises(InvalidKeyError, match=r"Use str\(path\)"):
                use(key)


def test_reader_treats_other_objects_as_every_store(private_kit):
    private_kit.open(init=private_kit.pairs(ABC)).close()
    reader = private_kit.open(mode="r")
    assert None not in reader
    assert reader.get(1.5, 7) == 7
    with pytest.raises(KeyError):
        reader[None]
    with pytest.raises(InvalidKeyError):
        reader.get([])
    for change in (reader.__delitem__, reader.move_to_end):
        with pytest.raises(ReadOnlyStoreError):
            change(None)


def test_numbers_of_numpy_are_the_int_keys(kit, abc):
    numpy = pytest.importorskip("numpy")
    for number, kind in enumerate((numpy.int64, numpy.int8, numpy.uint64, numpy.intc)):
        key = kind(100 + number)
        abc[key] = kit.value(number)
        assert key in abc
        assert 100 + number in abc
        assert kit.plain(abc[key]) == kit.plain(abc[100 + number]) == kit.plain(abc.get(key)) == number
        abc["x", (key, numpy.bool_(True))] = kit.value(number)
    abc[numpy.bool_(True)] = kit.value("yes")
    assert kit.plain(abc[1]) == kit.plain(abc[True]) == "yes"
    assert [repr(key) for key in abc if key not in ABC] == [
        repr(key) for number in range(4) for key in (100 + number, ("x", (100 + number, 1)))] + ["1"]
    assert kit.plain(abc.pop(numpy.int16(100))) == 0
    del abc[numpy.uint8(101)]
    abc.move_to_end(numpy.int32(102))
    abc.mark_dirty(numpy.int32(102))
    abc.sync_key(numpy.int32(102))
    abc.update([(numpy.int64(103), kit.value(7))])
    assert kit.plain(abc.setdefault(numpy.int64(103), kit.value(8))) == 7
    (last,) = (key for key in kit.reopened(abc) if type(key) is int and key not in (1, 103))
    assert (last, type(last)) == (102, int)


def test_other_numbers_of_numpy_are_no_keys(kit, store):
    numpy = pytest.importorskip("numpy")
    for key in (numpy.float64(1), numpy.timedelta64(1, "s"), numpy.datetime64(1, "s"), numpy.complex64(1)):
        assert key not in store
        with pytest.raises(InvalidKeyError):
            store[key] = kit.value(1)
    with pytest.raises(InvalidKeyError):
        store.get(numpy.arange(3))


def test_key_nested_too_deeply_is_refused(kit, store):
    key = ()
    for _ in range(100_000):
        key = (key,)
    with pytest.raises(InvalidKeyError, match="deep"):
        store[key] = kit.value(1)
    assert key not in store
    assert len(store) == 0


def test_invalid_key_with_a_failing_repr_is_reported(kit, store):
    class Nasty:
        def __repr__(self):
            raise RuntimeError

    with pytest.raises(InvalidKeyError, match="Nasty"):
        store[Nasty()] = kit.value(1)


def test_key_beyond_the_digit_limit_is_accepted(kit, store):
    # Python does not convert an int of more than 4,300 digits to text, and error messages contain keys.
    key = 10**5000
    store[key] = kit.value(1)
    assert key in store
    for ask in (store.__getitem__, store.__delitem__, store.mark_dirty, store.sync_key):
        with pytest.raises(KeyError):
            ask(-key)
    (found,) = kit.reopened(store)
    assert found == key
