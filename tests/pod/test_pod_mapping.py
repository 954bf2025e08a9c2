"""Every store is an ordered mapping: get, set, delete, pop, order, equality."""

from __future__ import annotations

import collections
import types
import weakref
from collections.abc import Iterator, MutableMapping

import pytest

from tests.support.contract import ABC

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]

# A number of keys that needs several chunks of an iterator and several status blocks.
MANY = 1300


def test_class_is_a_mutable_mapping(store):
    assert isinstance(store, MutableMapping)


def test_empty_store_is_empty(store):
    assert len(store) == 0
    assert not store
    assert store.keys() == store.values() == store.items() == list(store) == list(reversed(store)) == []


def test_value_round_trips(kit, abc):
    assert [kit.plain(abc[key]) for key in ABC] == [1, 2, 3]
    assert abc
    assert len(abc) == 3


def test_missing_key_raises_key_error_with_the_key(abc):
    for ask in (abc.__getitem__, abc.__delitem__, abc.pop, abc.mark_dirty, abc.sync_key):
        with pytest.raises(KeyError) as caught:
            ask("z")
        assert caught.value.args == ("z",)


def test_in_finds_existing_keys_only(abc):
    assert "a" in abc
    assert "z" not in abc
    assert 1 not in abc
    assert ("a",) not in abc


def test_get_returns_the_value_or_the_default(kit, abc):
    assert kit.plain(abc.get("a")) == 1
    assert kit.plain(abc.get("a", 7)) == 1
    assert abc.get("z") is None
    assert abc.get("z", 7) == 7


def test_overwriting_keeps_the_position(kit, abc):
    abc["a"] = kit.value(9)
    assert kit.contents(abc) == {"a": 9, "b": 2, "c": 3}
    assert abc.keys() == ["a", "b", "c"]
    assert len(abc) == 3


def test_deleting_removes_only_its_key(abc):
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


def test_keys_values_and_items_return_lists_and_iter_methods_return_iterators(kit, abc):
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


def test_order_is_kept_over_many_chunks(kit):
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
def test_popitem_removes_from_either_end(kit, abc, last, order):
    taken = [abc.popitem(last) for _ in ABC]
    assert [key for key, _ in taken] == list(order)
    assert {key: kit.plain(value) for key, value in taken} == ABC
    with pytest.raises(KeyError):
        abc.popitem(last=last)
    assert len(kit.reopened(abc)) == 0


def test_popitem_removes_the_last_item_by_default(abc):
    assert abc.popitem()[0] == "c"


def test_pop_returns_the_value_or_the_default(kit, abc):
    assert kit.plain(abc.pop("b")) == 2
    assert abc.pop("b", None) is None
    assert abc.keys() == ["a", "c"]


def test_setdefault_sets_only_a_missing_key(kit, abc):
    assert kit.plain(abc.setdefault("a", kit.value(9))) == 1
    assert kit.plain(abc.setdefault("d", kit.value(4))) == 4
    assert kit.contents(abc) == {**ABC, "d": 4}


def test_clear_removes_all_keys(kit, abc):
    abc.clear()
    assert len(abc) == 0
    assert list(abc) == []
    abc["a"] = kit.value(5)
    assert kit.contents(kit.reopened(abc)) == {"a": 5}


def test_clear_removes_all_keys_of_a_store_of_many_chunks(kit):
    store = kit.open(init=kit.pairs(dict.fromkeys(range(MANY))), sync_at=400)
    store.clear()
    assert len(store) == 0
    assert len(kit.reopened(store)) == 0


def test_store_equals_a_mapping_with_the_same_items_in_any_order(kit, abc):
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


def test_union_and_copy_are_dicts(kit, abc):
    other = dict(kit.pairs({"b": 7, "d": 8}))
    for union, expected in [
        (abc | other, {"a": 1, "b": 7, "c": 3, "d": 8}), (other | abc, {"b": 2, "d": 8, "a": 1, "c": 3}),
        (abc | kit.open("other", init=other), {"a": 1, "b": 7, "c": 3, "d": 8}),
        (collections.OrderedDict(other) | abc, {"b": 2, "d": 8, "a": 1, "c": 3}),
        (types.MappingProxyType(other) | abc, {"b": 2, "d": 8, "a": 1, "c": 3}),
        (abc | {}, ABC), (abc.copy(), ABC),
    ]:
        assert type(union) is dict
        found = {key: kit.plain(value) for key, value in union.items()}
        assert list(found.items()) == list(expected.items())
    assert kit.contents(abc) == ABC
    for wrong in (list(other.items()), None, 3):
        with pytest.raises(TypeError):
            abc | wrong
        with pytest.raises(TypeError):
            wrong | abc


def test_union_in_place_changes_the_store(kit, abc):
    before = abc
    abc |= kit.pairs({"b": 7, "d": 8})
    assert abc is before
    assert kit.contents(abc) == {"a": 1, "b": 7, "c": 3, "d": 8}


def test_copy_shares_no_values_with_the_store(kit, store):
    store["a"] = kit.value([1])
    store.sync()
    kit.plain(store.copy()["a"]).append(2)
    assert store.dirty() == set()
    assert kit.contents(kit.reopened(store)) == {"a": [1]}


def test_store_is_not_hashable(store):
    with pytest.raises(TypeError):
        hash(store)


def test_dict_of_a_store_is_a_copy(kit, abc):
    plain = dict(abc)
    abc.clear()
    assert {key: kit.plain(value) for key, value in plain.items()} == ABC


def test_same_key_object_finds_what_its_key_has_now(kit, abc):
    """A key that is used again is not encoded again."""
    key = "".join(["a"])
    other = "".join(["a"])
    for name in (key, key, other):
        assert kit.plain(abc[name]) == ABC["a"]
    del abc[key]
    for name in (key, other, key):
        with pytest.raises(KeyError):
            abc[name]
    abc[key] = kit.value("new")
    assert kit.plain(abc[key]) == kit.plain(abc[other]) == "new"
    abc.sync()
    assert kit.plain(abc[key]) == "new"
    again = kit.reopened(abc)
    assert kit.plain(again[key]) == "new"
    assert kit.plain(again["b"]) == ABC["b"]
    assert kit.plain(again[key]) == "new"


def test_reading_keeps_no_reference_to_a_key_object(kit, abc):
    class Name(str):
        __slots__ = ("__weakref__",)

    key = Name("a")
    assert kit.plain(abc[key]) == ABC["a"]
    gone = weakref.ref(key)
    del key
    assert gone() is None
