"""The live view, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tastypy_fast._mixins.counting import percent
from tastypy_fast.cli.formatting import printable

if TYPE_CHECKING:
    from tastypy_fast.cli.watch import View

__all__ = ["chart", "picture"]

# Below this many lines, and columns, a chart says nothing.
LEAST_LINES, LEAST_COLUMNS = 5, 30
MINUTE = 60


def picture(view: View, width: int, height: int, no_color: bool) -> Any:
    """All of the screen."""
    from rich.bar import Bar
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    counts = view.counts
    lines: list[Any] = [cut(f"{view.reader.path}   (Ctrl-C ends this view)", width, "bold"), Text()]
    if view.is_tracker:
        share = max(counts.tasks, 1)
        bar = Bar(share, 0, counts.done, width=width - 2, color="default" if no_color else "green")
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(justify="right")
        colors = {"done": "green", "failed": "red", "aborted": "yellow", "left": "default"}
        for name, number in (("done", counts.done), ("failed", counts.failed), ("aborted", counts.aborted),
                             ("left", counts.left), ("in hand", counts.claimed)):
            if name != "in hand" or number:
                table.add_row(Text(name, colors.get(name, "default")), f"{number:,}",
                              percent(number / share, 2) if name != "in hand" else "")
        table.add_row("tasks", f"{counts.tasks:,}", "")
        lines += [bar, Text(), table]
    else:
        lines.append(Text(f"{counts.tasks:,} keys"))
    lines += [Text(), cut(view.rate_text() + view.left_text(", "), width, "bold")]
    failures = [Text(), Text("failed lately:")] if view.failures else []
    failures += [cut(f"  {key}  {error}", width, "red") for key, error in reversed(view.failures)]
    used = 4 + (9 if view.is_tracker else 1) + bool(counts.claimed) + len(failures)
    room = min(height - used - 1, 20)
    if room >= LEAST_LINES and width >= LEAST_COLUMNS and len(view.samples) > 2:
        lines += [Text(), Text.from_ansi(chart(view.rates(), width, room))]
    return Group(*lines, *failures)


def cut(text: str, width: int, style: str) -> Any:
    """One line of the screen."""
    from rich.text import Text

    line = Text(printable(" ".join(text.split())) if "\n" in text else printable(text), style, no_wrap=True)
    line.truncate(width, overflow="ellipsis")
    return line


def chart(rates: list[tuple[float, float]], width: int, height: int) -> str:
    """The rate over the last minutes."""
    import plotext

    begin = min(rates[0][0], -MINUTE)
    minutes = range(int(-begin) // MINUTE, -1, -1)
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, height)
    figure.title("a second")
    figure.ruler("x").lim(begin, 0)
    figure.ruler("x").ticks([-MINUTE * minute for minute in minutes],
                            [f"-{minute} min" if minute else "now" for minute in minutes])
    figure.ruler("y").lim(0, max(*(rate for _, rate in rates), 1))
    line = figure.signal([when for when, _ in rates], [rate for _, rate in rates], marker="braille")
    line.lines()
    figure.draw(line)
    return str(figure.build())
