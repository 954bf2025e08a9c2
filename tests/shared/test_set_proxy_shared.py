"""store.set of the shared classes: it behaves as on a plain dict, and is atomic."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import pickle
from collections.abc import ItemsView, KeysView, ValuesView
from pathlib import PurePath

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
    DuplicateKeyError,
    InvalidKeyError,
    NotLockedError,
    SharedPOD,
    SharedTracker,
    UnstorableValueError,
)
from tests.support.shared import ABC, BLOCKS, FRESH, Boom, block_of, later, place_of
from tests.support.stores import is_tracker

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# .set behaves as a plain dict


NESTED = {"l": [3, 1, 2], "d": {"x": {"y": []}}, "s": "text", "n": 7, "deep": [[[0]]], "none": None}


class Place:
    """A plain value in a store, and the same in a plain dict: ``x[K]`` in the statements below."""

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
        """Run a statement on the store. Returns the value of its last expression, or the exception."""
        if is_tracker(self.kit.cls):
            return outcome(statement, x=self.store.set["k"], K="value", **names)
        return outcome(statement, x=self.store.set, K="k", **names)

    def expected(self, statement, **names):
        """The same on the plain dict, with the contents afterwards."""
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
    # A dict view is compared by its contents.
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
def test_set_behaves_like_a_plain_dict(kit, statement):
    place = Place(kit, NESTED)
    expected, refused, value = place.expected(statement)
    assert refused is None
    for block in BLOCKS:
        with block_of(place.store, block):
            found, error = place.outcome(statement)
            assert error is None
        assert repr(found) == repr(expected)
        # Stored values are JSON.
        assert place.now() == json.loads(json.dumps(value)), block
        assert kit.plain(place.store["other"]) == [0]
        place.put(NESTED)


OPERATORS = ["+=", "-=", "*=", "/=", "//=", "%=", "**=", "<<=", ">>=", "&=", "^=", "|=", "@="]
OPERANDS = [2, -3, 0, True, 0.5, "ab", [1], {"b": 2}, (1,), None]
TARGETS = [7, 2**70, -2.5, True, "text %s", "", [1, 2], [], {"a": 1}, {}, None]


@pytest.mark.parametrize("operator", OPERATORS)
def test_augmented_assignment_through_set_behaves_like_a_plain_dict(kit, operator):
    """The result is the same, or the same error without a change; also one level deeper."""
    place = Place(kit, None)
    for target, operand in itertools.product(TARGETS, OPERANDS):
        for value, way in ((target, "x[K]"), ([target], "x[K][0]"), ({"x": target}, "x[K]['x']")):
            place.store["k"], place.value = kit.value(value), value
            statement = f"{way} {operator} operand"
            _, refused, expected = place.expected(statement, operand=operand)
            _, error = place.outcome(statement, operand=operand)
            where = f"{statement} with {target!r} and {operand!r}"
            if "j)" in repr(expected):
                # This is a root of a negative number.
                assert isinstance(error, UnstorableValueError), where
                expected = value
            else:
                assert (type(error), str(error)) == (type(refused), str(refused)), where
            assert repr(place.now()) == repr(value if refused else json.loads(json.dumps(expected))), where


def boom(*_):
    raise Boom


def interrupt(*_):
    raise KeyboardInterrupt


# Some of these change the plain object in part.
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
def test_set_raises_like_a_plain_dict_and_changes_nothing(kit, statement):
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
def test_unstorable_value_through_set_raises_and_changes_nothing(kit, statement):
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
    "x[1.5] = {}", "x[PurePath('a')]['a'] = 1", "x[{}] += 1", "del x[('a', [])]", "x[[]].append(1)", "x.pop({})",
    "x.update([('a', {}), (1.5, {})])", "x |= [('a', {}), (1.5, {})]",
])
def test_invalid_key_through_set_raises_and_changes_nothing(kit, abc, statement):
    for block in BLOCKS:
        with block_of(abc, block):
            _, error = outcome(statement, x=abc.set, PurePath=PurePath)
            assert isinstance(error, InvalidKeyError)
            assert abc.dirty() == set()
        assert kit.contents(abc) == ABC


def test_set_changes_the_status_of_a_task(tmp_path):
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


def test_set_of_a_tracker_merges_like_update(tmp_path):
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


def test_locked_and_transaction_work_through_set(kit, abc):
    with abc.set.locked() as entered:
        assert entered is abc
        abc["a"] = kit.value(10)
    with contextlib.suppress(Boom), abc.set.transaction():
        abc["a"] = kit.value(20)
        raise Boom
    assert kit.plain(abc["a"]) == 10


def test_lock_inside_an_operation_is_refused_and_blocks_no_thread(kit, in_other_thread):
    store = kit.open(init=kit.pairs({"l": [2, 1]}))
    place = place_of(kit, store, "l")
    for use in (store.set.lock, lambda: place.sort(key=lambda number: store.lock())):
        with pytest.raises(NotLockedError):
            use()
        with pytest.raises(NotLockedError):
            store.unlock()
        in_other_thread(store.update, {"a": {}})
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


def test_callable_as_an_argument_runs_inside_the_operation(kit):
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


def test_arguments_and_results_of_set_are_not_watched(kit):
    store = kit.open(init=kit.pairs({"d": {"in": [1]}}))
    place = place_of(kit, store, "d")
    given = [0]
    place["given"] = given
    given.append(1)
    for returned in (place.setdefault("in", []), place.get("in"), place.setdefault("new", [1]), place["in"].copy()):
        returned.append("lost")
    assert kit.plain(store["d"]) == {"in": [1], "given": [0], "new": [1]}


def test_reading_through_set_raises_and_changes_nothing(kit, abc):
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


def test_variable_for_a_place_is_usable_after_an_augmented_assignment(kit):
    store = kit.open(init=kit.pairs({"l": []}))
    place = place_of(kit, store, "l")
    place += [1]
    place += [2]
    place.append(3)
    place[0] *= 5
    assert kit.plain(store["l"]) == [5, 2, 3]


def test_path_below_set_is_resolved_when_it_is_used(kit):
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


# Reads return copies


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
def test_values_read_from_a_shared_store_are_copies(tmp_path, cls, read):
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
