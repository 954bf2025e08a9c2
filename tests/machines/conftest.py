"""Keep the stores of random operations in memory."""

from __future__ import annotations

import os
import tempfile

import pytest


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch):
    """Where the system has files in memory: that each flush reaches a disk is not what is tested here."""
    if os.access("/dev/shm", os.W_OK):
        monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
