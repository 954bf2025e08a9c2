"""should_do(), should_try() and their variants: which tasks are open."""

from __future__ import annotations

import pytest

from tests.support.tasks import FRESH, SITUATIONS, is_open


@pytest.mark.parametrize("max_tries", [0, 1, 2, 3])
@pytest.mark.parametrize("allow_aborted", [False, True])
@pytest.mark.parametrize("gate", ["should_do", "should_do_add", "should_try", "should_try_add"])
def test_gate_follows_done_aborted_and_tries(make, place, gate, allow_aborted, max_tries):
    tracker = place(make(max_tries=max_tries, init=enumerate(SITUATIONS)))
    for key, task in enumerate(SITUATIONS):
        opens = is_open(task, allow_aborted, max_tries)
        assert getattr(tracker, gate)(key, allow_aborted) is opens
        assert getattr(tracker, gate)(key, allow_aborted=allow_aborted) in (opens, False)
        attempts = tracker.tries(key) - task["_tries"]
        assert attempts in ((1, 2) if opens and "try" in gate else (0,))
        # A gate never changes anything else.
        assert tracker[key] == {**task, "_tries": task["_tries"] + attempts}
    assert len(tracker) == len(SITUATIONS)


@pytest.mark.parametrize("max_tries", [0, 1, 3])
def test_adding_gates_add_a_missing_task_and_return_true(make, max_tries):
    tracker = make(max_tries=max_tries)
    assert tracker.should_do_add("a") is True
    assert tracker["a"] == FRESH
    assert tracker.should_try_add("b", allow_aborted=True) is True
    assert tracker["b"] == {**FRESH, "_tries": 1}
    assert tracker.keys() == ["a", "b"]


def test_tries_run_out_at_max_tries(make, place):
    tracker = place(make(max_tries=3, init={"a": {}}))
    assert [tracker.should_try("a") for _ in range(5)] == [True, True, True, False, False]
    assert tracker.tries("a") == 3
    tracker.reset_tries("a")
    assert [tracker.should_try_add("a") for _ in range(5)] == [True, True, True, False, False]
    tracker.decrement_tries("a")
    assert tracker.should_do("a") is True


def test_max_tries_belongs_to_the_instance_and_is_not_stored(make):
    tracker = make(max_tries=1, init={"a": {"_tries": 1}})
    assert tracker.max_tries == 1
    assert tracker.should_do("a") is False
    assert make(max_tries=2).should_do("a") is True
    assert tracker.should_do("a") is False
    assert make().max_tries == 0


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), (1.0, TypeError), ("1", TypeError), (None, TypeError),
                                              (True, TypeError)])
def test_invalid_max_tries_is_refused_before_a_store_is_created(tracker_class, path, wrong, error):
    with pytest.raises(error, match="max_tries"):
        tracker_class(path, wrong)
    assert not path.exists()
