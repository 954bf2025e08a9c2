"""However a process ends, what it had in memory is saved first; but for SIGKILL, which has a module of its own."""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker, UnstorableValueError
from tests.children import Child, Progress, run, send_to_waiting, start
from tests.conftest import changing

pytestmark = [
    pytest.mark.all_classes,
    pytest.mark.with_log,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

ROUNDS = 10


# Ways to end


OPEN = """
import atexit, gc, os, signal, sys, threading
from tastypy_fast import POD, Tracker
pod, tracker = POD(sys.argv[1] + "/pod"), Tracker(sys.argv[1] + "/tracker")
pod["list"] = []
pod.sync()
pod["list"].append(1)
tracker.add("task")
tracker.mark_done("task")
"""
SHARED_OPEN = OPEN.replace("POD, Tracker\n", "SharedPOD as POD, SharedTracker as Tracker\n").replace("pod[", "pod.set[")
kinds = pytest.mark.parametrize("begin", [OPEN, SHARED_OPEN], ids=["private", "shared"])

ENDINGS = {
    "end": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "exception": ("raise ValueError('mine')", 1, "ValueError: mine"),
    "exception in a with": ("with pod:\n    raise ValueError('mine')", 1, "ValueError: mine"),
    "exception in a loop": ("for key in pod:\n    raise ValueError('mine')", 1, "ValueError: mine"),
    "close": ("pod.close(); tracker.close()", 0, ""),
    "del": ("del pod, tracker", 0, ""),
    "SIGINT": ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt"),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); signal.pause()", -signal.SIGTERM, ""),
    "SIGTERM in a thread": (
        "threading.Thread(target=lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)).start()\n"
        "while True: pass",
        -signal.SIGTERM,
        "",
    ),
    "in cycles": ("pod.me = pod; tracker.me = tracker; del pod, tracker", 0, ""),
    "a thread that goes on": (
        "threading.Thread(target=lambda: [pod['list'].append(2), pod['list'].pop()]).start()",
        0,
        "",
    ),
    "a daemon that goes on": (
        "def work():\n    while True: pod['other'] = 1\n"
        "threading.Thread(target=work, daemon=True).start()\nwhile 'other' not in pod: pass",
        0,
        "",
    ),
}


@kinds
@pytest.mark.parametrize("name", ENDINGS)
def test_an_end_saves(tmp_path, name, begin):
    program, expected, error = ENDINGS[name]
    status, output, errors = run(begin + program, tmp_path)
    assert status == expected, errors
    assert error in errors
    assert bool(error) == bool(errors)
    assert output == ""
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod["list"] == [1]
        assert tracker.done("task")
        pod._check()
        tracker._check()


def test_os_exit_saves_nothing_more_and_breaks_nothing(tmp_path):
    assert run(OPEN + "os._exit(4)", tmp_path)[0] == 4
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod.items() == [("list", [])]
        assert len(tracker) == 0


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), signal.SIGTERM); signal.pause()"])
def test_a_value_that_cannot_be_saved_costs_no_other(tmp_path, ending):
    program = 'pod["bad"] = []\npod["bad"].append({1, 2})\npod["good"] = 1\n'
    status, _, errors = run(OPEN + program + ending, tmp_path)
    assert status == (-signal.SIGTERM if ending else 0)
    assert "'bad'" in errors
    assert str(tmp_path / "pod") in errors
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert (pod["list"], pod["good"]) == ([1], 1)
        assert tracker.done("task")


