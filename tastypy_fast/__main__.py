"""Run the command ``tastypy-fast`` as ``python -m tastypy_fast``."""

import sys

from tastypy_fast.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
