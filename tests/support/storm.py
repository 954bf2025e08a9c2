"""Distinguish an ordinary run of the tests from a storm."""

from __future__ import annotations


def is_storm(config):
    """Whether the run selects the tests that are marked ``storm``."""
    return "storm" in config.option.markexpr