@pytest.mark.parametrize("kind", ["", "Shared"])
def test_functions_of_atexit_may_still_use_a_store(tmp_path, kind):
    """Those that were registered before the first store was opened run last, after everything was saved."""
    status, output, errors = run(
        f"""
        import atexit, sys
        from tastypy_fast import {kind}POD as POD, {kind}Tracker as Tracker

        def use(name):
            pod[name] = [name]
            pod.set[name].append(1)
            tracker.add(name)
            tracker.mark_done(name)
            del pod["deleted by " + name]
            print(pod.keys(), tracker.keys(), pod[name])

        atexit.register(use, "late")
        pod, tracker = POD(sys.argv[1] + "/pod"), Tracker(sys.argv[1] + "/tracker")
        pod["deleted by late"] = pod["deleted by early"] = 1
        atexit.register(use, "early")
        """,
        tmp_path,
    )
    assert (status, errors) == (0, "")
    assert output.splitlines() == [
        "['deleted by late', 'early'] ['early'] ['early', 1]",
        "['early', 'late'] ['early', 'late'] ['late', 1]",
    ]
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod.items() == [("early", ["early", 1]), ("late", ["late", 1])]
        assert [tracker.done(key) for key in tracker] == [True, True]


@pytest.mark.parametrize("kind", ["", "Shared"])
def test_a_store_that_is_opened_at_the_end_is_saved(tmp_path, kind):
    status, _, errors = run(
        f"""
        import atexit, sys
        from tastypy_fast import {kind}POD as POD

        def last():
            global pod
            pod = POD(sys.argv[1] + "/pod")
            pod["a"] = 1
            pod["a"] = [2]

        atexit.register(last)
        first = POD(sys.argv[1] + "/first", init=dict(a=1))
        """,
        tmp_path,
    )
    assert (status, errors) == (0, "")
    with POD(tmp_path / "pod") as pod:
        assert pod.items() == [("a", [2])]


# SIGTERM


WAITS = {
    "input": "input()",
    "pause": "signal.pause()",
    "lock": "threading.Event().wait()",
    "thread": "threads[0].join()",
}


@kinds
@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_waiting_program_saves(tmp_path, name, number, begin):
    program = "threads = [threading.Thread(target=threading.Event().wait, daemon=True)]; threads[0].start()\n"
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


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no timers that send a signal of one's own choice")
@kinds
@pytest.mark.parametrize("fork", ["", "if os.fork(): sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))"])
def test_a_signal_that_ends_no_waiting_is_repeated(tmp_path, begin, fork):
    """A signal just before a call that waits is only noted. Where another thread gets it, that is certain to happen."""
    status, _, errors = run(
        f"""{begin}
{fork}
signal_this_thread = lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=signal_this_thread).start()
threading.Event().wait()
""",
        tmp_path,
    )
    assert (status, errors) == (-signal.SIGTERM if not fork else 256 - signal.SIGTERM, "")
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
    """How many operations there are traces of, in order from the first."""
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
    # (a child that has failed to begin ends the test by its timeout)
    while progress.count < count:
        pass


def work_until_interrupted(store, work, progress):
    """The exception comes out of any operation, also out of the middle of a sync, and the store is usable."""
    try:
        work_on(store, work, progress)
    except KeyboardInterrupt:
        store._check()
        assert 0 <= done_in(store) - progress.count <= 1
        assign(store, "after")
        store.close()


# (SIGINT not with threads that begin and end: the interpreter drops an exception that a signal handler raises in one
# of the weak references' callbacks of its threading module, and the child would never hear of it)
@pytest.mark.parametrize(
    ("number", "work"),
    [(number, work) for work in WORK for number in (signal.SIGTERM, signal.SIGINT)
     if (number, work) != (signal.SIGINT, in_thread)],
    ids=lambda value: value.__name__ if callable(value) else value.name,
)
def test_a_signal_in_the_middle_of_work_saves_all_that_was_done(tmp_path, number, work, seed):
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
            # One may have been done and not been counted.
            assert 0 <= done_in(store) - progress.count <= 1, where


@pytest.mark.parametrize("cls", [POD, Tracker])
def test_sigterm_in_the_middle_of_a_big_sync_lets_it_end(tmp_path, cls):
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
def test_sigterm_among_threads_at_work_saves(tmp_path, cls):
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
            # (not signal.pause(): a signal just before it would be seen after it)
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


# Whose handler it is


