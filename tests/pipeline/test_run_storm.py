"""Long runs of ``tracker.run()`` under kills, and without end: ``pytest -m storm``."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tastypy_fast import SharedTracker, Tracker
from tests.support.children import start

pytestmark = pytest.mark.storm

PROGRAM = """
import os, sys, time
import tastypy_fast
from tastypy_fast.pipeline import TaskResult

kind, path, log, method, count, size, seconds, deadline = sys.argv[1:]
driver = os.getpid()  # of a forked worker, too

def note(text):
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{text}\\n".encode())
    os.close(file)

def work(key):
    note(f"+ {key} {time.monotonic()} {driver}")
    time.sleep(int(key) * 7919 % 1000 / 500 * float(seconds))
    note(f"- {key} {time.monotonic()} {driver}")
    return {"square": key * key, "text": "x" * int(size)}

def visit(key):
    note(f"+ {key} 0 0")
    return TaskResult({"square": key * key}, add=[2 * key, 2 * key + 1])

if __name__ == "__main__":
    deadline = float(deadline) or None
    with getattr(tastypy_fast, kind)(path, max_tries=1_000_000) as tracker:
        tracker.add_many_if_absent([1] if deadline else range(int(count)))
        print("ready", flush=True)
        report = tracker.run(visit if deadline else work, workers=4, start_method=method, deadline=deadline, backoff=0)
        print(report.done, report.reason, report.workers_lost)
        with open("/proc/self/status") as file:
            print(next(line.split()[1] for line in file if line.startswith("RssAnon")))
"""


@pytest.fixture(params=["Tracker", "SharedTracker"])
def kind(request):
    return request.param


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def calls(log):
    """Lines of the log: (sign, key, time, process of the driver)."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(sign, int(key), float(moment), int(driver)) for sign, key, moment, driver in lines]


def workers_of(pid):
    """The children of a driver that are workers: each leads a process group of its own."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    found = []
    for child in map(int, children):
        try:
            if os.getpgid(child) == child:
                found.append(child)
        except ProcessLookupError:
            pass
    return found


def opened(kind, path):
    return Tracker(path, mode="r") if kind == "Tracker" else SharedTracker(path)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("size", [0, 300_000])
def test_storm_of_killed_workers(kind, method, size, program, path, log, seed):
    """pebble #97 #163, joblib #812, cpython PR 16103: a random worker is killed every 0.1 to 0.3 s for 30 s."""
    generator = random.Random(seed)
    count = 4000 if size == 0 else 1000
    with start(program, kind, path, log, method, count, size, 0.03 if size == 0 else 0.12, 0) as process:
        end = time.monotonic() + 30
        kills = 0
        while time.monotonic() < end and process.poll() is None:
            time.sleep(generator.uniform(0.1, 0.3))
            # The workers of a forkserver are its children.
            workers = [pid for parent in (process.pid, *workers_of(process.pid), *forkservers(process.pid))
                       for pid in workers_of(parent)]
            if workers:
                os.kill(generator.choice(workers), 9)
                kills += 1
        output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert kills > 20
    assert output.splitlines()[1].split()[:2] == [str(count), "finished"]
    began = sorted(moment for sign, _, moment, _ in calls(log) if sign == "+")
    gaps = [after - before for before, after in pairwise(began)]
    print(f"{kills} kills, {len(began)} calls of {count} tasks, longest gap {max(gaps):.2f} s")
    with opened(kind, path) as tracker:
        assert tracker.num_done() == len(tracker) == count
        assert all(tracker[key]["square"] == key * key and len(tracker[key]["text"]) == size for key in tracker)
        # A kill costs a try of at most one task.
        assert sum(tracker.tries(key) for key in tracker) <= count + kills


