"""A signal ends a program whose first store was opened off the main thread: everything is saved.

Python installs handlers in the main thread only, so a C handler wakes the background thread there.
"""

from __future__ import annotations

import signal
import threading

import pytest

from tastypy_fast import POD, SharedPOD, Tracker
from tests.support.children import Child, Progress, run, start
from tests.support.endings import OPEN, SHARED_OPEN, kinds

pytestmark = [
    pytest.mark.all_classes,
    pytest.mark.with_log,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_thread(begin):
    """The program ``begin``, run in a thread, after which the main thread goes on."""
    return f"""
import resource, threading, warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGXCPU would write a file
thread = threading.Thread(target=exec, args=({begin!r}, globals()))
thread.start()
thread.join()
assert all(signal.getsignal(number) == signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU))
"""


def check_saved(tmp_path):
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod["list"] == [1]
        assert tracker.done("task")
        pod._check()
        tracker._check()


WAITS = {
    "input": "input()",
    "pause": "signal.pause()",
    "lock": "threading.Event().wait()",
    "join": "threads = [threading.Thread(target=threading.Event().wait)]; threads[0].start(); threads[0].join()",
    "computing": "while True: pass",
}


@kinds
@pytest.mark.parametrize(
    ("number", "name"),
    [*((signal.SIGTERM, name) for name in WAITS), (signal.SIGHUP, "pause"), (signal.SIGXCPU, "computing")],
)
def test_signal_saves_whatever_the_main_thread_does(tmp_path, begin, name, number):
    with start(in_thread(begin) + "print('ready', flush=True)\n" + WAITS[name], tmp_path) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        # Not communicate(), because it would end input().
        assert process.wait() == -number
        assert process.communicate() == ("", "")
    check_saved(tmp_path)


@kinds
def test_signal_saves_what_an_executor_has_done(tmp_path, begin):
    program = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(1) as pool:
    pool.submit(exec, begin, globals()).result()
    pool.submit(os.kill, os.getpid(), signal.SIGTERM)
    pool.submit(threading.Event().wait)
"""
    status, output, errors = run(f"import os, signal, threading\nbegin = {begin!r}{program}", tmp_path)
    assert (status, output, errors) == (-signal.SIGTERM, "", "")
    check_saved(tmp_path)


@pytest.mark.parametrize("cls", [POD, SharedPOD])
def test_signal_while_threads_write_keeps_completed_operations(tmp_path, cls):
    for turn in range(5):
        path = tmp_path / str(turn)
        counts = [Progress() for _ in range(2)]

        def live(pipe, path=path, counts=counts):
            stores = []
            opening = threading.Thread(target=lambda: stores.append(cls(path, sync_at=20)))
            opening.start()
            opening.join()

            def write(number):
                for count in range(10**9):
                    stores[0][number, count] = count
                    counts[number].count = count + 1

            threading.Thread(target=write, args=(0,)).start()
            write(1)

        with Child(live) as child:
            for progress in counts:
                # A child that failed to begin ends the test by its timeout.
                while progress.count < 50:
                    pass
            before = [progress.count for progress in counts]
            child.kill(signal.SIGTERM)
            assert child.wait() == -signal.SIGTERM
        with POD(path) as store:
            store._check()
            for thread in range(2):
                found = [count for key, count in store.iteritems() if key[0] == thread]
                assert found == list(range(len(found)))
                assert len(found) >= before[thread]


def test_signal_waits_for_the_operation_of_the_main_thread(tmp_path):
    status, output, errors = run(in_thread(OPEN) + """
with pod._store.lock:
    os.kill(os.getpid(), signal.SIGTERM)
    pod["late"] = 1
signal.pause()
""", tmp_path)
    assert (status, output, errors) == (-signal.SIGTERM, "", "")
    check_saved(tmp_path)
    with POD(tmp_path / "pod", mode="r") as pod:
        assert pod["late"] == 1


def test_signal_does_not_wait_for_ever_for_a_block_of_a_private_store(tmp_path):
    status, output, errors = run(in_thread(OPEN) + """
from tastypy_fast._store import registry
registry.EXIT_LOCK_TIMEOUT_US = 100_000
with pod.locked():
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
""", tmp_path)
    assert (status, output) == (-signal.SIGTERM, "")
    assert "another thread is still in a block" in errors
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod["list"] == []
        assert tracker.done("task")


def test_signal_in_a_block_of_a_shared_store_rolls_it_back(tmp_path):
    status, output, errors = run(in_thread(SHARED_OPEN) + """
with pod.locked():
    pod["in the block"] = 1
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
""", tmp_path)
    assert (status, output, errors) == (-signal.SIGTERM, "", "")
    check_saved(tmp_path)
    with POD(tmp_path / "pod", mode="r") as pod:
        assert "in the block" not in pod


# Owners of the signal


def test_handler_installed_later_by_the_program_wins(tmp_path):
    status, output, errors = run(in_thread(OPEN) + """
def mine(*_): print("mine", flush=True)
signal.signal(signal.SIGTERM, mine)
os.kill(os.getpid(), signal.SIGTERM)
third = POD(sys.argv[1] + "/third", init={"a": 1})
for store in (pod, tracker, third): store.close()
assert signal.getsignal(signal.SIGTERM) is mine
os.kill(os.getpid(), signal.SIGTERM)
""", tmp_path)
    assert (status, output, errors) == (0, "mine\nmine\n", "")


@pytest.mark.parametrize("action", ["SIG_IGN", "SIG_DFL"])
def test_action_chosen_later_by_the_program_wins(tmp_path, action):
    status, output, errors = run(in_thread(OPEN) + f"""
signal.signal(signal.SIGTERM, signal.{action})
os.kill(os.getpid(), signal.SIGTERM)
print("alive", flush=True)
""", tmp_path)
    assert (status, output, errors) == ((0, "alive\n", "") if action == "SIG_IGN" else (-signal.SIGTERM, "", ""))


def test_ignored_signal_stays_ignored(tmp_path):
    """As under nohup."""
    program = f"import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nbegin = {OPEN!r}\n" + """
import threading
thread = threading.Thread(target=exec, args=(begin, globals()))
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGHUP)
third = POD(sys.argv[1] + "/third")
os.kill(os.getpid(), signal.SIGHUP)
print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, flush=True)
"""
    assert run(program, tmp_path) == (0, "True\n", "")
    check_saved(tmp_path)


def test_store_opened_later_in_the_main_thread_installs_python_handlers(tmp_path):
    status, output, errors = run(in_thread(OPEN) + """
