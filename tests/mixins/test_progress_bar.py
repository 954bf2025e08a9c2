"""tracker.progress(): a bar that shows the counts of the store."""

from __future__ import annotations

import copy
import re
import sys

import pytest

from tastypy_fast import (
    POD,
    ProgressTracker,
    ReadOnlyStoreError,
    SharedPOD,
)
from tests.support.progress import tasks

tqdm = pytest.importorskip("tqdm")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_loop_over_all_tasks_ends_with_a_full_bar(make, screen):
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
def test_bar_does_not_change_what_a_loop_yields(make, screen, name):
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
    # The rate is one task in 10 seconds, so four tasks take 40 seconds. With the tasks of the last run it would be 7.
    assert re.search(r"6/10 \[00:1\d<00:4\d, 1\d\.\d\ds/task\]", screen.getvalue())


def test_total_follows_tasks_that_are_added(make, screen):
    tracker = make(init={"0": {}})
    for key in tracker.progress(file=screen, mininterval=0):
        if int(key) < 9:
            tracker.add(str(int(key) + 1))
        tracker.mark_done(key)
    assert screen.states[-1] == (10, 10, 0)
    assert {(number, number + 1, 0) for number in range(1, 9)} <= set(screen.states)


def test_bar_over_an_empty_tracker_grows_with_added_tasks(make, screen):
    tracker = make()
    assert list(tracker.progress(file=screen)) == []
    with tracker.progress(file=screen, mininterval=0) as bar:
        tracker.add_many("ab")
        bar.update()
        assert len(bar) == 2
    assert screen.states[-1] == (0, 2, 0)


def test_failed_tasks_are_shown_and_count_as_finished(make, screen):
    tracker = make(max_tries=1, init=tasks(6))
    for number, key in enumerate(tracker.progress(file=screen, mininterval=0, postfix="note")):
        if number in (1, 2):
            continue
        (tracker.abort if number == 4 else tracker.mark_done)(key)
    assert screen.states[-1] == (6, 6, 3)
    assert "note, failed=2, aborted=1]" in screen.getvalue()


def test_task_with_tries_left_does_not_count_as_failed(make, screen):
    tracker = make(max_tries=2, init=tasks(3))
    assert len(list(tracker.progress(file=screen))) == 3
    assert screen.states[-1] == (0, 3, 0)
    assert len(list(tracker.progress(file=screen))) == 3
    assert screen.states[-1] == (3, 3, 3)


def test_loop_over_aborted_tasks_counts_them_as_left(make, screen):
    tracker = make(init={"a": {"_aborted": True}, "b": {}})
    for key in tracker.progress(allow_aborted=True, file=screen, mininterval=0):
        tracker.mark_done(key)
    assert screen.states[0] == (0, 2, 0)
    assert screen.states[-1] == (2, 2, 0)


def test_reopened_tasks_are_shown(make, screen):
    tracker = make(init=tasks(3, _done=True))
    with tracker.progress(file=screen, mininterval=0) as bar:
        tracker.mark_not_done("task 1")
        bar.update()
        assert bar.n == 2
        del tracker["task 0"]
    assert screen.states[-1] == (1, 2, 0)


def test_bar_format_may_use_failed_and_aborted(make, screen):
    tracker = make(max_tries=1, init={"a": {"_aborted": True}, "b": {"_tries": 1}, "c": {"_tries": 2}})
    tracker.progress(file=screen, bar_format="{n} {failed} {aborted}").close()
    assert screen.getvalue().endswith("\r3 2 1\n")


def test_options_go_to_tqdm(make, screen):
    tracker = make(init=tasks(1))
    bar = tracker.progress(file=screen, desc="crawl", unit="page", leave=False, ncols=50, ascii=True)
    assert isinstance(bar, tqdm.tqdm)
    assert "crawl:   0%|" in screen.getvalue()
    assert "page/s" in screen.getvalue()
    bar.close()
    assert screen.getvalue().endswith("\r")


def test_disabled_bar_only_yields(make, screen):
    tracker = make(init=tasks(3))
    for key in tracker.progress(disable=True, file=screen):
        tracker.mark_done(key)
    for key in tracker.progress(disable=None, file=screen):  # This is not a terminal.
        assert key is None
    assert screen.getvalue() == ""
    assert tracker.num_done() == 3


@pytest.mark.parametrize("options", [{"total": 3}, {"initial": 0}])
def test_options_that_the_store_determines_are_refused(make, options):
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


def test_dict_stores_have_no_progress():
    assert not hasattr(POD, "progress")
    assert not hasattr(SharedPOD, "progress")


def test_read_only_tracker_shows_the_progress_of_a_writer(make, screen):
    make(ProgressTracker, init=tasks(2)).close()
    reader = make(ProgressTracker, mode="r")
    assert list(reader.progress(reader.todo_keys(), file=screen)) == ["task 0", "task 1"]
    with pytest.raises(ReadOnlyStoreError):
        next(iter(reader.progress(file=screen)))
