"""Signals that end a program: changes in memory are saved, and handlers of the program are kept."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from tastypy_fast import POD, SharedPOD, Tracker
from tests.support.children import Child, Progress, run, send_to_waiting, start
from tests.support.endings import OPEN, kinds

pytestmark = [
    pytest.mark.all_classes,
    pytest.mark.with_log,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

ROUNDS = 10


# SIGTERM


WAITS = {
    "input": "input()",
    "pause": "signal.pause()",
    "lock": "threading.Event().wait()",
    "thread": "threads[0].join()",
}


@kinds
@pytest.mark.parametrize(
    ("number", "name"),
    [*((number, name) for number in (signal.SIGTERM, signal.SIGINT) for name in WAITS),
     (signal.SIGHUP, "lock"), (signal.SIGXCPU, "lock")],
)
def test_signal_to_a_waiting_program_saves(tmp_path, name, number, begin):
    # SIGXCPU would write a file.
    program = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    program += "threads = [threading.Thread(target=threading.Event().wait, daemon=True)]; threads[0].start()\n"
    program += "print('ready', flush=True); "
    with start(begin + program + WAITS[name], tmp_path) as process:
        assert process.stdout.readline() == "ready\n"
        send_to_waiting(process, number)
        _, errors = process.communicate()
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod["list"] == [1]
        assert tracker.done("task")


def assign(store, number):
    store[number] = {"n": number}


def replace_and_read(store, number):
    store[number % 50, "x"] = {"n": number, "inf": float("inf")}
    assert store[number % 50, "x"]["n"] == number
    store[number] = {"n": number}


def append(store, number):
    if not number:
        store["list"] = {"list": []}
    store["list"]["list"].append(number)


def delete_and_assign(store, number):
    store[number] = {"n": number}
    del store[number]
    store[number] = {"n": number}


def try_and_mark(store, number):
    store.add(number)
    for key in store.try_keys():
        store.mark_done(key)


def clone(store, number):
    with type(store)(store.path, sync_at=2) as other:
        other[number] = {"n": number}


def in_thread(store, number):
    thread = threading.Thread(target=assign, args=(store, number))
    thread.start()
    thread.join()


def done_in(store):
    """The number of operations that left traces, in order from the first."""
    if "list" in store:
        assert store["list"]["list"] == list(range(len(store["list"]["list"])))
        return len(store["list"]["list"])
    keys = [key for key in store if isinstance(key, int)]
    assert keys == list(range(len(keys)))
    assert all(store[key].get("n", key) == key for key in keys)
    return len(keys)


WORK = [assign, replace_and_read, append, delete_and_assign, try_and_mark, clone, in_thread]


def work_on(store, work, progress):
    for number in range(10**9):
        work(store, number)
        progress.count = number + 1


def wait_for(progress, count):
    # A child that failed to begin ends the test by its timeout.
    while progress.count < count:
        pass


def work_until_interrupted(store, work, progress):
    """The exception may be raised by any operation, also during a sync, and the store is usable afterwards."""
    try:
        work_on(store, work, progress)
    except KeyboardInterrupt:
        store._check()
        assert 0 <= done_in(store) - progress.count <= 1
        assign(store, "after")
        store.close()


# SIGINT is not tested with threads that begin and end. A signal handler may run in a weak reference callback of the
# threading module. The interpreter drops an exception there, so the child would never see it.
@pytest.mark.parametrize(
    ("number", "work"),
    [(number, work) for work in WORK for number in (signal.SIGTERM, signal.SIGINT)
     if (number, work) != (signal.SIGINT, in_thread)],
    ids=lambda value: value.__name__ if callable(value) else value.name,
)
def test_signal_during_work_saves_all_completed_operations(tmp_path, number, work, seed):
    rng = random.Random(seed)
    cls = Tracker if work is try_and_mark else rng.choice((POD, Tracker))
    interrupts = number == signal.SIGINT
    do_work = work_until_interrupted if interrupts else work_on
    for count in range(ROUNDS):
        path = tmp_path / str(count)
        progress = Progress()
        sync_at = rng.choice((1, 7, 1000))

        def live(pipe, path=path, progress=progress, sync_at=sync_at):
            do_work(cls(path, sync_at=sync_at), work, progress)

        where = seed, count, sync_at
        with Child(live) as child:
            wait_for(progress, rng.randrange(1, 150))
            child.kill(number)
            assert child.wait() == (0 if interrupts else -number), where
        with cls(path) as store:
            store._check()
            assert ("after" in store) == interrupts, where
            # One operation may have been done and not counted.
            assert 0 <= done_in(store) - progress.count <= 1, where


@pytest.mark.parametrize("cls", [POD, Tracker])
def test_sigterm_during_a_large_sync_waits_for_its_end(tmp_path, cls):
    for number in range(6):
        path = tmp_path / str(number)

        def live(pipe, path=path):
            store = cls(path)
            store.hold()
            store.update((key, {"n": key}) for key in range(15_000))
            pipe.send("syncing")
            while True:
                store.sync()
                store["more"] = {}

        with Child(live) as child:
            child.pipe.recv()
            for _ in range(number * 80_000):
                pass
            child.kill(signal.SIGTERM)
            assert child.wait() == -signal.SIGTERM
        with cls(path, mode="r") as store:
            assert len(store) >= 15_000
            store._check()


@pytest.mark.parametrize("cls", [POD, SharedPOD])
def test_sigterm_while_threads_write_saves(tmp_path, cls):
    for number in range(10):
        path = tmp_path / str(number)
        counts = [Progress() for _ in range(3)]

        def live(pipe, path=path, counts=counts):
            store = cls(path, sync_at=20)

            def write(thread):
                for count in range(10**9):
                    store[thread, count] = count
                    counts[thread].count = count + 1

            for thread in range(3):
                threading.Thread(target=write, args=(thread,)).start()
            # This is not signal.pause(), because a signal just before it would be handled only after it.
            while True:
                time.sleep(0.1)

        with Child(live) as child:
            for progress in counts:
                wait_for(progress, 50)
            before = [progress.count for progress in counts]
            child.kill(signal.SIGTERM)
            assert child.wait() == -signal.SIGTERM
        with POD(path) as store:
            store._check()
            for thread in range(3):
                found = [count for key, count in store.iteritems() if key[0] == thread]
                assert found == list(range(len(found)))
                assert len(found) >= before[thread]


# Owners of the signal handler


HANDLERS = {
    "of the user, before": "def mine(*_): print('mine', flush=True)\nsignal.signal(signal.SIGTERM, mine)",
    "ignored, before": "mine = signal.SIG_IGN\nsignal.signal(signal.SIGTERM, mine)",
}


@pytest.mark.parametrize("name", HANDLERS)
def test_handler_of_the_program_is_never_replaced(tmp_path, name):
    status, output, errors = run(
        f"import signal\n{HANDLERS[name]}\n{OPEN}\n"
        "assert signal.getsignal(signal.SIGTERM) is mine\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "pod.close(); tracker.close()\n"
        "assert signal.getsignal(signal.SIGTERM) is mine\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n",
        tmp_path,
    )
    assert (status, errors) == (0, "")
    assert output == "" if "ignored" in name else "mine\nmine\n"


def test_handler_installed_later_is_kept(tmp_path):
    status, output, errors = run(
        OPEN + "def mine(*_): print('mine', flush=True)\n"
        "signal.signal(signal.SIGTERM, mine)\n"
        "third = POD(sys.argv[1] + '/third', init={'a': 1})\n"
        "for store in (pod, tracker, third): store.close()\n"
        "assert signal.getsignal(signal.SIGTERM) is mine\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n",
        tmp_path,
    )
    assert (status, output, errors) == (0, "mine\n", "")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGXCPU"])
def test_signal_has_its_default_action_when_nothing_is_open(tmp_path, name):
    status, output, errors = run(
        OPEN + f"number = signal.{name}\n"
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "assert signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN)\n"
        "pod.close()\n"
        "assert signal.getsignal(number) is not signal.SIG_DFL\n"
        "tracker.close()\n"
        "assert signal.getsignal(number) is signal.SIG_DFL\n"
        "with POD(sys.argv[1] + '/pod'): assert signal.getsignal(number) is not signal.SIG_DFL\n"
        "print('ready', flush=True)\n"
        "os.kill(os.getpid(), number)\n",
        tmp_path,
    )
    assert (status, output, errors) == (-getattr(signal, name), "ready\n", "")


def test_handler_of_a_library_in_c_is_kept(tmp_path):
    """Python knows nothing of such a handler."""
    status, output, errors = run(
        "import faulthandler, signal\nfaulthandler.register(signal.SIGTERM)\n" + OPEN
        + "os.kill(os.getpid(), signal.SIGTERM)\nprint('alive', flush=True)\n",
        tmp_path,
    )
    assert (status, output) == (0, "alive\n")
    assert "most recent call first" in errors


def test_nohup_is_respected(tmp_path):
    """The program inherits that SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start(OPEN + "os.kill(os.getpid(), signal.SIGHUP)\nprint('alive', flush=True)\n", tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    with process:
        assert process.communicate() == ("alive\n", "")
    assert process.returncode == 0


def test_read_only_store_installs_no_handler(tmp_path):
    with POD(tmp_path / "pod"):
        pass
    status, _, errors = run(
        "import signal, sys; from tastypy_fast import POD\n"
        "with POD(sys.argv[1], mode='r'): assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL",
        tmp_path / "pod",
    )
    assert (status, errors) == (0, "")


def test_store_opened_in_a_thread_installs_no_handler(tmp_path):
    """Python allows handlers to be set in the main thread only."""
    status, _, errors = run(
        """
        import signal, sys, threading
        from tastypy_fast import POD

        def in_thread(work):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

        def open_first():
            global first
            first = POD(sys.argv[1] + "/first", init={"a": 1})

        in_thread(open_first)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        second = POD(sys.argv[1] + "/second", init={"a": 1})
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        in_thread(first.close)
        in_thread(second.close)
        signal.raise_signal(signal.SIGTERM)
        """,
        tmp_path,
    )
    assert (status, errors) == (-signal.SIGTERM, "")
    for name in ("first", "second"):
        with POD(tmp_path / name) as store:
            assert store.items() == [("a", 1)]
