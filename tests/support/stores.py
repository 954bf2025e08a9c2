"""The classes under test, and a kit that opens, fills and checks their stores."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tastypy_fast import (
    PersistentOrderedDict,
    ProgressTracker,
    SharedPersistentOrderedDict,
    SharedProgressTracker,
)
from tastypy_fast._store.store import Store

CLASSES = {
    "pod": PersistentOrderedDict,
    "tracker": ProgressTracker,
    "shared_pod": SharedPersistentOrderedDict,
    "shared_tracker": SharedProgressTracker,
}


# In the id of a test that runs with every sync in the log.
LOGGED = "-logged"


@contextlib.contextmanager
def logging(checkpoint_at):
    """Every sync of a private store goes into its log, out of which that many changes are merged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "wal_min_places", 0)
        patch.setattr(Store, "checkpoint_at", checkpoint_at)
        yield


def is_tracker(cls):
    return issubclass(cls, (ProgressTracker, SharedProgressTracker))


def value_for(cls, value):
    """A value that ``cls`` stores: for a tracker, a task whose data is ``value``."""
    return {"value": value} if is_tracker(cls) else value


def changing(store):
    """Where a value inside a store is changed by keying; what a shared store hands out is a copy."""
    return store.set if isinstance(store, SharedPersistentOrderedDict) else store


class Kit:
    """Opens stores of one class in one folder, and knows what a value is there."""

    def __init__(self, cls, folder: Path) -> None:
        self.cls = cls
        self.folder = folder
        self.stores: list = []

    def open(self, name="store", **options):
        store = self.cls(self.folder / name, **options)
        self.stores.append(store)
        return store

    @property
    def is_shared(self):
        return issubclass(self.cls, SharedPersistentOrderedDict)

    def value(self, plain):
        """What to assign in order to store ``plain``."""
        return value_for(self.cls, plain)

    def plain(self, value):
        """What ``value()`` was given; the same object that the store watches."""
        return value["value"] if is_tracker(self.cls) else value

    def pairs(self, plain_pairs):
        """Keys with plain values, as ``update()`` and ``init`` take them."""
        return [(key, self.value(plain)) for key, plain in dict(plain_pairs).items()]

    def contents(self, store):
        """The plain values by key, in order."""
        return {key: self.plain(value) for key, value in store.iteritems()}

    def reopened(self, store):
        """Close a store, and open it again: what a later run of the program sees."""
        name = Path(store.path).name
        store.close()
        return self.open(name)

    def states(self, store):
        """The store as it is, and then as a later run of the program sees it."""
        yield store
        yield self.reopened(store)

    def finish(self):
        """Every invariant holds at the end of every test; then all is closed, whatever went wrong."""
        try:
            for store in self.stores:
                if not store.closed:
                    store._check()
        finally:
            for store in self.stores:
                if not store.closed:
                    store.revert()
                    store.close()


def kit_for(cls, folder):
    """What a fixture yields: a kit, which is checked afterwards."""
    kit = Kit(cls, folder)
    yield kit
    kit.finish()
