"""The try of a task that kills its process is counted, and no other one that was not synced."""

from __future__ import annotations

import os
import random
import signal
import threading

import pytest

from tastypy_fast import POD, SharedTracker, Tracker, maintenance
from tastypy_fast._core.running_tasks import SLOT_COUNT
from tastypy_fast._lmdb import boot_id
from tastypy_fast._store import running_file
from tests.support.children import Child, run

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

KEYS = ["a", 0, ("t", 1), "k" * 511, "k" * 600, "😀", "", "z"]


def die_in(work, *arguments):
    """Run ``work`` in a child, which must kill itself."""
    def run_it(pipe, *arguments):
        work(*arguments)
        os._exit(1)

    with Child(run_it, *arguments) as child:
        assert child.wait() == -signal.SIGKILL


def kill_myself():
    os.kill(os.getpid(), signal.SIGKILL)


def tries_in(path):
    with Tracker(path) as tracker:
        tracker._check()
        return {key: tracker.tries(key) for key in tracker if tracker.tries(key)}


@pytest.fixture
def keys(path):
    """A tracker on disk with tasks whose keys are of every type."""
    with Tracker(path) as tracker:
        tracker.add_many(KEYS)
    return KEYS


# How a task comes to be running when the process is killed.
def by_loop(tracker, key):
    for each in tracker.try_keys():
        if each == key:
            kill_myself()
        tracker.mark_done(each)


def by_loop_over_items(tracker, key):
    for each, task in tracker.try_items():
        if each == key:
            kill_myself()
        task["_done"] = True


def by_loop_over_values(tracker, key):
    for each, _ in zip(list(tracker), tracker.try_values(), strict=False):
        if each == key:
            kill_myself()
        tracker.mark_done(each)


def by_next(tracker, key):
    while (each := next(tracker.try_keys())) != key:
        tracker.mark_done(each)
    kill_myself()


def by_closed_loop(tracker, key):
    for each in tracker:
        if each != key:
            tracker.abort(each)
    loop = tracker.try_keys()
    assert next(loop) == key
    loop.close()
    kill_myself()


def by_gate(tracker, key):
    assert tracker.should_try(key)
    kill_myself()


def by_adding_gate(tracker, key):
    assert tracker.should_try_add(key)
    kill_myself()


def by_second_loop(tracker, key):
    loop, other = tracker.try_keys(), tracker.try_keys()
    for each in loop:
        tracker.mark_done(each)
        if each == KEYS[0]:
            break
    for each in other:
        if each == key:
            kill_myself()
        tracker.mark_done(each)


WAYS = [by_loop, by_loop_over_items, by_loop_over_values, by_next, by_closed_loop, by_gate, by_adding_gate]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("key", KEYS[1:], ids=repr)
def test_the_running_task_gets_its_try_and_no_other_one(path, keys, way, key):
    die_in(lambda: way(Tracker(path, sync_at=10**6), key))
    for _ in range(2):
        assert tries_in(path) == {key: 1}
    assert not (path / "running").exists()


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_a_task_that_was_never_synced_gets_its_try_when_it_is_added(path, key):
    """Nothing of the store is on disk but its databases."""
    def work():
        tracker = Tracker(path, sync_at=10**6)
        tracker.add_many(KEYS)
        by_loop(tracker, key)

    for number in range(1, 4):
        die_in(work)
        assert tries_in(path) == {}
        with Tracker(path) as tracker:
            tracker.add(key)
            assert tracker.tries(key) == number
            tracker.revert()
            assert len(tracker) == 0
    with Tracker(path) as tracker:
        tracker.add_many_if_absent([*KEYS, "another"])
        assert {each: tracker.tries(each) for each in tracker if tracker.tries(each)} == {key: 3}
        tracker.sync()
        del tracker[key]
        tracker.add(key)
        assert tracker.tries(key) == 0
    assert tries_in(path) == {}
    assert maintenance.verify(path) == []


def try_and_die(path):
    """Die in the first try of a task that was never synced."""
    tracker = Tracker(path, sync_at=10**6)
    tracker.should_try_add("a")
    kill_myself()


@pytest.mark.parametrize("add", [
    lambda tracker: tracker.add("a"), lambda tracker: tracker.add_if_absent("a"),
    lambda tracker: tracker.add_many(["a"]), lambda tracker: tracker.add_many(["b", "a", *range(2000)]),
    lambda tracker: tracker.should_do_add("a"), lambda tracker: tracker.update(a={"x": 1}),
    lambda tracker: tracker.__setitem__("a", {"x": 1}), lambda tracker: tracker.setdefault("a", {}),
])
def test_every_way_of_adding_a_task_gives_it_its_tries(path, add):
    die_in(try_and_die, path)
    with Tracker(path) as tracker:
        add(tracker)
        assert (tracker.tries("a"), tracker["a"]["_tries"]) == (1, 1)
    assert tries_in(path) == {"a": 1}


