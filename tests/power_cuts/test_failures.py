"""One write or flush of a store's files fails: there is an error, nothing is lost, and the program goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random

import pytest

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker
from tests.power_cuts.faults import Faults
from tests.power_cuts.levels import LEVELS
from tests.power_cuts.simulation import Result, Simulation

CLASSES = (POD, Tracker, SharedPOD, SharedTracker)
HOWS = {
    "write": (errno.EIO, errno.ENOSPC, errno.EINTR, "short"),
    "flush": (errno.EIO, errno.ENOSPC, errno.EINTR),
}
CALLS = {"write": ("write", "dsync_write"), "flush": ("flush_begin",)}

each_class = pytest.mark.parametrize("cls", [pytest.param(cls, id=cls.__name__) for cls in CLASSES])
each_level = pytest.mark.parametrize("level", LEVELS)


@pytest.fixture
def faults(shim, tmp_path):
    """Runs of a program in which one call fails."""
    faults = Faults(shim, tmp_path / "faults")
    yield faults
    faults.close()


def runs(faults, cls, level, seed, hows, each):
    """Yield (what failed, events) for each failing call, or for ``each`` calls of a kind that are chosen at random."""
    error, events = faults.run(cls, level, None, seed)
    assert not error, error
    for call, how in [(call, how) for call, hows_of_call in hows.items() for how in hows_of_call]:
        numbers = range(1, sum(event.kind in CALLS[call] for event in events) + 1)
        assert len(numbers) > 5
        for number in numbers if each is None else Random(f"{seed} {call} {how}").sample(numbers, each):
            fail = f"{call}:{number}:{how}"
            error, recorded = faults.run(cls, level, fail, seed)
            assert not error, f"{fail}: {error}"
            assert any(event.kind == "fault" for event in recorded), fail
            yield fail, recorded


def cut_power_after(events, faults, checker, cls, level, rng, disks):
    """Check disks of power cuts after the failure, before the sixth flush after it ends."""
    root = Path(os.path.realpath(faults.folder))
    kind = "tracker" if cls in (Tracker, SharedTracker) else "pod"
    simulation = Simulation(events, root, checker, kind, level, rng, is_shared=cls in (SharedPOD, SharedTracker))
    failure = next(at for at, event in enumerate(events) if event.kind == "fault")
    flushes = [at for at, event in enumerate(events) if at > failure and event.kind == "flush_end"]
    return simulation.run(disks, range(failure, [*flushes, len(events) - 1][:6][-1] + 1))


@each_level
@each_class
def test_some_calls_fail_once(faults, cls, level, seed):
    assert len(list(runs(faults, cls, level, seed, HOWS, 2))) == 2 * 7


@pytest.mark.storm
@pytest.mark.timeout(3600)
@each_level
@each_class
def test_each_call_fails_once(faults, cls, level, seed):
    assert len(list(runs(faults, cls, level, seed, HOWS, None))) > 100


# A power cut later. What a failed write has not written is known; a failed flush leaves pages that the next one skips.

each_call = pytest.mark.parametrize(("call", "level"), [(call, level) for call in HOWS for level in LEVELS])


def power_cuts_after(faults, checker, cls, level, seed, hows, each, disks):
    """Let calls fail, one in each run, and check disks of power cuts after it."""
    total = Result()
    for fail, events in runs(faults, cls, level, seed, hows, each):
        rng = Random(f"{seed} {fail}")
        total.add(cut_power_after(events, faults, checker, cls, level, rng, disks), f"{fail}, ")
    print(cls.__name__, level, total)
    assert total.disks
    return total


@each_call
@each_class
def test_power_cut_after_a_failure_takes_nothing_that_was_promised(faults, checker, cls, call, level, seed):
    each = 8 if (call, level) == ("flush", "normal") else 4
    result = power_cuts_after(faults, checker, cls, level, seed, {call: [errno.EIO]}, each, 8)
    assert not result.bad, result


@pytest.mark.storm
@pytest.mark.timeout(3600)
@each_call
@each_class
def test_power_cuts_after_each_failure_take_nothing_that_was_promised(faults, checker, cls, call, level, seed):
    result = power_cuts_after(faults, checker, cls, level, seed, {call: HOWS[call]}, None, 10)
    assert not result.bad, result
