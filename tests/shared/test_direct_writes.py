"""Changes that bypass the cache of a write transaction."""

from __future__ import annotations

import pytest

from tests.support.claims import Worker, call

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.mark.parametrize("meanwhile", ["deleted", "deleted and added", "reverted", "added"])
def test_mark_done_many_works_while_others_change_the_tasks(path, tracker, monkeypatch, meanwhile):
    """Where tasks are is found out before the transaction, and may not be so in it."""
    tracker.add_many("abc")
    tracker.sync()
    if meanwhile == "reverted":
        del tracker["b"]
        tracker.add_many("db")
    with Worker(path) as worker:
        begin = type(tracker)._write_handle

        def begin_late(self):
            monkeypatch.undo()
            if meanwhile.startswith("deleted"):
                worker.ask(call, "__delitem__", "b")
            if meanwhile == "reverted":
                worker.ask(call, "revert")
                worker.ask(call, "add", "e")
            if meanwhile.endswith("added"):
                worker.ask(call, "add", "d")
                if "b" not in tracker:
                    worker.ask(call, "add", "b")
            return begin(self)

        monkeypatch.setattr(type(tracker), "_write_handle", begin_late)
        keys = ["a", "d", "b"] if meanwhile == "added" else ["a", "b", "b"]
        if meanwhile == "deleted":
            with pytest.raises(KeyError, match="'b'"):
                tracker.mark_done_many(keys)
        else:
            tracker.mark_done_many(keys)
        worker.end("close")
    assert [key for key in tracker if tracker.done(key)] == {
        "deleted": [], "deleted and added": ["a", "b"], "reverted": ["a", "b"], "added": ["a", "b", "d"],
    }[meanwhile]
    tracker._check()
