"""Random operations on a shared dict store agree with a plain dict."""

from __future__ import annotations

import pytest

from tests.support.machines import STORM
from tests.support.shared_pod_machine import FEW, SharedPodMachine


class TestSharedPod(SharedPodMachine.TestCase):
    settings = FEW


@pytest.mark.storm
@pytest.mark.timeout(0)
class TestSharedPodStorm(SharedPodMachine.TestCase):
    settings = STORM
