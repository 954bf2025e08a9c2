"""Runs on other engines: executors of concurrent.futures, loky, and Dask clusters.

The tests are in the files ``*_cases.py``. Each runs in a process of its own. Dask changes how exceptions are pickled,
and its threads stay to the end of the process. Modules that are sent by value and received by the same process give
their classes other methods.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("mark", ["not storm", pytest.param("storm", marks=pytest.mark.storm)])
@pytest.mark.parametrize("name", ["dask", "futures_executor", "remote_worker"])
def test_cases(name, mark):
    cases = FOLDER / f"{name}_cases.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", mark, str(cases)],
        cwd=FOLDER.parents[1], capture_output=True, text=True, timeout=280)
    # 5: no test was selected.
    assert done.returncode in ((0,) if mark == "not storm" else (0, 5)), done.stdout + done.stderr
