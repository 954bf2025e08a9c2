"""Start the command ``tastypy-fast``. Its requirements come with the extra ``cli`` and are imported when it runs."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]

_EXTRA = ("click", "rich", "plotext", "tqdm", "zstandard")


def _replace_closed_streams() -> None:
    """Open /dev/null in the place of standard streams that the parent has closed.

    Otherwise the files of the store would get their descriptors, which are the lowest free ones.
    """
    # What this command prints must not be lost unnoticed, and a closed stdin is no empty input. So both fail: writing
    # to a descriptor that is only for reading, and the reverse.
    for name, access, mode in (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_RDWR, "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, access)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def main() -> int:
    """Run the command with the arguments of this process, and return its exit code."""
    _replace_closed_streams()
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
