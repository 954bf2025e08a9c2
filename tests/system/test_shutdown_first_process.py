"""A program that is process 1, as the first process of a container is, saves and ends at a signal.

The kernel ignores a signal with the default action that process 1 sends to itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import cache

import pytest

from tastypy_fast import POD, Tracker
from tests.support.endings import OPEN, kinds
from tests.support.no_background import PRELUDE

UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


@cache
def is_allowed():
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def run_first(program, *arguments):
    """Run a program as process 1: exit status, output and errors."""
    if not is_allowed():
        pytest.skip("this system does not allow new namespaces of processes")
    program = PRELUDE + "import os\nassert os.getpid() == 1\n" + program
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return done.returncode, done.stdout, done.stderr


def check_saved(tmp_path):
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod["list"] == [1]
        assert tracker.done("task")


@kinds
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU])
def test_signal_to_process_1_saves_and_ends_it(tmp_path, begin, number):
    program = f"os.kill(1, {int(number)})\nsignal.pause()\n"
    assert run_first(begin + program, tmp_path) == (128 + number, "", "")
    check_saved(tmp_path)


@kinds
def test_signal_to_process_1_that_opened_its_stores_in_a_thread(tmp_path, begin):
    program = f"""
import signal, threading
thread = threading.Thread(target=exec, args=({begin!r}, globals()))
thread.start()
thread.join()
os.kill(1, signal.SIGTERM)
threading.Event().wait()
"""
    assert run_first(program, tmp_path) == (128 + signal.SIGTERM, "", "")
    check_saved(tmp_path)


def test_child_of_process_1_ends_by_the_signal_itself(tmp_path):
    program = OPEN + """
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_first(program, tmp_path) == (0, f"{-signal.SIGTERM}\n", "")
    check_saved(tmp_path)
