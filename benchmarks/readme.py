"""Makes the README's tables, RESULTS.md and the pictures from results.json: ``python -m benchmarks.readme``.

With ``--check`` it changes nothing, and fails when one of them is not what it would make; for that it needs no library,
as a picture holds the digest of what it was drawn from.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import pictures, tables
from benchmarks.results import Saved

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
FULL = HERE / "RESULTS.md"
README = HERE.parent / "README.md"
PLOTS = HERE / "plots"
BEGIN = "<!-- made by python -m benchmarks.readme: begin -->"
END = "<!-- made by python -m benchmarks.readme: end -->"


def main() -> str | None:
    """Write, or say what differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what is not up to date, and fail")
    if parser.parse_args().check:
        stale = out_of_date()
        return f"Not made from {RESULTS.name}: {', '.join(stale)}. Run: python -m benchmarks.readme" if stale else None
    measured = tables.Measured(Saved.load(RESULTS))
    for file, text in texts(measured).items():
        file.write_text(text)
    wanted = pictures.pictures(measured)
    for file in PLOTS.glob("*.svg"):
        if file.name not in wanted:
            file.unlink()
    for name, picture in wanted.items():
        if pictures.mark(PLOTS / name) != picture.digest():
            pictures.draw(picture, PLOTS / name)
    return None


def texts(measured: tables.Measured) -> dict[Path, str]:
    """What the files should hold."""
    before, begin, rest = README.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{README} has no place for the tables: {BEGIN} and {END}")
    made = f"{before}{BEGIN}\n\n{tables.readme(measured)}\n\n{END}{after}"
    return {README: made, FULL: tables.full(measured)}


def out_of_date() -> list[str]:
    """The files that are not as they would be made."""
    measured = tables.Measured(Saved.load(RESULTS))
    stale = [file.name for file, text in texts(measured).items() if not file.exists() or file.read_text() != text]
    wanted = pictures.pictures(measured)
    stale += [name for name, picture in wanted.items() if pictures.mark(PLOTS / name) != picture.digest()]
    return stale + [file.name for file in PLOTS.glob("*.svg") if file.name not in wanted]


if __name__ == "__main__":
    sys.exit(main())
