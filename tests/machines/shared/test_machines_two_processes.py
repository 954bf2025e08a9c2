"""Random operations of two processes on one shared store agree with a plain dict."""

from __future__ import annotations

import copy
import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from lmdb.verify import verify

from tastypy_fast import SharedPOD, UnstorableValueError
from tests.support.machines import ORDINARY, STORM
from tests.support.two_processes import THE_END, Remote, call, enter, go_on, leave, outcome, reopen, which

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

parts = st.sampled_from(
    [None, 0, 1, -2.5, "text", "", [], {}, [1, "a"], {"x": [1]}, {"x": 1, "y": {}}, "x" * 5000]
)
names = st.sampled_from(["a", "b", "c", 1, ("a", 1), "k" * 600])


# Operations that work in the same way on a store and on a plain dict


def add_in_place(store, key, part):
    store.set[key] += part


def subtract_in_place(store, key, part):
    store.set[key] -= 1


def put_inside(store, key, part):
    store.set[key]["y"] = part


def delete_inside(store, key, part):
    del store.set[key]["x"]


STEPS = {
    "assign": lambda store, key, part: store.__setitem__(key, part),
    "assign through set": lambda store, key, part: store.set.__setitem__(key, part),
    "delete": lambda store, key, part: store.__delitem__(key),
    "delete through set": lambda store, key, part: store.set.__delitem__(key),
    "pop": lambda store, key, part: store.pop(key),
    "pop with default": lambda store, key, part: store.pop(key, part),
    "popitem": lambda store, key, part: store.popitem(),
    "popitem first": lambda store, key, part: store.popitem(last=False),
    "setdefault": lambda store, key, part: store.setdefault(key, part),
    "update": lambda store, key, part: store.update({key: part, "new": part}, a=part),
    "update that fails": lambda store, key, part: store.update([(key, part), ("new", {1, 2})]),
    "clear": lambda store, key, part: store.clear(),
    "get": lambda store, key, part: (store.get(key, part), key in store, len(store)),
    "read": lambda store, key, part: store[key],
    "append": lambda store, key, part: store.set[key].append(part),
    "extend": lambda store, key, part: store.set[key].extend(part),
    "insert": lambda store, key, part: store.set[key].insert(0, part),
    "pop inside": lambda store, key, part: store.set[key].pop(),
    "reverse": lambda store, key, part: store.set[key].reverse(),
    "deeper": lambda store, key, part: store.set[key]["x"].append(part),
    "put inside": put_inside,
    "delete inside": delete_inside,
    "add in place": add_in_place,
    "subtract in place": subtract_in_place,
}
steps = st.tuples(st.sampled_from(list(STEPS)), names, parts)
blocks = st.tuples(st.sampled_from(["locked", "transaction"]), st.lists(steps, max_size=5), st.booleans())


def do(state, name, key, part):
    return STEPS[name](state.store, key, part)


def look(state):
    store = state.store
    items = store.items()
    keys = [key for key, _ in items]
    assert list(store) == store.keys() == list(reversed(store))[::-1] == keys
    assert store.values() == [value for _, value in store.iteritems()]
    return items, store.dirty()


def begin_loop(state, number):
    state.loops[number] = iter(state.store)


NOTHING = object()


class Plain(dict):
    """The model: a dict that knows the position of each key. Positions only grow."""

    def __init__(self):
        super().__init__()
        self.places = {}
        self.next_place = itertools.count()

    @property
    def set(self):
        return self

    def __setitem__(self, key, value):
        if key not in self:
            self.places[key] = next(self.next_place)
        super().__setitem__(key, value)

    def update(self, pairs, **more):
        for key, value in [*(pairs.items() if isinstance(pairs, dict) else pairs), *more.items()]:
            if isinstance(value, set):
                raise UnstorableValueError
            self[key] = copy.deepcopy(value)

    def setdefault(self, key, value):
        if key not in self:
            self[key] = value
        return self[key]

    def popitem(self, last=True):
        key = (list(self) or [None])[-1 if last else 0]
        return key, self.pop(key)

    def snapshot(self):
        return copy.deepcopy(dict(self)), dict(self.places)

    def restore(self, snapshot):
        values, self.places = copy.deepcopy(snapshot)
        self.clear()
        super().update(values)

    def changed_since(self, snapshot):
        values, places = snapshot
        return {
            key for key in self.keys() | values.keys()
            if self.get(key, NOTHING) != values.get(key, NOTHING) or self.places[key] != places.get(key)
        }


