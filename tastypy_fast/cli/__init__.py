"""Start the command ``tastypy-fast``. Its requirements come with the extra ``cli`` and are imported when it runs."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]

_EXTRA = ("click", "rich", "plotext", "tqdm", "zstandard")


def main() -> int:
    """Run the command with the arguments of this process, and return its exit code."""
    # A detached program may have closed its standard streams. Opening files gives them the lowest free descriptors, so
    # open /dev/null in their places.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (open until the process ends)
    try:
        from tastypy_fast.cli.app import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # during the imports
        return 130
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _EXTRA and "tastypy_fast[" not in str(error):
            raise
        # An error without a module name comes from this package, and its text already names the package to install.
        text = f"this needs {name}: pip install 'tastypy_fast[cli]'" if name else str(error)
        print(f"tastypy-fast: {text}", file=sys.stderr)
        return 1
