"""Numbers with very many digits."""

from __future__ import annotations

import contextlib
import sys


@contextlib.contextmanager
def digits_allowed(count):
    """Values for sys.set_int_max_str_digits(); 0 means no limit."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(count)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)
