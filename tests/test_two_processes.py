"""Random operations of two processes on one shared store, beside a plain dict that says what each should have done.

They take turns, so that there is one right answer; see test_processes.py for all at once. A failure prints the
steps that lead to it, and a blob that repeats them. ``pytest -m storm`` runs many more.
"""

from __future__ import annotations

import copy
import itertools
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lmdb.verify import verify

from tastypy_fast import SharedPOD, SharedTracker, UnstorableValueError
from tests.children import Child
from tests.test_machines import ORDINARY, STORM

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

which = st.integers(0, 1)
parts = st.sampled_from(
    [None, 0, 1, -2.5, "text", "", [], {}, [1, "a"], {"x": [1]}, {"x": 1, "y": {}}, "x" * 5000]
)
names = st.sampled_from(["a", "b", "c", 1, ("a", 1), "k" * 600])


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch):
    if os.access("/dev/shm", os.W_OK):
        monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")


class Remote(Child):
    """A process with a store: ``ask(function, ...)`` has it call a function of a module with its State."""

    def __init__(self, cls, path, **options):
        super().__init__(_serve, cls, path, options)

    def ask(self, function, *arguments):
        """What the function, or the error of what type, came of it there."""
        self.pipe.send((function, arguments))
        return self.pipe.recv()


def _serve(pipe, cls, path, options):
    state = State(cls(path, **options))
    while True:
        function, arguments = pipe.recv()
        pipe.send(outcome(function, state, *arguments))


@dataclass
class State:
    """What a process has at hand."""

    store: object
    loops: dict = field(default_factory=dict)
    scopes: list = field(default_factory=list)


def outcome(function, *arguments):
    try:
        return "returned", function(*arguments)
    except Exception as error:
        return "raised", type(error)


# What is done in the same way to a store and to a plain dict


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


def enter(state, kind):
    state.scopes.append(getattr(state.store, kind)())
    state.scopes[-1].__enter__()


def leave(state, fails):
    error = ZeroDivisionError() if fails else None
    state.scopes.pop().__exit__(type(error) if fails else None, error, None)


def look(state):
    store = state.store
    items = store.items()
    keys = [key for key, _ in items]
    assert list(store) == store.keys() == list(reversed(store))[::-1] == keys
    assert store.values() == [value for _, value in store.iteritems()]
    return items, store.dirty()


def call(state, name, *arguments):
    return getattr(state.store, name)(*arguments)


def begin_loop(state, number):
    state.loops[number] = iter(state.store)


def go_on(state, number):
    return next(state.loops[number], THE_END)


def reopen(state):
    state.loops.clear()
    state.store.close()
    cls, path, arguments = state.store.__reduce__()[1]
    state.store = cls(path, **arguments)


THE_END = "the end"
NOTHING = object()
NOWHERE = float("inf")


