"""The layout of a block of statuses, for those who read whole blocks in Python. ``_statusblock`` says what it means."""

from __future__ import annotations

from struct import Struct

__all__ = ["ABORTED", "BLOCK", "CLAIMED", "DONE", "HEAD", "PRESENT", "STATUSES", "TRIES_SHIFT"]

# Tasks in a block: the one with order number n has the entry n % BLOCK of the block n // BLOCK.
BLOCK = 500
# How many tasks there are, are done, are aborted, were tried, are neither done nor aborted; and three that are unused.
HEAD = Struct("=8H")
STATUSES = Struct(f"{HEAD.format}{BLOCK}I")
# The bits of an entry; above them stands how often the task was tried.
PRESENT, DONE, ABORTED, CLAIMED = 1, 2, 4, 8
TRIES_SHIFT = 4