def forkservers(pid):
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except (FileNotFoundError, ProcessLookupError):
        return []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_storm_of_killed_drivers(kind, method, program, path, log, seed):
    """scrapy #2399 #4106 #7978, datatrove #316: what was committed never runs again, and all is done at the end."""
    generator = random.Random(seed)
    arguments = (kind, path, log, method, 3000, 100, 0.02, 0)
    committed = {}
    repeated = []
    for _ in range(20):
        before = len(calls(log))
        with start(program, *arguments) as process:
            process.stdout.readline()
            time.sleep(generator.uniform(0.1, 1.5))
            process.kill()
        # Workers end with the driver, within two seconds.
        counted = Counter(key for sign, key, _, _ in calls(log) if sign == "+")
        assert all(counted[key] == number for key, number in committed.items())
        with opened(kind, path) as tracker:
            done = {key for key in tracker if tracker.done(key)}
            assert done >= committed.keys()
            assert all(tracker[key]["square"] == key * key for key in done)
        ran = {key for sign, key, _, _ in calls(log)[before:] if sign == "-"}
        repeated.append(len(ran - done))
        wait_for_silence(log)
        counted = Counter(key for sign, key, _, _ in calls(log) if sign == "+")
        committed = {key: counted[key] for key in done}
    with start(program, *arguments) as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    counted = Counter(key for sign, key, _, _ in calls(log) if sign == "+")
    assert all(counted[key] == number for key, number in committed.items())
    print(f"results of {sorted(repeated)} tasks were lost by a kill")
    with opened(kind, path) as tracker:
        assert tracker.num_done() == len(tracker) == 3000
        assert all(tracker[key]["square"] == key * key for key in tracker)


def wait_for_silence(log):
    """Wait until the workers of a killed driver have ended, which takes two seconds at most."""
    size = -1
    while size != (size := log.stat().st_size if log.exists() else 0):
        time.sleep(2)


def test_crawl_without_end_that_is_resumed_twice(kind, program, path, log):
    """ray #4657, scrapy #4106: memory is constant, and no key is visited twice."""
    memory = []
    for _ in range(3):
        with start(program, kind, path, log, "fork", 0, 0, 0, 20) as process:
            output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        _, report, anonymous = output.splitlines()
        assert report.split()[1] == "deadline"
        memory.append(int(anonymous) / 1024)
    print("anonymous memory at the end of each run:", [f"{size:.0f} MB" for size in memory])
    assert max(memory) <= 64
    visits = Counter(log.read_text().splitlines())
    assert set(visits.values()) == {1}
    with opened(kind, path) as tracker:
        assert tracker.num_done() == len(visits)
        assert len(tracker) == 2 * len(visits) + 1


def overlaps(lines):
    """The keys of tasks that ran twice at once. A call that was killed has no end in the log, and is left out."""
    begun = {}
    spans = []
    for sign, key, moment, driver in sorted(lines, key=lambda line: line[2]):
        if sign == "+":
            begun[key, driver] = moment
        else:
            spans.append((key, begun[key, driver], moment))
    spans.sort()
    return [(one, other) for one, other in pairwise(spans)
            if one[0] == other[0] and other[1] < one[2]]


def test_storm_of_two_drivers_on_one_shared_tracker(program, path, log, seed):
    """dbos #541, luigi #1889: no task runs twice at once; one driver is killed, and the other does what is left."""
    generator = random.Random(seed)
    arguments = ("SharedTracker", path, log, "fork", 4000, 10, 0.02, 0)
    with start(program, *arguments) as survivor:
        survivor.stdout.readline()
        for _ in range(8):
            with start(program, *arguments) as process:
                process.stdout.readline()
                time.sleep(generator.uniform(0.3, 1.0))
                process.kill()
        output, errors = survivor.communicate(timeout=600)
    assert survivor.returncode == 0, errors
    assert output.split()[1] == "finished"
    lines = calls(log)
    assert len({driver for *_, driver in lines}) > 4
    assert overlaps(lines) == []
    with SharedTracker(path) as tracker:
        assert tracker.num_done() == len(tracker) == 4000
        assert tracker.claimed_keys() == []
        assert all(tracker[key]["square"] == key * key for key in tracker)
