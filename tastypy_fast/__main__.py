"""``python -m tastypy_fast``: the command ``tastypy-fast``."""

import sys

from tastypy_fast.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
