"""The levels of durability under test, and what they owe."""

from __future__ import annotations

import pytest

__all__ = ["LEVELS", "UNSAFE", "cases"]

# The levels that a power cut cannot harm.
LEVELS = ("full", "normal", "process")
# The level that it can: the control, where the simulation has to find damage.
UNSAFE = "unsafe"


def cases(counts):
    """Parameters (workload, level, disks) from {(workload, level): disks}."""
    return [pytest.param(workload, level, disks, id=f"{workload}-{level}")
            for (workload, level), disks in counts.items()]
