"""Distinguish an ordinary run of the tests from a storm, and set the length of a storm."""

from __future__ import annotations

import os

# How many times as long random histories are in a storm.
LENGTH = float(os.environ.get("TASTYPY_FAST_STORM", "1"))


def is_storm(config):
    """Whether the run selects the tests that are marked ``storm``."""
    return "storm" in config.option.markexpr
