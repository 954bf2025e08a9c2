"""What the shared classes promise, as far as one process can tell: ``.set``, blocks, saving, and who may join.

``kit`` runs a test with each of the two; ``kit.value(x)`` is what stores ``x`` there.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import ItemsView, KeysView, ValuesView
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
from lmdb.verify import verify

from tastypy_fast import (
    POD,
    CalledClosedTrackerError,
    DuplicateKeyError,
    InvalidKeyError,
    NotLockedError,
    ReadOnlyStoreError,
    SharedPOD,
    SharedTracker,
    StorageError,
    StoreConflictError,
    StoreKindError,
    Tracker,
    UnstorableValueError,
)
from tests.children import Child
from tests.conftest import is_tracker, kit_for
from tests.workers import apart

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

FRESH = {"_done": False, "_aborted": False, "_tries": 0}
ABC = {"a": 1, "b": 2, "c": 3}
LONG = "x" * 600


class Boom(Exception):
    """What the tests raise themselves."""


@pytest.fixture(params=[SharedPOD, SharedTracker], ids=["pod", "tracker"])
def shared_class(request):
    return request.param


@pytest.fixture
def kit(shared_class, tmp_path):
    yield from kit_for(shared_class, tmp_path)


@pytest.fixture
def abc(kit):
    """A store of ABC, synced."""
    store = kit.open(init=kit.pairs(ABC))
    store.sync()
    return store


@pytest.fixture
def elsewhere():
    """Call something in another thread, always the same one; what it returns."""
    with ThreadPoolExecutor(1) as executor:
        yield lambda work, *arguments: executor.submit(work, *arguments).result(30)


@pytest.fixture
def switching_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def together(*works):
    """Each in a thread of its own, at the same time; what they return."""
    with ThreadPoolExecutor(len(works)) as executor:
        return [future.result(60) for future in [executor.submit(work) for work in works]]


def place_of(kit, store, key):
    """Where the plain value of a key lies below ``.set``."""
    return store.set[key]["value"] if is_tracker(kit.cls) else store.set[key]


def listed(kit, store):
    """The plain values by key, as a list, so that the order counts."""
    return list(kit.contents(store).items())


# .set: as if it were done on a plain dict


NESTED = {"l": [3, 1, 2], "d": {"x": {"y": []}}, "s": "text", "n": 7, "deep": [[[0]]], "none": None}
BLOCKS = ["alone", "locked", "transaction", "lock"]


@contextlib.contextmanager
def block_of(store, kind):
    """A block of one of the kinds; ``alone`` is none."""
    if kind == "lock":
        store.lock()
        try:
            yield
        finally:
            store.unlock()
    else:
        with contextlib.nullcontext() if kind == "alone" else getattr(store, kind)():
            yield


class Place:
    """A plain value in a store, and in a plain dict beside it: ``x[K]`` in the statements below."""

    def __init__(self, kit, value):
        self.kit = kit
        self.store = kit.open()
        self.put(value)

    def put(self, value):
        self.value = value
        self.store.clear()
        self.store["k"] = self.kit.value(value)
        self.store["other"] = self.kit.value([0])

    def outcome(self, statement, **names):
        """Run a statement on the store: what its last expression gives, and what it raises."""
        if is_tracker(self.kit.cls):
            return outcome(statement, x=self.store.set["k"], K="value", **names)
        return outcome(statement, x=self.store.set, K="k", **names)

    def expected(self, statement, **names):
        """The same on the plain dict, and what is there then."""
        plain = {"k": copy.deepcopy(self.value)}
        return *outcome(statement, x=plain, K="k", **names), plain.get("k", "gone")

    def now(self):
        found = self.store.get("k", {})
        return found.get("value", "gone") if is_tracker(self.kit.cls) else found if "k" in self.store else "gone"


def outcome(statement, **names):
    found = None
    try:
        try:
            code = compile(statement, "<statement>", "eval")
        except SyntaxError:
            exec(statement, names)
        else:
            found = eval(code, names)
    except BaseException as error:
        return None, error
    # (a view of a dict is compared by what it shows)
    return list(found) if isinstance(found, (KeysView, ValuesView, ItemsView)) else found, None


STATEMENTS = [
    "x[K]['l'][0] = 'first'", "x[K]['l'][-1] = [1]", "x[K]['l'][1:] = 'ab'", "x[K]['l'][::2] = [8, 9]",
    "x[K]['l'][:] = []", "x[K]['l'][:] = (c for c in 'abc')", "x[K]['l'][1:1] = range(3)", "x[K]['l'][5:9] = [4]",
    "x[K]['l'][1:3] += [7]", "x[K]['l'][::-1] *= 1", "x[K]['l'][0] += 1", "x[K]['l'] += 'ab'", "x[K]['l'] *= 2",
    "x[K]['l'] += (c for c in 'ab')", "x[K]['l'] += ()", "x[K]['l'][1:3].append(5)", "x[K]['l'][0], x[K]['n'] = 5, 6",
    "del x[K]['l'][0]", "del x[K]['l'][-1]", "del x[K]['l'][::2]", "del x[K]['l'][:]", "del x[K]['d']['x']['y']",
    "del x[K]['l'], x[K]['d']", "[x[K]['l'].append(n) for n in range(3)]",
    "x[K]['l'].append([1, {}])", "x[K]['l'].extend(str(n) for n in range(3))", "x[K]['l'].extend(map(abs, [-1]))",
    "x[K]['l'].insert(0, None)", "x[K]['l'].insert(-1, None)", "x[K]['l'].sort()", "x[K]['l'].sort(reverse=True)",
    "x[K]['l'].sort(key=lambda n: -n)", "x[K]['l'].reverse()", "x[K]['l'].clear()", "x[K]['l'].pop()",
    "x[K]['l'].pop(0)", "x[K]['l'].remove(1)", "x[K]['l'].index(1)", "x[K]['l'].count(3)", "x[K]['l'].copy()",
    "x[K]['d']['new'] = {1: 2}", "x[K]['d'] |= {'x': 1, 'y': 2}", "x[K]['d'] |= [('y', 2)]",
    "x[K]['d'].update({'a': 1}, b=2)", "x[K]['d'].update([('a', 1), ('x', 2)])", "x[K]['d'].update(zip('ab', [1, 2]))",
    "x[K]['d'].setdefault('x', 5)", "x[K]['d'].setdefault('z', [])", "x[K]['d'].setdefault('z')",
    "x[K]['d'].pop('x')", "x[K]['d'].pop('z', 'default')", "x[K]['d'].popitem()", "x[K]['d'].clear()",
    "x[K]['d'].get('x')", "x[K]['d'].get('z', 1)", "x[K]['d'].keys()", "x[K]['d'].items()", "x[K]['d'].values()",
    "x[K]['d']['x']['y'].append('deep')", "x[K]['d']['x']['y'] += [1]", "x[K]['deep'][0][0][0] -= 1",
    "x[K]['deep'][0][0].append([])", "x[K]['deep'][0] = (1, (2,))", "x[K]['deep'][0][0][0:0] = 'ab'",
    "x[K]['s'] += ' more'", "x[K]['s'] *= 2", "x[K]['s'].upper()", "x[K]['s'].replace('t', 'T')",
    "x[K]['s'] %= ()", "x[K]['n'] //= 2", "x[K]['n'] <<= 70", "x[K]['none'] = True", "x[K]['n'].bit_length()",
    "x[K]['new'] = 1.5", "x[K] = None", "x[K] = [1]", "del x[K]", "x.pop(K)", "x.get(K)", "x.setdefault(K, 1)",
    "x.pop('nope', 5)", "x.update({K: 1})", "x.update([(K, 1)])", "x.update((name, [1]) for name in [K])",
    "x |= {K: 5}", "place = x[K]['l']; place.append(1); place[0] = 2; del place[1]; place += [3]",
    "append = x[K]['l'].append; append(4); append(5)",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_set_does_what_a_plain_dict_does(kit, statement):
    place = Place(kit, NESTED)
    expected, refused, value = place.expected(statement)
    assert refused is None
    for block in BLOCKS:
        with block_of(place.store, block):
            found, error = place.outcome(statement)
            assert error is None
        assert repr(found) == repr(expected)
        # (what is stored is JSON)
        assert place.now() == json.loads(json.dumps(value)), block
        assert kit.plain(place.store["other"]) == [0]
        place.put(NESTED)


OPERATORS = ["+=", "-=", "*=", "/=", "//=", "%=", "**=", "<<=", ">>=", "&=", "^=", "|=", "@="]
OPERANDS = [2, -3, 0, True, 0.5, "ab", [1], {"b": 2}, (1,), None]
TARGETS = [7, 2**70, -2.5, True, "text %s", "", [1, 2], [], {"a": 1}, {}, None]


@pytest.mark.parametrize("operator", OPERATORS)
def test_set_assigns_in_place_to_every_type_as_a_plain_dict_does(kit, operator):
    """The same result, or the same error and no change; also one level deeper."""
    place = Place(kit, None)
    for target, operand in itertools.product(TARGETS, OPERANDS):
        for value, way in ((target, "x[K]"), ([target], "x[K][0]"), ({"x": target}, "x[K]['x']")):
            place.store["k"], place.value = kit.value(value), value
            statement = f"{way} {operator} operand"
            _, refused, expected = place.expected(statement, operand=operand)
            _, error = place.outcome(statement, operand=operand)
            where = f"{statement} with {target!r} and {operand!r}"
            if "j)" in repr(expected):
                # (a root of a negative number)
                assert isinstance(error, UnstorableValueError), where
                expected = value
            else:
                assert (type(error), str(error)) == (type(refused), str(refused)), where
            assert repr(place.now()) == repr(value if refused else json.loads(json.dumps(expected))), where


def boom(*_):
    raise Boom


def interrupt(*_):
    raise KeyboardInterrupt


def later(values):
    """An iterator that has given some values when it raises."""
    yield from values
    raise Boom


# Some of these leave the plain object changed half.
REFUSED = [
    "x[K]['l'][9] = 1", "x[K]['l'][-9] += 1", "del x[K]['l'][9]", "x[K]['l'].pop(9)", "x[K]['l'].remove('nope')",
    "x[K]['l'].index('nope')", "x[K]['l']['x'] = 1", "x[K]['l'][::2] = [1]", "x[K]['l'][::0] = []", "x[K]['l'] += 5",
    "x[K]['l'][:] = 5", "x[K]['l'][0:2] += 5", "x[K]['l'].append()", "x[K]['l'].append(1, 2)", "x[K]['l'].extend(5)",
    "x[K]['l'].append(x=1)", "x[K]['l'].nope()", "x[K]['l']()", "x[K]['l'].sort(key=lambda n: 1 // (n - 1))",
    "x[K]['l'].sort(key=boom)", "x[K]['l'].sort(key=interrupt)", "x[K]['l'].sort(nope=1)",
    "x[K]['l'].extend(later([4, 5]))", "x[K]['l'] += later([4, 5])", "x[K]['l'][1:] = later([4])",
    "x[K]['l'] += [4] + boom()", "x[K]['d']['nope']['x'] = 1", "x[K]['d']['nope'] += 1", "del x[K]['d']['nope']",
    "x[K]['d'].pop('nope')", "x[K]['d']['x']['y']['z'] = 1", "x[K]['d'] -= {}", "x[K]['d'] |= 5",
    "x[K]['d'] |= [('a', 1), 5]", "x[K]['d'].update([('a', 1), ('b',)])", "x[K]['d'].update(later([('a', 1)]))",
    "x[K]['d'][[]] = 1", "x[K]['d'].update({'a': 1}, 5)", "x[K]['d']['x']['y'].popitem()",
    "x[K]['d']['x']['y'].pop()", "x[K]['s'][0] = 'x'", "x[K]['s'].append('x')", "x[K]['s'] += 1", "x[K]['s'] -= 'x'",
    "del x[K]['s'][0]", "x[K]['n']['x'] = 1", "x[K]['n'].append(1)", "x[K]['n'] /= 0", "x[K]['n'] <<= -1",
    "x[K]['n'] @= 2", "x[K]['none'] += 1", "x[K]['none']['x'] = 1", "x[K]['none'].append(1)", "x[K]['n'] += boom()",
    "x[K].nope()", "x['nope']['x'] = 1", "x['nope'] += 1", "del x['nope']", "x.pop('nope')", "x.nope()",
    "x.update([(K, 1), 5])", "x.update(later([(K, 1)]))", "x.update(5)", "x.pop()", "x.setdefault()",
    "x |= [(K, 1), 5]", "x |= later([(K, 1)])",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_exception_through_set_is_that_of_a_plain_dict_and_changes_nothing(kit, statement):
    place = Place(kit, NESTED)
    names = {"boom": boom, "later": later, "interrupt": interrupt}
    _, refused, _ = place.expected(statement, **names)
    assert refused is not None
    place.store.sync()
    for block in BLOCKS:
        dirty = place.store.dirty()
        with block_of(place.store, block):
            _, error = place.outcome(statement, **names)
            assert type(error) is type(refused)
            if statement.startswith("x[K]["):
                assert str(error) == str(refused)
            assert place.now() == NESTED
            assert place.store.dirty() == dirty
            place.store.set[block] = kit.value(1)
        assert kit.contents(place.store) == {"k": NESTED, "other": [0], **dict.fromkeys(dirty, 1), block: 1}


UNSTORABLE = [
    "x[K]['l'].append(bad)", "x[K]['l'][0] = [bad]", "x[K]['l'][:] = [1, bad]", "x[K]['l'] += [bad]",
    "x[K]['l'].extend(part for part in [1, bad])", "x[K]['d']['new'] = bad", "x[K]['d'].update(a=1, b=bad)",
    "x[K]['d'].setdefault('new', {'in': bad})", "x[K]['d'] |= {'new': bad}", "x[K]['deep'][0][0][0] = bad",
    "x[K] = bad", "x[K] = {'a': [1, bad]}", "x.update({K: 1, 'b': bad})", "x.setdefault('new', bad)",
    "x |= {K: 1, 'b': bad}",
]
BAD = [{1}, b"x", 1j, object(), {"a": {(1, 2): 3}}, {1: 0, "1": 0}, [boom]]


@pytest.mark.parametrize("statement", UNSTORABLE)
def test_unstorable_value_through_set_is_told_and_changes_nothing(kit, statement):
    place = Place(kit, NESTED)
    place.store.sync()
    for bad, block in itertools.product(BAD, BLOCKS):
        with block_of(place.store, block):
            _, error = place.outcome(statement, bad=bad)
            assert isinstance(error, UnstorableValueError)
            assert isinstance(error, TypeError)
            assert place.now() == NESTED
            assert place.store.dirty() == set()
        assert kit.contents(place.store) == {"k": NESTED, "other": [0]}


@pytest.mark.parametrize("statement", [
    "x[1.5] = {}", "x[None]['a'] = 1", "x[b'a'] += 1", "del x[('a', 1.5)]", "x[[]].append(1)", "x.pop({})",
    "x.update([('a', {}), (1.5, {})])", "x |= [('a', {}), (1.5, {})]",
])
def test_bad_key_through_set_is_told_and_changes_nothing(kit, abc, statement):
    for block in BLOCKS:
        with block_of(abc, block):
            _, error = outcome(statement, x=abc.set)
            assert isinstance(error, InvalidKeyError)
            assert abc.dirty() == set()
        assert kit.contents(abc) == ABC


def test_set_reaches_a_status_as_any_part_of_a_task(tmp_path):
    with SharedTracker(tmp_path / "tracker", init={"t": {"x": 1}}) as tracker:
        tracker.set["t"]["_tries"] += 3
        tracker.set["t"]["_done"] = True
        tracker.set["t"].update(_aborted=True, y=[])
        assert (tracker.tries("t"), tracker.done("t"), tracker.aborted("t")) == (3, True, True)
        assert (tracker.num_tried(), tracker.num_done(), tracker.num_aborted()) == (1, 1, 1)
        for name, bad in [("_tries", "x"), ("_done", 2), ("_aborted", None)]:
            with pytest.raises(UnstorableValueError, match=name):
                tracker.set["t"][name] = bad
        with pytest.raises(UnstorableValueError, match="dict"):
            tracker.set["t"] = [1]
        assert tracker["t"] == {"_done": True, "_aborted": True, "_tries": 3, "x": 1, "y": []}
        del tracker.set["t"]["_done"]
        assert tracker["t"]["_done"] is False
        tracker.set["t"].clear()
        assert tracker["t"] == FRESH
        tracker._check()


def test_set_of_a_tracker_mixes_in_as_its_update_does(tmp_path):
    with SharedTracker(tmp_path / "tracker", init={"t": {"x": 1, "_tries": 2}}) as tracker:
        tracker.set |= {"t": {"y": 2}, "new": {}}
        tracker.set.update(t={"z": 3})
        tracker.set["t"] |= {"x": 5}
        assert tracker.items() == [("t", {**FRESH, "_tries": 2, "x": 5, "y": 2, "z": 3}), ("new", FRESH)]


METHODS_OF_A_TRACKER = [
    ("add", "new"), ("add_if_absent", "new"), ("add_many", ["new", "newer"]), ("add_many_if_absent", ["a", "new"]),
    ("mark_done", "a"), ("mark_not_done", "a"), ("abort", "a"), ("unabort", "a"), ("increment_tries", "a"),
    ("decrement_tries", "a"), ("reset_tries", "a"), ("mark_done_many", ["a", "b"]), ("should_do_add", "new"),
    ("should_try", "a"), ("should_try_add", "new"), ("done", "a"), ("tries", "a"), ("num_done",), ("percent_done", 0),
    ("claimed_keys",), ("release", "a"), ("add", "a"), ("mark_done", "nope"), ("mark_done_many", ["a", "nope"]),
    ("add_many", ["new", "a"]),
]


@pytest.mark.parametrize(("name", "arguments"), [(name, given) for name, *given in METHODS_OF_A_TRACKER], ids=str)
def test_method_of_a_tracker_does_the_same_through_set(tmp_path, name, arguments):
    results = []
    for way in (lambda tracker: tracker, lambda tracker: tracker.set):
        with SharedTracker(tmp_path / str(len(results)), init={"a": {"_done": True}, "b": {}}) as tracker:
            try:
                found = getattr(way(tracker), name)(*arguments)
            except (KeyError, DuplicateKeyError) as error:
                found = type(error), str(error)
            results.append((found, tracker.items(), tracker.claimed_keys()))
    assert results[0] == results[1]


METHODS = [
    ("pop", "a"), ("pop", "z", 5), ("popitem",), ("popitem", False), ("clear",), ("mark_dirty", "a"), ("get", "a"),
    ("keys",), ("values",), ("items",), ("dirty",), ("sync",), ("sync_key", "a"), ("revert",), ("hold",), ("unhold",),
    ("setdefault", "new", {}), ("update", [("a", {})]), ("update",), ("pop", "z"), ("sync_key", "z"), ("close",),
]


@pytest.mark.parametrize(("name", "arguments"), [(name, given) for name, *given in METHODS], ids=str)
def test_method_of_a_store_does_the_same_through_set(kit, name, arguments):
    results = []
    for way in (lambda store: store, lambda store: store.set):
        store = kit.open(str(len(results)), init=kit.pairs(ABC))
        store.sync()
        store["c"] = kit.value("changed")
        try:
            found = getattr(way(store), name)(*arguments)
        except KeyError as error:
            found = type(error), str(error)
        closed = store.closed
        again = kit.open(str(len(results)))
        results.append((found, closed, again.items(), again.dirty()))
        again.revert()
        results[-1] += (again.items(),)
    assert results[0] == results[1]


def test_blocks_may_be_asked_for_through_set(kit, abc):
    with abc.set.locked() as entered:
        assert entered is abc
        abc["a"] = kit.value(10)
    with contextlib.suppress(Boom), abc.set.transaction():
        abc["a"] = kit.value(20)
        raise Boom
    assert kit.plain(abc["a"]) == 10


def test_lock_in_the_middle_of_an_operation_is_refused_and_holds_up_nobody(kit, elsewhere):
    store = kit.open(init=kit.pairs({"l": [2, 1]}))
    place = place_of(kit, store, "l")
    for use in (store.set.lock, lambda: place.sort(key=lambda number: store.lock())):
        with pytest.raises(NotLockedError):
            use()
        with pytest.raises(NotLockedError):
            store.unlock()
        elsewhere(store.update, {"a": {}})
    assert kit.plain(store["l"]) == [2, 1]


def test_iterator_as_an_argument_may_use_the_store_itself(kit):
    store = kit.open(init=kit.pairs({"l": [], "m": [1], 5: []}))
    place = place_of(kit, store, "l")
    place.extend(store)
    place.extend(len(kit.plain(value)) for value in store.itervalues())
    assert kit.plain(store["l"]) == ["l", "m", 5, 3, 1, 0]

    def keys():
        for number in range(3):
            store["new", number] = kit.value([])
            yield f"{len(store)} keys"

    place.extend(keys())
    assert kit.plain(store["l"])[-3:] == ["4 keys", "5 keys", "6 keys"]
    store.set.update((("more", key), value) for key, value in store.items())
    assert len(store) == 12


def test_callable_as_an_argument_is_a_part_of_the_operation(kit):
    store = kit.open(init=kit.pairs({"l": [3, 1, 2], "order": [2, 3, 1], "calls": 0}))

    def rank(number):
        store["calls"] = kit.value(kit.plain(store["calls"]) + 1)
        if number == 2 and store.get("fails"):
            raise Boom
        return kit.plain(store["order"]).index(number)

    place_of(kit, store, "l").sort(key=rank)
    assert kit.contents(store) == {"l": [2, 3, 1], "order": [2, 3, 1], "calls": 3}
    store["fails"] = kit.value(True)
    with pytest.raises(Boom):
        place_of(kit, store, "l").sort(key=rank)
    assert kit.contents(store) == {"l": [2, 3, 1], "order": [2, 3, 1], "calls": 3, "fails": True}


def test_what_is_given_to_set_or_returned_by_it_is_not_watched(kit):
    store = kit.open(init=kit.pairs({"d": {"in": [1]}}))
    place = place_of(kit, store, "d")
    given = [0]
    place["given"] = given
    given.append(1)
    for returned in (place.setdefault("in", []), place.get("in"), place.setdefault("new", [1]), place["in"].copy()):
        returned.append("lost")
    assert kit.plain(store["d"]) == {"in": [1], "given": [0], "new": [1]}


def test_reading_through_set_gives_no_value_and_changes_nothing(kit, abc):
    proxy = abc.set["a"]["x"][0]
    assert "['a']['x'][0]" in repr(proxy)
    assert repr(abc.set["nope"].method) == f"{proxy!r}".replace("['a']['x'][0]", "['nope'].method")
    uses = [
        iter, len, int, list, abs, reversed, copy.copy, pickle.dumps, lambda proxy: "x" in proxy,
        lambda proxy: proxy + 1, lambda proxy: proxy < 1, lambda proxy: [*proxy], lambda proxy: proxy[0]["x"].y + 1,
        lambda proxy: kit.open("other").update({"a": proxy}),
    ]
    for use in uses:
        with pytest.raises(TypeError):
            use(proxy)
    for name in ("__class_getitem__", "__array__", "__next__"):
        assert not hasattr(proxy, name)
    assert kit.contents(abc) == ABC
    assert abc.dirty() == set()


def test_set_itself_and_its_attributes_cannot_be_assigned(kit, abc):
    def assign_result():
        abc.set = abc.set.update({})

    def assign_attribute():
        abc.set["a"].x = 1

    for use in (assign_result, assign_attribute, lambda: setattr(abc, "set", {"a": 1})):
        with pytest.raises(AttributeError):
            use()
    assert kit.contents(abc) == ABC


def test_name_for_a_place_may_be_used_on_after_an_assignment_in_place(kit):
    store = kit.open(init=kit.pairs({"l": []}))
    place = place_of(kit, store, "l")
    place += [1]
    place += [2]
    place.append(3)
    place[0] *= 5
    assert kit.plain(store["l"]) == [5, 2, 3]


def test_way_below_set_holds_for_what_is_there_when_it_is_used(kit):
    store = kit.open(init=kit.pairs({"l": [1]}))
    place = place_of(kit, store, "l")
    store["l"] = kit.value([2])
    place.append(3)
    assert kit.plain(store["l"]) == [2, 3]
    del store["l"]
    with pytest.raises(KeyError):
        place.append(4)
    store.close()
    with pytest.raises(CalledClosedTrackerError):
        place.append(5)


# Reading gives a copy


READS = {
    "keying": lambda store: store["k"],
    "get": lambda store: store.get("k"),
    "setdefault": lambda store: store.setdefault("k", {}),
    "values": lambda store: store.values()[0],
    "items": lambda store: store.items()[0][1],
    "itervalues": lambda store: next(store.itervalues()),
    "iteritems": lambda store: next(store.iteritems())[1],
    "dict": lambda store: dict(store)["k"],
    "through set": lambda store: store.set.get("k"),
}
READS_OF_A_TRACKER = READS | {
    "todo_values": lambda store: next(store.todo_values()),
    "todo_items": lambda store: next(store.todo_items())[1],
    "try_values": lambda store: next(store.try_values()),
    "try_items": lambda store: next(store.try_items(batch=2))[1],
    "aborted_values": lambda store: next(store.aborted_values()),
    "aborted_items": lambda store: next(store.aborted_items())[1],
}


@pytest.mark.parametrize(("cls", "read"), [
    *((SharedPOD, name) for name in READS), *((SharedTracker, name) for name in READS_OF_A_TRACKER),
], ids=str)
def test_what_was_read_is_a_copy(tmp_path, cls, read):
    value = {"l": [1], "d": {}, **({"_aborted": read.startswith("aborted")} if cls is SharedTracker else {})}
    with cls(tmp_path / "store", init={"k": value}) as store:
        store.sync()
        for number, block in enumerate([*BLOCKS, "locked"]):
            with block_of(store, block):
                if number == len(BLOCKS):
                    store["k"] = {**value, "l": ["changed in the block"]}
                found = READS_OF_A_TRACKER[read](store)
                expected, dirty = store["k"], store.dirty()
                assert found == expected
                found["l"].append("lost")
                found["d"]["lost"] = found["lost"] = 1
                if cls is SharedTracker:
                    found.update(_done=True, _tries=7)
                assert store["k"] == expected
                assert store.dirty() == dirty
            assert store["k"] == expected
        store.sync()
        assert store["k"] == expected
        store._check()


# Blocks


KINDS = ["locked", "transaction", "lock"]
NESTINGS = [kinds for depth in (1, 2, 3) for kinds in itertools.product(KINDS, repeat=depth)]


class Nested:
    """Blocks inside of one another, an exception from the innermost, and what is to be there at each point."""

    def __init__(self, kit, store, elsewhere, kinds, caught_at):
        self.kit = kit
        self.store = store
        self.elsewhere = elsewhere
        self.kinds = kinds
        # How many blocks are still open where the exception is caught; None: there is none.
        self.caught_at = caught_at
        self.model = kit.contents(store)
        self.outside = dict(self.model)

    def change(self, *name):
        """A new key, a change by assigning, one in place and a deletion."""
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
        self.elsewhere(self.look_from_outside)

    def look_from_outside(self):
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
def test_blocks_keep_and_undo_what_they_say(kit, elsewhere, kinds):
    store = kit.open(init=kit.pairs({"first": 0, "numbers": [], "last": None}))
    for caught_at in [None, *range(len(kinds) + 1)]:
        with contextlib.suppress(Boom):
            Nested(kit, store, elsewhere, kinds, caught_at).run()
        with pytest.raises(NotLockedError):
            store.unlock()
        # Nothing of it holds up another thread.
        elsewhere(store.__setitem__, "first", kit.value(0))
    store._check()


def everything(store):
    """What each way of reading gives."""
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
def test_block_is_seen_whole_or_not_at_all(kit, abc, elsewhere, ends):
    """By the thread that is in it at once, by others when it has ended."""
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
        assert elsewhere(everything, abc) == before
        if ends == "undone":
            raise Boom
    assert everything(abc) == elsewhere(everything, abc) == (inside if ends == "kept" else before)


def test_other_instance_of_the_process_is_in_the_same_block(kit, abc, elsewhere):
    other = kit.open()
    with abc.locked():
        abc["a"] = kit.value(10)
        assert kit.plain(other["a"]) == 10
        with other.transaction():
            other["b"] = kit.value(20)
        assert elsewhere(kit.contents, other) == ABC
    assert kit.contents(abc) == {"a": 10, "b": 20, "c": 3}


def test_blocks_of_two_stores_are_apart(kit, abc):
    other = kit.open("other")
    with abc.locked(), contextlib.suppress(Boom), other.transaction():
        abc["a"] = other["a"] = kit.value(10)
        raise Boom
    assert (kit.plain(abc["a"]), len(other)) == (10, 0)
    with other.locked(), pytest.raises(NotLockedError):
        abc.unlock()


@pytest.mark.parametrize("kind", ["locked", "transaction"])
def test_block_gives_the_store_and_may_be_used_again(kit, abc, kind):
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
def test_block_that_is_left_early_is_kept(kit, abc, kind):
    def leave():
        for _ in range(3):
            with getattr(abc, kind)():
                abc.pop("a", None)
                return

    leave()
    assert kit.contents(abc) == {"b": 2, "c": 3}


def test_block_in_a_generator_ends_with_it(kit, abc, elsewhere):
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
        assert elsewhere(lambda: kit.plain(abc["a"])) == expected
        abc["a"] = kit.value(1)


def test_lock_belongs_to_the_thread(kit, abc, elsewhere):
    abc.lock()
    abc.lock()
    with pytest.raises(NotLockedError, match="lock"):
        elsewhere(abc.unlock)
    abc.unlock()
    abc["a"] = kit.value(10)
    assert elsewhere(kit.contents, abc) == ABC
    abc.unlock()
    assert elsewhere(lambda: kit.plain(abc["a"])) == 10
    with pytest.raises(NotLockedError):
        abc.unlock()


@pytest.mark.parametrize("kind", ["locked", "transaction"])
def test_unlock_ends_no_other_block(kit, abc, elsewhere, kind):
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
    assert elsewhere(lambda: kit.plain(abc["b"])) == 20


@pytest.mark.parametrize("kinds", [kinds for kinds in NESTINGS if len(kinds) < 3], ids=" ".join)
@pytest.mark.parametrize("fails", [False, True])
def test_closing_ends_the_blocks_and_keeps_them(kit, elsewhere, kinds, fails):
    """What comes after it in the block is another matter; an exception comes out as it is."""
    store, other = kit.open(), kit.open()

    def work():
        with contextlib.ExitStack() as stack:
            for kind in kinds:
                store.lock() if kind == "lock" else stack.enter_context(getattr(store, kind)())
            store["a"] = kit.value(1)
            store.close()
            assert elsewhere(kit.contents, other) == {"a": 1}
            with pytest.raises(CalledClosedTrackerError):
                store["b"] = kit.value(2)
            # (a block of its own, which the end of the first ones leaves alone)
            other.lock()
            other["c"] = kit.value(3)
            if fails:
                raise Boom

    with contextlib.suppress(Boom):
        work()
    assert elsewhere(kit.contents, other) == {"a": 1}
    other.unlock()
    assert elsewhere(kit.contents, other) == {"a": 1, "c": 3}


def test_block_of_a_closed_store_is_refused(kit, abc):
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
def test_operation_that_fails_leaves_nothing_and_costs_its_block_nothing(tmp_path, cls, name):
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


def test_sync_inside_of_a_block_that_is_undone_is_undone(kit, abc):
    abc["a"] = kit.value(10)
    with contextlib.suppress(Boom), abc.transaction():
        abc["b"] = kit.value(20)
        abc.sync()
        assert abc.dirty() == set()
        raise Boom
    assert abc.dirty() == {"a"}
    abc.revert()
    assert kit.contents(abc) == ABC


def test_sync_inside_of_a_block_counts_when_the_block_ends(kit, abc):
    with abc.locked():
        abc["a"] = kit.value(10)
        abc.sync()
        abc["b"] = kit.value(20)
    abc.revert()
    assert kit.contents(abc)["a"] == 10


@pytest.mark.parametrize("change", ["hold", "revert", "sync_key", "clear"])
def test_block_that_is_undone_undoes_it(kit, change):
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


def test_store_syncs_by_itself_when_a_block_ends_and_not_before(kit):
    store = kit.open(sync_at=3)
    with store.locked():
        for number in range(10):
            store[number] = kit.value(number)
        assert store.dirty() == set(range(10))
    assert store.dirty() == set()


# Threads


THREADS = 4


def instances_for_threads(kit, one=False):
    """One instance for each thread, or for all of them."""
    first = kit.open()
    return [first if one else kit.open() for _ in range(THREADS)]


@pytest.mark.parametrize("one", [True, False], ids=["one instance", "an instance each"])
@pytest.mark.usefixtures("switching_often")
def test_threads_that_add_in_place_lose_nothing(kit, one):
    stores = instances_for_threads(kit, one)
    stores[0].update(kit.pairs({"n": 0, "deep": {"l": [0]}, "text": ""}))

    def work(thread):
        store = stores[thread]
        for _ in range(100):
            number, text = place_of(kit, store, "n"), place_of(kit, store, "text")
            number += 1
            text += str(thread)
            place_of(kit, store, "deep")["l"][0] += 1
            if is_tracker(kit.cls):
                store.increment_tries("n")

    together(*(partial(work, thread) for thread in range(THREADS)))
    found = kit.contents(stores[0])
    assert (found["n"], found["deep"]) == (100 * THREADS, {"l": [100 * THREADS]})
    assert sorted(found["text"]) == sorted("0123" * 100)
    if is_tracker(kit.cls):
        assert stores[0].tries("n") == 100 * THREADS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("switching_often")
def test_nobody_comes_between_the_operations_of_a_block(kit, kind):
    stores = instances_for_threads(kit)
    stores[0].update(kit.pairs({"n": 0, "log": []}))

    def work(thread):
        store = stores[thread]
        place = place_of(kit, store, "log")
        for _ in range(25):
            with block_of(store, kind):
                place.append(thread)
                number = kit.plain(store["n"])
                for part in range(3):
                    assert kit.plain(store["n"]) == number + part
                    store["n"] = kit.value(number + part + 1)
                place.append(thread)

    together(*(partial(work, thread) for thread in range(THREADS)))
    found = kit.contents(stores[0])
    assert found["n"] == 3 * 25 * THREADS
    assert found["log"][::2] == found["log"][1::2]
    assert sorted(found["log"]) == sorted(list(range(THREADS)) * 50)


def test_writer_waits_for_the_end_of_a_block_and_a_reader_does_not(kit, abc):
    begun, written = threading.Event(), []

    def write():
        begun.set()
        abc.set["a"] = kit.value("last")
        written.append(kit.contents(abc))

    thread = threading.Thread(target=write)
    with abc.locked():
        abc["b"] = kit.value("first")
        thread.start()
        assert begun.wait(30)
        for _ in range(200):
            assert together(partial(kit.contents, abc)) == [ABC]
        assert not written
        abc["a"] = kit.value("in the block")
    thread.join(30)
    assert written == [{"a": "last", "b": "first", "c": 3}]


@pytest.mark.usefixtures("switching_often")
def test_readers_see_transfers_as_a_whole_and_nothing_of_those_that_fail(kit, seed):
    stores = instances_for_threads(kit)
    stores[0].update(kit.pairs(dict.fromkeys(range(5), 100)))
    ended = threading.Event()

    def transfer(thread):
        rng, store = random.Random(seed + thread), stores[thread]
        for _ in range(60):
            with contextlib.suppress(Boom), store.transaction():
                source, target = rng.sample(range(5), 2)
                store[source] = kit.value(kit.plain(store[source]) - 30)
                store[target] = kit.value(kit.plain(store[target]) + 30)
                if kit.plain(store[source]) < 0:
                    raise Boom

    def watch():
        times = 0
        while not ended.is_set() or not times:
            amounts = [kit.plain(value) for value in stores[0].values()]
            assert sum(amounts) == 500
            assert min(amounts) >= 0
            times += 1

    def work():
        try:
            together(*(partial(transfer, thread) for thread in range(3)))
        finally:
            ended.set()

    together(work, watch)
    assert sum(kit.contents(stores[0]).values()) == 500


# Iterators


def walk(kit, store, kind):
    """A running loop over pairs, of which keys or values only have the other part None."""
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
def test_loop_runs_across_the_begin_and_the_end_of_a_block(kit, kind, block, count):
    """It sees what the block adds and deletes, there and afterwards."""
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
def test_loop_that_began_in_a_block_goes_on_after_it(kit, kind):
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
def test_loop_comes_to_what_is_added_after_an_undone_part(kit, kind, ends):
    """However far it had come in what was undone."""
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
def test_loop_comes_to_what_a_revert_brings_back_ahead_of_it(kit, loop, by, what):
    """Though it had read what comes next before."""
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
    # (backwards, what was moved was handed out at its place at the end)
    expected = {"reversed": ["c", "b", "a"]}.get(loop, ["a", "b", "c"])
    assert seen + list(running) == (["b", *expected] if loop == "reversed" and what == "moved" else expected)
    store._check()


def test_loop_that_has_ended_stays_at_its_end_in_a_block(kit):
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


def test_backward_loop_runs_across_blocks(kit):
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


def test_loop_of_another_thread_sees_only_what_is_committed(kit, elsewhere):
    store = kit.open(init=kit.pairs({number: number for number in range(5)}))
    loop = store.iteritems()
    seen = [elsewhere(next, loop)]
    with store.locked():
        del store[2]
        store[1] = kit.value("changed")
        store["new"] = kit.value("new")
        seen += [elsewhere(next, loop), elsewhere(next, loop)]
    seen += elsewhere(list, loop)
    assert [(key, kit.plain(value)) for key, value in seen] == [*((n, n) for n in range(5)), ("new", "new")]


def test_loop_may_be_handed_from_a_block_to_another_thread(kit, elsewhere):
    """Each step sees what its own thread sees."""
    store = kit.open(init=kit.pairs({number: number for number in range(4)}))
    loop = iter(store)
    with store.locked():
        assert next(loop) == 0
        del store[1], store[2]
        store["new"] = kit.value("new")
        assert elsewhere(next, loop) == 1
        assert next(loop) == 3
        assert elsewhere(next, loop, "the end") == "the end"


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


def test_block_within_each_step_of_a_loop(kit):
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


def test_lists_are_from_one_moment(kit, switching_often):
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

    together(write, read, read)


# Saving


def test_instances_of_a_process_have_one_hold_and_one_saved_state(kit):
    one, other = kit.open(sync_at=2), kit.open(sync_at=2)
    one.hold()
    for number in range(5):
        other[number] = kit.value(number)
    assert one.dirty() == other.dirty() == set(range(5))
    other.revert()
    assert len(other) == 0
    other.unhold()
    other["a"] = kit.value(1)
    assert other.dirty() == {"a"}
    other["b"] = kit.value(1)
    assert other.dirty() == set()


def test_unhold_in_a_block_syncs_when_the_block_ends(kit):
    store, other = kit.open(sync_at=2), kit.open(sync_at=100)
    for last in (True, False):
        store.hold()
        store.update(kit.pairs({"a": last, "b": last}))
        with store.locked():
            store["c"] = kit.value(last)
            store.unhold()
            if not last:
                # (an automatic sync is due by the threshold of who has changed something last)
                store["d"] = kit.value(1)
        assert other.dirty() == set()
        other.revert()
        assert kit.contents(other)["c"] is last


def test_unhold_in_a_block_that_is_undone_is_undone(kit):
    store = kit.open(sync_at=2)
    store.hold()
    store.update(kit.pairs({"a": 1, "b": 1}))
    with contextlib.suppress(ZeroDivisionError), store.transaction():
        store.unhold()
        raise ZeroDivisionError
    store["c"] = kit.value(1)
    assert store.dirty() == {"a", "b", "c"}
    store.unhold()
    assert store.dirty() == set()


def test_closing_an_instance_syncs_and_ends_no_hold(kit):
    one, other = kit.open(sync_at=1), kit.open(sync_at=1)
    one.hold()
    other["a"] = kit.value(1)
    one.close()
    assert other.dirty() == set()
    other["b"] = kit.value(2)
    assert other.dirty() == {"b"}


def test_hold_ends_when_nobody_has_the_store_open(kit):
    store, other = kit.open(), kit.open()
    store.hold()
    store.close()
    other.close()
    again = kit.open(sync_at=1)
    again["a"] = kit.value(1)
    assert again.dirty() == set()


def test_each_instance_has_its_own_sync_at(kit):
    patient, hasty = kit.open(sync_at=100), kit.open(sync_at=4)
    for number in range(3):
        hasty[number] = kit.value(number)
    for number in range(10):
        patient[number] = kit.value("patient")
    assert hasty.dirty() == set(range(10))
    hasty[0] = kit.value("hasty")
    assert patient.dirty() == set()


def test_every_kind_of_change_counts_towards_sync_at(kit):
    changes = [
        lambda: store.__setitem__("a", kit.value(10)), lambda: store.__delitem__("b"), lambda: store.mark_dirty("c"),
        lambda: store.update(kit.pairs({"new": 1})), lambda: store.set.update(kit.pairs({"newer": 1})),
    ]
    store = kit.open(init=kit.pairs(ABC), sync_at=len(changes))
    store.sync()
    for number, change in enumerate(changes, 1):
        change()
        assert len(store.dirty()) == number % len(changes)


def change_value(kit, store):
    store["a"] = kit.value("changed")


def add(kit, store):
    store["new"] = kit.value("new")


def delete(kit, store):
    del store["a"]


def delete_and_add(kit, store):
    del store["a"]
    store["a"] = kit.value("again")


def add_and_delete(kit, store):
    store["new"] = kit.value("new")
    del store["new"]


def change_and_delete(kit, store):
    store["a"] = kit.value("changed")
    del store["a"]


def replace_twice(kit, store):
    for number in range(2):
        del store["a"], store["b"]
        store["b"] = kit.value(number)
        store["a"] = kit.value(number)


def clear(kit, store):
    store.clear()


def clear_and_fill(kit, store):
    store.clear()
    store.update(kit.pairs({"c": 3, "a": 1, LONG: 0}))


def change_through_set(kit, store):
    store.set.update(kit.pairs({"a": [1]}))
    place_of(kit, store, "a")[0] = 5


def pop_both_ends(kit, store):
    store.popitem()
    store.popitem(last=False)


def mark_dirty(kit, store):
    store.mark_dirty("a")


def change_back(kit, store):
    value = store["a"]
    store["a"] = kit.value("changed")
    store["a"] = value


CHANGES = {
    change_value: {"a"}, add: {"new"}, delete: {"a"}, delete_and_add: {"a"}, add_and_delete: set(),
    change_and_delete: {"a"}, replace_twice: {"a", "b"}, clear: {"a", "b", LONG},
    clear_and_fill: {"a", "b", "c", LONG}, change_through_set: {"a"}, pop_both_ends: {"a", LONG}, mark_dirty: {"a"},
    change_back: {"a"},
}
SAVED = {"a": 1, "b": [2], LONG: {"x": 3}}
changes = pytest.mark.parametrize(
    ("change", "dirty"), CHANGES.items(), ids=[change.__name__ for change in CHANGES]
)


def saved_store(kit):
    store = kit.open(init=kit.pairs(SAVED))
    store.sync()
    return store


@changes
def test_revert_brings_back_what_the_last_sync_left(kit, change, dirty):
    store, other = saved_store(kit), kit.open()
    for block, reverts_inside in itertools.product(BLOCKS, [False, True]):
        with block_of(store, block):
            change(kit, store)
            assert other.dirty() == dirty
            if reverts_inside:
                other.revert()
                assert listed(kit, store) == list(SAVED.items())
        assert other.dirty() == (set() if reverts_inside else dirty)
        other.revert()
        assert listed(kit, store) == list(SAVED.items())
        assert store.dirty() == set()
    store._check()
    change(kit, store)
    expected = listed(kit, store)
    other.close()
    assert listed(kit, kit.reopened(store)) == expected


@changes
@pytest.mark.parametrize("key", ["a", "b", LONG, "new"])
def test_sync_key_saves_one_of_the_changes(kit, change, dirty, key):
    store = saved_store(kit)
    change(kit, store)
    now = kit.contents(store)
    if key not in now and key not in SAVED:
        with pytest.raises(KeyError):
            store.sync_key(key)
        return
    store.sync_key(key)
    assert store.dirty() == dirty - {key}
    store.revert()
    expected = dict(SAVED)
    expected.pop(key, None)
    if key in now:
        expected[key] = now[key]
    assert kit.contents(store) == expected
    assert store.dirty() == set()
    assert [other for other in store if other != key] == [other for other in SAVED if other != key]
    store._check()


@changes
def test_sync_makes_changes_what_revert_comes_back_to(kit, change, dirty):
    store = saved_store(kit)
    change(kit, store)
    store.sync()
    saved = listed(kit, store)
    for again in CHANGES:
        store["a"], store["b"] = kit.value(1), kit.value(2)
        again(kit, store)
        store.revert()
        assert listed(kit, store) == saved, again.__name__
    store._check()


STATUS_CHANGES = {
    "mark_done": lambda tracker: tracker.mark_done("open"),
    "mark_not_done": lambda tracker: tracker.mark_not_done("done"),
    "abort": lambda tracker: tracker.abort("open"),
    "unabort": lambda tracker: tracker.unabort("aborted"),
    "tries": lambda tracker: [tracker.increment_tries(key) for key in tracker],
    "reset": lambda tracker: tracker.reset_tries("tried"),
    "by keying": lambda tracker: tracker.set["open"].update(_done=True, _tries=5, x=1),
    "data and then status": lambda tracker: (tracker.update(open={"x": 2}), tracker.mark_done("open")),
    "status and then data": lambda tracker: (tracker.mark_done("open"), tracker.update(open={"x": 2})),
    "status and then deleted": lambda tracker: (tracker.mark_done("open"), tracker.pop("open")),
    "deleted and added": lambda tracker: (tracker.pop("done"), tracker.add("done"), tracker.mark_done("done")),
    "many added": lambda tracker: (tracker.add_many(range(900)), tracker.mark_done_many(range(300, 800))),
    "many deleted": lambda tracker: [tracker.pop(key) for key in list(tracker)],
    "claimed": lambda tracker: list(tracker.try_keys()),
    "claimed and done": lambda tracker: [tracker.mark_done(key) for key in tracker.try_keys(batch=2)],
    "claimed and released": lambda tracker: [tracker.release(key) for key in tracker.try_keys()],
    "claimed by a gate": lambda tracker: (tracker.should_try("open"), tracker.should_try_add("new")),
    "claimed although aborted": lambda tracker: list(tracker.try_keys(allow_aborted=True)),
    "part of a batch": lambda tracker: next(tracker.try_keys(batch=3)),
    "claimed and deleted": lambda tracker: [tracker.pop(key) for key in tracker.try_keys()],
    "added and claimed": lambda tracker: (tracker.add("new"), list(tracker.try_keys())),
}
TASKS = {"open": {"x": 1}, "done": {"_done": True}, "aborted": {"_aborted": True}, "tried": {"_tries": 3}, "more": {}}


@pytest.mark.parametrize("name", STATUS_CHANGES)
def test_revert_brings_back_statuses_and_leaves_no_wrong_claim(tmp_path, name):
    with SharedTracker(tmp_path / "tracker") as tracker:
        for block in BLOCKS:
            tracker.clear()
            tracker.update(TASKS)
            tracker.sync()
            before = tracker.items()
            counts = tracker.num_done(), tracker.num_tried(), tracker.num_aborted()
            with block_of(tracker, block):
                STATUS_CHANGES[name](tracker)
            changed, claimed = tracker.items(), tracker.claimed_keys()
            assert (tracker.dirty() == set()) == (changed == before)
            tracker.revert()
            assert tracker.items() == before
            assert (tracker.num_done(), tracker.num_tried(), tracker.num_aborted()) == counts
            assert tracker.dirty() == set()
            # What somebody works on is still his, where it is there and not finished.
            assert tracker.claimed_keys() == [
                key for key in claimed if key in tracker and not tracker.done(key) and not tracker.aborted(key)
            ]
            tracker._check()
            for key in tracker.claimed_keys():
                tracker.release(key)
            STATUS_CHANGES[name](tracker)
            assert tracker.items() == changed
            tracker._check()


@pytest.mark.parametrize("end", ["mark_done", "abort", "mark_not_done", "release", "delete"])
def test_task_that_was_claimed_at_the_last_sync_is_nobodys_after_a_revert_of_its_end(tmp_path, end):
    with SharedTracker(tmp_path / "tracker", init={"a": {}}) as tracker:
        assert tracker.should_try("a")
        tracker.sync()
        tracker.pop("a") if end == "delete" else getattr(tracker, end)("a")
        tracker.revert()
        assert tracker["a"] == {**FRESH, "_tries": 1}
        assert tracker.claimed_keys() == []
        assert list(tracker.try_keys()) == ["a"]
        tracker._check()


# Claims, among the threads and loops of one process


def test_running_loops_and_threads_get_no_task_twice(tmp_path, switching_often):
    with SharedTracker(tmp_path / "tracker") as tracker:
        tracker.add_many(range(300))
        taken = [[] for _ in range(THREADS)]

        def work(thread):
            for key in tracker.try_keys(batch=1 + 3 * (thread % 2)):
                taken[thread].append(key)
                if key % 3 == 0:
                    tracker.mark_done(key)
                elif key % 3 == 1:
                    tracker.abort(key)
                if key < 100:
                    tracker.add_if_absent(key + 1000)

        together(*(partial(work, thread) for thread in range(THREADS)))
        first = sorted(itertools.chain(*taken))
        # A task that has failed is offered again to a loop that is still running when the one that had it has ended.
        assert sorted(set(first)) == [*range(300), *range(1000, 1100)]
        assert [key for key in set(first) if first.count(key) > 1 and key % 3 != 2] == []
        assert [tracker.tries(key) for key in tracker] == [first.count(key) for key in tracker]
        failed = [key for key in tracker if key % 3 == 2]
        assert sorted(tracker.claimed_keys()) == sorted(failed)
        assert list(tracker.try_keys()) == failed
        tracker._check()


def test_two_loops_of_a_thread_share_the_tasks(tmp_path):
    with SharedTracker(tmp_path / "tracker", init={number: {} for number in range(6)}) as tracker:
        one, other = tracker.try_keys(), tracker.try_keys(batch=2)
        assert [next(one), next(other), next(one), next(other), next(one)] == [0, 1, 3, 2, 4]
        assert tracker.claimed_keys() == list(range(5))
        assert next(one) == 5
        assert list(other) == []


def test_gate_refuses_what_another_thread_has_in_hand(tmp_path, elsewhere):
    with SharedTracker(tmp_path / "tracker", init={"a": {}, "b": {}}) as tracker:
        assert tracker.should_try("a")
        assert elsewhere(tracker.should_try, "b")
        assert elsewhere(tracker.should_try, "a") is False
        assert tracker.should_try("b") is False
        assert tracker.should_do("b") is elsewhere(tracker.should_do, "a") is True
        assert tracker.should_try("a")
        assert (tracker.tries("a"), tracker.tries("b")) == (2, 1)
        assert elsewhere(list, tracker.try_keys()) == ["b"]
        tracker.release("b")
        assert tracker.should_try("b")


def test_task_of_a_thread_that_has_ended_is_free_for_the_others(tmp_path):
    with SharedTracker(tmp_path / "tracker", init={"a": {}}) as tracker:
        assert together(partial(tracker.should_try, "a")) == [True]
        assert tracker.claimed_keys() == ["a"]
        assert tracker.should_try("a")
        assert tracker.tries("a") == 2


@pytest.mark.parametrize("end", ["close", "del", "break", "exception", "exhausted"])
def test_loop_that_ends_gives_back_what_it_did_not_hand_out(tmp_path, end):
    with SharedTracker(tmp_path / "tracker", init={number: {} for number in range(6)}) as tracker:

        def work():
            loop = tracker.try_keys(batch=4)
            for key in loop:
                tracker.set[key]["seen"] = True
                if key == 1 and end != "exhausted":
                    assert tracker.claimed_keys() == [0, 1, 2, 3]
                    if end == "close":
                        loop.close()
                        loop.close()
                    if end in ("break", "del"):
                        break
                    if end == "exception":
                        raise Boom
            if end == "close":
                assert next(loop, "ended") == "ended"

        with contextlib.suppress(Boom):
            work()
        seen = 6 if end == "exhausted" else 2
        assert [tracker.tries(number) for number in range(6)] == [1] * seen + [0] * (6 - seen)
        assert tracker.claimed_keys() == list(range(seen))
        assert list(tracker.try_keys(batch=5)) == list(range(6))
        tracker._check()


def test_claims_tell_who_works_on_what(tmp_path):
    from datetime import datetime, timedelta, timezone

    with SharedTracker(tmp_path / "tracker", init={"a": {}, "b": {}}) as tracker:
        assert tracker.claims() == {}
        before = datetime.now(timezone.utc)
        assert next(tracker.try_keys()) == "a"
        claim = tracker.claims()["a"]
        assert claim.process == os.getpid()
        assert claim.host
        assert before - timedelta(minutes=1) < claim.since < before + timedelta(minutes=1)
        assert list(tracker.claims()) == tracker.claimed_keys() == ["a"]


@pytest.mark.parametrize("block", ["locked", "transaction", "lock"])
def test_claims_in_a_block_count_when_it_ends(tmp_path, elsewhere, block):
    with SharedTracker(tmp_path / "tracker", init={number: {} for number in range(4)}) as tracker:
        with block_of(tracker, block):
            assert next(tracker.try_keys()) == 0
            assert tracker.should_try(1)
            assert tracker.claimed_keys() == [0, 1]
            assert elsewhere(tracker.claimed_keys) == []
            tracker.mark_done(0)
        assert tracker.claimed_keys() == [1]
        assert elsewhere(list, tracker.try_keys()) == [2, 3]


@pytest.mark.parametrize("batch", [1, 3])
def test_task_that_was_claimed_in_a_block_that_is_undone_is_not_lost(tmp_path, batch):
    with SharedTracker(tmp_path / "tracker", max_tries=1, init={number: {} for number in range(8)}) as tracker:
        loop = tracker.try_keys(batch=batch)
        taken = [next(loop)]
        with contextlib.suppress(Boom), tracker.transaction():
            undone = [next(loop) for _ in range(3)]
            tracker.mark_done(undone[0])
            raise Boom
        assert undone == [1, 2, 3]
        tracker._check()
        taken += loop
        taken += tracker.try_keys(batch=batch)
        # (the claims on the rest of a batch are older than the block, and were used up in it)
        assert sorted(taken) == ([0, 3, 4, 5, 6, 7] if batch == 3 else list(range(8)))
        assert [tracker.tries(number) for number in range(8)] == [1] * 8
        tracker._check()


def test_closing_gives_back_what_is_not_finished_with_the_last_instance(tmp_path):
    tracker, other = (SharedTracker(tmp_path / "tracker", init={number: {}}) for number in range(2))
    loop = tracker.try_keys(batch=2)
    assert next(loop) == 0
    tracker.close()
    with pytest.raises(CalledClosedTrackerError):
        next(loop)
    assert other.claimed_keys() == [0, 1]
    other.close()
    with SharedTracker(tmp_path / "tracker") as tracker:
        assert tracker.claimed_keys() == []
        assert [tracker.tries(number) for number in range(2)] == [1, 0]


# Pickling


OPTIONS = {"gzipped": True, "file_size": 7, "sync_at": 3, "durability": "full"}
DUPLICATES = {
    **{f"pickle {number}": partial(lambda number, store: pickle.loads(pickle.dumps(store, number)), number)
       for number in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy, "deepcopy": copy.deepcopy, "in a list": lambda store: copy.deepcopy([store, "x"])[0],
}


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
def test_duplicate_is_the_same_store_with_the_same_options(kit, duplicate):
    more = {"max_tries": 5} if is_tracker(kit.cls) else {}
    store = kit.open(init=kit.pairs(ABC), **OPTIONS, **more)
    with duplicate(store) as other:
        assert other is not store
        assert type(other) is type(store)
        assert other.path == store.path
        assert {name: getattr(other, name) for name in ("gzipped", "file_size", "durability", *more)} == {
            name: value for name, value in {**OPTIONS, **more}.items() if name != "sync_at"
        }
        store.sync()
        other["d"] = other["e"] = kit.value(4)
        assert store.dirty() == {"d", "e"}
        other["f"] = kit.value(4)
        assert store.dirty() == set()
        with store.locked():
            store["g"] = kit.value(5)
            assert "g" in other
            assert len(duplicate(other)) == len(store)
        other.set.clear()
        assert len(store) == 0
    assert not store.closed


def test_pickle_holds_the_path_and_no_data(kit):
    store = kit.open(init=kit.pairs({"a secret": "no less a secret" * 1000}))
    data = pickle.dumps(store)
    assert b"secret" not in data
    assert len(data) < 1000
    store.close()
    with pickle.loads(data) as again:
        assert kit.contents(again) == {"a secret": "no less a secret" * 1000}


def test_pickle_of_a_closed_store_opens_it(kit, abc):
    abc.close()
    with pickle.loads(pickle.dumps(abc)) as again:
        assert kit.contents(again) == ABC


def test_pickle_whose_options_have_become_others_is_refused(kit, abc):
    data = pickle.dumps(abc)
    abc.close()
    with kit.open(durability="full"), pytest.raises(StoreConflictError, match="durability"):
        pickle.loads(data)


class Mine(SharedPOD):
    """A subclass that a pickle can name."""

    def __setitem__(self, key, value):
        super().__setitem__(key.lower(), value)


def test_subclass_comes_back_as_itself(tmp_path):
    with Mine(tmp_path / "store") as mine, pickle.loads(pickle.dumps(mine)) as other:
        other["A"] = 1
        assert type(other) is Mine
        assert mine.items() == [("a", 1)]


# Private stores beside shared ones


PRIVATE = {SharedPOD: POD, SharedTracker: Tracker}


def test_reader_beside_a_shared_store_sees_what_is_committed(kit, abc, elsewhere):
    private = PRIVATE[kit.cls]
    with private(abc.path, mode="r") as reader:
        assert kit.contents(reader) == ABC
        abc["a"] = kit.value(10)
        assert kit.plain(reader["a"]) == 10
        loop = iter(reader)
        assert next(loop) == "a"
        with abc.locked():
            del abc["b"]
            abc["d"] = kit.value(4)
            assert kit.contents(reader) == {"a": 10, "b": 2, "c": 3}
            assert elsewhere(kit.contents, reader) == {"a": 10, "b": 2, "c": 3}
        assert list(loop) == ["c", "d"]
        for write in (lambda: reader.pop("a"), lambda: reader.update({"a": {}}), reader.clear):
            with pytest.raises(ReadOnlyStoreError):
                write()
        with pytest.raises(ReadOnlyStoreError):
            reader.set["a"] = {}
        reader.revert()
        reader.sync()
        assert reader.dirty() == set()
        assert abc.dirty() == {"a", "b", "d"}
        found = reader["a"]
        if is_tracker(kit.cls):
            found["lost"] = 1
            abc.mark_done("a")
            assert reader.done("a")
            assert reader.num_done() == 1
            with pytest.raises(ReadOnlyStoreError):
                list(reader.try_keys())
            assert list(reader.todo_keys()) == ["c", "d"]
        reader._check()
    abc["e"] = kit.value(5)
    assert kit.contents(abc) == {"a": 10, "c": 3, "d": 4, "e": 5}


def test_reader_and_shared_store_are_closed_in_any_order(kit, abc):
    private = PRIVATE[kit.cls]
    for first in (0, 1):
        stores = [kit.open(), private(abc.path, mode="r")]
        abc.close()
        stores[first].close()
        assert kit.contents(stores[1 - first]) == ABC
        if first == 0:
            # (the files are open for sharing)
            stores.append(kit.open())
            assert kit.contents(stores[2]) == ABC
        for store in stores:
            store.close()
        # Nobody has it open any more.
        with private(abc.path, file_size=9) as alone:
            assert kit.contents(alone) == ABC


def test_shared_store_is_refused_where_a_reader_has_opened_the_files_alone(kit, abc):
    abc.close()
    with PRIVATE[kit.cls](abc.path, mode="r") as reader:
        with pytest.raises(StoreConflictError, match="shared one first"):
            kit.open()
        assert kit.contents(reader) == ABC
    assert kit.contents(kit.open()) == ABC


def test_private_writer_beside_a_shared_store_is_refused(kit, abc):
    private = PRIVATE[kit.cls]
    for options in ({}, {"clone": False}, {"init": {}}):
        with pytest.raises(StoreConflictError, match="shared") as caught:
            private(abc.path, **options)
        assert isinstance(caught.value, ValueError)
    abc["d"] = kit.value(4)
    abc.close()
    with private(abc.path) as alone:
        assert kit.contents(alone) == {**ABC, "d": 4}
        with pytest.raises(StoreConflictError, match="private"):
            kit.open()
        alone["e"] = kit.value(5)
        assert kit.contents(alone) == {**ABC, "d": 4, "e": 5}
    assert kit.contents(kit.open()) == {**ABC, "d": 4, "e": 5}


def test_kinds_exclude_each_other(kit, abc):
    wrong = {SharedPOD: SharedTracker, SharedTracker: SharedPOD}[kit.cls]
    for cls in (wrong, PRIVATE[wrong]):
        with pytest.raises(StoreKindError):
            cls(abc.path)
        with pytest.raises(StoreKindError):
            PRIVATE[wrong](abc.path, mode="r")
    abc.close()
    with pytest.raises(StoreKindError):
        wrong(abc.path)
    assert kit.contents(kit.open()) == ABC


@pytest.mark.parametrize("options", [{"gzipped": True}, {"file_size": 10}, {"durability": "full"}])
def test_instances_with_conflicting_options_are_refused(kit, abc, options):
    (name,) = options
    with pytest.raises(StoreConflictError, match=name):
        kit.open(**options)
    assert kit.contents(kit.open(sync_at=5)) == ABC


def test_store_goes_from_private_to_shared_and_back(kit):
    private = PRIVATE[kit.cls]
    path = kit.folder / "store"
    expected = {}
    for turn in range(3):
        with private(path, sync_at=2) as store:
            assert kit.contents(store) == expected
            store["private", turn] = kit.value(turn)
            store.pop(("shared", turn - 2), None)
            expected.pop(("shared", turn - 2), None)
            expected["private", turn] = turn
            if is_tracker(kit.cls):
                assert list(store.try_keys())
            store._check()
        with kit.cls(path, sync_at=2) as store:
            assert kit.contents(store) == expected
            assert store.dirty() == set()
            store["shared", turn] = kit.value(turn)
            expected["shared", turn] = turn
            if is_tracker(kit.cls):
                assert list(store.try_keys()) == [*expected]
                assert store.tries(("private", 0)) == 2 * turn + 2
            store._check()


LEFT = {
    "changes": lambda store: store.update(left=({})),
    "a hold": lambda store: (store.hold(), store.update(left={})),
    "deletions": lambda store: (store.pop("a"), store.update(left={})),
    "a block": lambda store: (store.update(left={}), store.lock(), store.update(nothing={}), store.pop("left")),
    "an open transaction": lambda store: (store.update(left={}), store.transaction().__enter__(), store.clear()),
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("opened", ["private", "shared"])
def test_what_a_killed_process_has_left_is_synced_for_the_next_that_is_alone(kit, abc, left, opened):
    path = abc.path
    abc.close()

    def live(pipe):
        LEFT[left](kit.cls(path))
        pipe.send("done")
        pipe.recv()

    with Child(live) as child:
        assert child.pipe.recv() == "done"
        child.kill(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    expected = [key for key in [*ABC, "left"] if left != "deletions" or key != "a"]
    with (kit.cls if opened == "shared" else PRIVATE[kit.cls])(path, sync_at=2) as store:
        assert store.keys() == expected
        assert store.dirty() == set()
        store.revert()
        assert store.keys() == expected
        for number in range(3):
            store[number] = kit.value(number)
        assert len(store.dirty()) == 1
        store._check()


@pytest.mark.parametrize("opened", ["private", "shared"])
@pytest.mark.parametrize("batch", [1, 4])
def test_claims_of_a_killed_process_are_given_back_to_the_next_that_is_alone(tmp_path, opened, batch):
    path = tmp_path / "tracker"

    def live(pipe):
        tracker = SharedTracker(path, init={number: {} for number in range(8)})
        loop = tracker.try_keys(batch=batch)
        for _ in range(3):
            key = next(loop)
        tracker.mark_done(key)
        assert tracker.should_try(7)
        pipe.send(tracker.claimed_keys())
        pipe.recv()

    with Child(live) as child:
        assert child.pipe.recv() == ([0, 1, 7] if batch == 1 else [0, 1, 3, 7])
        child.kill(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    with (SharedTracker if opened == "shared" else Tracker)(path) as tracker:
        # (the try of what was not handed out was given back)
        assert [tracker.tries(number) for number in range(8)] == [1, 1, 1, 0, 0, 0, 0, 1]
        if opened == "shared":
            assert tracker.claimed_keys() == []
        assert list(tracker.try_keys()) == [0, 1, 3, 4, 5, 6, 7]
        tracker._check()


# Blocks that do not end as they should


def generator_with_a_block(store):
    with store.locked():
        store["in"] = 1
        yield


@apart
def test_a_block_is_not_ended_by_another_thread(tmp_path):
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
@apart
def test_blocks_that_end_in_the_wrong_order_keep_nothing_and_say_so(tmp_path, kinds, first_fails, second_fails):
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


def test_one_block_may_be_entered_again_and_only_left_as_often(tmp_path):
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


class WithMore(SharedTracker):
    """A user's class with arguments and attributes of its own."""

    def __init__(self, path, extra):
        super().__init__(path, max_tries=7)
        self.extra = extra