class Plain(dict):
    """The model: a dict that knows the place of each key, which only ever grows."""

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
    """What two processes do to one store, in turns."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store"
        # (no sync of its own: when it comes does not matter to what is tested here)
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
        """A step on the model, which does nothing if it raises."""
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
        """The other process reads what was there before, until it ends."""
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
        """Closing syncs."""
        assert self.remotes[which].ask(reopen) == ("returned", None)
        self.is_saved()
        self.forget_walks(which)

    def forget_walks(self, which):
        self.walks = {number: walk for number, walk in self.walks.items() if walk[0] != which}

    @rule(which=which, kind=st.sampled_from([None, "locked"]), some=st.lists(steps, max_size=3))
    def kill(self, which, kind, some):
        """In the middle of a block, or not. The other one goes on."""
        if kind is not None:
            self.remotes[which].ask(enter, kind)
            for step in some:
                self.remotes[which].ask(do, *step)
        self.remotes[which].__exit__()
        self.remotes[which] = Remote(SharedPOD, self.path, sync_at=10**6)
        self.forget_walks(which)

    @rule()
    def kill_both(self):
        """Who opens it next is alone, and takes everything as synced."""
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


# Tasks, and who has them in hand

MAX_TRIES = 4
keys = st.integers(0, 11)
gates = st.sampled_from(["should_try", "should_try_add"])
methods = st.sampled_from(
    ["mark_done", "mark_not_done", "abort", "unabort", "increment_tries", "decrement_tries", "reset_tries", "release"]
)


def facts(state):
    """Of each task: done, aborted, tries; and who has claimed it."""
    store = state.store
    claims = store.claims()
    assert list(claims) == store.claimed_keys()
    tasks = {key: (task["_done"], task["_aborted"], task["_tries"]) for key, task in store.iteritems()}
    assert tasks == {key: (store.done(key), store.aborted(key), store.tries(key)) for key in store}
    return tasks, {key: claim.process for key, claim in claims.items()}


def begin_tries(state, number, batch, allow_aborted):
    state.loops[number] = state.store.try_keys(allow_aborted, batch=batch)


def end_tries(state, number, is_closed):
    loop = state.loops.pop(number)
    if is_closed:
        loop.close()


@dataclass
class Claim:
    """Which process has a task in hand."""

    which: int
    # The running loop that has claimed it, None when that has ended, or for a gate.
    loop: int | None = None
    # It was not handed out yet.
    waits: bool = False
    # Its process had it already when a batch claimed it again.
    was_mine: bool = False
    # With the one that it counted.
    tries: int = 0


@dataclass
class Task:
    place: int
    done: bool = False
    aborted: bool = False
    tries: int = 0
    claim: Claim | None = None
    # The claim of a worker that has died: its try is given back as soon as somebody notices.
    dead_claim: Claim | None = None
    # Its worker has died, which a loop may notice only at its end.
    lost: bool = False

    def give_back_try(self, claim):
        """A claim ends; what it was not handed out for does not count, unless somebody has set the tries back."""
        if claim is not None and claim.waits and self.tries >= claim.tries:
            self.tries -= 1

    def change_tries(self, added):
        """Add to the tries, which those of a claim follow; None: set them to zero."""
        self.tries = 0 if added is None else self.tries + added
        for claim in (self.claim, self.dead_claim):
            if claim is not None:
                claim.tries = 1 if added is None else claim.tries + added

    def less_dead(self):
        """How many tries there are when the dead have been noticed."""
        claim = self.dead_claim
        return self.tries - (claim is not None and claim.waits and self.tries >= claim.tries)


@dataclass
class Tries:
    """A running loop."""

    which: int
    batch: int
    allow_aborted: bool
    position: int = -1


class TwoWorkers(RuleBasedStateMachine):
    """Two processes at work on one tracker, in turns."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store"
        self.tasks = {}
        self.places = itertools.count()
        self.loops = {}
        # A worker, and nobody may have noticed.
        self.has_died = False
        self.remotes = [self.begin_one() for _ in range(2)]

    def begin_one(self):
        return Remote(SharedTracker, self.path, max_tries=MAX_TRIES)

    def teardown(self):
        for remote in self.remotes:
            remote.__exit__()
        with SharedTracker(self.path) as tracker:
            tracker._check()
            assert tracker.claims() == {}
            assert set(tracker) == set(self.tasks)
            # Nobody has them now: whatever is to be done is offered.
            wanted = {key for key, task in self.tasks.items() if not (task.done or task.aborted)}
            assert set(tracker.try_keys(batch=3)) == wanted
        self.folder.cleanup()

    # Changing tasks

    @initialize(some=st.sets(keys, min_size=4))
    def begin(self, some):
        for key in sorted(some):
            self.add(0, key)

    @rule(which=which, key=keys)
    def add(self, which, key):
        self.remotes[which].ask(call, "add_if_absent", key)
        if key not in self.tasks:
            self.tasks[key] = Task(next(self.places))

    @rule(which=which, key=keys)
    def delete(self, which, key):
        there = self.tasks.pop(key, None) is not None
        assert (self.remotes[which].ask(call, "pop", key)[0] == "returned") == there

    @precondition(lambda self: self.tasks)
    @rule(which=which, data=st.data(), method=methods, in_block=st.booleans())
    def change(self, which, data, method, in_block):
        key = data.draw(st.sampled_from(sorted(self.tasks)))
        remote, task = self.remotes[which], self.tasks[key]
        if in_block:
            remote.ask(enter, "locked")
        assert remote.ask(call, method, key) == ("returned", None)
        if in_block:
            remote.ask(leave, False)
        if method in ("mark_done", "mark_not_done"):
            task.done = method == "mark_done"
        elif method in ("abort", "unabort"):
            task.aborted = method == "abort"
        elif method.endswith("_tries"):
            task.change_tries({"increment_tries": 1, "decrement_tries": -1}.get(method))
        if method in ("mark_done", "mark_not_done", "abort", "release"):
            # What was not handed out never is.
            task.give_back_try(task.claim)
            self.give_back_try_of_the_dead(task)
            task.claim = None

    @precondition(lambda self: self.tasks)
    @rule(which=which, data=st.data())
    def note_a_result(self, which, data):
        """Which is nothing to a claim."""
        key = data.draw(st.sampled_from(sorted(self.tasks)))
        assert self.remotes[which].ask(call, "update", {key: {"result": which}}) == ("returned", None)

    # Claiming

    def may_be_tried(self, task, allow_aborted):
        return not task.done and (allow_aborted or not task.aborted) and task.less_dead() < MAX_TRIES

    @rule(which=which, key=keys, allow_aborted=st.booleans(), name=gates)
    def gate(self, which, key, allow_aborted, name):
        result = self.remotes[which].ask(call, name, key, allow_aborted)
        task = self.tasks.get(key)
        if task is None and name == "should_try":
            assert result == ("raised", KeyError)
            return
        if task is None:
            task = self.tasks[key] = Task(next(self.places))
        is_mine = task.claim is None or task.claim.which == which
        before = task.tries
        if is_mine:
            # Claimed by a loop and not handed out: this is that try.
            task.give_back_try(task.claim)
        assert result == ("returned", self.may_be_tried(task, allow_aborted) and is_mine)
        if result[1]:
            self.give_back_try_of_the_dead(task)
            task.tries += 1
            task.claim = Claim(which, tries=task.tries)
            task.lost = False
        else:
            task.tries = before

    @precondition(lambda self: len(self.loops) < 4)
    @rule(which=which, batch=st.sampled_from([1, 1, 2, 5]), allow_aborted=st.booleans())
    def begin_a_loop(self, which, batch, allow_aborted):
        number = max(self.loops, default=0) + 1
        self.loops[number] = Tries(which, batch, allow_aborted)
        self.remotes[which].ask(begin_tries, number, batch, allow_aborted)

    @precondition(lambda self: self.loops)
    @rule(data=st.data())
    def go_on_with_a_loop(self, data):
        number = data.draw(st.sampled_from(sorted(self.loops)))
        loop = self.loops[number]
        remote = self.remotes[loop.which]
        result, key = remote.ask(go_on, number)
        assert result == "returned"
        waiting = self.in_order(lambda task: task.claim and task.claim.loop == number and task.claim.waits)
        if waiting:
            # Claimed before, and not taken away since.
            assert key == waiting[0]
            self.tasks[key].claim.waits = False
            return
        chosen = self.newly_claimed(loop, *remote.ask(facts)[1])
        if key == THE_END:
            assert not chosen
            assert not self.free_between(loop, loop.position, NOWHERE, also_lost=True)
            self.end_loop(number)
            return
        assert chosen[0] == key
        assert len(chosen) <= loop.batch
        first, last = self.tasks[key].place, self.tasks[chosen[-1]].place
        if first < loop.position:
            # It has looked for dead workers at its end.
            assert self.has_died
            self.has_died, loop.position = False, -1
        assert set(self.free_between(loop, loop.position, last)) <= set(chosen)
        assert len(chosen) == loop.batch or not self.free_between(loop, last, NOWHERE)
        loop.position = last
        for one in chosen:
            task = self.tasks[one]
            task.tries += 1
            task.claim = Claim(loop.which, number, one != key, task.claim is not None, task.tries)
            task.lost = False

    def newly_claimed(self, loop, found, claims):
        """What a loop has just claimed, in order; all of it was free for it."""
        chosen = []
        for key, task in self.tasks.items():
            is_claimed = claims.get(key) == self.remotes[loop.which].pid
            if task.claim is None and is_claimed:
                self.give_back_try_of_the_dead(task)
                chosen.append(key)
            elif is_claimed and found[key][2] == task.tries + 1:
                assert task.claim.which == loop.which
                assert task.claim.loop is None
                chosen.append(key)
        assert all(self.may_be_tried(self.tasks[key], loop.allow_aborted) for key in chosen)
        return sorted(chosen, key=lambda key: self.tasks[key].place)

    def free_between(self, loop, first, last, also_lost=False):
        """The tasks that nobody has in hand between two places, and that are to be tried."""
        return self.in_order(lambda task: task.claim is None and first < task.place < last
                             and (also_lost or not task.lost) and self.may_be_tried(task, loop.allow_aborted))

    def in_order(self, wanted):
        found = [key for key, task in self.tasks.items() if wanted(task)]
        return sorted(found, key=lambda key: self.tasks[key].place)

    # Ends

    @precondition(lambda self: self.loops)
    @rule(data=st.data(), is_closed=st.booleans())
    def end_a_loop(self, data, is_closed):
        number = data.draw(st.sampled_from(sorted(self.loops)))
        assert self.remotes[self.loops[number].which].ask(end_tries, number, is_closed) == ("returned", None)
        self.end_loop(number)

    def end_loop(self, number):
        del self.loops[number]
        for task in self.tasks.values():
            if task.claim and task.claim.loop == number:
                claim = task.claim
                task.give_back_try(claim)
                task.claim = None if claim.waits and not claim.was_mine else Claim(claim.which, tries=claim.tries)

    def end_worker(self, which, is_dead):
        self.loops = {number: loop for number, loop in self.loops.items() if loop.which != which}
        for task in self.tasks.values():
            if task.claim and task.claim.which == which:
                if is_dead:
                    self.has_died = task.lost = True
                    task.dead_claim = task.claim
                else:
                    task.give_back_try(task.claim)
                task.claim = None

    @rule(which=which)
    def reopen(self, which):
        assert self.remotes[which].ask(reopen) == ("returned", None)
        self.end_worker(which, False)

    @rule(which=which)
    def kill(self, which):
        self.remotes[which].__exit__()
        self.remotes[which] = self.begin_one()
        self.end_worker(which, True)

    def give_back_try_of_the_dead(self, task):
        task.give_back_try(task.dead_claim)
        task.dead_claim = None

    @invariant()
    def both_see_the_same(self):
        for remote in self.remotes:
            what, (found, claims) = remote.ask(facts)
            assert what == "returned"
            assert list(found) == self.in_order(lambda task: True)
            for key, task in self.tasks.items():
                if found[key][2] == task.tries - 1:
                    self.give_back_try_of_the_dead(task)
                assert found[key] == (task.done, task.aborted, task.tries), key
            assert claims == {
                key: self.remotes[task.claim.which].pid for key, task in self.tasks.items() if task.claim
            }


# (each step is a message to a process and an answer, and each example makes some processes)
TwoProcesses.TestCase.settings = TwoWorkers.TestCase.settings = settings(ORDINARY, max_examples=15)


class TestTwoProcesses(TwoProcesses.TestCase):
    pass


class TestTwoWorkers(TwoWorkers.TestCase):
    pass


@pytest.mark.storm
@pytest.mark.timeout(3600)
class TestTwoProcessesStorm(TwoProcesses.TestCase):
    settings = STORM


@pytest.mark.storm
@pytest.mark.timeout(3600)
class TestTwoWorkersStorm(TwoWorkers.TestCase):
    settings = STORM
