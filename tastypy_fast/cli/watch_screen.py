"""Draw the live view of ``watch``."""

from __future__ import annotations

from typing import Any

from tastypy_fast._mixins.counting import percent
from tastypy_fast.cli.formatting import printable
from tastypy_fast.cli.watch_state import WatchState

__all__ = ["render"]

# The smallest chart that is worth drawing.
MIN_LINES, MIN_COLUMNS = 5, 30
MINUTE = 60


def render(state: WatchState, width: int, height: int, no_color: bool) -> Any:
    """Return the whole screen as an object that rich can print."""
    from rich.bar import Bar
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    counts = state.counts
    lines: list[Any] = [_cut(f"{state.reader.path}   (Ctrl-C to exit)", width, "bold"), Text()]
    if state.is_tracker:
        share = max(counts.tasks, 1)
        bar = Bar(share, 0, counts.done, width=width - 2, color="default" if no_color else "green")
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(justify="right")
        colors = {"done": "green", "failed": "red", "aborted": "yellow", "left": "default"}
        for name, number in (("done", counts.done), ("failed", counts.failed), ("aborted", counts.aborted),
                             ("left", counts.left), ("claimed", counts.claimed)):
            if name != "claimed" or number:
                table.add_row(Text(name, colors.get(name, "default")), f"{number:,}",
                              percent(number / share, 2) if name != "claimed" else "")
        table.add_row("tasks", f"{counts.tasks:,}", "")
        lines += [bar, Text(), table]
    else:
        lines.append(Text(f"{counts.tasks:,} keys"))
    lines += [Text(), _cut(state.rate_text() + state.left_text(", "), width, "bold")]
    failures = [Text(), Text("recent failures:")] if state.failures else []
    failures += [_cut(f"  {key}  {error}", width, "red") for key, error in reversed(state.failures)]
    used = 4 + (9 if state.is_tracker else 1) + bool(counts.claimed) + len(failures)
    room = min(height - used - 1, 20)
    if room >= MIN_LINES and width >= MIN_COLUMNS and len(state.samples) > 2:
        lines += [Text(), Text.from_ansi(_chart(state.rates(), width, room))]
    return Group(*lines, *failures)


def _cut(text: str, width: int, style: str) -> Any:
    """Return text as one line of the screen, shortened to ``width``."""
    from rich.text import Text

    line = Text(printable(" ".join(text.split())) if "\n" in text else printable(text), style, no_wrap=True)
    line.truncate(width, overflow="ellipsis")
    return line


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
