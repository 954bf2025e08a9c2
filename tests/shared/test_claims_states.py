"""claims() distinguishes running, unfinished and waiting tasks."""

from __future__ import annotations

import gc
import os
import socket

import pytest

from tastypy_fast import (
    Claim,
)
from tastypy_fast._inspect.task_counts import count_tasks
from tests.support.claims import Worker, call, close_loop, drop_loop, take

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def states(tracker):
    return {key: claim.state for key, claim in tracker.claims().items()}


def states_of(state):
    return states(state.tracker)


@pytest.mark.parametrize("batch", [1, 4])
def test_claims_distinguish_running_unfinished_and_waiting_tasks(path, tracker, batch):
    tracker.add_many(range(6))
    with Worker(path) as worker:

        def everywhere():
            found = states(tracker)
            assert worker.ask(states_of) == found
            with tracker.locked():
                assert states(tracker) == found
            assert [claim.state for claim in count_tasks(tracker).claims.active] == list(found.values())
            return "".join(f"{key}{state[0]}" for key, state in found.items())

        assert worker.ask(take, 2, batch) == [0, 1]
        assert everywhere() == {1: "0u1r", 4: "0u1r2w3w"}[batch]
        worker.ask(call, "mark_done", 1)
        assert everywhere() == {1: "0u", 4: "0u2w3w"}[batch]
        assert worker.ask(take, 1) == [2]
        assert everywhere() == {1: "0u2r", 4: "0u2r3w"}[batch]
        worker.ask(close_loop)
        # The last task is unfinished now, too.
        assert everywhere() == "0u2u"
        assert worker.ask(call, "should_try", 5)
        assert everywhere() == "0u2u5r"
        worker.ask(drop_loop)
        assert worker.ask(take, 1, 3) == [0]
        # These are claimed again, and wait for their next try.
        assert everywhere() == "0r2w3w5r"
        worker.ask(drop_loop)
        assert everywhere() == "0u2u5r"
        assert next(tracker.try_keys()) == 3
        gc.collect()
        assert everywhere() == "0u2u3u5r"
        assert tracker.claimed_keys() == list(tracker.claims()) == [0, 2, 3, 5]
        worker.end("SIGKILL")
    assert states(tracker) == {3: "unfinished"}
    assert sorted(tracker.try_keys()) == [0, 2, 3, 4, 5]


def test_exhausted_loop_has_no_waiting_claims(tracker):
    tracker.add_many("abc")
    assert list(tracker.try_keys(batch=2)) == ["a", "b", "c"]
    assert states(tracker) == dict.fromkeys("abc", "unfinished")
    loop = tracker.try_keys()
    assert next(loop) == "a"
    assert states(tracker) == {"a": "running", "b": "unfinished", "c": "unfinished"}
    assert tracker.claims()["a"] == Claim(os.getpid(), socket.gethostname(), tracker.claims()["a"].since, "running")
