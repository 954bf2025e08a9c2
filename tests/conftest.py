"""Configure the test run, and define the fixtures that all folders use."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tastypy_fast import PersistentOrderedDict, ProgressTracker, SharedProgressTracker
from tastypy_fast._store import registry
from tests.support.contract import ABC
from tests.support.in_memory import MEMORY, has_room
from tests.support.no_background import PRELUDE
from tests.support.stores import CLASSES, LOGGED, kit_for, logging
from tests.support.storm import is_storm

# Disks vary too much between machines for Hypothesis's own limits. print_blob shows how to reproduce a failure. The
# phase "explain" traces every line, which takes minutes.
settings.register_profile(
    "storm",
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# The ordinary run has the same examples each time, so that it never fails at random. There is no example database.
settings.register_profile("ordinary", settings.get_profile("storm"), derandomize=True)


def pytest_configure(config):
    config.addinivalue_line("markers", "all_classes: any_class is also each shared class, not only the private ones")
    config.addinivalue_line("markers", "with_log(*names): any_class is also each private class with every sync in the "
                            "write-ahead log; in the ordinary run only those that are named, the others with -m storm")
    # This must precede the import of any test module, because their settings() derive from it.
    settings.load_profile("storm" if is_storm(config) else "ordinary")


@pytest.fixture
def seed(request):
    """The seed of random operations: fixed in an ordinary run, and new in each storm. TASTYPY_FAST_SEED sets it."""
    chosen = os.environ.get("TASTYPY_FAST_SEED")
    if chosen:
        number = int(chosen)
    elif is_storm(request.config):
        number = random.SystemRandom().randrange(2**32)
    else:
        number = zlib.crc32(request.node.name.encode())
    print("seed", number)
    return number


# Files with many similar cases that take long. The ordinary run has half of them, always the same, the storm has all.
# In other files, the cases that are for the storm have its mark.
HALVED = (
    "formats/test_deep_values.py", "formats/test_json_text_round_trips.py", "maintenance/test_compact.py",
    "maintenance/test_page_check.py", "maintenance/test_repair.py", "maintenance/test_verify.py",
    "pipeline/test_run_faults.py", "pipeline/test_run_kills.py", "pipeline/test_run_tries.py",
    "pipeline/test_worker_pool.py", "power_cuts/test_failures.py", "system/test_leaks.py", "system/test_threads.py",
    "test_benchmarks.py",
)


def is_left_to_the_storm(item):
    """Return whether a test is for the storm: by its mark, or as a case of a file that is halved."""
    if item.get_closest_marker("storm"):
        return True
    file, _, case = item.nodeid.partition("::")
    return file.removeprefix("tests/") in HALVED and "[" in case and zlib.crc32(case.encode()) % 2 == 1


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Let the first worker compile the test modules, and the others wait for its bytecode.

    Otherwise each of them compiles all modules, because they collect at the same time.
    """
    if sys.dont_write_bytecode:
        return (yield)
    with open(__file__) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH)
        return (yield)


def pytest_collection_modifyitems(config, items):
    """Deselect the tests that are for the storm. A storm selects them by its mark."""
    if is_storm(config):
        for item in items:
            if is_left_to_the_storm(item):
                item.add_marker("storm")
    else:
        storms = []
        ordinary = []
        for item in items:
            (storms if is_left_to_the_storm(item) else ordinary).append(item)
        items[:] = ordinary
        config.hook.pytest_deselected(items=storms)


def pytest_collection_finish():
    """Exempt the collected tests from garbage collection, which otherwise goes over all of them each time.

    It would also write to their pages, which every forked child would have to copy.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _log(request):
    with logging(7) if LOGGED in request.node.name else contextlib.nullcontext():
        yield


def pytest_generate_tests(metafunc):
    """Parametrize ``any_class`` with each class, as the marks of the test say. See ``value_for`` for their values."""
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
    """Each private class in turn, for features that the shared classes lack."""
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


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
def opened():
    """Trackers that the test has opened. They are checked and closed at its end."""
    stores = []
    yield stores
    for store in stores:
        if not store.closed:
            store._check()
            store.close()


@pytest.fixture(params=[ProgressTracker, SharedProgressTracker], ids=["tracker", "shared_tracker"])
def tracker_class(request):
    """Each kind of tracker in turn."""
    return request.param


@pytest.fixture
def make(path, opened, tracker_class):
    """Open a tracker, which is checked at the end of the test."""

    def make(**options):
        opened.append(tracker_class(path, **options))
        return opened[-1]

    return make


@pytest.fixture
def run_python():
    """Run code in another process with the same import path, and return its output."""

    def run(code, *arguments, prelude=PRELUDE):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", prelude + code, *map(str, arguments)],
            capture_output=True, text=True, env=environment, timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(autouse=True, scope="module")
def all_stores_closed():
    """Fail if a module leaves a store open, because later tests would see its background thread and its locks."""
    yield
    if registry._registry:
        gc.collect()
        assert not registry._registry


@pytest.fixture
def no_leaks():
    """Fail if file descriptors or threads are left."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    gc.collect()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


@pytest.fixture(params=["in memory", "on disk", "half on disk"])
def abc(request, kit):
    """A store with the contents ABC, in each place that may have its data."""
    store = kit.open()
    for number, (key, value) in enumerate(kit.pairs(ABC)):
        store[key] = value
        if request.param == "half on disk" and number == 1:
            store.sync()
    if request.param == "on disk":
        store.sync()
    return store


@pytest.fixture
def way(kit):
    """The path to the data below ``.set[key]``."""
    return lambda place: place if kit.plain({"value": 0}) else place["value"]


@pytest.fixture
def needs_disk():
    """Whether the files of a test must be on a disk. A conftest.py or a module overrides it."""
    return False


@pytest.fixture
def tmp_path(request, needs_disk):
    """A folder in memory unless the test needs a disk, because a flush to a disk takes milliseconds."""
    if needs_disk or not has_room():
        # (only here, because pytest lists and links folders on the disk for each test that asks for its own fixture)
        yield request.getfixturevalue("tmp_path")
        return
    folder = Path(tempfile.mkdtemp(prefix="tastypy_fast-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
