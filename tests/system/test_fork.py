"""A private store in a forked child: the child may read from disk and write nothing; the parent's store stays
intact."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tastypy_fast import POD, ForkedStoreError, Tracker
from tests.support.children import Child, result_of_child, run

pytestmark = [pytest.mark.with_log, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

FORKS = 60
SLOTS = 40


def on_disk(cls, path):
    """The contents that another process reads, which are the synced ones."""

    def read(pipe):
        with cls(path, mode="r") as store:
            pipe.send(store.items())

    return result_of_child(read)[0]


def test_forks_while_threads_write(any_class, path):
    stop = threading.Event()
    written = [0, 0, 0]
    store = any_class(path, sync_at=10)
    store["fixed"] = {"list": ["x" * 5000]}
    store.update(((thread, slot), {"n": slot}) for thread in range(3) for slot in range(SLOTS))
    store.sync()
    fixed = store["fixed"]

    def write(thread):
        """Write the numbers from 0 on, cyclically."""
        while not stop.is_set():
            store[thread, written[thread] % SLOTS] = {"n": written[thread]}
            assert store["fixed"] == fixed
            written[thread] += 1

    def read(pipe):
        assert store["fixed"] == fixed
        assert store.get("never") is None
        assert len(store) == 1 + 3 * SLOTS
        # The parent continues at the same time.
        first, second = [{key: value for key, value in store.iteritems() if key != "fixed"} for _ in range(2)]
        for (thread, slot), value in first.items():
            assert value["n"] % SLOTS == slot
            assert value["n"] <= second[thread, slot]["n"]
        with pytest.raises(ForkedStoreError):
            store["child"] = {}

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(FORKS):
            with Child(read) as child:
                assert child.wait() == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert min(written) > FORKS
    store._check()
    store.close()
    with any_class(path) as again:
        assert len(again) == 1 + 3 * SLOTS
        for thread, count in enumerate(written):
            assert max(again[thread, slot]["n"] for slot in range(SLOTS)) == count - 1


def test_threads_may_fork(any_class, path):
    """Another thread forks while the main thread writes. The child then continues in a thread of its own."""
    store = any_class(path, sync_at=5)
    statuses = []

    def read(pipe):
        assert all(store[key]["n"] % SLOTS == key for key in store)

    def fork():
        for _ in range(20):
            with Child(read) as child:
                statuses.append(child.wait())

    threads = [threading.Thread(target=fork) for _ in range(2)]
    for thread in threads:
        thread.start()
    count = 0
    while any(thread.is_alive() for thread in threads):
        # The number of keys is limited. On a fast disk, each child would otherwise read more than the one before.
        store[count % SLOTS] = {"n": count}
        count += 1
    for thread in threads:
        thread.join()
    assert statuses == [0] * 40
    assert len(store) == min(count, SLOTS)
    store.close()


WRITES = {
    "assign": lambda store: store.__setitem__("a", {}),
    "delete": lambda store: store.__delitem__("a"),
    "update": lambda store: store.update(b={}),
    "pop": lambda store: store.pop("a"),
    "popitem": lambda store: store.popitem(),
    "setdefault": lambda store: store.setdefault("b", {}),
    "clear": lambda store: store.clear(),
    "sync_key": lambda store: store.sync_key("a"),
    "mark_dirty": lambda store: store.mark_dirty("a"),
    "set": lambda store: store.set.__setitem__("a", {}),
    "set deep": lambda store: store.set["a"].update(x=2),
}
TRACKER_WRITES = {
    "add": lambda store: store.add("b"),
    "add_many_if_absent": lambda store: store.add_many_if_absent(["b"]),
    "mark_done": lambda store: store.mark_done("a"),
    "increment_tries": lambda store: store.increment_tries("a"),
    "should_try": lambda store: store.should_try("a"),
    "should_do_add": lambda store: store.should_do_add("b"),
    "try_keys": lambda store: next(store.try_keys()),
}


@pytest.mark.parametrize("name", [*WRITES, *TRACKER_WRITES])
def test_writing_in_a_child_raises_and_names_the_shared_class(path, name):
    cls, shared = (POD, "SharedPersistentOrderedDict") if name in WRITES else (Tracker, "SharedProgressTracker")
    write = {**WRITES, **TRACKER_WRITES}[name]
    with cls(path, init={"a": {"x": 1}}) as store:
        store.sync()
        before = store.items()

        def child(pipe):
            with pytest.raises(ForkedStoreError, match=shared) as raised:
                write(store)
            assert str(os.getppid()) in str(raised.value)
            assert store.items() == before
            assert store.dirty() == set()

        result_of_child(child)
        assert store.items() == before


def test_child_reads_the_synced_data_of_its_parent(any_class, path):
    with any_class(path) as store:
        store["synced"] = {"n": 1}
        store.sync()
        store["unsynced"] = {"n": 2}
        store["synced"] = {"n": 3}

        def child(pipe):
            assert store.keys() == ["synced"]
            assert store["synced"] == store.values()[0]
            pipe.send(store["synced"])
            # A later sync of the parent is visible, too.
            pipe.recv()
            pipe.send(store.items())

        with Child(child) as other:
            assert other.pipe.recv()["n"] == 1
            store.sync()
            other.pipe.send("synced")
            assert other.pipe.recv() == store.items()
            assert other.wait() == 0


def test_changes_to_values_in_a_child_are_not_saved(any_class, path):
    with any_class(path) as store:
        store["a"] = {"list": []}
        store.sync()
        before = store.items()
        held = store["a"]

        def child(pipe):
            held["list"].append("by the child")
            store.sync()
            store.close()

        result_of_child(child)
        assert on_disk(any_class, path) == before == store.items()


ENDINGS = {
    "os._exit": "os._exit(0)",
    "sys.exit": "sys.exit(0)",
    "exception": "1 / 0",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "close": "store.close(); sys.exit(0)",
    "garbage": "del store; gc.collect(); sys.exit(0)",
}


@pytest.mark.parametrize("name", ENDINGS)
def test_exit_of_a_child_saves_no_changes_of_its_parent(path, name):
    """Unsynced changes at the fork are saved once, by the parent."""
    status, output, errors = run(
        f"""
        import gc, os, signal, sys
        from tastypy_fast import POD
        store = POD(sys.argv[1])
        store["list"] = []
        store.sync()
        store["list"].append("unsynced")
        store["new"] = 1
        if not os.fork():
            {ENDINGS[name]}
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        # A subprocess reads, because this process has the store open for writing.
        sys.stdout.flush()
        if not os.fork():
            os.execv(sys.executable, [sys.executable, "-c", "import sys; from tastypy_fast import POD;"
                                      "print(POD(sys.argv[1], mode='r').items())", sys.argv[1]])
        os.wait()
        store["list"].append("later")
        """,
        path,
    )
    assert status == 0, errors
    ended = {"exception": 1, "SIGTERM": -signal.SIGTERM}.get(name, 0)
    assert output.splitlines() == [str(ended), "[('list', [])]"]
    with POD(path) as store:
        assert store.items() == [("list", ["unsynced", "later"]), ("new", 1)]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("opened_before", [True, False])
def test_child_of_multiprocessing_saves_its_own_store(tmp_path, method, opened_before):
    """It is saved at the end of the child, without close().

    A forked child of multiprocessing runs no atexit functions.
    """
    program = tmp_path / "program.py"
    program.write_text(
        """
