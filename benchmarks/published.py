"""The published run, which creates ``benchmarks/results.json``."""

from __future__ import annotations

from benchmarks.runner import Step
from benchmarks.stores import OURS
from benchmarks.workloads import WORKLOADS

MILLION = 1_000_000
DICT = tuple(name for name, workload in WORKLOADS.items() if not workload.tasks)
TRACKER = tuple(name for name, workload in WORKLOADS.items() if workload.tasks)
SHARED = ("shared_set", "shared_get", "shared_increment", "shared_locked_increment", "shared_done", "shared_claim_done")
BATCHED = ("shared_set", "shared_locked_increment", "shared_done", "shared_claim_done")
SHARED_N = 20_000
# The workloads whose speed is plotted against the number of keys.
CURVES = ("fill", "overwrite", "update", "read", "iterate", "tracker_fill", "tracker_loop")
# The number of tasks of each pipeline, and the limit. A total time can be compared only with the same number of tasks.
PIPELINES = {
    "pipeline_nothing": (100_000, 15),
    "pipeline_commands": (2000, 15),
    "pipeline_dask": (50_000, 15),
    "pipeline_tail": (20_000, 60),
    "pipeline_resume": (200_000, 60),
}

PUBLISHED = (
    Step(SHARED, (SHARED_N,), processes=(1, 2, 4), rounds=2),
    Step(BATCHED, (SHARED_N,), processes=(2,), batches=(10, 100, 1000), rounds=2),
    Step(CURVES, (10_000, 100_000), rounds=2),
    Step(TRACKER, (MILLION,), rounds=3),
    Step(DICT, (MILLION,), rounds=3),
    # Without the slower packages, because random keys are slow in all of them.
    Step(DICT, (MILLION,), keys=("digest",), rounds=2, stores=(OURS, "lmdb", "sqlite3", "rocksdict", "lmdbm")),
    # One round, because each measurement takes minutes.
    Step(("fill", "read", "iterate", "open_count"), (10 * MILLION,), rounds=1, stores=(OURS, "lmdb"), limit=240),
    Step(("tracker_fill", "tracker_loop", "tracker_todo", "tracker_counts"), (10 * MILLION,), rounds=1, stores=(OURS,)),
    *(
        Step((name,), (n,), processes=(2,), rounds=3, limit=limit, repeat_slow=True)
        for name, (n, limit) in PIPELINES.items()
    ),
    # For the memory of the driver.
    Step(("pipeline_nothing",), (MILLION,), processes=(2,), rounds=1, stores=(OURS,)),
)
