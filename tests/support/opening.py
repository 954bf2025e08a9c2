"""Helpers for the tests of opening."""

from __future__ import annotations


def tree(path):
    """All files below a folder, with their contents."""
    return {
        str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None for entry in path.rglob("*")
    }
