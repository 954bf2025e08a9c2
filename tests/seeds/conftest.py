"""Fixtures for the examples of tastypy's documentation."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """The examples use relative paths."""
    monkeypatch.chdir(tmp_path)
