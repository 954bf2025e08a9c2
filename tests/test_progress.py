"""``tracker.progress()``: a bar that tells what is in the store, however the loop goes and ends."""

from __future__ import annotations

import copy
import fcntl
import gc
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tastypy_fast
from tastypy_fast import (
    POD,
    CalledClosedTrackerError,
    ProgressTracker,
    ReadOnlyStoreError,
    SharedPOD,
    SharedProgressTracker,
)
from tastypy_fast._mixins import progress_bar
from tests.children import Child

tqdm = pytest.importorskip("tqdm")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(params=[ProgressTracker, SharedProgressTracker], ids=["tracker", "shared_tracker"])
def tracker_class(request):
    return request.param


@pytest.fixture
def make(path, tracker_class):
    """Open a tracker; it is checked and closed at the end, when no bar may be left."""
    stores = []

    def make(cls=tracker_class, **options):
        stores.append(cls(path, **options))
        return stores[-1]

    yield make
    for store in stores:
        if not store.closed:
            store._check()
            store.close()
    gc.collect()
    assert not getattr(tqdm.tqdm, "_instances", None)


class Screen(io.StringIO):
    """Where a bar is shown."""

    @property
    def states(self):
        """What was to be seen, one after the other: (finished, total, failed)."""
        found = re.findall(r"(\d+)/(\d+) \[[^\]]*?(?:failed=(\d+))?\]", self.getvalue())
        return [tuple(int(number or 0) for number in numbers) for numbers in found]

    @property
    def has_ended(self):
        return self.getvalue().endswith("\n")


@pytest.fixture
def screen():
    return Screen()


def tasks(count, **status):
    return {f"task {number}": dict(status) for number in range(count)}


def change(tracker, key, **data):
    tracker.set[key].update(data)


# What is shown


def test_loop_over_all_ends_with_all(make, screen):
    tracker = make(init=tasks(5))
    for key in tracker.progress(file=screen, mininterval=0):
        tracker.mark_done(key)
    assert screen.states[0] == (0, 5, 0)
    assert screen.states[-1] == (5, 5, 0)
    assert [finished for finished, _, _ in screen.states] == sorted(finished for finished, _, _ in screen.states)
    assert screen.has_ended
    assert "task/s" in screen.getvalue()


@pytest.mark.parametrize("name", [
    "todo_keys", "todo_values", "todo_items", "try_keys", "try_values", "try_items",
])
def test_any_loop_over_tasks_hands_out_what_it_would_without(make, screen, name):
    tracker = make(init={"a": {"_done": True}, "b": {"x": 1}, "c": {"_aborted": True}})
    expected = copy.deepcopy(list(getattr(tracker, name.replace("try", "todo"))()))
    found = copy.deepcopy(list(tracker.progress(getattr(tracker, name)(), file=screen)))
    if name in ("try_values", "try_items"):
        for before, after in zip(expected, found, strict=True):
            task, tried = (before, after) if name == "try_values" else (before[1], after[1])
            assert (task.pop("_tries"), tried.pop("_tries")) == (0, 1)
    assert found == expected
    assert screen.states[-1] == (2, 3, 1)


def test_generators_and_lists_of_keys_are_wrapped_too(make, screen):
    tracker = make(init=tasks(4))
    assert list(tracker.progress((key.upper() for key in tracker.todo_keys()), file=screen)) == [
        "TASK 0", "TASK 1", "TASK 2", "TASK 3",
    ]
    bar = tracker.progress(["x", "y"], file=screen)
    assert list(bar) == list(bar) == ["x", "y"]


def test_bar_begins_where_the_last_run_stopped(make, screen):
    tracker = make(max_tries=2, init={
        **tasks(4, _done=True), "aborted": {"_aborted": True}, "out of tries": {"_tries": 2}, "tried": {"_tries": 1},
        "new": {}, "both": {"_done": True, "_aborted": True}, "done at last": {"_done": True, "_tries": 2},
    })
    assert list(tracker.progress(file=screen)) == ["tried", "new"]
    assert screen.states[0] == (8, 10, 2)
    assert screen.states[-1] == (9, 10, 3)