def test_tries_that_are_assigned_are_not_replaced(path):
    die_in(try_and_die, path)
    with Tracker(path) as tracker:
        tracker["a"] = {"_tries": 7}
    assert tries_in(path) == {"a": 7}


def test_a_poison_task_is_given_up_after_max_tries(path):
    program = """
        import os, signal, sys
        from tastypy_fast import Tracker
        with Tracker(sys.argv[1], max_tries=3, sync_every=1.0) as tracker:
            tracker.add_many_if_absent(map(str, range(300)))
            for key in tracker.try_keys():
                if key == "150":
                    os.kill(os.getpid(), signal.SIGSEGV)
                tracker.mark_done(key)
    """
    assert [run(program, path)[0] for _ in range(4)] == [-signal.SIGSEGV] * 3 + [0]
    with Tracker(path) as tracker:
        assert {key: tracker.tries(key) for key in tracker} == {**dict.fromkeys(map(str, range(300)), 1), "150": 3}
        assert [key for key in tracker if not tracker.done(key)] == ["150"]


CHANGES = {
    "marked done": (lambda tracker: tracker.mark_done("a"), {}),
    "marked done with others": (lambda tracker: tracker.mark_done_many(["b", "a"]), {}),
    "aborted": (lambda tracker: tracker.abort("a"), {}),
    "deleted": (lambda tracker: tracker.__delitem__("a"), {}),
    "reverted": (lambda tracker: tracker.revert(), {}),
    "assigned as done": (lambda tracker: tracker.__setitem__("a", {"_done": True}), {}),
    "reset": (lambda tracker: tracker.reset_tries("a"), {}),
    "marked not done": (lambda tracker: tracker.mark_not_done("a"), {"a": 1}),
    "given another try": (lambda tracker: tracker.increment_tries("a"), {"a": 2}),
    "assigned": (lambda tracker: tracker.__setitem__("a", {"_tries": 5, "x": 1}), {"a": 5}),
    "synced": (lambda tracker: tracker.sync(), {"a": 1}),
    "synced and done": (lambda tracker: (tracker.sync(), tracker.mark_done("a")), {"a": 1}),
    "read": (lambda tracker: tracker["a"].update(x=1), {"a": 1}),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("by", ["gate", "loop"])
def test_what_happens_to_the_running_task_decides_whether_its_try_counts(path, change, expected, by):
    with Tracker(path) as tracker:
        tracker.add_many("ab")

    def work():
        tracker = Tracker(path, sync_at=10**6)
        loop = tracker.try_keys()
        assert next(loop) == "a" if by == "loop" else tracker.should_try("a")
        change(tracker)
        kill_myself()

    die_in(work)
    assert tries_in(path) == expected


def test_a_loop_that_has_come_to_its_end_runs_nothing(path, keys):
    def work():
        tracker = Tracker(path, sync_at=10**6)
        list(tracker.try_keys())
        kill_myself()

    die_in(work)
    assert tries_in(path) == {}


def test_each_thread_and_each_iterator_has_a_task(path):
    with Tracker(path) as tracker:
        tracker.add_many(range(40))

    def work():
        tracker = Tracker(path, sync_at=10**6)
        ready = threading.Barrier(21)
        kept = []

        def stay(number):
            if number % 2:
                assert tracker.should_try(number)
            else:
                loop = tracker.try_keys()
                kept.append(loop)
                while next(loop) != number:
                    pass
            ready.wait()
            threading.Event().wait()

        for number in range(20):
            threading.Thread(target=stay, args=(number,), daemon=True).start()
        ready.wait()
        assert tracker.should_try(31)
        kill_myself()

    die_in(work)
    assert set(tries_in(path)) == {*range(20), 31}


def test_more_iterators_than_slots_work(path):
    with Tracker(path) as tracker:
        tracker.add_many(range(SLOT_COUNT + 50))
        loops = [tracker.try_keys() for _ in range(SLOT_COUNT + 50)]
        assert {next(loop) for loop in loops} == {0}
        assert tracker.tries(0) == len(loops)
        tracker._check()


def test_a_forked_child_leaves_the_running_tasks_to_its_parent(path, keys):
    def work():
        tracker = Tracker(path, sync_at=10**6)
        loop = tracker.try_keys()
        next(loop)
        if not os.fork():
            del loop
            os._exit(0)
        os.wait()
        kill_myself()

    die_in(work)
    assert tries_in(path) == {KEYS[0]: 1}


def test_a_shared_tracker_counts_the_tries_too(path, keys):
    die_in(lambda: by_loop(Tracker(path, sync_at=10**6), "z"))
    with SharedTracker(path) as tracker:
        assert {key: tracker.tries(key) for key in tracker if tracker.tries(key)} == {"z": 1}
        tracker._check()


@pytest.mark.parametrize("log", [False, True])
def test_statuses_in_the_log_are_seen(path, keys, monkeypatch, log):
    def work():
        tracker = Tracker(path, sync_at=10**6)
        for key in KEYS[:3]:
            tracker.increment_tries(key)
        tracker.add("new")
        tracker.sync()
        assert tracker.should_try(KEYS[0])
        assert tracker.should_try("new")
        kill_myself()

    monkeypatch.setattr("tastypy_fast._store.store.Store.wal_min_places", 0 if log else 10**9)
    die_in(work)
    assert tries_in(path) == {**dict.fromkeys(KEYS[:3], 1), "new": 1}


def test_a_reader_changes_nothing(path, keys):
    die_in(lambda: by_gate(Tracker(path, sync_at=10**6), "z"))
    before = (path / "data.mdb").read_bytes(), (path / "running").read_bytes()
    with Tracker(path, mode="r") as tracker:
        assert tracker.tries("z") == 0
    assert maintenance.verify(path) == []
    assert ((path / "data.mdb").read_bytes(), (path / "running").read_bytes()) == before
    assert tries_in(path) == {"z": 1}


@pytest.mark.parametrize("spoil", ["another boot", "no boot", "another data file", "too short", "zeros", "random"])
def test_a_file_that_is_not_of_this_boot_and_store_is_ignored(path, keys, monkeypatch, spoil):
    die_in(lambda: by_gate(Tracker(path, sync_at=10**6), "z"))
    file = path / "running"
    raw = file.read_bytes()
    if "boot" in spoil:
        other = None if spoil == "no boot" else bytes(16)
        monkeypatch.setattr(running_file, "boot_id", lambda: other)
        assert boot_id.boot_id() != other
    elif spoil == "another data file":
        data = (path / "data.mdb").read_bytes()
        (path / "new").write_bytes(data)
        (path / "new").rename(path / "data.mdb")
    elif spoil == "too short":
        file.write_bytes(raw[:-1])
    elif spoil == "zeros":
        file.write_bytes(bytes(len(raw)))
    else:
        file.write_bytes(random.Random(1).randbytes(len(raw)))
    assert tries_in(path) == {}
    assert not file.exists()


def test_slots_of_random_bytes_do_no_harm(path, keys):
    """A file with a right header, whose slots are rubbish: some tries may wait for tasks that never come."""
    die_in(lambda: by_gate(Tracker(path, sync_at=10**6), "z"))
    raw = (path / "running").read_bytes()
    (path / "running").write_bytes(raw[:64] + random.Random(1).randbytes(len(raw) - 64))
    with Tracker(path) as tracker:
        assert list(tracker) == KEYS
        tracker.add("new")
        tracker._check()
    assert maintenance.verify(path) == []


def test_closing_leaves_no_file(path, keys, no_leaks):
    with Tracker(path) as tracker:
        next(tracker.try_keys())
        assert (path / "running").exists()
    assert not (path / "running").exists()
    with POD(path.with_name("pod")) as pod:
        pod["a"] = 1
        assert not (path.with_name("pod") / "running").exists()


def try_all(pipe, path, sync_at):
    tracker = Tracker(path, sync_at=sync_at)
    while True:
        for key in tracker.try_keys():
            pipe.send(key)


@pytest.mark.parametrize(("rounds"), [25, pytest.param(1000, marks=pytest.mark.storm)])
@pytest.mark.parametrize("sync_at", [1, 10**6], ids=["every try synced", "no try synced"])
def test_kills_at_any_moment_count_exactly_the_tries_that_they_should(path, seed, rounds, sync_at):
    rng = random.Random(seed)
    with Tracker(path) as tracker:
        tracker.add_many(range(30))
    before = dict.fromkeys(range(30), 0)
    for _ in range(rounds):
        with Child(try_all, path, sync_at) as child:
            told = [child.pipe.recv() for _ in range(rng.randrange(1, 40))]
            child.kill()
            told += child.receive_all()
            child.wait()
        with Tracker(path) as tracker:
            tracker._check()
            after = {key: tracker.tries(key) for key in tracker}
        more = {key: after[key] - before[key] for key in after if after[key] != before[key]}
        if sync_at == 1:
            expected = {key: told.count(key) for key in told}
            following = (told[-1] + 1) % 30
            assert more in (expected, {**expected, following: expected.get(following, 0) + 1})
        else:
            possible = [{told[-1]: told.count(told[-1])}, {(told[-1] + 1) % 30: 1 + told.count((told[-1] + 1) % 30)}]
            if told[-1] == 29:  # the loop has come to its end, and the next one has yielded nothing
                possible.append({})
            assert more in possible
        before = after
