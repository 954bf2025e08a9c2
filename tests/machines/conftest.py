"""Keep the stores of random operations in memory."""

from __future__ import annotations

import os
import tempfile

import pytest


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch):
    """Use a file system in memory, because these tests do not check that flushes reach a disk."""
    if os.access("/dev/shm", os.W_OK):
        monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