HANDLERS = {
    "of the user, before": "def mine(*_): print('mine', flush=True)\nsignal.signal(signal.SIGTERM, mine)",
    "ignored, before": "mine = signal.SIG_IGN\nsignal.signal(signal.SIGTERM, mine)",
}


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_of_the_user_is_never_replaced(tmp_path, name):
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


def test_a_handler_that_is_set_later_stays(tmp_path):
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


def test_sigterm_has_its_default_action_when_nothing_is_open(tmp_path):
    status, output, errors = run(
        OPEN + "assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)\n"
        "pod.close()\n"
        "assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL\n"
        "tracker.close()\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "with POD(sys.argv[1] + '/pod'): assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL\n"
        "print('ready', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n",
        tmp_path,
    )
    assert (status, output, errors) == (-signal.SIGTERM, "ready\n", "")


def test_a_store_that_is_only_read_needs_no_handler(tmp_path):
    with POD(tmp_path / "pod"):
        pass
    status, _, errors = run(
        "import signal, sys; from tastypy_fast import POD\n"
        "with POD(sys.argv[1], mode='r'): assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL",
        tmp_path / "pod",
    )
    assert (status, errors) == (0, "")


def test_a_thread_opens_without_a_handler_and_closes_with_one(tmp_path):
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


# Instances that are lost


def test_a_lost_instance_is_saved_and_lets_go(any_class, path):
    store = any_class(path)
    store["a"] = {"list": []}
    changing(store)["a"]["list"].append(1)
    del store
    # Other options: the first is gone, not joined.
    with any_class(path, gzipped=True) as again:
        assert again["a"]["list"] == [1]


def test_a_lost_instance_in_a_cycle_is_saved_by_the_garbage_collector(any_class, path):
    store = any_class(path)
    store["a"] = {}
    store.me = store
    del store
    gc.collect()
    with any_class(path, gzipped=True) as again:
        assert "a" in again


def test_an_iterator_keeps_its_store(any_class, path):
    store = any_class(path, init={number: {} for number in range(1000)})
    iterator = iter(store)
    del store
    assert list(iterator) == list(range(1000))


def test_a_lost_instance_leaves_the_others_on_its_path(any_class, path):
    first, second = any_class(path), any_class(path)
    first["a"] = {}
    del first
    second["b"] = {}
    assert second.keys() == ["a", "b"]
    second.close()


def test_a_lost_instance_with_an_unstorable_value_saves_the_others(private_class, path, capsys):
    store = private_class(path)
    store["bad"] = {"set": None}
    store["bad"]["set"] = {1}
    store["good"] = {}
    del store
    assert "'bad'" in capsys.readouterr().err
    # It stays open, so that the end of the process tries again.
    with private_class(path) as again:
        assert "good" in again
        with pytest.raises(UnstorableValueError):
            again.sync()
        again.revert()


def test_the_garbage_collector_may_come_at_any_time(any_class, path):
    """Also into the middle of another instance's sync, on the same path and on another."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        with any_class(path, sync_at=5) as store:
            for number in range(60):
                for other in (path, path.with_name("other")):
                    lost = any_class(other)
                    lost.me = lost
                    lost["lost", number] = {"n": [number]}
                    del lost
                for key in range(10):
                    store[number, key] = {"n": [key]}
                    store[number, key]["n"].append(1)
                if number % 10 == 0:
                    store.sync()
                    store._check()
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
    with any_class(path, gzipped=True) as store, any_class(path.with_name("other"), gzipped=True) as other:
        assert len(store) == 660
        assert len(other) == 60
        store._check()
        other._check()


# An interrupt anywhere


class InterruptAt:
    """A trace function that raises KeyboardInterrupt at the n-th line that runs inside the package."""

    def __init__(self, number):
        self.left = number
        self.where = None

    def __call__(self, frame, event, argument):
        return self.in_package if "tastypy_fast" in frame.f_globals.get("__name__", "") else None

    def in_package(self, frame, event, argument):
        self.left -= 1
        if self.left == 0:
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            raise KeyboardInterrupt
        return self.in_package


STEPS = """
    put a, put b, put c, sync -, delete b, change c, put d, put b, delete d, sync -,
    len -, change a, items -, put b, delete a, put a, sync -
