"""The benchmarks measure what they say, and the README shows what was measured."""

from __future__ import annotations

import pytest

from benchmarks import pictures, readme, runner, tables
from benchmarks.clock import Clock
from benchmarks.inputs import KINDS, Content
from benchmarks.measure import measure
from benchmarks.results import Case, Result, Sample, Saved
from benchmarks.runner import Runner, Step, before
from benchmarks.shared_stores import SHARED_BY_HAND
from benchmarks.shared_workloads import SHARED_WORKLOADS, Scale, Share
from benchmarks.stores import BY_HAND, OURS, installed, left_out
from benchmarks.workloads import PREPARATIONS, WORKLOADS

N = 300
ALONE = [
    (name, kind, store)
    for name, workload in WORKLOADS.items()
    for kind in (workload.kinds if name in ("fill", "tracker_fill") else KINDS[:1])
    for store in workload.stores()
    if store in (OURS, *BY_HAND)
]
TOGETHER = [
    (name, batch, store)
    for name, workload in SHARED_WORKLOADS.items()
    for batch in (1, 7)
    for store in workload.stores(batch)
    if store in (OURS, *SHARED_BY_HAND)
]
# It forks, which a process with threads should not.
FORKS = "reopen"


def prepare(name, content, store, path):
    """Do what a workload begins with."""
    earlier = before(name)
    if earlier:
        do_alone(earlier, content, store, path)


def do_alone(name, content, store, path):
    prepare(name, content, store, path)
    workload = {**WORKLOADS, **PREPARATIONS}[name]
    store_class = workload.stores()[store]
    make = store_class.for_reading if workload.reading else store_class
    assert workload.run(lambda: make(path), content, Clock()) > 0
    workload.check(lambda: store_class(path), content)


@pytest.mark.parametrize(("name", "kind", "store"), [case for case in ALONE if case[0] != FORKS])
def test_workload_of_one_process_does_what_it_says(name, kind, store, tmp_path):
    do_alone(name, Content(N, kind), store, str(tmp_path / "store"))


@pytest.mark.parametrize("store", [OURS, *BY_HAND])
def test_workload_with_a_kill_does_what_it_says(store, tmp_path):
    do_alone("fill", Content(N), store, str(tmp_path / "store"))
    assert measure(store, Case(FORKS, N), tmp_path / "store").items == 1


@pytest.mark.parametrize(("name", "batch", "store"), TOGETHER)
def test_workload_of_several_processes_does_what_it_says(name, batch, store, tmp_path):
    workload, scale = SHARED_WORKLOADS[name], Scale(N, batch)
    made = workload.stores(batch)[store](str(tmp_path / "store"))
    workload.prepare(made, N)
    # (one share: what belongs to the processes is tested below)
    found = [getattr(made, workload.method(batch))(workload.given(Share(scale, 0, 1)))]
    workload.check(made, scale, found)
    made.close()


def test_several_processes_work_at_once(tmp_path):
    sample = measure(OURS, Case("shared_claim_done", N, processes=2, batch=10), tmp_path / "store")
    assert sample.items == N
    assert sample.seconds > 0


@pytest.mark.parametrize("name", ["fill", "tracker_fill"])
def test_check_fails_when_a_store_lost_something(name, tmp_path):
    do_alone(name, Content(N), OURS, str(tmp_path / "store"))
    workload = WORKLOADS[name]
    with pytest.raises((AssertionError, KeyError)):
        workload.check(lambda: workload.stores()[OURS](str(tmp_path / "store")), Content(N + 1))


def test_package_that_is_not_installed_is_left_out_and_said():
    packages = {"absent": ("no_such_module", "no-such-package", ("", None, None, "", ""))}
    assert installed(packages) == {}
    assert "not installed" in left_out(packages)["absent"]


# How far a slow store gets


@pytest.mark.parametrize(
    ("seconds", "reached"),
    [(lambda n: n * 1e-6, 1_000_000), (lambda n: n * 1e-3, 20_000), (lambda n: n * n * 2e-8, 20_000)],
    ids=["quick", "slow", "squared"],
)
def test_slow_store_is_measured_with_fewer_keys(seconds, reached, tmp_path, monkeypatch):
    def pretend(_peer, case, path):
        path.mkdir()
        return Sample(seconds(case.n), 0.0, case.n, None, 0)

    monkeypatch.setattr(runner, "measure", pretend)
    step = Step(["fill"], [1_000_000], peers=[OURS, "lmdb"], limit=25)
    ours, other = Runner(tmp_path, lambda line: None).run([step], lambda results: None)
    assert (ours.reached, other.reached) == (1_000_000, reached)
    assert len(ours.samples) == 3
    assert not list(tmp_path.iterdir())


# What is kept


def results(peers, seconds, case=Case("fill", 1000)):  # noqa: B008  (it cannot change)
    return [Result(case, peer, case.n, False, [Sample(seconds, 0.5, case.n, 4096, 8192)]) for peer in peers]


def test_results_of_a_part_take_the_place_of_older_ones(tmp_path):
    first = Saved([], []).with_run({"run": 1}, results([OURS, "lmdb"], 1.0))
    first = first.with_run({"run": 2}, results([OURS], 2.0, Case("read", 1000)))
    second = first.with_run({"run": 3}, results([OURS], 4.0))
    second.save(tmp_path / "results.json")
    found = Saved.load(tmp_path / "results.json")
    assert found.runs == [{"run": 1}, {"run": 2}, {"run": 3}]
    assert {result.key: (found.runs[result.run]["run"], result.samples[0].seconds) for result in found.results} == {
        (Case("fill", 1000), OURS): (3, 4.0),
        (Case("fill", 1000), "lmdb"): (1, 1.0),
        (Case("read", 1000), OURS): (2, 2.0),
    }
    third = found.with_run({"run": 4}, results([OURS, "lmdb"], 1.0))
    assert third.runs == [{"run": 2}, {"run": 4}]


# What the README shows


def test_readme_and_pictures_are_made_from_the_results():
    assert readme.out_of_date() == [], "run: python -m benchmarks.readme"


def test_readme_that_differs_is_found(tmp_path, monkeypatch):
    changed = readme.README.read_text().replace(readme.END, f"| a number | 1 |\n{readme.END}")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    readme.README.write_text(changed)
    assert readme.out_of_date() == ["README.md"]


def test_picture_of_other_numbers_is_found(monkeypatch):
    measured = tables.Measured(Saved.load(readme.RESULTS))
    assert set(pictures.pictures(measured)) == {file.name for file in readme.PLOTS.glob("*.svg")}
    monkeypatch.setattr(pictures, "DRAWING", pictures.DRAWING + 1)
    assert set(readme.out_of_date()) == set(pictures.pictures(measured))