import multiprocessing, sys
from tastypy_fast import POD, Tracker

def work(folder):
    pod = globals()["pod"] = POD(folder + "/pod")
    tracker = globals()["tracker"] = Tracker(folder + "/tracker")
    pod["a"] = [1]
    pod["a"].append(2)
    tracker.add("task")
    tracker.mark_done("task")

if __name__ == "__main__":
    folder, method, opened_before = sys.argv[1:]
    if opened_before == "True":
        parents = POD(folder + "/parents")
        parents["a"] = 1
    process = multiprocessing.get_context(method).Process(target=work, args=(folder,))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""
    )
    status, _, errors = run(program, tmp_path, method, opened_before)
    assert (status, errors) == (0, "")
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod.items() == [("a", [1, 2])]
        assert tracker.done("task")
    if opened_before:
        with POD(tmp_path / "parents") as parents:
            assert parents.items() == [("a", 1)]


def test_forked_child_saves_its_own_store(tmp_path):
    status, _, errors = run(
        """
        import os, sys
        from tastypy_fast import POD
        parents = POD(sys.argv[1] + "/parents", init={"a": 1})
        if not os.fork():
            own = POD(sys.argv[1] + "/own")
            own["a"] = 1
            sys.exit(3)
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
        """,
        tmp_path,
    )
    assert (status, errors) == (3, "")
    for name in ("parents", "own"):
        with POD(tmp_path / name) as store:
            assert store.items() == [("a", 1)]


def test_child_may_open_the_parents_store_to_read_only(any_class, path):
    with any_class(path, init={"a": {}}) as store:
        store.sync()

        def child(pipe):
            with pytest.raises(ForkedStoreError):
                any_class(path)
            with any_class(path, mode="r") as reader:
                assert reader.keys() == ["a"]
            assert store.keys() == ["a"]

        result_of_child(child)


def test_child_that_outlives_its_parent_holds_no_lock(any_class, path):
    def parent(pipe):
        store = any_class(path, init={"a": {}})
        store.sync()
        if os.fork() == 0:
            # The child reports that it is running, and stays until the test releases it.
            pipe.send(store.keys())
            pipe.recv()
            pipe.send(store.keys())
            os._exit(0)
        os._exit(0)

    with Child(parent) as child:
        assert child.wait() == 0
        assert child.pipe.recv() == ["a"]
        with any_class(path) as store:
            store["b"] = {}
        child.pipe.send("go on")
        assert child.pipe.recv() == ["a", "b"]


