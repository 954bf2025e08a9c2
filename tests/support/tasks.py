"""Helpers for the tests of the tracker."""

from __future__ import annotations

from itertools import product

import pytest

from tastypy_fast import (
    ProgressTracker,
)

FRESH = {"_done": False, "_aborted": False, "_tries": 0}

# Differences of the shared class: which operations exist, that it claims, and that its values are copies.
of_one_process = pytest.mark.parametrize("tracker_class", [ProgressTracker], ids=["tracker"])


def reopened(tracker, make, **options):
    tracker.close()
    return make(**options)


SITUATIONS = [{"_done": done, "_aborted": aborted, "_tries": tries}
              for done, aborted, tries in product((False, True), (False, True), (0, 1, 2, 3, 9))]


def is_open(task, allow_aborted, max_tries):
    """Whether every gate and iterator should accept the task."""
    return (not task["_done"] and (allow_aborted or not task["_aborted"])
            and (not max_tries or task["_tries"] < max_tries))


def counts(tracker):
    return len(tracker), tracker.num_done(), tracker.num_aborted(), tracker.num_tried()