"""
TASK_STEPS = """
    add a, add b, try a, sync -, try b, done b, change a, mix c, gate d, gate a, sync -,
    done c, mix a, delete b, add b, by key d, next -, count -, delete d, gate d, sync -
"""


SHARED_STEPS = "put a, sync -, atom b, block c, change a, len -, delete a, atom c, items -, sync -"
CLAIM_STEPS = "add a, next -, gate b, release b, sync -, next -, done a, atom b, next -, delete b, count -"


def do(store, step, key, number):
    if step == "put":
        store[key] = {"n": number}
    elif step == "change":
        changing(store)[key]["n"] = number
    elif step == "delete":
        del store[key]
    elif step == "sync":
        store.sync()
    elif step == "len":
        len(store)
    elif step == "items":
        store.items()
    elif step == "add":
        store.add(key)
    elif step == "try":
        store.increment_tries(key)
    elif step == "done":
        store.mark_done(key)
    elif step == "mix":
        store.update({key: {"n": number}})
    elif step == "gate":
        store.should_try_add(key)
    elif step == "by":
        changing(store)[key]["_done"] = True
    elif step == "next":
        loop = store.try_keys()
        next(loop)
        return loop
    elif step == "count":
        store.num_tried()
    elif step == "atom":
        with store.transaction():
            store["a"] = {"n": number}
            store.set["a"]["n"] += 1
            store[key] = {"n": number + 1}
            store["a"] = {"n": number + 1}
    elif step == "block":
        # (an interrupt in it leaves what was done by then)
        with store.locked():
            store[key] = {"n": number}
    elif step == "release":
        store.release(key)
    return None


def changed(model, step, key, number):
    """What a model, each key's number and status, is after a step."""
    model = dict(model)
    n, done, tries = model.get(key, (None, False, 0))
    if step in ("put", "change", "mix"):
        model[key] = number, done, tries
    elif step == "delete":
        del model[key]
    elif step == "add":
        model[key] = n, done, tries
    elif step in ("try", "gate"):
        model[key] = n, done, tries + (not done)
    elif step in ("done", "by"):
        model[key] = n, True, tries
    elif step == "atom":
        model["a"] = model[key] = number + 1, False, 0
    elif step == "block":
        model[key] = number, False, 0
    elif step == "next":
        first = next(key for key in model if not model[key][1])
        return changed(model, "try", first, number)
    return model


def content(store):
    return [
        (key, (value.get("n"), value.get("_done", False), value.get("_tries", 0))) for key, value in store.iteritems()
    ]


