"""Fixtures for the tests of the engine and its files."""

from __future__ import annotations

import pytest


@pytest.fixture
def needs_disk():
    return True
