"""Results as a table to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from benchmarks.results import Result
from benchmarks.runner import title
from benchmarks.stores import OURS

HEAD = ("workload", "store", "median", "min .. max", "tastypy_fast", "CPU", "memory", "disk")


def as_text(facts: dict[str, Any], results: Sequence[Result]) -> str:
    """The machine and versions, then a table for each size."""
    said = dict(facts["machine"])
    said |= {name: f"{about['version']}; {about['promise']}" for name, about in facts["stores"].items()}
    said |= facts["left out"]
    width = max(map(len, said))
    parts = ["\n".join(f"{name:{width}}  {fact}" for name, fact in said.items())]
    order = {result.case.n: None for result in results}
    for n in order:
        rows = []
        of_size = [result for result in results if result.case.n == n]
        for case, of_case in groupby(of_size, lambda result: result.case):
            found = list(of_case)
            ours = next((result for result in found if result.peer == OURS), None)
            name = title(case).split(" ", 1)[1]
            rows += [_row(result, ours, name if result is found[0] else "") for result in found]
        parts.append(f"n = {n:,}\n\n{_aligned([HEAD, *rows])}")
    parts.append(
        "median: items a second, or milliseconds where it says ms. tastypy_fast: how many times as fast as this\n"
        "store it is. CPU: processor time for each item, without waiting. memory: the most by which anonymous\n"
        "memory grew. disk: what the files take afterwards. Where several processes are at once, all of it is of\n"
        "all of them together, and of the server where there is one. (n) after a store: with fewer keys, as more\n"
        "would have taken it too long."
    )
    return "\n\n".join(parts)


def _row(result: Result, ours: Result | None, name: str) -> tuple[str, ...]:
    form: Callable[[float], str] = ("{:,.2f} ms" if result.milliseconds else "{:,.0f}").format
    spread = f"{form(result.value(min))} .. {form(result.value(max))}"
    return (
        name,
        result.peer if result.reached == result.case.n else f"{result.peer} ({result.reached:,})",
        form(result.value()),
        spread,
        "" if ours is None or result is ours else f"{ours.times_faster(result):.2f} x",
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
