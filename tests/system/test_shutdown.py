"""Every way of ending a process first saves the changes in memory."""

from __future__ import annotations

import signal

import pytest

from tastypy_fast import POD, Tracker
from tests.support.children import run
from tests.support.endings import OPEN, kinds

pytestmark = [
    pytest.mark.all_classes,
    pytest.mark.with_log,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

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
    "SIGHUP": ("os.kill(os.getpid(), signal.SIGHUP); signal.pause()", -signal.SIGHUP, ""),
    "SIGXCPU": (
        # At one second of processor time, of which the interpreter has used a part.
        "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (1, 60))\nwhile True: pass",
        -signal.SIGXCPU,
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
def test_every_way_of_ending_saves(tmp_path, name, begin):
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


def test_os_exit_keeps_the_last_sync_and_damages_nothing(tmp_path):
    assert run(OPEN + "os._exit(4)", tmp_path)[0] == 4
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod.items() == [("list", [])]
        assert len(tracker) == 0


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), signal.SIGTERM); signal.pause()"])
def test_unstorable_value_at_exit_does_not_prevent_saving_the_others(tmp_path, ending):
    program = 'pod["bad"] = []\npod["bad"].append({1, 2})\npod["good"] = 1\n'
    status, _, errors = run(OPEN + program + ending, tmp_path)
    assert status == (-signal.SIGTERM if ending else 0)
    assert "'bad'" in errors
    assert str(tmp_path / "pod") in errors
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert (pod["list"], pod["good"]) == ([1], 1)
        assert tracker.done("task")


@pytest.mark.parametrize("kind", ["", "Shared"])
def test_atexit_functions_may_use_a_store(tmp_path, kind):
    """Functions that were registered before the first store was opened run last, after everything was saved."""
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
def test_store_opened_during_exit_is_saved(tmp_path, kind):
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