def test_rate_and_time_left_are_of_this_run(make, screen):
    tracker = make(init={**tasks(5, _done=True), **{str(number): {} for number in range(5)}})
    bar = tracker.progress(file=screen, mininterval=0, smoothing=0)
    bar.start_t -= 10
    for key in bar:
        tracker.mark_done(key)
        break
    # One in 10 seconds: 40 seconds for four. (With those of the last run it would be 7.)
    assert re.search(r"6/10 \[00:1\d<00:4\d, 1\d\.\d\ds/task\]", screen.getvalue())


def test_total_follows_tasks_that_are_added(make, screen):
    tracker = make(init={"0": {}})
    for key in tracker.progress(file=screen, mininterval=0):
        if int(key) < 9:
            tracker.add(str(int(key) + 1))
        tracker.mark_done(key)
    assert screen.states[-1] == (10, 10, 0)
    assert {(number, number + 1, 0) for number in range(1, 9)} <= set(screen.states)


def test_bar_over_an_empty_tracker_grows_from_nothing(make, screen):
    tracker = make()
    assert list(tracker.progress(file=screen)) == []
    with tracker.progress(file=screen, mininterval=0) as bar:
        tracker.add_many("ab")
        bar.update()
        assert len(bar) == 2
    assert screen.states[-1] == (0, 2, 0)


def test_failed_tasks_are_shown_and_finished(make, screen):
    tracker = make(max_tries=1, init=tasks(6))
    for number, key in enumerate(tracker.progress(file=screen, mininterval=0, postfix="note")):
        if number in (1, 2):
            continue
        (tracker.abort if number == 4 else tracker.mark_done)(key)
    assert screen.states[-1] == (6, 6, 3)
    assert "note, failed=3]" in screen.getvalue()


def test_failed_once_is_not_failed_for_good(make, screen):
    tracker = make(max_tries=2, init=tasks(3))
    assert len(list(tracker.progress(file=screen))) == 3
    assert screen.states[-1] == (0, 3, 0)
    assert len(list(tracker.progress(file=screen))) == 3
    assert screen.states[-1] == (3, 3, 3)


def test_loop_that_comes_to_aborted_tasks_counts_them_as_left(make, screen):
    tracker = make(init={"a": {"_aborted": True}, "b": {}})
    for key in tracker.progress(allow_aborted=True, file=screen, mininterval=0):
        tracker.mark_done(key)
    assert screen.states[0] == (0, 2, 0)
    assert screen.states[-1] == (2, 2, 0)


def test_what_goes_back_is_shown(make, screen):
    tracker = make(init=tasks(3, _done=True))
    with tracker.progress(file=screen, mininterval=0) as bar:
        tracker.mark_not_done("task 1")
        bar.update()
        assert bar.n == 2
        del tracker["task 0"]
    assert screen.states[-1] == (1, 2, 0)


def test_bar_format_may_use_failed(make, screen):
    tracker = make(init={"a": {"_aborted": True}})
    tracker.progress(file=screen, bar_format="{n} {failed}").close()
    assert screen.getvalue().endswith("\r1 1\n")


def test_options_go_to_tqdm(make, screen):
    tracker = make(init=tasks(1))
    bar = tracker.progress(file=screen, desc="crawl", unit="page", leave=False, ncols=50, ascii=True)
    assert isinstance(bar, tqdm.tqdm)
    assert "crawl:   0%|" in screen.getvalue()
    assert "page/s" in screen.getvalue()
    bar.close()
    assert screen.getvalue().endswith("\r")


def test_bar_that_is_disabled_only_hands_out(make, screen):
    tracker = make(init=tasks(3))
    for key in tracker.progress(disable=True, file=screen):
        tracker.mark_done(key)
    for key in tracker.progress(disable=None, file=screen):  # (no terminal)
        assert key is None
    assert screen.getvalue() == ""
    assert tracker.num_done() == 3


