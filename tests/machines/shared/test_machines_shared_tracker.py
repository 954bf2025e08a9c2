"""Random operations on a shared tracker agree with a plain dict of tasks."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tastypy_fast import (
    DuplicateKeyError,
    SharedTracker,
)
from tests.support.machines import STATUS, STORM, Walk, instances, keys, text_of
from tests.support.shared_pod_machine import FEW, SharedPodMachine
from tests.support.tracker_machine import TrackerMachine, status_methods


@dataclass(eq=False)
class TryWalk(Walk):
    """A loop that claims tasks."""

    batch: int = 1
    # Tasks that were claimed and not yielded: keys, and their claims.
    waiting: list = field(default_factory=list)
    # Whether it has still to look for tasks that earlier loops left.
    fresh: bool = True


@dataclass(eq=False)
class Claim:
    """The owner of a task, and its tries with the one that the claim counted, unless they were set since.

    The owner is a TryWalk, or one of the two threads through a gate. It is "nobody" when the owner has ended.
    """

    holder: Any
    tries: int

    def is_free(self):
        """Whether a loop of the machine's thread may claim the task."""
        return self.holder in ("this thread", "nobody") or (isinstance(self.holder, TryWalk) and self.holder.finished)


class SharedTrackerMachine(SharedPodMachine, TrackerMachine):
    """The same machine for a tracker, with gates and claiming loops of two threads."""

    cls = SharedTracker

    change_status_by_reference = change_what_a_walk_hands_out = None
    # Whether a change of tries is relative, so that it also applies to the tries of a claim.
    adds_tries = False
    # The key of a task whose claim the operation ends, although its status may stay the same.
    ended = None

    def open(self):
        self.claims = {}
        super().open()

    def snapshot(self):
        return super().snapshot(), {key: (claim, claim.tries) for key, claim in self.claims.items()}

    def restore(self, before):
        before, claims = before
        self.claims = {key: claim for key, (claim, _) in claims.items()}
        for claim, tries in claims.values():
            claim.tries = tries
        super().restore(before)

    @contextlib.contextmanager
    def step(self, which, *changed, marks=True):
        before = {key: self.facts_of(key) for key in self.claims}
        before_claims = dict(self.claims)
        with super().step(which, *changed, marks=marks) as store:
            yield store
            if self.ended is not None:
                # Now, because the operation may sync at its end.
                self.end_claim(self.ended)
            for key, facts in before.items():
                # A claim ends when its task is finished or deleted.
                place, done, aborted, tries = self.facts_of(key) or (None, None, None, None)
                if place != facts[0]:
                    self.claims.pop(key, None)
                elif done > facts[1] or aborted > facts[2]:
                    self.end_claim(key, has_begun=tries != facts[3])
                elif tries != facts[3] and self.claims.get(key) is before_claims[key] and not self.adds_tries:
                    # The tries were set.
                    self.claims[key].tries = tries + 1

    def facts_of(self, key):
        item = self.now.get(key)
        return item and (item.place, item.value["_done"], item.value["_aborted"], item.value["_tries"])

    def waits(self, claim):
        """Whether the task is in a batch and was not yielded."""
        return isinstance(claim.holder, TryWalk) and any(claim is other for _, other in claim.holder.waiting)

    def end_claim(self, key, has_begun=False):
        """End a claim, and take back its try if the task was never yielded."""
        claim = self.claims.pop(key, None)
        if claim is not None and not has_begun and self.waits(claim) and claim.tries <= self.now[key].value["_tries"]:
            self.now[key].value["_tries"] -= 1

    # Adding and finishing many

    @rule(which=instances, some=st.lists(keys, max_size=8), if_absent=st.booleans())
    def add_many_tasks(self, which, some, if_absent):
        new = list(dict.fromkeys(key for key in some if key not in self.now))
        refused = not if_absent and len(new) < len(some)
        with self.step(which, *[] if refused else new) as store:
            if refused:
                with pytest.raises(DuplicateKeyError):
                    store.add_many(some)
                return
            (store.add_many_if_absent if if_absent else store.add_many)(iter(some))
            for key in new:
                self.add(key, {})

    @rule(which=instances, some=st.lists(keys, max_size=5))
    def mark_many_done(self, which, some):
        missing = set(some) - self.now.keys()
        with self.step(which, *[] if missing else some) as store:
            if missing:
                with pytest.raises(KeyError):
                    store.mark_done_many(some)
                return
            store.mark_done_many(iter(some))
            for key in some:
                self.now[key].value["_done"] = True
                self.now[key].value.pop("_error", None)
                self.end_claim(key)

    # Status

    @rule(which=instances, key=keys, method=status_methods)
    def change_status(self, which, key, method):
        added = {"increment_tries": 1, "decrement_tries": -1}.get(method, 0)
        self.adds_tries = added != 0
        self.ended = key if method in ("mark_done", "mark_not_done", "abort") else None
        super().change_status(which, key, method)
        self.adds_tries, self.ended = False, None
        if key in self.claims:
            self.claims[key].tries += added

    @rule(which=instances, key=keys, name=st.sampled_from(STATUS), flag=st.booleans(), tries=st.integers(-2, 5))
    def change_status_by_keying(self, which, key, name, flag, tries):
        if key in self.now:
            with self.step(which, key) as store:
                store.set[key][name] = self.now[key].value[name] = tries if name == "_tries" else flag

    @rule(which=instances)
    def revert(self, which):
        before = {key: self.now[key].place for key in self.claims}
        self.adds_tries = True
        super().revert(which)
        self.adds_tries = False
        found = self.stores[0].claimed_keys()
        for key, place in before.items():
            item = self.saved.get(key)
            if item is None or item.place != place:
                assert key not in found
            elif not item.value["_done"] and not item.value["_aborted"]:
                assert key in found
            if key not in found:
                self.claims.pop(key, None)

    @rule(which=instances, key=keys)
    def move_to_end(self, which, key):
        claim = self.claims.get(key)
        if claim is None or self.in_order()[-1][0] == key:
            super().move_to_end(which, key)
        else:
            is_released = self.waits(claim)
            with self.step(which, key) as store:
                store.move_to_end(key)
                self.places += 1
                self.now[key].place = self.places
                if is_released:
                    self.end_claim(key)
            if not is_released:
                self.claims[key] = claim

    # Claiming

    @rule(which=instances, key=keys, allow_aborted=st.booleans(), elsewhere=st.booleans(),
          gate=st.sampled_from(["should_do", "should_do_add", "should_try", "should_try_add"]))
    def gate(self, which, key, gate, allow_aborted, elsewhere=False):
        if key not in self.now and not gate.endswith("add"):
            return
        # Another thread would wait for the end of the block.
        elsewhere = elsewhere and not self.blocks
        is_new, tries = key not in self.now, "try" in gate
        task = {} if is_new else dict(self.now[key].value)
        if tries and key in self.claims:
            claim = self.claims[key]
            if self.may_take(claim, elsewhere) and self.waits(claim) and claim.tries <= task["_tries"]:
                # The gate uses the try of the claim.
                task["_tries"] -= 1
        opens = is_new or self.open_task(task, allow_aborted)
        if tries and key in self.claims:
            opens = opens and self.may_take(self.claims[key], elsewhere)
        with self.step(which, *[key] * (is_new or (opens and tries))) as store:
            if is_new:
                self.add(key, {})
            ask = getattr(store, gate)
            found = self.thread.submit(ask, key, allow_aborted).result(30) if elsewhere else ask(key, allow_aborted)
            assert found is opens
            if opens and tries:
                now = self.now[key].value
                now["_tries"] = task.get("_tries", 0) + 1
                self.claims[key] = Claim("the other thread" if elsewhere else "this thread", now["_tries"])

    def may_take(self, claim, elsewhere):
        if isinstance(claim.holder, TryWalk):
            return not elsewhere
        return claim.holder in ("the other thread" if elsewhere else "this thread", "nobody")

    @rule()
    def other_thread_ends(self):
        self.thread.shutdown()
        self.thread = ThreadPoolExecutor(1)
        for claim in self.claims.values():
            if claim.holder == "the other thread":
                claim.holder = "nobody"

    @rule(which=instances, key=keys)
    def release(self, which, key):
        with self.step(which, *[key] * (key in self.claims)) as store:
            if key in self.now:
                store.release(key)
                self.end_claim(key)
            else:
                with pytest.raises(KeyError):
                    store.release(key)

    @rule(which=instances, kind=st.sampled_from(["keys", "values", "items"]), allow_aborted=st.booleans(),
          family=st.sampled_from(["todo", "try", "aborted"]), batch=st.sampled_from([1, 1, 2, 3, 100]))
    def start_a_walk_over_tasks(self, which, kind, family, allow_aborted, batch=1):
        if family != "try":
            super().start_a_walk_over_tasks(which, kind, family, allow_aborted)
            return
        which %= len(self.stores)
        iterator = getattr(self.stores[which], f"try_{kind}")(allow_aborted, batch=batch)
        self.walks.append(TryWalk(which, iterator, kind, attempt=True, batch=batch,
                                  wants=lambda task: self.open_task(task, allow_aborted)))

    def walk(self, which, *facts, **more_facts):
        tries = [walk for walk in self.walks if isinstance(walk, TryWalk)]
        self.walks = [walk for walk in self.walks if not isinstance(walk, TryWalk)]
        super().walk(which, *facts, **more_facts)
        self.walks = tries + self.walks

    @precondition(lambda self: self.walks and not self.blocks)
    @rule(number=st.integers(0, 50), collected=st.booleans())
    def end_a_walk(self, number, collected):
        walk = self.walks.pop(number % len(self.walks))
        if isinstance(walk, TryWalk):
            self.end(walk, collected)

    def end(self, walk, collected=False):
        given_back = [key for key, claim in walk.waiting if self.claims.get(key) is claim]
        with self.step(walk.which, *given_back):
            if not collected:
                walk.iterator.close()
            walk.iterator = None
            self.give_back(walk)

    def give_back(self, walk):
        for key, claim in walk.waiting:
            if self.claims.get(key) is claim:
                self.end_claim(key)
        walk.finished = True
        walk.waiting = []

    def go_one_further(self, walk):
        if not isinstance(walk, TryWalk):
            super().go_one_further(walk)
            return
        while walk.waiting:
            key, claim = walk.waiting.pop(0)
            if self.claims.get(key) is claim:
                with self.step(walk.which):
                    self.compare(walk, next(walk.iterator), key)
                return
        with self.step(walk.which) as store:
            yielded = next(walk.iterator, self)
            chosen = [key for key, item in self.in_order() if store.tries(key) != item.value["_tries"]]
            self.check_choice(walk, chosen)
            if not chosen or walk.finished:
                assert yielded is self
                walk.finished = True
                return
            walk.fresh = False
            walk.position = self.now[chosen[-1]].place
            for key in chosen:
                self.now[key].value["_tries"] += 1
                self.claims[key] = Claim(walk, self.now[key].value["_tries"])
            walk.waiting = [(key, self.claims[key]) for key in chosen[1:]]
            self.touch(chosen)
            self.compare(walk, yielded, chosen[0])

    def in_order(self):
        return sorted(self.now.items(), key=lambda pair: pair[1].place)

    def check_choice(self, walk, chosen):
        """Check that a loop yields only tasks that it may yield, and skips none of them."""
        assert len(chosen) <= (0 if walk.finished else walk.batch)
        ahead = [key for key, item in self.in_order() if walk.wants(item.value) and walk.is_ahead(item.place)]
        assert all(key in ahead and (key not in self.claims or self.claims[key].is_free()) for key in chosen)
        if not walk.finished:
            due = [key for key in ahead if key not in self.claims or (walk.fresh and self.claims[key].is_free())]
            passed = due[: walk.batch] if len(chosen) == walk.batch else due
            last = self.now[chosen[-1]].place if chosen else float("inf")
            assert all(key in chosen for key in passed if len(chosen) < walk.batch or self.now[key].place < last)

    def compare(self, walk, yielded, key):
        value = text_of(self.now[key].value)
        if walk.kind == "items":
            assert (yielded[0], text_of(yielded[1])) == (key, value)
        elif walk.kind == "values":
            assert text_of(yielded) == value
        else:
            assert yielded == key

    # Closing

    @rule()
    def reopen(self):
        for store in self.stores:
            store.close()
        for walk in self.walks:
            if isinstance(walk, TryWalk):
                self.give_back(walk)
        self.is_saved()
        self.open()
        self.look()

    @precondition(lambda self: len(self.stores) > 1)
    @rule()
    def close_one_and_join_again(self):
        lost = [walk for walk in self.walks if walk.which == 1 and isinstance(walk, TryWalk)]
        super().close_one_and_join_again()
        for walk in lost:
            walk.which = 0
            self.end(walk)

    # Reading

    def check_reads(self, store):
        super().check_reads(store)
        assert store.claimed_keys() == [key for key, _ in self.in_order() if key in self.claims]


class TestSharedTracker(SharedTrackerMachine.TestCase):
    settings = FEW


@pytest.mark.storm
@pytest.mark.timeout(0)
class TestSharedTrackerStorm(SharedTrackerMachine.TestCase):
    settings = STORM
