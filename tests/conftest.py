"""What several test modules need."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tastypy_fast import (
    PersistentOrderedDict,
    ProgressTracker,
    SharedPersistentOrderedDict,
    SharedProgressTracker,
)
from tastypy_fast._store.store import Store

# Disks vary too much between machines for Hypothesis's own limits; print_blob tells how to reproduce a failure; its
# phase "explain" traces every line, which takes minutes.
settings.register_profile(
    "storm",
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# The ordinary run has the same examples each time, so that it never fails by luck. (And no database of examples.)
settings.register_profile("ordinary", settings.get_profile("storm"), derandomize=True)


def is_storm(config):
    """Whether what is marked ``storm`` was asked for by that name."""
    return "storm" in config.option.markexpr


def pytest_configure(config):
    config.addinivalue_line("markers", "all_classes: any_class is also each shared class, not only the private ones")
    config.addinivalue_line("markers", "with_log(*names): any_class is also each private class with every sync in the "
                            "write-ahead log; in the ordinary run only those that are named, the others with -m storm")
    # (before any test module is imported: what they call settings() is made of this)
    settings.load_profile("storm" if is_storm(config) else "ordinary")


@pytest.fixture
def seed(request):
    """What random operations are derived from: the same in each ordinary run, another one in each storm.
    TASTYPY_FAST_SEED chooses it."""
    chosen = os.environ.get("TASTYPY_FAST_SEED")
    if chosen:
        number = int(chosen)
    elif is_storm(request.config):
        number = random.SystemRandom().randrange(2**32)
    else:
        number = zlib.crc32(request.node.name.encode())
    print("seed", number)
    return number


def pytest_collection_modifyitems(config, items):
    """What is marked ``storm`` runs when it is asked for."""
    if not is_storm(config):
        storms = [item for item in items if item.get_closest_marker("storm")]
        items[:] = [item for item in items if item not in storms]
        config.hook.pytest_deselected(items=storms)


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


@pytest.fixture(autouse=True)
def _log(request):
    with logging(7) if LOGGED in request.node.name else contextlib.nullcontext():
        yield


def pytest_generate_tests(metafunc):
    """``any_class``: each class in turn, as the marks of the test say; what a value is differs, see ``value_for``."""
    chosen = any("any_class" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize"))
    if "any_class" in metafunc.fixturenames and not chosen:
        every = metafunc.definition.get_closest_marker("all_classes")
        names = [name for name in CLASSES if every or not name.startswith("shared")]
        params = [pytest.param(CLASSES[name], id=name) for name in names]
        if log := metafunc.definition.get_closest_marker("with_log"):
            for name in ("pod", "tracker"):
                marks = () if name in log.args else pytest.mark.storm
                params.append(pytest.param(CLASSES[name], id=name + LOGGED, marks=marks))
        metafunc.parametrize("any_class", params)


@pytest.fixture(params=[PersistentOrderedDict, ProgressTracker], ids=["pod", "tracker"])
def private_class(request):
    """Each class of one process in turn: for what the shared ones do not do."""
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def is_tracker(cls):
    return issubclass(cls, (ProgressTracker, SharedProgressTracker))


def value_for(cls, value):
    """A value that ``cls`` stores: for a tracker, a task whose data is ``value``."""
    return {"value": value} if is_tracker(cls) else value


def changing(store):
    """Where a value inside of a store is changed by keying; what a shared store hands out is a copy."""
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


@pytest.fixture
def kit(any_class, tmp_path):
    yield from kit_for(any_class, tmp_path)


@pytest.fixture
def private_kit(private_class, tmp_path):
    yield from kit_for(private_class, tmp_path)


@pytest.fixture
def store(kit):
    """An empty store."""
    return kit.open()


@pytest.fixture
def run_python():
    """Run a piece of code in another process, with this one's import path; what it prints."""

    def run(code, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
            capture_output=True, text=True, env=environment, timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def no_leaks():
    """Fail when file descriptors or threads are left."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    gc.collect()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
