"""Measured costs of shared stores: a file with a line for each, and a table for each number of processes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["load", "save", "tables"]


def save(file: Path, facts: dict[str, Any], lines: Iterable[Any]) -> None:
    """Write facts and costs. The last fact is replaced by the costs, each of which is one line."""
    head = json.dumps({**facts, list(facts)[-1]: []}, indent=1).removesuffix("[]\n}")
    file.write_text(head + "[\n" + ",\n".join(map(json.dumps, lines)) + "\n]}\n")


def load(file: Path) -> tuple[dict[str, Any], list[Any]]:
    """Read what ``save()`` wrote: the facts, and the costs."""
    facts: dict[str, Any] = json.loads(file.read_text())
    return facts, facts.pop(list(facts)[-1])


def tables(columns: Sequence[str], rows: Iterable[tuple[int, list[str]]]) -> dict[str, list[list[str]]]:
    """Return a table for each number of processes, by its title. Its first row is the header.

    ``rows`` are pairs of the number of processes and the cells. Columns at the end that are empty are left out.
    """
    found: dict[str, list[list[str]]] = {}
    for processes, cells in rows:
        found.setdefault(f"{processes} process{'es' * (processes > 1)}", [list(columns)]).append(cells)
    for table in found.values():
        used = max(index for row in table[1:] for index, cell in enumerate(row) if cell) + 1
        table[:] = [row[:used] for row in table]
    return found
