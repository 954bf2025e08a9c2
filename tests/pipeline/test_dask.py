"""Runs on Dask clusters.

The tests are in ``dask_cases.py``, and run in a process of their own, because importing Dask changes how exceptions are
pickled, and its threads stay to the end of the process.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("dask_cases.py")


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="Dask is not installed")
@pytest.mark.parametrize("mark", ["not storm", pytest.param("storm", marks=pytest.mark.storm)])
def test_runs_on_dask_clusters(mark):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", mark, str(CASES)],
        cwd=CASES.parents[2], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
