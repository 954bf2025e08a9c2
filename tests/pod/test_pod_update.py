"""update(), |= and init: what they accept, refuse and keep."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    InvalidKeyError,
)
from tests.support.contract import ABC

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


class WithItems:
    def __init__(self, pairs):
        self.pairs = pairs

    def items(self):
        return iter(self.pairs)


class WithIteritems(WithItems):
    iteritems = WithItems.items

    # iteritems() comes first, because the original uses it.
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
def test_update_accepts_mappings_and_pairs(kit, abc, source):
    abc.update(source(kit.pairs({"b": 20, "d": 4})))
    assert list(kit.contents(abc).items()) == [("a", 1), ("b", 20), ("c", 3), ("d", 4)]


@source
def test_init_accepts_mappings_and_pairs_and_overwrites(kit, abc, source):
    abc.close()
    again = kit.open(init=source(kit.pairs({"b": 20, "d": 4})))
    assert list(kit.contents(again).items()) == [("a", 1), ("b", 20), ("c", 3), ("d", 4)]


@source
def test_ior_accepts_mappings_and_pairs_and_keeps_the_object(kit, abc, source):
    before = abc
    abc |= source(kit.pairs({"b": 20, "d": 4}))
    assert abc is before
    assert kit.contents(abc) == {"a": 1, "b": 20, "c": 3, "d": 4}


def test_update_accepts_another_store(kit, abc):
    other = kit.open("other", init=kit.pairs({"b": 20, "d": 4}))
    abc.update(other)
    assert kit.contents(abc) == {"a": 1, "b": 20, "c": 3, "d": 4}
    assert kit.contents(other) == {"b": 20, "d": 4}


def test_update_with_itself_changes_nothing(kit, abc):
    abc.update(abc)
    assert list(kit.contents(abc).items()) == list(ABC.items())


def test_update_with_several_arguments_lets_the_rightmost_win(kit, store):
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
def test_update_refuses_arguments_without_pairs(abc, wrong, error):
    with pytest.raises(error):
        abc.update(wrong)
    assert abc.keys() == list(ABC)


def test_update_keeps_the_pairs_before_an_invalid_one(kit, abc):
    def pairs():
        yield "d", kit.value(4)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        abc.update(pairs())
    with pytest.raises(InvalidKeyError):
        abc.update([("e", kit.value(5)), (2.5, kit.value(0)), ("f", kit.value(6))])
    # Other processes see one operation of a shared store completely or not at all.
    assert kit.contents(abc) == (ABC if kit.is_shared else {**ABC, "d": 4, "e": 5})


def test_refused_init_leaves_the_store_closed(kit):
    with pytest.raises(InvalidKeyError):
        kit.open(init=[("a", kit.value(1)), (None, kit.value(2))])
    # An instance that is still open would refuse another file_size.
    assert kit.contents(kit.open(file_size=7)) == ({} if kit.is_shared else {"a": 1})


def test_default_init_is_not_shared_between_instances(kit):
    kit.open("one", init=kit.pairs({"a": 1}))
    assert len(kit.open("two")) == 0
