"""The benchmarks measure what they describe, and the documentation shows the measurements."""

from __future__ import annotations

import shutil
import subprocess
import sys

import lmdb
import pytest

import tastypy_fast
from benchmarks import __main__ as command
from benchmarks import (
    charts,
    checkpoint_size,
    commit_cost,
    compare,
    flush_cost,
    instructions,
    kill_loss,
    open_cost,
    pages,
    pipeline_ways,
    single_operations,
    system,
    tables,
)
from benchmarks import measure as measuring
from benchmarks.clock import Clock
from benchmarks.inputs import KEY_KINDS, Content
from benchmarks.measure import measure
from benchmarks.pipeline_workloads import PIPELINE_WORKLOADS
from benchmarks.results import Case, Result, Sample, SavedResults
from benchmarks.runner import Runner, Step, starts_from
from benchmarks.shared_stores import SHARED_BY_HAND
from benchmarks.shared_stores.bare_environment import FlushedEnvironment
from benchmarks.shared_stores.bare_layout import BareLayoutDict
from benchmarks.shared_workloads import SHARED_WORKLOADS, Scale, Share
from benchmarks.stores import BY_HAND, OURS, installed, not_installed
from benchmarks.stores.base import Package, StoreInfo
from benchmarks.workloads import PREPARATIONS, WORKLOADS
from tastypy_fast._lmdb import flush_points