@pytest.mark.parametrize("options", [{"total": 3}, {"initial": 0}])
def test_what_the_store_knows_is_not_to_be_said(make, options):
    with pytest.raises(TypeError, match=next(iter(options))):
        make().progress(**options)


def test_unknown_option_leaves_no_bar_behind(make):
    with pytest.raises(KeyError, match="colur"):
        make().progress(colur="green")


def test_without_tqdm_the_error_names_the_extra(make, monkeypatch):
    tracker = make()
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"pip install 'tastypy_fast\[progress\]'") as caught:
        tracker.progress()
    assert caught.value.name == "tqdm"


def test_plain_stores_have_no_progress():
    assert not hasattr(POD, "progress")
    assert not hasattr(SharedPOD, "progress")


def test_store_that_is_only_read_is_watched(make, screen):
    make(ProgressTracker, init=tasks(2)).close()
    reader = make(ProgressTracker, mode="r")
    assert list(reader.progress(reader.todo_keys(), file=screen)) == ["task 0", "task 1"]
    with pytest.raises(ReadOnlyStoreError):
        next(iter(reader.progress(file=screen)))


# Many workers


def test_bar_counts_what_other_processes_do(path, screen):
    tracker = SharedProgressTracker(path, max_tries=1, init=tasks(10))

    def work(pipe):
        with SharedProgressTracker(path, max_tries=1) as mine:
            for key in mine.try_keys():
                if key != "task 5":
                    mine.mark_done(key)

    for number, key in enumerate(tracker.progress(file=screen, mininterval=0)):
        if not number:
            with Child(work) as child:
                child.receive_all()
                assert child.wait() == 0
        tracker.mark_done(key)
    assert screen.states[-1] == (10, 10, 1)
    assert len(screen.getvalue().split("\r")) < 6
    tracker.close()


def test_process_that_only_waits_shows_a_bar_and_claims_nothing(path, screen):
    tracker = SharedProgressTracker(path, init=tasks(3))
    with tracker.progress(file=screen, mininterval=0) as bar:
        assert tracker.claimed_keys() == []
        assert tracker.num_tried() == 0
        tracker.mark_done("task 1")
        assert bar.update()
        assert not bar.update()  # nothing new
        assert screen.states[-1] == (1, 3, 0)
    tracker.close()


@pytest.mark.parametrize("end", ["kill", "close"])
def test_last_try_has_not_failed_while_a_worker_lives_that_has_it_in_hand(path, end):
    tracker = SharedProgressTracker(path, max_tries=1, init=tasks(4))

    def work(pipe):
        mine = SharedProgressTracker(path, max_tries=1)
        loop = mine.try_keys(batch=3)
        assert next(loop) == "task 0"
        pipe.send(1)
        pipe.recv()
        assert next(loop) == "task 1"
        pipe.send(2)
        pipe.recv()
        loop.close()
        mine.close()

    with Child(work) as child:
        assert child.pipe.recv() == 1
        assert tracker._count_progress(False) == (4, 0, 0)
        child.pipe.send(None)
        assert child.pipe.recv() == 2
        assert tracker._count_progress(False) == (4, 0, 1)  # the first one failed, though it is still the worker's
        if end == "kill":
            child.kill()
            child.wait()
        else:
            child.pipe.send(None)
            assert child.wait() == 0
        # The third one was claimed and not handed out: it has its try again with the next loop.
        loop = tracker.try_keys()
        assert next(loop) == "task 2"
        assert tracker._count_progress(False) == (4, 0, 2)
        loop.close()
        assert tracker._count_progress(False) == (4, 0, 3)
    tracker.close()


def test_gate_that_gave_a_last_try_leaves_the_task_to_its_thread(path):
    tracker = SharedProgressTracker(path, max_tries=1, init=tasks(2))
    assert tracker.should_try("task 0")
    assert tracker._count_progress(False).given_up == 1  # (this thread asks, and so is not at work on it)
    found = []
    thread = threading.Thread(target=lambda: found.append(tracker._count_progress(False).given_up))
    thread.start()
    thread.join()
    assert found == [0]
    tracker.close()


# Counting

