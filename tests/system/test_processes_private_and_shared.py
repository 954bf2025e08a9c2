"""Private and shared openings exclude each other; short-lived processes leave nothing."""

from __future__ import annotations

import itertools
import os
import signal

import pytest

from tastypy_fast import (
    POD,
    ForkedStoreError,
    SharedPOD,
    SharedTracker,
    StoreConflictError,
    StoreInUseError,
    Tracker,
)
from tests.support.children import Child, result_of_child
from tests.support.workers import next_line, result_of, send_line, started

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# Private and shared

KINDS = [(POD, SharedPOD), (Tracker, SharedTracker)]


OPENS = """
import sys
import tastypy_fast
_, path, private, wanted = sys.argv
options = {"clone": False} if wanted == private else {}
for more in ({}, options):
    try:
        getattr(tastypy_fast, wanted)(path, **more)
    except tastypy_fast.StoreInUseError as error:
        assert isinstance(error, BlockingIOError)
        print(error)
with getattr(tastypy_fast, private)(path, mode="r") as reader:
    print(reader.keys())
"""


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_private_store_is_refused_while_others_share_it(path, private, shared):
    with shared(path, init={"a": {}}):
        status, output, errors = result_of(OPENS, path, private.__name__, private.__name__)
        assert (status, errors) == (0, "")
        *refusals, keys = output.splitlines()
        assert len(refusals) == 2
        for words in ("share", f"Shared{private.__name__}", 'mode="r"'):
            assert all(words in line for line in refusals)
        assert keys == "['a']"
    with private(path) as store:
        store["b"] = {}


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_shared_store_is_refused_while_it_is_private(path, private, shared):
    with private(path, init={"a": {}}) as store:
        store.sync()
        status, output, errors = result_of(OPENS, path, private.__name__, shared.__name__)
        assert (status, errors) == (0, "")
        *refusals, keys = output.splitlines()
        assert len(refusals) == 2
        assert all(f"process {os.getpid()} " in line and shared.__name__ in line for line in refusals)
        assert keys == "['a']"
        store["b"] = {}
    with shared(path) as store:
        assert store.keys() == ["a", "b"]


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_private_and_shared_instances_exclude_each_other_in_one_process(path, private, shared):
    for first, second in ((private, shared), (shared, private)):
        with first(path, init={"a": {}}) as store:
            with pytest.raises(StoreConflictError, match="same class"):
                second(path)
            store["b"] = {}
        second(path).close()


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_child_of_a_private_store_cannot_share_it(path, private, shared):
    with private(path, init={"a": {}}) as store:
        store.sync()

        def child(pipe):
            with pytest.raises((ForkedStoreError, StoreInUseError, StoreConflictError)):
                shared(path)
            assert store.keys() == ["a"]

        result_of_child(child)


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_reader_of_a_shared_store_sees_writes_of_other_processes(path, private, shared):
    """They are visible at once, because each operation is a commit."""
    program = f"""
        import sys
        from tastypy_fast import {private.__name__}
        with {private.__name__}(sys.argv[1], mode="r") as reader:
            for number in range(20):
                print("ready", flush=True)
                input()
                assert reader[number]["n"] == number
                assert len(reader) == len(reader.keys()) == number + 1
        """
    with shared(path, init={0: {"n": 0}}) as store, started(program, path) as other:
        for number in range(20):
            assert next_line(other) == "ready"
            store[number] = {"n": number}
            send_line(other)
        assert other.wait() == 0, other.stderr.read()


@pytest.mark.parametrize(("private", "shared"), KINDS)
def test_store_of_a_killed_shared_process_can_be_opened_privately(path, private, shared):
    def work(pipe):
        store = shared(path, init={"a": {}})
        if shared is SharedTracker:
            store.should_try("a")
        store["b"] = {}
        os.kill(os.getpid(), signal.SIGKILL)

    with Child(work) as child:
        assert child.wait() == -signal.SIGKILL
    with private(path) as store:
        assert store.keys() == ["a", "b"]
        store._check()
        store["c"] = {}
    with shared(path) as store:
        store._check()
        assert store.keys() == ["a", "b", "c"]


# Leaks

ENDS = {
    "returns": lambda tracker: None,
    "closes": lambda tracker: tracker.close(),
    "is killed": lambda tracker: os.kill(os.getpid(), signal.SIGKILL),
    "is killed in a block": lambda tracker: (tracker.lock(), os.kill(os.getpid(), signal.SIGKILL)),
    "is terminated": lambda tracker: os.kill(os.getpid(), signal.SIGTERM),
}


def slots_of_readers(path):
    """The number of slots of LMDB's reader table that were ever used."""
    program = "import lmdb, sys; print(lmdb.open(sys.argv[1], readonly=True).info()['num_readers'])"
    return int(result_of(program, path)[1])


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here")
def test_short_lived_processes_leak_nothing(path):
    times = 30

    def live(pipe, end, inherited):
        store = tracker if inherited else SharedTracker(path)
        assert store.should_try_add(("mine", os.getpid()))
        loop = store.try_keys(batch=3)
        next(loop)
        assert store["kept"]["n"] == 1
        len(store.values())
        end(store)

    with SharedTracker(path, init={"kept": {"n": 1}, **{n: {} for n in range(5)}}) as tracker:
        tracker.mark_done("kept")
        descriptors = None
        for number, end in itertools.product(range(times), ENDS.values()):
            with Child(live, end, number % 2 == 0) as child:
                assert child.wait() in (0, -signal.SIGKILL, -signal.SIGTERM)
            if descriptors is None:
                descriptors = len(os.listdir("/proc/self/fd"))
        assert tracker.claims() == {}
        assert len(os.listdir("/proc/self/fd")) == descriptors
        # At most two of them were open at any time, because the end of the previous one may not have been noticed.
        assert len(os.listdir(path / "workers")) <= 3
        assert slots_of_readers(path) <= 20
        loop = tracker.try_keys()
        assert list(loop) == [*range(5), *tracker.keys()[6:]]
        tracker._check()
    # Every child has added one.
    with SharedTracker(path) as tracker:
        assert len(tracker) == 6 + times * len(ENDS)
        assert tracker.claims() == {}
        tracker._check()
