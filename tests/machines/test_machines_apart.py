"""Random operations of two instances with separate memory agree with a plain dict."""

from __future__ import annotations

import copy

import pytest
from hypothesis.stateful import initialize, rule

from tastypy_fast import (
    PersistentOrderedDict,
)
from tests.support.machines import ORDINARY, STORM, MachineOnDisk, instances, keys, merges, text_of, values


class ApartMachine(MachineOnDisk):
    """Two instances on one store with separate memory.

    Each sees the disk with its own unsynced changes merged over it.
    """

    GONE = object()

    @initialize(checkpoint_at=merges)
    def begin(self, checkpoint_at):
        self.begin_in_a_folder(checkpoint_at)
        self.stores = [PersistentOrderedDict(self.path, clone=False) for _ in range(2)]
        self.disk, self.unsaved = {}, [{}, {}]
        self.changes = 0

    def view(self, which):
        seen = {**self.disk, **self.unsaved[which]}
        return {key: value for key, value in seen.items() if value is not self.GONE}

    @rule(which=instances, key=keys, value=values)
    def assign(self, which, key, value):
        self.stores[which][key] = value
        self.unsaved[which][key] = copy.deepcopy(value)

    @rule(which=instances, key=keys)
    def delete(self, which, key):
        if key in self.view(which):
            del self.stores[which][key]
            self.unsaved[which].pop(key, None)
            if key in self.disk:
                self.unsaved[which][key] = self.GONE
        else:
            with pytest.raises(KeyError):
                del self.stores[which][key]

    @rule(which=instances, key=keys)
    def change_by_keying(self, which, key):
        if isinstance(self.view(which).get(key), list):
            # Each change assigns another value, so that none undoes an earlier one.
            self.changes += 1
            self.stores[which][key].append(self.changes)
            self.unsaved[which][key] = [*self.view(which)[key], self.changes]

    @rule(which=instances, key=keys)
    def read(self, which, key):
        assert (key in self.stores[which]) == (key in self.view(which))
        assert text_of(self.stores[which].get(key, self.GONE)) == text_of(self.view(which).get(key, self.GONE))

    @rule(which=instances)
    def sync(self, which):
        self.stores[which].sync()
        self.disk, self.unsaved[which] = self.view(which), {}
        assert self.stores[which].dirty() == set()

    @rule(which=instances, key=keys)
    def sync_key(self, which, key):
        if key in self.view(which) or key in self.disk:
            self.stores[which].sync_key(key)
            if key in self.view(which):
                self.disk[key] = self.view(which)[key]
            else:
                del self.disk[key]
            self.unsaved[which].pop(key, None)

    @rule(which=instances)
    def revert(self, which):
        self.stores[which].revert()
        self.unsaved[which] = {}

    @rule(which=instances)
    def look(self, which):
        store, view = self.stores[which], self.view(which)
        store._check()
        assert len(store) == len(view)
        assert {key: text_of(value) for key, value in store.iteritems()} == {
            key: text_of(value) for key, value in view.items()
        }
        assert list(reversed(store)) == store.keys()[::-1]
        changed = {key for key, value in self.unsaved[which].items() if value is not self.GONE or key in self.disk}
        assert store.dirty() == changed

    @rule()
    def both_agree_when_all_is_saved(self):
        for which in (0, 1):
            self.sync(which)
        assert self.stores[0].keys() == self.stores[1].keys()
        self.look(0)
        self.look(1)


@pytest.mark.timeout(900)
class TestApart(ApartMachine.TestCase):
    settings = ORDINARY


@pytest.mark.storm
@pytest.mark.timeout(0)
class TestApartStorm(ApartMachine.TestCase):
    settings = STORM
