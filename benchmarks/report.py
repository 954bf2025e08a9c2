"""Results as a table to read and as JSON to keep."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from benchmarks.measure import Result
from benchmarks.stores import OURS

HEAD = ("workload", "store", "median", "min .. max", "tastypy_fast", "CPU", "memory", "disk")


def as_text(machine: dict[str, str], results: Sequence[Result]) -> str:
    """The machine and versions, then a table for each size."""
    width = max(map(len, machine))
    parts = ["\n".join(f"{name:{width}}  {fact}" for name, fact in machine.items())]
    for n, of_size in groupby(results, lambda result: result.n):
        rows = []
        for name, of_workload in groupby(of_size, lambda result: result.title):
            found = list(of_workload)
            ours = next(result for result in found if result.peer == OURS)
            rows += [_row(result, ours, name if result is found[0] else "") for result in found]
        parts.append(f"n = {n:,}\n\n{_aligned([HEAD, *rows])}")
    parts.append(
        "median: items a second, or milliseconds where it says ms. tastypy_fast: how many times as fast as this\n"
        "store it is. CPU: processor time for each item, without waiting. memory: the most by which anonymous\n"
        "memory grew. disk: what the files take afterwards. Where several processes are at once, all of it is of\n"
        "all of them together, and of the server where there is one."
    )
    return "\n\n".join(parts)


def as_json(machine: dict[str, str], results: Sequence[Result]) -> dict[str, Any]:
    """Everything that was measured, each round for itself."""
    return {
        "machine": machine,
        "results": [
            {**result._asdict(), "samples": [sample._asdict() for sample in result.samples]} for result in results
        ],
    }


def _row(result: Result, ours: Result, name: str) -> tuple[str, ...]:
    form = "{:,.2f} ms" if result.unit == "ms" else "{:,.0f}"
    spread = f"{form.format(result.value(min))} .. {form.format(result.value(max))}"
    return (
        name,
        result.peer,
        form.format(result.value()),
        spread,
        "" if result is ours else f"{ours.times_faster(result):.2f} x",
        f"{result.running:,.2f} us",
        "?" if result.memory is None else f"{result.memory / 1e6:.1f} MB",
        f"{result.disk / 1e6:.1f} MB",
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
