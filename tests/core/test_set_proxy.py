"""store.set: assignments, calls and augmented assignments inside a value."""

from __future__ import annotations

import copy
import pickle

import pytest

from tastypy_fast import (
    PersistentOrderedDictException,
    UnstorableValueError,
)
from tests.support.contract import ABC

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


def test_set_assigns_and_deletes(kit, store):
    store.set["a"] = kit.value(1)
    store.set["b"] = kit.value(2)
    del store.set["a"]
    assert kit.contents(store) == {"b": 2}


def test_set_changes_nested_values(kit, store, way):
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
def test_set_supports_every_augmented_assignment(kit, store, statement, expected):
    store["a"] = kit.value({"n": 7})
    place = "['a']" if kit.plain({"value": 0}) else "['a']['value']"
    exec(f"store.set{place}['n'] {statement}", {"store": store})
    assert kit.contents(store) == {"a": {"n": expected}}


def test_set_returns_the_result_of_a_method(kit, store, way):
    store["a"] = kit.value([1, 2])
    assert way(store.set["a"]).pop() == 2
    assert kit.plain(store.set.pop("a")) == [1]
    assert store.set.get("a", 5) == 5
    assert len(store) == 0


def test_set_calls_methods_of_the_store(kit, store):
    store.set.update(kit.pairs(ABC))
    store.set |= kit.pairs({"d": 4})
    store.set.clear()
    store.set.setdefault("e", kit.value(5))
    assert kit.contents(store) == {"e": 5}


def test_set_of_a_missing_key_raises_key_error(kit, store):
    with pytest.raises(KeyError):
        store.set["a"]["n"] += 1
    with pytest.raises(KeyError):
        del store.set["a"]
    assert len(store) == 0


def test_set_refuses_an_unstorable_value(kit, store, way):
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


def test_place_behind_set_used_as_a_value_raises(kit, abc):
    before = kit.contents(abc)
    for place in (abc.set, abc.set["a"], abc.set["a"]["x"][0], abc.set["missing"], abc.set["a"].x):
        for name, statement in AS_A_VALUE.items():
            with pytest.raises(TypeError, match=r"leave off \.set"):
                pytest.fail(f"{name}: {exec(statement, {'p': place, 'copy': copy, 'pickle': pickle})}")
    assert kit.contents(abc) == before


def test_repr_of_a_place_behind_set_shows_its_path(abc):
    place = abc.set["a"]["x"][0].y
    assert "['a']['x'][0].y" in repr(place)
    assert "leave off .set" in f"{place!r}"
    assert place is not None
    assert callable(place)


def test_place_behind_set_cannot_be_stored(kit, abc):
    before = kit.contents(abc)
    for use in (
        lambda: abc.set.__setitem__("a", kit.value(abc.set["b"])), lambda: abc.update(a=kit.value([abc.set["b"]])),
        lambda: abc.__setitem__("new", kit.value(abc.set["b"])), lambda: abc.__setitem__(abc.set["b"], kit.value(1)),
    ):
        with pytest.raises(PersistentOrderedDictException, match="SetProxy"):
            use()
    assert kit.contents(abc) == before


def test_set_itself_cannot_be_assigned(abc):
    with pytest.raises(AttributeError):
        abc.set = {}


def test_place_has_its_special_methods_and_no_other_attributes(kit, abc):
    place = abc.set["a"]
    assert type(place).__name__ == place.__class__.__name__ == "SetProxy"
    assert place.__doc__
    for name in ("__array__", "__fspath__", "__"):
        assert not hasattr(place, name)
        with pytest.raises(AttributeError, match=name):
            getattr(place, name)
    # All other names are steps, also those of the parts of a place.
    for name in ("steps", "apply", "at", "_x", "_"):
        assert repr(getattr(place, name)).startswith(f"<DeepProxy .set['a'].{name}:")


def test_call_behind_set_passes_all_arguments(kit, store, way):
    store["a"] = kit.value([1, 3, 2])
    way(store.set["a"]).sort(reverse=True)
    assert kit.contents(store) == {"a": [3, 2, 1]}
    store["a"] = kit.value({})
    way(store.set["a"]).update([("x", 1)], y=2)
    assert kit.contents(store) == {"a": {"x": 1, "y": 2}}
    with pytest.raises(TypeError):
        way(store.set["a"]).update(1, 2, 3)
    assert kit.contents(store) == {"a": {"x": 1, "y": 2}}


def test_end_of_a_long_path_does_not_overflow_the_stack(abc):
    place = abc.set["a"]
    for _ in range(200_000):
        place = place["x"]
    del place
    assert repr(abc.set["a"]["x"]).startswith("<DeepProxy .set['a']['x']")
