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
    """Write every sync of a private store into its log, with a checkpoint after that many changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "wal_min_places", 0)
        patch.setattr(Store, "checkpoint_at", checkpoint_at)
        yield


def is_tracker(cls):
    return issubclass(cls, (ProgressTracker, SharedProgressTracker))


def value_for(cls, value):
    """A value that ``cls`` can store. For a tracker, it is a task whose data is ``value``."""
    return {"value": value} if is_tracker(cls) else value


def changing(store):
    """The object through which a stored value is changed in place.

    A shared store needs ``.set``, because its reads are copies.
    """
    return store.set if isinstance(store, SharedPersistentOrderedDict) else store


class Kit:
    """Open stores of one class in one folder, and convert values for that class."""

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
        """The value to assign in order to store ``plain``."""
        return value_for(self.cls, plain)

    def plain(self, value):
        """The argument of ``value()``. It is the same object that the store watches."""
        return value["value"] if is_tracker(self.cls) else value

    def pairs(self, plain_pairs):
        """Keys with plain values, as ``update()`` and ``init`` take them."""
        return [(key, self.value(plain)) for key, plain in dict(plain_pairs).items()]

    def contents(self, store):
        """The plain values by key, in order."""
        return {key: self.plain(value) for key, value in store.iteritems()}

    def reopened(self, store):
        """Close a store, and open it again as a later run of the program does."""
        name = Path(store.path).name
        store.close()
        return self.open(name)

    def states(self, store):
        """The store as it is, and then as a later run of the program sees it."""
        yield store
        yield self.reopened(store)

    def finish(self):
        """Check every invariant at the end of the test, and close all stores, also after a failure."""
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
    """Yield a kit for a fixture, and check it afterwards."""
    kit = Kit(cls, folder)
    yield kit
    kit.finish()
