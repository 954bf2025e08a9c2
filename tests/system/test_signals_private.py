"""Handlers of the program that use a private store, also in the middle of its syncs."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tastypy_fast import POD, StorageError, Tracker
from tastypy_fast._store.store import Store
from tests.support.children import Child
from tests.support.processes import contents


@pytest.fixture
def handled():
    """``handled(handler)`` installs a handler of SIGUSR1 until the end of the test."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, lambda number, frame: handler())
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def within_syncs(monkeypatch):
    """``within_syncs(action)`` calls ``action()`` in the next sync, before and after its transaction."""
    def install(action):
        write = Store.write

        def write_with_action(self, work):
            monkeypatch.setattr(Store, "write", write)
            action()
            result = write(self, work)
            action()
            return result

        monkeypatch.setattr(Store, "write", write_with_action)

    return install


def send():
    os.kill(os.getpid(), signal.SIGUSR1)


def test_changes_of_a_handler_in_a_sync_are_kept(path, handled, within_syncs):
    calls = []

    def change():
        pod["a"] = 2
        pod["b"]["c"] = 2
        pod["new"] = 3
        del pod["gone"]
        calls.append(pod.items())

    expected = [("a", 2), ("b", {"c": 2, "d": 1}), ("last", 5), ("new", 3)]
    pod = POD(path, sync_every=None, init={"a": 1, "b": {"c": 0}, "gone": [0], "last": 1})
    pod.sync()
    pod["a"] = 1.5
    pod["b"]["d"] = 1
    pod["gone"].append(1)
    pod["last"] = 5
    handled(change)
    within_syncs(lambda: calls or send())
    pod.sync()
    assert calls == [expected]
    assert pod.items() == expected
    assert pod.dirty() == {"a", "b", "new", "gone"}
    pod.close()
    assert contents(path) == expected


def test_status_and_tasks_of_a_handler_in_a_sync_are_kept(path, handled, within_syncs):
    calls = []

    def change():
        tracker.mark_done("a")
        tracker.increment_tries("b")
        tracker.add_if_absent("new")
        calls.append(None)

    tracker = Tracker(path, sync_every=None)
    tracker.add_many(["a", "b"])
    tracker.sync()
    tracker.increment_tries("a")
    tracker.add("c")
    handled(change)
    within_syncs(lambda: calls or send())
    tracker.sync()
    assert calls == [None]
    tracker.close()
    with Tracker(path) as again:
        assert again.keys() == ["a", "b", "c", "new"]
        assert again.done("a")
        assert (again.tries("a"), again.tries("b"), again.tries("c")) == (1, 1, 0)


def test_a_handler_in_a_sync_may_sync_and_end_the_process(path, within_syncs):
    def work(pipe):
        pod = POD(path, sync_every=None)

        def stop(number, frame):
            pod["stopped"] = True
            pod.sync()
            os._exit(7)

        signal.signal(signal.SIGTERM, stop)
        pod["a"] = 1
        within_syncs(lambda: os.kill(os.getpid(), signal.SIGTERM))
        pod.sync()

    with Child(work) as child:
        assert child.wait() == 7
    assert contents(path) == [("a", 1), ("stopped", True)]


def test_an_exception_of_a_handler_in_a_sync_comes_after_it(path, handled, within_syncs):
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    with POD(path, sync_every=None) as pod:
        handled(stop)
        pod["a"] = 1
        within_syncs(send)
        with pytest.raises(Stop):
            pod.sync()
        assert not pod.dirty()
    assert contents(path) == [("a", 1)]


def test_handlers_are_the_same_after_a_sync(path, handled, within_syncs):
    handled(lambda: None)
    numbers = sorted(signal.valid_signals())
    before = [signal.getsignal(number) for number in numbers]
    within = []
    with POD(path, sync_every=None) as pod:
        opened = [signal.getsignal(number) for number in numbers]
        pod["a"] = 1
        within_syncs(lambda: within.append([signal.getsignal(number) for number in numbers]))
        pod.sync()
        assert [signal.getsignal(number) for number in numbers] == opened
        # Ignored signals stay ignored.
        assert all(callable(one) == callable(other) for one, other in zip(within[0], opened, strict=True))
        assert all(one != other for one, other in zip(within[0], opened, strict=True) if callable(one))
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_signal_that_another_thread_receives_waits_until_a_sync_of_the_main_thread_is_written(
    path, handled, within_syncs
):
    seen = []

    def receive():
        # The kernel gives it to this thread, in which Python calls no handler.
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    def send_to_thread():
        thread = threading.Thread(target=receive)
        thread.start()
        thread.join()
        assert not seen

    with POD(path, sync_every=None) as pod:
        def change():
            pod["b"] = 2
            seen.append(pod.items())

        handled(change)
        pod["a"] = 1
        within_syncs(send_to_thread)
        pod.sync()
        assert seen
        assert seen[0] == [("a", 1), ("b", 2)]
    assert contents(path) == [("a", 1), ("b", 2)]


def test_a_finalizer_in_a_sync_is_refused_and_loses_nothing(path, within_syncs):
    errors = []

    class Finalized:
        def __del__(self):
            for use in (lambda: pod["a"], lambda: pod.update(b=2), lambda: pod.pop("a"), pod.sync, lambda: len(pod)):
                with pytest.raises(StorageError, match="interrupted a sync, during which") as caught:
                    use()
                errors.append(caught.value.filename)

    with POD(path, sync_every=None) as pod:
        pod["a"] = 1
        within_syncs(lambda: errors or Finalized())
        pod.sync()
        assert errors == [str(path)] * 5
        pod["c"] = 3
        assert pod.items() == [("a", 1), ("c", 3)]
    assert contents(path) == [("a", 1), ("c", 3)]
