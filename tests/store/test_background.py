"""``sync_every``: a change is synced by itself after so many seconds, also while the program computes."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from tastypy_fast import POD, DiskFullError, SharedPOD, Tracker
from tastypy_fast._core import signal_wake
from tastypy_fast._store import registry
from tastypy_fast._store.store import Store
from tests.support.children import start
from tests.support.stores import value_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

# Short enough to be over before a test has waited, and long enough to be never over.
SOON, NEVER = 0.001, 3600.0


def wait_until(condition):
    """Wait for what the background thread does. It fails after a minute, however busy the machine is."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def run_due(store):
    """Do in this thread what the background thread does when its time has come."""
    store._store.run_background(at_once=True)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("tastypy_fast")]


@pytest.fixture
def no_thread(monkeypatch):
    """Stores schedule their syncs, and only ``run_due()`` makes them."""
    monkeypatch.setattr(registry._background, "wake", lambda: None)


CHANGES = {
    "assign": lambda store, value: store.__setitem__("a", value),
    "delete": lambda store, value: store.__delitem__("old"),
    "update": lambda store, value: store.update(a=value),
    "setdefault": lambda store, value: store.setdefault("a", value),
    "mark dirty": lambda store, value: store.mark_dirty("old"),
    "change in place": lambda store, value: store["old"].update(b=2),
    "pop": lambda store, value: store.pop("old"),
}
TASK_CHANGES = {
    "mark done": lambda tracker: tracker.mark_done("old"),
    "mark many done": lambda tracker: tracker.mark_done_many(["old"]),
    "increment tries": lambda tracker: tracker.increment_tries("old"),
    "reset tries": lambda tracker: tracker.reset_tries("old"),
    "add": lambda tracker: tracker.add("a"),
    "add many": lambda tracker: tracker.add_many_if_absent(["a", "b"]),
    "try": lambda tracker: next(tracker.try_keys()),
    "try items": lambda tracker: next(tracker.try_items()),
    "should try": lambda tracker: tracker.should_try("old"),
    "status in place": lambda tracker: tracker["old"].update(_done=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_synced_when_its_time_has_come(private_class, path, no_thread, change):
    store = private_class(path, init={"old": {"a": 1}}, sync_every=NEVER)
    store.sync()
    change(store, value_for(private_class, 1))
    assert store._store.background_due() is not None
    run_due(store)
    with_change = store.items()
    store.revert()
    assert (store.items(), store._store.background_due()) == (with_change, None)
    store._check()
    store.close()


@pytest.mark.parametrize("change", TASK_CHANGES.values(), ids=TASK_CHANGES)
def test_every_change_of_a_status_is_synced_when_its_time_has_come(path, no_thread, change):
    tracker = Tracker(path, init={"old": {}}, sync_every=NEVER)
    tracker.sync()
    change(tracker)
    assert tracker._store.background_due() is not None
    run_due(tracker)
    with_change = tracker.items()
    tracker.revert()
    assert (tracker.items(), tracker._store.background_due()) == (with_change, None)
    tracker._check()
    tracker.close()


@pytest.mark.parametrize("use", [
    lambda store: store.get("a"), lambda store: len(store), lambda store: store.keys(), lambda store: store.dirty(),
    lambda store: "a" in store, lambda store: store.sync(), lambda store: store.revert(),
])
def test_reading_schedules_nothing(private_class, path, no_thread, use):
    with private_class(path, sync_every=NEVER) as store:
        use(store)
        assert store._store.background_due() is None


def test_a_value_that_is_referenced_is_saved_without_any_call(path, no_thread):
    with POD(path, init={"list": []}, sync_every=NEVER) as store:
        found = store["list"]
        for number in range(3):
            found.append(number)
            run_due(store)
            store.revert()  # (back to the last sync)
            assert store["list"] == found[:number + 1]
            found = store["list"]
        del found
        run_due(store)
        run_due(store)
        assert store._store.background_due() is None


def test_more_values_than_a_sync_by_count_compares_are_saved_too(path, no_thread):
    with POD(path, init={number: [] for number in range(3000)}, sync_every=NEVER) as store:
        held = [store[number] for number in range(3000)]
        store.sync()
        for value in held:
            value.append(1)
        run_due(store)
        store.revert()
        assert all(value == [1] for value in store.values())


def test_a_program_that_computes_is_synced_and_can_be_killed(path):
    program = """
        import sys
        from tastypy_fast import POD
        store = POD(sys.argv[1], sync_every=0.01)
        store["a"] = []
        found = store["a"]
        found.append(1)
        while True:
            pass
    """
    with start(program, path) as process:
        def is_there():
            try:
                with POD(path, mode="r") as reader:
                    return reader.get("a") == [1]
            except OSError:
                return False
        try:
            wait_until(is_there)
        finally:
            process.kill()
    with POD(path) as store:
        assert store.items() == [("a", [1])]


def test_hold_and_locked_suspend_it(private_class, path, no_thread):
    with private_class(path, sync_every=NEVER) as store, private_class(path, sync_every=NEVER) as other:
        store.hold()
        other["a"] = value_for(private_class, 1)
        run_due(store)
        assert store.dirty() == {"a"}
        store.unhold()
        run_due(store)
        assert store.dirty() == set()
        with store.locked():
            store["b"] = value_for(private_class, 1)
            thread = threading.Thread(target=run_due, args=(store,))
            thread.start()
            thread.join()
            run_due(store)
            assert store.dirty() == {"b"}
        assert store._store.background_due() is not None
        run_due(store)
        assert store.dirty() == set()


def test_a_hold_ends_with_its_instance(path, no_thread):
    with POD(path, sync_every=NEVER) as store:
        other = POD(path, sync_every=NEVER)
        other.hold()
        store["a"] = 1
        del other
        gc.collect()
        run_due(store)
        assert store.dirty() == set()


def test_instances_on_one_cache_use_the_smallest(path, no_thread):
    def seconds():
        store.sync()
        run_due(store)
        store["a"] = 1
        return store._store.background_due() - time.monotonic()

    store = POD(path, sync_every=None)
    store["a"] = 1
    assert store._store.background_due() is None
    others = [POD(path, sync_every=1000), POD(path, sync_every=100), POD(path, sync_every=10)]
    assert 5 < seconds() <= 10
    others.pop().close()
    assert 50 < seconds() <= 100
    others.pop()  # (not closed)
    gc.collect()
    assert 500 < seconds() <= 1000
    others.pop().close()
    store.sync()
    store["a"] = 2
    assert store._store.background_due() is None
    assert store.dirty() == {"a"}


def test_a_change_from_before_there_was_a_time_is_synced_too(path, no_thread):
    with POD(path, sync_every=None) as store:
        store["a"] = 1
        with POD(path, sync_every=NEVER):
            assert store._store.background_due() is not None
            run_due(store)
            assert store.dirty() == set()


def test_a_cache_of_its_own_has_a_time_of_its_own(path, no_thread):
    with POD(path, sync_every=NEVER) as store, POD(path, sync_every=None, clone=False) as other:
        other["a"] = 1
        assert store._store.background_due() is None
        store["b"] = 1
        run_due(store)
        assert (store.dirty(), other.dirty()) == (set(), {"a"})


def test_a_sync_by_count_moves_the_time_on(path, no_thread):
    """Otherwise a program that changes a lot would be synced by both."""
    with POD(path, sync_at=2, sync_every=NEVER) as store:
        store["a"] = store["b"] = 1
        first = store._store.background_due()
        store["c"] = 1
        store._cache.sync_when_due()
        assert (store.dirty(), store._store.background_due()) == ({"c"}, first)


@pytest.mark.parametrize("wrong", [0, -1, 0.0, float("nan")])
def test_times_that_are_none_are_refused(private_class, path, wrong):
    with pytest.raises(ValueError, match="sync_every must be more than 0 seconds, or None"):
        private_class(path, sync_every=wrong)
    assert not path.exists()


@pytest.mark.parametrize("wrong", ["1", True, [1]])
def test_what_is_no_number_is_refused(private_class, path, wrong):
    with pytest.raises(TypeError, match="sync_every must be a number of seconds or None"):
        private_class(path, sync_every=wrong)


@pytest.mark.parametrize("seconds", [float("inf"), 10**400, 1e-300])
def test_any_other_time_is_taken(path, seconds):
    with POD(path, sync_every=seconds) as store:
        store["a"] = 1
    with POD(path, mode="r", sync_every=seconds) as store:
        assert store.items() == [("a", 1)]


# Errors

@pytest.fixture
def full(monkeypatch):
    """A disk that is full until ``full.clear()``."""
    state = ["full"]
    write = Store.write

    def fail(self, work):
        if state:
            raise DiskFullError(28, "the disk is full")
        return write(self, work)

    monkeypatch.setattr(Store, "write", fail)
    return state


def use_next(store):
    store["b"] = {}


@pytest.mark.parametrize("use", [use_next, lambda store: store.sync(), lambda store: store.close()],
                         ids=["write", "sync", "close"])
def test_an_error_is_raised_by_the_next_write_sync_or_close(private_class, path, no_thread, full, use):
    full.clear()
    store = private_class(path, sync_every=NEVER)
    full.append("full")
    store["a"] = {}
    run_due(store)
    assert store["a"] is not None
    with pytest.raises(DiskFullError):
        use(store)
    full.clear()
    run_due(store)
    assert "a" in store
    store["c"] = {}
    store.close()
    with private_class(path, mode="r") as store:
        assert set(store.keys()) >= {"a", "c"}


def test_a_write_that_raises_the_error_is_made_all_the_same(path, no_thread, full):
    full.clear()
    with POD(path, sync_every=NEVER) as store:
        full.append("full")
        store["a"] = 1
        run_due(store)
        with pytest.raises(DiskFullError):
            store["b"] = 2
        store["c"] = 3  # (the error is raised once)
        full.clear()
        run_due(store)
        assert store.dirty() == set()
        assert store.items() == [("a", 1), ("b", 2), ("c", 3)]


def test_a_sync_that_has_failed_is_tried_again_and_forgotten_when_it_succeeds(path, no_thread, full):
    full.clear()
    with POD(path, sync_every=NEVER) as store:
        full.append("full")
        store["a"] = 1
        run_due(store)
        assert store._store.background_due() is not None
        full.clear()
        run_due(store)
        store["b"] = 1


def test_an_error_is_reported_at_exit(path):
    program = """
        import errno, sys
        from tastypy_fast import DiskFullError, POD
        from tastypy_fast._store.store import Store
        store = POD(sys.argv[1], sync_every=3600)
        store["a"] = 1
        def fail(self, work):
            raise DiskFullError(errno.ENOSPC, "the disk is full")
        Store.write = fail
        store._store.run_background(at_once=True)
    """
    with start(program, path) as process:
        _, errors = process.communicate()
    assert process.returncode == 0
    assert errors.count("not everything in") == 1
    assert "the disk is full" in errors


def test_a_value_that_is_just_being_changed_is_left_to_the_next_sync(path, no_thread):
    with POD(path, init={"a": {}}, sync_every=NEVER) as store:
        found = store["a"]
        found["set"] = {1, 2}
        store["b"] = 1
        run_due(store)
        assert store.dirty() == {"a"}
        store["c"] = 1  # (no error)
        found["set"] = sorted(found["set"])
        run_due(store)
        assert store.dirty() == set()


# The thread

def test_there_is_a_thread_from_the_first_change_to_the_last_close(path, tmp_path):
    assert not threads()
    store = POD(path, sync_every=NEVER)
    other = Tracker(tmp_path / "tracker", sync_every=NEVER)
    assert not threads()
    store["a"] = 1
    other["a"] = {}
    assert len(threads()) == 1
    assert threads()[0].daemon
    store.close()
    assert len(threads()) == 1
    other.close()
    wait_until(lambda: not threads())


def test_no_thread_starts_where_sync_every_is_none_or_the_store_is_read_or_shared(path, tmp_path):
    with POD(path, sync_every=None) as store:
        store["a"] = []
        store["a"].append(1)
        assert not threads()
    with POD(path, mode="r") as store:
        store["a"].append(1)
        assert not threads()


def opened_in_a_thread(cls, path, **options):
    stores = []
    thread = threading.Thread(target=lambda: stores.append(cls(path, **options)))
    thread.start()
    thread.join()
    return stores[0]


@pytest.mark.parametrize("cls", [POD, SharedPOD])
def test_the_thread_starts_with_a_store_that_is_opened_off_the_main_thread(path, tmp_path, cls):
    """It waits for signals, for which Python allows no handler there."""
    store = opened_in_a_thread(cls, path)
    assert len(threads()) == 1
    store.close()
    wait_until(lambda: not threads())


@pytest.mark.parametrize("in_main_thread", [True, False])
def test_a_fork_ends_the_thread_that_waits_for_signals(path, in_main_thread):
    """The main thread can install handlers of Python instead, so that no fork of its own is beside a thread."""
    def fork():
        child = os.fork()
        if not child:
            os._exit(len(threads()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    with opened_in_a_thread(POD, path):
        if in_main_thread:
            fork()
        else:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(fork).result()
        assert len(threads()) == (not in_main_thread)
        assert signal_wake.wakes_on(signal.SIGTERM) == (not in_main_thread)
        assert (signal.getsignal(signal.SIGTERM) == signal.SIG_DFL) == (not in_main_thread)


def test_signals_keep_their_default_action_where_no_thread_can_start(path, monkeypatch):
    monkeypatch.setattr(registry._background, "wake", lambda: False)
    with opened_in_a_thread(POD, path):
        assert not signal_wake.wakes_on(signal.SIGTERM)


def test_the_thread_syncs_all_stores(path, tmp_path):
    stores = [POD(tmp_path / str(number), sync_every=SOON) for number in range(5)]
    for store in stores:
        store["a"] = [1]
    wait_until(lambda: not any(store.dirty() for store in stores))
    for store in stores:
        store.close()


def test_the_thread_holds_nothing_alive(path):
    store = POD(path, sync_every=NEVER)
    store["a"] = 1
    reference = weakref.ref(store)
    del store
    gc.collect()
    assert reference() is None
    with POD(path, mode="r") as store:
        assert store.items() == [("a", 1)]
    wait_until(lambda: not threads())


def test_a_fork_ends_the_thread_after_a_sync_and_a_change_starts_it_again(path):
    with POD(path, sync_every=NEVER) as store:
        store["a"] = 1
        assert len(threads()) == 1
        child = os.fork()
        if not child:
            os._exit(len(threads()) + 10 * (store.items() != [("a", 1)]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (threads(), store.dirty()) == ([], set())
        store["b"] = 1
        assert len(threads()) == 1


@pytest.mark.filterwarnings("error")
def test_a_value_that_is_referenced_is_saved_after_a_fork_without_any_call(path):
    """A pool of workers is forked, and the program collects the results in a list."""
    with POD(path, init={"found": []}, sync_every=0.01) as store:
        found = store["found"]
        for number in range(3):
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
            found.append(number)
            wait_until(lambda: not store.dirty())
    wait_until(lambda: not threads())


def test_a_fork_inside_a_block_syncs_nothing(path):
    with POD(path, sync_every=NEVER) as store:
        with store.locked():
            store["a"] = 1
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
            assert store.dirty() == {"a"}
        assert store._store.background_due() is not None
        assert len(threads()) == 1


def test_a_forked_child_has_a_thread_for_its_own_stores(path, tmp_path):
    with POD(path, sync_every=NEVER) as store:
        store["a"] = 1
        child = os.fork()
        if not child:
            own = POD(tmp_path / "own", sync_every=SOON)
            own["b"] = 1
            wait_until(lambda: not own.dirty())
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with POD(tmp_path / "own", mode="r") as own:
        assert own.items() == [("b", 1)]


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "raise SystemExit(0)", "threading.Thread(target=stay).start()",
                                    "atexit.register(store.__setitem__, 'late', 1)"])
def test_the_program_ends_without_a_sound(run_python, path, ending):
    program = f"""
import atexit, sys, threading
from tastypy_fast import POD
def stay():
    for number in range(1000):
        store[number] = number
store = POD(sys.argv[1], sync_every=0.001)
for number in range(3000):
    store["a"] = number
{ending}
"""
    assert run_python(program, path) == ""
    with POD(path, mode="r") as store:
        assert store["a"] == 2999
        assert len(store) == {"threading": 1001, "atexit.re": 2}.get(ending[:9], 1)


def test_a_store_is_used_while_it_is_synced_all_the_time(private_class, path):
    """Nothing is lost or half there, from two threads and with values that are changed in place."""
    with private_class(path, sync_every=1e-9, sync_at=7) as store:
        def work(name):
            for number in range(300):
                store[f"{name} {number}"] = {"list": []}
                store[f"{name} {number}"]["list"].append(number)
                if number % 3 == 0:
                    del store[f"{name} {number}"]
        others = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join()
        store._check()
    with private_class(path, mode="r") as store:
        assert {key: value["list"] for key, value in store.items()} == {
            f"{name} {number}": [number] for name in "ab" for number in range(300) if number % 3}


def test_a_shared_store_has_no_sync_every(path):
    with pytest.raises(TypeError):
        SharedPOD(path, sync_every=1)