STATES = st.fixed_dictionaries({
    "_done": st.booleans(), "_aborted": st.booleans(),
    "_tries": st.integers(-1, 4) | st.integers(14, 18) | st.integers(300, 301),
})
KEYS = st.sampled_from(["a", "b", "c", 1, (1, "x"), "x" * 600, *range(100, 104)])


def expected_outcome(model, max_tries, allow_aborted):
    done = sum(task["_done"] for task in model.values())
    failed = sum(
        not task["_done"]
        and ((task["_aborted"] and not allow_aborted) or bool(max_tries and task["_tries"] >= max_tries))
        for task in model.values()
    )
    return len(model), done, failed


@settings(max_examples=40)
@given(
    before=st.dictionaries(KEYS, STATES, max_size=8),
    changes=st.lists(st.tuples(KEYS, st.none() | STATES), max_size=8),
    max_tries=st.integers(0, 3) | st.sampled_from([15, 16, 17, 300]),
    count=st.sampled_from([0, 3, 700]),
)
@pytest.mark.parametrize("place", ["private", "private, on hold", "shared", "shared, in a block"])
def test_outcome_is_what_a_look_at_each_task_says(tmp_path_factory, place, before, changes, max_tries, count):
    cls = SharedProgressTracker if "shared" in place else ProgressTracker
    with cls(tmp_path_factory.mktemp("store") / "store", max_tries=max_tries) as tracker:
        model = {**{-number: {"_done": False, "_aborted": False, "_tries": 0} for number in range(count)}, **before}
        tracker.update(model)
        tracker.sync()
        if "hold" in place:
            tracker.hold()
        if "block" in place:
            tracker.lock()
        for key, state in changes:
            if state is None:
                model.pop(key, None)
                tracker.pop(key, None)
            else:
                model[key] = state
                tracker[key] = state
        for allow_aborted in (False, True):
            assert tracker._count_progress(allow_aborted) == expected_outcome(model, max_tries, allow_aborted)
        if "block" in place:
            tracker.unlock()
        left = list(tracker.todo_keys())
        total, done, failed = tracker._count_progress(False)
        assert len(left) == total - done - failed


def test_outcome_sees_what_was_changed_by_keying(path):
    with ProgressTracker(path, max_tries=2, init=tasks(3)) as tracker:
        tracker.sync()
        tracker["task 0"]["_tries"] = 2
        tracker["task 1"]["_aborted"] = True
        assert tracker._count_progress(False) == (3, 0, 2)
        assert tracker._count_progress(True) == (3, 0, 1)


def test_store_is_looked_at_rarely(make, screen, monkeypatch):
    tracker = make(max_tries=2, init=tasks(1000))
    now = [0.0]
    monkeypatch.setattr(progress_bar, "perf_counter", lambda: now[0])
    counted = []
    cls = type(tracker)
    totals, outcome = cls._totals, cls._count_progress
    monkeypatch.setattr(cls, "_totals", lambda self: counted.append("totals") or totals(self))
    monkeypatch.setattr(
        cls, "_count_progress", lambda self, allowed: counted.append("outcome") or outcome(self, allowed))
    for key in tracker.progress(tracker.todo_keys(), file=screen):
        now[0] += 0.001
        tracker.mark_done(key)
    assert 10 <= counted.count("totals") <= 25
    assert counted.count("outcome") <= 12


def test_costly_looks_are_rare(make, screen, monkeypatch):
    tracker = make(init=tasks(1000))
    now = [0.0]
    monkeypatch.setattr(progress_bar, "perf_counter", lambda: now[0])
    cls = type(tracker)
    totals = cls._totals
    looks = []

    def slow(self):
        now[0] += 1
        looks.append(now[0])
        return totals(self)

    with tracker.progress(file=screen) as bar:
        monkeypatch.setattr(cls, "_totals", slow)
        for _ in range(200):
            now[0] += 1
            bar.update()
    assert len(looks) <= 200 // 50 + 2


# The end


def leave_by_break(loop):
    for _ in loop:
        break


def raise_in(loop, error):
    for _ in loop:
        raise error


