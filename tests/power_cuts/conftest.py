"""Fixtures for the simulated power cuts."""

from __future__ import annotations

import pytest

from tests.power_cuts.checker import Checker
from tests.power_cuts.recorder import compile_shim, unsupported
from tests.power_cuts.simulation import simulate_workload


@pytest.fixture
def needs_disk():
    # A file system in memory cannot lose anything in a power cut, and a store may know that. Nothing is flushed.
    return True


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """The compiled shim."""
    reason = unsupported()
    if reason:
        pytest.skip(reason)
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def checker(shim, tmp_path):
    """A process that checks disks."""
    checker = Checker(shim, tmp_path / "checker")
    yield checker
    checker.close()


@pytest.fixture
def simulate(shim, checker, tmp_path):
    """Record a workload, and check so many disks of it as after a power cut."""

    def run(*arguments, **options):
        result = simulate_workload(shim, checker, tmp_path / "recording", *arguments, **options)
        print(*arguments, result)
        return result

    return run
