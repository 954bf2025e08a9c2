"""Random operations of two workers on one shared tracker agree with a model of claims."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tastypy_fast import SharedTracker
from tests.support.machines import ORDINARY, STORM
from tests.support.two_processes import THE_END, Remote, call, enter, go_on, leave, reopen, which

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

NOWHERE = float("inf")

MAX_TRIES = 4
keys = st.integers(0, 11)
gates = st.sampled_from(["should_try", "should_try_add"])
methods = st.sampled_from(
    ["mark_done", "mark_not_done", "abort", "unabort", "increment_tries", "decrement_tries", "reset_tries", "release"]
)


def facts(state):
    """The status of each task (done, aborted, tries) and the worker that claimed it."""
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
    """The process that has claimed a task."""

    which: int
    # The running loop that claimed the task; None if the loop has ended, or for a gate.
    loop: int | None = None
    # The task was not yielded yet.
    waits: bool = False
    # Its process already had the task when a batch claimed it again.
    was_mine: bool = False
    # The tries, with the one that the claim counted.
    tries: int = 0


@dataclass
class Task:
    place: int
    done: bool = False
    aborted: bool = False
    tries: int = 0
    claim: Claim | None = None
    # The claim of a dead worker. Its try is taken back as soon as another worker notices the death.
    dead_claim: Claim | None = None
    # The worker is dead. A loop may notice this only at its end.
    lost: bool = False

    def give_back_try(self, claim):
        """End a claim. If the task was not yielded, its try does not count, unless the tries were set since."""
        if claim is not None and claim.waits and self.tries >= claim.tries:
            self.tries -= 1

    def change_tries(self, added):
        """Change the tries. A number is added to them and to those of a claim; None sets them to zero."""
        self.tries = 0 if added is None else self.tries + added
        for claim in (self.claim, self.dead_claim):
            if claim is not None:
                claim.tries = 1 if added is None else claim.tries + added

    def less_dead(self):
        """The tries after the dead workers have been noticed."""
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
    """Two processes that work on one tracker, in turns."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store"
        self.tasks = {}
        self.places = itertools.count()
        self.loops = {}
        # A worker is dead, and perhaps no other worker has noticed.
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
            # No worker has them now, so every open task is available.
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
            # Tasks that were not yielded will never be.
            task.give_back_try(task.claim)
            self.give_back_try_of_the_dead(task)
            task.claim = None

    @precondition(lambda self: self.tasks)
    @rule(which=which, data=st.data())
    def note_a_result(self, which, data):
        """A result in the data of a task does not affect a claim."""
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
            # The task was claimed by a loop and not yielded, so the gate uses that try.
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
            # These were claimed before, and the claim has not ended since.
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
            # The loop has looked for dead workers at its end.
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
        """The tasks that a loop has just claimed, in order. All of them were available to it."""
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
        """The available open tasks between two positions."""
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


TwoWorkers.TestCase.settings = settings(ORDINARY, max_examples=8)


class TestTwoWorkers(TwoWorkers.TestCase):
    pass


@pytest.mark.storm
@pytest.mark.timeout(0)
class TestTwoWorkersStorm(TwoWorkers.TestCase):
    settings = STORM