def leave_by_exception(loop):
    with pytest.raises(ZeroDivisionError):
        raise_in(loop, ZeroDivisionError)


def leave_by_return(loop):
    def first():
        for key in loop:
            return key
        return None

    assert first() == "task 0"


def leave_by_interrupt(loop):
    with pytest.raises(KeyboardInterrupt):
        raise_in(loop, KeyboardInterrupt)


LEAVES = [leave_by_break, leave_by_exception, leave_by_return, leave_by_interrupt]


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("held", [False, True], ids=["", "held"])
def test_loop_left_early_ends_the_bar_at_once(make, screen, leave, held):
    tracker = make(init=tasks(3))
    bar = tracker.progress(file=screen) if held else None
    tracker.mark_done("task 2")
    leave(bar or tracker.progress(file=screen))
    assert screen.has_ended
    assert screen.states[-1] == (1, 3, 0)
    assert not bar or bar.disable


@pytest.mark.parametrize("leave", LEAVES)
def test_what_was_not_handed_out_is_given_back(path, screen, leave):
    with SharedProgressTracker(path, init=tasks(5)) as tracker:
        bar = tracker.progress(tracker.try_keys(batch=5), file=screen)
        leave(bar)
        assert tracker.claimed_keys() == ["task 0"]
        assert tracker.num_tried() == 1


def test_iterator_that_the_caller_keeps_goes_on(make, screen):
    tracker = make(init=tasks(3))
    keys = tracker.try_keys()
    leave_by_break(tracker.progress(keys, file=screen))
    assert list(keys) == ["task 1", "task 2"]


def test_error_in_the_loop_that_is_wrapped_passes_and_ends_the_bar(make, screen):
    tracker = make(init=tasks(3))

    def broken():
        yield next(tracker.todo_keys())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(tracker.progress(broken(), file=screen))
    assert screen.has_ended


def test_tracker_closed_in_the_loop(make, screen):
    tracker = make(init=tasks(3))
    for _ in tracker.progress(file=screen, mininterval=0):
        tracker.close()
        break
    assert screen.has_ended
    assert screen.states[-1] == (0, 3, 0)


def test_tracker_closed_in_a_loop_that_goes_on(make, screen):
    tracker = make(init=tasks(3))
    loop = (tracker.close() for _ in tracker.progress(file=screen, mininterval=0))
    with pytest.raises(CalledClosedTrackerError):
        list(loop)
    assert screen.has_ended


def test_status_without_sense_does_not_end_the_loop(path, screen):
    with ProgressTracker(path, init=tasks(3)) as tracker:
        for key in tracker.progress(file=screen, mininterval=0):
            tracker[key]["_done"] = "x"
            tracker.set[key]["_done"] = True
        assert screen.states[-1] == (3, 3, 0)
        with tracker.progress(file=screen, mininterval=0) as bar:
            tracker["task 0"]["_done"] = "x"
            assert not bar.update()
            tracker["task 0"]["_done"] = True


def test_loop_that_the_garbage_collector_finds_ends_without_a_look_into_an_operation(make, screen, monkeypatch):
    tracker = make(init=tasks(3))
    looked = []
    monkeypatch.setattr(progress_bar.Bar, "_count", lambda self: looked.append(self))
    for inside in (False, True):
        bar = tracker.progress(file=screen)
        loop = iter(bar)
        next(loop)
        cycle = [loop]
        cycle.append(cycle)
        gc.disable()
        try:
            del loop, cycle
            if inside:
                with tracker._store.lock:
                    gc.collect()
            else:
                gc.collect()
        finally:
            gc.enable()
        assert bar.disable
        assert len(looked) == 1


def test_bar_that_is_dropped_ends(make, screen):
    tracker = make(init=tasks(3))
    tracker.progress(file=screen)
    gc.collect()
    assert screen.has_ended


def test_no_thread_is_left_behind_or_started(make, screen):
    tracker = make(init=tasks(3))
    before = threading.enumerate()
    for _ in tracker.progress(file=screen):
        assert threading.enumerate() == before
    assert threading.enumerate() == before


