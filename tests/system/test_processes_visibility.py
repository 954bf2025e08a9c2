"""A write is visible to all other processes when it returns."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    SharedPOD,
    SharedTracker,
)
from tests.support.children import Child

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SEEN = {
    "pod[key]": lambda pod, number: pod["n"] == number,
    "get": lambda pod, number: pod.get("n") == number,
    "in": lambda pod, number: ("key", number) in pod and ("key", number + 1) not in pod,
    "len": lambda pod, number: len(pod) == number + 2,
    "keys": lambda pod, number: pod.keys()[-1] == ("key", number),
    "values": lambda pod, number: pod.values()[0] == number,
    "iteritems": lambda pod, number: next(pod.iteritems()) == ("n", number),
    "reversed": lambda pod, number: next(reversed(pod)) == ("key", number),
    "set": lambda pod, number: pod.set["n"].__str__ is not None and pod.set.get("n") == number,
    "dirty": lambda pod, number: pod.dirty() == {"n", *(("key", n) for n in range(number + 1))},
    "locked": lambda pod, number: read_in_block(pod) == number,
}


def read_in_block(pod):
    with pod.locked():
        return pod["n"]


@pytest.mark.parametrize("name", SEEN)
def test_write_is_seen_by_others_when_it_returns(path, name):
    seen = SEEN[name]
    turns = 40

    def write(pod, number):
        if number % 3 == 0:
            pod.update({"n": number, ("key", number): None})
        elif number % 3 == 1:
            with pod.locked():
                pod["n"] = number
                pod["key", number] = None
        else:
            pod.set["n"] += 1
            pod["key", number] = None

    def other(pipe):
        with SharedPOD(path) as pod:
            for number in range(0, turns, 2):
                assert pipe.recv() == number
                assert seen(pod, number)
                write(pod, number + 1)
                assert seen(pod, number + 1)
                pipe.send(number + 1)
            # Closing a store syncs it.
            pipe.recv()

    with SharedPOD(path, init={"n": -1}) as pod, Child(other) as child:
        pod.sync()
        for number in range(0, turns, 2):
            write(pod, number)
            child.pipe.send(number)
            assert child.pipe.recv() == number + 1
            assert seen(pod, number + 1)
        child.pipe.send("end")
        assert child.wait() == 0


def test_status_is_seen_by_others_when_it_is_set(path):
    def other(pipe):
        with SharedTracker(path, max_tries=3) as tracker:
            for number in range(20):
                assert pipe.recv() == number
                assert tracker.num_done() == tracker.num_tried() == tracker.num_aborted() == number
                assert next(tracker.todo_keys()) == number
                tracker.increment_tries(number)
                tracker.mark_done(number)
                tracker.abort(number)
                pipe.send(number)

    tasks = [(number, {}) for number in range(21)]
    with SharedTracker(path, max_tries=3, init=tasks) as tracker, Child(other) as child:
        for number in range(20):
            child.pipe.send(number)
            child.pipe.recv()
            assert tracker.done(number)
            assert tracker.aborted(number)
            assert tracker.tries(number) == 1
            assert not tracker.should_do(number, allow_aborted=True)
            assert tracker[number] == {"_done": True, "_aborted": True, "_tries": 1}
            assert next(tracker.todo_keys()) == number + 1
            assert list(tracker.aborted_keys()) == list(range(number + 1))
        assert child.wait() == 0


def test_running_loop_yields_keys_that_others_add(path):
    def other(pipe):
        with SharedPOD(path) as pod:
            for number in range(1, 50):
                pipe.recv()
                pod[number] = {"n": number}
                if number % 3 == 0:
                    del pod[number - 1]
                pipe.send(number)

    with SharedPOD(path, init={0: {"n": 0}}) as pod, Child(other) as child:
        found = []
        for key, value in pod.iteritems():
            assert value == {"n": key}
            found.append(key)
            if key < 49:
                child.pipe.send("next")
                child.pipe.recv()
        assert found == list(range(50))
        assert child.wait() == 0


def test_sync_hold_and_revert_apply_to_all_processes(path):
    def other(pipe):
        pipe.recv()
        with SharedPOD(path, sync_at=3) as pod:
            pod["theirs"] = 1
            pod.set["both"].append("theirs")
            pipe.send(pod.dirty())
            pipe.recv()
            for number in range(10):
                pod[number] = number
            pipe.send(pod.dirty())
            pipe.recv()
            assert pod.items() == [("both", [])]
            assert pod.dirty() == set()
            pod.update({1: 1, 2: 2, 3: 3})
            assert pod.dirty() == {1, 2, 3}
            # These are enough changes for the automatic sync.
            pod.unhold()
            pipe.send(pod.dirty())

    with SharedPOD(path, init={"both": []}, sync_at=100) as pod, Child(other) as child:
        pod.sync()
        pod.hold()
        pod.set["both"].append("mine")
        child.pipe.send("begin")
        assert child.pipe.recv() == {"theirs", "both"}
        child.pipe.send("write")
        assert child.pipe.recv() == {"theirs", "both", *range(10)} == pod.dirty()
        pod.revert()
        assert pod.items() == [("both", [])]
        child.pipe.send("go on")
        assert child.pipe.recv() == pod.dirty() == set()
        pod.revert()
        assert pod.items() == [("both", []), (1, 1), (2, 2), (3, 3)]
        assert child.wait() == 0
