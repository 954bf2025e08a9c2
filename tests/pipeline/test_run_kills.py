"""Programs in ``run()`` that are killed, stopped and started again, as their users see them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest

from tastypy_fast import SharedTracker, Tracker
from tests.support.children import start
from tests.support.executors import has_ended

PROGRAM = """
import os, sys, time
import tastypy_fast
from tastypy_fast.pipeline import TaskResult

kind, path, log, method, count, seconds = sys.argv[1:]

def note(text):
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{text}\\n".encode())
    os.close(file)

def work(key):
    note(key)
    time.sleep(float(seconds))
    return TaskResult({"square": key * key}, add=[key + 1000] if key < 100 else [])

if __name__ == "__main__":
    with getattr(tastypy_fast, kind)(path, max_tries=100) as tracker:
        tracker.add_many_if_absent(range(int(count)))
        print(tracker.run(work, workers=2, start_method=method))
"""


@pytest.fixture(params=["Tracker", "SharedTracker"])
def kind(request):
    return request.param


def lines(path):
    return path.read_text().split() if path.exists() else []


def wait_for_lines(path, number, process):
    while len(lines(path)) < number and process.poll() is None:
        os.sched_yield()
        time.sleep(0.001)


def opened(kind, path):
    return Tracker(path, mode="r") if kind == "Tracker" else SharedTracker(path)


@pytest.mark.parametrize(("method", "kills"), [
    ("fork", 2), ("spawn", 1), pytest.param("fork", 20, marks=pytest.mark.storm),
    pytest.param("forkserver", 10, marks=pytest.mark.storm)])
def test_killed_driver_continues_and_repeats_nothing_that_was_committed(kind, method, kills, path, tmp_path, seed):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    log = tmp_path / "log"
    generator = random.Random(seed)
    arguments = (kind, path, log, method, 300, 0.002)
    # The tasks that were done after a kill, and how often they had run.
    done: dict[int, int] = {}
    for _ in range(kills):
        before = len(lines(log))
        with start(program, *arguments) as process:
            wait_for_lines(log, before + generator.randrange(1, 60), process)
            process.kill()
        runs = Counter(map(int, lines(log)))
        assert {key: runs[key] for key in done} == done  # what was committed has not run again
        with opened(kind, path) as tracker:
            done = {key: runs[key] for key in tracker if tracker.done(key)}
            assert all(tracker[key]["square"] == key * key and done[key] for key in done)
    with start(program, *arguments) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    runs = Counter(map(int, lines(log)))
    assert {key: runs[key] for key in done} == done
    with opened(kind, path) as tracker:
        assert len(tracker) == tracker.num_done() == 400
        assert all(tracker[key]["square"] == key * key for key in tracker)


# Signals: each task says that it runs, and ends when a file exists.

WAITING = """
import os, subprocess, sys, time
import tastypy_fast

kind, path, folder, handler = sys.argv[1:]

def work(key):
    child = subprocess.Popen(["sh", "-c", "while ! test -e " + folder + "/go; do sleep 0.01; done"])
    open(f"{folder}/began-{key}-{child.pid}", "w").close()
    return {"code": child.wait()}

if __name__ == "__main__":
    with getattr(tastypy_fast, kind)(path, max_tries=3) as tracker:
        tracker.add_many_if_absent(range(20))
        if handler == "own":
            import signal, threading
            stop = threading.Event()
            signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
            print(tracker.run(work, workers=2, stop=stop).reason)
        else:
            tracker.run(work, workers=2)
            print("finished")
"""


def begun(folder):
    return [name.split("-")[1:] for name in os.listdir(folder) if name.startswith("began-")]


@pytest.fixture
def waiting(kind, path, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    processes = []

    def begin(handler="default"):
        program = tmp_path / "waiting.py"
        program.write_text(WAITING)
        processes.append(start(program, kind, path, folder, handler))
        while len(begun(folder)) < 2:
            assert processes[-1].poll() is None, processes[-1].stderr.read()
            time.sleep(0.001)
        return processes[-1], folder

    yield begin
    (folder / "go").touch()
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_waits_for_running_tasks_and_commits_them(kind, path, waiting, number):
    process, folder = waiting()
    process.send_signal(number)
    time.sleep(0.05)  # not to win a race: the tasks run until they may end
    assert process.poll() is None
    (folder / "go").touch()
    output, errors = process.communicate(timeout=60)
    assert process.returncode in ((-signal.SIGINT, 130, 1) if number == signal.SIGINT else (-number,))
    assert "finished" not in output
    assert "Traceback" not in errors or number == signal.SIGINT
    assert ("Ctrl-C again" in errors) == (number == signal.SIGINT)
    with opened(kind, path) as tracker:
        done = [key for key in tracker if tracker.done(key)]
        assert sorted(map(str, done)) == sorted(key for key, _ in begun(folder))
        assert {tracker.tries(key) for key in done} == {1}
        assert all(tracker[key]["code"] == 0 for key in done)
        assert sum(tracker.tries(key) for key in tracker) == len(done)


def test_second_ctrl_c_ends_running_tasks_with_their_children_and_gives_their_tries_back(kind, path, waiting):
    process, folder = waiting()
    process.send_signal(signal.SIGINT)
    assert "waits for the tasks that are running; Ctrl-C again ends them" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert all(has_ended(pid) for _, pid in begun(folder))
    with opened(kind, path) as tracker:
        assert (tracker.num_done(), sum(tracker.tries(key) for key in tracker)) == (0, 0)


def test_killed_driver_leaves_no_process_behind(kind, path, waiting):
    process, folder = waiting()
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while not all(has_ended(pid) for _, pid in begun(folder)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with opened(kind, path) as tracker:
        assert sum(tracker.tries(key) for key in tracker) == 0


CHANGING = """
import sys, threading, time
import tastypy_fast

kind, path, went = sys.argv[1:]

def work(key):
    open(went, "w").close()
    time.sleep(1000)

if __name__ == "__main__":
    with getattr(tastypy_fast, kind)(path) as tracker:
        tracker.add("a")
        tracker["b"] = {"changed": "before"}
        threading.Timer(0.5, tracker.__setitem__, ("c", {"changed": "during"})).start()
        tracker.run(work, workers=1)
"""


def test_changes_before_and_during_a_run_without_results_are_saved(kind, path, tmp_path):
    program, went = tmp_path / "changing.py", tmp_path / "went"
    program.write_text(CHANGING)
    process = start(program, kind, path, went)
    try:
        while not went.exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        with opened(kind, path) as tracker:
            assert tracker["b"]["changed"] == "before"
        deadline = time.monotonic() + 60
        while True:
            with opened(kind, path) as tracker:
                if "c" in tracker:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
        process.communicate()
    with opened(kind, path) as tracker:
        assert list(tracker) == ["a", "b", "c"]
        assert tracker["c"]["changed"] == "during"


def test_program_with_a_handler_of_its_own_uses_stop(kind, path, waiting):
    process, folder = waiting("own")
    process.terminate()
    (folder / "go").touch()
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "stopped\n"), errors
    with opened(kind, path) as tracker:
        assert tracker.num_done() == sum(tracker.tries(key) for key in tracker)
