"""Keys of every kind in a store: equal and of the same type when read back, or refused."""

from __future__ import annotations

import collections

import pytest

from tastypy_fast import (
    InvalidKeyError,
    PersistentOrderedDictException,
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


BAD_KEYS = [
    (1.0, "float"), (float("nan"), "float"), (None, "NoneType"), (b"a", "bytes"), (["a"], "list"), ({}, "dict"),
    (frozenset(), "frozenset"), (object(), "object"), (("a", 1.0), "float"), (("a", (None,)), "NoneType"),
    ((b"",), "bytes"), (((("a", []),),), "list"), (str, "type"), (1j, "complex"),
]


@pytest.mark.parametrize(("key", "name"), BAD_KEYS, ids=[f"{name}-{index}" for index, (_, name) in enumerate(BAD_KEYS)])
def test_invalid_key_raises_an_error_that_names_its_type(kit, abc, key, name):
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


def test_key_nested_too_deeply_is_refused(kit, store):
    key = ()
    for _ in range(100_000):
        key = (key,)
    with pytest.raises(InvalidKeyError, match="deep"):
        store[key] = kit.value(1)
    assert len(store) == 0


def test_invalid_key_with_a_failing_repr_is_reported(store):
    class Nasty:
        def __repr__(self):
            raise RuntimeError

    with pytest.raises(InvalidKeyError, match="Nasty"):
        store[Nasty()]


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