class TwoProcesses(RuleBasedStateMachine):
    """Operations of two processes on one store, in turns."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store"
        # There is no automatic sync, because its time does not matter for this test.
        self.remotes = [Remote(SharedPOD, self.path, sync_at=10**6) for _ in range(2)]
        self.now = Plain()
        self.saved = self.now.snapshot()
        self.touched = set()
        self.walks = {}

    def teardown(self):
        for remote in self.remotes:
            remote.__exit__()
        with SharedPOD(self.path) as store:
            store._check()
            assert store.items() == list(self.now.items())
        assert not verify(self.path)
        self.folder.cleanup()

    def do(self, name, key, part):
        """Make one step on the model. A step that raises changes nothing."""
        before = self.now.snapshot()
        result = outcome(STEPS[name], self.now, key, copy.deepcopy(part))
        if result[0] == "raised":
            self.now.restore(before)
        else:
            self.touched |= {key, "a", "new"} | self.now.changed_since(before)
        return copy.deepcopy(result)

    @rule(which=which, step=steps)
    def one_step(self, which, step):
        assert self.remotes[which].ask(do, *step) == self.do(*step)

    @rule(which=which, block=blocks)
    def block(self, which, block):
        """The other process reads the state before the block until the block ends."""
        kind, some, fails = block
        remote, other = self.remotes[which], self.remotes[1 - which]
        before, touched = self.now.snapshot(), set(self.touched)
        remote.ask(enter, kind)
        for step in some:
            assert remote.ask(do, *step) == self.do(*step)
        assert remote.ask(look)[1][0] == list(self.now.items())
        assert other.ask(look)[1][0] == list(before[0].items())
        assert remote.ask(leave, fails) == ("returned", None)
        if fails and kind == "transaction":
            self.now.restore(before)
            self.touched = touched

    @rule(which=which)
    def sync(self, which):
        self.remotes[which].ask(call, "sync")
        self.is_saved()

    def is_saved(self):
        self.saved = self.now.snapshot()
        self.touched = set()

    @rule(which=which)
    def revert(self, which):
        assert self.remotes[which].ask(call, "revert") == ("returned", None)
        self.now.restore(self.saved)
        self.touched = set()

    @precondition(lambda self: len(self.walks) < 4)
    @rule(which=which)
    def begin_a_walk(self, which):
        number = max(self.walks, default=0) + 1
        self.walks[number] = [which, -1]
        self.remotes[which].ask(begin_loop, number)

    @precondition(lambda self: self.walks)
    @rule(data=st.data())
    def walk(self, data):
        number = data.draw(st.sampled_from(sorted(self.walks)))
        which, position = self.walks[number]
        ahead = [key for key in self.now if self.now.places[key] > position]
        assert self.remotes[which].ask(go_on, number) == ("returned", ahead[0] if ahead else THE_END)
        if ahead:
            self.walks[number][1] = self.now.places[ahead[0]]
        else:
            del self.walks[number]

    @rule(which=which)
    def reopen(self, which):
        """Closing a store syncs it."""
        assert self.remotes[which].ask(reopen) == ("returned", None)
        self.is_saved()
        self.forget_walks(which)

    def forget_walks(self, which):
        self.walks = {number: walk for number, walk in self.walks.items() if walk[0] != which}

    @rule(which=which, kind=st.sampled_from([None, "locked"]), some=st.lists(steps, max_size=3))
    def kill(self, which, kind, some):
        """Kill one process, inside a block or not. The other one continues."""
        if kind is not None:
            self.remotes[which].ask(enter, kind)
            for step in some:
                self.remotes[which].ask(do, *step)
        self.remotes[which].__exit__()
        self.remotes[which] = Remote(SharedPOD, self.path, sync_at=10**6)
        self.forget_walks(which)

    @rule()
    def kill_both(self):
        """The process that opens the store next is alone, and treats everything as synced."""
        for remote in self.remotes:
            remote.__exit__()
        self.remotes = [Remote(SharedPOD, self.path, sync_at=10**6) for _ in range(2)]
        self.is_saved()
        self.walks = {}

    @invariant()
    def both_see_the_same(self):
        for remote in self.remotes:
            what, (items, dirty) = remote.ask(look)
            assert what == "returned"
            assert repr(items) == repr(list(self.now.items()))
            assert self.now.changed_since(self.saved) <= dirty <= self.touched


# Tasks and their claims

# Each step is a message and an answer, and each example starts several processes.
TwoProcesses.TestCase.settings = settings(ORDINARY, max_examples=5)


class TestTwoProcesses(TwoProcesses.TestCase):
    pass


@pytest.mark.storm
@pytest.mark.timeout(0)
class TestTwoProcessesStorm(TwoProcesses.TestCase):
    settings = STORM
