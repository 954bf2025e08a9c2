"""The charts of the documentation, as SVG files.

The content of a chart is computed without any library; only drawing needs matplotlib. Each file holds the digest of
the content that it was drawn from, so that ``--check`` needs no matplotlib.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.published import CURVES, DICT, TRACKER
from benchmarks.results import Case, Result
from benchmarks.stores import OURS
from benchmarks.tables import COLUMNS, MAIN_BATCHES, NAMES, VARIANTS, Measured, Row, rate
from benchmarks.workloads import WORKLOADS

# Increase it with every change to how a chart is drawn, because the digest contains it.
DRAWING_VERSION = 2
MARK = "drawn from "
# The panels of the summary: workloads of one process, and one of two processes.
SUMMARY = ("fill", "overwrite", "update", "read", "tracker_loop", "shared_claim_done")

# Colours of Okabe and Ito, which colour-blind readers can tell apart. Bars also differ in their hatch.
BLUE, ORANGE, GREEN, SKY, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#56b4e9", "#aa4499", "#6b6b6b"
TEXT, FRAME, GRID = "#1f2328", "#8c959f", "#dfe3e8"
# label: (stores, fill, hatch). The packages are the other stores.
PACKAGES = "packages"
BARS = {
    OURS: ((OURS, "run shared", "run marks", "run workers"), BLUE, ""),
    "LMDB by hand": (("lmdb",), "#e69f00", "//"),
    "sqlite3 by hand": (("sqlite3",), "#7fd1b9", "\\\\"),
    PACKAGES: ((), "#c3cad1", ""),
    "other ways to run tasks, which keep no results": (
        ("futures", "futures 100", "multiprocessing", "joblib", "joblib auto", "xargs", "parallel", "client.map"),
        "#c3cad1", "",
    ),
    "a loop in one process, a reference": (("loop",), "#ffffff", "xx"),
    "bare LMDB put (a reference, not a store)": (("bare lmdb",), "#ffffff", "xx"),
}
# store: (colour, marker, dashes)
LINES = {
    OURS: (BLUE, "o", ()),
    "lmdb": (ORANGE, "s", ()),
    "sqlite3": (GREEN, "^", ()),
    "rocksdict": (PURPLE, "D", (4, 1.5)),
    "lmdbm": (ORANGE, "v", (1.5, 1.5)),
    "sqlitedict": (GREEN, "P", (1.5, 1.5)),
    "diskcache": (GREY, "X", (4, 1.5)),
    "persist-queue": (TEXT, "d", (1.5, 1.5)),
    "litequeue": (SKY, "<", (4, 1.5)),
    "huey": (PURPLE, ">", (1.5, 1.5)),
}


class Panel(NamedTuple):
    """One of the small plots of a chart: for each store a line of (n, value), or a single such point for a bar."""

    title: str
    unit: str
    n: int
    points: dict[str, list[tuple[int, float]]]


class Chart(NamedTuple):
    """A chart. ``lines`` plots rates by number of keys; otherwise each panel has bars."""

    title: str
    lines: bool
    panels: list[Panel]

    def digest(self) -> str:
        """Return the digest of the content."""
        return hashlib.sha256(json.dumps([DRAWING_VERSION, *self]).encode()).hexdigest()


def charts(measured: Measured) -> dict[str, Chart]:
    """Return all charts by file name."""
    private = measured.private([*DICT, *TRACKER])
    n = max((row.case.n for row in private), default=0)
    found = {
        "summary": Chart(f"Speed with {n:,} keys", False, _bars(measured.summary(SUMMARY))),
        "sizes": Chart("Speed by number of keys in the store", True, _curves(measured)),
        "dict": Chart(f"A dict on disk, {n:,} keys, one process", False, _bars(measured.private(DICT))),
        "tracker": Chart(f"A task tracker, {n:,} tasks, one process", False, _bars(measured.private(TRACKER))),
        "shared": Chart("Two processes on one store", False, _bars(measured.shared(2, MAIN_BATCHES))),
        "pipelines": Chart("Ways to run tasks", False, _bars(measured.pipelines())),
    }
    return {f"{name}.svg": chart for name, chart in found.items() if chart.panels}


def _value(result: Result) -> float:
    return float(f"{result.value():.6g}")


def _curves(measured: Measured) -> list[Panel]:
    panels = []
    for workload in CURVES:
        points: dict[str, list[tuple[int, float]]] = {}
        for n in measured.sizes(workload):
            row = measured.row(workload, Case(workload, n))
            for store, result in row.results.items() if row else ():
                if result.measured_n == n and store not in VARIANTS:
                    points.setdefault(store, []).append((n, _value(result)))
        if max(map(len, points.values()), default=0) > 1:
            panels.append(Panel(WORKLOADS[workload].about, "/s", 0, points))
    return panels


def _bars(rows: list[Row]) -> list[Panel]:
    """Return a panel for each row that has at least two stores."""
    panels = []
    for row in rows:
        found = {store: result for store, result in row.results.items() if store not in VARIANTS}
        unit = "ms" if row.results[OURS].in_milliseconds else "/s"
        points = {store: [(result.measured_n, _value(result))] for store, result in found.items()}
        if len(points) > 1:
            panels.append(Panel(row.title, unit, row.case.n, points))
    return panels


def mark(file: Path) -> str | None:
    """Return the digest of the content that a file was drawn from."""
    if not file.exists():
        return None
    _, found, rest = file.read_text().partition(MARK)
    return rest[:64] if found else None


# Drawing


def draw(chart: Chart, file: Path) -> None:
    """Draw a chart. With one version of matplotlib, the same chart gives the same file."""
    import_module("matplotlib").use("svg")
    pyplot = import_module("matplotlib.pyplot")
    style = {"svg.hashsalt": "tastypy_fast", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif",
             "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
             "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FRAME, "text.color": TEXT,
             "axes.labelcolor": TEXT, "axes.titlecolor": TEXT, "xtick.color": TEXT, "ytick.color": TEXT,
             "xtick.major.size": 0, "ytick.major.size": 0, "hatch.linewidth": 0.8,
             "hatch.color": "#000000"}  # fmt: skip
    with pyplot.rc_context(style):
        figure = (_draw_lines if chart.lines else _draw_bars)(pyplot, chart)
        output = io.StringIO()
        figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    file.parent.mkdir(exist_ok=True)
    file.write_text(_compact(output.getvalue(), MARK + chart.digest()))


def _compact(svg: str, description: str) -> str:
    """Remove what does not change the picture, and add a description."""
    svg = re.sub(r"<!DOCTYPE.*?>\s*|<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # Coordinates of a path, one per line, become one line with two decimals.
    svg = re.sub(r'\bd="([^"]*)"', lambda found: f'd="{" ".join(found[1].split())}"', svg)
    svg = re.sub(r"(?<=[\s\"(,])(-?\d+\.\d{3,})", lambda found: f"{float(found[1]):.2f}", svg)
    svg = re.sub(r' id="(?:[a-zA-Z]+_|text_|line2d_|patch_|axes_|figure_|matplotlib\.axis_)[0-9]+"', "", svg)
    svg = re.sub(r"\n\s+", "\n", svg)
    svg = _with_classes(svg)
    return re.sub(r"(<svg [^>]*>)", rf"\1\n<desc>{description}</desc>", svg, count=1, flags=re.DOTALL)


def _with_classes(svg: str) -> str:
    """Replace each style that occurs more than once by a class."""
    styles = re.findall(r'(?<= )style="([^"]*)"', svg)
    names = {style: f"s{number}" for number, style in enumerate(dict.fromkeys(styles)) if styles.count(style) > 1}

    def replace(found: re.Match[str]) -> str:
        return f'class="{names[found[1]]}"' if found[1] in names else found[0]

    svg = re.sub(r'(?<= )style="([^"]*)"', replace, svg)
    rules = "".join(f".{name}{{{style}}}\n" for style, name in names.items())
    return svg.replace("</style>", f"\n{rules}</style>", 1)


def _draw_bars(pyplot: Any, chart: Chart) -> Any:
    # All lengths are in inches.
    columns, width, left, right = 3, 10 / 3, 1.18, 0.1
    bar, line, unit_height, gap = 0.19, 0.17, 0.2, 0.2
    header = 0.42
    panels = chart.panels
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    titles = [line * max(len(_lines(panel.title)) for panel in row) for row in rows]
    bars = [bar * max(len(panel.points) for panel in row) for row in rows]
    total = header + sum(titles) + sum(bars) + len(rows) * (unit_height + gap)
    figure = pyplot.figure(figsize=(columns * width, total))

    def text(x: float, y: float, content: str, **style: Any) -> None:
        figure.text(x / (columns * width), y / total, content, va="baseline", **style)

    text(0.08, total - 0.24, chart.title, fontsize=12, fontweight="bold")
    top = total - header
    for row, title_height, bars_height in zip(rows, titles, bars, strict=True):
        for column, panel in enumerate(row):
            height = bar * len(panel.points)
            x, y = column * width, top - title_height - unit_height
            unit = "milliseconds, shorter is better" if panel.unit == "ms" else "items per second, longer is better"
            # Each line is a text of its own, so that the titles of a row of panels share a baseline.
            for number, content in enumerate(reversed(_lines(panel.title))):
                text(x + 0.08, y + unit_height + line * number + 0.03, content, fontsize=9, fontweight="bold")
            text(x + 0.08, y + 0.07, unit, fontsize=8, color=GREY)
            size = width - left - right
            box = ((x + left) / (columns * width), (y - height) / total, size / (columns * width), height / total)
            _draw_panel(figure.add_axes(box), panel, size)
        top -= title_height + unit_height + bars_height + gap
    shown = dict.fromkeys(_kind(store) for panel in panels for store in panel.points)
    patches = [_patch(pyplot, kind) for kind in BARS if kind in shown]
    figure.legend(handles=patches, loc="upper right", bbox_to_anchor=(0.995, 1 - 0.02 / total), ncols=len(patches),
                  frameon=False, fontsize=9, handlelength=1.6, columnspacing=1.4, borderaxespad=0.1)  # fmt: skip
    return figure


def _lines(title: str) -> list[str]:
    return textwrap.wrap(title, 42)


def _kind(store: str) -> str:
    return next((label for label, (stores, _, _) in BARS.items() if store in stores), PACKAGES)


def _patch(pyplot: Any, kind: str) -> Any:
    _, colour, hatch = BARS[kind]
    return pyplot.Rectangle((0, 0), 1, 1, facecolor=colour, hatch=hatch, edgecolor=TEXT, linewidth=0.6, label=kind)


def _draw_panel(axis: Any, panel: Panel, width: float) -> None:
    text_path = import_module("matplotlib.textpath")
    stores = list(panel.points)[::-1]
    limit = 0.0
    for place, store in enumerate(stores):
        n, value = panel.points[store][0]
        _, colour, hatch = BARS[_kind(store)]
        text = rate(value, panel.unit == "ms") + (f" (at {n:,} keys)" if n < panel.n else "")
        axis.barh(place, value, height=0.74, color=colour, hatch=hatch, edgecolor=TEXT, linewidth=0.6)
        axis.annotate(text, (value, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
        # The bar and its text fit into the panel.
        text_width = text_path.TextPath((0, 0), text, size=8).get_extents().width / 72
        limit = max(limit, value / (1 - (text_width + 0.09) / width))
    axis.set_yticks(range(len(stores)), [_plain(store) for store in stores], fontsize=8.5)
    for label, store in zip(axis.get_yticklabels(), stores, strict=True):
        label.set_fontweight("bold" if store == OURS else "normal")
    axis.set_ylim(-0.5, len(stores) - 0.5)
    axis.set_xlim(0, limit)
    axis.tick_params(left=False, bottom=False, labelbottom=False)
    axis.spines["bottom"].set_visible(False)


def _draw_lines(pyplot: Any, chart: Chart) -> Any:
    columns = 3
    height = -(-(len(chart.panels) + 1) // columns)
    total = 2.4 * height + 0.4
    figure, axes = pyplot.subplots(height, columns, figsize=(10, total), squeeze=False)
    figure.subplots_adjust(left=0.065, right=0.99, bottom=0.45 / total, top=1 - 0.72 / total, wspace=0.24, hspace=0.42)
    ticker = import_module("matplotlib.ticker")
    sizes = sorted({size for panel in chart.panels for points in panel.points.values() for size, _ in points})
    rates = [value for panel in chart.panels for points in panel.points.values() for _, value in points]
    for axis, panel in zip(axes.flat, chart.panels, strict=False):
        for store, points in reversed(panel.points.items()):
            colour, marker, dashes = LINES[store]
            axis.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4.5, dashes=dashes,
                      linewidth=2.4 if store == OURS else 1.3, markeredgecolor="white",
                      markeredgewidth=0.4)  # fmt: skip
        axis.set_xscale("log")
        axis.set_yscale("log")
        # The same axes in all panels, so that they can be compared.
        axis.set_xlim(sizes[0] / 1.6, sizes[-1] * 1.6)
        axis.set_ylim(min(rates) / 1.5, max(rates) * 1.5)
        axis.set_xticks(sizes)
        axis.yaxis.set_major_locator(ticker.LogLocator())
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_formatter(ticker.EngFormatter(sep=""))
            each.set_minor_locator(ticker.NullLocator())
            each.set_tick_params(labelsize=8)
        axis.grid(True, color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(left=False, bottom=False)
        title = "\n".join(textwrap.wrap(panel.title, 34))
        axis.set_title(title, fontsize=9, fontweight="bold", loc="left")
        axis.set_xlabel("keys in the store (log scale)", fontsize=8)
        axis.set_ylabel("items per second (log scale)", fontsize=8)
    for axis in axes.flat[len(chart.panels) :]:
        axis.set_axis_off()
    figure.text(0.008, 1 - 0.24 / total, chart.title, fontsize=12, fontweight="bold", va="baseline")
    shown = [store for store in COLUMNS if any(store in panel.points for panel in chart.panels)]
    handles = [
        pyplot.Line2D([], [], color=LINES[store][0], marker=LINES[store][1], dashes=LINES[store][2] or (None, None),
                      linewidth=2.4 if store == OURS else 1.3, markersize=5.5, label=_plain(store))
        for store in shown
    ]  # fmt: skip
    free = axes.flat[len(chart.panels)]
    free.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 1.05), frameon=False, ncols=2, fontsize=9,
                handlelength=3.2, title="stores", alignment="left")  # fmt: skip
    return figure


def _plain(store: str) -> str:
    return NAMES.get(store, store).replace("`", "")