def test_a_subclass_travels_with_what_it_has_added(tmp_path):
    with WithMore(tmp_path / "store", extra=[5]) as store, pickle.loads(pickle.dumps(store)) as other:
        store.add("a")
        assert (type(other), other.extra, other.max_tries, other.keys()) == (WithMore, [5], 7, ["a"])


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_was_deleted_can_be_closed_and_made_anew(shared_class, tmp_path, replaced):
    path = tmp_path / "store"
    store = shared_class(path, init={"a": {}})
    loop = store.try_keys() if is_tracker(shared_class) else iter(store)
    assert next(loop) == "a"
    shutil.rmtree(path)
    if replaced:
        run_program(shared_class, path, "store['other'] = {}")
    with pytest.raises(StorageError, match="close"):
        write_for_ever(store)  # (it is looked for once a second)
    with pytest.raises(StorageError, match="removed or replaced"):
        store.close()
    assert store.closed
    with shared_class(path) as again:
        assert again.keys() == (["other"] if replaced else [])


def write_for_ever(store):
    while True:
        store["b"] = {}


def run_program(cls, path, line):
    """What a program prints that does this with the store."""
    program = f"""
import sys, tastypy_fast
try:
    with tastypy_fast.{cls.__name__}(sys.argv[1]) as store:
        {line}
except tastypy_fast.PersistentOrderedDictException as error:
    print(error)
"""
    return subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True).stdout


def test_nobody_joins_without_the_lock_file_of_the_others(shared_class, tmp_path):
    path = tmp_path / "store"
    with shared_class(path, init={"a": {}}) as store:
        (path / "lock.mdb").unlink()
        assert "lock.mdb was removed" in run_program(shared_class, path, "store['c'] = {}")
        store["b"] = {}
    with shared_class(path) as store:
        assert store.keys() == ["a", "b"]



@apart
def test_a_thread_with_the_number_of_one_that_has_ended_in_a_block_is_another(tmp_path):
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
    # (the end of this process does not wait for the block)


@pytest.mark.parametrize("method", ["todo_items", "todo_values", "aborted_items", "aborted_values", "setdefault"])
def test_texts_do_not_promise_that_copies_are_saved(method):
    assert "watched" not in getattr(SharedTracker, method).__doc__


@pytest.mark.parametrize("way", ["transaction", "sync", "revert"])
def test_a_large_value_that_becomes_small_in_one_block_leaves_no_pages(shared_class, tmp_path, way):
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
