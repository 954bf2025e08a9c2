"""Run one measurement in a process of its own, and sample the memory of that process from outside.

The child prints three lines of JSON: its memory before the work, the measurement, and that the result was verified.
In between the parent samples the child's anonymous memory. The resident size would say nothing about an LMDB store,
because it includes mapped files.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import parallel_run
from benchmarks.clock import Clock
from benchmarks.inputs import Content
from benchmarks.pipeline_workloads import PIPELINE_WORKLOADS, PipelineWorkload
from benchmarks.results import Case, Sample
from benchmarks.shared_stores import NOT_INSTALLED as SHARED_NOT_INSTALLED
from benchmarks.shared_stores import SHARED_STORES
from benchmarks.shared_workloads import SHARED_WORKLOADS, Scale, SharedWorkload
from benchmarks.stores import NOT_INSTALLED, STORES
from benchmarks.system import anonymous_memory, disk_use, processor_seconds
from benchmarks.workloads import PREPARATIONS, WORKLOADS, Workload

ALL_WORKLOADS: dict[str, Workload | SharedWorkload | PipelineWorkload] = {
    **WORKLOADS, **SHARED_WORKLOADS, **PIPELINE_WORKLOADS
}  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.005


def stores_of(workload: str, batch: int = 1) -> list[str]:
    """Return the names of the stores that support a workload."""
    about = ALL_WORKLOADS[workload]
    return list(about.stores(batch) if isinstance(about, SharedWorkload) else about.stores())


def store_facts(workloads: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return what the results file stores about the stores and ways that take part in these workloads."""
    found: dict[str, Any] = {}
    if not WORKLOADS.keys().isdisjoint(workloads):
        found |= STORES
    if not SHARED_WORKLOADS.keys().isdisjoint(workloads):
        found |= {f"shared {name}": info for name, info in SHARED_STORES.items()}
    for workload in PIPELINE_WORKLOADS.keys() & workloads:
        found |= {f"{workload} {name}": way for name, way in PIPELINE_WORKLOADS[workload].stores().items()}
    return {name: info.facts() for name, info in found.items()}


def not_installed(workloads: Sequence[str]) -> dict[str, str]:
    """Return the stores that cannot take part in these workloads, with the reason."""
    found = {} if WORKLOADS.keys().isdisjoint(workloads) else dict(NOT_INSTALLED)
    if not SHARED_WORKLOADS.keys().isdisjoint(workloads):
        found |= {f"shared {name}": why for name, why in SHARED_NOT_INSTALLED.items()}
    for workload in PIPELINE_WORKLOADS.keys() & workloads:
        found |= {f"{workload} {name}": f"skipped, because {way.needs} is not installed"
                  for name, way in PIPELINE_WORKLOADS[workload].ways.items() if not way.is_installed()}  # fmt: skip
    return found


# The child


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _child(store: str, path: str, case: Case) -> None:
    if case.workload in PIPELINE_WORKLOADS:
        _run_pipeline(PIPELINE_WORKLOADS[case.workload], store, Path(path), case)
    elif case.workload in SHARED_WORKLOADS:
        shared = SHARED_WORKLOADS[case.workload]
        _run_parallel(shared, shared.stores(case.batch)[store](path), path, case)
    else:
        workload = {**WORKLOADS, **PREPARATIONS}[case.workload]
        _run_alone(workload, workload.stores()[store], path, Content(case.n, case.keys))


def _run_alone(workload: Workload, store_class: Any, path: str, content: Content) -> None:
    clock = Clock()
    make: Callable[[str], Any] = store_class.for_reading if workload.read_only else store_class
    _say(memory=anonymous_memory())
    items = workload.run(lambda: make(path), content, clock)
    memory = anonymous_memory()
    _say(seconds=clock.seconds, cpu_seconds=clock.cpu_seconds, items=items, memory=memory, disk=disk_use(Path(path)))
    workload.verify(lambda: store_class(path), content)
    _say(verified=True)


def _run_parallel(workload: SharedWorkload, store: Any, path: str, case: Case) -> None:
    scale = Scale(case.n, case.batch)
    workload.prepare(store, case.n)
    memory = anonymous_memory()
    _say(memory=memory)
    total = parallel_run.run(case.workload, store, scale, case.processes)
    peak = None if memory is None else memory + total.memory
    items = workload.items(scale)
    _say(seconds=total.seconds, cpu_seconds=total.cpu_seconds, items=items, memory=peak, disk=disk_use(Path(path)))
    workload.verify(store, scale, total.returned)
    store.close()
    _say(verified=True)


def _run_pipeline(workload: PipelineWorkload, way: str, path: Path, case: Case) -> None:
    path.mkdir()
    keys = workload.keys(case.n)
    execution = workload.ways[way].execution(path, keys, case.processes)
    memory = anonymous_memory() if execution.driver else None
    _say(memory=memory)
    cpu = processor_seconds()
    seconds = execution.seconds()
    memory = anonymous_memory()
    cpu = processor_seconds() - cpu
    items = 1 if workload.unit == "ms" else len(keys)
    _say(seconds=seconds, cpu_seconds=cpu, items=items, memory=memory, disk=disk_use(path))
    execution.close()
    execution.verify()
    _say(verified=True)


# The parent


def measure(store: str, case: Case, path: Path, python: str = sys.executable) -> Sample:
    """Run one workload on the store at ``path`` in a new process, which may start further ones.

    Raises:
        RuntimeError: The workload failed, or its result was wrong.
    """
    command = [python, "-m", "benchmarks.measure", store, str(path), json.dumps(case)]
    # Unbuffered, because select() does not see a line that is already in a buffer of this process. The memory sampled
    # in the meantime would count for the wrong phase.
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0) as child:
        facts = list(_watch(child))
    if child.returncode or not facts or "verified" not in facts[-1]:
        raise RuntimeError(f"{case.workload} on {store} failed with exit status {child.returncode}, see above")
    begin, end, _ = facts
    memory = None if begin["memory"] is None else max(end["memory"], end["peak"]) - begin["memory"]
    return Sample(end["seconds"], end["cpu_seconds"], end["items"], memory, end["disk"])


def _watch(child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """Yield each message of the child, with its ``peak`` memory since the previous message."""
    assert child.stdout is not None
    peak = 0
    while True:
        readable, _, _ = select.select([child.stdout], [], [], SAMPLE_SECONDS)
        if not readable:
            peak = max(peak, anonymous_memory(child.pid) or 0)
            continue
        line = child.stdout.readline()
        if not line:
            return
        yield {"peak": peak, **json.loads(line)}
        peak = 0


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2], Case(*json.loads(sys.argv[3])))
