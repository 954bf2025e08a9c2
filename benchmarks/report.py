"""Print results as text tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from benchmarks.results import Result
from benchmarks.runner import title
from benchmarks.stores import OURS

HEAD = ("workload", "store", "median", "min .. max", "tastypy_fast", "CPU", "memory", "disk")


def as_text(facts: dict[str, Any], results: Sequence[Result]) -> str:
    """Return the facts of the machine and the stores, and a table for each size."""
    lines = dict(facts["machine"])
    lines |= {name: f"{about['version']}; {about['promise']}" for name, about in facts["stores"].items()}
    lines |= facts["left out"]
    width = max(map(len, lines))
    parts = ["\n".join(f"{name:{width}}  {fact}" for name, fact in lines.items())]
    sizes = {result.case.n: None for result in results}
    for n in sizes:
        rows = []
        of_size = [result for result in results if result.case.n == n]
        for case, of_case in groupby(of_size, lambda result: result.case):
            found = list(of_case)
            ours = next((result for result in found if result.store == OURS), None)
            name = title(case).split(" ", 1)[1]
            rows += [_row(result, ours, name if result is found[0] else "") for result in found]
        parts.append(f"n = {n:,}\n\n{aligned([HEAD, *rows])}")
    parts.append(
        "median: items per second, or milliseconds (ms) for the whole workload. tastypy_fast: its speed divided by\n"
        "that of this store. CPU: processor time per item, without waiting. memory: the peak growth of anonymous\n"
        "memory. disk: the size of the files after the workload. With several processes, all values are sums over\n"
        "the processes and their server; of a pipeline, memory is that of the driver. (at n keys): measured with\n"
        "fewer keys, because larger runs were too slow."
    )
    return "\n\n".join(parts)


def _row(result: Result, ours: Result | None, name: str) -> tuple[str, ...]:
    form: Callable[[float], str] = ("{:,.2f} ms" if result.in_milliseconds else "{:,.0f}").format
    spread = f"{form(result.value(min))} .. {form(result.value(max))}"
    complete = result.measured_n == result.case.n
    return (
        name,
        result.store if complete else f"{result.store} (at {result.measured_n:,} keys)",
        form(result.value()),
        spread,
        "" if ours is None or result is ours else f"{ours.times_faster(result):.2f} x",
        f"{result.cpu_microseconds:,.2f} us",
        "?" if result.memory is None else f"{result.memory / 1e6:.1f} MB",
        f"{result.disk / 1e6:.1f} MB",
    )


def aligned(rows: Sequence[tuple[str, ...]], left: int = 2) -> str:
    """Return rows in columns. The first row is the header; the first ``left`` columns are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
