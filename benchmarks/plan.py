"""What the README shows: the run that makes ``benchmarks/results.json``."""

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
# Those whose rate is drawn against the size of the store.
CURVES = ("fill", "overwrite", "update", "read", "iterate", "tracker_fill", "tracker_loop")

PUBLISHED = (
    Step(SHARED, (SHARED_N,), processes=(1, 2, 4), rounds=2),
    Step(BATCHED, (SHARED_N,), processes=(2,), batches=(10, 100, 1000), rounds=2),
    Step(CURVES, (10_000, 100_000), rounds=2),
    Step(TRACKER, (MILLION,), rounds=3),
    Step(DICT, (MILLION,), rounds=3),
    # (of the packages those that the targets are about, as random keys are slow for all)
    Step(DICT, (MILLION,), keys=("digest",), rounds=2, peers=(OURS, "lmdb", "sqlite3", "rocksdict", "lmdbm")),
    # What is drawn further; one round, as each takes minutes.
    Step(("fill", "read", "iterate", "open_count"), (10 * MILLION,), rounds=1, peers=(OURS, "lmdb"), limit=240),
    Step(("tracker_fill", "tracker_loop", "tracker_todo", "tracker_counts"), (10 * MILLION,), rounds=1, peers=(OURS,)),
)