def test_several_bars_at_once(make, screen):
    tracker = make(init=tasks(3))
    with tracker.progress(file=screen, desc="outer", position=0) as outer:
        for key in tracker.progress(file=screen, desc="inner", position=1):
            tracker.mark_done(key)
            outer.update()
    assert outer.n == 3


# On a real terminal

PROGRAM = """
    import sys
    from tastypy_fast import {cls}

    tracker = {cls}(sys.argv[1], max_tries=1)
    tracker.add_many_if_absent(range(400))
    for key in tracker.progress(desc="pages", mininterval=0):
        if key % 100:
            tracker.mark_done(key)
        if key == int(sys.argv[2]):
            tracker.sync()
            print("synced", flush=True)
            sys.stdin.read()  # until it is killed
    print("ended")
"""


class OnTerminal:
    """A program with a terminal of 80 columns for its stderr."""

    def __init__(self, program, *arguments):
        self.screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=terminal, env=environment,
            )
        finally:
            os.close(terminal)
        self.shown = ""

    def read(self):
        try:
            text = os.read(self.screen, 1 << 16).decode("utf-8", "replace")
        except OSError:  # nobody writes any more
            text = ""
        self.shown += text
        return bool(text)

    def end(self):
        while self.read():
            pass
        status = self.process.wait()
        self.process.communicate()
        os.close(self.screen)
        return status


@pytest.mark.parametrize("cls", ["ProgressTracker", "SharedProgressTracker"])
def test_bar_on_a_terminal_goes_on_after_a_kill(path, cls):
    program = PROGRAM.format(cls=cls)
    first = OnTerminal(program, path, 250)
    while "250/400" not in first.shown:
        assert first.read(), first.shown
    assert first.process.stdout.readline() == b"synced\n"
    first.process.send_signal(signal.SIGKILL)
    assert first.end() == -signal.SIGKILL

    second = OnTerminal(program, path, -1)
    assert second.end() == 0
    lines = [line for line in re.split(r"[\r\n]+", second.shown) if line.strip()]
    # 251 done or failed (0, 100 and 200); a worker that was killed leaves its own to the next one.
    assert re.match(r"pages:  63%\|[^|]+\| 251/400 \[00:00<\?, \?task/s, failed=3\]", lines[0]), lines[0]
    assert re.match(r"pages: 100%\|█+\| 400/400 \[.*task/s, failed=4\]", lines[-1]), lines[-1]
    assert all(len(line) <= 80 for line in lines)
    assert second.shown.endswith("\r\n")


# In a notebook


def test_bar_in_a_notebook(make, monkeypatch):
    pytest.importorskip("ipywidgets")
    notebook = pytest.importorskip("tqdm.notebook")
    monkeypatch.setattr(sys.modules.get("tqdm.auto") or pytest.importorskip("tqdm.auto"), "tqdm", notebook.tqdm)
    tracker = make(init=tasks(2, _done=True))
    bar = tracker.progress(mininterval=0, display=False)
    for key in bar:
        tracker.mark_done(key)
    tracker.add("x")
    bar = tracker.progress(mininterval=0, display=False)
    for key in bar:
        if key == "x":
            tracker.add("y")
        tracker.mark_done(key)
    widget = bar.container.children[-2]
    assert (widget.value, widget.max, widget.bar_style) == (4, 4, "success")

    bar = tracker.progress(mininterval=0, display=False)
    tracker.add("z")
    leave_by_break(bar)
    assert bar.container.children[-2].bar_style == "danger"

    tracker.clear()
    bar = tracker.progress(mininterval=0, display=False)
    tracker.add("a")
    bar.update()
    widget = bar.container.children[-2]
    assert (widget.value, widget.max, widget.layout.width) == (0, 1, None)
    bar.close()


def test_package_is_imported_without_any_comfort():
    source = Path(tastypy_fast.__file__).parent
    code = f"import sys; sys.path.insert(0, {str(source.parent)!r}); import tastypy_fast; " \
           "print([name for name in ('tqdm', 'pyarrow', 'pandas', 'polars') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
