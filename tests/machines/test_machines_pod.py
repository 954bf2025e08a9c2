"""Random operations on a dict store agree with a plain dict."""

from __future__ import annotations

import pytest

from tests.support.machines import ORDINARY, STORM
from tests.support.pod_machine import PodMachine


@pytest.mark.timeout(900)
class TestPod(PodMachine.TestCase):
    settings = ORDINARY


@pytest.mark.storm
@pytest.mark.timeout(0)
class TestPodStorm(PodMachine.TestCase):
    settings = STORM
