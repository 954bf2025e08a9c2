"""What the tests of flush points need: the disk after a power cut, and a look at the flush point."""

from __future__ import annotations

import shutil


def cut_power(path, to):
    """Copy the folder of an open store, as a disk on which everything has arrived."""
    shutil.copytree(path, to, ignore=shutil.ignore_patterns("lock.mdb", "workers"))
    return to


def slot_of(store):
    return store._store._points.slot


def note_of(store):
    return store._store._points.notes.read()
