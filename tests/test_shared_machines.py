"""Random operations on a shared store, in blocks and outside of them, beside a plain dict: see test_machines.py.

What is different from the private stores: nothing that is read is watched, each operation is there or not, hold and
the saved state are everybody's, blocks undo what they are to undo, and a tracker's tasks are claimed.
"""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tastypy_fast import (
    DuplicateKeyError,
    InvalidKeyError,
    NotLockedError,
    SharedPOD,
    SharedTracker,
    UnstorableValueError,
)
from tests.test_machines import (
    ORDINARY,
    STATUS,
    STORM,
    PodMachine,
    TrackerMachine,
    Walk,
    change,
    changes,
    instances,
    keys,
    listed,
    pairs,
    status_methods,
    text_of,
    values,
)


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch):
    """Where the system has files in memory: that each flush reaches a disk is not what is tested here."""
    if os.access("/dev/shm", os.W_OK):
        monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")


def change_through(place, value, deep, how, part):
    """The same as ``change(value, deep, how, part)``, through ``place``, where the value lies below ``.set``."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    inside = [name for name, inner in parts if isinstance(inner, (list, dict))]
    if deep and inside:
        change_through(place[inside[-1]], value[inside[-1]], deep, how, part)
    elif isinstance(value, list):
        if how == "add":
            place.extend(iter([part]))
        elif how == "replace" and value:
            place[0] = part
        elif value:
            place.pop()
    elif how == "add":
        place |= {"new": part}
    else:
        names = [name for name in value if name not in STATUS]
        if names and how == "replace":
            place.update({names[0]: part})
        elif names:
            del place[names[-1]]


@dataclass
class Block:
    """An open block, and what was there when it began."""

    kind: str
    which: int
    scope: Any
    before: Any


class SharedPodMachine(PodMachine):
    """One or two instances, with blocks inside of blocks, and another thread that looks on."""

    cls = SharedPOD
    thread = None

    keep_a_reference = change_by_reference = drop_references = change_in_a_loop_and_mark = poison = None

    def open(self):
        self.stores = [self.cls(self.path, sync_at=sync_at, **self.options()) for sync_at in self.sync_at]
        if self.thread is None:
            self.thread = self.resources.enter_context(ThreadPoolExecutor(1))
        self.held = self.changed_since_hold = False
        self.blocks, self.walks, self.references = [], [], []
        self.touched_places = set()
        self.committed = copy.deepcopy(self.now)

    def close_all(self):
        for store in self.stores:
            store.close()

    # The model

    def is_saved(self):
        super().is_saved()
        self.touched_places = set()

    def snapshot(self):
        return *map(copy.deepcopy, (self.now, self.saved, self.touched, self.touched_places)), self.held

    def restore(self, before):
        self.now, self.saved, self.touched, self.touched_places, self.held = before

    @contextlib.contextmanager
    def step(self, which, *changed, marks=True):
        """An operation of one instance that may change some keys; it syncs, if at all, when it ends.

        (What any process has changed is dirty, also where it was changed back: ``marks`` makes no difference.)
        """
        self.touch(changed)
        yield self.stores[which % len(self.stores)]
        self.touch(changed)
        if not self.blocks:
            self.commit()

    def touch(self, some):
        self.touched.update(some)
        self.touched_places.update(self.now[key].place for key in some if key in self.now)
        self.changed_since_hold |= bool(some)

    def commit(self):
        """What was done is there for all; it may have been the one that syncs."""
        dirty, differing = self.stores[0].dirty(), self.differing()
        if differing and not dirty:
            assert not self.held, "a sync while on hold"
            assert len(self.touched_places) >= min(self.sync_at), "a sync before its time"
            self.is_saved()
        else:
            assert differing <= dirty <= differing | self.touched
            if self.changed_since_hold and not self.held:
                assert len(dirty) < max(self.sync_at), "no sync when it was time"
        self.changed_since_hold = False
        self.committed = copy.deepcopy(self.now)

    # Rules: blocks

    @precondition(lambda self: len(self.blocks) < 3)
    @rule(which=instances, kind=st.sampled_from(["locked", "transaction", "lock"]))
    def begin_a_block(self, which, kind):
        which %= len(self.stores)
        found = getattr(self.stores[which], kind)()
        if kind != "lock":
            assert found.__enter__() is self.stores[which]
        self.blocks.append(Block(kind, which, found, self.snapshot()))

    @precondition(lambda self: self.blocks)
    @rule(which=instances, fails=st.booleans())
    def end_a_block(self, which, fails):
        block = self.blocks.pop()
        if block.kind == "lock":
            self.stores[which % len(self.stores)].unlock()
        else:
            error = ZeroDivisionError() if fails else None
            assert not block.scope.__exit__(type(error), error, None)
            if fails and block.kind == "transaction":
                self.restore(block.before)
        if not self.blocks:
            self.commit()

    @rule(which=instances)
    def unlock_what_is_not_locked(self, which):
        if not self.blocks or self.blocks[-1].kind != "lock":
            with self.step(which) as store, pytest.raises(NotLockedError):
                store.unlock()

    @rule(which=instances)
    def look_from_another_thread(self, which):
        store = self.stores[which % len(self.stores)]
        found = self.thread.submit(store.items).result(30)
        assert [(key, text_of(value)) for key, value in found] == listed(self.committed)
        assert self.thread.submit(len, store).result(30) == len(self.committed)

    # Rules: changing

    @rule(which=instances, pairs=pairs)
    def update(self, which, pairs):
        with self.step(which, *[key for key, _ in pairs]) as store:
            store.update((key, self.given(value)) for key, value in pairs)
            for key, value in pairs:
                self.mix_in(key, self.given(value))

    @rule(which=instances, pairs=pairs, bad=st.sampled_from([(1.5, {}), ("a", {"x": {1}}), None]))
    def update_that_fails(self, which, pairs, bad):
        given = [(key, self.given(value)) for key, value in pairs]
        with self.step(which) as store:
            for use in (store.update, store.set.update, store.__ior__, store.set.__ior__):
                with pytest.raises((InvalidKeyError, UnstorableValueError, TypeError)):
                    use([*given, bad])

    @rule(which=instances)
    def clear(self, which):
        with self.step(which, *self.now) as store:
            store.clear()
            self.now = {}

    @precondition(lambda self: self.mutable())
    @rule(which=instances, number=st.integers(0, 50), **changes)
    def change_by_keying(self, which, number, deep, how, part):
        key = self.mutable()[number % len(self.mutable())]
        with self.step(which, key) as store:
            value = self.value_at(store, key)
            change_through(store.set[key], value, deep, how, part)
            assert text_of(value) == text_of(self.now[key].value), "what was read is a copy"
            change(self.now[key].value, deep, how, part)

    @precondition(lambda self: self.mutable())
    @rule(which=instances, number=st.integers(0, 50), part=values)
    def add_in_place(self, which, number, part):
        key = self.mutable()[number % len(self.mutable())]
        with self.step(which, key) as store:
            if isinstance(self.now[key].value, list):
                store.set[key] += [part]
            else:
                store.set[key] |= {"new": part}
            change(self.now[key].value, False, "add", part)

    @precondition(lambda self: self.mutable())
    @rule(which=instances, number=st.integers(0, 50))
    def spoil_through_set(self, which, number):
        key = self.mutable()[number % len(self.mutable())]
        with self.step(which) as store:
            place = store.set[key]
            method = place.append if isinstance(self.now[key].value, list) else lambda bad: place.update(a=1, b=bad)
            with pytest.raises(UnstorableValueError):
                method({1})
            with pytest.raises(AttributeError):
                place.nope()

    @rule(which=instances, key=keys, part=values)
    def change_what_was_read(self, which, key, part):
        with self.step(which) as store:
            value = store.get(key)
            if isinstance(value, (list, dict)):
                change(value, True, "add", part)

    # Rules: saving

    @rule(which=instances)
    def sync(self, which):
        with self.step(which) as store:
            store.sync()
            self.is_saved()
            assert store.dirty() == set()

    @rule(which=instances, key=keys)
    def sync_key(self, which, key):
        with self.step(which) as store:
            if key not in self.now and key not in self.saved:
                with pytest.raises(KeyError):
                    store.sync_key(key)
                return
            store.sync_key(key)
            self.touched.discard(key)
            if key in self.now:
                self.saved[key] = copy.deepcopy(self.now[key])
            else:
                del self.saved[key]
            assert key not in store.dirty()

    @rule(which=instances)
    def revert(self, which):
        with self.step(which) as store:
            store.revert()
            self.now, self.touched, self.touched_places = copy.deepcopy(self.saved), set(), set()
            assert store.dirty() == set()

    @rule(which=instances, held=st.booleans())
    def hold_or_unhold(self, which, held):
        with self.step(which) as store:
            (store.hold if held else store.unhold)()
            self.held, self.changed_since_hold = held, False

    @rule()
    def reopen(self):
        for store in self.stores:
            store.close()
        self.is_saved()
        self.open()
        self.look()

    @precondition(lambda self: len(self.stores) > 1)
    @rule()
    def close_one_and_join_again(self):
        closed = self.stores.pop()
        closed.close()
        self.blocks.clear()
        self.is_saved()
        self.walks = [walk for walk in self.walks if walk.which == 0]
        with self.step(0) as store:
            assert store.dirty() == set()
        self.stores.append(self.cls(closed.path, sync_at=self.sync_at[1], **self.options()))


@dataclass(eq=False)
class TryWalk(Walk):
    """A loop that claims tasks."""

    batch: int = 1
    # Claimed and not handed out: keys, and the claims as they were made.
    waiting: list = field(default_factory=list)
    # Whether it has not looked yet for what the loops before it have left.
    fresh: bool = True


@dataclass(eq=False)
class Claim:
    """Whose a task is: a TryWalk's, or that of one of the two threads, by a gate, and nobody's when that has ended; and
    its tries, with the one that the claim has counted, as far as nobody has set them since."""

    holder: Any
    tries: int

    def is_free(self):
        """Whether a loop of the machine's thread may have it."""
        return self.holder in ("this thread", "nobody") or (isinstance(self.holder, TryWalk) and self.holder.finished)


