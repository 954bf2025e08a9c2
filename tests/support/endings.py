"""Programs that open stores and end in various ways."""

from __future__ import annotations

import pytest

OPEN = """
import atexit, gc, os, signal, sys, threading
from tastypy_fast import POD, Tracker
pod, tracker = POD(sys.argv[1] + "/pod"), Tracker(sys.argv[1] + "/tracker")
pod["list"] = []
pod.sync()
pod["list"].append(1)
tracker.add("task")
tracker.mark_done("task")
"""
SHARED_OPEN = OPEN.replace("POD, Tracker\n", "SharedPOD as POD, SharedTracker as Tracker\n").replace("pod[", "pod.set[")
kinds = pytest.mark.parametrize("begin", [OPEN, SHARED_OPEN], ids=["private", "shared"])
