"""Runs one measurement in a process of its own, and watches its memory from outside.

The child prints a line of JSON when it begins (how much memory it has by then), one when the work is done, and
one when the result was found to be right. In between the parent samples its anonymous memory: mapped files
count as resident too, so that the resident size of an LMDB store says nothing.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import together
from benchmarks.clock import Clock
from benchmarks.inputs import Content
from benchmarks.results import Case, Sample
from benchmarks.shared_stores import LEFT_OUT as SHARED_LEFT_OUT
from benchmarks.shared_stores import SHARED_PEERS
from benchmarks.shared_workloads import SHARED_WORKLOADS, Scale, SharedWorkload
from benchmarks.stores import LEFT_OUT, PEERS
from benchmarks.stores.common import Peer
from benchmarks.system import anonymous_memory, disk_use
from benchmarks.workloads import PREPARATIONS, WORKLOADS, Workload

ALL_WORKLOADS: dict[str, Workload | SharedWorkload] = {**WORKLOADS, **SHARED_WORKLOADS}
ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.005


def stores_of(workload: str, batch: int = 1) -> list[str]:
    """The names of the stores to which a workload can be done."""
    about = ALL_WORKLOADS[workload]
    return list(about.stores(batch) if isinstance(about, SharedWorkload) else about.stores())


def about_peers(workloads: Sequence[str]) -> dict[str, Peer]:
    """What takes part in these workloads."""
    found: dict[str, Peer] = {}
    if not WORKLOADS.keys().isdisjoint(workloads):
        found |= PEERS
    if not SHARED_WORKLOADS.keys().isdisjoint(workloads):
        found |= {f"shared {name}": peer for name, peer in SHARED_PEERS.items()}
    return found


def left_out(workloads: Sequence[str]) -> dict[str, str]:
    """What does not take part in these workloads, and why."""
    found = {} if WORKLOADS.keys().isdisjoint(workloads) else dict(LEFT_OUT)
    if not SHARED_WORKLOADS.keys().isdisjoint(workloads):
        found |= {f"shared {name}": why for name, why in SHARED_LEFT_OUT.items()}
    return found


# The child


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _child(peer: str, path: str, case: Case) -> None:
    if case.workload in SHARED_WORKLOADS:
        shared = SHARED_WORKLOADS[case.workload]
        _work_together(shared, shared.stores(case.batch)[peer](path), path, case)
    else:
        workload = {**WORKLOADS, **PREPARATIONS}[case.workload]
        _work_alone(workload, workload.stores()[peer], path, Content(case.n, case.keys))


def _work_alone(workload: Workload, store_class: Any, path: str, content: Content) -> None:
    clock = Clock()
    make: Callable[[str], Any] = store_class.for_reading if workload.reading else store_class
    _say(memory=anonymous_memory())
    items = workload.run(lambda: make(path), content, clock)
    memory = anonymous_memory()
    _say(seconds=clock.seconds, running=clock.running, items=items, memory=memory, disk=disk_use(Path(path)))
    workload.check(lambda: store_class(path), content)
    _say(right=True)


def _work_together(workload: SharedWorkload, store: Any, path: str, case: Case) -> None:
    scale = Scale(case.n, case.batch)
    workload.prepare(store, case.n)
    memory = anonymous_memory()
    _say(memory=memory)
    total = together.run(case.workload, store, scale, case.processes)
    grown = None if memory is None else memory + total.memory
    items = workload.items(scale)
    _say(seconds=total.seconds, running=total.running, items=items, memory=grown, disk=disk_use(Path(path)))
    workload.check(store, scale, total.found)
    store.close()
    _say(right=True)


# The parent


def measure(peer: str, case: Case, path: Path) -> Sample:
    """Run one workload on the store at ``path`` in a new process, which starts the others where there are several
    at once. Raises RuntimeError when it fails."""
    command = [sys.executable, "-m", "benchmarks.measure", peer, str(path), json.dumps(case)]
    # Unbuffered: select() does not see a line that lies in a buffer of ours, and what is sampled meanwhile would
    # count for the wrong part.
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0) as child:
        facts = list(_watch(child))
    if child.returncode or not facts or "right" not in facts[-1]:
        raise RuntimeError(f"{case.workload} on {peer} failed with exit status {child.returncode}, see above")
    begin, end, _ = facts
    memory = None if begin["memory"] is None else max(end["memory"], end["peak"]) - begin["memory"]
    return Sample(end["seconds"], end["running"], end["items"], memory, end["disk"])


def _watch(child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """What the child says, with the ``peak`` of its memory since it spoke last."""
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