def test_iterators_continue_after_a_fork(any_class, path):
    with any_class(path, init={number: {} for number in range(1000)}) as store:
        store.sync()
        keys, items = iter(store), store.iteritems()
        assert [next(keys), next(items)[0]] == [0, 0]

        def child(pipe):
            assert list(keys) == [key for key, _ in items] == list(range(1, 1000))

        result_of_child(child)
        assert list(keys) == [key for key, _ in items] == list(range(1, 1000))


def test_try_loop_raises_in_a_forked_child(path):
    """The child could not count the try."""
    with Tracker(path, init={number: {} for number in range(5)}) as tracker:
        tracker.sync()
        tries, todo = tracker.try_keys(), tracker.todo_keys()
        assert (next(tries), next(todo)) == (0, 0)

        def child(pipe):
            with pytest.raises(ForkedStoreError):
                next(tries)
            assert list(todo) == [1, 2, 3, 4]

        result_of_child(child)
        assert list(tries) == [1, 2, 3, 4]
        assert [tracker.tries(key) for key in tracker] == [1] * 5


def test_forked_grandchild_can_read(any_class, path):
    with any_class(path, init={"a": {}}) as store:
        store.sync()
        parent = os.getpid()

        def grandchild(pipe):
            assert store.keys() == ["a"]
            with pytest.raises(ForkedStoreError, match=str(parent)):
                store["b"] = {}

        result_of_child(lambda pipe: result_of_child(grandchild))


ABANDONED = """
    import _thread, os, sys
    from tastypy_fast import PersistentOrderedDictException, SharedPOD

    store = SharedPOD(sys.argv[1], init={"a": 1})
    other = SharedPOD(sys.argv[2], init={"b": 2})
    ended = _thread.allocate_lock()
    ended.acquire()

    def begin():
        store.lock()
        store["c"] = 3
        ended.release()

    _thread.start_new_thread(begin, ())
    ended.acquire()
    while _thread._count():
        pass
    child = os.fork()
    if child == 0:
        said = []
        for work in (lambda: store["a"], lambda: store.__setitem__("d", 4)):
            try:
                work()
            except PersistentOrderedDictException as error:
                said.append("closed" in str(error))
        other["e"] = 5
        os._exit(0 if said == [True, True] else 1)
    print(os.waitpid(child, 0)[1], other["e"], store["a"])
    os._exit(0)
"""


def test_fork_after_the_thread_of_an_open_block_ended_does_not_deadlock(tmp_path):
    """The child can neither end the transaction nor use the store. It can use other stores."""
    status, output, errors = run(ABANDONED, tmp_path / "store", tmp_path / "other")
    assert (status, output, errors) == (0, "0 5 1\n", "")


ENDED_IN_BLOCK = """
    import os, signal, sys, threading, tastypy_fast

    store = getattr(tastypy_fast, sys.argv[3])(sys.argv[1], init={"a": {}})
    other = getattr(tastypy_fast, sys.argv[3])(sys.argv[2], init={"b": {}})
    store.sync()
    other.sync()
    len(store)  # leaves a snapshot open
    thread = threading.Thread(target=lambda: store.locked().__enter__())
    thread.start()
    thread.join()
    signal.alarm(20)
    child = os.fork()
    if child == 0:
        os._exit(0 if (store.keys(), other.keys()) == (["a"], ["b"]) else 1)
    print(os.waitpid(child, 0)[1])

    def work():
        other["c"] = {}
        tastypy_fast.POD(sys.argv[2] + ".opened").close()
        print(other.keys(), flush=True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    os._exit(0)
"""


def test_a_fork_after_a_thread_ended_in_a_locked_block_spoils_no_other_store(private_class, tmp_path):
    status, output, errors = run(ENDED_IN_BLOCK, tmp_path / "store", tmp_path / "other", private_class.__name__)
    assert (status, output, errors) == (0, "0\n['b', 'c']\n", "")


USED_IN_BLOCK = """
    import os, signal, sys, threading, time
    from tastypy_fast import POD

    other, store = POD(sys.argv[1]), POD(sys.argv[2])
    entered, forking = threading.Event(), threading.Event()
    os.register_at_fork(before=forking.set)
    signal.alarm(20)

    def work():
        with store.locked():
            entered.set()
            forking.wait()
            time.sleep(0.2)  # the fork waits for this block now
            {use}

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    child = os.fork()
    if child == 0:
        os._exit(0)
    print(os.waitpid(child, 0)[1])
    thread.join()
"""


@pytest.mark.parametrize("use", ["other.sync()", "POD(sys.argv[1] + '.opened').close()", "other.close()"])
def test_a_fork_waits_for_a_locked_block_that_uses_other_stores(tmp_path, use):
    """It holds nothing meanwhile that the block may wait for: that would be a deadlock."""
    status, output, errors = run(USED_IN_BLOCK.format(use=use), tmp_path / "other", tmp_path / "store")
    assert (status, output, errors) == (0, "0\n", "")
