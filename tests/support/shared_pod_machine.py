"""Random operations on a shared store, inside and outside blocks."""

from __future__ import annotations

import contextlib
import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tastypy_fast import (
    InvalidKeyError,
    NotLockedError,
    SharedPOD,
    UnstorableValueError,
)
from tests.support.machines import ORDINARY, STATUS, change, changes, instances, keys, listed, pairs, text_of, values
from tests.support.pod_machine import PodMachine


def change_through(place, value, deep, how, part):
    """The same as ``change(value, deep, how, part)``, through ``place``, which is the value below ``.set``."""
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
    """An open block, and the contents when it began."""

    kind: str
    which: int
    scope: Any
    before: Any


class SharedPodMachine(PodMachine):
    """One or two instances with nested blocks, and another thread that reads."""

    cls = SharedPOD
    thread = None

    keep_a_reference = change_by_reference = drop_references = change_in_a_loop_and_mark = poison = sync_by_time = None
    of_private: ClassVar = {}

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
        """The changes are visible to all. The commit may have been the one that syncs."""
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


# Each of their steps is at least one transaction.
FEW = settings(ORDINARY, max_examples=25)