@pytest.mark.parametrize(
    ("cls", "steps", "sync_at"),
    [
        (POD, STEPS, 2), (POD, STEPS, 1000), (Tracker, STEPS, 1000),
        pytest.param(Tracker, TASK_STEPS, 2, marks=pytest.mark.storm), (Tracker, TASK_STEPS, 99),
        (SharedPOD, SHARED_STEPS, 2), (SharedPOD, SHARED_STEPS, 99),
        pytest.param(SharedTracker, CLAIM_STEPS, 2, marks=pytest.mark.storm),
    ],
    ids=["pod-2", "pod-1000", "tracker-1000", "tasks-2", "tasks-99", "shared-2", "shared-99", "claims-2"],
)
# (what an interrupt meets inside of __del__ is Python's to report)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_leaves_the_store_whole(tmp_path, cls, steps, sync_at):
    """The step that it comes into is done or not done, and everything works on."""
    before_tracing = sys.gettrace()
    for number in range(1, 10**6):
        path = tmp_path / str(number)
        store = cls(path, sync_at=sync_at, durability="process")
        interrupt = InterruptAt(number)
        # (what runs when a loop is freed could not raise)
        after, loops = {}, []
        for count, line in enumerate(steps.split(",")):
            step, key = line.split()[0], line.split()[-1]
            before, after = after, changed(after, step, key, count)
            sys.settrace(interrupt)
            try:
                loops.append(do(store, step, key, count))
            except KeyboardInterrupt:
                break
            finally:
                sys.settrace(before_tracing)
            loops.clear()
        if interrupt.where is None:
            # It was never reached: all lines have had their turn.
            break
        where = f"interrupt {number} in {step} at {interrupt.where}"
        store._check()
        found = content(store)
        assert found in (list(before.items()), list(after.items())), where
        assert len(store) == len(found), where
        if cls in (SharedPOD, SharedTracker):
            # No lock was left behind.
            with ThreadPoolExecutor(1) as executor:
                executor.submit(do, store, "put", "after", -1).result(30)
        do(store, "put", "after", -1)
        store.close()
        with cls(path) as again:
            again._check()
            assert content(again) == [*found, ("after", (-1, False, 0))], where
    assert content(store) == list(after.items())
    assert number > 50
    store.close()


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("walk", [iter, reversed], ids=["forwards", "backwards"])
def test_an_interrupt_at_any_line_of_a_loop_over_keys_leaves_out_what_is_deleted(any_class, tmp_path, walk, large):
    """And nothing else: the iterator can be asked again."""
    before_tracing = sys.gettrace()
    for number in range(1, 10**6):
        with any_class(tmp_path / str(number), durability="process") as store:
            store.update((key, {"x": "x" * 10_000 * large}) for key in range(10))
            store.sync()
            keys = walk(store)
            begun = next(keys)
            del store[5]
            store.sync()
            interrupt = InterruptAt(number)
            sys.settrace(interrupt)
            rest = []
            try:
                rest.append(next(keys))
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before_tracing)
            rest += keys
            assert [begun, *rest] == [key for key in walk(range(10)) if key != 5], interrupt.where
        if interrupt.where is None:
            break
    # (the iterators of the shared classes are compiled altogether)
    assert number > 5 or any_class in (SharedPOD, SharedTracker)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sync_at", [1, 1000], ids=["flushes after each commit", "does not flush"])
def test_an_interrupt_at_any_line_of_claiming_keeps_no_task_from_the_loop(tmp_path, batch, sync_at):
    """Also one after the commit: then the task is claimed, and the loop yields it when it is asked again."""
    before_tracing = sys.gettrace()
    for number in range(1, 10**6):
        with SharedTracker(tmp_path / str(number), sync_at=sync_at) as tracker:
            tracker.add_many(range(7))
            keys = tracker.try_keys(batch=batch)
            found = [next(keys) for _ in range(batch)]
            tracker._store.files_checked = tracker._store.transaction.files_checked = 0
            interrupt = InterruptAt(number)
            sys.settrace(interrupt)
            try:
                found.append(next(keys))
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before_tracing)
            found += keys
            assert found == list(range(7)), interrupt.where
            assert [tracker.tries(key) for key in found] == [1] * 7, interrupt.where
        if interrupt.where is None:
            break
    assert number > 5


@pytest.mark.parametrize("walk", [iter, reversed], ids=["forwards", "backwards"])
def test_an_interrupt_as_the_files_are_looked_at_leaves_out_nothing(any_class, tmp_path, walk):
    """Once a second, who reads what others write looks at the files before the next element."""
    before_tracing = sys.gettrace()
    for number in range(1, 10**6):
        with any_class(tmp_path / str(number), durability="process") as store:
            store.update((key, {"x": 1}) for key in range(4))
            store.sync()
            keys = walk(store)
            begun = next(keys)
            store._store.files_checked = 0
            interrupt = InterruptAt(number)
            sys.settrace(interrupt)
            rest = []
            try:
                rest.append(next(keys))
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before_tracing)
            rest += keys
            assert [begun, *rest] == list(walk(range(4))), interrupt.where
        if interrupt.where is None:
            break
