"""``result_recorder``: how many changes are in memory before they are committed, and in which batches."""

from __future__ import annotations

import pytest

from tastypy_fast import DiskFullError, Tracker
from tastypy_fast._core.finishing import FINISH_DONE
from tastypy_fast.pipeline import TaskResult, result_recorder
from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.result_recorder import ResultRecorder


@pytest.fixture(autouse=True)
def few_changes(monkeypatch):
    """Let no commit come by time, and let few changes be many."""
    monkeypatch.setattr(result_recorder, "COMMIT_SECONDS", 1e9)
    monkeypatch.setattr(result_recorder, "MAX_CHANGES", 100)


@pytest.mark.parametrize("links", [2, 30])
def test_changes_of_a_crawl_in_memory_are_bounded(path, links):
    """ray #4657, scrapy #4106: written whenever the tasks ran out, results were in the cache until their time came."""
    held = []

    def visit(key):
        new = range(links * key + 1, links * (key + 1) + 1)
        return TaskResult({"key": key}, add=[one for one in new if one < 1000])

    with Tracker(path) as tracker:
        tracker.add(0)
        report = tracker.run(visit, executor="inline", on_result=lambda key, data: held.append(len(tracker.dirty())))
        assert report.done == 1000
    assert max(held) < 100 + 1 + links


class Recording:
    """A recorder of 50 results, each with 20 new tasks, which notes what becomes of them."""

    def __init__(self, tracker, monkeypatch):
        tracker.add_many(range(50))
        self.batches = []
        self.commits = []
        self.saved = []
        self.refused = []
        self.fails_at = -1
        finish_many, commit_run = tracker._finish_many, tracker._commit_run

        def note_batch(changes):
            if len(self.batches) == self.fails_at:
                raise DiskFullError("no space")
            self.batches.append(len(changes))
            return finish_many(changes)

        def note_commit():
            self.commits.append(len(self.batches))
            commit_run()

        monkeypatch.setattr(tracker, "_finish_many", note_batch)
        monkeypatch.setattr(tracker, "_commit_run", note_commit)
        self.queue = tracker._open_queue(False, remote=True)
        self.recorder = ResultRecorder(tracker, lambda task, data: self.saved.append(task.key),
                                       lambda task, error: self.refused.append(task.key))
        for key, tries, _ in self.queue.take(50):
            data = {"a set": {1}} if key == 3 else {"key": key}
            self.recorder.add(Task(key, tries), FINISH_DONE, data, [100 + 20 * key + link for link in range(20)])


def test_many_changes_are_committed_in_batches(make, monkeypatch):
    """A transaction of 1,050 changes would keep the pages of all of them in memory."""
    tracker = make(max_tries=3)
    recording = Recording(tracker, monkeypatch)
    recording.recorder.commit()
    assert recording.batches == [8] * 6 + [2]
    assert recording.commits == list(range(1, 8))
    assert recording.saved == [key for key in range(50) if key != 3]
    assert recording.refused == [3]
    assert recording.recorder.flushes == 1
    assert tracker.num_done() == 49
    assert len(tracker) == 1050
    tracker._finish_many([(3, FINISH_DONE, None, 1)])
    recording.queue.close()


def test_batches_after_one_that_fails_stay(make, monkeypatch):
    tracker = make(max_tries=3)
    recording = Recording(tracker, monkeypatch)
    recording.fails_at = 1
    for _ in range(2):
        with pytest.raises(DiskFullError):
            recording.recorder.flush()
        assert recording.saved == [0, 1, 2, 4, 5, 6, 7]
    recording.fails_at = -1
    recording.recorder.flush()
    assert recording.saved == [key for key in range(50) if key != 3]
    assert recording.refused == [3]
    assert {tracker.tries(key) for key in recording.saved} == {1}
    tracker._finish_many([(3, FINISH_DONE, None, 1)])
    recording.queue.close()
