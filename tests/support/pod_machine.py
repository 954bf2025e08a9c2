"""Random operations on a dict store and on a plain dict, which has the expected results."""

from __future__ import annotations

import contextlib
import copy
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from tastypy_fast import (
    InvalidKeyError,
    PersistentOrderedDict,
    UnstorableValueError,
)
from tastypy_fast._core.deleted_runs import set_shortest
from tests.support.machines import (
    KEYS,
    Item,
    MachineOnDisk,
    Walk,
    change,
    changes,
    instances,
    keys,
    listed,
    merges,
    pairs,
    text_of,
    values,
    walk_kinds,
)


class PodMachine(MachineOnDisk):
    """One or two instances that share their memory, and a witness that sees only the disk."""

    cls = PersistentOrderedDict
    # Options that the shared classes have not.
    of_private: ClassVar = {"sync_every": 3600}

    # Beginning and end

    @initialize(
        sync_at=st.lists(st.sampled_from([1, 2, 3, 5, 1000, 1000]), min_size=1, max_size=2), gzipped=st.booleans(),
        looks=st.booleans(), max_tries=st.integers(0, 3), filled=st.booleans(), checkpoint_at=merges,
        watched=st.sampled_from([0, 1, 1000, 1000]), shortest_run=st.sampled_from([1, 1, 3, 32]),
    )
    def begin(self, sync_at, gzipped, looks, max_tries, filled, checkpoint_at, watched, shortest_run):
        self.begin_in_a_folder(checkpoint_at)
        self.resources.callback(set_shortest, set_shortest(shortest_run))
        self.watched = watched
        self.gzipped, self.sync_at, self.max_tries = gzipped, sync_at, max_tries
        # Checking resolves deferred work. Without a check, longer chains of deferred work occur.
        self.looks = looks
        self.now, self.saved, self.touched = {}, {}, set()
        self.places = 0
        self.open()
        if filled:
            self.update(0, [(key, self.first(number)) for number, key in enumerate(KEYS)])

    def first(self, number):
        """Initial values of every kind."""
        return [number] if number % 2 else {"x": []}

    def options(self):
        return {"gzipped": self.gzipped, **self.of_private}

    def open(self):
        self.stores = [self.cls(self.path, sync_at=sync_at, **self.options()) for sync_at in self.sync_at]
        # The rule sync_by_time() does what the background thread does.
        self.stores[0]._store.wake_background = lambda: None
        self.stores[0]._cache.watched_by_each = self.watched
        self.witness = self.resources.enter_context(self.cls(self.path, clone=False, **self.options()))
        self.held = [False] * len(self.stores)
        self.walks, self.references = [], []

    # The model

    def stored(self, value):
        """The value that is read back after an assignment."""
        return copy.deepcopy(value)

    def given(self, value):
        """A value to assign; for a plain store, any JSON value."""
        return copy.deepcopy(value)

    def put(self, key, value):
        if key in self.now:
            self.now[key].value = self.stored(value)
        else:
            self.add(key, value)

    def add(self, key, value):
        self.places += 1
        self.now[key] = Item(self.places, self.stored(value))

    def on_disk(self):
        return [(key, text_of(value)) for key, value in self.witness.iteritems()]

    def differing(self):
        """The keys whose value or position on disk differs from that in memory."""
        return {
            key for key in self.now.keys() | self.saved.keys()
            if (key in self.now) != (key in self.saved) or self.now[key].place != self.saved[key].place
            or text_of(self.now[key].value) != text_of(self.saved[key].value)
        }

    @contextlib.contextmanager
    def step(self, which, *changed, marks=True):
        """An operation of one instance that may change some keys, and may sync before or after it has done so.

        ``marks``: keys that it changes are dirty also where they are afterwards what they were.
        """
        which %= len(self.stores)
        before = copy.deepcopy(self.now)
        yield self.stores[which]
        marked = set(changed) if marks else set()
        self.touched |= marked
        disk = self.on_disk()
        if disk != listed(self.saved):
            assert not self.held[which], "a sync while on hold"
            if disk == listed(self.now):
                self.is_saved()
            else:
                assert disk == listed(before), "the sync wrote neither what was before this step nor what is after it"
                self.saved, self.touched = before, marked
        dirty = self.stores[which].dirty()
        if not self.differing() <= dirty and disk == listed(self.now) and not self.held[which]:
            # The keys are synced, and the disk looks as before. A key was deleted and added again with the same value.
            self.is_saved()
        assert self.differing() <= dirty <= self.differing() | self.touched
        if changed and not self.held[which]:
            # A value that is held past a sync does not count again.
            assert len(dirty - {key for key, _, _ in self.references}) <= self.sync_at[which]

    @contextlib.contextmanager
    def step_by_reference(self, which):
        """The same for a change of a held value. An automatic sync may miss this change."""
        with self.step(which):
            yield
        if self.watched < 1000:
            self.sync(which)

    def is_saved(self):
        self.saved, self.touched = copy.deepcopy(self.now), set()

    def value_at(self, store, key):
        """Read a value by its key. Only the caller holds it."""
        value = store[key]
        assert text_of(value) == text_of(self.now[key].value)
        return value

    def if_there(self, key):
        return [key] if key in self.now else []

    def mutable(self):
        return [key for key, item in self.now.items() if isinstance(item.value, (list, dict))]

    # Rules: changing

    @rule(which=instances, key=keys, value=values)
    def assign(self, which, key, value):
        with self.step(which, key) as store:
            store[key] = self.given(value)
            self.put(key, self.given(value))

    @rule(which=instances, key=keys)
    def delete(self, which, key):
        with self.step(which, *self.if_there(key)) as store:
            if key in self.now:
                del store[key]
                del self.now[key]
            else:
                with pytest.raises(KeyError):
                    del store[key]

    @rule(which=instances, key=keys, value=values)
    def delete_and_add_again(self, which, key, value):
        self.delete(which, key)
        self.assign(which, key, value)

    @rule(which=instances, key=keys)
    def move_to_end(self, which, key):
        # The last key stays where it is, so it does not become dirty, and nothing is synced.
        is_moved = key in self.now and self.now[key].place < max(item.place for item in self.now.values())
        with self.step(which, *[key] * is_moved) as store:
            if key not in self.now:
                with pytest.raises(KeyError):
                    store.move_to_end(key)
            else:
                store.move_to_end(key)
                if is_moved:
                    self.places += 1
                    self.now[key].place = self.places

    @rule(which=instances, key=keys)
    def pop(self, which, key):
        with self.step(which, *self.if_there(key)) as store:
            value = store.pop(key, self)
            assert (value is self) == (key not in self.now)
            if key in self.now:
                assert text_of(value) == text_of(self.now.pop(key).value)

    @rule(which=instances, last=st.booleans())
    def popitem(self, which, last):
        in_order = sorted(self.now, key=lambda key: self.now[key].place)
        expected = in_order[-1 if last else 0] if in_order else None
        with self.step(which, *in_order and [expected]) as store:
            if not in_order:
                with pytest.raises(KeyError):
                    store.popitem(last)
            else:
                key, value = store.popitem(last)
                assert (key, text_of(value)) == (expected, text_of(self.now.pop(expected).value))

    @rule(which=instances, ends=st.lists(st.booleans(), min_size=2, max_size=6), reverts=st.booleans())
    def take_from_the_ends(self, which, ends, reverts):
        for last in ends:
            self.popitem(which, last)
            self.look_at_the_ends(which)
        if reverts:
            self.revert(which)
            self.look_at_the_ends(which)

    @rule(which=instances)
    def look_at_the_ends(self, which):
        in_order = sorted(self.now, key=lambda key: self.now[key].place)
        with self.step(which) as store:
            assert next(iter(store), self) == (in_order[0] if in_order else self)
            assert next(reversed(store), self) == (in_order[-1] if in_order else self)

    @rule(which=instances, key=keys, value=values)
    def setdefault(self, which, key, value):
        missing = {key} - self.now.keys()
        with self.step(which, *missing) as store:
            if missing:
                self.put(key, self.given(value))
            found = store.setdefault(key, self.given(value))
            assert text_of(found) == text_of(self.now[key].value)

    @rule(which=instances, pairs=pairs)
    def update(self, which, pairs):
        store = self.stores[which % len(self.stores)]

        def one_by_one():
            """Each pair is one step: the store has assigned it when it requests the next pair."""
            for key, value in pairs:
                with self.step(which, key):
                    yield key, self.given(value)
                    self.mix_in(key, self.given(value))

        store.update(one_by_one())

    def mix_in(self, key, value):
        self.put(key, value)

    @rule(which=instances)
    def clear(self, which):
        index = which % len(self.stores)
        before = sorted(self.now.items(), key=lambda pair: pair[1].place)
        self.stores[index].clear()
        self.now = {}
        disk = self.on_disk()
        # Any of the deletions may have synced. All of them delete from the start.
        states = [dict(before[count:]) for count in range(len(before) + 1)]
        saved = next((state for state in states if disk == listed(state)), None)
        if disk != listed(self.saved):
            assert not self.held[index], "a sync while on hold"
            assert saved is not None, "the sync wrote what was at no time in between"
            self.saved = saved
        elif saved is not None:
            # A sync does not show here. After one, the keys on disk may have new positions.
            self.stores[index].sync()
            self.saved = {}
        self.touched = set()
        assert self.stores[index].dirty() == set(self.saved)

    # Rules: changing values that were read by key

    @precondition(lambda self: self.mutable())
    @rule(which=instances, number=st.integers(0, 50), **changes)
    def change_by_keying(self, which, number, deep, how, part):
        key = self.mutable()[number % len(self.mutable())]
        with self.step(which) as store:
            value = self.value_at(store, key)
        # The rest of the step is what follows the read in "pod[key].append(part)".
        with self.step(which):
            change(value, deep, how, part)
            change(self.now[key].value, deep, how, part)
            del value

    @precondition(lambda self: self.mutable())
    @rule(which=instances, number=st.integers(0, 50))
    def keep_a_reference(self, which, number):
        key = self.mutable()[number % len(self.mutable())]
        with self.step(which) as store:
            self.references.append((key, self.value_at(store, key), self.now[key].value))

    @precondition(lambda self: self.references)
    @rule(which=instances, number=st.integers(0, 50), **changes)
    def change_by_reference(self, which, number, deep, how, part):
        number %= len(self.references)
        key, value, model = self.references[number]
        if key in self.now and self.now[key].value is model:
            with self.step_by_reference(which):
                change(value, deep, how, part)
                change(model, deep, how, part)
        else:
            # The key was assigned, deleted or reverted since, so the reference has no effect any more.
            change(value, deep, how, part)
            del self.references[number]
            with self.step(which):
                pass

    @precondition(lambda self: self.references)
    @rule()
    def drop_references(self):
        self.references.clear()

    @precondition(lambda self: self.mutable())
    @rule(which=instances, number=st.integers(0, 50), newer=st.none() | values, **changes)
    def change_in_a_loop_and_mark(self, which, number, newer, deep, how, part):
        """A copy that an iterator yielded is saved if it is marked dirty and was not replaced before."""
        wanted = self.mutable()[number % len(self.mutable())]
        store = self.stores[which % len(self.stores)]
        value = next(value for key, value in store.iteritems() if key == wanted)
        if newer is not None:
            self.assign(which, wanted, newer)
        with self.step(which, wanted):
            if newer is None:
                before = text_of(value)
                change(value, deep, how, part)
                if text_of(value) != before:
                    # The copy replaces the value that was read by key.
                    self.now[wanted].value = copy.deepcopy(self.now[wanted].value)
                change(self.now[wanted].value, deep, how, part)
            store.mark_dirty(wanted)

    @precondition(lambda self: self.mutable())
    @rule(which=instances, number=st.integers(0, 50), mended=st.booleans())
    def poison(self, which, number, mended):
        """Make a value unstorable. The sync saves all others, and names its key."""
        key = self.mutable()[number % len(self.mutable())]
        with self.step(which) as store:
            value = self.value_at(store, key)
        spoilt = {"bad": {1}}
        value.append(spoilt) if isinstance(value, list) else value.update(spoilt=spoilt)
        with pytest.raises(UnstorableValueError):
            store.sync()
        kept = self.saved.get(key)
        self.is_saved()
        if kept is None:
            del self.saved[key]
        else:
            self.saved[key] = kept
        self.touched.add(key)
        assert self.on_disk() == listed(self.saved)
        assert store.dirty() == {key}
        if mended:
            value.pop() if isinstance(value, list) else value.pop("spoilt")
            del value
            with self.step(which):
                pass
        else:
            self.revert(which)

    # Rules: reading

    @rule(which=instances, key=keys)
    def read(self, which, key):
        with self.step(which) as store:
            assert (key in store) == (key in self.now)
            if key in self.now:
                self.value_at(store, key)
                assert text_of(store.get(key)) == text_of(self.now[key].value)
            else:
                assert store.get(key, self) is self
                with pytest.raises(KeyError):
                    store[key]

    @rule(which=instances, some=st.lists(keys, max_size=6))
    def read_many(self, which, some):
        with self.step(which) as store:
            found = [(key, text_of(value)) for key, value in store.get_many(some)]
            assert found == [(key, text_of(self.now[key].value)) for key in some if key in self.now]

    @rule(which=instances)
    def count(self, which):
        with self.step(which) as store:
            assert len(store) == len(self.now)

    @rule(which=instances, bad=st.sampled_from([1.5, None, b"a", ("a", 2.0)]))
    def bad_key(self, which, bad):
        with self.step(which) as store:
            assert bad not in store
            for use, error in [(store.__delitem__, KeyError), (lambda key: store.update([(key, {})]), InvalidKeyError)]:
                with pytest.raises(error):
                    use(bad)

    @rule(which=instances, key=keys)
    def bad_value(self, which, key):
        with self.step(which) as store, pytest.raises(UnstorableValueError):
            store[key] = {"x": [object()]}

    # Rules: saving

    @rule(which=instances)
    def sync(self, which):
        store = self.stores[which % len(self.stores)]
        store.sync()
        self.is_saved()
        assert self.on_disk() == listed(self.saved)
        assert store.dirty() == set()

    @rule()
    def sync_by_time(self):
        self.stores[0]._store.run_background(at_once=True)
        if not any(self.held):
            self.is_saved()
            assert self.stores[0].dirty() == set()
        assert self.on_disk() == listed(self.saved)

    @rule(which=instances, key=keys)
    def sync_key(self, which, key):
        store = self.stores[which % len(self.stores)]
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
        assert self.on_disk() == listed(self.saved)
        assert self.differing() <= store.dirty() <= self.differing() | self.touched

    @rule(which=instances, key=keys)
    def mark_dirty(self, which, key):
        with self.step(which, *self.if_there(key)) as store:
            if key in self.now:
                store.mark_dirty(key)
                assert key in store.dirty() or not store.dirty()
            else:
                with pytest.raises(KeyError):
                    store.mark_dirty(key)

    @rule(which=instances)
    def revert(self, which):
        self.stores[which % len(self.stores)].revert()
        self.now, self.touched = copy.deepcopy(self.saved), set()
        with self.step(which) as store:
            assert store.dirty() == set()

    @rule(which=instances, held=st.booleans())
    def hold_or_unhold(self, which, held):
        with self.step(which) as store:
            self.held[which % len(self.stores)] = held
            (store.hold if held else store.unhold)()
        if not held:
            assert len(store.dirty() - {key for key, _, _ in self.references}) < self.sync_at[which % len(self.stores)]

    @rule()
    def reopen(self):
        for store in (*self.stores, self.witness):
            store.close()
        self.is_saved()
        self.open()
        self.look()

    @precondition(lambda self: len(self.stores) > 1)
    @rule()
    def close_one_and_join_again(self):
        closed = self.stores.pop()
        closed.close()
        self.is_saved()
        self.walks = [walk for walk in self.walks if walk.which == 0]
        self.stores.append(self.cls(closed.path, sync_at=self.sync_at[1], **self.options()))
        self.held[1] = False
        assert self.on_disk() == listed(self.now)

    # Rules: iterating while everything changes

    @rule(which=instances, kind=walk_kinds)
    def start_a_walk(self, which, kind):
        store = self.stores[which % len(self.stores)]
        iterator = reversed(store) if kind == "backwards" else getattr(store, f"iter{kind}")()
        self.walk(which, iterator, "keys" if kind == "backwards" else kind, backwards=kind == "backwards")

    def walk(self, which, *facts, **more_facts):
        self.walks = [*self.walks[-4:], Walk(which % len(self.stores), *facts, **more_facts)]

    @precondition(lambda self: self.walks)
    @rule(number=st.integers(0, 50), steps=st.integers(1, 4))
    def go_on(self, number, steps):
        for _ in range(steps):
            self.go_one_further(self.walks[number % len(self.walks)])

    @rule(which=instances, kind=walk_kinds,
          some=st.lists(st.lists(st.tuples(keys, st.none() | values), max_size=5), max_size=5))
    def walk_while_keys_change(self, which, kind, some):
        """Between the steps, delete some keys and assign others."""
        self.start_a_walk(which, kind)
        for key_changes in some:
            self.go_one_further(self.walks[-1])
            for key, value in key_changes:
                if value is None:
                    self.delete(which, key)
                else:
                    self.assign(which, key, value)

    def go_one_further(self, walk):
        found = None if walk.finished else walk.next_in(self.now)
        if found is None:
            walk.finished = True
            with self.step(walk.which):
                assert next(walk.iterator, self) is self
            return
        walk.position, key = found
        with self.step(walk.which, *[key] * walk.attempt, marks=False):
            if walk.attempt:
                self.now[key].value["_tries"] += 1
            yielded = next(walk.iterator, self)
            value = text_of(self.now[key].value)
            if walk.kind == "items":
                assert yielded is not self
                assert (yielded[0], text_of(yielded[1])) == (key, value)
            elif walk.kind == "values":
                assert text_of(yielded) == value
            else:
                assert yielded == key

    # Checking

    @invariant()
    def check_everything(self):
        if hasattr(self, "path") and self.looks:
            self.look()

    @rule()
    def look(self):
        for which in range(len(self.stores)):
            # Any operation of an instance may sync, because the other instance may have left enough dirty keys.
            with self.step(which) as store:
                self.check_reads(store)
        for key, value, model in self.references:
            if key in self.now and self.now[key].value is model:
                assert text_of(value) == text_of(model)

    def check_reads(self, store):
        store._check()
        assert len(store) == len(self.now)
        expected = listed(self.now)
        assert [(key, text_of(value)) for key, value in store.iteritems()] == expected
        for value in store.values():
            if isinstance(value, (dict, list)):
                # This is a copy, so a change of it has no effect.
                value.clear()
        assert store.keys() == [key for key, _ in expected]
        assert list(reversed(store)) == store.keys()[::-1]
        assert [key in store for key in KEYS] == [key in self.now for key in KEYS]
