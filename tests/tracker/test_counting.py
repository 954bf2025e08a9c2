"""Counts, fractions and percentages of tasks."""

from __future__ import annotations

import pytest

from tests.support.stores import changing
from tests.support.tasks import counts, reopened


@pytest.mark.parametrize("name", ["done", "tried", "aborted"])
def test_empty_tracker_counts_nothing(tracker, name):
    assert getattr(tracker, f"num_{name}")() == 0
    fraction = getattr(tracker, f"fraction_{name}")()
    assert fraction == 0.0
    assert type(fraction) is float
    assert getattr(tracker, f"percent_{name}")() == "0.00 %"
    assert getattr(tracker, f"percent_not_{name}")() == "100.00 %"


@pytest.mark.parametrize("name", ["done", "tried", "aborted"])
@pytest.mark.parametrize(("count", "total", "decimals", "text", "opposite"), [
    (0, 3, 2, "0.00 %", "100.00 %"), (1, 3, 2, "33.33 %", "66.67 %"), (2, 3, 2, "66.67 %", "33.33 %"),
    (3, 3, 2, "100.00 %", "0.00 %"), (1, 3, 0, "33 %", "67 %"), (1, 3, 5, "33.33333 %", "66.66667 %"),
    (1, 8, 1, "12.5 %", "87.5 %"), (347, 1000, 2, "34.70 %", "65.30 %"),
])
def test_counts_fractions_and_percentages_agree(make, place, name, count, total, decimals, text, opposite):
    special = {"done": {"_done": True}, "tried": {"_tries": 2}, "aborted": {"_aborted": True}}[name]
    tracker = place(make(init=((number, special if number < count else {}) for number in range(total))))
    assert getattr(tracker, f"num_{name}")() == count
    assert getattr(tracker, f"fraction_{name}")() == count / total
    assert getattr(tracker, f"percent_{name}")(decimals) == text
    assert getattr(tracker, f"percent_{name}")(decimals=decimals) == text
    assert getattr(tracker, f"percent_not_{name}")(decimals) == opposite
    if decimals == 2:
        assert getattr(tracker, f"percent_{name}")() == text
        assert getattr(tracker, f"percent_not_{name}")() == opposite


@pytest.mark.parametrize("synced", [False, True])
def test_counts_follow_every_kind_of_change(make, synced):
    tracker = make()
    steps = [
        (lambda: tracker.add_many("abcd"), (4, 0, 0, 0)),
        (lambda: tracker.mark_done("a"), (4, 1, 0, 0)),
        (lambda: tracker.mark_done("a"), (4, 1, 0, 0)),
        (lambda: changing(tracker)["b"].update(_done=True, _tries=1), (4, 2, 0, 1)),
        (lambda: tracker.abort("b"), (4, 2, 1, 1)),
        (lambda: changing(tracker)["c"].__setitem__("x", 1), (4, 2, 1, 1)),
        (lambda: tracker.__setitem__("c", {"_done": True, "_aborted": True, "_tries": 1}), (4, 3, 2, 2)),
        (lambda: tracker.__delitem__("b"), (3, 2, 1, 1)),
        (lambda: tracker.update({"b": {"_aborted": True}}), (4, 2, 2, 1)),
        (lambda: tracker.should_try("d"), (4, 2, 2, 2)),
        (lambda: tracker.should_try_add("e"), (5, 2, 2, 3)),
        (lambda: tracker.decrement_tries("e"), (5, 2, 2, 2)),
        (lambda: tracker.decrement_tries("e"), (5, 2, 2, 2)),
        (lambda: tracker.increment_tries("e"), (5, 2, 2, 2)),
        (lambda: list(tracker.try_keys()), (5, 2, 2, 3)),
        (lambda: list(tracker.try_values(True)), (5, 2, 2, 4)),
        (lambda: tracker.pop("a"), (4, 1, 2, 4)),
        (lambda: tracker.popitem(), (3, 1, 2, 3)),
        (lambda: tracker.mark_not_done("c"), (3, 0, 2, 3)),
        (lambda: tracker.unabort("c"), (3, 0, 1, 3)),
        (lambda: tracker.reset_tries("c"), (3, 0, 1, 2)),
        (lambda: tracker.clear(), (0, 0, 0, 0)),
        (lambda: tracker.add("a"), (1, 0, 0, 0)),
    ]
    for number, (change, expected) in enumerate(steps):
        change()
        assert counts(tracker) == expected, number
        if synced:
            tracker.sync()
            assert counts(tracker) == expected, number
        tracker._check()
    assert counts(reopened(tracker, make)) == (1, 0, 0, 0)


def test_counts_follow_a_revert(make):
    tracker = make(init={"a": {"_done": True}, "b": {}})
    tracker.sync()
    assert counts(tracker) == (2, 1, 0, 0)
    tracker.mark_done("b")
    changing(tracker)["a"]["_aborted"] = True
    tracker.add("c")
    tracker.increment_tries("c")
    assert counts(tracker) == (3, 2, 1, 1)
    tracker.revert()
    assert counts(tracker) == (2, 1, 0, 0)
