"""The pictures of the README. What is in them is made without any library; only drawing needs matplotlib."""

from __future__ import annotations

import hashlib
import json
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.plan import CURVES
from benchmarks.results import Case, Result
from benchmarks.stores import OURS
from benchmarks.tables import ASIDE, DICT, NAMES, STORES, TRACKER, Measured, Row, rate
from benchmarks.workloads import WORKLOADS

# A picture is drawn anew when its numbers change, and when this does.
DRAWING = 1
MARK = "drawn from "
_COLOURS = ("c8102e", "1f77b4", "000000", "2ca02c", "98df8a", "ff7f0e", "ffbb78", "17becf", "9467bd", "8c564b",
            "e377c2", "7f7f7f", "bcbd22", "aec7e8", "1f77b4")  # fmt: skip
COLOURS = {store: f"#{colour}" for store, colour in zip(STORES, _COLOURS, strict=True)}


class Panel(NamedTuple):
    """One of the small pictures: a title, and a line of points or a single bar for each store."""

    title: str
    unit: str
    points: dict[str, list[tuple[int, float]]]


class Picture(NamedTuple):
    """``lines``: rates against sizes; else bars."""

    title: str
    lines: bool
    panels: list[Panel]

    def digest(self) -> str:
        return hashlib.sha256(json.dumps([DRAWING, *self]).encode()).hexdigest()


def pictures(measured: Measured) -> dict[str, Picture]:
    """By the names of their files."""
    two = [row for row in measured.together(processes=2) if row.case.batch in (1, 100)]
    found = {
        "sizes": Picture("Operations a second against the number of keys in the store", True, _curves(measured)),
        "dict": Picture("A dict on disk, one process", False, _bars(measured.alone(DICT))),
        "tracker": Picture("A list of tasks, one process", False, _bars(measured.alone(TRACKER))),
        "shared": Picture("Two processes on one store", False, _bars(two)),
    }
    return {f"{name}.svg": picture for name, picture in found.items() if picture.panels}


def _value(result: Result) -> float:
    return float(f"{result.value():.4g}")


def _curves(measured: Measured) -> list[Panel]:
    panels = []
    for workload in CURVES:
        points: dict[str, list[tuple[int, float]]] = {}
        for n in measured.sizes(workload):
            row = measured.row(workload, Case(workload, n))
            for store, result in row.results.items() if row else ():
                if result.reached == n and store not in ASIDE:
                    points.setdefault(store, []).append((n, _value(result)))
        if max(map(len, points.values()), default=0) > 1:
            panels.append(Panel(WORKLOADS[workload].about, "/s", points))
    return panels


def _bars(rows: list[Row]) -> list[Panel]:
    return [
        Panel(
            row.title,
            "ms" if row.results[OURS].milliseconds else "/s",
            {store: [(result.reached, _value(result))] for store, result in row.results.items() if store not in ASIDE},
        )
        for row in rows
    ]


def mark(file: Path) -> str | None:
    """The digest of what a picture was drawn from."""
    if not file.exists():
        return None
    _, found, rest = file.read_text().partition(MARK)
    return rest[:64] if found else None


def draw(picture: Picture, file: Path) -> None:
    """Make the file; the same picture makes the same file."""
    import_module("matplotlib").use("svg")
    pyplot = import_module("matplotlib.pyplot")
    columns = 3
    height = -(-len(picture.panels) // columns)
    style = {"svg.hashsalt": picture.digest(), "svg.fonttype": "none", "font.size": 8, "axes.spines.top": False,
             "axes.spines.right": False, "font.family": "sans-serif"}  # fmt: skip
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(height, columns, figsize=(11, 2.4 * height + 0.6), squeeze=False)
        for axis, panel in zip(axes.flat, picture.panels, strict=False):
            (_draw_lines if picture.lines else _draw_bars)(axis, panel)
            axis.set_title(_wrapped(panel.title), fontsize=8.5)
        for axis in axes.flat[len(picture.panels) :]:
            axis.set_axis_off()
        figure.suptitle(picture.title, fontweight="bold")
        if picture.lines:
            shown = [store for store in STORES if any(store in panel.points for panel in picture.panels)]
            handles = [pyplot.Line2D([], [], color=COLOURS[store], marker="o", label=_plain(store)) for store in shown]
            axes.flat[-1].legend(handles=handles, loc="center", frameon=False, ncols=2)
        figure.tight_layout()
        file.parent.mkdir(exist_ok=True)
        figure.savefig(file, metadata={"Date": None, "Creator": None, "Description": MARK + picture.digest()})
        pyplot.close(figure)


def _draw_lines(axis: Any, panel: Panel) -> None:
    for store, points in panel.points.items():
        sizes, rates = zip(*points, strict=True)
        axis.plot(sizes, rates, marker="o", markersize=3, color=COLOURS[store], linewidth=2 if store == OURS else 1)
    ticker = import_module("matplotlib.ticker")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(sorted({size for points in panel.points.values() for size, _ in points}))
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_formatter(ticker.EngFormatter(sep=""))
        each.set_minor_formatter(ticker.NullFormatter())
    axis.grid(True, alpha=0.3)


def _draw_bars(axis: Any, panel: Panel) -> None:
    stores = list(panel.points)[::-1]
    values = [panel.points[store][0][1] for store in stores]
    axis.barh([_plain(store) for store in stores], values, color=[COLOURS[store] for store in stores])
    for place, value in enumerate(values):
        text = rate(value, True) if panel.unit == "ms" else rate(value)
        axis.text(value, place, " " + text, va="center", fontsize=7)
    axis.set_xlim(0, max(values) * 1.3)
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)
    axis.set_xlabel("milliseconds: shorter is better" if panel.unit == "ms" else "operations a second", fontsize=7)


def _plain(store: str) -> str:
    return NAMES.get(store, store).replace("`", "")


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.wrap(title, 46))
