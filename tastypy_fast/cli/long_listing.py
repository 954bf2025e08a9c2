"""Print the rows of ``ls --long``: as a table on a terminal, otherwise as fields between tabs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence

from tastypy_fast.cli.formatting import cut_text, print_line
from tastypy_fast.cli.key_filters import chunks

__all__ = ["print_rows"]

# How many rows are aligned with each other. Later rows keep the columns, which only grow.
ALIGNED = 100
# The narrowest column that can be cut, in cells of the terminal.
NARROW = 8
GAP = "  "

Row = tuple[str, ...]


def print_rows(names: Row, rows: Iterator[Row]) -> None:
    """Print rows, whose texts must be in one line each. Memory use is constant.

    On a terminal, there is a header with ``names``, columns are aligned, and what does not fit is cut and marked. In a
    pipe or a file, a row is a line with a tab between two fields, without a header and never cut, because programs read
    it. Empty fields at the end of a row are left out there.
    """
    if sys.stdout.isatty():
        _print_table(names, rows)
        return
    for row in rows:
        print_line("\t".join(row).rstrip("\t"))


def _print_table(names: Row, rows: Iterator[Row]) -> None:
    width, encoding = shutil.get_terminal_size().columns, sys.stdout.encoding
    needed = [0] * len(names)
    for number, chunk in enumerate(chunks(rows, ALIGNED)):
        lines = [names, *chunk] if not number else chunk
        for column in range(len(names)):
            needed[column] = max(needed[column], *(_cells(row[column]) for row in lines))
        widths = _fit(needed, width)
        for row in lines:
            cells = (_pad(cut_text(text, cells, encoding), cells) for text, cells in zip(row, widths, strict=True))
            print_line(GAP.join(cells).rstrip())


def _fit(needed: Sequence[int], width: int) -> list[int]:
    """Return the widths of columns for a line of ``width`` cells. Only the last two are narrower than they need."""
    *fixed, key, data = needed
    rest = max(width - sum(fixed) - len(GAP) * (len(needed) - 1), 2 * NARROW)
    if key + data > rest:
        key = min(key, max(rest * 3 // 5, rest - data))
    return [*fixed, key, min(data, rest - key)]


def _cells(text: str) -> int:
    """Return how many cells of a terminal a text covers."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _pad(text: str, width: int) -> str:
    """Return a text with spaces after it, as wide as ``width``."""
    return text + " " * (width - _cells(text))