third = POD(sys.argv[1] + "/third", init={"a": 1})
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU):
    assert signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGTERM)
signal.pause()
""", tmp_path)
    assert (status, output, errors) == (-signal.SIGTERM, "", "")
    check_saved(tmp_path)
    with POD(tmp_path / "third", mode="r") as third:
        assert third.items() == [("a", 1)]


def test_default_action_is_back_when_nothing_is_open(tmp_path):
    status, output, errors = run(in_thread(OPEN) + """
from tastypy_fast._core import signal_wake
assert signal_wake.wakes_on(signal.SIGTERM)
closing = threading.Thread(target=lambda: [pod.close(), tracker.close()])
closing.start()
closing.join()
assert not signal_wake.wakes_on(signal.SIGTERM)
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
""", tmp_path)
    assert (status, output, errors) == (-signal.SIGTERM, "ready\n", "")
    check_saved(tmp_path)


def test_reader_in_a_thread_leaves_the_signals_alone(tmp_path):
    with POD(tmp_path / "pod"):
        pass
    status, _, errors = run("""
import signal, sys, threading
from tastypy_fast import POD
from tastypy_fast._core import signal_wake
stores = []
thread = threading.Thread(target=lambda: stores.append(POD(sys.argv[1], mode="r")))
thread.start()
thread.join()
assert not signal_wake.wakes_on(signal.SIGTERM)
assert threading.active_count() == 1
""", tmp_path / "pod")
    assert (status, errors) == (0, "")


# Fork, exec and exit


@kinds
@pytest.mark.parametrize("where", ["main thread", "thread"])
def test_signal_ends_a_forked_child_and_its_parent(tmp_path, begin, where):
    status, output, errors = run(in_thread(begin) + f"""
def fork():
    child = os.fork()
    if child == 0:
        own = POD(sys.argv[1] + "/own", init={{"a": 1}})
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
if {where!r} == "thread":
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
else:
    fork()
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait()
""", tmp_path)
    assert (status, output, errors) == (-signal.SIGTERM, f"{-signal.SIGTERM}\n", "")
    check_saved(tmp_path)
    with POD(tmp_path / "own", mode="r") as own:
        assert own.items() == [("a", 1)]


def test_signal_that_comes_during_a_fork_is_handled_after_it(tmp_path):
    """The thread has ended then."""
    status, output, errors = run(in_thread(OPEN) + """
store_class = type(pod._store)
before_fork = store_class.before_fork
def kill(store):
    os.kill(os.getpid(), signal.SIGTERM)
    before_fork(store)
store_class.before_fork = kill
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
threading.Event().wait()
""", tmp_path)
    assert (status, output, errors) == (-signal.SIGTERM, "", "")
    check_saved(tmp_path)


def test_program_started_by_exec_has_the_default_action(tmp_path):
    status, output, errors = run(in_thread(OPEN) + """
import subprocess
kill = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
print(subprocess.run([sys.executable, "-c", kill]).returncode)
""", tmp_path)
    assert (status, output, errors) == (0, f"{-signal.SIGTERM}\n", "")


def test_signal_after_the_save_at_exit_ends_the_program(tmp_path):
    begin = """
import atexit, os, signal
def late():
    pod["late"] = 1
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
atexit.register(late)  # (it runs after the hook that saves)
"""
    status, output, errors = run(begin + in_thread(OPEN), tmp_path)
    assert (status, output, errors) == (-signal.SIGTERM, "", "")
    check_saved(tmp_path)
    with POD(tmp_path / "pod", mode="r") as pod:
        assert pod["late"] == 1
