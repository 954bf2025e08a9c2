"""Random operations on a tracker agree with a plain dict of tasks."""

from __future__ import annotations

import pytest

from tests.support.machines import ORDINARY, STORM
from tests.support.tracker_machine import TrackerMachine


@pytest.mark.timeout(900)
class TestTracker(TrackerMachine.TestCase):
    settings = ORDINARY


@pytest.mark.storm
@pytest.mark.timeout(0)
class TestTrackerStorm(TrackerMachine.TestCase):
    settings = STORM