N = 300
ALONE = [
    (name, kind, store)
    for name, workload in WORKLOADS.items()
    for kind in (workload.key_kinds if name in ("fill", "tracker_fill") else KEY_KINDS[:1])
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
# This runs in a subprocess, because it forks and pytest may have threads.
FORKS = "reopen"


def prepare(name, content, store, path):
    """Run the workload that another one starts from."""
    earlier = starts_from(name)
    if earlier:
        run_alone(earlier, content, store, path)


def run_alone(name, content, store, path):
    prepare(name, content, store, path)
    workload = {**WORKLOADS, **PREPARATIONS}[name]
    store_class = workload.stores()[store]
    make = store_class.for_reading if workload.read_only else store_class
    assert workload.run(lambda: make(path), content, Clock()) > 0
    workload.verify(lambda: store_class(path), content)


@pytest.mark.parametrize(("name", "kind", "store"), [case for case in ALONE if case[0] != FORKS])
def test_workload_of_one_process_passes_its_check(name, kind, store, tmp_path):
    run_alone(name, Content(N, kind), store, str(tmp_path / "store"))


@pytest.mark.parametrize("store", [store for store in (OURS, *BY_HAND) if store in WORKLOADS[FORKS].stores()])
def test_workload_with_a_kill_passes_its_check(store, tmp_path):
    run_alone("fill", Content(N), store, str(tmp_path / "store"))
    assert measure(store, Case(FORKS, N), tmp_path / "store").items == 1


@pytest.mark.parametrize(("name", "batch", "store"), TOGETHER)
def test_workload_of_several_processes_passes_its_check(name, batch, store, tmp_path):
    workload, scale = SHARED_WORKLOADS[name], Scale(N, batch)
    made = workload.stores(batch)[store](str(tmp_path / "store"))
    workload.prepare(made, N)
    # This uses a single share. The next test starts real processes.
    returned = [getattr(made, workload.method(batch))(workload.argument(Share(scale, 0, 1)))]
    workload.verify(made, scale, returned)
    made.close()


def test_shared_workload_runs_in_several_processes(tmp_path):
    sample = measure(OURS, Case("shared_claim_done", N, processes=2, batch=10), tmp_path / "store")
    assert sample.items == N
    assert sample.seconds > 0


# Pipelines

# These run in a subprocess, because they start threads. The cluster of Dask takes seconds, so it is started once.
WITH_THREADS = ("joblib", "distributed")
PIPELINES = [
    (name, way)
    for name, workload in PIPELINE_WORKLOADS.items()
    for way in workload.ways
    if (name, way) != ("pipeline_dask", "client.map")
]


@pytest.mark.parametrize(("name", "way"), PIPELINES)
def test_way_to_run_tasks_passes_its_check(name, way, tmp_path, monkeypatch):
    workload = PIPELINE_WORKLOADS[name]
    if not workload.ways[way].is_installed():
        pytest.skip("it is not installed")
    if workload.ways[way].needs in WITH_THREADS:
        assert measure(way, Case(name, 20, processes=2), tmp_path / "store").seconds > 0
        return
    monkeypatch.setattr(pipeline_ways, "LONG_SECONDS", 0.01)
    execution = workload.ways[way].execution(tmp_path, workload.keys(20), 2)
    assert execution.seconds() > 0
    execution.close()
    execution.verify()


def test_pipeline_is_measured_with_its_workers(tmp_path):
    sample = measure(OURS, Case("pipeline_nothing", 20, processes=2), tmp_path / "store")
    assert sample.items == 20
    assert sample.cpu_seconds > 0
    assert sample.disk > 0


def test_way_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(pipeline_ways.shutil, "which", lambda name: None)
    assert set(measuring.not_installed(["pipeline_commands"])) == {
        "pipeline_commands xargs", "pipeline_commands parallel"}
    assert measuring.stores_of("pipeline_commands") == [OURS]
    assert set(measuring.store_facts(["pipeline_commands"])) == {f"pipeline_commands {OURS}"}


def test_processor_time_has_that_of_processes_which_run_and_which_ended():
    before = system.processor_seconds()
    busy = "import time\nwhile time.process_time() < 0.1: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        running = system.processor_seconds()
        child.communicate(b"\n")
    if sys.platform == "linux":
        assert running - before >= 0.09
    assert system.processor_seconds() - before >= 0.09


@pytest.mark.parametrize("name", ["fill", "tracker_fill"])
def test_check_fails_if_a_key_is_missing(name, tmp_path):
    run_alone(name, Content(N), OURS, str(tmp_path / "store"))
    workload = WORKLOADS[name]
    with pytest.raises((AssertionError, KeyError)):
        workload.verify(lambda: workload.stores()[OURS](str(tmp_path / "store")), Content(N + 1))


def test_package_that_is_not_installed_is_reported():
    packages = {"absent": Package("no_such_module", "no-such-package", StoreInfo("", "", "", None, None, "", ""))}
    assert installed(packages) == {}
    assert "not installed" in not_installed(packages)["absent"]


# Slow stores


@pytest.mark.parametrize(
    ("seconds", "measured_n"),
    [(lambda n: n * 1e-6, 1_000_000), (lambda n: n * 1e-3, 20_000), (lambda n: n * n * 2e-8, 20_000)],
    ids=["fast", "slow", "quadratic"],
)
def test_slow_store_is_measured_with_fewer_keys(seconds, measured_n, tmp_path):
    def fake_measure(_store, case, path):
        path.mkdir()
        return Sample(seconds(case.n), 0.0, case.n, None, 0)

    step = Step(["fill"], [1_000_000], stores=[OURS, "lmdb"], limit=25)
    ours, other = Runner(tmp_path, lambda line: None, fake_measure).run([step], lambda results: None)
    assert (ours.measured_n, other.measured_n) == (1_000_000, measured_n)
    assert len(ours.samples) == 3
    assert not list(tmp_path.iterdir())


def test_slow_store_can_be_measured_in_all_rounds(tmp_path):
    def fake_measure(_store, case, path):
        path.mkdir()
        return Sample(15, 0.0, case.n, None, 0)

    for repeat_slow in (False, True):
        step = Step(["fill"], [100], rounds=3, stores=[OURS, "lmdb"], limit=20, repeat_slow=repeat_slow)
        _, other = Runner(tmp_path, lambda line: None, fake_measure).run([step], lambda results: None)
        assert len(other.samples) == (3 if repeat_slow else 1)


# The results file


def results(stores, seconds, case=Case("fill", 1000)):  # noqa: B008  (a Case is immutable)
    return [Result(case, store, case.n, False, [Sample(seconds, 0.5, case.n, 4096, 8192)]) for store in stores]


def test_new_results_replace_older_ones_of_the_same_case(tmp_path):
    first = SavedResults([], []).with_run({"run": 1}, results([OURS, "lmdb"], 1.0))
    first = first.with_run({"run": 2}, results([OURS], 2.0, Case("read", 1000)))
    second = first.with_run({"run": 3}, results([OURS], 4.0))
    second.save(tmp_path / "results.json")
    found = SavedResults.load(tmp_path / "results.json")
    assert found.runs == [{"run": 1}, {"run": 2}, {"run": 3}]
    assert {result.key: (found.runs[result.run]["run"], result.samples[0].seconds) for result in found.results} == {
        (Case("fill", 1000), OURS): (3, 4.0),
        (Case("fill", 1000), "lmdb"): (1, 1.0),
        (Case("read", 1000), OURS): (2, 2.0),
    }
    third = found.with_run({"run": 4}, results([OURS, "lmdb"], 1.0))
    assert third.runs == [{"run": 2}, {"run": 4}]


# The load of the machine


@pytest.mark.parametrize(("load", "starts"), [(1.01, False), (1.0, True)])
@pytest.mark.parametrize("published", [True, False])
def test_published_run_needs_a_quiet_machine(load, starts, published, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(system, "load", lambda: (load, 2.0, 3.0))
    monkeypatch.setattr(command.Runner, "run", lambda self, steps, save: results([OURS], 1.0))
    file = tmp_path / "results.json"
    arguments = ["--json", str(file), "--folder", str(tmp_path), *["--published"] * published]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    error = command.main()
    assert f"load before: {load:.2f}" in capsys.readouterr().err
    if starts or not published:
        assert error is None
        (run,) = SavedResults.load(file).runs
        assert run["machine"]["load before"] == f"{load:.2f} 2.00 3.00"
    else:
        assert f"The load is {load:.2f}" in error
        assert not file.exists()


def test_published_cost_of_commits_needs_a_quiet_machine(monkeypatch):
    monkeypatch.setattr(commit_cost, "load", lambda: (1.01, 2.0, 3.0))
    monkeypatch.setattr(sys, "argv", ["commit_cost", "--published"])
    assert "The load is 1.01" in commit_cost.main()


# Comparing two installations


def compared(before_seconds, after_seconds):
    return [
        Result(Case("fill", 1000), name, 1000, False, [Sample(each, 1.0, 1000, None, 0) for each in seconds])
        for name, seconds in [("before", before_seconds), ("after", after_seconds)]
    ]


def test_comparison_shows_the_ratio_of_the_medians():
    text, slow = compare.table(compared([1.0, 2.0, 4.0], [1.0, 1.0, 1.0]), ["before", "after"], 0.95)
    assert "2.000" in text
    assert "1.00 .. 4.00" in text
    assert slow == []


def test_comparison_reports_a_slower_workload():
    _, slow = compare.table(compared([1.0], [2.0]), ["before", "after"], 0.95)
    assert slow == ["n=1,000 fill, after: 0.500"]


def test_comparison_measures_the_installed_package_and_not_the_checkout(tmp_path):
    """From a checkout, ``python -m`` would import the package of the checkout."""
    (tmp_path / "tastypy_fast").mkdir()
    (tmp_path / "tastypy_fast" / "__init__.py").write_text("raise RuntimeError('the checkout was imported')")
    shutil.copytree(compare.FOLDER, tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    same = ["--python", f"one={sys.executable}", "--python", f"two={sys.executable}"]
    options = ["--only", "fill", "shared_done", "-n", "200", "--shared-n", "20", "--rounds", "1"]
    command = [sys.executable, "-m", "benchmarks.compare", *same, *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"one  tastypy_fast {tastypy_fast.__version__}" in done.stdout
    assert "n=200 fill" in done.stdout
    assert "n=20 shared_done 2 processes" in done.stdout


# The tables


def cell(value, comparable=True):
    return tables.Cell(tables.rate(value), value, "", comparable)


@pytest.mark.parametrize(
    ("cells", "higher_is_better", "bold"),
    [
        ([cell(1000), cell(2000)], True, ["1,000", "**2,000**"]),
        ([cell(1000), cell(2000)], False, ["**1,000**", "2,000"]),
        ([cell(1999.9), cell(2000)], True, ["**2,000**", "**2,000**"]),
        ([cell(1000), None], True, ["1,000", ""]),
        ([cell(1000), cell(2000), cell(3000, False)], True, ["1,000", "**2,000**", "3,000"]),
        ([cell(3000, False), None], True, ["3,000", ""]),
    ],
    ids=["rate", "time", "equal when shown", "single value", "reference", "single reference"],
)
def test_best_value_of_a_row_is_bold(cells, higher_is_better, bold):
    assert tables._row("title", cells, higher_is_better) == ["title", *bold]


def test_rate_with_fewer_keys_can_be_the_best_but_a_time_cannot():
    samples = [Sample(1.0, 1.0, 500, None, 0)]
    rate = tables._cell(Result(Case("fill", 1000), "lmdb", 500, False, samples), spread=False)
    time = tables._cell(Result(Case("open", 1000), "lmdb", 500, True, samples), spread=False)
    assert (rate.markdown(True), rate.comparable) == ("**500** (at\u00a0500 keys)", True)
    assert (time.markdown(False), time.comparable) == ("1,000 ms (at\u00a0500 keys)", False)


# The pages and the charts


def test_pages_and_charts_are_generated_from_the_results():
    assert pages.stale_files() == [], "run: python -m benchmarks.pages"


@pytest.fixture
def copied_pages(tmp_path, monkeypatch):
    shutil.copytree(pages.PAGES, tmp_path / "pages")
    monkeypatch.setattr(pages, "PAGES", tmp_path / "pages")
    return pages.PAGES


@pytest.mark.parametrize("name", ["index.md", "details.md"])
def test_edited_page_is_stale(name, copied_pages):
    with (copied_pages / name).open("a") as file:
        file.write("| a number | 1 |\n")
    assert pages.stale_files() == [name]


def test_unknown_chart_is_stale(copied_pages):
    (copied_pages / "old.svg").touch()
    assert pages.stale_files() == ["old.svg"]


def test_chart_is_stale_if_its_content_or_its_drawing_changed(monkeypatch):
    measured = tables.Measured(SavedResults.load(pages.RESULTS))
    assert set(charts.charts(measured)) == {file.name for file in pages.PAGES.glob("*.svg")}
    monkeypatch.setattr(charts, "DRAWING_VERSION", charts.DRAWING_VERSION + 1)
    assert set(pages.stale_files()) == set(charts.charts(measured))


def test_pipelines_have_a_table_for_each_and_one_chart():
    measured = []
    for name, workload in PIPELINE_WORKLOADS.items():
        samples = [Sample(2.0, 1.0, 1000, 4096, 8192)]
        measured += [Result(Case(name, 1000, processes=2), way, 1000, workload.unit == "ms", samples)
                     for way in workload.ways]  # fmt: skip
    larger = Case("pipeline_nothing", 5000, processes=2)
    measured.append(Result(larger, OURS, 5000, False, [Sample(2.0, 1.0, 5000, 7_000_000, 8192)]))
    facts = {
        "machine": dict.fromkeys(("processor", "cores", "memory", "system", "file system", "Python"), "some"),
        "stores": {"pipeline_nothing joblib": {"version": "joblib 9"}, "lmdb": {"version": "lmdb 9"}},
    }
    saved = SavedResults.load(pages.RESULTS)
    stores = [result for result in saved.results if result.case.workload not in PIPELINE_WORKLOADS]
    found = tables.Measured(saved._replace(results=stores).with_run(facts, measured))
    page = tables.main_page(found)
    for name, workload in PIPELINE_WORKLOADS.items():
        title = f"{workload.about}, 1,000 tasks"
        table = page.partition(title[0].upper() + title[1:])[2].partition("\n#")[0]
        assert all(f": {way.call} |" in table for way in workload.ways.values()), name
    assert "With 5,000 tasks, the memory of tastypy_fast's driver grows by 7.0 MB." in " ".join(page.split())
    assert "Versions: joblib 9." in page
    assert "lmdb 9" not in page
    assert len(charts.charts(found)["pipelines.svg"].panels) == len(PIPELINE_WORKLOADS)


def test_a_kill_loses_finished_tasks_only_and_gives_no_wrong_try(tmp_path):
    for number in range(3):
        loss = kill_loss.lose_by_a_kill(tmp_path / str(number), 0.001, 0.2, 1000)
        assert loss.wrong_tries == 0
        assert (loss.seconds > 0) == (loss.tasks > 0)


@pytest.mark.parametrize("name", flush_cost.OPERATIONS)
def test_operations_of_a_measured_time_change_each_store(tmp_path, name, monkeypatch):
    monkeypatch.setattr(flush_cost, "KEYS", N)
    monkeypatch.setattr(flush_cost, "MORE_TASKS", 50)
    operation = flush_cost.OPERATIONS[name]
    stores = [store for store in flush_cost.STORES if flush_cost.can_run(name, store)]
    assert {"tastypy_fast", "unsafe"} < set(stores)
    for number, store_name in enumerate(stores):
        store = flush_cost.opener(name, store_name)(str(tmp_path / str(number)))
        operation.prepare(store, N)
        done = [operation.step(store, 0, step) for step in range(3)]
        store.flush()
        if name.startswith("claim"):
            # The first step claims all, the second adds more.
            assert done == [N, 0, 50]
            assert store.counts() == (N + 50, N + 50, N + 50)
        elif operation.tasks:
            assert store.counts()[:2] == (N + sum(done), sum(done))
        elif name.startswith("assign"):
            assert all(value["step"] == 2 for _, value in store.items())
        else:
            assert store.counter() == sum(done)
        store.close()


def test_flush_costs_of_two_processes_are_saved_and_shown(tmp_path):
    (tmp_path / "stores").mkdir()
    options = flush_cost.parser().parse_args(
        ["--only", "mark done", "--stores", "tastypy_fast", "sqlite3", "--seconds", "0.01", "--rounds", "1",
         "--latency", "--folder", str(tmp_path / "stores")])  # fmt: skip
    found = list(flush_cost.measure_all(options))
    assert not list((tmp_path / "stores").iterdir())
    assert [(rates.store, rates.processes, len(rates.rounds)) for rates in found] == [
        ("tastypy_fast", 2, 1), ("sqlite3", 2, 1)]  # fmt: skip
    for rates in found:
        assert rates.rounds[0].speed > 0
        assert list(rates.rounds[0].percentiles) == sorted(rates.rounds[0].percentiles)
    costs = flush_cost.FlushCosts(system.machine(tmp_path, system.load()), flush_cost.KEYS, 0.01, found)
    file = tmp_path / "costs.json"
    flush_cost.with_earlier(file, costs).save(file)
    other = [rates._replace(operation="assign") for rates in found]
    flush_cost.with_earlier(file, costs._replace(rates=other)).save(file)
    loaded = flush_cost.FlushCosts.load(file)
    (title, table), = loaded.tables().items()
    assert title == "2 processes"
    stores = ["tastypy_fast", "sqlite3"]
    assert [row[:2] for row in table[1:]] == [[name, store] for name in ("mark done", "assign") for store in stores]
    assert [row[4] for row in table[1::2]] == ["1.00", "1.00"]
    page = tables.details_page(tables.Measured(SavedResults.load(pages.RESULTS)), None, loaded)
    assert "### Flushes included, 2 processes" in page


def test_loop_with_flush_points_has_them(tmp_path, monkeypatch):
    path = str(tmp_path / "store")
    store = BareLayoutDict(path, FlushedEnvironment)
    store.fill([[("key", 1)]])
    store.flush()
    monkeypatch.setattr(flush_points.boot_id, "boot_id", lambda: b"another boot....")
    assert flush_points.find_due_note(path) is None
    store.set_each([("key", 2)])
    note = flush_points.find_due_note(path)
    store.close()
    flush_points.put_back(path, note)
    before = BareLayoutDict(path)
    assert before.get("key") == 1
    before.close()


def test_checkpoints_of_each_size_write_the_same_changes(tmp_path):
    sizes = [1000, 2000, checkpoint_size.OWN]
    checkpoint_size.build(str(tmp_path), sizes, 4000)

    def assert_same():
        with lmdb.open(str(tmp_path / "bare"), max_dbs=8) as bare, lmdb.open(str(tmp_path / "own"), max_dbs=8) as own:
            for name in (b"values", b"order"):
                with bare.begin(db=bare.open_db(name)) as txn, own.begin(db=own.open_db(name)) as expected:
                    assert list(txn.cursor()) == list(expected.cursor())

    assert_same()
    for name in ("add", "update"):
        found = list(checkpoint_size.measure(str(tmp_path), [name], sizes[1:], 2000, 1))
        assert [(cost.operation, cost.keys, cost.checkpoint_at) for cost in found] == [
            (name, 4000 if name == "add" else 6000, size) for size in sizes[1:]]  # fmt: skip
        assert all(len(cost.cells()) == len(checkpoint_size.COLUMNS) for cost in found)
        assert_same()
    found = list(checkpoint_size.measure(str(tmp_path), ["add"], sizes[:2], 2000, 1))
    assert [(cost.keys, cost.checkpoint_at) for cost in found] == [(6000, 1000), (6000, 2000)]


def test_each_way_of_opening_finds_what_was_written(tmp_path):
    open_cost.fill(str(tmp_path), 20)
    found = open_cost.measure(str(tmp_path), 20, 1)
    assert list(found) == list(open_cost.WAYS)
    assert all(seconds[0] > 0 for seconds in found.values())


@pytest.mark.parametrize("name", commit_cost.OPERATIONS)
def test_cost_of_a_commit_is_measured_for_each_store(tmp_path, name):
    operation = commit_cost.OPERATIONS[name]
    workload, scale = SHARED_WORKLOADS[operation.workload], Scale(N, operation.batch)
    stores = commit_cost.stores(name, ["process"])
    assert len(stores) > 1
    for number, make in enumerate(stores.values()):
        store = make(str(tmp_path / str(number)))
        workload.prepare(store, N)
        if operation.parts:
            returned, used = commit_cost._claim_and_end(store)
            assert used.keys() == set(operation.parts)
        else:
            returned = getattr(store, workload.method(operation.batch))(workload.argument(Share(scale, 0, 1)))
        store.sync()
        workload.verify(store, scale, [returned])
        store.close()


def test_commit_costs_of_two_processes_are_saved_and_shown(tmp_path):
    options = commit_cost.parser().parse_args(
        ["--only", "delete", "--levels", "unsafe", "--processes", "2", "--keys", str(N), "--rounds", "1",
         "--folder", str(tmp_path)])  # fmt: skip
    found = list(commit_cost.measure_all(options))
    assert not list(tmp_path.iterdir())
    assert [(cost.operation, cost.processes, cost.items) for cost in found] == [("delete", 2, N // 2)] * 3
    if sys.platform == "linux":
        assert all(cost.each(lambda sample: sample.written) > 2 * 4096 for cost in found)
    costs = commit_cost.CommitCosts(system.machine(tmp_path, system.load()), N, 4096, found)
    costs.save(tmp_path / "costs.json")
    loaded = commit_cost.CommitCosts.load(tmp_path / "costs.json")
    assert loaded.tables() == costs.tables()
    page = tables.details_page(tables.Measured(SavedResults.load(pages.RESULTS)), loaded)
    assert "### Commits, 2 processes" in page
    assert all(f"| {cost.store} |" in page for cost in found)


# The instructions of single operations


@pytest.mark.parametrize("name", single_operations.OPERATIONS)
def test_single_operation_runs(name, tmp_path):
    try:
        store, work = single_operations.prepared(name, str(tmp_path / "store"))
    except AttributeError:
        pytest.skip("the store lacks it")
    work()
    store.close()


def test_more_instructions_than_the_limit_are_found():
    first, second, third, *_ = single_operations.OPERATIONS
    table, slower = instructions.compare({first: 1000, second: 1000}, {first: 1100, second: 1101, third: 5}, 1.10)
    assert table[1:] == [(first, "1,000", "1,100", "1.100"), (second, "1,000", "1,101", "1.101")]
    assert slower == [second]


def test_missing_programs_are_named(monkeypatch):
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    assert "apt-get install valgrind" in instructions.missing()