class SharedTrackerMachine(SharedPodMachine, TrackerMachine):
    """The same for a tracker, with gates and loops that claim, of two threads."""

    cls = SharedTracker

    change_status_by_reference = change_what_a_walk_hands_out = None
    # Whether the tries that change are not set, so that those of a claim follow.
    adds_tries = False

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
            for key, facts in before.items():
                # A claim ends with its task, however that ends.
                place, done, aborted, tries = self.facts_of(key) or (None, None, None, None)
                if place != facts[0]:
                    self.claims.pop(key, None)
                elif done > facts[1] or aborted > facts[2]:
                    self.end_claim(key, has_begun=tries != facts[3])
                elif tries != facts[3] and self.claims.get(key) is before_claims[key] and not self.adds_tries:
                    # They were set.
                    self.claims[key].tries = tries + 1

    def facts_of(self, key):
        item = self.now.get(key)
        return item and (item.place, item.value["_done"], item.value["_aborted"], item.value["_tries"])

    def waits(self, claim):
        """Whether it is one of a batch that was not handed out."""
        return isinstance(claim.holder, TryWalk) and any(claim is other for _, other in claim.holder.waiting)

    def end_claim(self, key, has_begun=False):
        """A claim ends, and its try is taken back if it never begins."""
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
                self.end_claim(key)

    # Status

    @rule(which=instances, key=keys, method=status_methods)
    def change_status(self, which, key, method):
        added = {"increment_tries": 1, "decrement_tries": -1}.get(method, 0)
        self.adds_tries = added != 0
        super().change_status(which, key, method)
        self.adds_tries = False
        if key in self.claims:
            self.claims[key].tries += added
        if method in ("mark_done", "mark_not_done", "abort"):
            self.end_claim(key)

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

    # Claiming

    @rule(which=instances, key=keys, allow_aborted=st.booleans(), elsewhere=st.booleans(),
          gate=st.sampled_from(["should_do", "should_do_add", "should_try", "should_try_add"]))
    def gate(self, which, key, gate, allow_aborted, elsewhere=False):
        if key not in self.now and not gate.endswith("add"):
            return
        # (another thread would wait for the end of the block)
        elsewhere = elsewhere and not self.blocks
        is_new, tries = key not in self.now, "try" in gate
        task = {} if is_new else dict(self.now[key].value)
        if tries and key in self.claims:
            claim = self.claims[key]
            if self.may_take(claim, elsewhere) and self.waits(claim) and claim.tries <= task["_tries"]:
                # This is that try.
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
            handed_out = next(walk.iterator, self)
            chosen = [key for key, item in self.in_order() if store.tries(key) != item.value["_tries"]]
            self.check_choice(walk, chosen)
            if not chosen or walk.finished:
                assert handed_out is self
                walk.finished = True
                return
            walk.fresh = False
            walk.position = self.now[chosen[-1]].place
            for key in chosen:
                self.now[key].value["_tries"] += 1
                self.claims[key] = Claim(walk, self.now[key].value["_tries"])
            walk.waiting = [(key, self.claims[key]) for key in chosen[1:]]
            self.touch(chosen)
            self.compare(walk, handed_out, chosen[0])

    def in_order(self):
        return sorted(self.now.items(), key=lambda pair: pair[1].place)

    def check_choice(self, walk, chosen):
        """Nothing is handed out that may not be, nor passed over that is to be handed out."""
        assert len(chosen) <= (0 if walk.finished else walk.batch)
        ahead = [key for key, item in self.in_order() if walk.wants(item.value) and walk.is_ahead(item.place)]
        assert all(key in ahead and (key not in self.claims or self.claims[key].is_free()) for key in chosen)
        if not walk.finished:
            due = [key for key in ahead if key not in self.claims or (walk.fresh and self.claims[key].is_free())]
            passed = due[: walk.batch] if len(chosen) == walk.batch else due
            last = self.now[chosen[-1]].place if chosen else float("inf")
            assert all(key in chosen for key in passed if len(chosen) < walk.batch or self.now[key].place < last)

    def compare(self, walk, handed_out, key):
        value = text_of(self.now[key].value)
        if walk.kind == "items":
            assert (handed_out[0], text_of(handed_out[1])) == (key, value)
        elif walk.kind == "values":
            assert text_of(handed_out) == value
        else:
            assert handed_out == key

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

    # Looking

    def look_at(self, store):
        super().look_at(store)
        assert store.claimed_keys() == [key for key, _ in self.in_order() if key in self.claims]


# Each of their steps is a transaction or more.
FEW = settings(ORDINARY, max_examples=25)


class TestSharedPod(SharedPodMachine.TestCase):
    settings = FEW


class TestSharedTracker(SharedTrackerMachine.TestCase):
    settings = FEW


@pytest.mark.storm
@pytest.mark.timeout(0)
class TestSharedPodStorm(SharedPodMachine.TestCase):
    settings = STORM


@pytest.mark.storm
@pytest.mark.timeout(0)
class TestSharedTrackerStorm(SharedTrackerMachine.TestCase):
    settings = STORM
