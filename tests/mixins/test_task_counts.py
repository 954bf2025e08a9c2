"""The counts that the progress bar shows, and how rarely it reads the store."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastypy_fast import (
    ProgressTracker,
    SharedProgressTracker,
)
from tastypy_fast._inspect.statuses import STATUSES, classify
from tastypy_fast._inspect.task_counts import TaskCounter
from tastypy_fast._mixins import progress_bar
from tests.support.progress import tasks

tqdm = pytest.importorskip("tqdm")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

STATES = st.fixed_dictionaries({
    "_done": st.booleans(), "_aborted": st.booleans(),
    "_tries": st.integers(-1, 4) | st.integers(14, 18) | st.integers(300, 301),
})
KEYS = st.sampled_from(["a", "b", "c", 1, (1, "x"), "x" * 600, *range(100, 104)])


def expected_progress(model, max_tries, allow_aborted):
    done = sum(task["_done"] for task in model.values())
    unfinished = [(task["_aborted"], 0 < max_tries <= task["_tries"]) for task in model.values() if not task["_done"]]
    failed = sum(used_up and not aborted for aborted, used_up in unfinished)
    aborted = sum(aborted and (used_up or not allow_aborted) for aborted, used_up in unfinished)
    return len(model), done, failed, aborted


def expected_counts(model, max_tries):
    words = Counter(classify(task["_done"], task["_aborted"], task["_tries"], max_tries) for task in model.values())
    return tuple(words[status] for status in STATUSES)


@settings(max_examples=15)
@given(
    before=st.dictionaries(KEYS, STATES, max_size=8),
    changes=st.lists(st.tuples(KEYS, st.none() | STATES), max_size=8),
    max_tries=st.integers(0, 3) | st.sampled_from([15, 16, 17, 300]),
    count=st.sampled_from([0, 3, 700]),
)
@pytest.mark.parametrize("place", ["private", "private, on hold", "shared", "shared, in a block"])
def test_counts_agree_with_a_scan_of_all_tasks(tmp_path_factory, place, before, changes, max_tries, count):
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
            assert tracker._count_progress(allow_aborted) == expected_progress(model, max_tries, allow_aborted)
        counts = tracker.count_by_status()
        assert counts == expected_counts(model, max_tries)
        assert counts == tuple(list(map(tracker.status, tracker)).count(status) for status in STATUSES)
        if "block" in place:
            tracker.unlock()
        left = list(tracker.todo_keys())
        progress = tracker._count_progress(False)
        assert len(left) == progress.tasks - progress.finished == counts.left
    with ProgressTracker(tracker.path, mode="r") as reader:
        # The limit is kept with the tracker.
        assert (reader.max_tries, reader.kept_max_tries) == (0, max_tries)
        assert reader.count_by_status() == counts
        assert TaskCounter().count(reader).counts == counts
        assert reader._count_progress(False) == expected_progress(model, 0, False)


def test_counts_include_statuses_changed_in_task_dicts(path):
    with ProgressTracker(path, max_tries=2, init=tasks(3)) as tracker:
        tracker.sync()
        tracker["task 0"]["_tries"] = 2
        tracker["task 1"]["_aborted"] = True
        assert tracker._count_progress(False) == (3, 0, 1, 1)
        assert tracker._count_progress(True) == (3, 0, 1, 0)
        assert tracker.count_by_status() == (1, 0, 0, 1, 1, 0)


def test_bar_reads_the_store_rarely(make, screen, monkeypatch):
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


def test_expensive_counts_are_rare(make, screen, monkeypatch):
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
