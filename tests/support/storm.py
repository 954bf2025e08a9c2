"""Tell an ordinary run of the tests from a long one."""

from __future__ import annotations


def is_storm(config):
    """Whether what is marked ``storm`` was asked for by that name."""
    return "storm" in config.option.markexpr
