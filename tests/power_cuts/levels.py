"""The levels of durability under test, and what they owe."""

from __future__ import annotations

import pytest

from tastypy_fast._lmdb.engine import DURABILITY

__all__ = ["LEVELS", "NOT_BUILT", "UNSAFE", "cases"]

# The levels that a power cut cannot harm.
LEVELS = ("full", "normal", "process")
# The level that it can: the control, where the simulation has to find damage.
UNSAFE = "unsafe" if "unsafe" in DURABILITY else "process"
NOT_BUILT: tuple = ()


def cases(counts):
    """Parameters (workload, level, disks) from {(workload, level): disks}."""
    return [
        pytest.param(workload, level, disks, id=f"{workload}-{level}", marks=NOT_BUILT if level == "process" else ())
        for (workload, level), disks in counts.items()
    ]
