"""The command ``tastypy-fast``. What it is built on comes with an extra, and is imported when it runs."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]

_EXTRA = ("click", "rich", "plotext", "zstandard")


def main() -> int:
    """Run the command with the arguments of this process. Returns its exit code."""
    # A program that has detached itself may have closed them. (The lowest numbers are free, so they are theirs again.)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (as long as the process)
    try:
        from tastypy_fast.cli.app import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # before there was a command
        return 130
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _EXTRA and "tastypy_fast[" not in str(error):
            raise
        # (one that has no name says itself what to install)
        text = f"this needs {name}: pip install 'tastypy_fast[cli]'" if name else str(error)
        print(f"tastypy-fast: {text}", file=sys.stderr)
        return 1
