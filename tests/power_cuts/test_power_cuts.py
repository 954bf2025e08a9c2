"""Simulated power cuts: no store is damaged, and nothing is lost that was promised.

Each test records the writes of real processes, and checks the disks that power cuts during them may leave. Print the
numbers with ``python -m tests.power_cuts``.
"""

from __future__ import annotations

import pytest

from tests.power_cuts.levels import LEVELS, UNSAFE, cases
from tests.power_cuts.workloads import WORKLOADS

# How many disks there are in the ordinary run.
ORDINARY = {
    ("pod", "full"): 40,
    ("tracker", "full"): 40,
    ("shared-two", "full"): 40,
    ("pod-wal", "normal"): 80,
    ("tracker", "normal"): 80,
    ("shared-two", "normal"): 40,
    ("pod-wal", "process"): 60,
    ("tracker", "process"): 60,
    ("shared-one", "process"): 80,
    ("shared-two", "process"): 80,
    ("shared-killed", "process"): 80,
}
# How many there are in the storm, of one recording, and how many recordings of each workload.
STORM = {(workload, level): 300 for workload in WORKLOADS for level in LEVELS}
RECORDINGS = 4


@pytest.mark.parametrize(("workload", "level", "disks"), cases(ORDINARY))
def test_power_cut_takes_nothing_that_was_promised(simulate, seed, workload, level, disks):
    result = simulate(workload, level, disks, seed)
    assert result.disks > disks / 2
    assert not result.bad, result


@pytest.mark.storm
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("workload", "level", "disks"), cases(STORM))
def test_many_power_cuts_take_nothing_that_was_promised(simulate, seed, workload, level, disks):
    for number in range(RECORDINGS):
        result = simulate(workload, level, disks, seed + number)
        assert not result.bad, result


@pytest.mark.parametrize(("workload", "disks"), [
    ("pod-wal", 80), ("shared-two", 40),
    *(pytest.param(workload, 300, marks=pytest.mark.storm) for workload in WORKLOADS),
])
def test_simulation_finds_damage_where_nothing_is_protected(simulate, seed, workload, disks):
    result = simulate(workload, UNSAFE, disks, seed)
    assert result.counts["damaged"] > disks / 50, result


@pytest.mark.parametrize("disks", [60, pytest.param(600, marks=pytest.mark.storm)])
@pytest.mark.parametrize("workload", ["shared-one-unpinned", "shared-two-unpinned"])
def test_simulation_finds_damage_if_no_slot_protects_the_flush_point(simulate, seed, workload, disks):
    result = simulate(workload, "process", disks, seed)
    assert result.bad > disks / 50, result


# Creating a store


@pytest.mark.parametrize(("kind", "level"), [
    ("pod", "full"), ("tracker", "normal"), ("shared", "normal"), ("shared", "process"),
])
def test_power_cut_while_a_store_is_created_leaves_one_that_opens(simulate, seed, kind, level):
    result = simulate(f"create/{kind}", level, 50, seed, first=None)
    assert not result.bad, result


@pytest.mark.storm
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["pod", "tracker", "shared"])
def test_many_power_cuts_while_a_store_is_created(simulate, seed, kind, level):
    result = simulate(f"create/{kind}", level, 1_000, seed, first=None)
    assert not result.bad, result


# Compacting


@pytest.mark.parametrize(("workload", "level"), [("pod-wal", "normal"), ("tracker", "full"), ("shared-one", "normal"),
                                                 ("shared-one", "process")])
def test_power_cut_while_a_store_is_compacted_leaves_the_old_or_the_new_one(simulate, seed, workload, level):
    result = simulate(f"compact/{workload}", level, 30, seed, first="compact")
    assert not result.bad, result


@pytest.mark.storm
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_many_power_cuts_while_a_store_is_compacted(simulate, seed, workload, level):
    result = simulate(f"compact/{workload}", level, 500, seed, first="compact")
    assert not result.bad, result
