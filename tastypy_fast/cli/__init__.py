"""The command ``tastypy-fast``. What it is built on comes with an extra, and is imported when it runs."""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = ("click", "rich", "plotext", "zstandard")


def main() -> int:
    """Run the command with the arguments of this process. Returns its exit code."""
    try:
        from tastypy_fast.cli.group import run

        return run(sys.argv[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(f"tastypy-fast: this needs {error.name}, which comes with pip install 'tastypy_fast[cli]'",
              file=sys.stderr)
        return 1
