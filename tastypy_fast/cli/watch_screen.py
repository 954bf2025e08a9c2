"""Draw the live view of ``watch``."""

from __future__ import annotations

from typing import Any

from tastypy_fast._mixins.counting import percent
from tastypy_fast.cli.formatting import cut_text, printable, quantity
from tastypy_fast.cli.watch_state import WatchState
from tastypy_fast.types import StatusCounts

__all__ = ["render"]

# The smallest chart that is worth drawing. It needs Unicode. A table of the numbers has the same width.
MIN_LINES, MIN_COLUMNS = 5, 30
MINUTE = 60
# From how many lines on the numbers are a table.
LARGE_LINES = 16
COLORS = {"done": "green", "failed": "red", "aborted": "yellow", "running": "cyan"}
# The characters of the finished and of the other part of the bar.
BAR, PLAIN_BAR = ("\u2588", "\u2591"), ("#", "-")


def render(state: WatchState, width: int, height: int, no_color: bool, encoding: str) -> Any:
    """Return the whole screen as an object that rich can print. A small one has the numbers in as few lines as fit."""
    from rich.console import Group
    from rich.text import Text

    def cut(text: str, style: str) -> Text:
        """Return text as one line of the screen."""
        text = printable(" ".join(text.split()) if "\n" in text else text)
        return Text(cut_text(text, width, encoding), style, no_wrap=True)

    rate = cut(state.rate_text() if len(state.rate_text()) <= width else state.rate_text(short=True), "bold")
    lines: list[Any] = [cut(f"{state.path}   (Ctrl-C to exit)", "bold")]
    if state.is_tracker:
        lines.append(_bar(state.counts, width - 1, no_color, encoding))
    if state.is_tracker and height >= LARGE_LINES and width >= MIN_COLUMNS:
        lines += [Text(), _table(state.counts), Text(), rate]
        used = len(lines) + len(StatusCounts._fields)  # the table has one more line
    else:
        # The rate comes before the numbers, because a very small window cuts the end off.
        lines += [rate, *(cut(line, "default") for line in _numbers(state, width))]
        used = len(lines)
    failures = [cut(f"  {failure.text()}", "red") for failure in reversed(state.failures)]
    if height - used > MIN_LINES:
        failures = [Text(), Text("recent failures:"), *failures] if failures else []
    failures = failures[:max(height - used - 1, 0)]
    room = min(height - used - len(failures) - 2, 20)
    if room >= MIN_LINES and width >= MIN_COLUMNS and len(state.samples) > 2 and encoding.startswith("utf"):
        lines += [Text(), Text.from_ansi(_chart(state.rates(), width, room))]
    return Group(*lines, *failures)


def _bar(counts: StatusCounts, width: int, no_color: bool, encoding: str) -> Any:
    """Return a bar of the finished tasks, with the whole length of all tasks behind them."""
    from rich.text import Text

    full, empty = BAR if encoding.startswith("utf") else PLAIN_BAR
    bar = Text(no_wrap=True)
    share, so_far, used = max(counts.tasks, 1), 0, 0
    for status in ("done", "aborted", "failed"):
        so_far += counts.by_word()[status]
        cells = so_far * width // share - used
        bar.append(full * cells, "" if no_color else COLORS[status])
        used += cells
    bar.append(empty * (width - used), "" if no_color else "dim")
    return bar


def _table(counts: StatusCounts) -> Any:
    """Return the numbers as a table with a line for each status."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    for status, number in counts.by_word().items():
        table.add_row(Text(status, COLORS.get(status, "default")), f"{number:,}",
                      percent(number / max(counts.tasks, 1), 2))
    table.add_row("tasks", f"{counts.tasks:,}", "")
    return table


def _numbers(state: WatchState, width: int) -> list[str]:
    """Return the numbers as lines of text, as few as the width allows."""
    words = [f"{number:,} {status}" for status, number in state.counts.by_word().items()]
    parts = [*words, quantity(state.keys, "task")] if state.is_tracker else [quantity(state.keys, "key")]
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part)
    return lines


def _chart(rates: list[tuple[float, float]], width: int, height: int) -> str:
    """Draw the rate over the last minutes, as text with ANSI codes."""
    import plotext

    begin = min(rates[0][0], -MINUTE)
    minutes = range(int(-begin) // MINUTE, -1, -1)
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, height)
    figure.title("tasks a second")
    figure.ruler("x").lim(begin, 0)
    figure.ruler("x").ticks([-MINUTE * minute for minute in minutes],
                            [f"-{minute} min" if minute else "now" for minute in minutes])
    figure.ruler("y").lim(0, max(*(rate for _, rate in rates), 1))
    line = figure.signal([when for when, _ in rates], [rate for _, rate in rates], marker="braille")
    line.lines()
    figure.draw(line)
    return str(figure.build())
