"""The limit of tries that is kept with a tracker, for display."""

from __future__ import annotations

import threading

import pytest

from tastypy_fast import SharedTracker, Tracker, maintenance
from tastypy_fast._inspect.store_info import LIMIT, read_limit
from tastypy_fast.cli import app
from tests.support.children import Child

CLASSES = [Tracker, SharedTracker]


def kept(path):
    with Tracker(path, mode="r") as reader:
        return reader.kept_max_tries


@pytest.mark.parametrize("cls", CLASSES)
def test_the_last_limit_with_which_a_tracker_was_opened_to_write_is_kept(path, cls):
    with cls(path, init={"a": {"_tries": 3}}) as tracker:
        assert (tracker.kept_max_tries, tracker.status("a")) == (0, "to retry")
    with cls(path, max_tries=3) as tracker:
        assert (tracker.max_tries, tracker.kept_max_tries, tracker.status("a")) == (3, 3, "failed")
        # Another instance of this process has its own limit, and sets the kept one, too.
        with cls(path, max_tries=5) as other:
            assert (other.kept_max_tries, tracker.kept_max_tries, tracker.max_tries) == (5, 5, 3)
            assert (other.status("a"), tracker.status("a")) == ("to retry", "failed")
    with cls(path) as tracker:
        assert (tracker.max_tries, tracker.kept_max_tries) == (0, 5)
    with cls(path, max_tries=2):
        pass
    assert kept(path) == 2
    maintenance.compact(path)
    assert kept(path) == 2


def test_the_own_limit_decides_what_is_done(path):
    Tracker(path, max_tries=2, init={"a": {"_tries": 2}}).close()
    with Tracker(path) as tracker:
        assert tracker.should_do("a")
        assert list(tracker.try_keys()) == ["a"]
        assert tracker.status("a") == "to retry"
    with Tracker(path, mode="r") as reader:
        assert (reader.status("a"), reader.count_by_status().failed) == ("failed", 1)
        assert list(reader.todo_keys()) == ["a"]
    with Tracker(path, max_tries=9, mode="r") as reader:
        # A limit that is given to a reader is the one to show, and is not kept.
        assert (reader.status("a"), reader.kept_max_tries) == ("to retry", 2)


@pytest.mark.parametrize("cls", CLASSES)
def test_opening_with_the_kept_limit_writes_nothing(path, cls, monkeypatch):
    cls(path, max_tries=3, init={"a": {}}).close()
    with cls(path, max_tries=3) as tracker:
        number = tracker._store.db.info()["last_txnid"]
        with cls(path, max_tries=3):
            assert tracker._store.db.info()["last_txnid"] == number


def test_thread_in_a_block_does_not_delay_opening(path):
    with Tracker(path) as tracker, tracker.locked():
        opened = []
        thread = threading.Thread(target=lambda: opened.append(Tracker(path, max_tries=3)))
        thread.start()
        thread.join(60)
        assert opened[0].max_tries == 3
        opened[0].close()
    assert kept(path) == 0


def open_with_limit(pipe, path):
    pipe.recv()
    with SharedTracker(path, max_tries=3) as tracker:
        pipe.send(tracker.max_tries)
        pipe.recv()


def test_block_of_another_process_does_not_delay_opening(path):
    with SharedTracker(path, init={"a": {}}) as tracker:
        with Child(open_with_limit, path) as child:
            with tracker.locked():
                child.pipe.send("begin")
                assert child.pipe.recv() == 3
            child.pipe.send("end")
            assert child.wait() == 0
        assert tracker.kept_max_tries == 0
    SharedTracker(path, max_tries=3).close()
    assert kept(path) == 3


@pytest.mark.parametrize("raw", [b"", b"x", b"-1", b"9" * 30, b"\xff"])
def test_unreadable_limit_counts_as_none(path, raw):
    with Tracker(path, init={"a": {}}) as tracker:
        tracker._store.write(lambda txn: txn.put(LIMIT, raw, db=tracker._store.meta))
        assert read_limit(tracker._store) == 0
    assert kept(path) == 0
    assert maintenance.verify(path) == []


def test_command_sets_and_clears_the_limit(path, capsys):
    Tracker(path, init={"a": {"_tries": 1}}).close()
    for given, limit, text in (("1", 1, "the limit is 1 try"), ("3", 3, "the limit is 3 tries"),
                               ("none", 0, "there is no limit of tries"), ("0", 0, "there is no limit of tries")):
        assert app.run(["set-max-tries", str(path), given]) == 0
        assert capsys.readouterr().out == text + "\n"
        assert kept(path) == limit
    assert app.run(["set-max-tries", str(path), "2", "--json"]) == 0
    assert capsys.readouterr().out == '{"max_tries":2}\n'
    assert app.run(["set-max-tries", str(path), "-1"]) == 2
    assert app.run(["set-max-tries", str(path), "many"]) == 2
    assert "neither a number of tries nor none" in capsys.readouterr().err
