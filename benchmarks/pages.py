"""Generate the benchmark pages and charts of the documentation from the results.

They are in ``results.json``, ``commit_cost.json`` and ``flush_cost.json`` in ``benchmarks/``.

Usage: ``python -m benchmarks.pages``. With ``--check`` nothing is written, and the command fails if a file differs from
what it would generate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import charts, commit_cost, flush_cost, tables
from benchmarks.results import SavedResults

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGES = HERE.parent / "docs" / "benchmarks"
README = HERE.parent / "README.md"
# Where the table of the README begins and ends.
BEGIN, END = "<!-- python -m benchmarks.pages -->\n", "<!-- end -->\n"


def main() -> str | None:
    """Write all pages and charts, or check them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail and name the files that are stale")
    if parser.parse_args().check:
        stale = stale_files()
        return f"Not up to date: {', '.join(stale)}. Run: python -m benchmarks.pages" if stale else None
    PAGES.mkdir(parents=True, exist_ok=True)
    measured = tables.Measured(SavedResults.load(RESULTS))
    for name, text in pages(measured).items():
        (PAGES / name).write_text(text)
    README.write_text(readme(README.read_text(), measured))
    wanted = charts.charts(measured)
    for file in PAGES.glob("*.svg"):
        if file.name not in wanted:
            file.unlink()
    for name, chart in wanted.items():
        if charts.mark(PAGES / name) != chart.digest():
            charts.draw(chart, PAGES / name)
    return None


def pages(measured: tables.Measured) -> dict[str, str]:
    """Return the text of each page by file name."""
    commits = commit_cost.CommitCosts.load(commit_cost.PUBLISHED) if commit_cost.PUBLISHED.exists() else None
    flushes = flush_cost.FlushCosts.load(flush_cost.PUBLISHED) if flush_cost.PUBLISHED.exists() else None
    return {"index.md": tables.main_page(measured), "details.md": tables.details_page(measured, commits, flushes)}


def readme(text: str, measured: tables.Measured) -> str:
    """Return the README with a new table."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables.readme_table(measured)}\n\n{END}{rest.partition(END)[2]}"


def stale_files() -> list[str]:
    """Return the names of the files that differ from what would be generated."""
    measured = tables.Measured(SavedResults.load(RESULTS))
    stale = [
        name
        for name, text in pages(measured).items()
        if not (PAGES / name).exists() or (PAGES / name).read_text() != text
    ]
    text = README.read_text()
    stale += [README.name] if text != readme(text, measured) else []
    wanted = charts.charts(measured)
    stale += [name for name, chart in wanted.items() if charts.mark(PAGES / name) != chart.digest()]
    return stale + [file.name for file in PAGES.glob("*.svg") if file.name not in wanted]


if __name__ == "__main__":
    sys.exit(main())
